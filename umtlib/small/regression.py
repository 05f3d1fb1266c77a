"""First weights around the latent, fitted in place of drawn at random.

A filter bank's energies say which notes sound. A network that starts from random weights needs
thousands of steps to let them through to the latent; this starts where those would end. The
residual layers begin as the identity, and the projection is the linear map from energies to the 64
numbers that best predict the pitch spectrogram (`pitch_spectrogram`) of the clean
audio from the *augmented* one, so that it is blind to equalising from the first step on. This is
reduced-rank regression: least squares, then the principal components of what it predicts, each
scaled to a variance of one.

None of this is in the paper. Notebook: ``05_training_six_domains``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw
from umtlib.encoder import Encoder
from umtlib.layers import constant_q_bank, log_energies

FLOOR = 0.05  # of the largest component's size, added to each: small ones are mostly noise
SEMITONES, LOWEST = 84, 55.0  # seven octaves from A1, Hz
PITCHES = SEMITONES + 1  # and the level
_CONTRAST, _LEVEL = 2.4, 7.5  # bring both to a variance of about 1 and 4 on music


@torch.no_grad()
def fit(encoder: Encoder, energies: Tensor, target: Tensor) -> Tensor:
    """Set the weights of an encoder that has a filter bank, and a channel for each filter.

    The energies are those of its filter bank for some augmented audio, (N, filters, T / stride),
    the target is the clean audio, a few minutes, as mu-law codes, (N, T). Returns the linear map
    from its latent to the pitch spectrogram without its mean, float64, (latent, `PITCHES`).
    """
    pool, latent = encoder.config.pool, encoder.config.latent
    x = torch.cat([_rows(encoder.pooled(some.float())) for some in energies.split(32)])
    pitches = (pitch_spectrogram(some.long(), pool) for some in target.split(32))
    y = torch.cat([_rows(some) for some in pitches])
    mean, spread = x.mean(dim=0), x.std(dim=0)
    x = (x - mean) / spread
    weights = torch.linalg.lstsq(x, y - y.mean(dim=0)).solution  # (filters, pitches)
    _, sizes, components = torch.linalg.svd(x @ weights, full_matrices=False)
    components = components[:latent]  # (latent, pitches)
    sizes = sizes[:latent] / len(x) ** 0.5
    sizes = sizes + FLOOR * sizes[0]
    _let_through(encoder, mean, spread)
    encoder.project.weight[: len(sizes), : len(mean), 0] = (weights @ components.T / sizes).T
    return components * sizes[:, None]


def _rows(features: Tensor) -> Tensor:  # (B, C, F) -> (B * F, C)
    return features.transpose(1, 2).flatten(0, 1).double()


def _let_through(encoder: Encoder, mean: Tensor, spread: Tensor) -> None:
    """Pass the energies, brought to mean 0 and variance 1, to the projection, and nothing else."""
    mix, project = encoder.front_end.mix, encoder.project
    for zero in (mix.weight, mix.bias, project.weight, project.bias):
        nn.init.zeros_(zero)
    mix.weight[: len(mean), :, 0] = torch.diag(1 / spread)
    mix.bias[: len(mean)] = -mean / spread
    for layer in encoder.layers:
        nn.init.zeros_(layer.out.weight)
        nn.init.zeros_(layer.out.bias)


def pitch_spectrogram(codes: Tensor, pool: int) -> Tensor:
    """Return which pitches stand out, and how loud it is, at the latent's frame rate.

    The log energies of a semitone filter bank, less their average over the octave around each: what
    is left is notes and overtones, and hardly any spectral envelope, which is the instrument's. Of
    codes (B, T) it is (B, 85, T / pool): 84 semitones from A1, then the level, of order one.
    """
    bank = constant_q_bank(SEMITONES, 4_096, LOWEST, LOWEST * 2 ** ((SEMITONES - 1) / 12))
    energies = log_energies(mulaw.decode(codes), bank.to(codes.device), pool)  # (B, 84, F)
    around = F.pad(energies.transpose(1, 2), (6, 6), mode="replicate")
    contrast = energies - F.avg_pool1d(around, 13, 1).transpose(1, 2)
    level = energies.mean(dim=1, keepdim=True)
    return torch.cat([_CONTRAST * contrast, _LEVEL * level], dim=1)
