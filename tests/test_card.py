"""The numbers in the README and in the model's card are those of the report."""

import importlib.util
from pathlib import Path

import pandas
import pytest

import umtlib
from umtlib.config import SIX_DOMAINS

ROOT = Path(__file__).parents[1]
FADING = ("beethoven_piano", "bach_harpsichord")


@pytest.fixture(scope="module")
def card():
    spec = importlib.util.spec_from_file_location("card", ROOT / "docs" / "card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_texts_are_those_of_the_measurements(card):
    about, table, training = card.measured()
    readme = (ROOT / "README.md").read_text("utf-8")
    assert card.inserted(readme, card.expectations(about, table)) == readme
    assert (card.MODEL / "README.md").read_text("utf-8") == card.card(about, table, training)


def test_measurements_are_of_this_version_and_model(card):
    about, table, training = card.measured()
    assert about["umtlib"] == umtlib.__version__
    assert about["model"] == "six-domains-small"
    assert set(training["nats"]) == set(umtlib.load().domains)
    text = (card.REPORT / "report.md").read_text("utf-8")
    for value in ("chroma", "note_f", "log_mel"):
        assert f"{table.loc[('translation', card.ALL), value]:.3g}" in text


def test_a_summary_leaves_out_a_domain_to_itself(card):
    row = {"system": "translation", "source": "b", "target": "a", "called": "a", "melody": 0.5}
    rows = [
        row,
        row | {"source": card.WHISTLE, "called": "b", "melody": 1.0},
        row | {"source": "a", "melody": 0.0},
    ]
    found = card.summary(pandas.DataFrame(rows)).loc[("translation", card.ALL)]
    assert dict(found) == {"n": 2, "melody": 0.75, "recognised": 0.5, "whistle": 1}


def made_up(**translation):
    """Return averages by which the true rendering has some values, and the model others."""
    true = {
        "attack": 8, "onsets": 10, "onset_f": 1, "onset_f_truth": 1, "level_corr": 1, "note_f": 0.8,
        "log_mel": 0.1, "recognised": 1, "whistle": 1,
    }  # fmt: skip
    systems = {"truth": true, "translation": true | translation, "input": dict.fromkeys(true, 0)}
    rows = {
        (system, target): {"decay": -25 if target in FADING else 5} | values
        for system, values in systems.items()
        for target in ("all", *SIX_DOMAINS)
    }
    return pandas.DataFrame(rows).T


@pytest.mark.parametrize(
    ("translation", "mean", "single"),
    [
        ({}, 9, 60),
        (
            {"attack": 6.1, "onsets": 11.9, "note_f": 0.69, "log_mel": 4.5, "recognised": 0.96},
            9,
            60,
        ),
        ({"attack": 5.9}, 8, 54),
        ({"onsets": 12.1}, 8, 54),
        ({"onset_f": 0.84}, 8, 54),
        ({"level_corr": 0}, 8, 54),
        ({"note_f": 0.68}, 8, 54),
        ({"log_mel": 4.7}, 8, 54),
        ({"recognised": 0.93}, 8, 60),
        ({"whistle": 0.6}, 8, 54),
        ({"decay": -10}, 9, 54),
        ({"decay": -20}, 9, 56),
    ],
)
def test_goals(card, translation, mean, single):
    """A true rendering reaches all of them, and each is missed by what it is for."""
    text, reached = card.goals(made_up(**translation))
    assert reached == {"mean": (mean, 9), "single": (single, 60)}
    assert text.count(" met |") == mean + single
