"""The report as a picture; on `matplotlib.figure.Figure`, never on pyplot's global state."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure


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
