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
    return [json.loads(path.read_text("utf-8")) for path in (card.REPORT, card.TRAINING)]


def test_texts_are_those_of_the_measurements(card, measured):
    report, training = measured
    readme = (ROOT / "README.md").read_text("utf-8")
    assert card.inserted(readme, card.expectations(report)) == readme
    assert (card.MODEL / "README.md").read_text("utf-8") == card.card(report, training)


def test_measurements_are_of_this_version_and_model(measured):
    report, training = measured
    assert report["umtlib"] == umtlib.__version__
    assert report["model"] == "six-domains-small"
    assert set(training["validation"][-1]["nats"]) == set(umtlib.load().domains)
