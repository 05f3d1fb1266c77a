"""What the metrics listen with: spectra, chroma and pitch of an excerpt, each computed once.

Conventions: 16 kHz; every excerpt is brought to the common level, so no metric depends on gain.
Frames are 256 samples (16 ms) apart and centred, except for `Excerpt.contour` (512) and
`Excerpt.bands` (160).
"""

from dataclasses import dataclass
from functools import cached_property

import librosa
import numpy as np
import torch

from umtlib import audio, mulaw
from umtlib.audio import SAMPLE_RATE
from umtlib.errors import EvaluationError

HOP, CONTOUR_HOP = 256, 512
BANDS, BANDS_PER_SECOND = 40, 100  # of `Excerpt.bands`
BANDS_FLOOR_DB, FLOOR_DB = -25.0, -30.0  # levelled music peaks near +20
LOWEST = 28  # MIDI pitch of the lowest row of the constant-Q spectrum, E1
BINS_PER_SEMITONE, SEMITONES = 3, 88  # up to 6.3 kHz
_SHORTEST, _LONGEST_FILTER = 2_048, 32_768  # samples


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A levelled waveform, float32 in [-1, 1], 16 kHz, (T,), and its features; see `excerpt`."""

    waveform: np.ndarray

    @cached_property
    def coded(self) -> "Excerpt":
        """The same through 8-bit mu-law, as every translation is."""
        return excerpt(mulaw.decode(mulaw.encode(torch.from_numpy(self.waveform))).numpy())

    @cached_property
    def contour(self) -> np.ndarray:
        """Frequency of the strongest spectral peak, Hz, 0 where there is none, shape (F512,)."""
        # The "pitch tracker of librosa" when the paper was written; 150 to 4000 Hz, window 2048.
        wave, hop = self.waveform, CONTOUR_HOP
        pitches, magnitudes = librosa.piptrack(y=wave, sr=SAMPLE_RATE, hop_length=hop)
        return pitches[magnitudes.argmax(axis=0), np.arange(pitches.shape[1])]

    @cached_property
    def melody(self) -> np.ndarray:
        """Fundamental frequency by probabilistic YIN, Hz, a guess where unvoiced, shape (F,)."""
        frequency, _, _ = librosa.pyin(
            self.waveform, fmin=60, fmax=2_100, sr=SAMPLE_RATE, frame_length=1_024,
            hop_length=HOP, resolution=0.2, fill_na=None,
        )  # fmt: skip
        return frequency * self.sounding

    @cached_property
    def constant_q(self) -> np.ndarray:
        """Magnitudes, three rows per semitone from MIDI pitch 27 2/3, shape (264, F)."""
        return variable_q(self.waveform)

    @cached_property
    def chroma(self) -> np.ndarray:
        """Magnitude per pitch class, C first, shape (12, F); not normalised."""
        return librosa.feature.chroma_cqt(
            C=self.constant_q[1:], fmin=librosa.midi_to_hz(LOWEST), norm=None,
            bins_per_octave=12 * BINS_PER_SEMITONE,
        )  # fmt: skip

    @cached_property
    def sounding(self) -> np.ndarray:
        """Whether a frame is within 40 dB of the loudest one, bool, shape (F,)."""
        total = self.constant_q.sum(axis=0)
        return (total > 1e-3) & (total >= 1e-2 * total.max())

    @cached_property
    def log_mel(self) -> np.ndarray:
        """Log-mel spectrum, dB, at least -30, shape (64, F)."""
        return mel(self.waveform, 64, 1_024, HOP, FLOOR_DB)

    @cached_property
    def bands(self) -> np.ndarray:
        """Mel energies in dB every 10 ms, to hear time; at least -25 dB, shape (40, F100)."""
        return mel(self.waveform, BANDS, 512, SAMPLE_RATE // BANDS_PER_SECOND, BANDS_FLOOR_DB)

    @cached_property
    def level(self) -> np.ndarray:
        """Level of all `bands` together, dB, shape (F100,)."""
        return 10 * np.log10((10 ** (self.bands / 10)).sum(axis=0))

    @cached_property
    def mfcc(self) -> np.ndarray:
        """Cepstrum of `log_mel` without the loudness row, shape (32, F)."""
        return librosa.feature.mfcc(S=self.log_mel, n_mfcc=33)[1:]


Sound = np.ndarray | Excerpt  # what the metrics take


def excerpt(waveform: Sound) -> Excerpt:
    """Make an excerpt of a waveform, floats in [-1, 1] or int16 at 16 kHz, shape (T,).

    Less than 2,048 samples are padded with silence. An excerpt is returned as it is, and anything
    else raises EvaluationError.
    """
    if isinstance(waveform, Excerpt):
        return waveform
    waveform = np.asarray(waveform)
    if waveform.dtype == np.int16:
        waveform = waveform / np.float32(32_768)
    if waveform.ndim != 1 or waveform.dtype.kind != "f" or not np.isfinite(waveform).all():
        raise EvaluationError(
            f"an array of {waveform.dtype}, shape {waveform.shape}; give a waveform, shape (T,), "
            "of finite floats or of int16"
        )
    short = max(0, _SHORTEST - len(waveform))
    return Excerpt(audio.level(np.pad(waveform, (0, short)).astype(np.float32)))


def variable_q(waveform: np.ndarray, gamma: float = 0.0) -> np.ndarray:
    """Return magnitudes like `Excerpt.constant_q`, by filters that are ``gamma`` Hz wider."""
    # Shorter than the longest filter, librosa warns; with silence behind it, it need not.
    padded = np.pad(waveform, (0, max(0, _LONGEST_FILTER - len(waveform))))
    found = librosa.vqt(
        padded, sr=SAMPLE_RATE, hop_length=HOP, gamma=gamma, tuning=0.0,
        fmin=librosa.midi_to_hz(LOWEST - 1 / BINS_PER_SEMITONE),
        n_bins=SEMITONES * BINS_PER_SEMITONE, bins_per_octave=12 * BINS_PER_SEMITONE,
    )  # fmt: skip
    return np.abs(found[:, : 1 + len(waveform) // HOP]).astype(np.float32)


def mel(waveform: np.ndarray, bands: int, window: int, hop: int, floor_db: float) -> np.ndarray:
    """Return the energies of mel bands above 40 Hz in dB, not below a floor, (bands, frames)."""
    power = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=window, hop_length=hop, n_mels=bands, fmin=40
    )
    return 10 * np.log10(power + 10 ** (floor_db / 10))


def pair(reference: Sound, estimate: Sound) -> list[Excerpt]:
    """Return two excerpts, the longer one cut; EvaluationError if they differ by over 50 ms."""
    sounds = excerpt(reference), excerpt(estimate)
    shorter, longer = sorted(len(sound.waveform) for sound in sounds)
    if longer - shorter > SAMPLE_RATE // 20:
        raise EvaluationError(f"excerpts of {shorter} and {longer} samples; cut them alike")
    return [x if len(x.waveform) == shorter else Excerpt(x.waveform[:shorter]) for x in sounds]
