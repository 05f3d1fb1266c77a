"""``umt bench``: how fast this machine generates, encodes and trains.

Random weights do, as the time does not depend on them. All work is included, from drawing the
random numbers to the finished codes.
"""

import time
from collections.abc import Callable
from itertools import cycle
from typing import Annotated

from typer import Option, Typer

from umtlib import files
from umtlib.cli import options
from umtlib.errors import ConfigError

app = Typer(help="Measure the speed of this machine.", no_args_is_help=True)

RATE = 16_000
MOST_STREAMS = 1_024  # at once, of all domains: some MB each
Duration = Annotated[float, options.real("Seconds: how long to measure.", 0.01, 24 * 3600)]


@app.command()
def generate(
    preset: options.Preset = "small",
    streams: Annotated[int, Option(help="Inputs at once.", min=1, max=MOST_STREAMS)] = 1,
    domains: Annotated[int, Option(help="Decoders at once.", min=1, max=64)] = 1,
    threads: Annotated[
        int | None, Option(help="By default one per core.", min=1, max=1_024)
    ] = None,
    seconds: Duration = 5,
    backend: options.Backend = "auto",
    dtype: options.Dtype = "float32",
    json: options.Json = False,
) -> None:
    """Measure how many samples per second are generated."""
    import torch

    from umtlib import generation, runs
    from umtlib.decoder import Decoder

    if streams * domains > MOST_STREAMS:
        raise ConfigError(
            f"{streams} streams of {domains} domains are more than {MOST_STREAMS} together"
        )
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
    _show(json, {
        "preset": preset, "backend": backend, "dtype": str(number)[6:], "streams": streams,
        "domains": domains, "threads": threads, "samples_per_second": round(rate),
        "real_time_factor": round(rate / RATE / streams / domains, 4),
    })  # fmt: skip


@app.command()
def encode(
    preset: options.Preset = "small",
    seconds: Duration = 5,
    dtype: options.Dtype = "float32",
    json: options.Json = False,
) -> None:
    """Measure how long encoding one second of audio takes."""
    import torch

    from umtlib import generation, runs
    from umtlib.encoder import Encoder
    from umtlib.generation import encoding

    (_, number), codes = generation.resolve(dtype=dtype), torch.randint(256, (1, RATE))
    encoder = Encoder(runs.preset(preset).model.encoder)
    rate = _rate(lambda: encoding.encode(encoder, codes, dtype=number), seconds)
    threads = generation.thread_count()
    _show(json, {"preset": preset, "dtype": str(number)[6:], "threads": threads,
                 "seconds_per_second": round(1 / rate, 4)})  # fmt: skip


@app.command()
def train(
    preset: options.Preset = "small",
    seconds: Duration = 10,
    batch: Annotated[int, Option(help="Segments.", min=1, max=2**24)] = 1,
    crop: Annotated[int, Option(help="Samples per segment.", min=1, max=2**24)] = 16_000,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    set_: options.Set = [],
    json: options.Json = False,
) -> None:
    """Measure how many samples per second a training step of the paper processes."""
    import torch

    from umtlib import config, runs, training, translator
    from umtlib.corpora.batches import Batch
    from umtlib.machine import devices

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
    _show(json, {
        "preset": preset, "device": str(place), "precision": settings.precision,
        "batch": shape[0], "crop": shape[1], "threads": torch.get_num_threads(),
        "samples_per_second": round(shape[0] * shape[1] * rate),
    })  # fmt: skip


def _rate(piece: Callable[[], object], seconds: float) -> float:
    """Return how often per second a piece of work is done."""
    piece()
    began, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds or not count:
        piece()
        count += 1
    return count / taken


def _show(json: bool, values: dict) -> None:
    lines = (f"{name:<20}{value}" for name, value in values.items())
    print(files.to_json(values) if json else "\n".join(lines))
