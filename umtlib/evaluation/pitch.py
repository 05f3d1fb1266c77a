"""Does the output follow the input's pitch? The paper's measure, and ones that tell more.

Conventions. A contour is the frequency of the strongest peak per frame in Hz (`Excerpt.contour`), 0
where no peak was found. The paper names neither hop nor the handling of unvoiced frames.

* ``ncc``: normalised correlation of the contours at the best shift within 10 frames (320 ms);
  ``dtw``: along the path of dynamic time warping (cost: absolute difference).
* ``ncc_centred``, ``dtw_centred``: after each contour's mean is subtracted. Frequencies are
  positive, so uncentred contours of *any* two pieces correlate near .85.
* ``pyin_ncc``, ``pyin_dtw`` (melodies only): the centred ones on `Excerpt.melody` in semitones,
  where 0 is the mean over the frames that sound and what a silent frame has.
* ``chroma``: correlation of the two 12-vectors of pitch-class magnitude in each frame, averaged
  over the frames in which the reference sounds. No shift. The one that serves polyphony.

All are at most 1; a copy scores 1 on all; a silent excerpt 0. Source: Mor et al. 2018,
section 4.1. Notebook: ``08_evaluation``.
"""

import librosa
import numpy as np

from umtlib.evaluation.features import CONTOUR_HOP, HOP, Sound, pair

MOST_SHIFT = 10  # frames of piptrack's contour
METRICS = ("chroma", "pyin_ncc", "pyin_dtw", "ncc_centred", "dtw_centred", "ncc", "dtw")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return <a, b> / (|a| |b|), in [-1, 1]; 0 if one of them is all zero."""
    a, b = a.astype(float), b.astype(float)
    product = np.sqrt((a @ a) * (b @ b))
    # Rounding can carry a copy a little past 1.
    return float(np.clip(a @ b / product, -1, 1)) if product > 1e-12 else 0.0


def best_shift_correlation(
    reference: np.ndarray, estimate: np.ndarray, most: int = MOST_SHIFT
) -> float:
    """Return the highest correlation of two contours, (F,), shifted by ``most`` frames at most."""
    length = min(len(reference), len(estimate))
    a, b = reference[:length], estimate[:length]
    shifts = range(min(most, len(a) // 2) + 1)
    pairs = [(x[s:], y[: len(y) - s]) for x, y in ((a, b), (b, a)) for s in shifts]
    return max(correlation(*pair) for pair in pairs)


def warped_correlation(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the correlation of contours, (F,) and (G,), along the dynamic time warping path."""
    _, path = librosa.sequence.dtw(C=np.abs(reference[:, None] - estimate[None]))
    return correlation(reference[path[:, 0]], estimate[path[:, 1]])


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the average over frames of the cosines of two arrays, shape (12, F); 0 if F is 0."""
    if not a.size:
        return 0.0
    norms = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return float(((a * b).sum(axis=0) / np.maximum(norms, 1e-9)).mean())


def chroma_correlation(reference: np.ndarray, estimate: np.ndarray, sounding: np.ndarray) -> float:
    """Return the mean correlation of chroma, (12, F), in the frames that sound, (F,), or 0."""
    a, b = reference[:, sounding], estimate[:, sounding]
    return mean_cosine(a - a.mean(axis=0), b - b.mean(axis=0))


def tune(hertz: np.ndarray) -> np.ndarray:
    """Return frequencies, shape (F,), in semitones from their mean; 0 Hz, no pitch, stays 0."""
    heard = hertz > 0
    semitones = np.zeros(len(hertz))
    semitones[heard] = 12 * np.log2(hertz[heard])
    semitones[heard] -= semitones[heard].mean() if heard.any() else 0.0
    return semitones


def evaluate(reference: Sound, estimate: Sound, melody: bool = False) -> dict[str, float]:
    """Compare the pitch of an input and its translation; of a ``melody`` no two notes overlap."""
    reference, estimate = pair(reference, estimate)
    a, b = reference.contour, estimate.contour
    centred = a - a.mean(), b - b.mean()
    result = {
        "ncc": best_shift_correlation(a, b),
        "dtw": warped_correlation(a, b),
        "ncc_centred": best_shift_correlation(*centred),
        "dtw_centred": warped_correlation(*centred),
        "chroma": chroma_correlation(reference.chroma, estimate.chroma, reference.sounding),
    }
    if melody:
        tunes = tune(reference.melody), tune(estimate.melody)
        most = MOST_SHIFT * CONTOUR_HOP // HOP
        result["pyin_ncc"] = best_shift_correlation(*tunes, most=most)
        result["pyin_dtw"] = warped_correlation(*tunes)
    return result
