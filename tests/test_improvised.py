"""Music in no domain: what is written sounds, in tune, and the same each time."""

import numpy as np
import pytest

from umtlib.corpora import improvised


@pytest.mark.parametrize("kind", improvised.KINDS)
def test_notes_are_what_sounds(kind):
    sound, notes = improvised.improvise(kind, np.random.default_rng(0))
    assert sound.dtype == np.float32 and sound.shape == (80_000,)
    assert np.abs(sound).max() == pytest.approx(0.5)
    onsets = [onset for onset, _, _ in notes]
    assert onsets == sorted(onsets) and all(0 <= a < b <= 5 for a, b, _ in notes)
    assert len({pitch for _, _, pitch in notes}) > 3
    again, _ = improvised.improvise(kind, np.random.default_rng(0))
    other, _ = improvised.improvise(kind, np.random.default_rng(1))
    assert np.array_equal(sound, again) and not np.array_equal(sound, other)


@pytest.mark.parametrize("voice", [improvised._string, improvised._reed])
@pytest.mark.parametrize("pitch", [45, 64, 76, 88])
def test_voices_are_in_tune(voice, pitch):
    sound = voice(pitch, 16_000, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(16_000), 2**18))
    hertz = np.fft.rfftfreq(2**18, 1 / 16_000)
    wanted = 440 * 2 ** ((pitch - 69) / 12)
    near = np.abs(12 * np.log2(np.maximum(hertz, 1) / wanted)) < 1
    middle = np.average(hertz[near], weights=spectrum[near] ** 2)  # a vibrato has many peaks
    assert 1_200 * abs(np.log2(middle / wanted)) < 10
