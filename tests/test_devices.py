"""Devices, precisions, memory: what a training on a GPU needs, as far as a CPU can show it."""

import json
import math
from dataclasses import replace

import bench
import check_gpu
import pytest
import torch
from test_training import PACE, blink, number, started, weights
from torch._subclasses.fake_tensor import FakeTensorMode

from umtlib import checkpoint, config, generation, losses, runs, training
from umtlib.corpora.corpus import Corpus
from umtlib.errors import ConfigError, TrainingError
from umtlib.evaluation import latent
from umtlib.machine import devices, fused
from umtlib.runs import watching
from umtlib.translator import MusicTranslator

CPU = torch.device("cpu")


def test_the_device_of_a_name(monkeypatch):
    assert devices.device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert str(devices.device("auto")) == "cuda:0" and devices.device("auto", gpu=False) == CPU
    assert str(devices.device("cuda:1")) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(devices.device("cuda")) == "cuda:1"
    for wrong in ("cuda:2", "cuda:x", "cuda:-1", "gpu", ""):
        with pytest.raises(ConfigError, match=f"no device '{wrong}'.*2 NVIDIA GPUs"):
            devices.device(wrong)


@pytest.mark.parametrize("kind, native, found", [
    ("cpu", True, "float32"), ("cuda", True, "bfloat16"), ("cuda", False, "float16"),
    ("mps", False, "float32"),
])  # fmt: skip
def test_the_precision_of_a_device(monkeypatch, kind, native, found):
    monkeypatch.setattr(devices, "native", lambda _: native)
    assert devices.precision("auto", torch.device(kind)) == found
    assert devices.precision("float32", torch.device(kind)) == "float32"
    with pytest.raises(ConfigError, match="unknown precision 'half'"):
        devices.precision("half", torch.device(kind))
    if kind != "cuda":
        with pytest.raises(ConfigError, match="tf32"):
            devices.precision("tf32", torch.device(kind))
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32
    with devices.tf32(True):
        assert matrices.allow_tf32 and convolutions.allow_tf32
    assert matrices.allow_tf32 == before


@pytest.mark.parametrize("name, recompute", [("tiny", False), ("official", True)])
def test_a_step_stays_on_its_gpu(name, recompute):
    """On arrays that pretend to be there: forwards, as torch without a GPU refuses the way back."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model = MusicTranslator(config.preset(name, ("one", "two")).model)
        if recompute:
            training.recompute(model)
        codes = torch.zeros(2, 1_000, dtype=torch.long)
        z = model.encode(codes)
        loss = losses.reconstruction(model.decoders["two"](codes, z), codes)
        loss = loss - losses.domain(model.classifier(z), 1)
    assert loss.device.type == "cuda" and loss.requires_grad


def test_the_classifier_is_asked_where_it_is(blink_model, corpus, monkeypatch):
    class Elsewhere(torch.nn.Linear):
        def forward(self, latent):
            assert latent.is_meta
            return torch.tensor([[1.0, 0.0]]).expand(len(latent), 2)

    monkeypatch.setitem(blink_model._modules, "classifier", Elsewhere(1, 1, device="meta"))
    assert latent.evaluate(blink_model, Corpus(corpus))["classifier"] == 0.5


# --- the same step in less memory -----------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {"micro_batches": 2}, {"micro_batches": 4}, {"recompute": True},
])  # fmt: skip
def test_less_memory_makes_the_same_step(corpus, monkeypatch, changes):
    if "recompute" in changes:
        monkeypatch.setattr(fused, "fits", lambda _: False)  # it is for where those are not
    with pytest.raises(ConfigError, match="micro_batches = 3 must divide the batch of 4"):
        config.TrainingConfig(batch=4, micro_batches=3)
    now, other = started(corpus, batch=4), started(corpus, batch=4, **changes)
    wanted, said = now.advance(), other.advance()
    assert said.pop("domain") == wanted.pop("domain") and said == pytest.approx(wanted, rel=1e-4)
    error = (weights(other.model) - weights(now.model)).abs()
    # Adam's first step is of one size for each weight; near zero the sign of a sum may differ.
    assert error.max() == 0 if "recompute" in changes else (error < 1e-5).float().mean() > 0.99


def saved_bytes(preset, training_config):
    """Bytes of activations that a step keeps for its gradients, of arrays that are shapes only."""
    with torch.device("meta"):
        model = MusicTranslator(preset.model)
    if training_config.recompute:
        training.recompute(model)
    rows = training_config.batch // training_config.micro_batches
    codes = torch.zeros(rows, training_config.crop, dtype=torch.long, device="meta")
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = model.encode(codes)
        loss = losses.reconstruction(model.decoders["one"](codes, z), codes)
        loss = loss - losses.domain(model.classifier(z), 0)
    return sum(one.nbytes() for key, one in kept.items() if key not in weights)


@pytest.mark.parametrize("name, plain", [("paper", 35), ("official", 68)])
def test_the_published_batch_fits_into_14_gigabytes(name, plain):
    """In float32, the most; `docs/gpu.md` has the numbers."""
    preset = config.preset(name, ("one",))
    assert saved_bytes(preset, preset.training) / 1e9 == pytest.approx(plain, rel=0.02)
    small = replace(preset.training, recompute=True, micro_batches=2)
    kept = saved_bytes(preset, small)
    # Of six domains: weights, gradients and Adam's two moments. And one layer, opened up again: at
    # most 12 arrays of 128 channels forwards, and as many gradients.
    whole = config.preset(name).model
    with torch.device("meta"):
        fixed = 16 * sum(p.numel() for p in MusicTranslator(whole).parameters())
    opened = 24 * 128 * 4 * small.batch // small.micro_batches * small.crop
    assert (kept + fixed + opened) / 1e9 < 14


def test_too_little_memory_is_one_line_with_the_settings(umt, corpus, tmp_path, monkeypatch):
    def advance(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB.")

    monkeypatch.setattr(training.Training, "advance", advance)
    status, _, said = umt("train", "--preset", "tiny", "--data", corpus, "--out", tmp_path / "run",
                          "--steps", 1)  # fmt: skip
    assert status == 2 and said.count("\n") == 1
    for setting in ("recompute=true", "micro_batches", "batch", "docs/gpu.md"):
        assert setting in said


def test_what_a_gpu_will_be_asked_can_be_asked_of_a_cpu(capsys, monkeypatch):
    monkeypatch.setattr(check_gpu, "together", lambda *_: "two")  # `test_team` starts processes
    check_gpu.main("cpu", "cpu", ("tiny",), "tiny", seconds=0.01, crop=400)
    said = dict(line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:])
    assert len(said) == 1 + 3 + 8 + 1
    assert said["codes equal to the reference's, `tiny`"] == "100.0%"
    for asked, found in said.items():
        if "tf32" in asked:
            assert "for NVIDIA GPUs" in found
        elif "samples/s" in asked and "two" not in asked:
            assert int(found.replace(",", "")) > 0


def test_the_bench_reports_what_it_ran():
    settings = {"preset": "tiny", "seconds": 0.01}
    found = bench.generate(streams=2, domains=2, threads=1, **settings)
    assert found["backend"] in generation.BACKENDS and found["dtype"] == "float32"
    factor = found["samples_per_second"] / 16_000 / 4
    assert found["real_time_factor"] == pytest.approx(factor, rel=0.01, abs=1e-4)
    assert bench.encode(dtype="int8", **settings)["seconds_per_second"] > 0
    trained = bench.train(crop=400, precision="float16", **settings)
    assert trained["samples_per_second"] > 0 and trained["precision"] == "float16"


def test_the_bench_prints_its_numbers_and_nothing_else(capsys):
    assert pytest.raises(SystemExit, bench.app, ["encode", "--help"]).value.code == 0
    assert "0" not in capsys.readouterr().out.splitlines()
    assert pytest.raises(SystemExit, bench.app, ["encode", "--nope"]).value.code == 2
    with pytest.raises(SystemExit):
        bench.app(["encode", "--preset", "tiny", "--seconds", "0"])
    assert json.loads(capsys.readouterr().out)["preset"] == "tiny"


def test_a_killed_worker_is_told_of_in_one_line_and_another_error_keeps_its_words():
    with pytest.raises(ConfigError, match="smaller --set batch"), devices.told_of_memory():
        raise RuntimeError("DataLoader worker (pid(s) 9979) exited unexpectedly")
    with pytest.raises(RuntimeError, match="sizes"), devices.told_of_memory():
        raise RuntimeError("sizes do not match")


# --- float16 --------------------------------------------------------------------------------------


def test_float16_scales_its_gradients_and_goes_on_bit_for_bit(corpus, tmp_path):
    chosen = blink(precision="float16")
    for out, lengths in (("whole", [8]), ("parts", [4, 8])):
        for steps in lengths:
            runs.train(corpus, tmp_path / out, chosen, steps, pace=PACE, workers=0, resume=True)
    found = [checkpoint.newest(tmp_path / name) for name in ("whole", "parts")]
    assert torch.equal(*(weights(checkpoint.load(folder)) for folder in found))
    tensors = checkpoint.read_tensors(found[1] / runs.TENSORS)
    assert tensors["carried.scale"].item() == pytest.approx(training.SCALE + 8 * training.GROWTH)


def test_a_scale_that_is_too_large_falls(corpus):
    for precision in ("float32", "bfloat16", "float16"):
        report = started(corpus, precision=precision).advance()
        assert report["reconstruction"] == pytest.approx(math.log(256), abs=0.5), precision
    now = started(corpus, precision="float16")
    now.carried["scale"] = torch.tensor(200.0)  # 2**200 is infinite in float32
    before = weights(now.model)
    assert now.advance()["bad"] == 1 and torch.equal(weights(now.model), before)
    assert now.carried["scale"].item() == 198


# --- runs: what comes first -----------------------------------------------------------------------


def test_a_step_is_saved_before_it_is_validated(corpus, tmp_path, monkeypatch):
    def fail(*_):
        raise TrainingError("validation failed")

    monkeypatch.setattr(watching, "validate", fail)
    with pytest.raises(TrainingError, match="validation failed"):
        runs.train(corpus, tmp_path / "run", blink(), 8, pace=PACE, workers=0)
    assert number(checkpoint.newest(tmp_path / "run")) == 8
    # one that is told to stop does not validate
    monkeypatch.setattr("umtlib.machine.team.Team.any", lambda self, flag: True)
    monkeypatch.setattr(training, "descend", lambda *_: True)
    pace = runs.Pace(report=1, validate=1, save=1_000)
    runs.train(corpus, tmp_path / "other", blink(), 50, pace=pace, workers=0)
    assert number(checkpoint.newest(tmp_path / "other")) == 1


def test_a_corpus_without_held_out_tracks_is_said_at_the_start(corpus, tmp_path, monkeypatch):
    select = Corpus.select
    monkeypatch.setattr(
        Corpus, "select", lambda self, *name: [] if name == ("drum", "val") else select(self, *name)
    )
    monkeypatch.setattr(training.Training, "advance", lambda _: pytest.fail("a step was made"))
    with pytest.raises(TrainingError, match="no 'val' track of domain 'drum'"):
        runs.train(corpus, tmp_path / "run", blink(), 50)


@pytest.mark.parametrize("wrong, word", [
    (["--model", "nowhere"], "nowhere"), (["--set", "crops=1"], "crops"),
    (["--device", "cuda:77"], "cuda:77"), ([], "--steps"),
])  # fmt: skip
def test_recordings_are_prepared_when_all_else_is_right(
    umt, blink_folder, tmp_path, monkeypatch, wrong, word
):
    from umtlib.corpora import folders

    monkeypatch.setattr(folders, "build", lambda *_: pytest.fail("recordings were prepared"))
    command = ["train", "--data", tmp_path, "--out", tmp_path / "run", "--add-domain", "kazoo"]
    command += ["--preset", "tiny", "--model", blink_folder]
    command += ["--steps", 1] if wrong else []
    status, _, said = umt(*command, *wrong)
    assert status == 2 and word in said and said.count("\n") == 1


@pytest.mark.parametrize("verb", ["translate", "evaluate", "stimuli lineup"])
@pytest.mark.parametrize("wrong", [["--device", "cuda:77"], ["--precision", "half"]])
def test_every_verb_that_runs_a_model_takes_a_device(umt, verb, wrong):
    given = ["x.wav"] if verb == "translate" else ["--data", ".", "--out", "out"]
    status, _, said = umt(*verb.split(), *given, *wrong)
    assert status == 2 and wrong[1] in said and said.count("\n") == 1
