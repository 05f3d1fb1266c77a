"""The numbers in the README and in the model's card are those of the report."""

from pathlib import Path

import card
import pytest

import umtlib
from umtlib.config import SIX_DOMAINS

ROOT = Path(__file__).parents[1]


def test_texts_are_those_of_the_measurements():
    about, table, training = card.measured()
    assert about["umtlib"] == umtlib.__version__ and about["model"] == card.MODEL.name
    assert {*training["nats"]} == {*umtlib.load().domains}
    readme, text = (ROOT / "README.md").read_text("utf-8"), card.expectations(about, table)
    assert [line for line in text.splitlines() if line[:1] == "|" and line not in readme] == []
    assert card.inserted(readme, text).count(text) == 1
    assert (card.MODEL / "README.md").read_text("utf-8") == card.card(about, table, training)
    report = (card.REPORT / "report.md").read_text("utf-8")
    for value in ("chroma", "note_f", "log_mel"):
        assert f"{table['translation', card.ALL][value]:.3g}" in report


def test_a_summary_leaves_out_a_domain_to_itself():
    row = {"system": "translation", "source": "b", "target": "a", "called": "a", "melody": 0.5}
    rows = [row, row | {"source": card.WHISTLE, "called": "b", "melody": 1.0},
            row | {"source": "a", "melody": 0.0}]  # fmt: skip
    found = card.summary(rows)["translation", card.ALL]
    known = {name: value for name, value in found.items() if value is not None}
    assert known == {"n": 2, "melody": 0.75, "recognised": 0.5, "whistle": 1}


@pytest.mark.parametrize(("translation", "mean", "single"), [
    ({}, 9, 60), ({"attack": 6.1, "onsets": 11.9, "note_f": 0.69, "log_mel": 4.5}, 9, 60),
    ({"attack": 5.9}, 8, 54), ({"onsets": 12.1}, 8, 54), ({"onset_f": 0.84}, 8, 54),
    ({"level_corr": 0}, 8, 54), ({"note_f": 0.68}, 8, 54), ({"log_mel": 4.7}, 8, 54),
    ({"recognised": 0.93}, 8, 60), ({"recognised": 0.96}, 9, 60), ({"whistle": 0.6}, 8, 54),
    ({"decay": -10}, 9, 54), ({"decay": -20}, 9, 56),
])  # fmt: skip
def test_goals(translation, mean, single):
    """A true rendering reaches all of them, and each is missed by what it is for."""
    true = dict.fromkeys(card.GOALS, 1) | {"attack": 8, "onsets": 10, "note_f": 0.8, "log_mel": 0}
    del true["decay"]
    systems = {"truth": true, "translation": true | translation, "input": dict.fromkeys(true, 0)}
    rows = {
        (system, target): {"decay": -25 if target in card.FADING else 5} | values
        for system, values in systems.items()
        for target in ("all", *SIX_DOMAINS)
    }
    text, reached = card.goals(rows)
    assert reached == {"mean": (mean, 9), "single": (single, 60)}
    assert text.count(" met |") == mean + single
