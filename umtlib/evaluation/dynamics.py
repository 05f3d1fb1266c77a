"""Does it sound in time? Attacks, decay, flutter and level, beside the score and the truth.

Conventions. A sound is heard as `Excerpt.bands`: the energies of 40 mel bands in dB, every 10 ms;
`level` is that of all bands together. The *rise* at a frame is the mean over the bands of what the
energy gained in the last 30 ms, in dB, where losses count as none. An *onset* is a peak of the rise
that stands .7 dB above its mean over 200 ms. Notes of the score that begin within 50 ms of each
other are one onset. A *gap* is the time from 50 ms after an onset of the score to the next one,
.5 s at most: there notes are held, so what moves there is the instrument's or the translator's.

* ``attack``: mean rise at the onsets found, dB. Of a piano 8, of strings 2.
* ``onsets``: how many were found.
* ``onset_f``: F-measure of the onsets found against the score's, within 70 ms (mir_eval).
* ``onset_f_truth``: the same against those found in the true rendering.
* ``decay``: slope of the level in the gaps, dB/s: one straight line with its own height in each
  gap, fitted to all. Of a piano -25; of an organ nearly none.
* ``flutter``: root mean square, dB, of what straight lines over 200 ms leave of the level in the
  gaps: how much it moves from about 5 to 20 times a second (the frames end that band).
* ``level_corr``: correlation of the level with the true rendering's.

In ``onset_f``, ``onset_f_truth`` and ``level_corr`` more is better. The others have no better or
worse by themselves: read them beside those of the true rendering, which `report` prints. A measure
without anything to measure (no onset, no gap) is None. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np

from umtlib.errors import EvaluationError
from umtlib.evaluation import notes
from umtlib.evaluation.features import (
    BANDS_PER_SECOND,
    Excerpt,
    excerpt,
    same_length,
    validate_pair,
)
from umtlib.evaluation.notes import Note
from umtlib.evaluation.pitch import correlation

METRICS = ("attack", "onsets", "onset_f", "onset_f_truth", "decay", "flutter", "level_corr")
WINDOW = 0.07  # seconds by which an onset may be off
_LAG = 3  # frames over which a rise is measured
_PEAK = {"pre_max": 3, "post_max": 3, "pre_avg": 10, "post_avg": 10, "delta": 0.7, "wait": 5}
_CHORD = 0.05  # seconds; notes nearer than that begin together
_ATTACK, _RELEASE, _LONGEST = 0.05, 0.02, 0.5  # seconds; where a gap begins and ends
_PIECE = 20  # frames of a straight line


def validate(level: np.ndarray) -> None:
    """Check a contour of the level.

    Raises
    ------
    EvaluationError
        If it is not of shape (F,) and finite.
    """
    if np.ndim(level) != 1 or not np.isfinite(level).all():
        raise EvaluationError(f"a level of shape {np.shape(level)}; give finite dB, shape (F,)")


def rise(bands: np.ndarray) -> np.ndarray:
    """Return the mean over the bands, dB, shape (K, F), of what was gained in 30 ms, shape (F,)."""
    gained = np.zeros(bands.shape[1])
    gained[_LAG:] = np.maximum(bands[:, _LAG:] - bands[:, :-_LAG], 0).mean(axis=0)
    return gained


def attacks(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of the onsets in seconds and the rise at each in dB, both shape (n,)."""
    gained = rise(bands)
    peaks = librosa.util.peak_pick(gained, **_PEAK)
    return np.maximum(peaks - _LAG / 2, 0) / BANDS_PER_SECOND, gained[peaks]


def beginnings(score: Sequence[Note]) -> np.ndarray:
    """Return the onsets of a score, seconds, shape (n,); a chord has one."""
    notes.validate(score)
    found: list[float] = []
    for onset, *_ in sorted(score):
        if not found or onset - found[-1] > _CHORD:
            found.append(onset)
    return np.array(found)


def onset_f(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the F-measure of onsets, seconds, within 70 ms, in [0, 1]; two empty ones agree."""
    if not len(reference) or not len(estimate):
        return float(len(reference) == len(estimate))
    return float(mir_eval.onset.f_measure(reference, estimate, window=WINDOW)[0])


def gaps(score: Sequence[Note], frames: int) -> list[slice]:
    """Return the frames between the attacks of a score in which its notes are held."""
    onsets = beginnings(score)
    ends = np.minimum(np.append(onsets[1:] - _RELEASE, np.inf), onsets + _LONGEST)
    edges = np.rint(np.column_stack([onsets + _ATTACK, ends]) * BANDS_PER_SECOND).astype(int)
    return [slice(first, last) for first, last in np.minimum(edges, frames) if last - first > 1]


def decay(level: np.ndarray, held: Sequence[slice]) -> float | None:
    """Return the common slope, dB/s, of straight lines through the gaps of a level, shape (F,)."""
    validate(level)
    products = squares = 0.0
    for gap in held:
        time = np.arange(gap.stop - gap.start) / BANDS_PER_SECOND
        time -= time.mean()
        products += time @ level[gap]
        squares += time @ time
    return float(products / squares) if squares else None


def flutter(level: np.ndarray, held: Sequence[slice]) -> float | None:
    """Return how far, dB rms, the level, shape (F,), is from lines over 200 ms of the gaps."""
    validate(level)
    pieces = [
        level[first : first + _PIECE]
        for gap in held
        for first in range(gap.start, gap.stop - _PIECE + 1, _PIECE)
    ]
    if not pieces:
        return None
    line = np.vander(np.arange(_PIECE), 2)
    y = np.transpose(pieces)
    left = y - line @ np.linalg.lstsq(line, y, rcond=None)[0]
    return float(np.sqrt((left**2).mean()))


def level_corr(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the correlation of two levels, shape (F,), in [-1, 1]; 0 if one never moves."""
    for level in (truth, estimate):
        validate(level)
    a, b = (level - level.mean() if len(level) else level for level in (truth, estimate))
    return correlation(a, b)


def evaluate(
    truth: np.ndarray | Excerpt, estimate: np.ndarray | Excerpt, score: Sequence[Note]
) -> dict[str, float | None]:
    """Measure a translation's course in time.

    Parameters
    ----------
    truth, estimate : np.ndarray or Excerpt
        The true rendering and the translation, see `umtlib.evaluation.features.excerpt`; equally
        long.
    score : sequence of (float, float, int)
        Onset and offset in seconds and MIDI pitch of the notes that are played.

    Returns
    -------
    dict
        A float, or None, for each of `METRICS`, of the estimate.

    Raises
    ------
    EvaluationError
        If the waveforms are not such, or differ in length, or a note is none.
    """
    truth, estimate = excerpt(truth), excerpt(estimate)
    validate_pair(truth, estimate)
    times, rises = attacks(estimate.bands)
    held = gaps(score, len(estimate.level))
    return {
        "attack": float(rises.mean()) if len(rises) else None,
        "onsets": len(times),
        "onset_f": onset_f(beginnings(score), times),
        "onset_f_truth": onset_f(attacks(truth.bands)[0], times),
        "decay": decay(estimate.level, held),
        "flutter": flutter(estimate.level, held),
        "level_corr": level_corr(*same_length(truth.level, estimate.level)),
    }
