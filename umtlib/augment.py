"""What the encoder hears in training instead of the clean audio (section 3.4).

The encoder is given a distorted copy and the decoder must still restore the clean original: a
denoising autoencoder. The paper shifts the pitch of a part of every segment a little out of tune,
so that the encoder cannot memorise a domain's exact signal. All randomness comes from the caller's
generator. Notebook: ``05_training_six_domains``.
"""

import librosa
import numpy as np

SHORTEST, LONGEST = 0.25, 0.5  # seconds of the shifted stretch
SHORTEST_WINDOW = 64  # samples, of the phase vocoder
LARGEST_SHIFT = 0.5  # half steps, up or down


def pitch_modulation(
    waveform: np.ndarray, rng: np.random.Generator, sample_rate: int = 16_000
) -> np.ndarray:
    """Return a waveform, float32 in [-1, 1], (T,), with the pitch of one random stretch shifted.

    The stretch (0.25 to 0.5 s, at most the whole waveform), its place and the shift (-0.5 to 0.5
    half steps) are uniform. Outside the stretch nothing changes. Fewer than 64 samples have no
    pitch to shift and come back as they are. The sample rate is in Hz.
    """
    seconds = rng.uniform(SHORTEST, LONGEST)
    place = rng.uniform()
    shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT)
    length = min(round(seconds * sample_rate), len(waveform))
    start = int(place * (len(waveform) - length + 1))
    out = waveform.copy()
    if length < SHORTEST_WINDOW:
        return out
    # librosa warns when a window is longer than the signal; 64 ms also resolves bass notes.
    window = min(1024, 2 ** int(np.log2(length)))
    out[start : start + length] = librosa.effects.pitch_shift(
        waveform[start : start + length], sr=sample_rate, n_steps=shift, n_fft=window
    )
    return out
