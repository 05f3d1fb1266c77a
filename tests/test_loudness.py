"""Each frame of an output as loud as its latent calls for."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import umtlib
from umtlib import audio, config, mulaw, prediction
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation import report
from umtlib.generation import loudness
from umtlib.generation.loudness import FADE, FLOOR, MOST, Loudness
from umtlib.translator import build

TO = "bach_organ"
WHISTLE = Path(__file__).parents[1] / "data" / "examples" / "whistle.wav"


@pytest.fixture(scope="module")
def model():
    return umtlib.load()


@pytest.fixture
def output(model, monkeypatch):
    """Make the object that hears of frames of a known level, and the codes of a tone.

    Levels are in decibels above those of the tone.
    """

    def make(*decibels, amplitude=0.1):
        pool = model.config.encoder.pool
        time = torch.arange(len(decibels) * pool) / 16_000
        codes = mulaw.encode(amplitude * torch.sin(2 * math.pi * 440 * time))
        made = mulaw.decode(codes).double().unflatten(0, (-1, pool)).square().mean(dim=1)
        power = made * 10 ** (torch.tensor(decibels) / 10)
        spectra = power.log()[None, :, None].expand(1, len(decibels), prediction.BINS)
        latent = torch.arange(len(decibels), dtype=torch.float32)[None, None]
        envelope = model.decoders[TO].envelope
        monkeypatch.setattr(envelope, "exactly", lambda z: spectra[:, z[0, 0].long()])
        return Loudness(model, TO), codes, latent

    return make


def level(waveform, pool):
    """Decibels of the second half of every frame, where no gain fades."""
    return 20 * waveform.unflatten(0, (-1, pool))[:, pool // 2 :].std(dim=1).log10()


def test_a_frame_becomes_as_loud_as_it_shall_be(model, output):
    wanted = [0.0, 6.0, -6.0, 3.0, 30.0, -30.0]
    loud, codes, latent = output(*wanted)
    pool = model.config.encoder.pool
    change = level(loud(codes, latent), pool) - level(mulaw.decode(codes), pool)
    assert change.numpy() == pytest.approx(np.clip(wanted, -MOST, MOST), abs=0.02)


def test_between_frames_the_gain_fades(model, output):
    loud, codes, latent = output(0.0, 10.0)
    pool = model.config.encoder.pool
    gain = (loud(codes, latent) / mulaw.decode(codes))[pool:]
    sounding = mulaw.decode(codes)[pool:].abs() > 0.01
    expected = 10 ** ((torch.arange(1, pool + 1) / FADE).clamp(max=1) / 2)
    assert gain[sounding].numpy() == pytest.approx(expected[sounding].numpy(), rel=1e-3)


def test_in_a_short_frame_it_fades_sooner(model, output, monkeypatch):
    pool = model.config.encoder.pool
    monkeypatch.setattr(loudness, "FADE", 3 * pool)
    loud, codes, latent = output(0.0, 6.0, 0.0)
    gain = loud(codes, latent) / mulaw.decode(codes)
    last = max(i for i in range(pool, 2 * pool) if mulaw.decode(codes)[i].abs() > 0.05)
    assert gain[last].item() == pytest.approx(10 ** (6 / 20), rel=0.02)


def test_pieces_are_the_whole(model, output):
    loud, codes, latent = output(5.0, -3.0, 8.0, 1.0)
    whole, pool = loud(codes, latent), model.config.encoder.pool
    loud, *_ = output(5.0, -3.0, 8.0, 1.0)
    parts = [
        loud(codes[first * pool : last * pool], latent[:, :, first:last])
        for first, last in ((0, 1), (1, 3), (3, 3), (3, 4))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_what_is_too_loud_for_a_file_is_clipped(output):
    loud, codes, latent = output(10.0, 10.0, amplitude=0.9)
    made = loud(codes, latent)
    assert made.abs().max() == 1.0 and made.dtype == torch.float32


def test_silence_stays_silence(model, output):
    loud, codes, latent = output(0.0, amplitude=0.0)
    assert loud(codes, latent).abs().max() < math.sqrt(FLOOR)


def test_without_a_prediction_nothing_is_known_and_nothing_done():
    tiny = build(config.preset("tiny").model)
    codes = torch.randint(256, (2 * tiny.config.encoder.pool,))
    latent = torch.zeros(1, tiny.config.encoder.latent, 2)
    assert torch.equal(Loudness(tiny, TO)(codes, latent), tiny.to_waveform(codes))


def test_a_stream_is_as_loud_as_the_whole(model):
    """The gain of a frame depends on the frames before it: also across blocks."""
    waveform = audio.level(umtlib.read(WHISTLE)[:12_345])
    whole = umtlib.translate(model, waveform, 16_000, to=TO, seed=3)
    blocks = np.array_split(waveform, 7)
    rng = torch.Generator().manual_seed(3)
    streamed = torch.cat(list(umtlib.stream(model, blocks, to=TO, generator=rng)))
    assert streamed.shape == whole.shape
    difference = np.abs(streamed.numpy() - whole)
    assert np.mean(difference < 1e-3) > 0.9  # rounding may draw another code, late


def test_many_excerpts_at_once_are_each_as_loud_as_alone(model):
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
    monkeypatch.setattr(loudness, "MOST", 0.0)
    plain = umtlib.translate(model, waveform, 16_000, to=TO, seed=3, chunked=chunked)
    frames = [
        torch.from_numpy(x).unflatten(0, (-1, model.config.encoder.pool)) for x in (made, plain)
    ]
    gain = 20 * (frames[0].std(dim=1) / frames[1].std(dim=1)).log10()
    assert gain.abs().max() > 3 and gain.max() < MOST + 0.5
