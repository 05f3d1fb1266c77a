"""From audio to notes: a small net that looks at one pitch and one moment at a time.

Conventions. Frames of 16 ms, pitches E1 to F7. Of each of these cells the net sees, within 128 ms,
a logarithmic spectrum at the octave below, the first seven partials and their neighbours, how much
five parts of the spectrum rise, and how high the pitch is. It says how probable it is that a note
begins here, and that one sounds. A note begins where the first probability, averaged over three
frames, peaks over one half, and lasts while the second is over .4. All pitches share its weights;
``scripts/fit_listeners.py`` fits it to any General MIDI instruments.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import find_peaks
from scipy.special import expit

from umtlib.audio import SAMPLE_RATE
from umtlib.evaluation import features, recogniser
from umtlib.evaluation.features import Sound, excerpt

Note = tuple[float, float, float]  # onset and offset in seconds, MIDI pitch
PITCHES = features.LOWEST + np.arange(74)  # E1 to F7: at least one overtone is below 6.3 kHz
FRAMES_PER_SECOND = SAMPLE_RATE / features.HOP
SHIPPED = Path(__file__).parents[1] / "pretrained" / "note-transcriber"
WEIGHTS = "transcriber.safetensors"
_APART = 4  # frames between two beginnings of a pitch, and of the shortest note
_GAMMA = 12.0  # Hz; widens the filters of low pitches, which would blur the beginnings
_FLOOR = 1e-3
_PARTIALS = np.array([0.5, 1, 2, 3, 4, 5, 6, 7])
_AROUND = np.array([-8, -5, -3, -2, -1, 0, 1, 2, 3, 5, 8])  # frames


@dataclass(frozen=True, eq=False)
class Transcriber(recogniser.Net):
    """A trained transcriber: of H = 64 hidden units, and K = 2: a note begins, a note sounds."""

    def answers(self, seen: np.ndarray) -> np.ndarray:
        """Return both probabilities of cells, shape (F, D), as shape (2, F)."""
        weight = self.hidden / self.scale
        unit = np.maximum(seen @ weight.T + (self.hidden_bias - weight @ self.mean), 0)
        return expit(unit @ self.output.T + self.output_bias).T

    def transcribe(self, sound: Sound) -> list[Note]:
        """Estimate the notes of a waveform; (onset, offset, pitch) by pitch, then time."""
        return [
            (first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND, float(pitch))
            for pitch, seen in zip(PITCHES, cells(sound), strict=True)
            for first, last in _stretches(*self.answers(seen))
        ]


def _stretches(begins: np.ndarray, sounds: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the (begin, end) frames of the notes of one pitch."""
    begins = np.convolve(np.pad(begins, 1, mode="edge"), np.full(3, 1 / 3), "valid")
    peaks = find_peaks(np.pad(begins, 1), height=0.5, distance=_APART)[0] - 1
    silent = np.append(np.flatnonzero(sounds < 0.4), len(sounds))
    for first, following in zip(peaks, np.append(peaks, len(sounds))[1:], strict=True):
        last = silent[min(np.searchsorted(silent, first + 2), len(silent) - 1)]
        yield first, max(min(last, following), first + _APART)


def cells(sound: Sound) -> Iterator[np.ndarray]:
    """Yield for each of `PITCHES` what the net sees of it, float32, shape (F, D)."""
    sound, quiet = excerpt(sound), np.log10(_FLOOR)
    spectrum = np.log10(features.variable_q(sound.waveform, _GAMMA) + _FLOOR)
    bands = features.mel(sound.waveform, features.BANDS, 512, features.HOP, features.BANDS_FLOOR_DB)
    rises = []
    for lag in (1, 3):  # by how many times 3 dB five groups of bands rise in so many frames
        rise = np.maximum(bands[:, lag:] - bands[:, :-lag], 0)
        rise = rise.reshape(5, -1, rise.shape[1]).mean(axis=1) / 3
        rises.append(np.pad(rise, ((0, 0), (lag, 0))))
    rises = _windows(np.concatenate(rises).astype(np.float32), 0.0)
    rows = np.rint(12 * features.BINS_PER_SEMITONE * np.log2(_PARTIALS)).astype(int)
    rows = (rows[:, None] + np.arange(-2, 3)).ravel()
    below, above = -rows.min(), rows.max() + features.BINS_PER_SEMITONE
    seen = np.pad(spectrum, ((below, above), (0, 0)), constant_values=quiet)
    for place in range(len(PITCHES)):
        own = _windows(seen[below + 1 + features.BINS_PER_SEMITONE * place + rows], quiet)
        height = np.full((len(own), 1), 2 * place / len(PITCHES) - 1, np.float32)
        yield np.concatenate([own, rises, height], axis=1)


def _windows(rows: np.ndarray, edge: float) -> np.ndarray:
    """Return the rows, (R, F), around each frame, shape (F, R * 11)."""
    most = _AROUND.max()
    wide = np.pad(rows, ((0, 0), (most, most)), constant_values=edge)
    around = sliding_window_view(wide, 2 * most + 1, axis=1)[..., most + _AROUND]
    return around.transpose(1, 0, 2).reshape(rows.shape[1], -1)


@cache
def load() -> Transcriber:
    """Load the shipped transcriber."""
    return Transcriber(**recogniser.weights(SHIPPED / WEIGHTS))
