"""How far translations, as a crowd, lie from the target domain's own recordings.

Conventions. The Frechet distance of two Gaussians, fitted to the embeddings of two sets of 2 s
windows: ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``. The embedding is the hidden layer of the
domain recogniser (24 values, `umtlib.evaluation.recogniser`); the reference set is the held-out
audio of the target domain. It needs no download, and is therefore **not** comparable with
distances on VGGish or other embeddings. It also falls with the reference set and with the number
of windows: a covariance of 24 x 24 from few windows is underestimated, which adds to the distance.
So counts stand beside each number, and the distance of the *true* renderings, from as many
windows, is its floor.

Source: Kilgour et al. 2019; Gui et al. 2024 on its bias. Notebook: ``05_evaluation``.
"""

import numpy as np
import scipy.linalg

from umtlib.errors import EvaluationError


def validate(reference: np.ndarray, estimate: np.ndarray) -> None:
    """Check two sets of embeddings.

    Raises
    ------
    EvaluationError
        If they are not of shapes (n, D) and (m, D), or not finite.
    """
    for points in (reference, estimate):
        if np.ndim(points) != 2 or not np.isfinite(points).all():
            raise EvaluationError(
                f"embeddings of shape {np.shape(points)}; give finite ones, (n, D)"
            )
    if reference.shape[1] != estimate.shape[1]:
        raise EvaluationError(f"embeddings of {reference.shape[1]} and {estimate.shape[1]} values")


def frechet_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the Frechet distance of two sets of embeddings.

    Parameters
    ----------
    reference, estimate : np.ndarray
        Shapes (n, D) and (m, D).

    Returns
    -------
    float
        0 for equal sets; NaN if a set has fewer than two points, for it then has no covariance.
    """
    validate(reference, estimate)
    if min(len(reference), len(estimate)) < 2:
        return float("nan")
    gap = reference.mean(axis=0) - estimate.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(points.T)) for points in (reference, estimate))
    # The trace of the product's root is the sum of the roots of its eigenvalues, which are real and
    # not negative; unlike a matrix root, that also holds for singular covariances.
    eigenvalues = scipy.linalg.eigvals(first @ second).real
    shared = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return max(0.0, float(gap @ gap + np.trace(first) + np.trace(second) - 2 * shared))


def evaluate(reference: np.ndarray, estimate: np.ndarray) -> dict:
    """Return the distance and what it depends on.

    Parameters
    ----------
    reference, estimate : np.ndarray
        Embeddings, shapes (n, D) and (m, D); see `frechet_distance`.

    Returns
    -------
    dict
        ``distance`` (None if undefined), ``reference_windows``, ``windows``.
    """
    distance = frechet_distance(reference, estimate)
    return {
        "distance": None if np.isnan(distance) else distance,
        "reference_windows": len(reference),
        "windows": len(estimate),
    }
