"""`scripts/departures.py` changes what there is, and makes its table row by row."""

import csv
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import departures as script
import torch

from umtlib import translator
from umtlib.config import SIX_DOMAINS

ROOT = Path(__file__).parents[1]


def test_every_departure_names_what_there_is_and_can_be_built():
    for preset, changed in script.VARIANTS.values():
        with ExitStack() as stack:
            for place, value in changed.items():
                stack.enter_context(mock.patch(place, value))
            model = translator.build(preset.model)
        assert model.domains == SIX_DOMAINS


def test_one_decoder_tells_domains_apart_by_the_label_alone():
    preset, _ = script.VARIANTS["paper, one decoder with a label"]
    with mock.patch("umtlib.translator.Decoder", script.labelled):
        model = translator.build(preset.model)
    first, *others = model.decoders.values()
    for decoder in others:
        decoder.load_state_dict(first.state_dict())
    codes, z = torch.zeros(1, 800, dtype=torch.long), torch.zeros(1, 64, 1)
    with torch.inference_mode():
        logits = [decoder(codes, z) for decoder in model.decoders.values()]
    assert not any(torch.equal(logits[0], other) for other in logits[1:])


def test_a_table_is_made_row_by_row_and_gone_on_with(tmp_path, monkeypatch):
    text = f"before\n{script.BEGIN}old{script.END} after\n"
    (tmp_path / "experiments.md").write_text(text, encoding="utf-8")
    found, asked = dict.fromkeys(script.COLUMNS, 0.5), []
    monkeypatch.setattr(script, "averages", lambda pairs, sound: dict.fromkeys(script.MEASURES, 1))
    monkeypatch.setattr(script, "measured", lambda name, *_: asked.append(name) or found)
    for rows in (["small"], ["small", "paper"]):
        script.main(ROOT / "data" / "mini", 10, 1, rows, tmp_path, tmp_path)
    assert asked == ["small", "paper"]
    table = csv.DictReader((tmp_path / "departures.csv").read_text("utf-8").splitlines())
    names = ["untranslated input", "true rendering", "small", "paper"]
    assert [row["variant"] for row in table] == names
    made = (tmp_path / "experiments.md").read_text("utf-8")
    assert made.startswith("before\n") and made.endswith(f"{script.END} after\n")
    assert "old" not in made and "| small | 0.5 |" in made
