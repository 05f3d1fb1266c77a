"""Tables as spreadsheets save them, and ratings as people fill them in."""

import pytest

from umtlib.errors import EvaluationError
from umtlib.evaluation import listening, stimuli

HEAD = "rater,clip,system,score\n"
TABLE = HEAD + 'Zoë,"a, b","the ""x""",4.5\nr2,c,y,3\n'
WANTED = [{"rater": "Zoë", "clip": "a, b", "system": 'the "x"', "score": 4.5},
          {"rater": "r2", "clip": "c", "system": "y", "score": 3.0}]  # fmt: skip


def saved(separator):
    return TABLE.replace(", ", "# ").replace(",", separator).replace("# ", ", ")


@pytest.mark.parametrize("data", [
    TABLE, saved(";"), saved("\t"), "\ufeff" + TABLE, TABLE.replace("\n", "\r\n"), TABLE.rstrip(),
    TABLE.replace("\n", "\n,,,\n\n"), saved("\t ").replace('\t "', '\t"'),
])  # fmt: skip
def test_what_a_spreadsheet_saves_is_read(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data.encode())
    assert listening.read(tmp_path / "t.csv") == WANTED


@pytest.mark.parametrize("data, words", [
    ("", "no column 'rater'"), ("\0\0\0", "no table|no column"), ("Zoë".encode("cp1252"), "UTF-8"),
    (HEAD, "no line that is filled in"), (HEAD + 'a,b,c,"4', "no table"), (None, "no table"),
    (HEAD + "a,b,c,4,5\n", "line 2 has more cells"), (HEAD + "a,b\n", "line 2: no system"),
    (HEAD + ",b,c,4\n", "line 2: no rater"), (HEAD + 'a,"b\n",c,4\na,b,c,d\n', "line 4: score 'd'"),
    (HEAD + "a,b,c,9\n", "score '9' is no number from 1 to 5"), (HEAD + "a,b,c,nan\n", "'nan'"),
    ("rater,clip,score\na,b,4\n", "no column 'system'"),
    ("rater,clip,answer\na,b,4\n", "no column 'domain'"),
])  # fmt: skip
def test_what_is_no_table_is_refused(tmp_path, data, words):
    path = tmp_path / "t.csv"
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(EvaluationError, match=words):
        listening.read(path)


def test_a_sheet_from_a_spreadsheet_is_unblinded(tmp_path):
    (tmp_path / "key.csv").write_text(";".join(stimuli.OPINION_KEY) + "\n000.wav;x;g;ours\n")
    (tmp_path / "sheet.csv").write_text(";".join(stimuli.OPINION_SHEET) + "\nme;000.wav;;3\n;;;\n")
    [found] = stimuli.unblind(tmp_path / "key.csv", [tmp_path / "sheet.csv"])
    assert found == {"rater": "me", "score": 3, "clip": "x", "group": "g", "system": "ours"}
