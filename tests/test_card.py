"""The numbers in the README and in the model's card are those of the report."""

import importlib.util
import json
from pathlib import Path

import pytest

import umtlib

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def card():
    spec = importlib.util.spec_from_file_location("card", ROOT / "docs" / "card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(card):
    paths = (card.REPORT, card.WHOLE, card.TRAINING)
    return [json.loads(path.read_text("utf-8")) for path in paths]


def test_texts_are_those_of_the_measurements(card, measured):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert card.inserted(readme, card.expectations(measured[1])) == readme
    assert (card.MODEL / "README.md").read_text("utf-8") == card.card(*measured)


def test_measurements_are_of_this_version_and_model(measured):
    *reports, training = measured
    for report in reports:
        assert report["umtlib"] == umtlib.__version__
        assert report["model"] == "six-domains-small"
    assert set(training["validation"][-1]["nats"]) == set(umtlib.load().domains)
