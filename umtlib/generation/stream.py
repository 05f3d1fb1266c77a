"""Translation while the audio still arrives. Notebook: ``06_generation``."""

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from umtlib.audio import SAMPLE_RATE
from umtlib.errors import ConfigError
from umtlib.generation import resolve
from umtlib.generation.hearing import encode_blocks
from umtlib.generation.perform import perform
from umtlib.translator import MusicTranslator

HOP = 4  # latent frames per step: 0.2 s; fewer cost more, as each step encodes its surroundings too


def latency(model: MusicTranslator, hop: int = HOP) -> float:
    """Return the seconds from a sample's arrival to its translation, not counting the computing.

    A latent frame is known once `encoder.reach` samples after its end have arrived, frames are
    taken `hop` at a time, and the decoders' guides may wait for what follows.
    """
    late = max(decoder.guide.late for decoder in model.decoders.values())
    return (hop * model.config.encoder.pool + model.encoder.reach + late) / SAMPLE_RATE


def stream(
    model: MusicTranslator,
    blocks: Iterable[Tensor | np.ndarray],
    to: str,
    *,
    hop: int = HOP,
    **options,
) -> Iterator[Tensor]:
    """Translate audio block by block, as it arrives, in memory that does not grow.

    The result is that of `umtlib.translate` of the whole input with the same seed, up to the
    rounding of the encoder's sums. But that brings recording and result to the level of the
    training audio, by gains that cannot be known before the end: here the caller does, as far as
    that goes (see `umtlib.audio.level_gain`).

    Parameters
    ----------
    blocks : iterable of array
        Waveform at 16 kHz in [-1, 1], each of shape (samples,), of any lengths.
    hop : int
        Latent frames per step, at least 1. See `latency`.
    **options
        Of `umtlib.generation.generate_many`: generator, temperature, backend, threads, dtype; the
        last by default as in `umtlib.translate`.

    Yields
    ------
    Tensor
        float32 waveform in [-1, 1], shape (samples,); together as long as the input.

    Raises
    ------
    ConfigError, GenerationError
        If the model has no such domain; if a block is not of such numbers, or an option is wrong.
    """
    if to not in model.domains:
        raise ConfigError(f"unknown domain {to!r}; this model has {', '.join(model.domains)}")
    backend, dtype = resolve(options.get("backend", "auto"), options.get("dtype", "auto"))
    pieces = encode_blocks(model, blocks, hop, dtype)
    for _, piece in perform(model, [to], pieces, **options | {"backend": backend, "dtype": dtype}):
        yield piece[0]
