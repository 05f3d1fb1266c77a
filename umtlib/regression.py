"""The first weights around the latent, fitted in place of drawn at random.

A filter bank's energies say which notes sound. A network that starts from random weights needs
thousands of steps to let them through to the latent; this starts where those would end. The
residual layers begin as the identity, and the projection is the linear map from energies to the 64
numbers that best predict the pitch spectrogram (`umtlib.losses.pitch_spectrogram`) of the clean
audio from the *augmented* one, so that it is blind to equalising from the first step on. This is
reduced-rank regression: least squares, then the principal components of what it predicts, each
scaled to a variance of one.

The maps from the latent to each domain's spectrum (`umtlib.prediction.Envelope`) are fitted once
the encoder stands still; they have a hidden layer, so by gradient descent. None of this is in the
paper. Notebook: ``03_training``.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import losses, prediction
from umtlib.batches import Batch
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError
from umtlib.translator import MusicTranslator

STEPS, FRAMES, RATE, DECAY = 2_000, 256, 3e-3, 1e-2  # of an envelope's training, with AdamW
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


def fit_envelopes(model: MusicTranslator, batches: Iterable[Batch], seed: int) -> None:
    """Train the maps from the latent to each domain's spectrum, on latents that no longer change.

    Parameters
    ----------
    model : MusicTranslator
        Its decoders are given a prediction. Nothing but their envelopes is changed.
    batches : iterable of Batch
        At least ten minutes of each domain; domains that are not in it keep their maps.
    seed : int
        Of the order in which the frames are taken.
    """
    latents, wanted = defaultdict(list), defaultdict(list)
    for batch in batches:
        with torch.no_grad():
            latents[batch.domain].append(model.encode(batch.heard).transpose(1, 2).flatten(0, 1))
            spectrum = prediction.log_spectrum(batch.target, model.config.encoder.pool)
        wanted[batch.domain].append(spectrum.flatten(0, 1))
    for domain, rows in latents.items():
        x, y = torch.cat(rows), torch.cat(wanted[domain])
        _train(model.decoders[domain].envelope, x, y, torch.Generator().manual_seed(seed))


def _train(envelope: prediction.Envelope, x: Tensor, y: Tensor, order: torch.Generator) -> None:
    with torch.no_grad():
        envelope.out.weight.zero_()
        envelope.out.bias.copy_(y.mean(dim=0))
    adam = torch.optim.AdamW(envelope.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        some = torch.randint(len(x), (FRAMES,), generator=order).to(x.device)
        loss = F.mse_loss(envelope(x[some].T[None])[0], y[some])
        adam.zero_grad()
        loss.backward()
        adam.step()
