"""The losses, one step, and runs that survive whatever happens to them."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umtlib import checkpoint, losses, mulaw, runs, training, watching
from umtlib.augment import equalise
from umtlib.batches import Crops, loader
from umtlib.config import Preset, TrainingConfig, preset
from umtlib.corpora.corpus import Corpus
from umtlib.errors import ConfigError, TrainingError
from umtlib.layers import constant_q_bank, log_energies
from umtlib.translator import with_domain

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


def test_reconstruction_is_the_mean_nats_per_sample():
    assert losses.reconstruction(torch.zeros(2, 256, 5), torch.zeros(2, 5).long()).item() == (
        pytest.approx(math.log(256))
    )
    sure = torch.full((1, 256, 3), -50.0)
    target = torch.tensor([[3, 200, 255]])
    sure[0, target[0], torch.arange(3)] = 50.0
    assert losses.reconstruction(sure, target).item() == pytest.approx(0, abs=1e-6)
    wrong = losses.reconstruction(sure, target.flip(1))
    assert wrong.item() == pytest.approx(100 * 2 / 3)  # the middle one is right


def test_domain_loss_is_cross_entropy_with_the_true_domain():
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    assert losses.domain(logits, 0).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))


def test_pitch_spectrogram_peaks_at_the_note():
    time_ = torch.arange(16_000) / 16_000
    for semitone in (15, 36, 60):
        tone = 0.5 * torch.sin(2 * math.pi * 55 * 2 ** (semitone / 12) * time_)
        frames = losses.pitch_spectrogram(mulaw.encode(tone)[None], 800)
        assert frames.shape == (1, losses.PITCHES, 20)
        assert frames[0, : losses.SEMITONES, 10].argmax().item() == semitone


def test_pitch_spectrogram_hears_notes_and_not_the_envelope():
    rng = np.random.default_rng(0)
    time_ = np.arange(16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 220 * k * time_) / k for k in range(1, 12)).astype(np.float32)
    filtered = equalise(0.2 * tone, rng, 12.0)
    plain, other, higher = (
        losses.pitch_spectrogram(mulaw.encode(torch.from_numpy(x))[None], 800)[0, :-1, 10]
        for x in (0.2 * tone, filtered, np.interp(time_ * 2**0.5, time_, 0.2 * tone).astype("f4"))
    )
    assert (plain - other).norm() < 0.5 * (plain - higher).norm()


def test_filters_have_unit_gain_at_their_centre_and_reject_others():
    bank = constant_q_bank(3, 2_048, 200.0, 3_200.0)  # 200, 800, 3,200 Hz
    tone = torch.sin(2 * math.pi * 800 * torch.arange(16_000) / 16_000)[None]
    levels = 4 * (log_energies(tone, bank, 400)[0, :, 20] - 2)  # back to log energy
    assert levels[1].item() == pytest.approx(0.0, abs=0.02)
    assert levels[0].item() < -11
    assert levels[2].item() < -11


# --- batches --------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone(corpus):
    config = blink(augment=True, equalise=6.0, input_noise=(4.0,)).training
    crops = Crops(Corpus(corpus), DOMAINS, config, "train", 6)
    alone = [crops[step] for step in (5, 2)]
    for workers in (0, 2):
        later = list(loader(crops, range(2, 6), workers))
        assert len(later) == 4
        for batch, same in ((later[3], alone[0]), (later[0], alone[1])):
            assert batch.domain == same.domain
            for name in ("heard", "given", "target"):
                assert torch.equal(getattr(batch, name), getattr(same, name))
    other = Crops(Corpus(corpus), DOMAINS, replace(config, seed=1), "train", 6)[5]
    assert not torch.equal(other.target, alone[0].target)


def test_domains_take_turns_and_the_target_stays_clean(corpus):
    crops = Crops(Corpus(corpus), DOMAINS, blink(augment=True, crop=8_000).training, "train", 4)
    assert [crops[step].domain for step in range(4)] == ["flute", "drum", "flute", "drum"]
    batch = crops[0]
    assert not torch.equal(batch.heard, batch.target)
    assert torch.equal(batch.given, batch.target)
    originals = [
        mulaw.encode(torch.from_numpy(Corpus(corpus).audio(t) / np.float32(32_768)))
        for t in Corpus(corpus).select("flute", "train")
    ]
    for row in batch.target:
        assert any((o.unfold(0, 8_000, 1) == row).all(1).any() for o in originals)


def test_noise_is_of_the_given_size_on_the_decoders_input_only(corpus):
    crops = Crops(Corpus(corpus), DOMAINS, blink(input_noise=(8.0,)).training, "train", 1)
    batch = crops[0]
    error = (batch.given - batch.target).float()
    assert error.std().item() == pytest.approx(8.0, rel=0.1)
    assert torch.equal(batch.heard, batch.target)


def test_some_inputs_begin_with_silence(corpus):
    """As many as asked for, up to a sample that is anywhere; what is to be predicted stays."""
    config = replace(blink().training, crop=2_000, batch=1, input_silence=0.3)
    crops = Crops(Corpus(corpus), DOMAINS, config, "train", 400)
    lengths = []
    for batch in (crops[step] for step in range(400)):
        changed = (batch.given != batch.target)[0]
        if changed.any():
            last = int(changed.nonzero().max())
            assert (batch.given[0, : last + 1] == mulaw.SILENCE).all()
            lengths.append(last)
    assert 90 <= len(lengths) <= 150  # 120 expected
    assert min(lengths) < 300 and max(lengths) > 1_700


def test_missing_domain_is_refused(corpus):
    with pytest.raises(TrainingError, match="'harp'"):
        Crops(Corpus(corpus), ("flute", "harp"), TrainingConfig(), "train", 1)


# --- one step -------------------------------------------------------------------------------------


def one_step(corpus, step=0, **changes):
    chosen = blink(**changes)
    state = training.start(chosen.model, chosen.training)
    state.step = step
    batch = Crops(Corpus(corpus), DOMAINS, chosen.training, "train", 9)[step]
    before = {name: part.clone() for name, part in state.model.state_dict().items()}
    report = training.train_step(state, batch, chosen.training, 100)
    changed = {
        name.split(".")[0] if not name.startswith("decoders") else name.split(".")[1]
        for name, part in state.model.state_dict().items()
        if not torch.equal(part, before[name])
    }
    return state, report, changed


def test_a_step_trains_the_encoder_the_classifier_and_that_domains_decoder_only(corpus):
    assert one_step(corpus, 0)[2] == {"encoder", "classifier", "flute"}
    assert one_step(corpus, 1)[2] == {"encoder", "classifier", "drum"}


def test_gradients_are_those_of_the_papers_loss(corpus):
    chosen = blink(confusion_weight=0.5)
    state = training.start(chosen.model, chosen.training)
    batch = Crops(Corpus(corpus), DOMAINS, chosen.training, "train", 1)[0]
    model = training.start(chosen.model, chosen.training).model
    seen = {}
    original = training._update

    def spy(state, loss, kind, rate, config):
        for name in training._trained(state, kind, config, rank=0):
            part = state.model.get_submodule(name)
            seen[name] = torch.autograd.grad(loss, [*part.parameters()], retain_graph=True)
        # The classifier is left as it is, so that the plain formula below can use it.
        return kind == "classifier" or original(state, loss, kind, rate, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_update", spy)
        training.train_step(state, batch, chosen.training, 100)
    latent = model.encode(batch.heard)
    ce = F.cross_entropy(model.decoders["flute"](batch.target, latent), batch.target)
    c = F.cross_entropy(model.classifier(latent), torch.zeros(2).long())
    for name, loss in (("encoder", ce - 0.5 * c), ("decoders.flute", ce), ("classifier", c)):
        parameters = [*model.get_submodule(name).parameters()]
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        for found, wanted in zip(seen[name], expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_confusion_makes_the_classifier_fail(corpus):
    """With a heavy confusion loss the encoder's step raises the classifier's loss."""
    state, _, _ = one_step(corpus, confusion_weight=0.0)
    batch = Crops(Corpus(corpus), DOMAINS, blink().training, "train", 1)[0]
    rises = []
    for weight in (0.0, 1e4):
        config = replace(blink().training, confusion_weight=weight, learning_rate=1e-4)
        fresh = training.start(blink().model, config)
        fresh.model.load_state_dict(state.model.state_dict())
        before = losses.domain(fresh.model.classifier(fresh.model.encode(batch.heard)), 0)
        training.train_step(fresh, batch, config, 100)
        classifier = state.model.classifier  # as it was
        after = losses.domain(classifier(fresh.model.encode(batch.heard)), 0)
        rises.append((after - before).item())
    assert rises[1] > rises[0]
    assert rises[1] > 0


def test_clipping_bounds_each_part_on_its_own(corpus):
    state, *_ = one_step(corpus)
    state.step = 0
    parts = ("encoder", "decoders.flute")
    for name in parts:  # plain descent at rate 1 moves by the clipped gradient itself
        group = [*state.model.get_submodule(name).parameters()]
        state.optimizers[name] = torch.optim.SGD(group, lr=1.0)
    before = {name: weights(state.model.get_submodule(name)) for name in parts}

    def slope(p, size):
        return (p * torch.full_like(p, size)).sum()

    small, large = ([*state.model.get_submodule(name).parameters()] for name in parts)
    loss = slope(small[0], 1e-3) + sum(slope(p, 1e6) for p in large)
    assert training._update(state, loss, "autoencoder", 1.0, TrainingConfig(clip_norm=0.5))
    moved = [(weights(state.model.get_submodule(name)) - before[name]).norm() for name in parts]
    assert moved[1].item() == pytest.approx(0.5, rel=1e-3)
    assert moved[0].item() == pytest.approx(1e-3 * small[0].numel() ** 0.5, rel=1e-2)


def test_shared_decoder_serves_all_domains_then_each_has_a_copy(corpus):
    chosen = blink(shared_steps=2, average=0.9)
    state = training.start(chosen.model, chosen.training)
    crops = Crops(Corpus(corpus), DOMAINS, chosen.training, "train", 4)
    for step in range(2):
        training.train_step(state, crops[step], chosen.training, 4)
    training.spread(state, chosen.training)
    first, second = (state.model.decoders[name] for name in DOMAINS)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) != (name.startswith("layers") and name.endswith("taps.bias")), name
    training.train_step(state, crops[2], chosen.training, 4)
    assert not torch.equal(first.logits.weight, second.logits.weight)
    adam = state.optimizers["decoders.drum"].state[second.logits.weight]
    assert adam["step"].item() == 2  # it goes on from the shared moments


def test_schedule():
    config = TrainingConfig(learning_rate=1.0, decay=0.5, decay_every=10, batch=5, warmup_steps=2)
    rates = [training.learning_rate(config, step, 100) for step in range(5)]
    assert rates == [0.5, 1.0, 0.5, 0.5, 0.25]
    falling = replace(config, decay=1.0, cooldown_steps=4)
    assert [training.learning_rate(falling, step, 10) for step in (5, 6, 8, 9)] == [1, 1, 0.5, 0.25]


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_training_lowers_the_loss(corpus, name):
    chosen = preset(name, DOMAINS)
    decoder = replace(chosen.model.decoder, blocks=1, layers=4, channels=16, skip_channels=16)
    config = replace(
        chosen.training,
        crop=1_600,
        batch=2,
        learning_rate=1e-2,
        warmup_steps=0,
        cooldown_steps=0,
        input_noise=(0.0,),
        shared_steps=20 * (name == "small"),
    )
    state = training.start(replace(chosen.model, decoder=decoder), config)
    crops = Crops(Corpus(corpus), DOMAINS, config, "train", 60)
    found = [training.train_step(state, crops[step], config, 60) for step in range(60)]
    early, late = (
        np.mean([r["reconstruction"] for r in part]) for part in (found[2:10], found[-8:])
    )
    assert late < early - 0.7


# --- runs -----------------------------------------------------------------------------------------

PACE = runs.Pace(report=2, validate=8, save=4)


def run(corpus, out, steps, *, chosen=None, **options):
    folder = runs.train(corpus, out, chosen or blink(average=0.9), steps, pace=PACE, **options)
    return weights(checkpoint.load(folder))


def test_resumed_run_ends_in_the_same_weights(corpus, tmp_path):
    whole = run(corpus, tmp_path / "whole", 10, workers=0)
    run(corpus, tmp_path / "parts", 6, workers=1)
    parts = run(corpus, tmp_path / "parts", 10, workers=2, resume=True)
    assert torch.equal(whole, parts)
    log = [json.loads(line) for line in (tmp_path / "parts" / runs.LOG).read_text().splitlines()]
    steps = [line["step"] for line in log if "reconstruction" in line]
    assert steps == [2, 4, 6, 8, 10]
    assert {"nats", "nats_wrong_latent", "accuracy"} <= log[-1].keys()


def test_resume_through_the_end_of_sharing(corpus, tmp_path):
    chosen = blink(shared_steps=5, average=0.9, input_noise=(0.0, 8.0))
    whole = run(corpus, tmp_path / "whole", 9, chosen=chosen)
    for steps in (3, 5, 9):
        parts = run(corpus, tmp_path / "parts", steps, chosen=chosen, resume=True)
    assert torch.equal(whole, parts)


def test_only_the_last_two_checkpoints_are_kept(corpus, tmp_path):
    run(corpus, tmp_path / "run", 12)
    names = [path.name for path in checkpoint.checkpoints(tmp_path / "run")]
    assert names == ["step-00000008", "step-00000012"]


def test_run_is_neither_overwritten_nor_continued_with_other_settings(corpus, tmp_path):
    run(corpus, tmp_path / "run", 2)
    with pytest.raises(TrainingError, match="--resume"):
        run(corpus, tmp_path / "run", 4)
    with pytest.raises(TrainingError, match="another configuration"):
        run(corpus, tmp_path / "run", 4, chosen=blink(learning_rate=1.0), resume=True)


def test_steps_that_are_not_finite_are_skipped_and_stop_the_run(corpus, tmp_path, monkeypatch):
    original = losses.reconstruction
    calls = []

    def sometimes(logits, target):
        calls.append(1)
        return original(logits, target) * (math.nan if len(calls) > 5 else 1)

    monkeypatch.setattr(losses, "reconstruction", sometimes)
    with pytest.raises(TrainingError, match="no finite gradient"):
        run(corpus, tmp_path / "run", 50)
    kept = checkpoint.newest(tmp_path / "run")
    assert kept.name == "step-00000004"
    assert weights(checkpoint.load(kept)).isfinite().all()


def test_a_bad_step_changes_nothing_but_the_count(corpus, monkeypatch):
    monkeypatch.setattr(losses, "reconstruction", lambda logits, _: logits.sum() * math.nan)
    monkeypatch.setattr(losses, "domain", lambda logits, _: logits.sum() * math.inf)
    _, report, changed = one_step(corpus)
    assert report["bad"] == 1
    assert not changed


# --- interrupted for real: in processes of their own ----------------------------------------------

# conftest: as many threads as here, for the order in which numbers are added depends on it.
SCRIPT = """
import resource, sys
sys.path.insert(0, {tests!r})
import conftest
from test_training import PACE, blink
from umtlib import runs
resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))
print("ready", flush=True)
runs.train({corpus!r}, {out!r}, blink(**{settings}), {steps}, resume=True, pace=PACE,
           on_report=lambda line: print(line["step"], flush=True))
"""


def in_subprocess(corpus, out, steps, largest=-1, settings=None):
    """Start a run; no file can grow beyond `largest` bytes."""
    script = SCRIPT.format(
        tests=os.path.dirname(__file__), corpus=str(corpus), out=str(out), steps=steps,
        largest=largest, settings=settings or {"average": 0.9},
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for_step(process, step):
    for line in process.stdout:
        if int(line) >= step:
            return
    raise AssertionError("the run ended early")


def number(folder):
    return int(folder.name[5:])


@pytest.mark.slow
def test_killed_run_goes_on_as_if_nothing_had_happened(corpus, tmp_path):
    process = in_subprocess(corpus, tmp_path / "killed", 10_000)
    wait_for_step(process, 6)  # it has saved step 4, and goes on while we kill it
    process.kill()
    process.communicate()
    last = number(checkpoint.newest(tmp_path / "killed"))
    assert last >= 4
    resumed = run(corpus, tmp_path / "killed", last + 3, resume=True)
    assert torch.equal(resumed, run(corpus, tmp_path / "whole", last + 3))


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
runs.train({corpus!r}, {start!r}, blink(average=0.9), 12, resume=True, pace=PACE, workers=0)
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
    for folder in found:
        resumed = run(corpus, folder, 12, resume=True, workers=0)
        assert torch.equal(resumed, whole), folder


def test_what_a_kill_left_of_a_save_is_removed_by_the_next(corpus, tmp_path):
    run(corpus, tmp_path / "run", 4)
    (tmp_path / "run" / "step-00000007.part").mkdir()
    (tmp_path / "run" / "step-00000099").mkdir()  # damaged: it has no checksums
    with pytest.warns(RuntimeWarning, match="step-00000099"):
        run(corpus, tmp_path / "run", 8, resume=True)
    names = sorted(path.name for path in (tmp_path / "run").glob("step-*"))
    assert names == ["step-00000004", "step-00000008"]


@pytest.mark.slow
def test_full_disk_keeps_the_previous_checkpoint(corpus, tmp_path):
    """The disk takes the first part of a file; the rest is refused."""
    run(corpus, tmp_path / "run", 4)
    largest = (tmp_path / "run" / "step-00000004" / runs.TENSORS).stat().st_size // 2
    process = in_subprocess(corpus, tmp_path / "run", 8, largest)
    complaint = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "CheckpointError: cannot write" in complaint and "File too large" in complaint
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000004"]
    resumed = run(corpus, tmp_path / "run", 8, resume=True)
    assert torch.equal(resumed, run(corpus, tmp_path / "whole", 8))


@pytest.mark.parametrize("name", [runs.TENSORS, runs.PROGRESS, checkpoint.CHECKSUMS])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_checkpoint_is_refused_by_name_and_the_previous_used(
    corpus, tmp_path, name, damage
):
    whole = run(corpus, tmp_path / "run", 8)
    path = tmp_path / "run" / "step-00000008" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    refusal = rf"step-00000008.*{name if damage != 'flip' else ''}.*Using step-00000004"
    with pytest.warns(RuntimeWarning, match=refusal):
        assert torch.equal(run(corpus, tmp_path / "run", 8, resume=True), whole)


@pytest.mark.slow
def test_damaged_checkpoint_is_named_on_stderr(corpus, tmp_path):
    whole = run(corpus, tmp_path / "run", 8)
    with (tmp_path / "run" / "step-00000008" / checkpoint.WEIGHTS).open("r+b") as file:
        file.truncate(1_000)
    process = in_subprocess(corpus, tmp_path / "run", 8)
    complaint = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    assert f"step-00000008/{checkpoint.WEIGHTS} is truncated or altered" in complaint
    assert torch.equal(weights(checkpoint.load(tmp_path / "run" / "step-00000008")), whole)


@pytest.mark.slow
def test_run_that_is_never_finite_stops_and_saves_nothing(corpus, tmp_path):
    process = in_subprocess(corpus, tmp_path / "run", 50, settings={"learning_rate": 1e6})
    complaint = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "TrainingError: 5 steps in a row had no finite gradient" in complaint
    assert "was not made yet" in complaint
    log = [json.loads(line) for line in (tmp_path / "run" / runs.LOG).read_text().splitlines()]
    assert sum(line["bad"] for line in log) >= 3 and log[-1]["bad"] == 2  # all from then on
    assert not list((tmp_path / "run").glob("step-*"))


def test_log_that_a_full_disk_has_torn_is_mended(corpus, tmp_path):
    run(corpus, tmp_path / "run", 8)
    log = tmp_path / "run" / runs.LOG
    whole = log.read_text()
    assert '{"step": 8' in whole and "nats" in whole
    log.write_text(whole + '{"step": 8, "nats": {"flute": 5.0}')
    run(corpus, tmp_path / "run", 8, resume=True)
    assert log.read_text() == whole


def test_another_number_of_threads_is_said_to_matter(corpus, tmp_path):
    run(corpus, tmp_path / "run", 2)
    torch.set_num_threads(2)
    try:
        with pytest.warns(RuntimeWarning, match="1 threads, not 2.*OMP_NUM_THREADS"):
            run(corpus, tmp_path / "run", 4, resume=True)
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_saves_once_and_exits(corpus, tmp_path, received):
    process = in_subprocess(corpus, tmp_path / "run", 10_000)
    wait_for_step(process, 2)
    os.killpg(process.pid, received)  # as a terminal does: the workers get it too
    printed, complaint = process.communicate(timeout=120)
    assert (process.returncode, complaint) == (0, "")
    last = number(checkpoint.newest(tmp_path / "run"))
    assert int(printed.split()[-1]) == last < 10_000  # saved where it stopped
    resumed = run(corpus, tmp_path / "run", last + 3, resume=True)
    assert torch.equal(resumed, run(corpus, tmp_path / "whole", last + 3))


# --- a new domain ---------------------------------------------------------------------------------


def test_new_domain_leaves_the_others_bit_identical(corpus, tmp_path):
    base = checkpoint.load(runs.train(corpus, tmp_path / "base", blink(average=0.9), 4, pace=PACE))
    only_drum = replace(base.config, domains=("flute", "other"))
    base = training.start(only_drum, TrainingConfig()).model
    chosen = blink(average=0.9, only="drum")
    grown = with_domain(base, "drum", like="other")
    found = checkpoint.load(
        runs.train(
            corpus,
            tmp_path / "grown",
            Preset(grown.config, chosen.training),
            6,
            pace=PACE,
            initial=grown,
        )
    )
    assert found.domains == ("flute", "other", "drum")
    kept = base.state_dict()
    for name, value in found.state_dict().items():
        if name.startswith(("encoder", "decoders.flute", "decoders.other")):
            assert torch.equal(value, kept[name]), name
    for name, value in found.decoders["drum"].state_dict().items():
        assert not torch.equal(value, kept[f"decoders.other.{name}"]), name
    parts = run(corpus, tmp_path / "grown", 8, chosen=Preset(grown.config, chosen.training),
                resume=True)  # fmt: skip
    assert parts.isfinite().all()


def test_new_domain_must_be_new_and_like_a_known_one():
    model = training.start(blink().model, TrainingConfig()).model
    with pytest.raises(ConfigError, match="flute"):
        with_domain(model, "flute")
    with pytest.raises(ConfigError, match="'harp'.*flute, drum"):
        with_domain(model, "oboe", like="harp")


# --- going wrong aloud ----------------------------------------------------------------------------


def test_warnings_say_what_is_wrong():
    fine = {"nats": {"a": 3.0}, "nats_wrong_latent": {"a": 3.3}, "accuracy": {"a": 0.9, "b": 0.5}}
    assert runs.complaints(fine) == []
    unused = fine | {"nats_wrong_latent": {"a": 3.001}}
    assert "decoder of a does not use the latent" in runs.complaints(unused)[0]
    told = fine | {"accuracy": {"a": 1.0, "b": 0.98}}
    assert "99%" in runs.complaints(told)[0]
    chance = fine | {"accuracy": {"a": 0.9, "b": 0.1}}
    assert "no more than by chance" in runs.complaints(chance)[0]
    alone = fine | {"accuracy": {"a": 1.0}}
    assert runs.complaints(alone) == []


def test_a_run_lets_itself_be_heard(corpus, tmp_path):
    model = training.start(blink().model, TrainingConfig()).model.eval()
    assert watching.listen(model, Corpus(corpus), tmp_path / "heard", 7) == []
    names = {path.name for path in (tmp_path / "heard").iterdir()}
    assert names == {"step-00000007.png", *(f"step-00000007.{name}.wav" for name in DOMAINS)}
    silence, clipped = np.zeros(100), np.sign(np.sin(np.arange(100)))
    assert watching.complaints("a", silence) == ["the translation to a is silent"]
    assert watching.complaints("a", clipped) == ["the translation to a is clipped"]
