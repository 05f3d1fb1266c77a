"""Tables that people keep in spreadsheets, read from whatever the spreadsheet calls CSV."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from umtlib.errors import UmtError

_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_QUOTED = re.compile(r'"[^"]*"')


def read(
    path: str | os.PathLike,
    columns: Sequence[str] | Callable[[Sequence[str]], Sequence[str]],
    error: type[UmtError],
) -> list[tuple[int, dict[str, str]]]:
    """Read a table: separated by comma, semicolon or tab, in UTF-8, UTF-16 or Windows' Latin.

    Byte order marks, ends of lines, quotes, spaces around cells, and empty rows and columns are of
    no account.

    Parameters
    ----------
    path : path
        The file; its first row that is not empty names the columns.
    columns : sequence of str, or function
        That it must have; or what says so of the columns that there are.
    error : type of UmtError
        To raise.

    Returns
    -------
    list of (int, dict)
        Of each row that is not empty: its number in the file and its cells by column, as text.

    Raises
    ------
    UmtError
        Of the type given, if the file is no table, has a column twice or lacks one.
    """
    rows = _rows(path, error)
    header = rows[0][1] if rows else []
    for name, count in Counter(filter(None, header)).items():
        if count > 1:
            raise error(f"{path} has {count} columns {name!r}; leave one of them")
    wanted = columns(header) if callable(columns) else columns
    if missing := [name for name in wanted if name not in header]:
        raise error(f"{path} has no column {missing[0]!r}; it needs {', '.join(wanted)}")
    named = 1 + max((place for place, name in enumerate(header) if name), default=-1)
    for line, cells in rows[1:]:
        if stray := next(filter(None, cells[named:]), ""):
            raise error(
                f"{path}, line {line}: {stray!r} stands under no column; put quotes around a cell "
                "that holds the separator"
            )
    return [
        (line, {name: cell for name, cell in zip_longest(header, cells, fillvalue="") if name})
        for line, cells in rows[1:]
    ]


def _rows(path: str | os.PathLike, error: type[UmtError]) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty: the number of the line where each ends, and its cells."""
    try:
        if not Path(path).is_file():
            raise error(f"{path} is no file; name a table saved as CSV")
        text = _text(Path(path).read_bytes())
        said, separator, text = _separator(re.sub("\r\n?", "\n", text))
        # A last row of a zero byte: a quote that is not closed would swallow it.
        table = csv.reader(io.StringIO(f"{text}\n\0"), delimiter=separator, skipinitialspace=True)
        *rows, (_, last) = ((table.line_num + said, row) for row in table)
        if last != ["\0"]:
            raise ValueError("a quote is not closed")
    except (OSError, ValueError, csv.Error) as reason:
        raise error(f"{path} is no table: {reason}; save it as CSV") from reason
    cells = ((line, [cell.strip() for cell in row]) for line, row in rows)
    return [(line, row) for line, row in cells if any(row)]


def number(text: str) -> float:
    """Return the number that a cell holds, also one with a decimal comma.

    Raises
    ------
    ValueError
        If it holds none.

    Examples
    --------
    >>> number("4,5")
    4.5
    """
    return float(text.replace(",", ".", 1) if "." not in text else text)


def _text(data: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252")  # what spreadsheets call CSV without further words


def _separator(text: str) -> tuple[int, str, str]:
    """Return how many first lines only say what separates the cells, what does, and the rest."""
    if said := re.match(r"sep=(.)\n", text):
        return 1, said[1], text[said.end() :]
    head = next((line for line in text.split("\n") if line.strip(',;\t "')), "")
    counts = {mark: _QUOTED.sub("", head).count(mark) for mark in ";\t,"}
    return 0, max(counts, key=counts.get), text
