"""Receptive-field arithmetic, the shift that makes a network causal, and a bank of filters.

Notebook: ``03_the_network``.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def dilations(blocks: int, layers: int) -> tuple[int, ...]:
    """Return the dilations of a stack: 1, 2, 4, ... in each block, restarting at every block."""
    return tuple(2**layer for _ in range(blocks) for layer in range(layers))


def receptive_field(dilations: Iterable[int], kernel: int) -> int:
    """Return how many consecutive inputs one output of stacked dilated convolutions depends on.

    Each layer reaches ``(kernel - 1) * dilation`` further than the one above it. The paper's
    decoder: 4 blocks of 1..512, kernel 2, hence 4 * 1,023 + 1 = 4,093 samples.
    """
    return 1 + (kernel - 1) * sum(dilations)


def delay(signal: Tensor, steps: int, fill: float = 0.0) -> Tensor:
    """Shift a signal, (B, T) or (B, T, C), later in time: ``out[:, t] = signal[:, t - steps]``.

    The length stays; ``fill`` stands before the first sample.
    """
    steps = min(steps, signal.shape[1])
    before = signal.new_full((signal.shape[0], steps, *signal.shape[2:]), fill)
    return torch.cat([before, signal[:, : signal.shape[1] - steps]], dim=1)


def constant_q_bank(
    filters: int, taps: int, lowest: float, highest: float, sample_rate: int = 16_000
) -> Tensor:
    """Return band-pass filters whose width is about a tone, as the ear's and as in a piano roll.

    Each is a quadrature pair, cosine and sine under one Hann window, so that its energy does not
    depend on the phase. The window spans 20 periods, or all taps where those are fewer. The centre
    frequencies go from the lowest to the highest, in Hz, evenly in their logarithm; at its own each
    filter has unit gain. The result is float32, shape (2 * filters, 1, taps).
    """
    ends = math.log10(lowest), math.log10(highest)
    centre = torch.logspace(*ends, filters, dtype=torch.float64)[:, None]
    time = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / sample_rate
    span = (20 / centre).clamp(max=taps / sample_rate)
    window = torch.cos(math.pi * time / span).square() * (time.abs() < span / 2)
    gain, phase = 2 * window / window.sum(1, True), 2 * math.pi * centre * time
    pairs = torch.stack([phase.cos(), phase.sin()], dim=1) * gain[:, None]
    return pairs.flatten(0, 1)[:, None].float()


def log_energies(waveform: Tensor, bank: Tensor, stride: int) -> Tensor:
    """Return the logarithm of each filter pair's energy, scaled to values of order one.

    The waveform is in [-1, 1], (B, T), the bank from `constant_q_bank`. The result has the shape
    (B, filters, T / stride); each value is centred on its stretch of the waveform.
    """
    around = bank.shape[2] - stride
    padded = F.pad(waveform[:, None], (around // 2, around - around // 2))
    pairs = F.conv1d(padded, bank, stride=stride).unflatten(1, (-1, 2))
    # 1e-6: the energy of an amplitude of -60 dB counts as silence.
    return (pairs.square().sum(2) + 1e-6).log() / 4 + 2
