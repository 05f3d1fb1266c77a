"""Tables as spreadsheets save them, and ratings as people fill them in."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umtlib.errors import EvaluationError
from umtlib.evaluation import listening, stimuli
from umtlib.files import spreadsheet

ROWS = [
    ("rater", "clip", "system", "score"),
    ("Zoë", "a, b", 'the "x"', "4,5"),
    ("r2", "c", "y", "3"),
]
WANTED = [{"rater": "Zoë", "clip": "a, b", "system": 'the "x"', "score": 4.5},
          {"rater": "r2", "clip": "c", "system": "y", "score": 3.0}]  # fmt: skip


def saved(separator=",", end="\r\n", rows=ROWS, quote=False):
    def cell(text):
        needed = quote or any(mark in text for mark in (separator, '"', "\n"))
        return '"' + text.replace('"', '""') + '"' if needed else text

    return "".join(separator.join(map(cell, row)) + end for row in rows)


WIDE = [("", *row[:2], "", *row[2:], "", "") for row in ROWS]
TABLES = {
    "comma": saved().encode(),
    "semicolon": saved(";").encode(),
    "tab": saved("\t").encode(),
    "mark": b"\xef\xbb\xbf" + saved(";").encode(),
    "UTF-16": saved("\t").encode("utf-16"),
    "UTF-16, big endian": b"\xfe\xff" + saved("\t").encode("utf-16-be"),
    "Latin": saved(";").encode("cp1252"),
    "LF": saved(end="\n").encode(),
    "CR": saved(end="\r").encode(),
    "no last end": saved().rstrip().encode(),
    "all quoted": saved(quote=True).encode(),
    "sep=": ("sep=;\r\n" + saved(";")).encode(),
    "empty rows": ("\r\n,,,\r\n" + saved().replace("\r\n", "\r\n,,,\r\n\r\n")).encode(),
    "empty columns": saved(rows=WIDE).encode(),
    "spaces": saved(";").replace(";", " ; ").encode(),
    "commas in a header of one more": saved(
        ";", rows=[(*row, "" if n else "or, if, any, that, is") for n, row in enumerate(ROWS)]
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_what_a_spreadsheet_saves_is_read(tmp_path, name):
    (tmp_path / "t.csv").write_bytes(TABLES[name])
    found = listening.read(tmp_path / "t.csv")
    assert [{field: row[field] for field in ROWS[0]} for row in found] == WANTED


HEAD = b"rater,clip,system,score\n"


@pytest.mark.parametrize("data, words", [
    (saved(rows=[(*ROWS[0], "score"), ("a", "b", "c", "1", "2")]).encode(), "2 columns 'score'"),
    (HEAD + b'"a,b,c,4\n', "no table|no clip"), (b"\0\0\0", "no column"), (b"", "no column"),
    (b"rater" + b"," * 20_000, "no column"), (b"\xff\xfe\xff", "no table"),
    (b"\n\n", "no column"), (HEAD + b'a,b,c,"4', "not closed"),
    (HEAD + b"a,b,c,4,5\n", "line 2: '5' stands under no column"),
    (HEAD + b'a,"b\n",c,4\na,b,c,d\n', "line 4: score 'd' is no number"),
    (HEAD + b"a,b,c,9\n", "line 2: score 9 is not in 1 to 5"),
    (HEAD + b"a,b,c,nan\n", "line 2: score nan is not in 1 to 5"),
    (HEAD + b"a,b\n", "line 2: no system"), (HEAD + b",b,c,4\n", "line 2: no rater"),
    (b"rater,clip,score\na,b,4\n", "no column 'system'"),
    (b"rater,clip,answer\na,b,4\n", "no column 'domain'"), (None, "no file"),
])  # fmt: skip
def test_what_is_no_table_is_refused(tmp_path, data, words):
    if data is not None:
        (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(EvaluationError, match=words):
        listening.read(tmp_path / ("t.csv" if data is not None else "."))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text(",;\t\"\n\rabrater'é", max_size=60).map(str.encode))
def test_anything_is_a_table_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"rater" + data)
    try:
        rows = spreadsheet.read(path, ("rater",), EvaluationError)
    except EvaluationError:
        return
    assert all(isinstance(cell, str) for _, row in rows for cell in row.values())


def test_many_ratings_take_seconds(tmp_path):
    """What grows with the square of 40,000 ratings would take minutes."""
    drawn = np.random.default_rng(0).integers(1, (10_000, 10_000, 6, 6), (40_000, 4)).tolist()
    lines = {f"r{r},c{c},s{s},{score},g{c % 20}" for r, c, s, score in drawn}
    (tmp_path / "t.csv").write_text("rater,clip,system,score,group\n" + "\n".join(lines) + "\n")
    began = time.process_time()
    with warnings.catch_warnings(action="ignore"):
        found = listening.evaluate(listening.read(tmp_path / "t.csv"))
    assert time.process_time() - began < 20
    assert sum(system["n"] for system in found["systems"].values()) > 30_000 or found["screened"]


def test_a_sheet_from_a_spreadsheet_is_unblinded(tmp_path):
    key = saved(";", rows=[stimuli.OPINION_KEY, ("000.wav", "x", "g", "ours")])
    sheet = saved(";", rows=[stimuli.OPINION_SHEET, ("me", "000.wav", "", "3,5"), ("",) * 4])
    (tmp_path / "key.csv").write_text(key)
    (tmp_path / "sheet.csv").write_bytes(b"\xef\xbb\xbf" + sheet.encode())
    [found] = stimuli.unblind(tmp_path / "key.csv", [tmp_path / "sheet.csv"])
    assert found == {"rater": "me", "score": 3.5, "clip": "x", "group": "g", "system": "ours"}
