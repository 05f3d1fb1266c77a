"""The report as pictures; on `matplotlib.figure.Figure`, never on pyplot's global state."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

_COLOURS = {"translation": "tab:blue", "input": "tab:orange", "truth": "tab:green"}


def draw(report: Mapping) -> dict[str, Figure]:
    """Draw a report: figures by name."""
    results = report["results"]
    return {
        "truth": truth(results["pairs"]),
        "recogniser": confusion(results["recogniser"]),
        "systems": systems(results["systems"]),
    }


def truth(pairs: Mapping) -> Figure:
    """Draw, per target, how near translation and input are to the true rendering.

    Each point is a source; lower is nearer. The translation belongs between the other two.
    """
    metrics = {"log_mel": "log-mel distance, dB", "timbre": "timbre distance"}
    targets = list(next(iter(pairs.values())))
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (metric, title) in zip(
        figure.subplots(1, len(metrics)), metrics.items(), strict=True
    ):
        for offset, (system, colour) in zip((0, -0.22, 0.22), _COLOURS.items(), strict=True):
            for place, target in enumerate(targets):
                values = [c[target][system][metric] for s, c in pairs.items() if s != target]
                values = [value for value in values if value is not None]
                label = system if place == 0 else None
                axes.plot(
                    [place + offset] * len(values), values, "o", color=colour, ms=4, label=label
                )
        axes.set_xticks(range(len(targets)), targets, rotation=30, ha="right", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(title)
    axes.legend(fontsize=8)
    return figure


def confusion(found: Mapping) -> Figure:
    """Draw the recogniser's confusion matrices, one per system."""
    figure = Figure(figsize=(5.2 * len(found), 4.6), layout="constrained")
    for axes, (system, result) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        names, counts = result["domains"], np.array(result["confusion"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ink = "k" if shares[row, column] > 0.6 else "w"
            axes.text(column, row, count, ha="center", va="center", color=ink, fontsize=8)
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
    for place, system in enumerate(found):
        values = [found[system][metric] for metric in metrics]
        heights = [np.nan if value is None else value for value in values]
        axes.bar(np.arange(len(metrics)) + 0.11 * (place - 3), heights, 0.1, label=system)
    axes.axhline(0, color="k", lw=0.5)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylabel("1: like the reference")
    figure.legend(loc="outside upper center", fontsize=8, ncols=len(found))
    return figure
