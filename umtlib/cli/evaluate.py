"""``umt evaluate``."""

from pathlib import Path
from typing import Annotated

from typer import Option

import umtlib
from umtlib.cli import options
from umtlib.cli.printing import bars, say
from umtlib.files.names import readable


@options.on_excerpts
def evaluate(
    loaded,
    model,
    data,
    out,
    compare: Annotated[
        str, Option(help="Another model, whose latent and freedom are measured beside.")
    ] = "",
    notes: Annotated[Path | None, Option(help="NSynth, or data/mini-nsynth.")] = None,
    recogniser: Annotated[
        Path | None,
        Option(help="One of your domains; see docs/evaluation.md. Default: of the six."),
    ] = None,
    **settings,
) -> None:
    """Translate excerpts, and measure everything: OUT/report.md, .json, pictures."""
    from umtlib.evaluation import report

    place = loaded.encoder.project.weight.device
    settings |= {"compare": umtlib.load(compare).to(place) if compare else None}
    settings |= {"name": readable(Path(model).name), "single_notes": notes, "listener": recogniser}
    with bars() as progress:
        found = report.evaluate(loaded, data, out, progress=progress, **settings)
    if not found:  # the first process says it
        return
    number = found["results"]["excerpts"]
    say(f"{out / 'report.md'}: {number} excerpts in {len(loaded.domains)} domains")
