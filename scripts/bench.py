"""How fast this machine generates, encodes and trains: one line of JSON.

::

    python scripts/bench.py generate --preset paper --streams 12 --threads 2
    python scripts/bench.py encode --preset paper --dtype int8
    python scripts/bench.py train --preset paper --batch 16 --precision bfloat16

Random weights do, as the time does not depend on them. All work is included, from drawing the
random numbers to the finished codes.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import Annotated

import torch
from typer import Option, Typer

from umtlib import config, generation, runs, training, translator
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.batches import Batch
from umtlib.decoder import Decoder
from umtlib.encoder import Encoder
from umtlib.errors import UmtError
from umtlib.generation import encoding
from umtlib.machine import devices

app = Typer(
    help="Measure the speed of this machine.", add_completion=False,
    result_callback=lambda found: print(json.dumps(found)),
)  # fmt: skip


@app.command()
def generate(
    preset: str = "small",
    streams: int = 1,
    domains: int = 1,
    threads: int | None = None,
    seconds: float = 5,
    backend: str = "auto",
    dtype: str = "float32",
) -> dict:
    """Measure how many samples per second are generated, of so many inputs and decoders at once."""
    backend, number = generation.resolve(backend, dtype)
    model = runs.preset(preset).model
    sizes = model.encoder.latent, model.encoder.pool
    decoders = [Decoder(model.decoder, *sizes) for _ in range(domains)]
    frames = 1 if backend == "reference" else max(1, 4_000 // sizes[1])
    latent = torch.randn(streams, sizes[0], frames)
    how = {"states": [generation.State() for _ in decoders], "backend": backend, "dtype": number}
    how["threads"] = threads = generation.thread_count(threads)
    samples = streams * domains * frames * sizes[1]
    rate = samples * _rate(lambda: generation.generate_many(decoders, latent, **how), seconds)
    return {
        "preset": preset, "backend": backend, "dtype": str(number)[6:], "streams": streams,
        "domains": domains, "threads": threads, "samples_per_second": round(rate),
        "real_time_factor": round(rate / SAMPLE_RATE / streams / domains, 4),
    }  # fmt: skip


@app.command()
def encode(preset: str = "small", seconds: float = 5, dtype: str = "float32") -> dict:
    """Measure how long encoding one second of audio takes."""
    _, number = generation.resolve(dtype=dtype)
    codes = torch.randint(256, (1, SAMPLE_RATE))
    encoder = Encoder(runs.preset(preset).model.encoder)
    rate = _rate(lambda: encoding.encode(encoder, codes, dtype=number), seconds)
    return {"preset": preset, "dtype": str(number)[6:], "threads": generation.thread_count(),
            "seconds_per_second": round(1 / rate, 4)}  # fmt: skip


@app.command()
def train(
    preset: str = "small",
    seconds: float = 10,
    batch: int = 1,
    crop: int = SAMPLE_RATE,
    device: str = "auto",
    precision: str = "auto",
    set_: Annotated[list[str], Option("--set", metavar="NAME=VALUE")] = [],  # noqa: B006, typer's
) -> dict:
    """Measure how many samples per second a training step of the paper processes."""
    runs.keep_memory()
    place = devices.device(device)
    precision = devices.precision(precision, place)
    model = runs.preset(preset).model
    settings = config.TrainingConfig(batch=batch, crop=crop, precision=precision)
    settings = config.changed(config.Preset(model, settings), set_).training
    model = translator.build(model).to(place)
    if settings.recompute:
        training.recompute(model)
    shape = settings.batch, settings.crop
    optimizers, codes = training.adam(model), torch.randint(256, shape, device=place)
    batches = cycle(Batch(name, codes, codes) for name in model.domains)
    with devices.told_of_memory(), devices.tf32(settings.precision == "tf32"):
        rate = _rate(
            lambda: training.train_step(model, optimizers, next(batches), settings), seconds
        )
    return {
        "preset": preset, "device": str(place), "precision": settings.precision,
        "batch": shape[0], "crop": shape[1], "threads": torch.get_num_threads(),
        "samples_per_second": round(shape[0] * shape[1] * rate),
    }  # fmt: skip


def _rate(piece: Callable[[], object], seconds: float) -> float:
    """Return how often per second a piece of work is done."""
    piece()
    began, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds or not count:
        piece()
        count += 1
    return count / taken


if __name__ == "__main__":
    try:
        app()
    except UmtError as error:
        sys.exit(str(error))
