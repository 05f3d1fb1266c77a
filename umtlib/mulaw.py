"""8-bit mu-law: a waveform in [-1, 1] to 256 codes and back (section 4).

Companding spends the 256 levels where the ear and most samples are: near zero.

The default pair is torchaudio's: an exact bijection on codes, with silence at 128. The pair of the
authors' code is not an inverse (one decode and encode moves almost every code down by one); it is
here only for their weights, which were trained on it. Notebook: ``03_the_network``.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torchaudio.functional import mu_law_decoding, mu_law_encoding

CODES = 256
SILENCE = 128


def encode(waveform: Tensor, pair: str = "torchaudio") -> Tensor:
    """Compand a waveform of any shape, clipped to [-1, 1], to int64 codes in 0..255.

    ``pair`` is ``"torchaudio"`` or ``"official"``.
    """
    clipped = waveform.clamp(-1, 1)
    if pair == "torchaudio":
        return mu_law_encoding(clipped, CODES)
    companded = clipped.sign() * torch.log1p((CODES - 1) * clipped.abs()) / math.log(CODES)
    return ((companded + 1) / 2 * (CODES - 1)).floor().long()


def decode(codes: Tensor, pair: str = "torchaudio") -> Tensor:
    """Expand integer codes in 0..255, of any shape, to a waveform, float32 in [-1, 1]."""
    if pair == "torchaudio":
        return mu_law_decoding(codes, CODES)
    companded = 2 * (codes.float() - SILENCE) / CODES
    return companded.sign() * (CODES ** companded.abs() - 1) / (CODES - 1)


@cache
def amplitudes() -> Tensor:
    """Return the amplitude of every code: float64, shape (256,)."""
    return decode(torch.arange(CODES, dtype=torch.float64))


@cache
def thresholds() -> Tensor:
    """Return the amplitudes between neighbouring codes: float64, ascending, shape (255,)."""
    return decode(torch.arange(1, CODES, dtype=torch.float64) - 0.5)


def nearest(amplitude: Tensor) -> Tensor:
    """Return the nearest code of an amplitude, int64: the number of thresholds below it."""
    return torch.bucketize(amplitude, thresholds().to(amplitude.device))
