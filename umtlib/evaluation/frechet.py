"""Do translations, as a crowd, sound like the target domain's own recordings? A distance.

Conventions. The Frechet distance of two Gaussians, fitted to the embeddings of 2 s windows of two
sets, 24 values before the recogniser's tanh. The reference set is the held-out audio of the target
domain. Few windows add to the distance; so their number stands beside it, and that of the *true*
renderings, from as many, is its floor. Not comparable with distances on other embeddings.

Source: Kilgour et al. 2019; Gui et al. 2024 on its bias. Notebook: ``08_evaluation``.
"""

import numpy as np
import torch
import torchaudio


def frechet_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the Frechet distance of embeddings, shapes (n, D) and (m, D), two of each at least."""
    moments = []
    for points in (reference, estimate):
        points = torch.from_numpy(np.asarray(points, float))
        moments += [points.mean(dim=0), torch.atleast_2d(torch.cov(points.T))]
    return max(0.0, float(torchaudio.functional.frechet_distance(*moments)))


def evaluate(reference: np.ndarray, estimate: np.ndarray) -> dict:
    """Return the ``distance``, None if one set has fewer than two, and the numbers of windows."""
    counts = {"reference_windows": len(reference), "windows": len(estimate)}
    defined = min(counts.values()) > 1
    return {"distance": frechet_distance(reference, estimate) if defined else None} | counts
