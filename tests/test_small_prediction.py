"""Linear prediction from a spectrum, against the textbook."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_toeplitz

from umtlib import config, guide, mulaw, translator
from umtlib.decoder import Decoder
from umtlib.errors import ConfigError
from umtlib.small import prediction
from umtlib.small.spectra import BINS, SPAN, log_spectrum

POOL = 400


def codes_of(*frequencies, samples=8 * POOL, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    tone = sum(0.2 * np.sin(2 * np.pi * f * time) for f in frequencies)
    return mulaw.encode(torch.from_numpy(tone + noise * rng.standard_normal(samples)).float())[None]


def predictors_of(codes, order):
    return prediction.fit(spectrum_of(codes), order)


def spectrum_of(codes):
    return log_spectrum(mulaw.decode(codes), POOL)


# --- the spectrum ---------------------------------------------------------------------------------


def test_the_spectrum_is_that_of_the_frame():
    """Its sum is the power under the window, and a tone is where it belongs."""
    codes = codes_of(1_000.0)
    codes[:, 4 * POOL :] = codes_of(3_000.0)[:, 4 * POOL :]
    log_power = spectrum_of(codes)
    assert log_power.shape == (1, 8, SPAN // 2 + 1)
    frequency = log_power.argmax(dim=-1)[0] * 16_000 / SPAN
    assert frequency.tolist() == [1_000.0] * 4 + [3_000.0] * 4
    power = log_power[0, 2].exp()
    both_sides = power[0] + 2 * power[1:-1].sum() + power[-1]
    assert both_sides.item() / SPAN == pytest.approx(0.2**2 / 2, rel=0.02)
    silence = spectrum_of(torch.full((1, POOL), mulaw.SILENCE))
    assert silence[0, 0, 9:].numpy() == pytest.approx(math.log(1e-7), abs=0.2)


# --- the predictor --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 19, 128])
def test_the_predictor_is_the_textbooks(order):
    """Autocorrelation by a sum of cosines, normal equations by SciPy's Toeplitz solver."""
    log_power = spectrum_of(codes_of(220, 331.7, noise=0.02))[0, 3].double()
    angle = 2 * np.pi * np.outer(np.arange(order + 1), np.arange(SPAN)) / SPAN
    both_sides = torch.cat([log_power, log_power[1:-1].flip(0)]).exp().numpy()
    r = np.cos(angle) @ both_sides / SPAN
    first = r[:order] * np.where(np.arange(order), 1, 1.003)
    wanted = solve_toeplitz(first, r[1:])[::-1]
    found = prediction.fit(log_power[None], order)[0].numpy()
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_a_decoder_is_damped_when_it_hears_itself():
    """In evaluation mode, the one of every loaded model, the predictor reaches less far."""
    torch.manual_seed(0)
    decoder = Decoder(config.DecoderConfig(guide="frames", channels=8, layers=1), 4, POOL)
    latent = torch.randn(1, 4, 3)
    sharp, damped = (decoder.train(mode).guide.tell(latent).predictors for mode in (True, False))
    assert (damped.square().sum(dim=-1) < sharp.square().sum(dim=-1)).all()


@pytest.mark.parametrize("kind", ["flat", "low", "two lines", "random"])
def test_what_is_predicted_dies_away(kind):
    """The predictor fed with its own predictions never grows: its poles are inside the circle."""
    bins = torch.arange(BINS, dtype=torch.float64)
    lines = -16 + 30 * ((bins == 40) | (bins == 41))
    random = 4 * torch.randn(BINS, generator=torch.Generator().manual_seed(0))
    log_power = {"flat": 0 * bins, "low": -0.1 * bins, "two lines": lines, "random": random}[kind]
    taps = prediction.fit(log_power[None], 48)[0]
    poles = np.roots(np.concatenate([[1.0], -taps.flip(0).numpy()]))
    assert np.abs(poles).max(initial=0) < 1


# --- the prediction -------------------------------------------------------------------------------


def test_a_chord_is_foreseen():
    codes = codes_of(220.0, 277.2, 329.6)
    predicted = guide.predict(codes, predictors_of(codes, 128))
    held = (codes[:, :-1] - codes[:, 1:])[0, POOL:].abs().float()
    assert (predicted - codes)[0, POOL:].abs().float().mean() < held.mean() / 4


def test_every_sample_is_predicted_from_the_ones_before_it():
    """One by one, with a plain sum, each by the predictor of its frame; its company is nothing."""
    order, noise = 19, {"noise": 0.1, "samples": 3 * POOL}
    codes = torch.cat([codes_of(451, **noise), codes_of(220, **noise)])
    predictors = predictors_of(codes, order)
    amplitudes = np.concatenate([np.zeros(order), mulaw.amplitudes()[codes[1]].numpy()])
    found = guide.predict(codes, predictors)[1]
    for t in range(3 * POOL):
        value = predictors[1, t // POOL].numpy() @ amplitudes[t : t + order]
        assert found[t] == (mulaw.thresholds().numpy() < value).sum()
    values = torch.linspace(-1.2, 1.2, 9_973, dtype=torch.float64)
    assert torch.equal(mulaw.nearest(values), mulaw.encode(values))


@pytest.mark.parametrize("kind, pool, message", [
    ("frames", 2_400, "pool = 2400 must be a multiple of 4, and at most 2048"),
    ("frames", 801, "pool = 801 must be a multiple of 4"),
    ("frame", 800, "unknown guide 'frame'; choose one of latent, frames"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(kind, pool, message):
    encoder, decoder = config.EncoderConfig(pool=pool), config.DecoderConfig(guide=kind)
    with pytest.raises(ConfigError, match=message):
        translator.build(config.ModelConfig(("a",), encoder, decoder))


def test_the_receptive_field_counts_the_prediction():
    """A changed sample is felt until the last prediction that it has a part in has passed."""
    torch.manual_seed(0)
    settings = config.DecoderConfig(guide="frames", channels=8, blocks=1, layers=2)
    decoder = Decoder(settings, 4, POOL).eval()
    codes, latent = torch.randint(0, 256, (1, POOL)), torch.randn(1, 4, 1)
    other = codes.clone()
    other[:, 100] = 255 - other[:, 100]
    with torch.no_grad():
        felt = (decoder(codes, latent) != decoder(other, latent)).any(dim=1)[0].nonzero()[:, 0]
    assert felt.min() == 101
    assert 100 + 4 < felt.max() <= 100 + decoder.receptive_field
