"""Each frame nearer to the spectrum that its latent calls for; all of it as loud as the input."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

import umtlib
from umtlib import audio, config, mulaw, prediction, translation
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation import report
from umtlib.generation import postfilter
from umtlib.generation.chunks import frame_levels
from umtlib.generation.postfilter import FADE, MOST, STRENGTH, Level, Postfilter, minimum_phase
from umtlib.prediction import BINS, SPAN
from umtlib.translator import build

TO = "bach_organ"
WHISTLE = Path(__file__).parents[1] / "data" / "examples" / "whistle.wav"


@pytest.fixture(scope="module")
def model():
    return umtlib.load()


@pytest.fixture
def pool(model):
    return model.config.encoder.pool


def spectra(waveform, pool):
    """Log power of every frame, (F, BINS): Hann window, centred, with silence behind the frame."""
    around = (SPAN - pool) // 2
    padded = np.pad(waveform.double().numpy(), (around, 0))
    window = scipy.signal.get_window("hann", SPAN)
    rows = [
        np.fft.rfft(window * np.pad(padded[i : i + around + pool], (0, SPAN - around - pool)))
        for i in range(0, len(waveform), pool)
    ]
    return np.log(np.abs(rows) ** 2 / np.sum(window**2) + prediction.POWER_FLOOR)


@pytest.fixture
def output(model, pool, monkeypatch):
    """Make a filter of codes whose frames shall be so many decibels louder, (F,) or (F, BINS), the
    codes, and their latent."""

    def make(decibels, waveform):
        codes = mulaw.encode(waveform)
        decibels = torch.as_tensor(decibels, dtype=torch.float64).view(len(codes) // pool, -1)
        called = torch.from_numpy(spectra(mulaw.decode(codes), pool))
        called = called + math.log(10) / 10 * decibels
        latent = torch.arange(len(called), dtype=torch.float32)[None, None]
        envelope = model.decoders[TO].envelope
        monkeypatch.setattr(envelope, "exactly", lambda z: called[z[0, 0].long()][None])
        return Postfilter(model, TO), codes, latent

    return make


def tone(samples, amplitude=0.1, frequency=440):
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(samples) / 16_000)


def noise(samples, amplitude=0.1):
    return amplitude * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def loudness(waveform, pool):
    """Decibels of the second half of every frame, where nothing fades."""
    return 20 * waveform.unflatten(0, (-1, pool))[:, pool // 2 :].std(dim=1).log10()


def test_a_frame_goes_most_of_the_way_to_the_level_that_is_called_for(output, pool):
    wanted = [0.0, 6.0, -6.0, 3.0, 40.0, -40.0]
    filtered, codes, latent = output(wanted, tone(len(wanted) * pool))
    change = loudness(filtered(codes, latent), pool) - loudness(mulaw.decode(codes), pool)
    expected = np.clip(STRENGTH * np.array(wanted), -MOST, MOST)
    assert change.numpy() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("kind", "most"), [(tone, -4), (noise, -25)])
def test_what_is_as_called_for_stays_as_it_is(model, pool, monkeypatch, kind, most):
    """Called for by the spectrum that envelopes learn, of which no sample is taken for silence."""
    codes = mulaw.encode(kind(50 * pool))
    called = prediction.log_spectrum(codes[None], pool)
    monkeypatch.setattr(model.decoders[TO].envelope, "exactly", lambda z: called.double())
    made = Postfilter(model, TO)(codes, torch.zeros(1, 1, 50))[pool:-pool]
    plain = mulaw.decode(codes)[pool:-pool]
    assert abs(20 * math.log10(made.std() / plain.std())) < 0.4
    assert 20 * math.log10((made - plain).std() / plain.std()) < most


def test_short_frames_stay_as_they_are():
    small = config.preset("small").model
    short = replace(small, encoder=replace(small.encoder, pool=400))
    codes, model = torch.randint(256, (1_200,)), build(short)
    made = Postfilter(model, TO)(codes, torch.zeros(1, small.encoder.latent, 3))
    assert torch.equal(made, mulaw.decode(codes))


def test_each_frequency_has_its_own_gain(output, pool):
    wanted = 12 * torch.sigmoid((torch.arange(BINS) - BINS / 2) / 4)  # from the middle on
    filtered, codes, latent = output(wanted.expand(40, -1), noise(40 * pool))
    made, plain = (spectra(x, pool) for x in (filtered(codes, latent), mulaw.decode(codes)))
    change = 10 / math.log(10) * (made - plain)[1:].mean(axis=0)
    assert change[: BINS // 2 - 30].mean() == pytest.approx(0, abs=0.3)
    assert change[BINS // 2 + 30 :].mean() == pytest.approx(STRENGTH * 12, abs=0.3)


def test_between_frames_the_gain_fades(output, pool):
    filtered, codes, latent = output([0.0, 10.0], tone(2 * pool))
    gain = (filtered(codes, latent) / mulaw.decode(codes))[pool:]
    sounding = mulaw.decode(codes)[pool:].abs() > 0.03
    ramp = (torch.arange(1, pool + 1) / FADE).clamp(max=1)
    expected = 1 + ramp * (10 ** (STRENGTH / 2) - 1)
    assert gain[sounding].numpy() == pytest.approx(expected[sounding].numpy(), rel=1e-3)


def test_in_a_short_frame_it_fades_sooner(output, pool, monkeypatch):
    monkeypatch.setattr(postfilter, "FADE", 3 * pool)
    filtered, codes, latent = output([0.0, 6.0, 0.0], tone(3 * pool))
    gain = filtered(codes, latent) / mulaw.decode(codes)
    last = max(i for i in range(pool, 2 * pool) if mulaw.decode(codes)[i].abs() > 0.05)
    assert gain[last].item() == pytest.approx(10 ** (STRENGTH * 6 / 20), rel=0.02)


def test_a_filter_rings_on_into_later_frames(output, pool, monkeypatch):
    """With one filter throughout, the frames are one convolution."""
    rings = torch.randn(SPAN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rings = rings * torch.linspace(1, 0, SPAN).square() / 20
    monkeypatch.setattr(postfilter, "minimum_phase", lambda gain: rings.expand(len(gain), -1))
    filtered, codes, latent = output([0.0] * 5, noise(5 * pool))
    expected = np.convolve(mulaw.decode(codes).double().numpy(), rings.numpy())[: 5 * pool]
    assert filtered(codes, latent).numpy() == pytest.approx(expected, abs=1e-6)


def test_filters_are_causal_and_minimum_phase():
    """1 / (1 - z^-1 / 2) answers with 1, 1/2, 1/4, ...; at the latest, it would rise."""
    z = np.exp(2j * np.pi * np.arange(BINS) / SPAN)
    gain = torch.from_numpy(20 * np.log10(np.abs(1 / (1 - 0.5 / z))))
    response = minimum_phase(gain)
    assert response.shape == (SPAN,)
    assert response[:12].numpy() == pytest.approx(0.5 ** np.arange(12), abs=2e-4)
    assert response[12:].abs().max() < 1e-3


def test_the_gain_has_no_finer_detail_than_partials():
    bins = torch.arange(BINS, dtype=torch.float64)
    for period, kept in ((100, 0.75), (290, 0.01), (400, 0.0)):  # samples of cepstrum
        ripple = minimum_phase(3 * torch.cos(2 * math.pi * bins * period / SPAN))
        gain = 20 * torch.fft.rfft(ripple).abs().log10()
        assert gain.abs().max() == pytest.approx(3 * kept, abs=0.1)


def test_pieces_are_the_whole(model, output, pool):
    wanted = [5.0, -3.0, 8.0, 1.0, -20.0, 2.0]
    filtered, codes, latent = output(wanted, tone(3 * pool).repeat(2))
    level, levels = Level(filtered.decoder), torch.tensor([0.01, 0.02, 0.0, 0.02, 0.01, 0.01])
    whole = filtered(codes, latent)
    louder = level(whole, levels)
    filtered, level = Postfilter(model, TO), Level(filtered.decoder)
    parts = [
        filtered(codes[a * pool : b * pool], latent[:, :, a:b])
        for a, b in ((0, 1), (1, 3), (3, 3), (3, 4), (4, 6))
    ]
    assert torch.cat(parts).numpy() == pytest.approx(whole.numpy(), abs=1e-7)
    ends = np.cumsum([len(part) // pool for part in parts])[:-1].tolist()
    parts = [level(*both) for both in zip(parts, levels.tensor_split(ends), strict=True)]
    assert torch.cat(parts).numpy() == pytest.approx(louder.numpy(), abs=1e-7)


@pytest.mark.parametrize("amplitude", [0.03, 0.4])
def test_in_the_long_run_the_output_is_as_loud_as_the_input(model, pool, amplitude):
    waveform = tone(200 * pool, amplitude)
    made = Level(model.decoders[TO])(waveform, torch.full((200,), audio.LEVEL**2))
    levels = loudness(made, pool)
    assert levels[-1].item() == pytest.approx(-20, abs=0.7)
    assert levels[20].item() == pytest.approx(-20, abs=4)
    assert levels.diff().abs().max() < abs(loudness(waveform, pool)[0] + 20) / 4


def test_a_decay_is_left_alone(model, pool):
    shape = torch.cat([torch.ones(20), torch.full((60,), 0.01)]).repeat_interleave(pool)
    waveform = tone(80 * pool, 0.14) * shape
    made = Level(model.decoders[TO])(waveform, frame_levels(waveform, pool))
    assert (loudness(made, pool) - loudness(waveform, pool)).abs().max() < 0.1


def test_a_long_pause_is_not_filled_with_noise(model, pool):
    """A room is heard for a minute where next to nothing is made: that is not made as loud."""
    waveform = noise(1_200 * pool, 0.001)
    made = Level(model.decoders[TO])(waveform, torch.full((1_200,), 10**-4.5))
    assert (loudness(made, pool) - loudness(waveform, pool)).max() < 9


def test_what_is_too_loud_for_a_file_is_clipped(output, pool):
    filtered, codes, latent = output([20.0, 20.0], tone(2 * pool, amplitude=0.9))
    made = Level(filtered.decoder)(filtered(codes, latent), None)
    assert made.abs().max() == 1.0 and made.dtype == torch.float32


def test_what_is_too_loud_for_a_moment_is_not_clipped_first(output, pool):
    filtered, codes, latent = output([20.0] * 20, tone(20 * pool, amplitude=0.5))
    made = Level(filtered.decoder)(filtered(codes, latent), torch.full((20,), audio.LEVEL**2))
    crest = made[-pool:].abs().max() / made[-pool:].std()
    assert crest.item() == pytest.approx(math.sqrt(2), rel=0.02)


def test_silence_stays_silence(output, pool):
    filtered, codes, latent = output([0.0] * 2, torch.zeros(2 * pool))
    made = filtered(codes, latent)
    assert Level(filtered.decoder)(made, torch.zeros(2)).abs().max() < 1e-3


def test_without_a_prediction_nothing_is_known_and_nothing_done():
    tiny = build(config.preset("tiny").model)
    codes = torch.randint(256, (2 * tiny.config.encoder.pool,))
    latent = torch.zeros(1, tiny.config.encoder.latent, 2)
    made = Level(tiny.decoders[TO])(Postfilter(tiny, TO)(codes, latent), torch.ones(2))
    assert torch.equal(made, tiny.to_waveform(codes))


def test_a_stream_is_filtered_as_the_whole(model):
    """What becomes of a frame depends on the frames before it: also across blocks."""
    waveform = audio.level(umtlib.read(WHISTLE)[:12_345])
    whole = umtlib.translate(model, waveform, 16_000, to=TO, seed=3)
    blocks = np.array_split(waveform, 7)
    rng = torch.Generator().manual_seed(3)
    streamed = torch.cat(list(umtlib.stream(model, blocks, to=TO, generator=rng)))
    assert streamed.shape == whole.shape
    difference = np.abs(streamed.numpy() - whole)
    assert np.mean(difference < 1e-3) > 0.9  # rounding may draw another code, late


def test_many_excerpts_at_once_are_each_filtered_as_alone(model):
    pairs = read_pairs(WHISTLE.parents[1] / "mini")
    some = [pairs[0], pairs[-1]]
    for (name, _), made in report.translate_pairs(model, some, [TO]).items():
        heard = next(pair for pair in some if pair.id == name).audio() / np.float32(32_768)
        alone = umtlib.translate(model, heard, 16_000, to=TO)
        assert made[:8_000] == pytest.approx(alone[:8_000], abs=1e-5)


@pytest.mark.parametrize("chunked", [False, True])
def test_every_way_to_translate_has_it(model, monkeypatch, chunked):
    waveform = umtlib.read(WHISTLE)[:24_000]
    made = umtlib.translate(model, waveform, 16_000, to=TO, seed=3, chunked=chunked)
    monkeypatch.setattr(Level, "__call__", lambda self, waveform, levels: waveform)
    quiet = umtlib.translate(model, waveform, 16_000, to=TO, seed=3, chunked=chunked)
    monkeypatch.setattr(postfilter, "STRENGTH", 0.0)
    plain = umtlib.translate(model, waveform, 16_000, to=TO, seed=3, chunked=chunked)
    heard = np.std(audio.level(waveform))
    assert abs(math.log10(made.std() / heard)) < abs(math.log10(quiet.std() / heard))
    assert np.std(quiet - plain) > 0.1 * np.std(plain)


def test_the_level_goes_on_from_stretch_to_stretch(model, monkeypatch):
    """What is chunked is made as loud like a whole: not each stretch from the beginning."""
    waveform = np.tile(umtlib.read(WHISTLE), 2)[: 10 * 16_000]
    heard, seen = translation.hear(model, [audio.level(waveform)], len(waveform)), []

    class Seen(Level):
        def __call__(self, waveform, levels):
            seen.append((id(self), levels))
            return super().__call__(waveform, levels)

    monkeypatch.setattr(translation, "Level", Seen)
    list(translation.pieces(model, [TO], heard, chunked=True))
    assert len(seen) > 1 and len({one for one, _ in seen}) == 1
    assert torch.equal(torch.cat([levels for _, levels in seen]), heard.levels)
