"""``umt stimuli``: sounds for a listening test, which ``umt ratings`` analyses."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from umtlib.cli.options import Backend, Excerpts, Model, NewFolder, Paired, Seed, Temperature
from umtlib.cli.printing import bars, say

app = Typer(help="Make a blinded listening test.", no_args_is_help=True)


@app.command()
def opinion(
    data: Paired,
    out: NewFolder,
    to: Annotated[str, Option(help="The domain that the excerpts are translated to.")],
    model: Model = "six-domains-small",
    excerpts: Excerpts = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Write sounds to be rated from 1 to 5, with hidden references and anchors."""
    from umtlib.evaluation import stimuli

    settings = {"temperature": temperature, "seed": seed, "backend": backend}
    _write_pack(stimuli.opinion, model, data, to, out, excerpts=excerpts, **settings)


@app.command()
def lineup(
    data: Paired,
    out: NewFolder,
    model: Model = "six-domains-small",
    excerpts: Excerpts = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Write lineups, of which a rater picks the source from among its translations."""
    from umtlib.evaluation import stimuli

    settings = {"temperature": temperature, "seed": seed, "backend": backend}
    _write_pack(stimuli.lineup, model, data, out, excerpts=excerpts, **settings)


def _write_pack(write: Callable[..., Path], model: str, *arguments, **settings) -> None:
    """Let one of the tests write its pack, and say what to do with it."""
    import umtlib
    from umtlib.evaluation.stimuli import KEY, SHEET

    loaded = umtlib.load(model)
    with bars() as progress:
        out = write(loaded, *arguments, progress=progress, **settings)
    say(f"{out}: give raters the sounds and a copy of {SHEET}, and keep {KEY}; then "
        f"umt ratings SHEETS... --key {out / KEY}")  # fmt: skip
