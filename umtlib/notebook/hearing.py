"""Take a listening test in a notebook, by keyboard if wanted: opinion scores, or a lineup.

What is heard are the sounds of a pack that `umtlib.evaluation.stimuli` has written (``umt
stimuli``), in an order of the rater's own, under names that tell nothing. The answers go, one by
one, to a sheet that ``umt ratings SHEET --key key.csv`` reads; whoever comes back goes on there.
Notebook: ``09_listening_tests``.
"""

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
from umtlib.evaluation.tables import write_csv
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
        self.item, self.answer = self.columns[1], self.columns[-1]
        np.random.default_rng([*self.rater.encode()]).shuffle(self.rows)
        name = re.sub(r"[^\w-]+", "-", self.rater)
        self.out = Path(out) if out else self.pack / f"sheet-{name}.csv"
        super().__init__(total=len(self.rows), lineup=self.lineup, place=0, said="")
        self._resume()
        self._turn_to(next((n for n, row in enumerate(self.rows) if not row[self.answer]), 0))

    def do_answer(self, number: int, buffers: Any = ()) -> None:
        """Note an answer, and go on.

        Raises
        ------
        EvaluationError
            If it is none, or the sheet cannot be written.
        """
        if not 1 <= number <= len(self.state["answers"]):
            raise EvaluationError(f"{number} is no answer; there are {len(self.state['answers'])}")
        self.rows[self.state["place"]][self.answer] = str(number)
        self._write()
        self.do_go(1)

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
        return "{question} {answered} of {total} answered. {said}".format(**self.state)

    def _turn_to(self, place: int) -> None:
        row = self.rows[place]
        if self.lineup:
            name = re.compile(re.escape(row["lineup"]) + r"-(\d+)\.wav")
            found = {int(m[1]): p for p in self.pack.iterdir() if (m := name.fullmatch(p.name))}
            sounds, question = [found[number] for number in sorted(found)], "lineup"
            titles = answers = [f"sound {number}" for number in range(1, len(sounds) + 1)]
        else:
            names = [row[name] for name in ("stimulus", "source") if row.get(name)]
            sounds = [self.pack / Path(name).name for name in names]
            question = "source" if len(sounds) > 1 else "alone"
            titles, answers = ["sound", "the source"][: len(sounds)], list(SCALE)
        if not sounds:
            raise EvaluationError(f"{self.pack} has no sounds of {row[self.item]}; make it again")
        answered = sum(bool(row[self.answer]) for row in self.rows)
        done = f"All is answered, thank you: {self.out.name}" if answered == len(self.rows) else ""
        self.tell(place=place, question=QUESTIONS[question], answers=answers, answered=answered,
                  given=int(row[self.answer] or 0), said=done)  # fmt: skip
        self.show({t: umtlib.read(p) for t, p in zip(titles, sounds, strict=True)})

    def _resume(self) -> None:
        known = {row[self.item]: row for row in self.rows}
        for row in self.rows:
            row[self.answer] = ""
        if self.out.exists():
            for number, row in spreadsheet.read(self.out, self.columns, EvaluationError):
                if row[self.item] not in known or row["rater"] != self.rater:
                    raise EvaluationError(f"{self.out}, line {number}: not of this pack and rater; "
                                          "name another file as `out`")  # fmt: skip
                known[row[self.item]][self.answer] = row[self.answer]

    def _write(self) -> None:
        answered = [row | {"rater": self.rater} for row in self.rows if row[self.answer]]
        cells = [[row.get(name, "") for name in self.columns] for row in answered]
        try:
            with files.replacing(self.out) as part:
                write_csv(part, self.columns, cells)
        except OSError as error:
            raise EvaluationError(f"{self.out} cannot be written: {error.strerror}; name another "
                                  "file as `out`") from error  # fmt: skip


def _item(columns: Sequence[str]) -> Sequence[str]:
    """Return what a sheet must have, of either kind of test."""
    return ["lineup" if "lineup" in columns else "stimulus"]
