"""Does it sound in time? Attacks, decay, flutter and level, beside the score and the truth.

Conventions. A sound is heard as `Excerpt.bands`, every 10 ms; `level` is that of all bands. The
*rise* at a frame is the mean over the bands of what was gained in the last 30 ms, dB, where losses
count as none. An *onset* is a peak of the rise that stands .7 dB above its mean over 200 ms. Notes
of the score that begin within 50 ms of each other are one onset. A *gap* is the time from 50 ms
after an onset of the score to the next one, .5 s at most: there notes are held.

* ``attack``: mean rise at the onsets found, dB; ``onsets``: how many there are.
* ``onset_f``: F-measure of the onsets found against the score's, within 70 ms (mir_eval);
  ``onset_f_truth``: against those found in the true rendering.
* ``decay``: slope of the level in the gaps, dB/s: one straight line with its own height in each
  gap, fitted to all. ``flutter``: root mean square, dB, of what straight lines over 200 ms leave of
  the level in the gaps: how much it moves from about 5 to 20 times a second.
* ``level_corr``: correlation of the level with the true rendering's.

A measure without anything to measure (no onset, no gap) is None. Notebook: ``08_evaluation``.
"""

from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np
import scipy.signal

from umtlib.evaluation.features import BANDS_PER_SECOND, Sound, excerpt, pair
from umtlib.evaluation.pitch import correlation
from umtlib.evaluation.transcriber import Note

METRICS = ("attack", "onsets", "onset_f", "onset_f_truth", "decay", "flutter", "level_corr")
_LAG = 3  # frames over which a rise is measured
_PEAK = {"pre_max": 3, "post_max": 3, "pre_avg": 10, "post_avg": 10, "delta": 0.7, "wait": 5}
_ATTACK, _RELEASE, _LONGEST = 0.05, 0.02, 0.5  # seconds; where a gap begins and ends
_PIECE = 20  # frames of a straight line


def attacks(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the onsets, seconds, and the rise at each, dB, (n,), of bands in dB, (K, F)."""
    rise = np.zeros(bands.shape[1])
    rise[_LAG:] = np.maximum(bands[:, _LAG:] - bands[:, :-_LAG], 0).mean(axis=0)
    peaks = librosa.util.peak_pick(rise, **_PEAK)
    return np.maximum(peaks - _LAG / 2, 0) / BANDS_PER_SECOND, rise[peaks]


def beginnings(score: Sequence[Note]) -> np.ndarray:
    """Return the onsets of a score, seconds, shape (n,); a chord has one."""
    found: list[float] = []
    for onset, *_ in sorted(score):
        if not found or onset - found[-1] > 0.05:
            found.append(onset)
    return np.array(found)


def onset_f(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the F-measure of onsets, seconds, within 70 ms, in [0, 1]; two empty ones agree."""
    if not len(reference) or not len(estimate):
        return float(len(reference) == len(estimate))
    return float(mir_eval.onset.f_measure(reference, estimate, window=0.07)[0])


def gaps(score: Sequence[Note], frames: int) -> list[slice]:
    """Return the frames between the attacks of a score in which its notes are held."""
    onsets = beginnings(score)
    ends = np.minimum(np.append(onsets[1:] - _RELEASE, np.inf), onsets + _LONGEST)
    edges = np.rint(np.column_stack([onsets + _ATTACK, ends]) * BANDS_PER_SECOND).astype(int)
    return [slice(first, last) for first, last in np.minimum(edges, frames) if last - first > 1]


def decay(level: np.ndarray, held: Sequence[slice]) -> float | None:
    """Return the common slope, dB/s, of straight lines through the gaps of a level, shape (F,)."""
    times = [np.arange(gap.stop - gap.start) / BANDS_PER_SECOND for gap in held]
    times = [time - time.mean() for time in times]
    squares = sum(time @ time for time in times)
    products = sum(time @ level[gap] for time, gap in zip(times, held, strict=True))
    return float(products / squares) if squares else None


def flutter(level: np.ndarray, held: Sequence[slice]) -> float | None:
    """Return how far, dB rms, the level, shape (F,), is from lines over 200 ms of the gaps."""
    pieces = [
        level[first : first + _PIECE]
        for gap in held
        for first in range(gap.start, gap.stop - _PIECE + 1, _PIECE)
    ]
    return float(np.sqrt((scipy.signal.detrend(pieces) ** 2).mean())) if pieces else None


def evaluate(
    truth: Sound | None, estimate: Sound, score: Sequence[Note] | None
) -> dict[str, float | None]:
    """Measure a translation's course in time, beside the true rendering and the notes, if known."""
    estimate = excerpt(estimate)
    times, rises = attacks(estimate.bands)
    found = dict.fromkeys(METRICS) | {"onsets": len(times)}
    found["attack"] = float(rises.mean()) if len(rises) else None
    if score is not None:
        found["onset_f"] = onset_f(beginnings(score), times)
        held = gaps(score, len(estimate.level))
        found |= {"decay": decay(estimate.level, held), "flutter": flutter(estimate.level, held)}
    if truth is not None:
        truth, estimate = pair(truth, estimate)
        found["onset_f_truth"] = onset_f(attacks(truth.bands)[0], times)
        found["level_corr"] = correlation(*(x.level - x.level.mean() for x in (truth, estimate)))
    return found
