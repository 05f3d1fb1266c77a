"""Tables that people keep in spreadsheets, saved as CSV."""

import csv
import os
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from umtlib.errors import UmtError


def read(
    path: str | os.PathLike,
    columns: Sequence[str] | Callable[[Sequence[str]], Sequence[str]],
    error: type[UmtError],
) -> list[tuple[int, dict[str, str]]]:
    """Read a table in UTF-8, separated by comma, semicolon or tab; its first row names the columns.

    ``columns`` are those that it must have, or a function that says so of those that there are.
    Gives of each row that is not empty the number of its last line, and its cells by column. What
    is no table, lacks a column, or has cells under none raises the UmtError that is given.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            separator = max(",;\t", key=head.count)
            table = csv.reader(file, delimiter=separator, strict=True)
            rows = [(table.line_num, [cell.strip() for cell in row]) for row in table]
    except (OSError, ValueError, csv.Error) as reason:
        raise error(f"{path} is no table: {reason}; save it as CSV, in UTF-8") from reason
    (_, header), *rows = [(line, row) for line, row in rows if any(row)] or [(0, [])]
    wanted = columns(header) if callable(columns) else columns
    if missing := [name for name in wanted if name not in header]:
        raise error(f"{path} has no column {missing[0]!r}; it needs {', '.join(wanted)}")
    if stray := [line for line, row in rows if len(row) > len(header)]:
        raise error(f"{path}, line {stray[0]} has more cells than columns; put quotes around "
                    "what holds the separator")  # fmt: skip
    return [(line, dict(zip_longest(header, row, fillvalue=""))) for line, row in rows]
