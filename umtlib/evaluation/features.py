"""What the metrics listen with: spectra, chroma and pitch of an excerpt, each computed once.

Conventions: 16 kHz; every excerpt is first brought to the common level (`umtlib.audio.level`), so
no metric depends on gain; one shorter than 2,048 samples is padded with silence, so an empty one is
silence. Frames are 256 samples (16 ms) apart and centred, except for `Excerpt.contour` (512) and
`Excerpt.bands` (160).
"""

from dataclasses import dataclass
from functools import cached_property

import librosa
import numpy as np
import scipy.fft
import torch

from umtlib import audio, mulaw
from umtlib.audio import SAMPLE_RATE
from umtlib.errors import EvaluationError

HOP = 256
CONTOUR_HOP = 512
MELS = 64
BANDS, BANDS_PER_SECOND = 40, 100  # of `Excerpt.bands`
BANDS_FLOOR_DB = -25.0
FLOOR_DB = -30.0  # of the log-mel spectrum, where levelled music peaks near +20
LOWEST = 28  # MIDI pitch of the lowest row of the constant-Q spectrum, E1
BINS_PER_SEMITONE = 3
SEMITONES = 88  # rows up to 6.3 kHz
QUIET = 1e-2  # a frame sounds if its magnitude is at least this part of the loudest frame's
_SHORTEST = 2_048
_LONGEST_FILTER = 32_768  # samples


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A levelled waveform and its features; make it with `excerpt`.

    Attributes
    ----------
    waveform : np.ndarray
        float32 in [-1, 1], 16 kHz, shape (T,), T at least 2048.
    """

    waveform: np.ndarray

    @cached_property
    def coded(self) -> "Excerpt":
        """The same through 8-bit mu-law, as every translation is."""
        codes = mulaw.encode(torch.from_numpy(self.waveform))
        return excerpt(mulaw.decode(codes).numpy())

    @cached_property
    def contour(self) -> np.ndarray:
        """Frequency of the strongest spectral peak, Hz, 0 where there is none, shape (F512,).

        `librosa.piptrack` with its defaults (150 to 4000 Hz, window 2048): the "pitch tracker of
        librosa" when the paper was written.
        """
        pitches, magnitudes = librosa.piptrack(
            y=self.waveform, sr=SAMPLE_RATE, hop_length=CONTOUR_HOP
        )
        strongest = magnitudes.argmax(axis=0)
        return pitches[strongest, np.arange(pitches.shape[1])]

    @cached_property
    def melody(self) -> np.ndarray:
        """Fundamental frequency by probabilistic YIN, Hz, a guess where unvoiced, shape (F,)."""
        frequency, _, _ = librosa.pyin(
            self.waveform, fmin=60, fmax=2_100, sr=SAMPLE_RATE, frame_length=1_024,
            hop_length=HOP, resolution=0.2, fill_na=None,
        )  # fmt: skip
        return frequency * same_length(frequency, self.sounding)[1]

    @cached_property
    def constant_q(self) -> np.ndarray:
        """Magnitudes, three rows per semitone from MIDI pitch 27 2/3, shape (264, F)."""
        # Shorter than the longest filter, librosa warns; with silence behind it, it need not.
        sound = np.pad(self.waveform, (0, max(0, _LONGEST_FILTER - len(self.waveform))))
        magnitudes = np.abs(
            librosa.cqt(
                sound, sr=SAMPLE_RATE, hop_length=HOP,
                fmin=librosa.midi_to_hz(LOWEST - 1 / BINS_PER_SEMITONE),
                n_bins=SEMITONES * BINS_PER_SEMITONE, bins_per_octave=12 * BINS_PER_SEMITONE,
                tuning=0.0,
            )
        )  # fmt: skip
        return magnitudes[:, : 1 + len(self.waveform) // HOP].astype(np.float32)

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
        return (total > 1e-3) & (total >= QUIET * total.max())

    @cached_property
    def log_mel(self) -> np.ndarray:
        """Log-mel spectrum, dB, at least `FLOOR_DB`, shape (64, F)."""
        power = librosa.feature.melspectrogram(
            y=self.waveform, sr=SAMPLE_RATE, n_fft=1_024, hop_length=HOP, n_mels=MELS, fmin=40
        )
        return 10 * np.log10(power + 10 ** (FLOOR_DB / 10))

    @cached_property
    def bands(self) -> np.ndarray:
        """Mel energies in dB every 10 ms, to hear time; at least -25 dB, shape (40, F100)."""
        power = librosa.feature.melspectrogram(
            y=self.waveform, sr=SAMPLE_RATE, n_fft=512, hop_length=SAMPLE_RATE // BANDS_PER_SECOND,
            n_mels=BANDS, fmin=40,
        )  # fmt: skip
        return 10 * np.log10(power + 10 ** (BANDS_FLOOR_DB / 10))

    @cached_property
    def level(self) -> np.ndarray:
        """Level of all `bands` together, dB, shape (F100,)."""
        return 10 * np.log10((10 ** (self.bands / 10)).sum(axis=0))

    @cached_property
    def mfcc(self) -> np.ndarray:
        """Cepstrum of `log_mel` (orthonormal DCT-II) without the loudness row, shape (32, F)."""
        return scipy.fft.dct(self.log_mel, axis=0, norm="ortho")[1:33]


def excerpt(waveform: np.ndarray | Excerpt) -> Excerpt:
    """Make an excerpt of a waveform; one that is an excerpt already is returned as it is.

    Parameters
    ----------
    waveform : np.ndarray
        Floats in [-1, 1], or int16, at 16 kHz, shape (T,), T may be 0.

    Raises
    ------
    EvaluationError
        If it is not a one-dimensional array of finite floats or of int16.
    """
    if isinstance(waveform, Excerpt):
        return waveform
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not (waveform.dtype.kind == "f" or waveform.dtype == np.int16):
        raise EvaluationError(
            f"a waveform of shape {waveform.shape} and type {waveform.dtype}; "
            "give floats or int16, shape (T,)"
        )
    if waveform.dtype == np.int16:
        waveform = waveform / np.float32(32_768)
    if not np.isfinite(waveform).all():
        raise EvaluationError("the waveform holds NaN or infinite samples")
    short = max(0, _SHORTEST - len(waveform))
    return Excerpt(audio.level(np.pad(waveform, (0, short)).astype(np.float32)))


def validate_pair(reference: Excerpt, estimate: Excerpt) -> None:
    """Check that two excerpts can be compared frame by frame.

    Raises
    ------
    EvaluationError
        If their lengths differ by more than one latent frame (50 ms).
    """
    lengths = len(reference.waveform), len(estimate.waveform)
    if abs(lengths[0] - lengths[1]) > SAMPLE_RATE // 20:
        raise EvaluationError(f"excerpts of {lengths[0]} and {lengths[1]} samples; cut them alike")


def same_length(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut two arrays to their common number of frames, the last axis."""
    frames = min(a.shape[-1], b.shape[-1])
    return a[..., :frames], b[..., :frames]
