"""The losses of section 3.4, as pure functions of network outputs.

Autoencoder: ``CE(D_j(E(O(s))), s) - lambda * CE(C(E(O(s))), j)``, summed over domains j and
segments s. Classifier: ``CE(C(E(O(s))), j)``. All are in nats.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import fused, mulaw
from umtlib.layers import constant_q_bank, log_energies

SEMITONES, LOWEST = 84, 55.0  # seven octaves from A1, Hz
PITCHES = SEMITONES + 1  # and the level
_CONTRAST, _LEVEL = 2.4, 7.5  # bring both to a variance of about 1 and 4 on music


def reconstruction(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy per sample, in nats.

    Parameters
    ----------
    logits : Tensor
        Shape (B, 256, T).
    target : Tensor
        int64 codes, shape (B, T).
    """
    # Flattened in the decoder's own memory order (B, T, 256), the class axis is contiguous.
    rows, targets = logits.transpose(1, 2).flatten(0, 1), target.flatten()
    if fused.fits(rows):
        return fused.cross_entropy(rows, targets)
    return F.cross_entropy(rows.float(), targets)


def domain(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return the mean cross-entropy of the classifier's logits, (B, K), with the true domain.

    ``index`` is that of all rows, or int64, shape (B,).
    """
    if not isinstance(index, Tensor):
        index = torch.full((len(logits),), index, device=logits.device)
    return F.cross_entropy(logits.float(), index)


def confusion(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy of the classifier's logits, (B, K), with no domain at all.

    Least, ln K, where every domain is as likely as another. Unlike the classifier's own loss, of
    which an encoder can have ever more, it pays for ignorance and not for error.
    """
    return -F.log_softmax(logits.float(), dim=1).mean()


def pitch_spectrogram(codes: Tensor, pool: int) -> Tensor:
    """Return which pitches stand out, and how loud it is, at the latent's frame rate.

    The log energies of a semitone filter bank, less their average over the octave around each: what
    is left is notes and overtones, and hardly any spectral envelope, which is the instrument's.

    Parameters
    ----------
    codes : Tensor
        int64 mu-law codes, shape (B, T), T a multiple of the pool.
    pool : int
        Samples per latent frame.

    Returns
    -------
    Tensor
        float32, shape (B, 85, T / pool): 84 semitones from A1, then the level, of order one.
    """
    bank = constant_q_bank(SEMITONES, 4_096, LOWEST, LOWEST * 2 ** ((SEMITONES - 1) / 12))
    energies = log_energies(mulaw.decode(codes), bank.to(codes.device), pool)  # (B, 84, F)
    around = F.pad(energies.transpose(1, 2), (6, 6), mode="replicate")
    contrast = energies - F.avg_pool1d(around, 13, 1).transpose(1, 2)
    level = energies.mean(dim=1, keepdim=True)
    return torch.cat([_CONTRAST * contrast, _LEVEL * level], dim=1)
