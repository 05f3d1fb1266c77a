"""Drawings that explain: curves, connections, the latent, a choice from a distribution.

As in `umtlib.notebook.plots`, everything returns a `matplotlib.figure.Figure`, to be the last line
of a notebook's cell. Notebooks: ``02_data_preparation`` to ``06_generation``.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from umtlib.audio import SAMPLE_RATE


def curves(panels: Mapping[str, Mapping[str, tuple]], xlabel: str, ylabel: str = "") -> Figure:
    """Draw curves, in one panel or several side by side.

    A panel, by its title, has curves by their labels, each a pair of x and y values. A curve of
    only two points is a yardstick, and drawn as a dotted line.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for number, (label, (x, y)) in enumerate(lines.items()):
            mark = {"marker": "os^Dvx"[number % 6], "ms": 4}  # told apart in grey
            style = {"color": "gray", "ls": ":"} if len(x) == 2 else mark
            dense = {"ls": ("-", "--", "-.")[number % 3]}  # markers would cover it
            axes.plot(x, y, label=label, **style if len(x) < 100 else dense)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.legend()
    return figure


def bars(
    series: Mapping[str, Mapping[str, float]],
    ylabel: str,
    title: str = "",
    chance: Sequence[float] = (),
) -> Figure:
    """Draw groups of bars; each series has a hatch of its own, to be told apart in grey.

    A series, by its label, has heights by the name of their group, the same groups in all. Dotted
    lines show what guessing would reach in each group: ``chance``.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots()
    groups, places = beside(series)
    for number, (label, heights) in enumerate(series.items()):
        left, width = places[label]
        drawn = axes.bar(
            left, heights.values(), 0.95 * width, label=label,
            hatch=("", "//", "..", "xx", "--")[number % 5], edgecolor="white",
        )  # fmt: skip
        axes.bar_label(drawn, fmt="%.2f")
    for place, value in enumerate(chance):
        axes.hlines(value, place - 0.45, place + 0.45, color="black", ls=":")
    axes.set(title=title, ylabel=ylabel, xticks=range(len(groups)), xticklabels=groups)
    axes.margins(y=0.15)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beside(
    groups: Mapping[str, Mapping[str, float]],
) -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the names of all groups, and by group the places and widths of its bars.

    The n-th name's bars lie around n, beside each other, and fill .8 together.
    """
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    places = {}
    for label, values in groups.items():
        sharing = [[other for other in groups if name in groups[other]] for name in values]
        widths = np.array([0.8 / len(some) for some in sharing])
        middles = np.array([some.index(label) - (len(some) - 1) / 2 for some in sharing])
        places[label] = np.array([names.index(name) for name in values]) + middles * widths, widths
    return names, places


def run(lines: Sequence[Mapping], domains: Sequence[str]) -> Figure:
    """Draw the log of a run: reconstruction, classifier, and what a wrong latent costs.

    The lines are those of ``log.jsonl``, or so many of them as there are.
    """
    steps = [0, max([1, *(line["step"] for line in lines)])]
    found = {name: _curve(lines, lambda line, n=name: line.get(n)) for name in domains}
    cost = {name: _curve(lines, lambda line, n=name: _cost(line, n)) for name in domains}
    panels = {
        "reconstruction": found | {"ln 256: knows nothing": (steps, [math.log(256)] * 2)},
        "classifier": {"loss": _curve(lines, lambda line: line.get("classifier"))}
        | {f"ln {len(domains)}: guesses": (steps, [math.log(len(domains))] * 2)},
        "what a wrong latent costs": cost | {"nothing": (steps, [0, 0])},
    }
    return curves(panels, "step", "nats")


def _curve(lines: Sequence[Mapping], value: Callable) -> tuple[list, list]:
    known = [line for line in lines if value(line) is not None]
    return [line["step"] for line in known], [value(line) for line in known]


def _cost(line: Mapping, name: str) -> float | None:
    return line["nats_wrong_latent"][name] - line["nats"][name] if "nats" in line else None


def live(domains: Sequence[str]) -> Callable[[dict], None]:
    """Return an ``on_report`` for `umtlib.runs.train` that draws `run` anew with every line."""
    lines: list[dict] = []
    shown = display(run(lines, domains), display_id=True)

    def show(line: dict) -> None:
        lines.append(line)
        shown.update(run(lines, domains))

    return show


def connections(dilations: Sequence[int], samples: int = 16) -> Figure:
    """Draw which inputs one output of stacked causal convolutions of kernel 2 depends on.

    Dilations are named from the lowest layer to the highest. Of the samples that are shown the last
    is the output's.
    """
    figure = Figure(figsize=(11, 0.9 * len(dilations) + 1.2), layout="constrained")
    axes = figure.subplots()
    time, reached = np.arange(1 - samples, 1), {0}
    for height in range(len(dilations), -1, -1):
        colours = np.where(np.isin(time, list(reached)), "tab:blue", "lightgray")
        axes.scatter(time, np.full(samples, height), c=colours)
        step = dilations[height - 1] if height else 0
        for t, back in itertools.product(reached, (0, step) if height else ()):
            axes.plot([t - back, t], [height - 1, height], color="tab:blue", lw=1, zorder=0)
        reached |= {t - step for t in reached}
    names = ["input", *(f"after dilation {d}" for d in dilations)]
    axes.set_yticks(range(len(names)), names)
    axes.set(
        title="The inputs that one output depends on", xlim=(0.7 - samples, 0.7),
        xlabel="time (samples; 0 is the output drawn in blue)",
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    return figure


def latent(frames: np.ndarray, pool: int, moments: Sequence[float] = ()) -> Figure:
    """Draw a latent as an image: one row a channel, one column a frame.

    Each channel is shown relative to its own mean and spread, so that its changes are seen. Frames
    are of shape (latent, F), of ``pool`` samples each. At ``moments``, in seconds, such as the
    onsets of notes, there are lines.
    """
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    axes = figure.subplots()
    seconds = frames.shape[1] * pool / SAMPLE_RATE
    centred = frames - frames.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True) + 1e-6
    image = axes.imshow(
        centred / spread, aspect="auto", cmap="viridis", vmin=-2.5, vmax=2.5,
        extent=(0, seconds, len(frames) - 0.5, -0.5), interpolation="nearest",
    )  # fmt: skip
    axes.vlines(moments, -0.5, len(frames) - 0.5, color="black", lw=0.8, ls=":")
    axes.set(xlabel="time (s)", ylabel="latent channel")
    figure.colorbar(image, ax=axes, label="standard deviations")
    return figure


def choice(probabilities: np.ndarray, uniform: float, code: int) -> Figure:
    """Draw how a uniform number in [0, 1) picks a code from its probabilities, shape (256,)."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    codes, sums = np.arange(len(probabilities)), np.cumsum(probabilities)
    left, right = np.searchsorted(sums, (0.001, 0.999)) + (-15, 15)
    top.bar(codes, probabilities, width=1.0, color="tab:blue")
    top.bar(code, probabilities[code], width=1.0, color="tab:orange")
    top.set_ylabel("probability")
    bottom.step(codes - 0.5, sums, where="post", color="tab:blue")
    bottom.hlines(uniform, left, code, color="tab:orange", ls="--")
    bottom.vlines(code, 0, uniform, color="tab:orange", ls="--")
    bottom.annotate(f"u = {uniform:.2f}", (left + 1, uniform + 0.03), color="tab:orange")
    bottom.annotate(f"code {code}", (code + 1, 0.03), color="tab:orange")
    bottom.set(xlabel="code", ylabel="sum so far", xlim=(left, right), ylim=(0, 1.02))
    return figure


STYLES = (  # of bars, to be told apart in grey too
    {"color": "tab:blue"},
    {"color": "lightgray", "hatch": "//"},
    {"color": "tab:orange", "hatch": ".."},
)


def named_bars(groups: Mapping[str, Mapping[str, float]], title: str, ylabel: str) -> Figure:
    """Draw values by name as bars; where several groups have a name, beside each other.

    There are at most three groups, by their labels.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots()
    names, places = beside(groups)
    for (label, values), style in zip(groups.items(), STYLES, strict=False):
        left, widths = places[label]
        axes.bar(left, values.values(), widths, label=label, edgecolor="black", **style)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set(title=title, ylabel=ylabel)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, label: str
) -> Figure:
    """Draw numbers, shape (rows, columns), in shades of grey, the largest the darkest."""
    figure = Figure(figsize=(7.5, 0.35 * len(rows) + 1.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Greys", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label=label)
    return figure
