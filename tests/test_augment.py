"""The encoder's input is bent as the paper says, measured on tones."""

import numpy as np
import pytest

import conftest
from umtlib import augment
from umtlib.small import hearing

RATE = 16_000


def tone(hertz):
    return conftest.tone(1.0, hertz=hertz, amplitude=0.5).astype(np.float32)


def frequency(signal):
    """Frequency of a tone from the phase advance of its analytic signal's strongest bin."""
    window = np.hanning(len(signal))
    spectrum = np.abs(np.fft.rfft(signal * window, 1 << 18))
    return spectrum.argmax() * RATE / (1 << 18)


class Fixed:
    """A generator that returns the given numbers, as fractions of the asked range."""

    def __init__(self, *fractions):
        self.fractions = list(fractions)

    def uniform(self, low=0.0, high=1.0):
        return low + (high - low) * self.fractions.pop(0)


@pytest.mark.parametrize("pitch", [220.0, 440.0, 1_200.0])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.8, 1.0])
def test_stretch_is_shifted_by_what_the_generator_said(pitch, fraction):
    clean = tone(pitch)
    places = (0, 0, 0, 4_000), (0, 0.99995, 12_000, 16_000), (1, 0.5, 4_000, 12_000)
    for length, place, first, last in places:
        bent = augment.pitch_modulation(clean, Fixed(length, place, fraction))
        changed = np.flatnonzero(bent != clean)
        assert first <= changed[0] < first + 50 and last - 50 < changed[-1] < last
    half_steps = 12 * np.log2(frequency(bent[5_000:11_000]) / frequency(clean[5_000:11_000]))
    # 3 cents: the phase vocoder's own error on a steady tone.
    assert half_steps == pytest.approx(fraction - 0.5, abs=0.03)


def test_length_kept_target_untouched_and_reproducible():
    clean, kept = tone(440), tone(440)
    first, again, other = (
        augment.pitch_modulation(clean, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert (first.shape, first.dtype) == (clean.shape, np.float32) and np.array_equal(clean, kept)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("length", [1, 100, 3_000])
def test_short_segments_are_shifted_whole(length):
    out = augment.pitch_modulation(tone(440)[:length], np.random.default_rng(0))
    assert out.shape == (length,) and np.isfinite(out).all()


def test_equaliser_gains_are_bounded_and_pitch_stays():
    clean = tone(1_000)
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(50):
        out = hearing.equalise(clean, rng)
        assert frequency(out) == pytest.approx(1_000, abs=0.5)
        gains.append(20 * np.log10(np.abs(out[4_000:12_000]).max() / 0.5))
    assert -12.1 < min(gains) < -8 and 5.9 < max(gains) <= 6.1  # + 6 dB is full scale
