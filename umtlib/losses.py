"""The losses of section 3.4, as pure functions of network outputs.

Autoencoder: ``CE(D_j(E(O(s))), s) - lambda * CE(C(E(O(s))), j)``, summed over domains j and
segments s. Classifier: ``CE(C(E(O(s))), j)``. All are in nats.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib.machine import fused


def reconstruction(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy per sample of logits, (B, 256, T), with codes, (B, T)."""
    # Flattened in the decoder's own memory order (B, T, 256), the class axis is contiguous.
    rows, targets = logits.transpose(1, 2).flatten(0, 1), target.flatten()
    if fused.fits(rows):
        return fused.cross_entropy(rows, targets)
    return F.cross_entropy(rows.float(), targets)


def domain(logits: Tensor, index: int) -> Tensor:
    """Return the mean cross-entropy of the classifier's logits, (B, K), with the true domain."""
    truth = torch.full((len(logits),), index, device=logits.device)
    return F.cross_entropy(logits.float(), truth)
