"""How fast this machine generates, encodes and trains: ``umt bench``.

Random weights do, as the time does not depend on them. All work is included, from drawing the
random numbers to the finished codes.
"""

import time
from collections.abc import Callable
from itertools import cycle

import torch

from umtlib import config, generation, runs, training, translator
from umtlib.batches import Batch
from umtlib.decoder import Decoder
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError
from umtlib.generation import encoding
from umtlib.mulaw import CODES

RATE = 16_000
MOST_STREAMS = 1_024  # at once, of all domains: some MB each


def generate(
    preset: str,
    *,
    streams: int = 1,
    domains: int = 1,
    threads: int | None = None,
    seconds: float = 5.0,
    backend: str = "auto",
    dtype: str = "float32",
) -> dict[str, float | int | str]:
    """Measure how many samples per second are generated.

    Parameters
    ----------
    preset : str
        See `umtlib.config.preset`.
    streams : int
        Inputs at once, through the same decoder.
    domains : int
        Decoders at once, with different weights.
    threads : int, optional
        As in `umtlib.generation.generate`.
    seconds : float
        How long to measure, after a short run to warm up.
    backend : str
        As in `umtlib.generation.generate`.
    dtype : {"float32", "bfloat16", "int8"}
        Number format of the products.

    Returns
    -------
    dict
        ``samples_per_second`` of all streams and domains together; ``real_time_factor`` of each
        of them (1: as fast as it plays); and the settings.

    Raises
    ------
    ConfigError
        If there is no such preset or dtype, or a number is not positive or too large.
    GenerationError
        If the backend cannot do it.
    """
    _check(streams=streams, domains=domains, seconds=seconds)
    if streams * domains > MOST_STREAMS:
        raise ConfigError(
            f"{streams} streams of {domains} domains are more than {MOST_STREAMS} together"
        )
    number = generation.dtype_named(dtype)
    model = config.preset(preset).model
    pool = model.encoder.pool
    decoders = [Decoder(model.decoder, model.encoder.latent, pool) for _ in range(domains)]
    states = [generation.State() for _ in decoders]
    backend = generation.fastest(number) if backend == "auto" else backend
    frames = 1 if backend == "reference" else max(1, 4_000 // pool)
    latent = torch.randn(streams, model.encoder.latent, frames)
    threads = generation.thread_count(threads)

    def piece() -> None:
        generation.generate_many(
            decoders, latent, states=states, threads=threads, backend=backend, dtype=number
        )

    rate = streams * domains * frames * pool * _rate(piece, seconds)
    return {
        "preset": preset,
        "backend": backend,
        "dtype": dtype,
        "streams": streams,
        "domains": domains,
        "threads": threads,
        "samples_per_second": round(rate),
        "real_time_factor": round(rate / RATE / streams / domains, 4),
    }


def encode(
    preset: str, *, seconds: float = 5.0, dtype: str = "float32"
) -> dict[str, float | int | str]:
    """Measure how long encoding one second of audio takes.

    Parameters
    ----------
    preset, seconds, dtype
        As in `generate`; an encoder with a filter bank computes in float32 always.

    Returns
    -------
    dict
        ``seconds_per_second``, and the settings.

    Raises
    ------
    ConfigError
        If there is no such preset or dtype.
    """
    _check(seconds=seconds)
    number = generation.dtype_named(dtype)
    encoder = Encoder(config.preset(preset).model.encoder)
    codes = torch.randint(CODES, (1, RATE))

    def piece() -> None:
        encoding.encode(encoder, codes, dtype=number)

    return {
        "preset": preset,
        "dtype": dtype,
        "threads": generation.thread_count(),
        "seconds_per_second": round(1 / _rate(piece, seconds), 4),
    }


def train(
    preset: str, *, seconds: float = 10.0, batch: int = 1, crop: int = RATE, dtype: str = "float32"
) -> dict[str, float | int | str]:
    """Measure how many samples per second a training step processes.

    The whole step of the paper: reconstruction, confusion and the classifier's update, on ready
    batches.

    Parameters
    ----------
    preset, seconds
        As in `generate`.
    batch, crop : int
        Segments, and samples per segment.
    dtype : {"float32", "bfloat16"}
        bfloat16 means autocast, where the processor has the instructions.

    Returns
    -------
    dict
        ``samples_per_second``, and the settings.

    Raises
    ------
    ConfigError
        If there is no such preset or dtype, or a number is not positive.
    """
    _check(seconds=seconds, batch=batch, crop=crop)
    runs.keep_memory()
    if not generation.dtype_named(dtype).is_floating_point:
        raise ConfigError(f"nothing is trained in {dtype}; choose float32 or bfloat16")
    model = translator.build(config.preset(preset).model)
    settings = config.TrainingConfig(batch=batch, crop=crop, bf16=dtype == "bfloat16")
    optimizers, codes = training.adam(model), torch.randint(CODES, (batch, crop))
    batches = cycle(Batch(name, codes, codes) for name in model.domains)

    def piece() -> None:
        training.train_step(model, optimizers, next(batches), settings)

    return {
        "preset": preset,
        "dtype": dtype,
        "batch": batch,
        "crop": crop,
        "threads": torch.get_num_threads(),
        "samples_per_second": round(batch * crop * _rate(piece, seconds)),
    }


def _rate(piece: Callable[[], None], seconds: float) -> float:
    """Return how often per second a piece of work is done."""
    piece()
    began, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds or not count:
        piece()
        count += 1
    return count / taken


def _check(**positive: float) -> None:
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{name} {value} must be more than 0")
