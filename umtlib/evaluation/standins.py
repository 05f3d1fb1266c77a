"""Sounds whose worth is known: what a measure says of them is what the measure is worth.

Each function makes of an excerpt another one, as long, that is wrong in one respect only. Chance
has the seed 0, so that a report is the same each time.
"""

import librosa
import numpy as np
import scipy.ndimage

from umtlib.audio import SAMPLE_RATE
from umtlib.evaluation.features import Excerpt, excerpt


def noise(sound: Excerpt) -> Excerpt:
    """Return white noise."""
    return excerpt(0.1 * np.random.default_rng(0).standard_normal(len(sound.waveform)))


def fluttering(sound: Excerpt, depth: float = 3.0, rate: float = 8.0) -> Excerpt:
    """Let the level swing by ``depth`` dB up and down, ``rate`` times a second."""
    time = np.arange(len(sound.waveform)) / SAMPLE_RATE
    return excerpt(sound.waveform * 10 ** (depth / 20 * np.sin(2 * np.pi * rate * time)))


def smeared(sound: Excerpt, seconds: float = 0.1) -> Excerpt:
    """Average the magnitudes of the spectrum over so many seconds; the phases stay."""
    hop = 160
    spectrum = librosa.stft(sound.waveform, n_fft=512, hop_length=hop)
    size = max(1, round(seconds * SAMPLE_RATE / hop))
    slow = scipy.ndimage.uniform_filter1d(np.abs(spectrum), size, axis=1)
    slow = slow * np.exp(1j * np.angle(spectrum))
    return excerpt(librosa.istft(slow, hop_length=hop, length=len(sound.waveform)))


def shuffled(sound: Excerpt, seconds: float = 0.05) -> Excerpt:
    """Put the frames, of so many seconds and blended into each other, in random order."""
    hop = round(seconds * SAMPLE_RATE)
    frames = librosa.util.frame(np.pad(sound.waveform, hop), frame_length=2 * hop, hop_length=hop)
    order = np.random.default_rng(0).permutation(frames.shape[1])
    mixed = frames[:, order] * np.hanning(2 * hop + 1)[:-1, None]
    made = np.pad(mixed[:hop], ((0, 0), (0, 1))) + np.pad(mixed[hop:], ((0, 0), (1, 0)))
    made = made.T.ravel()[hop : hop + len(sound.waveform)]
    return excerpt(np.pad(made, (0, len(sound.waveform) - len(made))))


def backwards(sound: Excerpt) -> Excerpt:
    """Play it from its end: the same spectra, but notes swell and break off."""
    return excerpt(sound.waveform[::-1].copy())


IN_TIME = {"fluttering": fluttering, "smeared": smeared, "shuffled": shuffled}
