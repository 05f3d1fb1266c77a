"""How far a translation is from the true one: the same notes by the target's instruments.

Conventions. The corpus has for each paired excerpt the rendering by every domain. All distances are
between levelled excerpts, and 0 for a perfect copy.

* ``log_mel``: mean absolute difference of the log-mel spectra in dB, frame by frame (64 bands,
  floor 50 dB below the peaks). Wrong notes, wrong timbre and wrong timing all cost.
* ``timbre``: Euclidean distance of the averages of what the domain recogniser makes of the
  cepstrum's statistics (24 values in [-1, 1]; `umtlib.evaluation.recogniser`): *how* it sounds,
  with little regard of which notes are played. Plain averages of MFCCs do not serve: on the paired
  excerpts of ``data/mini`` the right instrument with another piece is nearer than a wrong
  instrument with the same piece in 57 % of comparisons at best (4 coefficients); with this in 97 %.
  It knows domains only: white noise is as far away as a wrong instrument, not farther.
* ``chroma_cosine``: cosine of the pitch-class magnitudes per frame, averaged, in [0, 1].

Silence and empty input are at the distance of the floor. Read each number between two others that
`report` prints beside it: the untranslated input, and the true rendering through 8-bit mu-law.
Notebook: ``05_evaluation``.
"""

import numpy as np

from umtlib.errors import EvaluationError
from umtlib.evaluation.features import Excerpt, excerpt, same_length, validate_pair
from umtlib.evaluation.recogniser import Recogniser

METRICS = ("log_mel", "timbre", "chroma_cosine")


def validate(truth: np.ndarray, estimate: np.ndarray) -> None:
    """Check two feature matrices.

    Raises
    ------
    EvaluationError
        If they are not of one shape (rows, F) and finite.
    """
    if np.ndim(truth) != 2 or np.shape(truth) != np.shape(estimate):
        raise EvaluationError(
            f"features of shapes {np.shape(truth)} and {np.shape(estimate)}; give (rows, F) twice"
        )
    if not (np.isfinite(truth).all() and np.isfinite(estimate).all()):
        raise EvaluationError("the features hold NaN or infinities")


def spectral_distance(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the mean absolute difference of two dB spectra, shape (rows, F); 0 if F is 0."""
    validate(truth, estimate)
    return float(np.abs(truth - estimate).mean()) if truth.size else 0.0


def timbre_distance(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the distance of the averages of two sets of embeddings.

    Parameters
    ----------
    truth, estimate : np.ndarray
        Embedded windows, shapes (n, D) and (m, D).

    Returns
    -------
    float
        Euclidean, not negative. 0 if both are empty, infinite if one is.

    Raises
    ------
    EvaluationError
        If the embeddings differ in length.
    """
    for points in (truth, estimate):
        validate(points, points)
    if not truth.size or not estimate.size:
        return 0.0 if truth.size == estimate.size else float("inf")
    if truth.shape[1] != estimate.shape[1]:
        raise EvaluationError(f"embeddings of {truth.shape[1]} and {estimate.shape[1]} values")
    return float(np.linalg.norm(truth.mean(axis=0) - estimate.mean(axis=0)))


def chroma_cosine(truth: np.ndarray, estimate: np.ndarray, sounding: np.ndarray) -> float:
    """Return the mean cosine of the frames, shape (12, F), in which the truth sounds, in [0, 1]."""
    validate(truth, estimate)
    if not sounding.any():
        return 0.0
    a, b = truth[:, sounding], estimate[:, sounding]
    norms = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return float(((a * b).sum(axis=0) / np.maximum(norms, 1e-9)).mean())


def evaluate(
    truth: np.ndarray | Excerpt, estimate: np.ndarray | Excerpt, judge: Recogniser
) -> dict[str, float]:
    """Compare a translation with the true rendering.

    Parameters
    ----------
    truth, estimate : np.ndarray or Excerpt
        Waveforms, see `umtlib.evaluation.features.excerpt`; equally long.
    judge : Recogniser
        For instance `umtlib.evaluation.recogniser.load()`.

    Returns
    -------
    dict
        A float for each of `METRICS`.

    Raises
    ------
    EvaluationError
        If the waveforms are not such, or differ in length.
    """
    truth, estimate = excerpt(truth), excerpt(estimate)
    validate_pair(truth, estimate)
    chroma = same_length(truth.chroma, estimate.chroma)
    return {
        "log_mel": spectral_distance(*same_length(truth.log_mel, estimate.log_mel)),
        "timbre": timbre_distance(*(np.tanh(judge.embed(sound)) for sound in (truth, estimate))),
        "chroma_cosine": chroma_cosine(*chroma, truth.sounding[: chroma[0].shape[1]]),
    }
