"""``umt bench``."""

from typing import Annotated

from typer import Option, Typer

from umtlib import files
from umtlib.cli import options

app = Typer(help="Measure the speed of this machine.", no_args_is_help=True)

Duration = Annotated[float, options.real("Seconds: how long to measure.", 0.01, 24 * 3600)]


@app.command()
def generate(
    preset: options.Preset = "small",
    streams: Annotated[int, Option(help="Inputs at once.", min=1, max=1_024)] = 1,
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
    from umtlib import bench

    settings = {"streams": streams, "domains": domains, "threads": threads}
    _show(bench.generate(preset, **settings, seconds=seconds, backend=backend, dtype=dtype), json)


@app.command()
def encode(
    preset: options.Preset = "small",
    seconds: Duration = 5,
    dtype: options.Dtype = "float32",
    json: options.Json = False,
) -> None:
    """Measure how long encoding one second of audio takes."""
    from umtlib import bench

    _show(bench.encode(preset, seconds=seconds, dtype=dtype), json)


@app.command()
def train(
    preset: options.Preset = "small",
    seconds: Duration = 10,
    batch: Annotated[int, Option(help="Segments.", min=1, max=2**24)] = 1,
    crop: Annotated[int, Option(help="Samples per segment.", min=1, max=2**24)] = 16_000,
    dtype: Annotated[str, Option(help="float32 or bfloat16.")] = "float32",
    json: options.Json = False,
) -> None:
    """Measure how many samples per second a training step processes."""
    from umtlib import bench

    _show(bench.train(preset, seconds=seconds, batch=batch, crop=crop, dtype=dtype), json)


def _show(values: dict, json: bool) -> None:
    lines = (f"{name:<20}{value}" for name, value in values.items())
    print(files.to_json(values) if json else "\n".join(lines))
