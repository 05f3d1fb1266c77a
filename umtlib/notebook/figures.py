"""Drawings that explain: curves, connections, the latent, a choice from a distribution.

As in `umtlib.notebook.plots`, everything returns a `matplotlib.figure.Figure`, to be the last line
of a notebook's cell. Notebooks: ``02_the_network``, ``03_training``, ``04_generation``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from umtlib.audio import SAMPLE_RATE


def curves(panels: Mapping[str, Mapping[str, tuple]], xlabel: str, ylabel: str = "") -> Figure:
    """Draw curves, in one panel or several side by side.

    Parameters
    ----------
    panels : mapping
        By title: the panel's curves by label, each a pair of x and y values. A curve of only two
        points is a yardstick, and drawn as a dotted line.
    xlabel, ylabel : str
        Of every panel.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for label, (x, y) in lines.items():
            style = {"color": "gray", "ls": ":"} if len(x) == 2 else {"marker": "."}
            axes.plot(x, y, label=label, **style if len(x) < 100 else {})
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.legend()
    return figure


def connections(dilations: Sequence[int], samples: int = 16) -> Figure:
    """Draw which inputs one output of stacked causal convolutions of kernel 2 depends on.

    Parameters
    ----------
    dilations : sequence of int
        From the lowest layer to the highest.
    samples : int
        How many moments to show, the last of which is the output's.
    """
    figure = Figure(figsize=(11, 0.9 * len(dilations) + 1.2), layout="constrained")
    axes = figure.subplots()
    reached = {0}
    for height in range(len(dilations), -1, -1):
        time = np.arange(1 - samples, 1)
        used = np.isin(time, list(reached))
        axes.scatter(time, np.full(samples, height), c=np.where(used, "tab:blue", "lightgray"))
        if height:
            step = dilations[height - 1]
            for t in reached:
                for source in (t, t - step):
                    axes.plot([source, t], [height - 1, height], color="tab:blue", lw=1, zorder=0)
            reached |= {t - step for t in reached}
    axes.set_yticks(
        range(len(dilations) + 1), ["input", *(f"after dilation {d}" for d in dilations)]
    )
    axes.set_xlim(0.7 - samples, 0.7)
    axes.set_xlabel("time (samples; 0 is the output drawn in blue)")
    axes.spines[:].set_visible(False)
    return figure


def latent(frames: np.ndarray, pool: int, moments: Sequence[float] = ()) -> Figure:
    """Draw a latent as an image: one row a channel, one column a frame.

    Each channel is shown relative to its own mean and spread, so that its changes are seen.

    Parameters
    ----------
    frames : np.ndarray
        Shape (latent, F).
    pool : int
        Samples per frame.
    moments : sequence of float
        Seconds at which to draw a line, such as the onsets of notes.
    """
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    axes = figure.subplots()
    seconds = frames.shape[1] * pool / SAMPLE_RATE
    centred = frames - frames.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True) + 1e-6
    image = axes.imshow(
        centred / spread,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-2.5,
        vmax=2.5,
        extent=(0, seconds, len(frames) - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.vlines(moments, -0.5, len(frames) - 0.5, color="black", lw=0.8, ls=":")
    axes.set(xlabel="time (s)", ylabel="latent channel")
    figure.colorbar(image, ax=axes, label="standard deviations")
    return figure


def choice(probabilities: np.ndarray, uniform: float, code: int) -> Figure:
    """Draw how a uniform number picks a code from a distribution over codes.

    Parameters
    ----------
    probabilities : np.ndarray
        Shape (256,).
    uniform : float
        In [0, 1).
    code : int
        The code that it picks.
    """
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
