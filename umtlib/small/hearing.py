"""What the encoder hears in training in place of the clean audio, besides the paper's own bending.

An encoder that shall serve a whistle in a room must not care for timbre, room and the hand on the
fader. So it hears each segment equalised, often in a room, and with a gain that wanders by more
than music does; and some segments filtered to what another domain's frame model paints, which is a
rough translation (`converted`). What the frame models must paint stays the clean audio. None of it
is in the paper; preset ``small``.
"""

import math

import numpy as np
import torch
from torch import Tensor

from umtlib import mulaw
from umtlib.audio import SAMPLE_RATE
from umtlib.augment import pitch_modulation
from umtlib.small.spectra import Filter

EQUALISED = 12.0  # dB, up or down in every octave
OCTAVE_BANDS = 62.5 * 2.0 ** np.arange(8)  # Hz; 62.5 .. 8,000
STRENGTHS = 0.6, 1.0  # of a conversion's filter: part of the way
FAR = 40.0  # dB, that a conversion changes at the most: a tone that has faded is held again
ROOMS, SHORTEST, LONGEST = 0.4, 0.1, 1.2  # share of segments in a room; seconds to fade by 60 dB
SOFTEST, LOUDEST, STEP = -20.0, 12.0, 3.6  # dB, of the gain; of a step between two knots
KNOTS = 0.08, 0.7  # seconds between two knots


def heard(waveforms: Tensor, rng: np.random.Generator) -> Tensor:
    """Return what the encoder hears, mu-law codes (B, T), of waveforms in [-1, 1], (B, T)."""
    rows = []
    for row in waveforms:
        bent = equalise(pitch_modulation(row.numpy(), rng), rng)
        placed = in_room(bent, rng) if rng.random() < ROOMS else bent
        rows.append(placed * wandering_gain(len(placed), rng))
    return mulaw.encode(torch.from_numpy(np.stack(rows)))


def equalise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter by a random smooth curve, so that the encoder learns to hear past the timbre.

    The curve has one random gain per octave, at most `EQUALISED`, and is linear between them, in
    decibels over the logarithm of the frequency. What would exceed 1 is scaled down.
    """
    gains = rng.uniform(-EQUALISED, EQUALISED, len(OCTAVE_BANDS))
    frequency = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(frequency, 1.0))
    curve = 10 ** (np.interp(octave, np.log2(OCTAVE_BANDS), gains) / 20)
    out = np.fft.irfft(np.fft.rfft(waveform) * curve, len(waveform))
    return (out / max(1.0, np.abs(out).max())).astype(np.float32)


def in_room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation to a waveform, (T,): its convolution with fading noise."""
    time = np.arange(round(LONGEST * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / rng.uniform(SHORTEST, LONGEST))
    wet = rng.uniform(0.3, 1.0)
    echo *= wet / np.sqrt(np.square(echo).sum())
    echo[0] += math.sqrt(1 - wet**2)
    size = 2 ** math.ceil(math.log2(len(waveform) + len(echo)))
    made = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(echo, size))
    return made[: len(waveform)].astype(np.float32)


def wandering_gain(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random gain, float32, (samples,): a bounded walk in dB between knots."""
    seconds = samples / SAMPLE_RATE
    times, levels = [0.0], [rng.uniform(SOFTEST + 4, LOUDEST - 4)]
    while times[-1] < seconds:
        times.append(times[-1] + rng.uniform(*KNOTS))
        levels.append(np.clip(levels[-1] + STEP * rng.standard_normal(), SOFTEST, LOUDEST))
    decibels = np.interp(np.arange(samples) / SAMPLE_RATE, times, levels)
    return (10 ** (decibels / 20)).astype(np.float32)


def converted(waveforms: Tensor, spectra: Tensor, hop: int, rng: np.random.Generator) -> Tensor:
    """Filter (B, T) towards what another domain's frame model painted: a rough translation.

    This is back-translation (Sennrich et al. 2016, "Improving neural machine translation models
    with monolingual data").
    """
    return Filter(rng.uniform(*STRENGTHS), (-FAR, FAR))(waveforms, spectra, hop).clamp(-1, 1)
