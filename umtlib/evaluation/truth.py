"""How far is a translation from the true one? The same notes by the target's instruments.

Conventions. All distances are between levelled excerpts, and 0 for a copy.

* ``log_mel``: mean absolute difference of the log-mel spectra in dB, frame by frame (64 bands,
  floor 50 dB below the peaks). Wrong notes, wrong timbre and wrong timing all cost.
* ``timbre``: Euclidean distance of the averages of the domain recogniser's hidden layer (24 values
  in [-1, 1]): *how* it sounds, with little regard of which notes are played.
* ``chroma_cosine``: cosine of the pitch-class magnitudes per frame, averaged over the frames in
  which the truth sounds, in [0, 1].

Silence is at the distance of the floor. Notebook: ``08_evaluation``.
"""

from collections.abc import Mapping

import numpy as np

from umtlib.evaluation.features import Sound, pair
from umtlib.evaluation.pitch import mean_cosine
from umtlib.evaluation.recogniser import Recogniser

METRICS = ("log_mel", "timbre", "chroma_cosine")


def spectral_distance(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the mean absolute difference of two dB spectra, shape (rows, F)."""
    return float(np.abs(truth - estimate).mean())


def timbre_distance(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the distance of the means of embeddings, shapes (n, D) and (m, D)."""
    return float(np.linalg.norm(truth.mean(axis=0) - estimate.mean(axis=0)))


def timbre_table(
    truths: Mapping[str, Sound], made: Mapping[str, Sound], judge: Recogniser
) -> np.ndarray:
    """Return the timbre distances of one excerpt's translations to its true renderings, by domain.

    Shape (K, K): a row for each of ``made``, a column for each of ``truths``, in their order. Where
    every decoder plays its own domain the diagonal is the smallest.
    """
    true, heard = (
        [np.tanh(judge.embed(sounds[name])) for name in truths] for sounds in (truths, made)
    )
    return np.array([[timbre_distance(b, a) for b in true] for a in heard])


def evaluate(truth: Sound, estimate: Sound, judge: Recogniser | None) -> dict[str, float | None]:
    """Compare a translation with the true rendering; without a judge the timbre is None."""
    both = true, heard = pair(truth, estimate)
    return {
        "log_mel": spectral_distance(true.log_mel, heard.log_mel),
        "timbre": timbre_distance(*(np.tanh(judge.embed(x)) for x in both)) if judge else None,
        "chroma_cosine": mean_cosine(*(x.chroma[:, true.sounding] for x in both)),
    }
