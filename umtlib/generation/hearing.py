"""What the decoders' guides are given of a recording, and how it is made, in bounded memory."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib.generation.encoding import encode
from umtlib.machine import native
from umtlib.translator import MusicTranslator

PIECE = 1 << 17  # samples at a time, 8 s; more takes more memory, not less time
LOUDEST = 8.0  # what is above 1 is clipped; above this it is no waveform in [-1, 1]


@dataclass(frozen=True)
class Heard:
    """A recording as it was encoded, or some that are equally long.

    Its levels say where to cut it and, to some guides, how loud the result shall be.
    """

    latent: Tensor  # (B, latent, F), on the model's device
    samples: int  # of the recording, at most F * pool
    levels: Tensor | None = None  # its power in every frame, (B, F)

    def split(self, pool: int, piece: int | None = None) -> Iterator["Heard"]:
        """Cut it into pieces of at most so many samples (`PIECE`), at least a frame."""
        frames = max(1, (piece or PIECE) // pool)
        for first in range(0, self.latent.shape[2], frames):
            span, left = slice(first, first + frames), self.samples - first * pool
            levels = None if self.levels is None else self.levels[:, span]
            yield Heard(self.latent[:, :, span], min(left, frames * pool), levels)


def hear(
    model: MusicTranslator,
    blocks: Iterable[np.ndarray],
    samples: int,
    dtype: torch.dtype = torch.float32,
) -> Heard:
    """Encode a recording of so many samples, at least 1: 5 KB per second are kept.

    Blocks and format as in `encode_blocks`.
    """
    pool, frames = model.config.encoder.pool, -(-samples // model.config.encoder.pool)
    # Made at once: small arrays kept between large passing ones would let the heap grow for ever.
    device = next(model.parameters()).device
    latent = torch.empty(1, model.config.encoder.latent, frames, device=device)
    levels, start = torch.empty(1, frames), 0
    small = (block[i : i + PIECE] for block in blocks for i in range(0, len(block), PIECE))
    for part in encode_blocks(model, small, max(1, PIECE // pool), dtype):
        span = slice(start, start + part.latent.shape[2])
        latent[:, :, span], levels[:, span] = part.latent, part.levels
        start = span.stop
    return Heard(latent, samples, levels)


def encode_blocks(
    model: MusicTranslator,
    blocks: Iterable[Tensor | np.ndarray],
    frames: int,
    dtype: torch.dtype | None = None,
) -> Iterator[Heard]:
    """Encode audio block by block, in memory that does not grow, so many frames at a time.

    Windows overlap by as much as the encoder can see, so the latent does not depend on the cuts.
    Blocks are of the waveform at 16 kHz in [-1, 1], shape (samples,), of any lengths. The format is
    float32 or another of `umtlib.generation.encoding.encode`. Raises GenerationError if a block is
    not of such numbers, or there are not so many frames.
    """
    native.number("frames at a time (hop)", frames, 1, 2**31)
    pool, reach, dtype = model.config.encoder.pool, model.encoder.reach, dtype or torch.float32
    before = math.ceil(reach / pool)  # frames that a frame can see
    # Codes from the first that a later frame can see; the next frame, counted from there.
    codes, first = torch.empty(0, dtype=torch.uint8), 0
    end = object()
    for block in chain(blocks, [end]):
        if block is not end:
            wave = native.array("block", block, torch.float32, (None,), -LOUDEST, LOUDEST)
            codes = torch.cat([codes, model.to_codes(wave).to("cpu", torch.uint8)])
        while True:
            left = len(codes) - first * pool
            count = math.ceil(left / pool) if block is end else frames
            if not count or (block is not end and left < frames * pool + reach):
                break
            start = max(0, first - before)
            window = codes[start * pool : (first + count) * pool + reach]
            latent = encode(model.encoder, window[None], dtype=dtype)
            own = codes[first * pool : (first + count) * pool]
            levels = frame_levels(model.to_waveform(own), pool)
            yield Heard(latent[:, :, first - start :][:, :, :count], len(own), levels[None])
            drop = max(0, first + count - before)
            codes, first = codes[drop * pool :], first + count - drop


def frame_levels(waveform: Tensor, pool: int) -> Tensor:
    """Return the mean power of every latent frame of a waveform (T,), shape (ceil(T / pool),)."""
    whole = F.pad(waveform, (0, -len(waveform) % pool))
    return whole.unflatten(0, (-1, pool)).square().mean(dim=1)
