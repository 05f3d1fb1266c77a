"""Take a listening test in a notebook, by keyboard if wanted: opinion scores, or a lineup.

What is heard are the sounds of a pack that `umtlib.evaluation.stimuli` has written (``umt
stimuli``), in an order of the rater's own, under names that tell nothing. The answers go, one by
one, to a sheet that ``umt ratings SHEET --key key.csv`` reads; whoever comes back goes on there.
Notebook: ``09_listening_tests``.
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import umtlib
from umtlib import files
from umtlib.errors import EvaluationError
from umtlib.evaluation import stimuli
from umtlib.files import spreadsheet
from umtlib.notebook.widgets import Front

SCALE = ("1 bad", "2 poor", "3 fair", "4 good", "5 excellent")
QUESTIONS = {
    "alone": "How good does this sound? 1 to 5 answer, space plays, arrows go back and on.",
    "source": "How good is sound 1, as a translation of sound 2 into another instrument? 1 to 5 "
    "answer, space plays, s switches between the two, arrows go back and on.",
    "lineup": "Of these, one is the original's own sound and the others are translations: which? "
    "Digits switch, space plays, Enter answers with what is heard, arrows go back and on.",
}


class ListeningTest(Front):
    """One rater's listening test.

    Parameters
    ----------
    pack : path
        A folder from `umtlib.evaluation.stimuli`; its key is not looked at.
    rater : str
        A name; it decides the order.
    out : path, optional
        The sheet that is filled in; by default in the pack, ``sheet-RATER.csv``.

    Attributes
    ----------
    out : Path
        That file; there is none before the first answer.

    Raises
    ------
    EvaluationError
        If this is no pack, the rater has no name, or the sheet is of another one.
    """

    exact = True  # the codec is not to be judged
    pictures = False  # nor is what is seen

    def __init__(self, pack: str | os.PathLike, rater: str, out: str | os.PathLike | None = None):
        self.pack, self.rater = Path(pack), rater.strip()
        if not self.rater:
            raise EvaluationError("the rater has no name; any will do, and always the same")
        sheet = self.pack / stimuli.SHEET
        self.rows = [row for _, row in spreadsheet.read(sheet, _item, EvaluationError)]
        if not self.rows:
            raise EvaluationError(f"{sheet} lists no sound; make the pack again")
        self.lineup = "lineup" in self.rows[0]
        self.columns = stimuli.LINEUP_SHEET if self.lineup else stimuli.OPINION_SHEET
        np.random.default_rng([*self.rater.encode()]).shuffle(self.rows)
        name = re.sub(r"[^\w-]+", "-", self.rater)
        self.out = Path(out) if out else self.pack / f"sheet-{name}.csv"
        super().__init__(total=len(self.rows), lineup=self.lineup, place=0, said="")
        self._resume()
        left = [n for n, row in enumerate(self.rows) if not row[self.columns[-1]]]
        self._turn_to(left[0] if left else 0)

    def do_answer(self, number: int, buffers: Any = ()) -> None:
        """Note an answer, and go on.

        Raises
        ------
        EvaluationError
            If it is none, or the sheet cannot be written.
        """
        if not 1 <= number <= len(self.state["answers"]):
            raise EvaluationError(f"{number} is no answer; there are {len(self.state['answers'])}")
        place = self.state["place"]
        self.rows[place][self.columns[-1]] = str(number)
        self._write()
        self._turn_to(min(place + 1, len(self.rows) - 1))

    def do_go(self, step: int, buffers: Any = ()) -> None:
        """Go to another sound.

        Raises
        ------
        EvaluationError
            If it is not in the pack any more.
        """
        self._turn_to(min(max(self.state["place"] + step, 0), len(self.rows) - 1))

    def words(self) -> str:
        """Return how far the test is, in words."""
        state = self.state
        return (
            f"{state['question']} {state['answered']} of {state['total']} answered. {state['said']}"
        )

    def _turn_to(self, place: int) -> None:
        row, answer = self.rows[place], self.columns[-1]
        if self.lineup:
            pattern = re.compile(re.escape(row["lineup"]) + r"-(\d+)\.wav")
            found = [
                (int(m[1]), p) for p in self.pack.iterdir() if (m := pattern.fullmatch(p.name))
            ]
            sounds, question = [path for _, path in sorted(found)], "lineup"
            answers = [f"sound {number}" for number in range(1, len(sounds) + 1)]
        else:
            sounds = [
                self.pack / Path(row[name]).name for name in ("stimulus", "source") if row.get(name)
            ]
            question, answers = ("source" if len(sounds) > 1 else "alone"), list(SCALE)
        if not sounds:
            raise EvaluationError(f"{self.pack} has no sounds of {row['lineup']}; make it again")
        given, answered = row[answer], sum(bool(row[answer]) for row in self.rows)
        done = f"All is answered, thank you: {self.out.name}" if answered == len(self.rows) else ""
        self.tell(place=place, question=QUESTIONS[question], answers=answers, answered=answered,
                  given=int(given) if given else 0, said=done)  # fmt: skip
        names = ["sound", "the source"] if question == "source" else ["sound"] * len(sounds)
        titles = [f"{n} {i + 1}" if self.lineup else n for i, n in enumerate(names)]
        self.show({t: umtlib.read(p) for t, p in zip(titles, sounds, strict=True)})

    def _resume(self) -> None:
        for row in self.rows:
            row[self.columns[-1]] = ""
        if self.out.exists():
            item = self.columns[1]
            known = {row[item]: row for row in self.rows}
            for number, row in spreadsheet.read(self.out, self.columns, EvaluationError):
                if row[item] not in known or row["rater"] != self.rater:
                    raise EvaluationError(f"{self.out}, line {number}: not of this pack and rater; "
                                          "name another file as `out`")  # fmt: skip
                known[row[item]][self.columns[-1]] = row[self.columns[-1]]

    def _write(self) -> None:
        answered = [row | {"rater": self.rater} for row in self.rows if row[self.columns[-1]]]
        try:
            with (
                files.replacing(self.out) as part,
                part.open("w", newline="", encoding="utf-8") as f,
            ):
                table = csv.DictWriter(f, self.columns, extrasaction="ignore")
                table.writeheader()
                table.writerows(answered)
        except OSError as error:
            raise EvaluationError(f"{self.out} cannot be written: {error.strerror}; name another "
                                  "file as `out`") from error  # fmt: skip


def _item(columns: Sequence[str]) -> Sequence[str]:
    """Return what a sheet must have, of either kind of test."""
    return ["lineup" if "lineup" in columns else "stimulus"]
