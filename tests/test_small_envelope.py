"""Each frame nearer to the spectrum that its latent calls for; all of it as loud as the input."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.signal
import torch

import umtlib
from umtlib import audio, checkpoint, mulaw
from umtlib.errors import CheckpointError
from umtlib.generation.chunks import frame_levels
from umtlib.guide import Told
from umtlib.small import envelope
from umtlib.small.envelope import FADE, MOST, STRENGTH, EnvelopeGuide, minimum_phase
from umtlib.small.spectra import BINS, POWER_FLOOR, SPAN, log_spectrum

POOL = 800
DECIBELS = 10 / math.log(10)


def tone(frames, amplitude=0.1, frequency=440):
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(frames * POOL) / 16_000)


def noise(frames, amplitude=0.1):
    generator = torch.Generator().manual_seed(0)
    return amplitude * torch.randn(frames * POOL, generator=generator)


def spectra(waveform, pool=POOL):
    """Log power of every frame, (F, BINS): Hann window, centred, with silence behind the frame."""
    around = (SPAN - pool) // 2
    padded = np.pad(waveform.double().numpy(), (around, 0))
    window = scipy.signal.get_window("hann", SPAN)
    rows = [
        np.fft.rfft(window * np.pad(padded[i : i + around + pool], (0, SPAN - around - pool)))
        for i in range(0, len(waveform), pool)
    ]
    return torch.from_numpy(np.log(np.abs(rows) ** 2 / np.sum(window**2) + POWER_FLOOR))


def told(waveform, decibels=0.0, levels=None):
    """Frames that shall be so many decibels, (F,) or (F, BINS), louder than the waveform's are."""
    called = spectra(waveform)
    aim = called + torch.as_tensor(decibels, dtype=torch.float64).view(-1, 1) / DECIBELS
    if levels is not None:
        aim = torch.cat([aim, levels.double()[:, None]], dim=1)
    return Told(torch.zeros(1, 1, len(aim)), None, aim[None])


def finished(waveform, decibels=0.0, levels=None):
    return EnvelopeGuide(1, POOL).finish(waveform[None], told(waveform, decibels, levels))[0]


def levelled(waveform, levels):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(envelope, "STRENGTH", 0.0)
        return finished(waveform, levels=levels)


def loudness(waveform):
    """Decibels of the second half of every frame, where nothing fades."""
    return 20 * waveform.unflatten(0, (-1, POOL))[:, POOL // 2 :].std(dim=1).log10()


def test_a_frame_goes_most_of_the_way_to_the_level_that_is_called_for():
    wanted, waveform = [0.0, 6.0, -6.0, 3.0, 40.0, -40.0], tone(6)
    change = loudness(finished(waveform, wanted)) - loudness(waveform)
    expected = np.clip(STRENGTH * np.array(wanted), -MOST, MOST)
    assert change.numpy() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("kind", "most"), [(tone, -4), (noise, -25)])
def test_what_is_as_called_for_stays_as_it_is(kind, most):
    """Called for by the spectrum that envelopes learn, of which no sample is taken for silence."""
    waveform = kind(50)
    aim = Told(torch.zeros(1, 1, 50), None, log_spectrum(waveform[None], POOL).double())
    made = EnvelopeGuide(1, POOL).finish(waveform[None], aim)[0, POOL:-POOL]
    plain = waveform[POOL:-POOL]
    assert abs(20 * math.log10(made.std() / plain.std())) < 0.4
    assert 20 * math.log10((made - plain).std() / plain.std()) < most


def test_short_frames_stay_as_they_are():
    waveform = noise(2)
    aim = Told(torch.zeros(1, 1, 4), None, torch.ones(1, 4, BINS, dtype=torch.float64))
    assert torch.equal(EnvelopeGuide(1, POOL // 2).finish(waveform[None], aim)[0], waveform)


def test_each_frequency_has_its_own_gain():
    wanted = 12 * torch.sigmoid((torch.arange(BINS) - BINS / 2) / 4)  # from the middle on
    waveform = noise(40)
    aim = Told(torch.zeros(1, 1, 40), None, (spectra(waveform) + wanted / DECIBELS)[None])
    made = EnvelopeGuide(1, POOL).finish(waveform[None], aim)[0]
    change = DECIBELS * (spectra(made) - spectra(waveform))[1:].mean(dim=0)
    assert change[: BINS // 2 - 30].mean() == pytest.approx(0, abs=0.3)
    assert change[BINS // 2 + 30 :].mean() == pytest.approx(STRENGTH * 12, abs=0.3)


def test_between_frames_the_gain_fades():
    waveform = tone(2)
    gain = (finished(waveform, [0.0, 10.0]) / waveform)[POOL:]
    sounding = waveform[POOL:].abs() > 0.03
    ramp = (torch.arange(1, POOL + 1) / FADE).clamp(max=1)
    expected = 1 + ramp * (10 ** (STRENGTH / 2) - 1)
    assert gain[sounding].numpy() == pytest.approx(expected[sounding].numpy(), rel=1e-3)


def test_a_filter_rings_on_into_later_frames(monkeypatch):
    """With one filter throughout, the frames are one convolution."""
    rings = torch.randn(SPAN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rings = rings * torch.linspace(1, 0, SPAN).square() / 20
    monkeypatch.setattr(envelope, "minimum_phase", lambda gain: rings.expand(*gain.shape[:2], -1))
    expected = np.convolve(noise(5).double().numpy(), rings.numpy())[: 5 * POOL]
    assert finished(noise(5)).numpy() == pytest.approx(expected, abs=1e-6)


def test_filters_are_causal_and_minimum_phase():
    """1 / (1 - z^-1 / 2) answers with 1, 1/2, 1/4, ...; at the latest, it would rise."""
    z = np.exp(2j * np.pi * np.arange(BINS) / SPAN)
    response = minimum_phase(torch.from_numpy(20 * np.log10(np.abs(1 / (1 - 0.5 / z)))))
    assert response[:12].numpy() == pytest.approx(0.5 ** np.arange(12), abs=2e-4)
    assert response.shape == (SPAN,) and response[12:].abs().max() < 1e-3


def test_the_gain_has_no_finer_detail_than_partials():
    bins = torch.arange(BINS, dtype=torch.float64)
    for period, kept in ((100, 0.75), (290, 0.01), (400, 0.0)):  # samples of cepstrum
        ripple = minimum_phase(3 * torch.cos(2 * math.pi * bins * period / SPAN))
        gain = 20 * torch.fft.rfft(ripple).abs().log10()
        assert gain.abs().max() == pytest.approx(3 * kept, abs=0.1)


def test_pieces_and_company_change_nothing():
    wanted = [5.0, -3.0, 8.0, 1.0, -20.0, 2.0]
    guide, levels = EnvelopeGuide(1, POOL), torch.tensor([0.01, 0.02, 0.0, 0.02, 0.01, 0.01])
    waveform, known = tone(3).repeat(2), told(tone(3).repeat(2), wanted, levels)
    whole = guide.finish(waveform[None], known)
    memory, spans = guide.memory(), ((0, 1), (1, 3), (3, 3), (3, 4), (4, 6))
    parts = [
        guide.finish(waveform[None, a * POOL : b * POOL], known.between(a, b), memory, b == 6)
        for a, b in spans
    ]
    assert torch.cat(parts, dim=1).numpy() == pytest.approx(whole.numpy(), abs=1e-7)
    both = known.map(lambda axis, a, b: torch.cat([a, b]), told(noise(6), 0.0, levels))
    rows = guide.finish(torch.stack([waveform, noise(6)]), both)
    assert rows[0].numpy() == pytest.approx(whole[0].numpy(), abs=1e-7)


@pytest.mark.parametrize("amplitude", [0.03, 0.4])
def test_in_the_long_run_the_output_is_as_loud_as_the_input(amplitude):
    waveform = tone(200, amplitude)
    levels = loudness(levelled(waveform, torch.full((200,), audio.LEVEL**2)))
    assert levels[-1].item() == pytest.approx(-20, abs=0.7)
    assert levels[20].item() == pytest.approx(-20, abs=4)
    assert levels.diff().abs().max() < abs(loudness(waveform)[0] + 20) / 4


def test_a_decay_is_left_alone():
    shape = torch.cat([torch.ones(20), torch.full((60,), 0.01)]).repeat_interleave(POOL)
    waveform = tone(80, 0.14) * shape
    made = levelled(waveform, frame_levels(waveform, POOL))
    assert (loudness(made) - loudness(waveform)).abs().max() < 0.1


def test_a_long_pause_is_not_filled_with_noise():
    """A room is heard for a minute where next to nothing is made: that is not made as loud."""
    waveform = noise(1_200, 0.001)
    made = levelled(waveform, torch.full((1_200,), 10**-4.5))
    assert (loudness(made) - loudness(waveform)).max() < 9


def test_what_is_too_loud_for_a_moment_is_not_clipped_first():
    made = finished(tone(20, amplitude=0.5), [20.0] * 20, torch.full((20,), audio.LEVEL**2))
    crest = made[-POOL:].abs().max() / made[-POOL:].std()
    assert crest.item() == pytest.approx(math.sqrt(2), rel=0.02)


def test_silence_stays_silence():
    silence = mulaw.decode(mulaw.encode(torch.zeros(2 * POOL)))
    assert finished(silence, [0.0] * 2, torch.zeros(2)).abs().max() < 1e-3


# --- the model that ships -------------------------------------------------------------------------


def test_what_is_told_follows_from_the_latent_alone():
    """Predictors and aims do not depend on company or pieces, and levels are passed on."""
    guide = umtlib.load().decoders["bach_organ"].guide
    rng = torch.Generator().manual_seed(0)
    latent, levels = torch.randn(2, 64, 5, generator=rng), torch.rand(2, 5, generator=rng)
    whole, part = guide.tell(latent, levels), guide.tell(latent[1:, :, 2:4], levels[1:, 2:4])
    cut = whole.map(lambda axis, x: x[1:]).between(2, 4)
    torch.testing.assert_close(cut.predictors, part.predictors)
    torch.testing.assert_close(cut.aim, part.aim)
    assert torch.equal(part.aim[0, :, BINS], levels[1, 2:4].double())
    assert torch.equal(part.condition, latent[1:, :, 2:4])


@pytest.mark.parametrize("order", [64, True, "128"])
def test_a_model_from_before_there_were_guides_loads_or_is_refused(tmp_path, order):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint.PRETRAINED / "six-domains-small", folder)
    values = json.loads((folder / "config.json").read_text())
    assert "prediction" in values["decoder"], "the shipped model is new: this file can go"
    assert checkpoint.read_config(folder).decoder.guide == "envelope"
    (folder / "config.json").write_text(json.dumps(values | {"decoder": {"prediction": order}}))
    with pytest.raises(CheckpointError, match=f"config.json.*= {order!r} must be 0 or 128"):
        checkpoint.read_config(folder)
