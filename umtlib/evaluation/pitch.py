"""Does the output follow the input's pitch? The paper's measure, and ones that tell more.

Conventions. A contour is the frequency of the strongest peak per frame in Hz (`Excerpt.contour`:
librosa's ``piptrack``, hop 512 at 16 kHz), 0 where no peak was found. The paper names neither hop
nor the handling of unvoiced frames; these are ours.

* ``ncc``: normalised correlation of the contours at the best shift within 10 frames (320 ms).
* ``dtw``: normalised correlation along the path of dynamic time warping (cost: absolute
  difference).
* ``ncc_centred``, ``dtw_centred``: the same after each contour's mean is subtracted. Frequencies
  are positive, so that uncentred contours of *any* two pieces correlate near .85: read the centred
  ones.
* ``pyin_ncc``, ``pyin_dtw`` (melodies only): the centred ones on a current tracker: probabilistic
  YIN (`Excerpt.melody`, hop 256), in semitones, where 0 is the mean over the frames that sound and
  what a silent frame has. A translation an octave lower is as good.
* ``chroma``: correlation of the two 12-vectors of pitch-class magnitude in each frame, averaged
  over the frames in which the reference sounds. No shift. The one that serves polyphony.

All are at most 1; an identical copy scores 1 on all; a silent or empty excerpt scores 0. (A contour
that never moves, one held note, has nothing that the centred measures could follow: 0.)

Source: Mor et al. 2018, section 4.1. Notebook: ``05_evaluation``.
"""

import librosa
import numpy as np

from umtlib.errors import EvaluationError
from umtlib.evaluation.features import (
    CONTOUR_HOP,
    HOP,
    Excerpt,
    excerpt,
    same_length,
    validate_pair,
)

MOST_SHIFT = 10  # frames of piptrack's contour
# Those that tell a wrong piece from the right one come first.
METRICS = ("chroma", "pyin_ncc", "pyin_dtw", "ncc_centred", "dtw_centred", "ncc", "dtw")


def validate(reference: np.ndarray, estimate: np.ndarray) -> None:
    """Check two contours.

    Raises
    ------
    EvaluationError
        If they are not one-dimensional, or not finite.
    """
    for contour in (reference, estimate):
        if np.ndim(contour) != 1 or not np.isfinite(contour).all():
            raise EvaluationError(
                f"a contour of shape {np.shape(contour)}; give finite values, (F,)"
            )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return <a, b> / (|a| |b|), in [-1, 1]; 0 if one of them is all zero or empty."""
    a, b = a.astype(float), b.astype(float)
    product = np.sqrt((a @ a) * (b @ b))
    # Rounding can carry a copy a little past 1.
    return float(np.clip(a @ b / product, -1, 1)) if product > 1e-12 else 0.0


def best_shift_correlation(
    reference: np.ndarray, estimate: np.ndarray, most: int = MOST_SHIFT
) -> float:
    """Return the highest normalised correlation within a range of shifts.

    Parameters
    ----------
    reference, estimate : np.ndarray
        Contours, shape (F,); the longer one is cut.
    most : int
        Frames by which either may be shifted.

    Returns
    -------
    float
        In [-1, 1].
    """
    validate(reference, estimate)
    a, b = same_length(reference, estimate)
    most = min(most, len(a) // 2)
    pairs = [(a[s:], b[: len(b) - s]) for s in range(most + 1)]
    pairs += [(a[: len(a) - s], b[s:]) for s in range(1, most + 1)]
    return max(correlation(*pair) for pair in pairs)


def warped_correlation(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the normalised correlation along the dynamic time warping path, in [-1, 1].

    Parameters
    ----------
    reference, estimate : np.ndarray
        Contours, shapes (F,) and (G,).
    """
    validate(reference, estimate)
    if not len(reference) or not len(estimate):
        return 0.0
    cost = np.abs(reference[:, None] - estimate[None])
    _, path = librosa.sequence.dtw(C=cost)
    return correlation(reference[path[:, 0]], estimate[path[:, 1]])


def chroma_correlation(reference: np.ndarray, estimate: np.ndarray, sounding: np.ndarray) -> float:
    """Return the mean per-frame correlation of centred chroma vectors.

    Parameters
    ----------
    reference, estimate : np.ndarray
        Shape (12, F).
    sounding : np.ndarray
        Which frames count, bool, shape (F,): those in which the reference sounds.

    Returns
    -------
    float
        In [-1, 1]; 0 if no frame counts.

    Raises
    ------
    EvaluationError
        If the shapes differ, or are not (12, F).
    """
    if reference.shape != estimate.shape or reference.shape[:1] != (12,):
        raise EvaluationError(
            f"chroma of shapes {reference.shape} and {estimate.shape}; give (12, F)"
        )
    if not sounding.any():
        return 0.0
    a, b = (x[:, sounding] - x[:, sounding].mean(axis=0) for x in (reference, estimate))
    norms = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return float(((a * b).sum(axis=0) / np.maximum(norms, 1e-9)).mean())


def tune(hertz: np.ndarray) -> np.ndarray:
    """Return a melody in semitones from its own mean pitch.

    Parameters
    ----------
    hertz : np.ndarray
        Frequency per frame, 0 where there is none, shape (F,).

    Returns
    -------
    np.ndarray
        Shape (F,), 0 where there is none.
    """
    heard = hertz > 0
    semitones = np.zeros(len(hertz))
    semitones[heard] = 12 * np.log2(hertz[heard])
    semitones[heard] -= semitones[heard].mean() if heard.any() else 0.0
    return semitones


def evaluate(
    reference: np.ndarray | Excerpt, estimate: np.ndarray | Excerpt, melody: bool = False
) -> dict[str, float]:
    """Compare the pitch of an input and its translation.

    Parameters
    ----------
    reference, estimate : np.ndarray or Excerpt
        Waveforms, see `umtlib.evaluation.features.excerpt`; equally long.
    melody : bool
        No two notes sound together: also give the measures for melodies.

    Returns
    -------
    dict
        Floats by the names in `METRICS`.

    Raises
    ------
    EvaluationError
        If the waveforms are not such, or differ in length.
    """
    reference, estimate = excerpt(reference), excerpt(estimate)
    validate_pair(reference, estimate)
    a, b = reference.contour, estimate.contour
    centred = a - a.mean(), b - b.mean()
    frames = same_length(reference.chroma, estimate.chroma)
    result = {
        "ncc": best_shift_correlation(a, b),
        "dtw": warped_correlation(a, b),
        "ncc_centred": best_shift_correlation(*centred),
        "dtw_centred": warped_correlation(*centred),
        "chroma": chroma_correlation(*frames, reference.sounding[: frames[0].shape[1]]),
    }
    if melody:
        tunes = tune(reference.melody), tune(estimate.melody)
        most = MOST_SHIFT * CONTOUR_HOP // HOP
        result["pyin_ncc"] = best_shift_correlation(*tunes, most=most)
        result["pyin_dtw"] = warped_correlation(*tunes)
    return result
