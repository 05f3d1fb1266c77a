"""The encoder's first weights, fitted by least squares in place of drawn at random.

A filter bank's energies say which notes sound. A network that starts from random weights needs
thousands of steps to let them through to the latent; this starts where those would end. The
residual layers begin as the identity, and the projection is the linear map from energies to the 64
numbers that best predict the pitch spectrogram (`umtlib.losses.pitch_spectrogram`) of the clean
audio from the *augmented* one, so that it is blind to equalising from the first step on. This is
reduced-rank regression: least squares, then the principal components of what it predicts, each
scaled to a variance of one. Not in the paper. Notebook: ``03_training``.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from umtlib import losses
from umtlib.batches import Batch
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError

FLOOR = 0.05  # of the largest component's size, added to each: small ones are mostly noise


@torch.no_grad()
def fit(encoder: Encoder, head: nn.Conv1d, batches: Iterable[Batch]) -> None:
    """Set the weights of an encoder and of the head that reads pitches from its latent.

    Parameters
    ----------
    encoder : Encoder
        With the front end ``"filterbank"``, and at least as many channels as filters.
    head : nn.Conv1d
        From the latent to `losses.PITCHES`, kernel 1.
    batches : iterable of Batch
        A few minutes of audio. The same batches give the same weights.

    Raises
    ------
    ConfigError
        If the encoder has no filter bank, or fewer channels than filters.
    """
    sizes = encoder.config
    if sizes.front_end != "filterbank" or sizes.channels < sizes.filters:
        raise ConfigError("regression_batches needs a filterbank, and a channel for each filter")
    heard, wanted = [], []
    for batch in batches:
        energies = encoder.pooled(encoder.front_end.energies(batch.heard))
        heard.append(_rows(energies))
        wanted.append(_rows(losses.pitch_spectrogram(batch.target, encoder.config.pool)))
    x, y = torch.cat(heard), torch.cat(wanted)
    mean, spread, offset = x.mean(dim=0), x.std(dim=0), y.mean(dim=0)
    x = (x - mean) / spread
    weights = torch.linalg.lstsq(x, y - offset).solution  # (filters, pitches)
    _, sizes, components = torch.linalg.svd(x @ weights, full_matrices=False)
    components = components[: encoder.config.latent]  # (latent, pitches)
    sizes = sizes[: encoder.config.latent] / len(x) ** 0.5
    sizes = sizes + FLOOR * sizes[0]
    _let_through(encoder, mean, spread)
    encoder.project.weight[:, : len(mean), 0] = (weights @ components.T / sizes).T
    head.weight[:, : len(sizes), 0] = components.T * sizes
    head.bias.copy_(offset)


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
