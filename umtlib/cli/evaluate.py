"""``umt evaluate``."""

from pathlib import Path
from typing import Annotated

from typer import Option

import umtlib
from umtlib.cli import options
from umtlib.cli.printing import bars, say
from umtlib.names import readable


def evaluate(
    data: options.Paired,
    out: options.NewFolder,
    model: options.Model = "six-domains-small",
    excerpts: options.Excerpts = None,
    temperature: options.Temperature = 1.0,
    seed: options.Seed = 0,
    backend: options.Backend = "auto",
    compare: Annotated[
        str, Option(help="Another model, whose latent and freedom are measured beside.")
    ] = "",
    notes: Annotated[
        Path | None, Option(help="NSynth, or a folder from 'umt corpus notes'.")
    ] = None,
) -> None:
    """Translate paired excerpts, and measure everything: OUT/report.md, .json, pictures."""
    from umtlib.evaluation import report

    loaded = umtlib.load(model)
    other = umtlib.load(compare) if compare else None
    settings = {"temperature": temperature, "seed": seed, "backend": backend, "compare": other}
    settings |= {"name": readable(Path(model).name), "single_notes": notes, "excerpts": excerpts}
    with bars() as progress:
        found = report.evaluate(loaded, data, out, progress=progress, **settings)
    number = found["results"]["excerpts"]
    say(f"{out / 'report.md'}: {number} excerpts in {len(loaded.domains)} domains")
