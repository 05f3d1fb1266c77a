"""Pictures of sound: waveforms and log-frequency spectrograms.

Everything here draws on `matplotlib.figure.Figure` objects, never on pyplot's global state, so it
serves the command line, notebooks and servers alike; a figure is drawn if it is the last line of a
notebook's cell. Notebook: ``01_quickstart``.
"""

import os
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from umtlib.audio import SAMPLE_RATE, replacing
from umtlib.files.names import readable

LOWEST, PER_OCTAVE, ROWS = 55.0, 36, 258  # rows of a spectrogram: 55 to 7,757 Hz
RANGE_DB = 70  # of the colour scale
SILENCE_DB = -90  # a sound without any point above this is drawn black
_WINDOW = 4096  # samples of the longest analysis window: 256 ms, for the lowest notes
_COLUMNS = 800  # of a picture, however long the audio: about its pixels
_DPI = 110


def spectrogram(waveform: np.ndarray, columns: int = _COLUMNS) -> np.ndarray:
    """Return a spectrogram whose rows are spaced evenly in pitch (a constant-Q transform).

    Low notes are analysed with long windows and high ones with short windows. The time it takes
    depends on the number of columns only, not on the length of the audio.

    Parameters
    ----------
    waveform : np.ndarray
        Shape (T,), in [-1, 1], 16 kHz.
    columns : int
        Moments to analyse, evenly spaced over the whole length.

    Returns
    -------
    np.ndarray
        Level in dB, shape (258, columns); a sine of amplitude 1 reads 0 dB. The row r is the
        frequency 55 * 2 ** (r / 36) Hz.
    """
    centres = ((np.arange(columns) + 0.5) * len(waveform) / columns).astype(int)
    padded = np.pad(waveform.astype(np.float32), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[centres]
    spectra = np.fft.rfft(frames, axis=1).astype(np.complex64).T
    found = [np.abs(tones @ spectra[first : first + tones.shape[1]]) for first, tones in kernels()]
    return 20 * np.log10(np.concatenate(found) + 1e-8)


@lru_cache
def kernels() -> list[tuple[int, np.ndarray]]:
    """Return windowed complex tones, as spectra, an octave at a time.

    Of each octave the first bin of the spectrum that counts, and the tones, one for each row, from
    there on, shape (rows, bins).
    """
    frequency = LOWEST * 2 ** (np.arange(ROWS) / PER_OCTAVE)
    time = (np.arange(_WINDOW) - _WINDOW / 2) / SAMPLE_RATE
    # 34 periods tell neighbouring notes apart; more time than that blurs the rhythm.
    width = np.clip(34 / frequency, 0.032, _WINDOW / SAMPLE_RATE)[:, None]
    window = np.where(np.abs(time) < width / 2, 1 + np.cos(2 * np.pi * time / width), 0)
    window /= window.sum(axis=1, keepdims=True)
    tones = 2 * window * np.exp(2j * np.pi * frequency[:, None] * time)
    # By Parseval's theorem the product with a frame can be taken between the spectra; the
    # negative frequencies of the tones are empty, so half of each spectrum is enough.
    spectra = (np.fft.fft(tones, axis=1).conj() / _WINDOW)[:, : _WINDOW // 2 + 1]
    octaves = []
    for row in range(0, ROWS, PER_OCTAVE):
        octave = spectra[row : row + PER_OCTAVE].astype(np.complex64)
        bins = np.flatnonzero(np.abs(octave).max(axis=0) > 3e-6 * np.abs(octave).max())
        octaves.append((int(bins[0]), octave[:, bins[0] : bins[-1] + 1].copy()))
    return octaves


class Row(NamedTuple):
    """What a picture shows of a sound."""

    seconds: float  # its length
    low: np.ndarray  # the extremes in each of some columns, shape (columns,)
    high: np.ndarray
    levels: np.ndarray  # see `spectrogram`


def row(waveform: np.ndarray) -> Row:
    """Return what a picture shows of a waveform, shape (T,), in [-1, 1], 16 kHz."""
    starts = np.unique(np.linspace(0, len(waveform), _COLUMNS, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    return Row(len(waveform) / SAMPLE_RATE, low, high, spectrogram(waveform))


def comparison(waveforms: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draw waveform and spectrogram of several sounds under each other, on common scales.

    The sounds are of shape (T,), in [-1, 1], 16 kHz, the input first.
    """
    return drawn({name: row(waveform) for name, waveform in waveforms.items()}, title)


def drawn(rows: Mapping[str, Row], title: str = "") -> Figure:
    """Draw what `comparison` does, of sounds that are analysed already.

    Colours are dB below a sound's own loudest point, so that quiet and loud sounds compare.
    """
    height = 1.9 * len(rows) + 1.0
    figure = Figure(figsize=(13, height))
    bottom, top = 0.55 / height, 1 - 0.75 / height  # matplotlib's own layouts draw all of it twice
    axes = figure.subplots(
        len(rows), 2, sharex=True, sharey="col", squeeze=False, width_ratios=(2, 3),
        gridspec_kw={"left": 0.055, "right": 0.92, "bottom": bottom, "top": top, "hspace": 0.3},
    )  # fmt: skip
    for (left, right), (name, row) in zip(axes, rows.items(), strict=True):
        times = np.linspace(0, row.seconds, len(row.low), endpoint=False)
        left.fill_between(times, row.low, row.high, step="post", color="tab:blue", lw=0.4)
        left.set(ylabel="amplitude", xlim=(0, row.seconds))
        left.set_title(_plain(name), loc="left", fontweight="bold", parse_math=False, usetex=False)
        left.grid(alpha=0.3)
        image = draw_spectrogram(right, row.levels, row.seconds)
    right.yaxis.set_major_locator(MultipleLocator(2))  # labels take most of the time
    left.yaxis.set_major_locator(MaxNLocator(4))
    for last in axes[-1]:
        last.set_xlabel("time (s)")
        last.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    scale = figure.add_axes((0.935, bottom, 0.01, top - bottom))
    figure.colorbar(image, cax=scale, label="level (dB, loudest = 0)")
    figure.suptitle(_plain(title), parse_math=False, usetex=False)
    return figure


def spectrograms(waveforms: Mapping[str, np.ndarray], title: str = "", columns: int = 3) -> Figure:
    """Draw the spectrograms alone, on common scales: a small picture of many short sounds.

    The sounds are as for `comparison`; so many columns of them stand beside each other.
    """
    rows = -(-len(waveforms) // columns)
    figure = Figure(figsize=(10, 1.5 * rows + 1.0), dpi=80, layout="constrained")
    places = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in places.flat[len(waveforms) :]:
        axes.set_visible(False)
    for axes, (name, waveform) in zip(places.flat, waveforms.items(), strict=False):
        image = draw_spectrogram(axes, spectrogram(waveform), len(waveform) / SAMPLE_RATE)
        axes.set_title(_plain(name), fontsize="medium", parse_math=False, usetex=False)
        axes.set(xlabel="time (s)", ylabel="frequency (Hz)")
        axes.label_outer()
    figure.colorbar(image, ax=places, label="level (dB)")
    figure.suptitle(_plain(title), parse_math=False, usetex=False)
    return figure


def draw_spectrogram(axes: Axes, levels: np.ndarray, seconds: float) -> AxesImage:
    """Draw a spectrogram, in dB below the sound's own loudest point."""
    axes.set_ylabel("frequency (Hz)")
    axes.yaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{LOWEST * 2**y:,.0f}"))
    return axes.imshow(
        levels - max(levels.max(), SILENCE_DB), origin="lower", aspect="auto", cmap="magma",
        vmin=-RANGE_DB, vmax=0, extent=(0, seconds, 0, ROWS / PER_OCTAVE),
        interpolation="bilinear",  # files a third smaller than of hard pixels
    )  # fmt: skip


def _plain(name: str) -> str:
    """Return a name as a picture can show it: in one line that is not too long."""
    name = readable(name)
    return name if len(name) <= 100 else f"{name[:49]}…{name[-50:]}"


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file, which appears only when it is complete."""
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks it: a box is drawn
        figure.savefig(part, dpi=_DPI, format="png", pil_kwargs={"compress_level": 1})
