"""Options that several verbs have."""

import math
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option
from typer.models import OptionInfo


def real(text: str, least: float, most: float) -> OptionInfo:
    """Return an option that is a number in a range; typer's own ranges let NaN pass."""

    def check(value: float | None) -> float | None:
        if value is not None and math.isnan(value):
            raise BadParameter("nan is not a number.")
        return value

    return Option(help=text, min=least, max=most, callback=check)


Out = Annotated[Path, Option(help="Folder to write to; made if it is not there.")]
NewFolder = Annotated[Path, Option(help="Folder to write to; must not exist yet.")]
Paired = Annotated[Path, Option(help="A corpus with paired excerpts, such as data/mini.")]
Excerpts = Annotated[
    int | None, Option(help="Use so many, spread over the sources. Default: all.", min=1, max=10**6)
]
Model = Annotated[str, Option(help="Name of a shipped model, a model folder or a training run.")]
Preset = Annotated[str, Option(help="tiny, small, paper or official.")]
Seed = Annotated[int, Option(help="Random numbers follow from it.", min=0, max=2**63 - 1)]
Temperature = Annotated[float, real("1: as the model says; less: tamer.", 0, 10)]
Backend = Annotated[str, Option(help="Which generator: auto, cuda, cpu or reference.")]
Dtype = Annotated[str, Option(help="float32 (exact), bfloat16 or int8 (faster).")]
Json = Annotated[bool, Option("--json", help="One line of JSON.")]
