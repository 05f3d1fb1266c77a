"""The encoder before the decoders, and audio that is filtered from one domain to another."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from conftest import DOMAINS, assert_refused
from torch.nn.utils import parameters_to_vector as weights

from umtlib import (
    checkpoint,
    cli,
    judging,
    losses,
    mulaw,
    prediction,
    pretraining,
    regression,
    runs,
    training,
)
from umtlib.batches import Crops
from umtlib.config import TrainingConfig, preset
from umtlib.conversion import LARGEST, convert
from umtlib.corpora.corpus import Corpus
from umtlib.errors import ConfigError
from umtlib.translator import build


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(regression, "STEPS", 50)
    monkeypatch.setattr(pretraining, "CLASSIFIER_STEPS", 50)


def quick(**changes):
    """The preset ``small``, of which a pretraining takes a second."""
    small = preset("small", DOMAINS)
    encoder = replace(small.model.encoder, layers=2, channels=16, filters=16, filter_taps=512)
    decoder = replace(small.model.decoder, prediction=16, layers=3, channels=8, skip_channels=8)
    model = replace(small.model, encoder=replace(encoder, latent=8, pool=200), decoder=decoder)
    settings = {"crop": 1_600, "pretraining_steps": 12, "pretraining_segments": 24}
    settings |= {"shared_steps": 0, "bf16": False, "augment": False, "cooldown_steps": 0} | changes
    return replace(small, model=model, training=replace(small.training, **settings))


def batches(corpus, config, count=24):
    crops = Crops(Corpus(corpus), DOMAINS, replace(config, crop=4_800, batch=1), "train", count)
    return [crops[step] for step in range(count)]


def pretrained(corpus, **changes):
    chosen = quick(**changes)
    model = build(chosen.model)
    pretraining.pretrain(model, batches(corpus, chosen.training), chosen.training)
    return model, chosen.training


# --- conversion -----------------------------------------------------------------------------------


def tilted(decibels):
    """A translator whose second domain's spectrum is that of the first, and so much more."""
    model = build(quick().model)
    first, second = (model.decoders[name].envelope for name in DOMAINS)
    for envelope in (first, second):
        torch.nn.init.zeros_(envelope.out.weight)
        torch.nn.init.constant_(envelope.out.bias, -4.0)
    second.out.bias.data += torch.as_tensor(decibels) * math.log(10) / 10
    return model


def test_conversion_is_the_ratio_of_two_spectra():
    tilt = torch.linspace(-12.0, 12.0, prediction.BINS)
    noise = 0.05 * torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0))
    codes = mulaw.encode(noise)
    heard = convert(tilted(tilt), codes, *DOMAINS)
    before, after = (prediction.log_spectrum(x, 200)[0, 5:-5].mean(0) for x in (codes, heard))
    gained = 10 / math.log(10) * (after - before)
    assert (gained - tilt)[4:].abs().max() < 1.0
    assert heard.shape == codes.shape and heard.dtype == torch.int64


def test_conversion_there_and_back_keeps_the_audio():
    model, codes = tilted(6.0), mulaw.encode(torch.sin(torch.arange(8_000) / 7.0)[None] / 8)
    same = convert(model, codes, DOMAINS[0], DOMAINS[0])
    there = convert(model, codes, *DOMAINS)
    back = convert(model, there, DOMAINS[1], DOMAINS[0])
    wave, louder, returned = (mulaw.decode(x)[0, 600:-600] for x in (codes, there, back))
    assert (same - codes).abs().max() <= 1
    assert louder.std() / wave.std() == pytest.approx(2, rel=0.02)
    assert (returned - wave).abs().max() < 0.05 * wave.abs().max()


def test_conversion_is_bounded():
    codes = mulaw.encode(1e-3 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0)))
    heard = mulaw.decode(convert(tilted(90.0), codes, *DOMAINS))
    assert heard.std() / mulaw.decode(codes).std() == pytest.approx(math.exp(LARGEST), rel=0.05)


# --- the game -------------------------------------------------------------------------------------


def test_confusion_pays_for_ignorance_and_not_for_error():
    ignorant, sure = torch.zeros(1, 4), torch.tensor([[20.0, 0.0, 0.0, 0.0]])
    assert losses.confusion(ignorant).item() == pytest.approx(math.log(4))
    assert losses.confusion(sure) > losses.confusion(sure / 2) > losses.confusion(ignorant)


def test_pretraining_follows_from_the_seed(corpus):
    (first, _), (again, _), (other, _) = (pretrained(corpus, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(weights(first.parameters()), weights(again.parameters()))
    assert not torch.equal(weights(first.encoder.parameters()), weights(other.encoder.parameters()))


def test_an_envelope_tells_the_spectrum_of_its_domain(corpus, monkeypatch):
    """Of other segments, much better than the domain's average spectrum does."""
    monkeypatch.setattr(regression, "STEPS", 400)
    model, config = pretrained(corpus, equalise=0.0)
    for batch in batches(corpus, replace(config, seed=1), 6):
        true = prediction.log_spectrum(batch.target, 200)
        read = model.decoders[batch.domain].envelope(model.encode(batch.heard))
        average = true.mean(dim=(0, 1))
        assert (read - true).square().mean() < 0.7 * (average - true).square().mean()


def test_the_game_hides_the_domain(corpus):
    """A classifier that an encoder plays against is never as sure as one that is left alone."""
    lost = {}
    for weight in (0.0, 20.0):
        config = quick(confusion_weight=weight, pretraining_steps=200).training
        model = build(quick().model)
        own = pretraining._gather(model.encoder, batches(corpus, config))
        game = pretraining._Game(model, config)
        found = [game.step(number, [own])["classifier"] for number in range(200)]
        lost[weight] = sum(found[100:]) / 100
    assert lost[0.0] < 0.1
    assert lost[20.0] > lost[0.0] + 0.3


def test_the_classifier_ends_with_all_that_the_latent_tells(corpus, monkeypatch):
    """These two domains cannot be hidden from it in a few steps."""
    monkeypatch.setattr(pretraining, "CLASSIFIER_STEPS", 400)
    model, config = pretrained(corpus)
    others = batches(corpus, replace(config, seed=1))
    right = [
        model.classifier(model.encode(batch.heard)).argmax().item() == DOMAINS.index(batch.domain)
        for batch in others
    ]
    assert sum(right) >= 20


def test_rounds_after_the_first_hear_conversions(corpus, monkeypatch):
    calls, kinds = [], []

    def spy(model, codes, source, target):
        calls.append((source, target))
        return codes

    step = pretraining._Game.step

    def count(self, number, given):
        kinds.append(sum(bool(kind) for kind in given))
        return step(self, number, given)

    monkeypatch.setattr(pretraining, "convert", spy)
    monkeypatch.setattr(pretraining._Game, "step", count)
    pretrained(corpus)
    assert kinds == [1] * 3 + [2] * 9  # four rounds of three steps
    assert len(calls) == 24 * 4  # every segment for each of three rounds, and for the last fit
    assert all(source != target for source, target in calls)


def test_the_classifier_is_shown_no_conversions(corpus):
    config = quick().training
    model = build(quick().model)
    own = pretraining._gather(model.encoder, batches(corpus, config))
    shown, classify = [], model.classifier.forward
    model.classifier.forward = lambda latent: shown.append(latent.detach()) or classify(latent)
    for converted in ({}, pretraining.convert_all(model, own, 0)):
        game = pretraining._Game(copy.deepcopy(model), config)
        game.model.classifier.forward = model.classifier.forward
        game.step(0, [own, converted])
    assert len(shown) == 4  # to teach it, and to fool it, with and without conversions
    torch.testing.assert_close(shown[:2], shown[2:])


def test_the_encoder_ends_as_its_average_and_the_classifier_follows(corpus, monkeypatch):
    games, taught = [], []
    fit = pretraining.fit_classifier

    class Noted(pretraining._Game):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            games.append(self)

    def spy(model, *rest):
        taught.append(weights(model.encoder.parameters()).clone())
        torch.nn.init.zeros_(model.classifier.convs[-1].weight)  # what it learnt in the game
        fit(model, *rest)

    monkeypatch.setattr(pretraining, "_Game", Noted)
    monkeypatch.setattr(pretraining, "fit_classifier", spy)
    model, _ = pretrained(corpus)
    last = weights(model.encoder.parameters())
    assert torch.equal(last, weights(games[0].average.parameters()))
    assert len(taught) == 1 and torch.equal(last, taught[0])
    assert model.classifier.convs[-1].weight.any()


def test_a_conversion_keeps_its_original(corpus):
    """With equal spectra nothing is filtered, and each segment's energies stay with its target."""
    model, config = tilted(0.0), quick().training
    own = pretraining._gather(model.encoder, batches(corpus, replace(config, equalise=0.0)))
    converted = pretraining.convert_all(model, own, 0)
    for name in DOMAINS:
        assert torch.equal(converted[name].target, own[name].target)
        inner = slice(12, -12)  # the filter's first and last windows are cut
        before, after = (kind[name].energies[..., inner].float() for kind in (own, converted))
        assert (after - before).abs().mean() < 0.1 * before.std()


def test_an_envelope_is_fitted_to_all_kinds_and_for_its_share_of_steps(corpus, monkeypatch):
    model, config = build(quick().model), quick().training
    own = pretraining._gather(model.encoder, batches(corpus, config))
    fits, fit = [], regression.fit_envelope
    spy = lambda envelope, x, y, *rest: fits.append((len(x), len(y))) or fit(envelope, x, y, *rest)  # noqa: E731
    monkeypatch.setattr(regression, "fit_envelope", spy)
    pretraining.fit_envelopes(model, [own, own], 0, share=0.0)
    frames = sum(len(part.target) for part in own.values()) * 24 // len(DOMAINS)
    assert fits == [(2 * frames, 2 * frames)] * len(DOMAINS)
    assert not model.decoders[DOMAINS[0]].envelope.out.weight.any()  # no step: the average
    pretraining.fit_envelopes(model, [own], 0, share=0.1)
    assert model.decoders[DOMAINS[0]].envelope.out.weight.any()


def test_a_new_domain_is_converted_by_a_spectrum_of_its_own(corpus, monkeypatch):
    model, config = build(quick().model), quick().training
    new = model.decoders[DOMAINS[1]].envelope
    first, seen, filtered = weights(new.parameters()).clone(), [], pretraining.convert

    def spy(*arguments):
        seen.append(weights(new.parameters()).clone())
        return filtered(*arguments)

    monkeypatch.setattr(pretraining, "convert", spy)
    own = [batch for batch in batches(corpus, config) if batch.domain == DOMAINS[1]]
    pretraining.add_domain(model, own, config)
    assert len(seen) == len(own) and not any(torch.equal(first, then) for then in seen)
    assert not torch.equal(weights(new.parameters()), seen[-1])


@pytest.fixture
def finished(monkeypatch):
    """A model as one loads it, frozen; a judge takes three steps."""
    monkeypatch.setattr(judging, "STEPS", 3)
    return build(quick().model, seed=1).requires_grad_(False)


def changed(before, after):
    """Names of the tensors in which two models differ."""
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name for (name, old), new in pairs if not torch.equal(old, new)}


@pytest.mark.parametrize("way", ["fitted", "judged"])
def test_refit_changes_one_envelope_and_nothing_else(corpus, finished, way):
    before = copy.deepcopy(finished)
    pretraining.refit(finished, Corpus(corpus), quick().training, **{way: [DOMAINS[1]]})
    envelope = f"decoders.{DOMAINS[1]}.envelope."
    assert changed(before, finished) == {
        name for name in before.state_dict() if name.startswith(envelope)
    }


def test_a_judge_follows_the_fit_once_and_hears_all_latents(corpus, finished, monkeypatch):
    """Those of the other domains, and the domain's own before and after a conversion."""
    fits, shown, (first, second) = [], [], DOMAINS
    fit = regression.fit_envelope

    def noted(envelope, *rest):
        fit(envelope, *rest)
        fits.append((weights(envelope.parameters()).clone(), rest[2]))

    def judge(envelope, *rest):
        shown.append((weights(envelope.parameters()).clone(), *rest))

    monkeypatch.setattr(regression, "fit_envelope", noted)
    monkeypatch.setattr(judging, "sharpen", judge)
    config = quick(seed=3).training
    audio = [*pretraining.read(Corpus(corpus), finished, DOMAINS, config)]
    own = pretraining._gather(finished.encoder, audio)
    heard = pretraining.convert_all(copy.deepcopy(finished), own, 3)
    plain, converted = (
        {name: part.latent(finished.encoder) for name, part in kind.items()}
        for kind in (own, heard)
    )
    pretraining.refit(finished, Corpus(corpus), config, [second], [second, second])
    ((fitted, fit_seed),) = fits
    ((begun, spectra, latents, foreign, pool, seed),) = shown
    assert torch.equal(begun, fitted) and fit_seed == seed == 3 and pool == 200
    assert torch.equal(spectra, own[second].spectra(200))
    assert [z.tolist() for z in latents] == [plain[second].tolist(), converted[second].tolist()]
    assert [z.tolist() for z in foreign] == [plain[first].tolist()]


def test_refit_follows_from_the_seed(corpus, finished):
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(made))
        made.append(copy.deepcopy(finished))
        config = quick(seed=seed).training
        pretraining.refit(made[-1], Corpus(corpus), config, DOMAINS, DOMAINS[:1])
    assert not changed(made[0], made[1]) and changed(made[0], made[2])


def test_the_command_refits_a_saved_model(umt, corpus, finished, tmp_path, monkeypatch):
    asked, refit = [], pretraining.refit

    def note(model, data, config, *names):
        asked.append((config, *names))
        refit(model, data, replace(config, crop=1_600, augment=False), *names)

    monkeypatch.setattr(pretraining, "refit", note)
    old, new = tmp_path / "old", tmp_path / "new"
    checkpoint.save(finished, old)
    command = ("refit", "--data", corpus, "--model", old, "--out", new, "--seed", 2)
    first, second = DOMAINS
    status, printed, _ = umt(*command, "--segments", 24, "--fit", first, "--judge", second)
    assert status == 0 and str(new) in printed
    expected = replace(preset("small").training, seed=2, pretraining_segments=24)
    assert asked == [(expected, [first], [second])]
    differ = changed(finished, checkpoint.load(new))
    assert {name.split(".envelope.")[0] for name in differ} == {f"decoders.{d}" for d in DOMAINS}
    # What is there already is refused before the work.
    assert umt(*command, "--fit", first)[0] == 2 and len(asked) == 1


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, (), "--fit"),
        ({}, ("--fit", "oboe"), "oboe"),
        ({}, ("--judge", "oboe"), "oboe"),
        ({}, ("--fit", DOMAINS[0], "--segments", 1), "pretraining_segments = 1"),
        ({"prediction": 0}, ("--fit", DOMAINS[0]), "prediction 0"),
        ({"front_end": "waveform"}, ("--fit", DOMAINS[0]), "'waveform'"),
        ({"domains": DOMAINS[:1]}, ("--judge", DOMAINS[0]), "two domains"),
        ({"domains": ("oboe", "bell")}, ("--fit", "bell"), "no 'train' track of domain"),
    ],
)
def test_a_refit_that_cannot_be_is_refused(umt, corpus, tmp_path, changes, options, words):
    model = quick().model
    for part in ("encoder", "decoder"):
        known = {k: v for k, v in changes.items() if hasattr(getattr(model, part), k)}
        model = replace(model, **{part: replace(getattr(model, part), **known)})
    model = replace(model, domains=changes.get("domains", DOMAINS))
    checkpoint.save(build(model), tmp_path / "old")
    out = tmp_path / "out"
    command = ("refit", "--data", corpus, "--model", tmp_path / "old", "--out", out)
    assert_refused(umt(*command, *options), words, out=out)


def test_segments_must_hold_a_spectrum(corpus):
    model, config = build(quick().model), replace(quick().training, crop=341)
    with pytest.raises(ConfigError, match="crop = 341 must be at least 342"):
        next(pretraining.read(Corpus(corpus), model, DOMAINS, config))


def test_a_model_that_has_not_what_it_takes_is_refused():
    chosen = quick()
    waveform = replace(chosen.model.encoder, front_end="waveform")
    narrow = replace(chosen.model.encoder, channels=15)
    deaf = replace(chosen.model, decoder=replace(chosen.model.decoder, prediction=0))
    for encoder in (waveform, narrow):
        with pytest.raises(ConfigError, match="filterbank"):
            replace(chosen, model=replace(chosen.model, encoder=encoder))
    with pytest.raises(ConfigError, match="pretraining_steps needs"):
        replace(chosen, model=deaf)
    with pytest.raises(ConfigError, match="conversion needs"):
        replace(chosen, model=deaf, training=replace(chosen.training, pretraining_steps=0))


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_domain_is_added_to_a_model_with_a_prediction_or_without(corpus, tmp_path, name):
    """By preset small, as the command line does it."""
    model = quick().model if name == "small" else preset("tiny", DOMAINS).model
    old = build(replace(model, domains=("oboe", DOMAINS[0])))
    checkpoint.save(old, tmp_path / "old")
    chosen, initial = cli._with_domain(str(tmp_path / "old"), DOMAINS[1], "small")
    few = replace(chosen.training, crop=1_600, bf16=False, augment=False, pretraining_segments=24)
    chosen = replace(chosen, training=few)
    grown = checkpoint.load(runs.train(corpus, tmp_path / "run", chosen, 2, initial=initial))
    for domain in old.domains:
        before, after = (m.decoders[domain].parameters() for m in (old, grown))
        assert torch.equal(weights(before), weights(after))
    before, after = (m.encoder.parameters() for m in (old, grown))
    assert torch.equal(weights(before), weights(after))
    if name == "small":
        new = grown.decoders[DOMAINS[1]].envelope.parameters()
        assert not torch.equal(weights(new), weights(old.decoders["oboe"].envelope.parameters()))


def test_regression_lets_the_latent_tell_the_pitches(corpus):
    """A linear map reads most of the pitch spectrogram from the latent of the first step."""
    chosen = preset("small", DOMAINS)
    model = build(chosen.model)
    shown = batches(corpus, chosen.training)
    energies = torch.cat([model.encoder.front_end.energies(batch.heard) for batch in shown])
    codes = torch.cat([batch.target for batch in shown])
    pitches = losses.pitch_spectrogram(codes, 800).transpose(1, 2).double()
    offset = pitches.mean(dim=(0, 1))
    read = regression.fit(model.encoder, energies, codes)
    latent = model.encoder.above(energies).detach()
    torch.testing.assert_close(latent, torch.cat([model.encode(b.heard) for b in shown]).detach())
    # The projection has no bias: the latent of an average frame is what must be subtracted.
    left = pitches - offset - latent.transpose(1, 2).double() @ read
    left = left - left.mean(dim=(0, 1))
    assert left.square().mean() / (pitches - offset).square().mean() < 0.35
    assert 0.3 < latent.std(dim=(0, 2)).mean() < 1.1


# --- then the decoders ----------------------------------------------------------------------------


def test_the_encoder_then_stands_still(corpus, tmp_path):
    """Also over an interruption, before and after the first step."""
    chosen = quick()
    whole = checkpoint.load(runs.train(corpus, tmp_path / "whole", chosen, 5))
    first = checkpoint.load(runs.train(corpus, tmp_path / "parts", chosen, 2))
    begun = checkpoint.load(tmp_path / "parts" / checkpoint.STEP.format(0))
    parts = checkpoint.load(runs.train(corpus, tmp_path / "parts", chosen, 5, resume=True))
    assert torch.equal(weights(whole.parameters()), weights(parts.parameters()))
    for part in ("encoder", "classifier"):
        before, after = (getattr(model, part).parameters() for model in (begun, parts))
        assert torch.equal(weights(before), weights(after))
    for domain in DOMAINS:
        old, new = (model.decoders[domain] for model in (first, parts))
        assert torch.equal(weights(old.envelope.parameters()), weights(new.envelope.parameters()))
        assert not torch.equal(weights(old.layers.parameters()), weights(new.layers.parameters()))


def test_a_run_that_was_killed_before_its_first_step_goes_on(corpus, tmp_path, monkeypatch):
    chosen = quick()
    whole = checkpoint.load(runs.train(corpus, tmp_path / "whole", chosen, 3))

    def die(*_):
        raise RuntimeError

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(runs, "train_step", die)
        runs.train(corpus, tmp_path / "parts", chosen, 3)
    monkeypatch.setattr(pretraining, "pretrain", die)  # it is not done again
    parts = checkpoint.load(runs.train(corpus, tmp_path / "parts", chosen, 3, resume=True))
    assert torch.equal(weights(whole.parameters()), weights(parts.parameters()))


def test_an_envelope_is_a_domains_own_also_while_decoders_are_shared(corpus, tmp_path):
    last = checkpoint.load(runs.train(corpus, tmp_path / "a", quick(shared_steps=3), 2))
    begun = checkpoint.load(tmp_path / "a" / checkpoint.STEP.format(0))
    for domain in DOMAINS:
        old, new = (model.decoders[domain].envelope.parameters() for model in (begun, last))
        assert torch.equal(weights(old), weights(new))


def test_a_run_from_given_weights_adopts_them(corpus, tmp_path, monkeypatch):
    model, _ = pretrained(corpus)
    monkeypatch.setattr(pretraining, "pretrain", None)
    runs.train(corpus, tmp_path / "a", quick(), 1, initial=model)
    begun = checkpoint.load(tmp_path / "a" / checkpoint.STEP.format(0))
    assert torch.equal(weights(begun.parameters()), weights(model.parameters()))


def test_every_weight_has_one_optimizer():
    chosen = quick()
    state = training.start(chosen.model, chosen.training)
    groups = [optimizer.param_groups[0]["params"] for optimizer in state.optimizers.values()]
    trained = [id(parameter) for group in groups for parameter in group]
    assert sorted(trained) == sorted(map(id, state.model.parameters()))


def test_without_a_pretraining_envelope_and_encoder_are_trained_with_the_decoders(corpus):
    chosen = quick(pretraining_steps=0, conversion=0.0)
    state = training.start(chosen.model, chosen.training)
    before = [weights(part.parameters()).clone() for part in parts_of(state.model)]
    batch = Crops(Corpus(corpus), DOMAINS, chosen.training, "train", 1)[0]
    assert "envelope" in training.train_step(state, batch, chosen.training, 10)
    after = [weights(part.parameters()) for part in parts_of(state.model)]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def parts_of(model):
    return model.encoder, model.classifier, model.decoders[DOMAINS[0]].envelope


def test_decoders_learn_from_conversions_too(monkeypatch):
    """Of the given share, the same at the same step, each to another domain; the target stays."""
    config, asked = TrainingConfig(conversion=0.5), []

    def spy(model, codes, source, target):
        asked.append((source, target))
        return codes + 1

    monkeypatch.setattr(training, "convert", spy)
    state = training.start(quick().model, config)
    codes = torch.zeros(400, 3, dtype=torch.int64)
    batch = training.Batch(DOMAINS[1], codes, codes, codes)
    heard = training._converted(state, batch, config)
    share = (heard == 1).all(dim=1).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.1) and set(asked) == {(DOMAINS[1], DOMAINS[0])}
    assert torch.equal(heard, training._converted(state, batch, config))
    assert not codes.any()
    state.step += 1
    assert not torch.equal(heard, training._converted(state, batch, config))
    encode, heard_by = state.model.encode, []
    state.model.encode = lambda given: heard_by.append(given) or encode(given)
    frames = torch.zeros(2, 400, dtype=torch.int64)
    always = replace(config, conversion=1.0)
    training.train_step(state, training.Batch(DOMAINS[0], frames, frames, frames), always, 10)
    assert torch.equal(heard_by[0], frames + 1)
    never = replace(config, conversion=0.0)
    assert training._converted(state, batch, never) is codes
