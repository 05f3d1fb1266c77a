"""The losses of section 3.4, as pure functions of network outputs.

Autoencoder: ``CE(D_j(E(O(s))), s) - lambda * CE(C(E(O(s))), j)``, summed over domains j and
segments s. Classifier: ``CE(C(E(O(s))), j)``. All are in nats.
"""

import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.layers import constant_q_bank, log_energies

SEMITONES = 84


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
    return F.cross_entropy(logits.transpose(1, 2).flatten(0, 1).float(), target.flatten())


def domain(logits: Tensor, index: int) -> Tensor:
    """Return the mean cross-entropy of the classifier's logits, (B, K), with the true domain."""
    return F.cross_entropy(logits.float(), logits.new_full((len(logits),), index).long())


def pitch_spectrogram(codes: Tensor, pool: int) -> Tensor:
    """Return the log energies of a semitone filter bank at the latent's frame rate.

    A mel spectrogram would not tell neighbouring notes apart below 600 Hz; this does.

    Parameters
    ----------
    codes : Tensor
        int64 mu-law codes, shape (B, T), T a multiple of the pool.
    pool : int
        Samples per latent frame.

    Returns
    -------
    Tensor
        float32, shape (B, 84, T / pool): semitones from A1 (55 Hz), of order one.
    """
    bank = constant_q_bank(SEMITONES, 4_096, 55.0, 55.0 * 2 ** ((SEMITONES - 1) / 12))
    return log_energies(mulaw.decode(codes), bank.to(codes.device), pool)


def spectral(predicted: Tensor, pitches: Tensor) -> Tensor:
    """Return the mean squared error between two (B, 84, F) pitch spectrograms."""
    return F.mse_loss(predicted.float(), pitches)
