"""First weights around the latent, fitted in place of drawn at random.

A filter bank's energies say which notes sound. A network that starts from random weights needs
thousands of steps to let them through to the latent; this starts where those would end. The
residual layers begin as the identity, and the projection is the linear map from energies to the 64
numbers that best predict the pitch spectrogram (`umtlib.losses.pitch_spectrogram`) of the clean
audio from the *augmented* one, so that it is blind to equalising from the first step on. This is
reduced-rank regression: least squares, then the principal components of what it predicts, each
scaled to a variance of one.

The maps from the latent to each domain's spectrum (`umtlib.prediction.Envelope`) have a hidden
layer, and are fitted by gradient descent. None of this is in the paper. Notebook: ``03_training``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import losses, prediction
from umtlib.encoder import Encoder

STEPS, FRAMES, RATE, DECAY = 2_000, 256, 3e-3, 1e-2  # of an envelope's fit, with AdamW
FLOOR = 0.05  # of the largest component's size, added to each: small ones are mostly noise


@torch.no_grad()
def fit(encoder: Encoder, energies: Tensor, target: Tensor) -> Tensor:
    """Set the weights of an encoder.

    Parameters
    ----------
    encoder : Encoder
        With a filter bank, and a channel for each filter.
    energies : Tensor
        Those of its filter bank for some augmented audio, shape (N, filters, T / stride).
    target : Tensor
        The clean audio as mu-law codes, integers, shape (N, T): a few minutes.

    Returns
    -------
    Tensor
        The linear map from its latent to the pitch spectrogram without its mean, float64, shape
        (latent, `losses.PITCHES`).
    """
    pool, latent = encoder.config.pool, encoder.config.latent
    x = torch.cat([_rows(encoder.pooled(some.float())) for some in energies.split(32)])
    pitches = (losses.pitch_spectrogram(some.long(), pool) for some in target.split(32))
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


def fit_envelope(
    envelope: prediction.Envelope, x: Tensor, y: Tensor, seed: int, share: float = 1.0
) -> None:
    """Train the map from the latent to a domain's spectrum, on latents that no longer change.

    Parameters
    ----------
    envelope : Envelope
        The map.
    x, y : Tensor
        Latent frames, shape (N, latent), and their log power spectra, shape (N, BINS).
    seed : int
        Of the order in which the frames are taken.
    share : float
        Of the usual number of steps.
    """
    steps = round(share * STEPS)
    order = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        envelope.out.weight.zero_()
        envelope.out.bias.copy_(y.mean(dim=0))
    adam = torch.optim.AdamW(envelope.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * (1 - step / steps)
        some = torch.randint(len(x), (FRAMES,), generator=order).to(x.device)
        loss = F.mse_loss(envelope(x[some].T[None])[0], y[some])
        adam.zero_grad()
        loss.backward()
        adam.step()
