"""The level of a recording, brought to that of the training audio.

It is measured as the loudness standards do (ITU-R BS.1770, EBU R128): without what is too slow to
hear, over what passes an absolute and a relative gate, and the peaks are limited, not scaled to.
But for the weighting of frequencies, which would make a flute quieter than a cello of the same
power: the shipped models have heard instruments of equal power.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 16_000
LEVEL = 10 ** (-20 / 20)  # root mean square at which all training audio is
CEILING = 10 ** (-1 / 20)  # its highest peak
MOST_GAIN = 10 ** (40 / 20)  # by which a quiet recording is raised, and its noise with it
FRAME = SAMPLE_RATE // 20  # samples of which the power is measured
_SLOW = 400  # samples on either side whose mean, taken twice, is what is too slow to hear
_PIECE = 80 * FRAME  # samples filtered at a time, which may be of a file: the memory does not grow
_REACH = 80  # samples over which the limiter looks ahead, and back, before it turns down


class Loudness(NamedTuple):
    """What `measure` finds: the factor of `level`, and whether what is slow must be removed."""

    gain: np.float32
    slow: bool


def level(waveform: np.ndarray, most: float = MOST_GAIN) -> np.ndarray:
    """Bring a recording to the level of the training audio: -20 dBFS root mean square.

    What is below about 10 Hz is removed, if it changes the level. Of the rest the 50 ms frames
    above -70 dBFS and within 30 dB of the loudest count, so pauses do not; where "the loudest"
    leaves out 0.6 s, and nothing counts as more than 5 dB above it, so clicks and knocks do not
    either. Peaks are limited to -1 dBFS, and the gain to ``most``, a factor, by default of 40 dB:
    silence stays silence. Both waveforms are in [-1, 1], at 16 kHz, of shape (T,), T at least 1;
    the new one is float32.
    """
    return np.concatenate(list(levelled(waveform, measure(waveform, most))))


def level_gain(waveform: np.ndarray) -> np.float32:
    """Return the factor by which `level` multiplies; it makes no copy of the waveform."""
    return measure(waveform).gain


def levelled(waveform: np.ndarray, loudness: Loudness) -> Iterator[np.ndarray]:
    """Do what `level` does: yield float32 blocks of shape (samples,)."""

    def change(held: np.ndarray) -> np.ndarray:
        heard = _both(held)[1] if loudness.slow else held.astype(np.float32, copy=False)
        return _peaks_limited(heard * loudness.gain)

    return _filtered(waveform, 2 * _SLOW + 2 * _REACH, change)


def measure(waveform: np.ndarray, most: float = MOST_GAIN) -> Loudness:
    """Find what brings a recording (T,) to the level, as far as the highest gain does."""
    frame = min(FRAME, len(waveform))
    powers = [_frame_powers(pair, frame) for pair in _filtered(waveform, 2 * _SLOW, _both)]
    whole, steady = map(_heard, np.concatenate(powers, axis=1))
    slow = bool(whole > 1.05 * steady)
    heard = np.sqrt(steady if slow else whole)
    return Loudness(np.float32(min(LEVEL / max(heard, 1e-9), most)), slow)


def _heard(power: np.ndarray) -> float:
    """Return the mean power of a recording's music, from that of all frames."""
    power = power[power >= 1e-7] if power.max() >= 1e-7 else power
    loudest = min(12, len(power) // 5)  # 0.6 s of knocks and clicks
    top = np.partition(power, -1 - loudest)[-1 - loudest]
    return np.minimum(power[power >= top * 1e-3], 3 * top).mean()


def _frame_powers(pair: np.ndarray, frame: int) -> np.ndarray:
    """Return the mean square of every whole frame, float64: `stream` does not limit its peaks."""
    whole = pair[:, : pair.shape[1] // frame * frame].reshape(2, -1, frame)
    return np.einsum("cft,cft->cf", whole, whole, dtype=np.float64) / frame


def _filtered(
    waveform: np.ndarray, reach: int, change: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Change a waveform piece by piece, by a filter that looks so many samples ahead, and back."""
    for start in range(0, len(waveform), _PIECE):
        before = min(reach, start)
        changed = change(waveform[start - before : start + _PIECE + reach])
        yield changed[..., before : before + _PIECE]


def _both(held: np.ndarray) -> np.ndarray:
    """Return samples as they are, and without what is too slow to hear, float32, shape (2, T)."""
    return np.stack([held, held - _mean(_mean(held, _SLOW), _SLOW)]).astype(np.float32)


def _peaks_limited(held: np.ndarray) -> np.ndarray:
    """Turn down smoothly around every peak above `CEILING`, and nowhere else."""
    gain = CEILING / np.maximum(np.abs(held), CEILING)
    if not gain.min() < 1:
        return held
    gain = _mean(_least(gain, _REACH), _REACH)
    return np.clip(held * gain, -CEILING, CEILING).astype(np.float32)


def _mean(x: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean of each value and those around it, float64; the edges are mirrors."""
    total = np.pad(x.astype(np.float64), (reach + 1, reach), "symmetric").cumsum()
    size = 2 * reach + 1
    return (total[size:] - total[:-size]) / size


def _least(x: np.ndarray, reach: int) -> np.ndarray:
    """Return the least of each value and those around it."""
    x, size = np.pad(x, reach, "edge"), 1
    while size <= 2 * reach:
        step = min(size, 2 * reach + 1 - size)
        x, size = np.minimum(x[:-step], x[step:]), size + step
    return x
