"""The shared encoder E: 8-bit audio to a latent sequence (section 3.1, Figure 1).

A WaveNet-like stack of dilated convolutions that looks both ways in time, a projection to the
latent channels and an average over 50 ms. The same encoder serves every domain, also those that it
never heard. Notebook: ``03_the_network``.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw
from umtlib.config import EncoderConfig
from umtlib.layers import constant_q_bank, dilations, log_energies


class ResidualLayer(nn.Module):
    """ReLU, dilated convolution (kernel 3, both ways), ReLU, 1x1, plus the layer's input."""

    def __init__(self, channels: int, dilation: int, first_relu: bool):
        super().__init__()
        self.first_relu = first_relu
        self.dilated = nn.Conv1d(channels, channels, 3, dilation=dilation, padding=dilation)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) -> (B, C, T)
        h = F.relu(x) if self.first_relu else x
        return x + self.out(F.relu(self.dilated(h)))


class WaveformFrontEnd(nn.Module):
    """The paper's first layer: a convolution on the codes, scaled to [-0.5, 0.5]."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.conv = nn.Conv1d(1, config.channels, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:  # (B, T) -> (B, C, T)
        return self.conv(codes[:, None].to(self.conv.weight.dtype) / 255 - 0.5)


class FilterbankFrontEnd(nn.Module):
    """A strided bank of band-pass filters, then the logarithm of their energies.

    A raw-waveform encoder spends its first hours learning what this starts from: which pitches
    sound when. The dilated layers above run at the strided rate, thirty times cheaper. The filters
    stay as they are: their taps are of order 0.001, and Adam's steps would turn them into noise.
    """

    LOWEST, HIGHEST = 60.0, 5_000.0  # Hz, centre frequencies

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.stride = config.filter_stride
        bank = constant_q_bank(config.filters, config.filter_taps, self.LOWEST, self.HIGHEST)
        self.register_buffer("bank", bank, persistent=False)  # follows from the configuration
        self.mix = nn.Conv1d(config.filters, config.channels, 1)

    def energies(self, codes: Tensor) -> Tensor:
        """Return the log energy of every filter, shape (B, filters, T / stride)."""
        return log_energies(mulaw.decode(codes), self.bank, self.stride)

    def forward(self, codes: Tensor) -> Tensor:  # (B, T) -> (B, C, T / stride)
        return self.mix(self.energies(codes))


class Encoder(nn.Module):
    """Audio codes to latent frames."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        front_end = FilterbankFrontEnd if config.front_end == "filterbank" else WaveformFrontEnd
        self.front_end = front_end(config)
        stack = dilations(config.blocks, config.layers)
        layers = (ResidualLayer(config.channels, dilation, config.first_relu) for dilation in stack)
        self.layers = nn.Sequential(*layers)
        self.project = nn.Conv1d(config.channels, config.latent, 1)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the latent, shape (B, latent, F), of mu-law codes in 0..255, shape (B, T).

        F = ceil(T / pool), 20 frames per second: the end is padded with silence.
        """
        pool = self.config.pool
        codes = F.pad(codes, (0, -codes.shape[1] % pool), value=mulaw.SILENCE)
        return self.above(self.front_end(codes))

    def above(self, h: Tensor) -> Tensor:
        """Return the latent of what the front end has made, shape (B, C, T / stride)."""
        return self.pooled(self.project(self.layers(h)))

    def pooled(self, h: Tensor) -> Tensor:
        """Average over the steps of each latent frame: (B, C, T / stride) to (B, C, F)."""
        return F.avg_pool1d(h, self.config.pool // self.config.stride)

    @property
    def reach(self) -> int:
        """Samples on either side of a latent frame that it depends on."""
        stack = sum(dilations(self.config.blocks, self.config.layers)) * self.config.stride
        edge = self.config.filter_taps // 2 if self.config.front_end == "filterbank" else 1
        return stack + edge
