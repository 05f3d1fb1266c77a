"""The report as pictures; on `matplotlib.figure.Figure`, never on pyplot's global state."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

_COLOURS = {"translation": "tab:blue", "input": "tab:orange", "truth": "tab:green"}
_TRUTH = {"log_mel": "log-mel distance, dB", "timbre": "timbre distance"}


def draw(report: Mapping) -> dict[str, Figure]:
    """Draw a report: figures by name, of what was not left out."""
    found = report["results"]
    figures = {"systems": systems(found["systems"])}
    if found.get("recogniser"):
        figures["recogniser"] = confusion(found["recogniser"])
    if any(found["systems"]["translation"][metric] is not None for metric in _TRUTH):
        figures["truth"] = truth(found["pairs"])
    return figures


def truth(pairs: Mapping) -> Figure:
    """Draw, per target, how near translation and input are to the truth; each point is a source."""
    targets = list(next(iter(pairs.values())))
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), _TRUTH.items(), strict=True):
        for offset, (system, colour) in zip((0, -0.22, 0.22), _COLOURS.items(), strict=True):
            points = [
                (targets.index(target) + offset, value)
                for source, cells in pairs.items()
                for target, cell in cells.items()
                if source != target and (value := cell[system][metric]) is not None
            ]
            axes.plot(*np.reshape(points, (-1, 2)).T, "o", color=colour, ms=4, label=system)
        axes.set_xticks(range(len(targets)), targets, rotation=30, ha="right", fontsize=8)
        axes.set(ylim=(0, None), ylabel=title)
    axes.legend(fontsize=8)
    return figure


def confusion(found: Mapping) -> Figure:
    """Draw the recogniser's confusion matrices, one per system."""
    figure = Figure(figsize=(5.2 * len(found), 4.6), layout="constrained")
    row = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (system, result) in zip(row, found.items(), strict=True):
        names, counts = result["domains"], np.array(result["confusion"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, vmin=0, vmax=1)
        for (y, x), count in np.ndenumerate(counts):
            ink = "k" if shares[y, x] > 0.6 else "w"
            axes.text(x, y, count, ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(f"{system}: target (rows), called (columns)", fontsize=9)
    return figure


def systems(found: Mapping) -> Figure:
    """Draw the paper's pitch measure beside the ones that tell systems apart."""
    metrics = ("ncc", "ncc_centred", "chroma", "frame_f")
    found = {name: values for name, values in found.items() if values["ncc"] is not None}
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for place, (system, values) in enumerate(found.items()):
        axes.bar(
            np.arange(len(metrics)) + 0.11 * (place - 3),
            [np.nan if values[m] is None else values[m] for m in metrics], 0.1, label=system,
            hatch=("", "//", "..", "xx", "--", "oo", "\\\\")[place % 7], edgecolor="white",
        )  # fmt: skip
    axes.axhline(0, color="k", lw=0.5)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylabel("1: like the reference")
    figure.legend(loc="outside upper center", fontsize=8, ncols=max(1, len(found)))
    return figure
