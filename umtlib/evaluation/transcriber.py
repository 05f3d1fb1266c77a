"""From audio to notes: a small net that looks at one pitch and one moment at a time.

Conventions. Frames of 16 ms, pitches E1 to F7. For each of these cells the net sees, within 128 ms,
the logarithm of a variable-Q spectrum (three rows a semitone) at the pitch's octave below, first
seven partials and their neighbours, how much five parts of the spectrum rise, and how high the
pitch is. It has one hidden layer and says how probable it is that a note begins here, and that one
sounds. As all pitches share its weights and it was trained on any instrument of General MIDI, the
six domains' among them, it knows what notes look like, not what a domain plays.

A note begins where the first probability, averaged over three frames, peaks over one half, and
lasts while the second is over .4.

`umtlib.evaluation.transcriber_training` renders training pieces for it and fits it. Notebook:
``05_evaluation``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import librosa
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import find_peaks
from scipy.special import expit

from umtlib.audio import SAMPLE_RATE
from umtlib.evaluation import nets
from umtlib.evaluation.features import (
    BANDS_FLOOR_DB,
    BINS_PER_SEMITONE,
    HOP,
    LOWEST,
    SEMITONES,
    Excerpt,
    excerpt,
)

Note = tuple[float, float, float]  # onset and offset in seconds, MIDI pitch
PITCHES = np.arange(LOWEST, LOWEST + 74)  # E1 to F7: at least one overtone lies below 6.3 kHz
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
SHIPPED = Path(__file__).parents[1] / "pretrained" / "note-transcriber"
WEIGHTS = "transcriber.safetensors"
HIDDEN = 64
BEGINS, SOUNDS = 0.5, 0.4  # probabilities
_APART = 4  # frames between two beginnings of a pitch, and of the shortest note
_GAMMA = 12.0  # Hz; widens the filters of low pitches, which would blur the beginnings
_FLOOR = 1e-3
_QUIET = np.log10(_FLOOR)
_PARTIALS = np.array([0.5, 1, 2, 3, 4, 5, 6, 7])
_BESIDE = 2  # rows to either side
_AROUND = np.array([-8, -5, -3, -2, -1, 0, 1, 2, 3, 5, 8])  # frames
_MELS, _GROUPS = 40, 5  # of bands, whose rise is measured
_LAGS = (1, 3)  # frames
_LONGEST_FILTER = 32_768  # samples


@dataclass(frozen=True, eq=False)
class Transcriber(nets.Net):
    """A trained transcriber: of H = 64 hidden units, and K = 2: a note begins, a note sounds."""

    def probabilities(self, sound: np.ndarray | Excerpt) -> np.ndarray:
        """Return the probabilities that notes begin and sound, shape (2, 74, F)."""
        return np.stack([self._look(row) for row in cells(sound)], axis=1)

    def _look(self, seen: np.ndarray) -> np.ndarray:
        weight = self.hidden / self.scale
        unit = np.maximum(seen @ weight.T + (self.hidden_bias - weight @ self.mean), 0)
        return expit(unit @ self.output.T + self.output_bias).T

    def transcribe(self, sound: np.ndarray | Excerpt) -> list[Note]:
        """Estimate the notes of a waveform; (onset, offset, pitch) by pitch, then time."""
        begins, sounds = self.probabilities(sound)
        return [
            (first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND, float(pitch))
            for pitch, *rows in zip(PITCHES, begins, sounds, strict=True)
            for first, last in _stretches(*rows)
        ]


def _stretches(begins: np.ndarray, sounds: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the (begin, end) frames of the notes of one pitch."""
    begins = np.convolve(np.pad(begins, 1, mode="edge"), np.full(3, 1 / 3), "valid")
    peaks = find_peaks(np.pad(begins, 1), height=BEGINS, distance=_APART)[0] - 1
    silent = np.append(np.flatnonzero(sounds < SOUNDS), len(sounds))
    for first, following in zip(peaks, np.append(peaks, len(sounds))[1:], strict=True):
        last = silent[min(np.searchsorted(silent, first + 2), len(silent) - 1)]
        yield first, max(min(last, following), first + _APART)


def cells(sound: np.ndarray | Excerpt) -> Iterator[np.ndarray]:
    """Yield for each of `PITCHES` what the net sees of it, float32, shape (F, D)."""
    sound = excerpt(sound)
    spectrum, rises = _spectrum(sound), _windows(_rises(sound), 0.0)
    rows = np.rint(12 * BINS_PER_SEMITONE * np.log2(_PARTIALS)).astype(int)
    rows = (rows[:, None] + np.arange(-_BESIDE, _BESIDE + 1)).ravel()
    below, above = -rows.min(), rows.max() + BINS_PER_SEMITONE
    seen = np.pad(spectrum, ((below, above), (0, 0)), constant_values=_QUIET)
    for place in range(len(PITCHES)):
        own = _windows(seen[below + 1 + BINS_PER_SEMITONE * place + rows], _QUIET)
        height = np.full((len(own), 1), 2 * place / len(PITCHES) - 1, np.float32)
        yield np.concatenate([own, rises, height], axis=1)


def _spectrum(sound: Excerpt) -> np.ndarray:
    """Return log10 of the magnitudes, rows as in `Excerpt.constant_q`, shape (264, F)."""
    padded = np.pad(sound.waveform, (0, max(0, _LONGEST_FILTER - len(sound.waveform))))
    found = librosa.vqt(
        padded, sr=SAMPLE_RATE, hop_length=HOP, gamma=_GAMMA, tuning=0.0,
        fmin=librosa.midi_to_hz(LOWEST - 1 / BINS_PER_SEMITONE),
        n_bins=SEMITONES * BINS_PER_SEMITONE, bins_per_octave=12 * BINS_PER_SEMITONE,
    )  # fmt: skip
    found = np.abs(found[:, : 1 + len(sound.waveform) // HOP])
    return np.log10(found + _FLOOR).astype(np.float32)


def _rises(sound: Excerpt) -> np.ndarray:
    """Return by how many times 3 dB groups of mel bands rise within the lags, shape (10, F)."""
    power = librosa.feature.melspectrogram(
        y=sound.waveform, sr=SAMPLE_RATE, n_fft=512, hop_length=HOP, n_mels=_MELS, fmin=40
    )
    bands = 10 * np.log10(power + 10 ** (BANDS_FLOOR_DB / 10))
    found = []
    for lag in _LAGS:
        rise = np.maximum(bands[:, lag:] - bands[:, :-lag], 0)
        rise = rise.reshape(_GROUPS, -1, rise.shape[1]).mean(axis=1) / 3
        found.append(np.pad(rise, ((0, 0), (lag, 0))))
    return np.concatenate(found).astype(np.float32)


def _windows(rows: np.ndarray, edge: float) -> np.ndarray:
    """Return the rows, (R, F), around each frame, shape (F, R * 11)."""
    most = _AROUND.max()
    wide = np.pad(rows, ((0, 0), (most, most)), constant_values=edge)
    around = sliding_window_view(wide, 2 * most + 1, axis=1)[..., most + _AROUND]
    return around.transpose(1, 0, 2).reshape(rows.shape[1], -1)


@cache
def load(folder: str | os.PathLike = SHIPPED) -> Transcriber:
    """Load a transcriber, by default the shipped one.

    Raises
    ------
    EvaluationError
        If there is none, or a file is damaged.
    """
    return Transcriber(**nets.read(Path(folder) / WEIGHTS, "transcriber"))
