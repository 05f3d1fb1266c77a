"""A domain's WaveNet decoder D_j: latent and past samples to the next one (section 3.2, Figure 1).

Internally time stands before channels, (B, T, C): a causal convolution of kernel 2 is then one
matrix product on ``[x[t - d], x[t]]``, which is how every processor likes it best. Notebook:
``03_the_network``.
"""

import pkgutil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw
from umtlib.config import DecoderConfig
from umtlib.errors import ConfigError
from umtlib.guide import GUIDES, Told, predict
from umtlib.layers import delay, dilations, receptive_field
from umtlib.machine import fused


class ScalarInput(nn.Module):
    """Previous samples, one number each in [-0.5, 0.5], through a causal convolution."""

    def __init__(self, kernel: int, channels: int):
        super().__init__()
        self.kernel = kernel
        self.taps = nn.Linear(kernel, channels)  # tap 0 is the oldest sample

    def forward(self, codes: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        return self.from_signal(codes.to(self.taps.weight.dtype) / 255 - 0.5)

    def from_signal(self, signal: Tensor) -> Tensor:
        """The same from the scaled samples, through which a gradient can flow."""
        past = [delay(signal, steps) for steps in range(self.kernel, 0, -1)]
        return self.taps(torch.stack(past, dim=-1))


class CodeInput(nn.Module):
    """Previous samples looked up in a table each: a causal convolution of one-hot codes."""

    def __init__(self, kernel: int, channels: int):
        super().__init__()
        self.kernel = kernel
        self.tables = nn.Parameter(torch.randn(kernel, mulaw.CODES, channels) / kernel**0.5)

    def forward(self, codes: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        past = [delay(codes, steps, mulaw.SILENCE) for steps in range(self.kernel, 0, -1)]
        return sum(F.embedding(code, table) for code, table in zip(past, self.tables, strict=True))


class GatedLayer(nn.Module):
    """Dilated causal convolution, conditioned gate, and one product for residual and skip."""

    def __init__(self, config: DecoderConfig, latent: int, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.channels, skip = config.channels, config.skip_channels
        self.taps = nn.Linear(2 * self.channels, 2 * self.channels)  # [x[t - d], x[t]] in
        self.condition = nn.Linear(latent, 2 * self.channels, bias=False)
        self.out = nn.Linear(self.channels, self.channels + skip)  # residual, then skip

    def forward(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        # x: (B, T, C); latent: (B, F, L); T = F * pool
        h = self.taps(torch.cat([delay(x, self.dilation), x], dim=-1))
        h = per_frame_sum(h, self.condition(latent))
        gate, value = h.chunk(2, dim=-1)
        sizes = [self.channels, self.out.out_features - self.channels]
        residual, skip = self.out(gate.sigmoid() * value.tanh()).split(sizes, dim=-1)
        return x + residual, skip


def per_frame_sum(h: Tensor, frames: Tensor) -> Tensor:
    """Add to every sample the value of its frame: nearest-neighbour upsampling, without the copy.

    Shapes (B, T, C) and (B, F, C), where T is a multiple of F.
    """
    samples = h.shape[1] // frames.shape[1]
    return (h.unflatten(1, (-1, samples)) + frames[:, :, None]).flatten(1, 2)


class Decoder(nn.Module):
    """An autoregressive model of one domain's audio, conditioned on the latent.

    The latent has so many channels, and a frame for each ``pool`` samples. Raises ConfigError if
    there is no such guide, or it does not go with the pool.
    """

    def __init__(self, config: DecoderConfig, latent: int, pool: int):
        super().__init__()
        self.config = config
        if config.guide not in GUIDES:
            known = ", ".join(GUIDES)
            raise ConfigError(f"unknown guide {config.guide!r}; choose one of {known}")
        self.guide = pkgutil.resolve_name(GUIDES[config.guide])(latent, pool)
        first = CodeInput if config.input == "codes" else ScalarInput
        self.input = first(config.input_kernel, config.channels)
        if self.guide.order:
            self.predicted = nn.Embedding(mulaw.CODES, config.channels)
        self.input_skip = nn.Linear(config.channels, config.skip_channels)
        self.layers = nn.ModuleList(
            GatedLayer(config, self.guide.channels, dilation)
            for dilation in dilations(config.blocks, config.layers)
        )
        self.head = nn.Linear(config.skip_channels, config.skip_channels)
        self.head_condition = (
            nn.Linear(self.guide.channels, config.skip_channels, bias=False)
            if config.condition_head
            else None
        )
        self.logits = nn.Linear(config.skip_channels, mulaw.CODES)

    def forward(self, codes: Tensor, latent: Tensor) -> Tensor:
        """Predict every sample from those before it (teacher forcing).

        Of the true mu-law codes, in 0..255, (B, T), and a latent, (B, latent, F), F = ceil(T /
        pool), it returns logits over the 256 codes, (B, 256, T). The shift by one is done here: the
        prediction of sample t sees samples 0 .. t - 1.
        """
        return self.predict(codes, self.guide.tell(latent))

    def predict(self, codes: Tensor, told: Told) -> Tensor:
        """Return the same, told what its guide makes of a latent: logits of shape (B, 256, T)."""
        length, whole = codes.shape[1], told.condition.shape[2] * self.guide.hop
        codes = F.pad(codes, (0, whole - length), value=mulaw.SILENCE)
        x = self.input(codes)
        if told.predictors is not None:
            x = x + self.predicted(predict(codes, told.predictors))
        return self.body(x, told.condition)[:, :length].transpose(1, 2)

    def body(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return logits (B, T, 256) of the embedded input (B, T, C), conditioned on (B, L, N)."""
        condition = condition.transpose(1, 2)  # (B, N, L)
        h = self.head(F.relu(self._skips(x, condition)))
        if self.head_condition is not None:
            h = per_frame_sum(h, self.head_condition(condition))
        return self.logits(F.relu(h))

    def _skips(self, x: Tensor, condition: Tensor) -> Tensor:  # (B, T, C), (B, N, L) -> (B, T, S)
        skips = self.input_skip(x)
        if fused.fits(x):
            return fused.stack(self.layers, x, skips, condition)
        for layer in self.layers:
            x, skip = layer(x, condition)
            skips = skips + skip
        return skips

    @property
    def receptive_field(self) -> int:
        """How many previous samples a prediction depends on: 4,093 in the paper, 256 ms."""
        stack = dilations(self.config.blocks, self.config.layers)
        first = max(self.config.input_kernel, self.guide.order)
        return receptive_field(stack, kernel=2) + first - 1
