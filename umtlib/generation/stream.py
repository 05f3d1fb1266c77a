"""Translation while the audio still arrives. Notebook: ``04_generation``."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from umtlib import native
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError, GenerationError
from umtlib.generation.chunks import RATE, frame_levels
from umtlib.generation.encoding import encode
from umtlib.generation.perform import Heard, perform
from umtlib.translator import MusicTranslator

HOP = 4  # latent frames per step: 0.2 s; fewer cost more, as each step encodes its surroundings too
LOUDEST = 8.0  # what is above 1 is clipped; above this it is no waveform in [-1, 1]


def latency(model: MusicTranslator, hop: int = HOP) -> float:
    """Return the seconds from a sample's arrival to its translation, not counting the computing.

    A latent frame is known once `encoder.reach` samples after its end have arrived, frames are
    taken `hop` at a time, and the decoders' guides may wait for what follows.
    """
    late = max(decoder.guide.late for decoder in model.decoders.values())
    return (hop * model.config.encoder.pool + model.encoder.reach + late) / RATE


def stream(
    model: MusicTranslator,
    blocks: Iterable[Tensor | np.ndarray],
    to: str,
    *,
    hop: int = HOP,
    **options,
) -> Iterator[Tensor]:
    """Translate audio block by block, as it arrives.

    The result is that of `umtlib.translate` of the whole input with the same seed, up to the
    rounding of the encoder's sums. But that brings a recording to the level of the training audio
    first, by a gain that cannot be known before its end: here the caller does, as far as that goes
    (see `umtlib.audio.level_gain`). Memory does not grow.

    Parameters
    ----------
    model : MusicTranslator
        The translator.
    blocks : iterable of array
        Waveform at 16 kHz in [-1, 1], each of shape (samples,), of any lengths.
    to : str
        Name of the wanted domain.
    hop : int
        Latent frames per step, at least 1. See `latency`.
    **options
        Of `umtlib.generation.generate`: generator, temperature, backend, dtype, threads.

    Yields
    ------
    Tensor
        float32 waveform in [-1, 1], shape (samples,); together as long as the input.

    Raises
    ------
    ConfigError
        If the model has no such domain.
    GenerationError
        If a block is not of such numbers, or an option is not one that `generate` takes.
    """
    if to not in model.domains:
        raise ConfigError(f"unknown domain {to!r}; this model has {', '.join(model.domains)}")
    pieces = encode_blocks(model, blocks, hop, options.get("dtype"))
    for _, piece in perform(model, [to], pieces, **options):
        yield piece[0]


def encode_blocks(
    model: MusicTranslator,
    blocks: Iterable[Tensor | np.ndarray],
    frames: int,
    dtype: torch.dtype | None = None,
) -> Iterator[Heard]:
    """Encode audio block by block, in memory that does not grow.

    Windows overlap by as much as the encoder can see, so the latent does not depend on the cuts.

    Parameters
    ----------
    model : MusicTranslator
        The translator.
    blocks : iterable of array
        Waveform at 16 kHz in [-1, 1], each of shape (samples,), of any lengths.
    frames : int
        Latent frames at a time, at least 1; the last time what is left.
    dtype : torch.dtype, optional
        See `umtlib.generation.encoding.encode`; default float32.

    Yields
    ------
    Heard
        The next frames, with their levels.

    Raises
    ------
    GenerationError
        If a block is not of such numbers, or there are not so many frames.
    """
    frames = native.number("frames at a time (hop)", frames, 1, 2**31)
    if not isinstance(blocks, Iterable):
        raise GenerationError(f"blocks is {type(blocks).__name__}; give a list of arrays")
    line = _Line(model, dtype)
    for block in blocks:
        mend = "convert to float32 in [-1, 1], shape (samples,)"
        waveform = native.array(
            "block", block, torch.float32, (None,), -LOUDEST, LOUDEST, mend=mend
        )
        line.put(model.to_codes(waveform))
        while line.ready() >= frames:
            yield line.take(frames)
    if line.left():
        yield line.take(math.ceil(line.left() / line.pool))


def encode_frames(
    encoder: Encoder, codes: Tensor, first: int, last: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Encode the latent frames first .. last - 1 from as few samples as decide them.

    Parameters
    ----------
    encoder : Encoder
        Frames are of `encoder.config.pool` samples; a frame depends on `encoder.reach` around it.
    codes : Tensor
        mu-law codes, shape (T,), the first of which begins frame 0.
    first, last : int
        Range of frames.
    dtype : torch.dtype, optional
        See `umtlib.generation.encoding.encode`; default float32.

    Returns
    -------
    Tensor
        Shape (latent, last - first); what `encoder` makes of all of `codes`, up to rounding.
    """
    pool, device = encoder.config.pool, next(encoder.parameters()).device
    start = max(0, first - math.ceil(encoder.reach / pool))
    window = codes[start * pool : last * pool + encoder.reach].to(device)
    latent = encode(encoder, window[None], dtype=dtype or torch.float32)
    return latent[0, :, first - start : last - start]


class _Line:
    """Codes on their way into the encoder; forgets what no later frame depends on."""

    def __init__(self, model: MusicTranslator, dtype: torch.dtype | None = None):
        self.model, self.encoder, self.dtype = model, model.encoder, dtype
        self.pool = model.config.encoder.pool
        self.codes = torch.empty(0, dtype=torch.uint8)
        self.next = 0  # first frame that is not yet taken, counted from the start of `codes`

    def put(self, codes: Tensor) -> None:
        self.codes = torch.cat([self.codes, codes.to("cpu", torch.uint8)])

    def left(self) -> int:
        """Samples that are not yet translated."""
        return len(self.codes) - self.next * self.pool

    def ready(self) -> int:
        """Frames that no later sample can change."""
        return max(0, (self.left() - self.encoder.reach) // self.pool)

    def take(self, frames: int) -> Heard:
        """Encode the next frames."""
        span = self.next, self.next + frames
        latent = encode_frames(self.encoder, self.codes, *span, self.dtype)[None]
        heard = self.codes[self.next * self.pool : (self.next + frames) * self.pool]
        keep = math.ceil(self.encoder.reach / self.pool)
        drop = max(0, self.next + frames - keep)
        self.codes, self.next = self.codes[drop * self.pool :], self.next + frames - drop
        levels = frame_levels(self.model.to_waveform(heard), self.pool)
        return Heard(latent, len(heard), levels[None])
