"""``umt stimuli``: the sounds of a listening test; and ``umt ratings``, what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from umtlib import files
from umtlib.cli import options
from umtlib.cli.printing import bars, say
from umtlib.errors import EvaluationError

app = Typer(help="Make a blinded listening test.", no_args_is_help=True)


@app.command()
@options.on_excerpts
def opinion(
    loaded,
    model,
    data,
    out,
    to: Annotated[str, Option(help="The domain that the excerpts are translated to.")],
    **settings,
) -> None:
    """Write sounds to be rated from 1 to 5, with hidden references and anchors."""
    from umtlib.evaluation import stimuli

    _write_pack(stimuli.opinion, loaded, data, to, out, **settings)


@app.command()
@options.on_excerpts
def lineup(loaded, model, data, out, **settings) -> None:
    """Write lineups, of which a rater picks the source from among its translations."""
    from umtlib.evaluation import stimuli

    _write_pack(stimuli.lineup, loaded, data, out, **settings)


def _write_pack(write: Callable[..., Path], *arguments, **settings) -> None:
    """Let one of the tests write its pack, and say what to do with it."""
    from umtlib.evaluation.stimuli import KEY, SHEET

    with bars() as progress:
        out = write(*arguments, progress=progress, **settings)
    say(f"{out}: give raters the sounds and a copy of {SHEET}, and keep {KEY}; then "
        f"umt ratings SHEETS... --key {out / KEY}")  # fmt: skip


def ratings(
    tables: Annotated[
        list[Path],
        Argument(metavar="CSV", help="Ratings, or with --key filled-in sheets."),
    ],
    key: Annotated[Path | None, Option(help="The key of the pack of stimuli.")] = None,
    json: options.Json = False,
) -> None:
    """Analyse a listening test: opinion scores or a lineup, told apart by their columns."""
    from umtlib.evaluation import listening, stimuli
    from umtlib.evaluation import tables as markdown

    if key:
        rows, domains = stimuli.unblind(key, tables), stimuli.choices(key)
    else:
        rows, domains = [row for table in tables for row in listening.read(table)], []
    rows = listening.once(rows)
    if len({"answer" in row for row in rows}) > 1:
        raise EvaluationError("tables of scores and of a lineup; analyse each kind by itself")
    if "answer" in rows[0]:
        domains = domains or sorted({row[name] for row in rows for name in ("domain", "answer")})
        found, show = listening.lineup(rows, domains), markdown.lineup
    else:
        found, show = listening.evaluate(rows), markdown.opinion
    print(files.to_json(found) if json else show(found))
