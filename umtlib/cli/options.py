"""Options that several verbs have, and the model that they name."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from typer import Option

import umtlib

Out = Annotated[Path, Option(help="Folder to write to; made if it is not there.")]
NewFolder = Annotated[Path, Option(help="Folder to write to; must not exist yet.")]
Paired = Annotated[Path, Option(help="A corpus with paired excerpts, such as data/mini.")]
Excerpts = Annotated[
    int | None, Option(help="Use so many, spread over the sources. Default: all.", min=1, max=10**6)
]
Model = Annotated[str, Option(help="Name of a shipped model, a model folder or a training run.")]
Preset = Annotated[str, Option(help="tiny, small, paper or official.")]
Seed = Annotated[int, Option(help="Random numbers follow from it.", min=0, max=2**63 - 1)]
Temperature = Annotated[float, Option(help="1: as the model says; less: tamer.", min=0, max=10)]
Backend = Annotated[str, Option(help="Which generator: auto, cuda, cpu or reference.")]
Dtype = Annotated[str, Option(help="float32, bfloat16, int8, or auto: the fastest that sounds so.")]
Device = Annotated[str, Option(help="Where PyTorch computes: auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str, Option(help="In what PyTorch computes: auto, float32, tf32, bfloat16 or float16.")
]
Set = Annotated[
    list[str],
    Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a field of the preset's training, as learning_rate=1e-3. May be repeated.",
        show_default=False,
    ),
]
Json = Annotated[bool, Option("--json", help="One line of JSON.")]


@contextlib.contextmanager
def running(model: str, device: str, precision: str) -> Iterator["umtlib.MusicTranslator"]:
    """Load a model where it is to run, and let PyTorch compute so meanwhile.

    ``auto`` stands for the CPU and float32: the generator, most of the work, chooses for itself.
    """
    from umtlib.machine import devices

    place = devices.device(device, gpu=False)
    precision = "float32" if precision == "auto" else devices.precision(precision, place)
    mend = f"{place} has not enough memory for this; take --device cpu, or shorter recordings"
    with devices.told_of_memory(mend), devices.tf32(precision == "tf32"):
        with devices.autocast(precision, place):
            yield umtlib.load(model).to(place)


def on_excerpts(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of all that translate paired excerpts.

    It takes the model, loaded and by name, data, out, options of its own, and as settings the rest.
    """

    def shared(
        data: Paired,
        out: NewFolder,
        model: Model = "six-domains-small",
        excerpts: Excerpts = None,
        temperature: Temperature = 1.0,
        seed: Seed = 0,
        backend: Backend = "auto",
        device: Device = "auto",
        precision: Precision = "auto",
    ) -> None: ...

    @functools.wraps(command)
    def verb(*, data, out, model, device, precision, **settings):
        with running(model, device, precision) as loaded:
            command(loaded, model, data, out, **settings)

    options, own = ([*inspect.signature(x).parameters.values()] for x in (shared, command))
    keywords = [option.replace(kind=option.KEYWORD_ONLY) for option in (*options, *own[4:-1])]
    verb.__signature__ = inspect.Signature(keywords)
    return verb
