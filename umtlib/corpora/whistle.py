"""A synthesised whistle: a timbre in none of the domains, made from nothing but arithmetic."""

from collections.abc import Sequence

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from umtlib.audio import SAMPLE_RATE


def whistle(
    notes: Sequence[Sequence[float]], seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """Whistle a melody, with glides, vibrato, breath and an uneven level, all drawn by ``rng``.

    Its notes are (onset, offset, pitch), in seconds and MIDI numbers, one at a time. The result is
    float64 at 16 kHz, of any level.
    """
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch, level, age = _contours(notes, t, rng)
    vibrato = rng.uniform(0.12, 0.25) * np.clip((age - 0.15) / 0.2, 0, 1)
    wobble = _smooth(rng.standard_normal(len(t)), 0.08) * 4
    pitch = _smooth(pitch, 0.012, start=pitch[0]) + vibrato * np.sin(6.283 * rng.uniform(5, 6) * t)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch + wobble - 69) / 12)) / SAMPLE_RATE
    tone = np.sin(phase) + 0.03 * np.sin(2 * phase + 1) + 0.012 * np.sin(3 * phase)
    breath = sosfilt(butter(1, [500, 5000], "band", fs=SAMPLE_RATE, output="sos"),
                     rng.standard_normal(len(t)))  # fmt: skip
    shake = 1 + 0.08 * np.sin(6.283 * 5.3 * t + 0.7)
    level = _smooth(_smooth(level, 0.012), 0.012)
    return level * (shake * tone + 0.02 * breath)


def _contours(notes, t: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return pitch, loudness and time since the onset, sample by sample."""
    pitch, level, age = np.full(len(t), float(notes[0][2])), np.zeros(len(t)), np.zeros(len(t))
    for onset, offset, midi in notes:
        begin, end = np.searchsorted(t, [onset, offset])
        pitch[begin:] = midi  # held through the rest, as a mouth does
        level[begin:end] = rng.uniform(0.6, 1.0) * np.linspace(1, 0.8, end - begin)
        age[begin:] = t[begin:] - t[min(begin, len(t) - 1)]
    return pitch, level, age


def _smooth(values: np.ndarray, seconds: float, start: float = 0.0) -> np.ndarray:
    keep = np.exp(-1 / (seconds * SAMPLE_RATE))
    return lfilter([1 - keep], [1, -keep], values, zi=[keep * start])[0]
