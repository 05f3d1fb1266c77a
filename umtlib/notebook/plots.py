"""Pictures of sound: waveforms and log-frequency spectrograms.

Everything here draws on `matplotlib.figure.Figure` objects, never on pyplot's global state, so it
serves the command line, notebooks and servers alike. Notebook: ``01_quickstart``.
"""

import os
import warnings
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from umtlib.audio import SAMPLE_RATE, replacing
from umtlib.names import readable

LOWEST, PER_OCTAVE, ROWS = 55.0, 36, 258  # rows of a spectrogram: 55 to 7,757 Hz
RANGE_DB = 70  # of the colour scale
SILENCE_DB = -90  # a sound without any point above this is drawn black
_WINDOW = 4096  # samples of the longest analysis window: 256 ms, for the lowest notes
_COLUMNS = 1200  # of a spectrogram, however long the audio


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
    spectra = np.fft.rfft(frames, axis=1)
    return 20 * np.log10(np.abs(_kernels() @ spectra.T) + 1e-8)


@lru_cache
def _kernels() -> np.ndarray:
    """Windowed complex tones, one for each row, as spectra: shape (rows, _WINDOW / 2 + 1)."""
    frequency = LOWEST * 2 ** (np.arange(ROWS) / PER_OCTAVE)
    time = (np.arange(_WINDOW) - _WINDOW / 2) / SAMPLE_RATE
    # 34 periods tell neighbouring notes apart; more time than that blurs the rhythm.
    width = np.clip(34 / frequency, 0.032, _WINDOW / SAMPLE_RATE)[:, None]
    window = np.where(np.abs(time) < width / 2, 1 + np.cos(2 * np.pi * time / width), 0)
    window /= window.sum(axis=1, keepdims=True)
    tones = 2 * window * np.exp(2j * np.pi * frequency[:, None] * time)
    # By Parseval's theorem the product with a frame can be taken between the spectra; the
    # negative frequencies of the tones are empty, so half of each spectrum is enough.
    return (np.fft.fft(tones, axis=1).conj() / _WINDOW)[:, : _WINDOW // 2 + 1].astype(np.complex64)


def draw_spectrogram(axes: Axes, waveform: np.ndarray):
    """Draw a log-frequency spectrogram, and return the image for a colour bar.

    Colours are dB below the sound's own loudest point, so that quiet and loud sounds compare.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    waveform : np.ndarray
        Shape (T,), in [-1, 1], 16 kHz.
    """
    levels = spectrogram(waveform)
    image = axes.imshow(
        levels - max(levels.max(), SILENCE_DB),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-RANGE_DB,
        vmax=0,
        extent=(0, len(waveform) / SAMPLE_RATE, 0, ROWS / PER_OCTAVE),
        interpolation="bilinear",
    )
    axes.yaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{LOWEST * 2**y:,.0f}"))
    axes.set_ylabel("frequency (Hz)")
    return image


def draw_waveform(axes: Axes, waveform: np.ndarray, columns: int = _COLUMNS) -> None:
    """Draw a waveform of any length as its envelope: the extremes in each of ``columns``.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    waveform : np.ndarray
        Shape (T,), in [-1, 1], 16 kHz.
    columns : int
        How finely.
    """
    starts = np.unique(np.linspace(0, len(waveform), columns, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    axes.fill_between(starts / SAMPLE_RATE, low, high, step="post", color="tab:blue", lw=0.4)
    axes.set_xlim(0, len(waveform) / SAMPLE_RATE)
    axes.set_ylabel("amplitude")
    axes.grid(alpha=0.3)


def comparison(waveforms: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draw waveform and spectrogram of several sounds under each other, on common scales.

    Parameters
    ----------
    waveforms : mapping
        Sounds by name, each of shape (T,), in [-1, 1], 16 kHz; the input first.
    title : str
        Of the whole figure.

    Returns
    -------
    Figure
        For ``savefig``, or to be the last line of a notebook's cell.
    """
    rows = len(waveforms)
    figure = Figure(figsize=(13, 1.9 * rows + 1.0), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, sharey="col", squeeze=False, width_ratios=(2, 3))
    for (left, right), (name, waveform) in zip(axes, waveforms.items(), strict=True):
        draw_waveform(left, waveform)
        image = draw_spectrogram(right, waveform)
        left.set_title(_plain(name), loc="left", fontweight="bold", parse_math=False, usetex=False)
    for bottom in axes[-1]:
        bottom.set_xlabel("time (s)")
        bottom.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    figure.colorbar(image, ax=axes[:, 1], label="level (dB, loudest = 0)", aspect=12 * rows)
    figure.suptitle(_plain(title), parse_math=False, usetex=False)
    return figure


def _plain(name: str) -> str:
    """Return a name as a picture can show it: in one line that is not too long."""
    name = readable(name)
    return name if len(name) <= 100 else f"{name[:49]}…{name[-50:]}"


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file, which appears only when it is complete."""
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks it: a box is drawn
        figure.savefig(part, dpi=110, format="png")
