"""Three kinds of music in no domain, improvised by rule and synthesised with arithmetic alone.

They stand where the paper has swing jazz, metal riffs and Chinese music, of which no recording may
be given away. As many excerpts can be had as are wanted, each with its notes.
Notebook: ``08_evaluation``.
"""

from collections.abc import Iterator

import numpy as np
from scipy.signal import lfilter

from umtlib.audio import SAMPLE_RATE

SECONDS = 5.0  # of an excerpt
Note = tuple[float, float, int]  # onset and offset in seconds, MIDI pitch

_BLUES, _MINOR, _MAJOR = (0, 3, 5, 6, 7, 10), (0, 3, 5, 7, 10), (0, 2, 4, 7, 9)
# Scale, lowest pitch of the tune, quarter notes a minute, and where a beat is divided.
_RULES = {
    "swing": (_BLUES, 62, 160, (0, 2 / 3)),
    "guitar": (_MINOR, 45, 120, (0, 1 / 4, 1 / 2, 3 / 4)),
    "chinese": (_MAJOR, 64, 92, (0, 1 / 2)),
}
KINDS = tuple(_RULES)


def improvise(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Note]]:
    """Improvise an excerpt; the generator chooses key, tune and all that makes it another one.

    A kind is ``"swing"``, a reed over a walking bass; ``"guitar"``, distorted riffs in fifths; or
    ``"chinese"``, a plucked zither, five notes to the octave. Returns the waveform, float32 in
    [-1, 1], 16 kHz, shape (T,), and its notes by onset.
    """
    mixed = np.zeros(round(SECONDS * SAMPLE_RATE))
    notes = sorted(_tune(kind, rng))
    for onset, offset, pitch in notes:
        voice = _reed if kind == "swing" and pitch >= 60 else _string
        first = round(onset * SAMPLE_RATE)
        played = voice(pitch, round(offset * SAMPLE_RATE) - first, rng)[: len(mixed) - first]
        mixed[first : first + len(played)] += played
    if kind == "guitar":
        mixed = np.tanh(6 * mixed)  # the amplifier
    return (0.5 * mixed / np.abs(mixed).max()).astype(np.float32), notes


def _tune(kind: str, rng: np.random.Generator) -> Iterator[Note]:
    """Walk up and down the scale, and add what goes with it."""
    scale, lowest, tempo, divisions = _RULES[kind]
    beat, key, step = 60 / tempo, int(rng.integers(5)), int(rng.integers(5, 8))
    times = [
        b + d for b in range(int(SECONDS / beat)) for d in divisions if not d or rng.random() < 0.6
    ]
    for time, following in zip(times, [*times[1:], SECONDS / beat], strict=True):
        step = int(np.clip(step + rng.choice((-2, -1, -1, 0, 1, 1, 2)), 0, 11))
        octave, degree = divmod(step, len(scale))
        pitch = lowest + key + 12 * octave + scale[degree]
        onset, offset = beat * time, beat * (time + 0.95 * (following - time))
        yield onset, offset, pitch
        if kind == "guitar":
            yield onset, offset, pitch + 7
        if kind == "swing" and time == int(time):
            yield onset, onset + 0.9 * beat, 36 + key + int(rng.choice((0, 3, 5, 7)))


def _string(pitch: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Pluck a string: noise that goes round a delay and loses its treble (Karplus and Strong)."""
    delay = SAMPLE_RATE / (440 * 2 ** ((pitch - 69) / 12)) - 0.5  # the average takes half a sample
    whole, part = int(delay), delay % 1
    loop = 0.996 * np.convolve([1 - part, part], [0.5, 0.5])
    burst = np.zeros(max(samples, whole))
    burst[:whole] = rng.uniform(-1, 1, whole)
    return _faded(lfilter([1], [1, *np.zeros(whole - 1), *-loop], burst)[:samples])


def _reed(pitch: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Blow a reed: odd overtones, and a vibrato that comes late."""
    time = np.arange(samples) / SAMPLE_RATE
    late = np.clip((time - 0.15) / 0.2, 0, 1)
    cents = 25 * late * np.sin(2 * np.pi * 5.5 * time + rng.uniform(0, 6))
    phase = np.cumsum(440 * 2 ** ((pitch - 69 + cents / 100) / 12)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * n * phase) / n**1.3 for n in (1, 2, 3, 5, 7))
    return _faded(0.4 * tone * np.clip(time / 0.03, 0, 1))


def _faded(sound: np.ndarray) -> np.ndarray:
    """End it within 10 ms, so that it does not click."""
    return sound * np.clip(np.arange(len(sound), 0, -1) / 160, 0, 1)
