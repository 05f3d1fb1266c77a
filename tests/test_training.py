"""The losses, one step, and runs that survive whatever happens to them."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umtlib import checkpoint, losses, mulaw, runs, training, translator
from umtlib.config import Preset, TrainingConfig, preset
from umtlib.corpora.batches import Crops, loader
from umtlib.corpora.corpus import Corpus
from umtlib.errors import CheckpointError, ConfigError, TrainingError
from umtlib.machine import devices
from umtlib.runs import log, watching

DOMAINS = ("flute", "drum")  # of the fixture `corpus`


def blink(**changes):
    """A preset of which a step takes milliseconds."""
    tiny = preset("tiny", DOMAINS)
    decoder = replace(tiny.model.decoder, layers=3, channels=8, skip_channels=8)
    model = replace(tiny.model, decoder=decoder)
    settings = {"crop": 800, "batch": 2, "augment": False} | changes
    return Preset(model, replace(tiny.training, **settings))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- losses ---------------------------------------------------------------------------------------


def test_losses_are_mean_nats():
    nothing = losses.reconstruction(torch.zeros(2, 256, 5), torch.zeros(2, 5).long())
    assert nothing.item() == pytest.approx(math.log(256))
    sure = torch.full((1, 256, 3), -50.0)
    target = torch.tensor([[3, 200, 255]])
    sure[0, target[0], torch.arange(3)] = 50.0
    assert losses.reconstruction(sure, target).item() == pytest.approx(0, abs=1e-6)
    wrong = losses.reconstruction(sure, target.flip(1))
    assert wrong.item() == pytest.approx(100 * 2 / 3)  # the middle one is right
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    assert losses.domain(logits, 0).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))


# --- batches --------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone(corpus):
    config = blink(augment=True).training
    crops = Crops(Corpus(corpus), DOMAINS, config, "train", 6)
    alone = [crops[step] for step in (5, 2)]
    for workers in (0, 2):
        later = list(loader(crops, range(2, 6), workers))
        assert len(later) == 4
        for batch, same in ((later[3], alone[0]), (later[0], alone[1])):
            assert batch.domain == same.domain
            assert torch.equal(batch.heard, same.heard) and torch.equal(batch.target, same.target)
    other = Crops(Corpus(corpus), DOMAINS, replace(config, seed=1), "train", 6)[5]
    assert not torch.equal(other.target, alone[0].target)


def test_domains_take_turns_and_the_target_stays_clean(corpus):
    crops = Crops(Corpus(corpus), DOMAINS, blink(augment=True, crop=8_000).training, "train", 4)
    assert [crops[step].domain for step in range(4)] == ["flute", "drum", "flute", "drum"]
    batch, held_out = crops[0], Crops(Corpus(corpus), DOMAINS, crops.config, "val", 1)[0]
    assert not torch.equal(batch.heard, batch.target)
    assert torch.equal(held_out.heard, held_out.target)  # what is measured is not augmented
    originals = [
        mulaw.encode(torch.from_numpy(Corpus(corpus).audio(t) / np.float32(32_768)))
        for t in Corpus(corpus).select("flute", "train")
    ]
    for row in batch.target:
        assert any((o.unfold(0, 8_000, 1) == row).all(1).any() for o in originals)


def test_validation_does_not_repeat_trainings_random_numbers(corpus):
    drawn = []
    for split in ("train", "val"):
        crops = Crops(Corpus(corpus), DOMAINS, blink(augment=False).training, split, 1)
        crops.draw = lambda _, samples, rng: drawn.append(rng.random()) or np.zeros(samples)
        crops[0]
    assert len(set(drawn)) == len(drawn) > 1


# --- one step -------------------------------------------------------------------------------------


def started(corpus, **changes):
    chosen = blink(**changes)
    model = translator.build(chosen.model, chosen.training.seed)
    return training.Training(model, Corpus(corpus), chosen.training, 100)


def one_step(corpus, step=0, **changes):
    now = started(corpus, **changes)
    now.step = step
    before = {name: part.clone() for name, part in now.model.state_dict().items()}
    report = now.advance()
    changed = {
        name.split(".")[0] if not name.startswith("decoders") else name.split(".")[1]
        for name, part in now.model.state_dict().items()
        if not torch.equal(part, before[name])
    }
    return report, changed


@pytest.mark.parametrize("step, only, changed", [
    (0, "", {"encoder", "classifier", "flute"}), (1, "", {"encoder", "classifier", "drum"}),
    (0, "drum", {"drum"}),
])  # fmt: skip
def test_a_step_trains_the_encoder_the_classifier_and_that_domains_decoder_only(
    corpus, step, only, changed
):
    assert one_step(corpus, step, only=only)[1] == changed


def test_gradients_are_those_of_the_papers_loss(corpus, monkeypatch):
    """The classifier is left as it is, so that the plain formula can use it."""
    now, seen = started(corpus, confusion_weight=0.5), {}
    model = translator.build(blink().model)

    def spy(loss, optimizers, rates, *_):
        for name in rates:
            part = [*now.model.get_submodule(name).parameters()]
            seen[name] = torch.autograd.grad(loss, part, retain_graph=True, allow_unused=True)
        return True

    monkeypatch.setattr(training, "descend", spy)
    now.advance()
    batch = now._crops[0]
    latent = model.encode(batch.heard)
    ce = F.cross_entropy(model.decoders["flute"](batch.target, latent), batch.target)
    c = F.cross_entropy(model.classifier(latent), torch.zeros(2).long())
    for name, loss in (("encoder", ce - 0.5 * c), ("decoders.flute", ce), ("classifier", c)):
        parameters = [*model.get_submodule(name).parameters()]
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        for found, wanted in zip(seen.pop(name), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
    assert all(one is None for part in seen.values() for one in part)


def test_clipping_bounds_each_part_on_its_own():
    """Plain descent at rate 1 moves by the clipped gradient itself."""
    parts = {"a": torch.zeros(4, requires_grad=True), "b": torch.zeros(9, requires_grad=True)}
    optimizers = {name: torch.optim.SGD([part]) for name, part in parts.items()}
    loss = (1e-3 * parts["a"]).sum() + (1e6 * parts["b"]).sum()
    assert training.descend(loss, optimizers, {"a": 1.0, "b": 1.0}, clip=0.5)
    assert parts["a"].norm().item() == pytest.approx(2e-3)
    assert parts["b"].norm().item() == pytest.approx(0.5, rel=1e-3)


def test_schedule():
    config = TrainingConfig(learning_rate=1.0, decay=0.5, decay_every=10, batch=5)
    assert [training.learning_rate(config, step) for step in range(5)] == [1, 1, 0.5, 0.5, 0.25]


def test_training_lowers_the_loss(corpus):
    chosen = preset("tiny", DOMAINS)
    decoder = replace(chosen.model.decoder, layers=4)
    config = replace(chosen.training, crop=1_600, learning_rate=1e-2)
    model = translator.build(replace(chosen.model, decoder=decoder))
    now = training.Training(model, Corpus(corpus), config, 60)
    found = [now.advance()["reconstruction"] for _ in range(60)]
    assert np.mean(found[-8:]) < np.mean(found[2:10]) - 0.7


# --- runs -----------------------------------------------------------------------------------------

PACE = runs.Pace(report=2, validate=8, save=4)


def run(corpus, out, steps, *, chosen=None, workers=0, **options):
    settings = {"pace": PACE, "workers": workers}
    folder = runs.train(corpus, out, chosen or blink(), steps, **settings, **options)
    return weights(checkpoint.load(folder))


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """A run of 8 steps, and its weights."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, run(corpus, folder, 8)


@pytest.fixture
def again(finished, tmp_path):
    """A copy of it: a folder with the checkpoints of steps 4 and 8."""
    return shutil.copytree(finished[0], tmp_path / "run")


def steps_kept(folder):
    return [int(path.name[5:]) for path in sorted(folder.glob("step-*"))]


def test_resumed_run_ends_in_the_same_weights(corpus, tmp_path):
    """And only the last two checkpoints are kept."""
    whole = run(corpus, tmp_path / "whole", 10)
    run(corpus, tmp_path / "parts", 6, workers=1)
    parts = run(corpus, tmp_path / "parts", 10, workers=2, resume=True)
    assert torch.equal(whole, parts)
    log = [json.loads(line) for line in (tmp_path / "parts" / runs.LOG).read_text().splitlines()]
    steps = [line["step"] for line in log if "reconstruction" in line]
    assert steps == [2, 4, 6, 8, 10]
    assert {"nats", "nats_wrong_latent", "accuracy"} <= log[-1].keys()
    assert steps_kept(tmp_path / "whole") == steps_kept(tmp_path / "parts") == [8, 10]


def test_run_is_neither_overwritten_nor_continued_with_other_settings(corpus, again):
    with pytest.raises(TrainingError, match="choose one by --steps"):
        run(corpus, again, None)
    with pytest.raises(TrainingError, match="--resume"):
        run(corpus, again, 10)
    with pytest.raises(TrainingError, match="another configuration"):
        run(corpus, again, 10, chosen=blink(learning_rate=1.0), resume=True)


@pytest.mark.parametrize("good, kept, words", [
    (5, [4], "is from before that"), (0, [], "was not made yet"),
])  # fmt: skip
def test_steps_that_are_not_finite_are_skipped_and_stop_the_run(
    corpus, tmp_path, monkeypatch, good, kept, words
):
    original, calls = losses.reconstruction, []

    def at_first(logits, target):
        calls.append(1)
        return original(logits, target) * (math.nan if len(calls) > good else 1)

    monkeypatch.setattr(losses, "reconstruction", at_first)
    with pytest.raises(TrainingError, match=f"5 steps in a row had no finite gradient.*{words}"):
        run(corpus, tmp_path / "run", 50)
    assert steps_kept(tmp_path / "run") == kept
    assert not kept or weights(checkpoint.load(tmp_path / "run")).isfinite().all()
    log = [json.loads(line) for line in (tmp_path / "run" / runs.LOG).read_text().splitlines()]
    assert [line["bad"] for line in log if "bad" in line][-1] == 2  # all since the report before


def test_a_bad_step_changes_nothing_but_the_count(corpus, monkeypatch):
    monkeypatch.setattr(losses, "reconstruction", lambda logits, _: logits.sum() * math.nan)
    monkeypatch.setattr(losses, "domain", lambda logits, _: logits.sum() * math.inf)
    report, changed = one_step(corpus)
    assert report["bad"] == 1
    assert not changed


# --- interrupted for real: in processes of their own ----------------------------------------------

# conftest: as many threads as here, for the order in which numbers are added depends on it.
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import conftest
from test_training import PACE, blink
from umtlib import runs
runs.train({corpus!r}, {out!r}, blink(), 10_000, resume=True, pace=PACE,
           on_report=lambda line: print(line["step"], flush=True))
"""


def wait_for_step(process, step):
    for line in process.stdout:
        if int(line) >= step:
            return
    raise AssertionError("the run ended early")


def number(folder):
    return int(folder.name[5:])


# Python reports each operation on files before it is done, and `Path.write_bytes` here also when
# it has written half. A process is forked to save, and is killed at the first of them; another one
# at the second, and so on.
KILLER = """
import itertools, os, pathlib, shutil, signal, sys
sys.path.insert(0, {tests!r})
import conftest
from test_training import PACE, blink
from umtlib import runs

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "half")
save = runs.save

def half_first(path, content):
    path.open("wb").write(content[: len(content) // 2])
    sys.audit("half")
    path.open("wb").write(content)

def save_and_die(place, out, *rest):
    events = itertools.count(1)
    def note(event, _):
        if event in CHANGES and next(events) == place:
            os.kill(os.getpid(), signal.SIGKILL)
    pathlib.Path.write_bytes = half_first
    sys.addaudithook(note)
    save(out, *rest)
    os._exit(0)  # there was no such place

def save_many_times(run, *rest):
    for place in itertools.count(1):
        out = pathlib.Path(shutil.copytree(run, f"{folder}/{{place}}"))
        child = os.fork()
        if child == 0:
            save_and_die(place, out, *rest)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            os._exit(0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status

runs.save = save_many_times
runs.train({corpus!r}, {start!r}, blink(), 12, resume=True, pace=PACE, workers=0)
"""


@pytest.mark.slow
def test_killed_anywhere_inside_a_save(corpus, tmp_path):
    whole = run(corpus, tmp_path / "whole", 12)
    for steps in (8, 11):
        run(corpus, tmp_path / "start", steps, resume=True)
    (tmp_path / "killed").mkdir()
    script = KILLER.format(
        tests=os.path.dirname(__file__), corpus=str(corpus), folder=str(tmp_path / "killed"),
        start=str(tmp_path / "start"),
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", script], check=True)
    found = sorted((tmp_path / "killed").iterdir(), key=lambda path: int(path.name))
    # Six files, begun, half written and flushed; the folder made and renamed; an old one removed.
    assert len(found) > 25
    last = [number(checkpoint.newest(folder)) for folder in found]
    assert last == sorted(last) and set(last) == {11, 12}
    for folder in found[::4]:
        resumed = run(corpus, folder, 12, resume=True)
        assert torch.equal(resumed, whole), folder


def test_what_a_kill_left_of_a_save_is_removed_by_the_next(corpus, again, monkeypatch):
    (again / "step-00000009.part").mkdir()
    (again / "step-00000099").mkdir()  # damaged: it has no checksums
    native = devices.native(torch.device("cpu"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(devices, "native", lambda _: not native)
    with pytest.warns(RuntimeWarning) as said:
        run(corpus, again, 12, resume=True)
    words = " ".join(str(one.message) for one in said)
    assert re.search("step-00000099.*1 threads, not 2.*OMP_NUM_THREADS.* bfloat16, not ", words)
    progress = json.loads((checkpoint.newest(again) / runs.PROGRESS).read_text())
    assert progress["bfloat16"] == ("none" if native else "native")
    assert steps_kept(again) == [8, 12]


def test_damaged_checkpoint_is_refused_by_name_and_the_previous_used(corpus, again, finished):
    path = again / "step-00000008" / runs.TENSORS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="step-00000008.*training.saf.*Using step-00000004"):
        assert torch.equal(run(corpus, again, 8, resume=True), finished[1])


def test_a_run_of_an_older_version_is_refused_with_the_mend(corpus, again):
    folder = again / "step-00000008"
    content = {path.name: path.read_bytes() for path in folder.glob("[!c]*")}
    content |= {checkpoint.CONFIG: (folder / checkpoint.CONFIG).read_bytes()}
    content[runs.PROGRESS] = b'{"step": 8, "seconds": 1.0, "processes": 1}'
    shutil.rmtree(folder)
    checkpoint.write(folder, content)
    with pytest.raises(CheckpointError, match="lacks the field 'threads'; if another version"):
        run(corpus, again, 10, resume=True)


def test_what_tensorboard_is_told_is_on_the_disk_at_once(monkeypatch, tmp_path):
    told = Mock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", told)
    log.tensorboard(tmp_path)({"step": 3, "stage": "own", "nats": {"flute": 2.5}})
    flute = call("nats/flute", 2.5, 3)
    assert told.SummaryWriter(tmp_path).add_scalar.mock_calls == [call("step", 3, 3), flute]
    assert told.SummaryWriter(tmp_path).mock_calls[-1] == call.flush()


@pytest.mark.slow
def test_ctrl_c_saves_once_and_exits(corpus, tmp_path):
    """SIGTERM: in the tests of the recipe."""
    script = SCRIPT.format(
        tests=os.path.dirname(__file__), corpus=str(corpus), out=str(tmp_path / "run")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for_step(process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    printed, complaint = process.communicate(timeout=120)
    assert (process.returncode, complaint) == (0, "")
    last = number(checkpoint.newest(tmp_path / "run"))
    assert int(printed.split()[-1]) == last < 10_000  # saved where it stopped


# --- a new domain ---------------------------------------------------------------------------------


def test_new_domain_leaves_the_others_bit_identical(corpus, tmp_path):
    base = translator.build(replace(blink().model, domains=("flute", "other")))
    grown = translator.with_domain(base, "drum")
    chosen = Preset(grown.config, replace(blink().training, only="drum"))
    runs.train(corpus, tmp_path / "run", chosen, 6, pace=PACE, initial=grown)
    found = checkpoint.load(tmp_path / "run")
    assert found.domains == ("flute", "other", "drum")
    kept = base.state_dict()
    for name, value in found.state_dict().items():
        if name.startswith(("encoder", "decoders.flute", "decoders.other")):
            assert torch.equal(value, kept[name]), name
    for name, value in found.decoders["drum"].state_dict().items():
        assert not torch.equal(value, kept[f"decoders.flute.{name}"]), name
    assert run(corpus, tmp_path / "run", 8, chosen=chosen, resume=True).isfinite().all()


def test_new_domain_must_be_new_and_others_there(corpus):
    with pytest.raises(ConfigError, match="flute"):
        translator.with_domain(translator.build(blink().model), "flute")
    with pytest.raises(TrainingError, match="'harp'"):
        Crops(Corpus(corpus), ("flute", "harp"), TrainingConfig(), "train", 1)
    with pytest.raises(ConfigError, match="'harp' must be a domain.*flute, drum"):
        blink(only="harp")


# --- going wrong aloud ----------------------------------------------------------------------------


def test_warnings_say_what_is_wrong():
    fine = {"nats": {"a": 3.0}, "nats_wrong_latent": {"a": 3.3}, "accuracy": {"a": 0.9, "b": 0.5}}
    for change, words in (
        ({}, ""), ({"nats_wrong_latent": {"a": 3.001}}, "decoder of a does not use the latent"),
        ({"accuracy": {"a": 1.0, "b": 0.98}}, "99%"), ({"accuracy": {"a": 1.0}}, ""),
        ({"accuracy": {"a": 0.9, "b": 0.1}}, "as by chance"),
    ):  # fmt: skip
        said = watching.complaints(fine | change)
        assert len(said) == bool(words) and words in "".join(said)


def test_a_run_lets_itself_be_heard(corpus, tmp_path):
    model = translator.build(blink().model).eval()
    assert watching.listen(model, Corpus(corpus), tmp_path / "heard", 7) == []
    names = {path.name for path in (tmp_path / "heard").iterdir()}
    assert names == {f"step-00000007.{name}.wav" for name in DOMAINS}
    for name, code in zip(DOMAINS, (mulaw.SILENCE, 255), strict=True):
        model.decoders[name].logits.bias.data[code] = 1e3
    said = ["the translation to flute is silent", "the translation to drum is clipped"]
    assert watching.listen(model, Corpus(corpus), tmp_path / "heard", 8) == said
