"""``umt ratings``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from umtlib import files
from umtlib.cli.options import Json, real


def ratings(
    tables: Annotated[
        list[Path],
        Argument(metavar="CSV", help="Ratings, or with --key filled-in sheets."),
    ],
    key: Annotated[Path | None, Option(help="The key of the pack of stimuli.")] = None,
    domain: Annotated[
        list[str], Option(help="All domains of a lineup. Default: those of the key, or that occur.")
    ] = [],
    level: Annotated[float, real("Of the intervals.", 0.5, 0.999)] = 0.95,
    json: Json = False,
) -> None:
    """Analyse a listening test: opinion scores or a lineup, told apart by their columns."""
    from umtlib.evaluation import listening, stimuli
    from umtlib.evaluation import tables as markdown

    if key:
        rows = stimuli.unblind(key, tables)
        domain = domain or stimuli.choices(key)
    else:
        rows = [row for table in tables for row in listening.read(table)]
    if rows and "answer" in rows[0]:
        domain = domain or sorted({row[name] for row in rows for name in ("domain", "answer")})
        found, show = listening.lineup(rows, domain, level), markdown.lineup
    else:
        found, show = listening.evaluate(rows, level), markdown.opinion
    print(files.to_json(found) if json else show(found))
