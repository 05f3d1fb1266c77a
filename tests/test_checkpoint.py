"""A model folder is complete and verified, or it is not there."""

import math
import os

import pytest
import torch

from umtlib import checkpoint
from umtlib.config import preset, to_json
from umtlib.errors import CheckpointError
from umtlib.translator import build


@pytest.fixture
def model():
    return build(preset("tiny", ("a", "b")).model)


@pytest.mark.parametrize("dtype, smaller", [
    (None, 1), (torch.float16, 0.65), (torch.int8, 0.6),  # this one has short rows and long names
])  # fmt: skip
def test_what_is_saved_is_loaded(model, tmp_path, dtype, smaller):
    model.decoders[model.domains[0]].head.weight.data[0] = 0  # a row without a unit of its own
    checkpoint.save(model, tmp_path / "full")
    checkpoint.save(model, tmp_path / "m", dtype)
    full, size = ((tmp_path / n / checkpoint.WEIGHTS).stat().st_size for n in ("full", "m"))
    assert size <= smaller * full
    loaded = checkpoint.load(tmp_path / "m")
    assert loaded.config == model.config and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "m"]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        if dtype is None:
            assert torch.equal(found, value)
        elif dtype == torch.float16 or value.ndim < 2:  # 2**-11: half the spacing of float16
            torch.testing.assert_close(found, value, rtol=2**-11, atol=1e-7)
        else:
            error, rows = (x.flatten(1).abs() for x in (found - value, value))
            assert (error <= rows.amax(dim=1, keepdim=True) / 253).all(), name  # 254 half units


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def instead(make):
    return lambda path: (path.unlink(), make(path))


@pytest.mark.parametrize("name, damage, words", [
    (checkpoint.WEIGHTS, lambda path: os.truncate(path, 100), "model.safetensors is truncated"),
    (checkpoint.WEIGHTS, flip, "model.safetensors is truncated or altered"),
    (checkpoint.WEIGHTS, instead(os.mkfifo), "model.safetensors is missing or cannot"),
    (checkpoint.CONFIG, os.remove, "config.json is missing or cannot be read"),
    (checkpoint.CHECKSUMS, instead(lambda path: path.symlink_to("/dev/zero")), "sums.json is mis"),
    (checkpoint.CHECKSUMS, lambda path: path.write_text("[1]"), "checksums.json is missing or"),
    (checkpoint.CHECKSUMS, lambda path: path.write_text("{}"), "config.json is truncated or alt"),
])  # fmt: skip
def test_damage_is_refused_by_name(model, tmp_path, name, damage, words):
    checkpoint.save(model, tmp_path / "m")
    damage(tmp_path / "m" / name)
    refused(tmp_path / "m", words)


@pytest.mark.parametrize("change, words", [
    (lambda x: x * math.nan, "NaN"), (lambda x: x / 0, "infinity"), (lambda x: x * 1j, "complex"),
    (lambda x: x.long(), "int64"), (lambda x: x.to(torch.int8), "int8"),
    (lambda x: x[:1], "do not fit"),
])  # fmt: skip
def test_weights_are_finite_real_numbers(model, tmp_path, change, words):
    name = "encoder.project.weight"
    weights = model.state_dict() | {name: change(model.state_dict()[name])}
    files = {checkpoint.CONFIG: to_json(model.config).encode(), checkpoint.WEIGHTS: weights}
    checkpoint.write(tmp_path / "m", files)
    refused(tmp_path / "m", words)


def test_shipped_models_load_have_a_card_and_are_named():
    with pytest.raises(CheckpointError, match=r"no model 'none-such'") as caught:
        checkpoint.load("none-such")
    for name in checkpoint.pretrained():
        assert checkpoint.load(name).domains and name in str(caught.value)
        assert (checkpoint.PRETRAINED / name / "README.md").stat().st_size > 500


def test_a_run_gives_its_newest_intact_checkpoint(model, tmp_path):
    (tmp_path / "log.jsonl").touch()
    refused(tmp_path, "after its first save")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.newest(tmp_path)
    for step in (10, 20):
        checkpoint.save(model, tmp_path / checkpoint.STEP.format(step))
    with pytest.raises(CheckpointError, match="exists already"):
        checkpoint.save(model, tmp_path / checkpoint.STEP.format(20))
    assert checkpoint.newest(tmp_path).name == "step-00000020"
    with (tmp_path / "step-00000020" / checkpoint.WEIGHTS).open("r+b") as file:
        file.truncate(100)
    with pytest.warns(RuntimeWarning, match=r"step-00000020.*altered.*Using step-00000010"):
        assert checkpoint.newest(tmp_path).name == "step-00000010"
    with pytest.warns(RuntimeWarning, match="step-00000020"):
        checkpoint.load(tmp_path)  # a run's folder is a model too
