"""Draw the picture of docs/sound.md, truth beside translation, and write its sounds.

::

    python scripts/pictures.py

An excerpt of data/mini that its own domain plays is translated into the others. The onsets of its
score are marked.
"""

from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure
from PIL import Image

import umtlib
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation.dynamics import beginnings
from umtlib.evaluation.features import excerpt
from umtlib.notebook import plots

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "sound"
EXCERPT, SECONDS = "bach_organ-00", 5


def main() -> None:
    """Translate, draw and write."""
    pair = next(pair for pair in read_pairs(ROOT / "data" / "mini") if pair.id == EXCERPT)
    samples = pair.audio().astype(np.float32)[: SECONDS * SAMPLE_RATE] / 32_768
    made = umtlib.translate(umtlib.load(), samples, SAMPLE_RATE)
    write(OUT / "after.ogg", made["beethoven_piano"])
    write(OUT / "input.ogg", samples)
    true = {name: pair.audio(name).astype(np.float32)[: len(samples)] / 32_768 for name in made}
    write(OUT / "truth.ogg", true["beethoven_piano"])
    figure = draw(true, made, beginnings(pair.notes))
    figure.savefig(OUT / "six.png", dpi=54)
    picture = Image.open(OUT / "six.png").convert("RGB")
    picture.quantize(64, Image.Quantize.MAXCOVERAGE).save(OUT / "six.png", optimize=True)


def draw(true: dict, made: dict, onsets: np.ndarray) -> Figure:
    """Return the levels and spectrograms of six domains: the truth on the left."""
    figure = Figure(figsize=(13, 1.7 * len(made) + 0.8), layout="constrained")
    rows = figure.subplots(len(made), 2, sharex=True, sharey=True)
    for (left, right), name in zip(rows, made, strict=True):
        for axes, what, wave in ((left, "true rendering", true), (right, "translation", made)):
            image = plots.draw_spectrogram(
                axes, plots.spectrogram(wave[name]), len(wave[name]) / SAMPLE_RATE
            )
            axes.set_title(f"{name}: {what}", loc="left", fontsize="medium")
            axes.vlines(onsets[onsets < SECONDS], 6.9, 7.2, color="white", lw=1.2)
            level = excerpt(wave[name]).level
            beside = axes.twinx()
            beside.plot(np.arange(len(level)) / 100, level, color="cyan", lw=0.8)
            beside.set_ylim(-120, 30)
            beside.set_axis_off()
    for axes in rows[-1]:
        axes.set(xlabel="time (s)", xlim=(0, SECONDS))
    figure.colorbar(image, ax=rows, label="level (dB, loudest = 0)", aspect=60)
    return figure


def write(path: Path, waveform: np.ndarray) -> None:
    """Write a small file that browsers play."""
    soundfile.write(path, waveform, SAMPLE_RATE, format="OGG", subtype="OPUS")


if __name__ == "__main__":
    main()
