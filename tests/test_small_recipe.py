"""The recipe of ``small``: each stage, exact resume in each, one more domain, what is refused."""

import math
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training import DOMAINS, weights

from umtlib import checkpoint, mulaw, runs, translator
from umtlib.config import ClassifierConfig, Preset
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError
from umtlib.machine.team import Team
from umtlib.runs import preset
from umtlib.small import game, hearing, painting, regression, state, training, wavenets
from umtlib.small.frames import FrameModel
from umtlib.small.recipe import Recipe
from umtlib.small.spectra import above_past, log_spectrum

FRAMES, WAVENETS = ({f"{name}.{kind}" for name in DOMAINS} for kind in ("frames", "wavenet"))
PARTS = {"encoder", "classifier"} | FRAMES | WAVENETS
SHORT = Recipe(first=1, game=3, again=1, shared=3, own=4, segments=3)
STEPS = 14  # 2 first, 3 game, 2 again, 3 shared, 4 own
PACE = runs.Pace(report=1, validate=14, save=100)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Segments of 0.2 s, few of them, in frame models and WaveNets of a few numbers."""
    for module, name, value in [
        (state, "SEGMENT", 3_200), (game, "SHORT", 2_400), (wavenets, "WINDOW", 1_600),
        (training, "BEGIN", 2), (game, "EACH", 1), (painting, "ROWS", 2), (painting, "HEARD", 2),
        (wavenets, "TAKEN", 2),
        (hearing, "LONGEST", 0.2), (FrameModel, "MIXED", 8), (FrameModel, "LISTENER", 8),
        (FrameModel, "PLAYER", 8), (FrameModel, "HIDDEN", 8), (FrameModel, "COEFFICIENTS", 4),
        (FrameModel, "DECIDE", 8),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, value)


def tiny(domains=DOMAINS, recipe=SHORT, **encoder):
    """A preset like small, of which a step takes milliseconds."""
    model = preset("small", domains).model
    settings = {"layers": 1, "channels": 12, "filters": 12, "filter_taps": 256, "latent": 8}
    return Preset(
        replace(
            model,
            encoder=replace(model.encoder, **(settings | encoder)),
            decoder=replace(model.decoder, layers=2, channels=8, skip_channels=8),
            classifier=ClassifierConfig(channels=8),
        ),
        recipe,
    )


def started(corpus, chosen, steps=None):
    model = translator.build(chosen.model)
    return training.Training(model, Corpus(corpus), chosen.training, steps)


def changed(now, count=1):
    """Do some steps, and name the parts that they have changed."""
    before = {name: [p.clone() for p in state.parameters(now.model, name)] for name in PARTS}
    report = [now.advance() for _ in range(count)][-1]
    pairs = {n: zip(old, state.parameters(now.model, n), strict=True) for n, old in before.items()}
    moved = {name for name, both in pairs.items() if any(not torch.equal(*pair) for pair in both)}
    return report["stage"], moved


def test_each_stage_trains_its_parts(corpus):
    now = started(corpus, tiny())
    now.begin()
    assert changed(now) == ("first", {"flute.frames"})
    assert changed(now) == ("first", {"drum.frames"})
    assert changed(now) == ("game", {"encoder", "classifier"} | FRAMES)
    latent, now.carried = now.carried, {}
    with pytest.raises(TrainingError, match="has not the latent"):
        now.advance()
    now.carried = latent
    assert changed(now, 2)[0] == "game"
    assert changed(now, 2) == ("again", FRAMES)
    assert changed(now, 3) == ("shared", {"flute.wavenet"})
    wavenets_ = [state.parameters(now.average, f"{name}.wavenet") for name in DOMAINS]
    now.unshare()
    for mine, shared in zip(*wavenets_, strict=True):
        assert torch.equal(mine, shared)
    flute, drum = (now.optimizers[f"{name}.wavenet"].state_dict() for name in DOMAINS)
    assert drum["state"][0]["step"] == flute["state"][0]["step"] == 3
    assert changed(now, 4) == ("own", WAVENETS)
    assert now.step == now.steps == STEPS
    with pytest.raises(TrainingError, match="over after 14 steps"):
        now.advance()


def test_without_a_shared_stage_each_goes_on_with_its_own_wavenet(corpus, monkeypatch):
    now = started(corpus, tiny(recipe=replace(SHORT, first=0, game=0, again=0, shared=0)))
    settled, before = [], weights(now.model.decoders["flute"])
    monkeypatch.setattr(painting, "settle", settled.append)
    assert changed(now) == ("own", {"flute.wavenet"})
    assert changed(now, 3) == ("own", WAVENETS) and settled == [now]
    drum, old = (weights(one.model.decoders["drum"]) for one in (now, started(corpus, tiny())))
    # It would be a copy of the flute's.
    assert (drum - old).abs().mean() < (drum - before).abs().mean() / 2


@contextmanager
def stopped_at(step):
    """A run is told to stop, as by a scheduler, in the middle of a step."""
    advance = training.Training.advance

    def stopping(self):
        if self.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "advance", stopping)
        yield


def run(corpus, out, chosen, **options):
    folder = runs.train(corpus, out, chosen, pace=PACE, workers=0, **options)
    return folder, weights(checkpoint.load(folder))


def test_interrupted_in_every_stage_it_ends_in_the_same_weights(corpus, tmp_path):
    chosen = tiny()
    _, whole = run(corpus, tmp_path / "whole", chosen)
    for step in (1, 3, 4, 6, 9, 12, STEPS):
        with stopped_at(step):
            folder, parts = run(corpus, tmp_path / "parts", chosen, resume=True)
        assert int(folder.name[5:]) == step
    assert torch.equal(whole, parts)
    log = (tmp_path / "whole" / runs.LOG).read_text().splitlines()
    assert '"stage": "game"' in log[2] and '"steps": 14' in log[2]
    assert "nats_wrong_latent" in log[-1]  # a model whose WaveNets are trained is measured


@pytest.mark.parametrize("domains, pool", [(DOMAINS[:1], 400), (DOMAINS, 800)])
def test_any_number_of_domains_and_any_pool(corpus, domains, pool):
    now = started(corpus, tiny(domains, pool=pool))
    now.begin()
    while now.step < now.steps:
        assert not now.advance()["bad"]
    assert weights(now.average).isfinite().all()


def test_steps_that_are_not_finite_change_nothing(corpus, monkeypatch):
    now = started(corpus, tiny())
    now.begin()
    monkeypatch.setattr(painting, "WEIGHTS", torch.tensor(math.nan))
    before = weights(now.model), weights(now.average)
    assert now.advance()["bad"]
    assert all(map(torch.equal, before, (weights(now.model), weights(now.average))))


def test_one_more_domain_gets_a_frame_model_and_a_wavenet_and_the_rest_stays(corpus, tmp_path):
    base = translator.build(tiny(("flute", "other")).model)
    grown = translator.with_domain(base, "drum")
    chosen = Preset(grown.config, replace(SHORT, only="drum"))
    folder, _ = run(corpus, tmp_path / "run", chosen, initial=grown)
    assert folder.name == "step-00000002"  # one of the frame model, and a third of 4
    found, kept = checkpoint.load(folder).state_dict(), grown.state_dict()
    moved = {name for name, value in found.items() if not torch.equal(value, kept[name])}
    assert moved and all(name.startswith("decoders.drum.") for name in moved)
    assert any(".guide.frames." in name for name in moved)
    assert any(".layers." in name for name in moved)


@pytest.mark.parametrize("steps", [1, 123, 27_500])
@pytest.mark.parametrize("only, domains", [("", 1), ("", 6), ("new", 7)])
def test_a_number_of_steps_scales_every_stage(steps, only, domains):
    recipe = Recipe(only=only)
    scaled = recipe.lasting(steps, domains)
    before, after = (one.lengths(domains) for one in (recipe, scaled))
    assert sum(after.values()) == steps and after["own"] >= 1
    for stage, length in after.items():
        expected = before[stage] * steps / sum(before.values())
        assert abs(length - expected) <= len(after) * domains, stage
    assert 30 <= scaled.segments <= recipe.segments


@pytest.mark.parametrize("encoder, decoder, team, words", [
    ({"front_end": "waveform"}, {}, Team(), "'filterbank', not 'waveform'"),
    ({}, {"guide": "latent"}, Team(), "guide 'frames', not 'latent'"),
    ({}, {}, Team(0, 2), "one process on the CPU, not 2 on cpu"),
])  # fmt: skip
def test_what_it_cannot_do_is_refused_in_one_line(corpus, encoder, decoder, team, words):
    model = tiny(**encoder).model
    model = translator.build(replace(model, decoder=replace(model.decoder, **decoder)))
    with pytest.raises(TrainingError, match=words):
        training.Training(model, Corpus(corpus), SHORT, team=team)


def test_another_recipe_is_named_and_refused(corpus, tmp_path):
    chosen = tiny()
    with stopped_at(1):
        run(corpus, tmp_path / "run", chosen)
    for other, steps, words in [
        (replace(SHORT, own=5), None, "own is 4, and not 5"), (SHORT, 13, "first is 1, and not 0"),
    ]:  # fmt: skip
        with pytest.raises(TrainingError, match=f"another configuration.*{words}"):
            other = replace(chosen, training=other)
            runs.train(corpus, tmp_path / "run", other, steps, resume=True)
    with pytest.raises(TrainingError, match="cannot teach the guide 'frames'"):
        other = replace(chosen, training=preset("tiny").training)
        runs.train(corpus, tmp_path / "run", other, 20, resume=True)


# --- what it is made of ---------------------------------------------------------------------------


def test_confusion_pays_for_ignorance_and_not_for_error():
    unsure, wrong = torch.zeros(1, 4), torch.tensor([[9.0, 0, 0, 0]])
    assert game.confusion(unsure).item() == pytest.approx(math.log(4))
    assert game.confusion(wrong) > game.confusion(unsure)


def test_events_are_told_unreliably():
    rng, true = np.random.default_rng(0), torch.zeros(200, 64, 20).bool()
    true[:, ::8] = True
    told = [painting.unreliable(row, rng) for row in true.split(1)]
    kept = (torch.cat(told) & true).sum() / true.sum()
    assert kept.item() == pytest.approx((1 - painting.SHIFTED) * (1 - painting.DROPPED), abs=0.1)


def test_a_wavenets_past_is_noisy_or_silent():
    rng, codes = np.random.default_rng(0), torch.full((1, 500), 200)
    found = [wavenets.corrupted(codes, rng) for _ in range(400)]
    silent = [(one == mulaw.SILENCE).any().item() for one in found]
    assert np.mean(silent) == pytest.approx(wavenets.SILENT, abs=0.03)
    spread = {round((one - codes).float().std().item()) for one in found if one.min() > 150}
    assert spread == {0, 1, 2, 4}


def test_what_is_heard_is_another_each_time_in_a_room_that_fades_and_with_a_bounded_gain():
    tone = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(8_000) / 16_000)[None]
    first, second, again = (hearing.heard(tone, np.random.default_rng(s)) for s in (0, 1, 0))
    assert first.shape == tone.shape and torch.equal(first, again)
    assert not torch.equal(first, second)
    rng, click = np.random.default_rng(0), np.zeros(16_000, np.float32)
    click[0] = 1
    echo = np.square(hearing.in_room(click, rng))
    assert echo.sum() == pytest.approx(1, rel=0.2) and echo[:1_600].sum() > echo[8_000:].sum()
    gain = 20 * np.log10(hearing.wandering_gain(160_000, rng))
    assert hearing.SOFTEST - 0.1 <= gain.min() < gain.max() <= hearing.LOUDEST + 0.1


def test_pitch_spectrogram_hears_notes_and_not_the_envelope():
    time_ = np.arange(16_000) / 16_000
    for semitone in (15, 36, 60):
        tone = torch.from_numpy(0.5 * np.sin(2 * np.pi * 55 * 2 ** (semitone / 12) * time_))
        frames = regression.pitch_spectrogram(mulaw.encode(tone.float())[None], 800)
        assert frames.shape == (1, regression.PITCHES, 20)
        assert frames[0, : regression.SEMITONES, 10].argmax().item() == semitone
    tone = sum(np.sin(2 * np.pi * 220 * k * time_) / k for k in range(1, 12)).astype(np.float32)
    filtered = hearing.equalise(0.2 * tone, np.random.default_rng(0))
    plain, other, higher = (
        regression.pitch_spectrogram(mulaw.encode(torch.from_numpy(x))[None], 800)[0, :-1, 10]
        for x in (0.2 * tone, filtered, np.interp(time_ * 2**0.5, time_, 0.2 * tone).astype("f4"))
    )
    assert (plain - other).norm() < 0.5 * (plain - higher).norm()


def test_regression_lets_the_latent_tell_the_pitches():
    rng, time_ = np.random.default_rng(0), np.arange(8_000) / 16_000
    tones = [0.3 * np.sin(2 * np.pi * 2 ** rng.uniform(7, 10) * time_) for _ in range(40)]
    codes = mulaw.encode(torch.from_numpy(np.stack(tones).astype("f4")))
    sizes = {"channels": 48, "filters": 48, "filter_taps": 1_024, "latent": 32}
    encoder = translator.build(tiny(**sizes).model).encoder
    read = regression.fit(encoder, encoder.front_end.energies(codes), codes)
    with torch.no_grad():
        latent = encoder(codes).transpose(1, 2).flatten(0, 1).double()
    pitches = regression.pitch_spectrogram(codes, 800).transpose(1, 2).flatten(0, 1).double()
    told, true = (latent - latent.mean(0)) @ read, pitches - pitches.mean(0)
    assert F.mse_loss(told, true) < 0.3 * true.square().mean()


# --- attacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("smear", [1, 5, 12])
def test_attacks_are_emphasised_until_they_are_nearly_as_sharp_as_the_own(smear):
    """What is painted is the own music, its levels averaged over some fine frames of 12.5 ms."""
    hop, rng = 200, np.random.default_rng(0)
    tones = 1e-3 * rng.standard_normal((4, 128 * hop)).astype(np.float32)
    for start in range(20 * hop, 128 * hop, 30 * hop):
        tones[:, start : start + 15 * hop] *= 100
    own = log_spectrum(torch.from_numpy(tones), hop)
    course = F.pad(own.transpose(1, 2), (smear - 1, 0), mode="replicate")
    painted = F.avg_pool1d(course, smear, 1).transpose(1, 2)
    found, moves = painting.emphasis(own, painted), above_past(painted)[0]
    reached = [painting.attack(painted + e * moves) for e in (found, found - 0.05)]
    wanted = painting.SHARP * painting.attack(own)
    assert found == 0 if smear == 1 else 0 < found <= max(painting.EMPHASES)
    assert found == 0.8 or reached[0] >= wanted
    assert found == 0 or reached[1] < wanted


def test_a_factor_is_settled_for_each_domain(corpus, monkeypatch):
    now, factors = started(corpus, tiny()), iter([0.25, 0.5])
    monkeypatch.setattr(painting, "emphasis", lambda own, painted: next(factors))
    painting.settle(now)
    for model in (now.model, now.average):
        assert [model.decoders[name].guide.emphasis.item() for name in DOMAINS] == [0.25, 0.5]
