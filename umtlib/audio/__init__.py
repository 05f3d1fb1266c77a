"""Any audio in, 16 kHz mono in the middle, a 16-bit WAV file out.

Files are decoded by libsndfile (`opening`) and resampled by soxr, both block by block: a long file
costs the memory of its 16 kHz result and no more. Recordings are then brought to one level
(`levels`). Notebook: ``01_quickstart``.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from umtlib import files
from umtlib.audio.levels import (
    CEILING,
    LEVEL,
    SAMPLE_RATE,
    Loudness,
    level,
    level_gain,
    levelled,
    measure,
)  # fmt: skip
from umtlib.audio.opening import UNREADABLE, native, opened
from umtlib.errors import AudioError, UmtWarning
from umtlib.files.names import readable

__all__ = [
    "CEILING", "LEVEL", "LONGEST", "RATES", "SAMPLE_RATE", "Loudness", "Recording", "level",
    "level_gain", "levelled", "measure", "native", "read", "replacing", "silenced_decoder",
    "stream", "to_mono_16k", "write", "writing",
]  # fmt: skip

LONGEST = 12 * 3600  # seconds; what decodes to more than this is refused, not collected in memory
RATES = range(4_000, 768_001)  # Hz; a header with another rate is damaged
_MOST_CHANNELS = 64  # of an array; more means that time does not come first
_BLOCK = 1 << 18  # values (frames times channels) decoded at a time
_JUDGED = 600  # seconds that tell whether the channels cancel each other


def read(path: str | os.PathLike) -> np.ndarray:
    """Read an audio file as 16 kHz mono.

    Any format of libsndfile (WAV, FLAC, OGG, MP3, AIFF...), sample rate, number of channels and
    length up to 12 hours. Channels are averaged; those that would cancel the others are turned over
    first, with a warning. If the result exceeds +-1 (float files can, and so can resampling of loud
    audio), all of it is scaled down to a peak of 1: nothing is clipped. From a truncated file comes
    what can be decoded, with a warning.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1], shape (T,), T = round(frames * 16000 / rate), never 0. A 16 kHz mono
        16-bit file is returned without any change.

    Raises
    ------
    AudioError
        If the file cannot be opened or decoded, or holds no audio, or holds NaN or infinities.
    """
    return _limited(np.concatenate(list(stream(path))))


def stream(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Do what `read` does, block by block, for files that are longer than the memory allows.

    Yields
    ------
    np.ndarray
        float32, shape (block,), finite; joined, they are what `read` returns, except that nothing
        is scaled down to a peak of 1.

    Raises
    ------
    AudioError
        As `read`, where reading has got to what is wrong.
    """
    path = Path(path)
    try:
        with opened(path) as (file, _):
            signs = _signs(_decode(file), file.channels, file.samplerate, str(path))
        with opened(path) as (file, promise):
            frames = yield from _to_16k(_decode(file), file.samplerate, str(path), signs)
            _tell_what_lacks(path, frames / file.samplerate, promise, file)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(UNREADABLE.format(path)) from error


class Recording:
    """What `stream` yields of a file, brought to `level`: decoded to be kept on the disk.

    Parameters
    ----------
    path : path
        The recording.
    kept : file
        To read and write, such as a `tempfile.TemporaryFile`; 64 KB per second are appended.
    longest : float
        Seconds; the rest of a longer file is cut off, with a warning.

    Attributes
    ----------
    samples : int
        At 16 kHz.
    loudness : Loudness
        From `measure`.
    span : float
        From the lowest sample to the highest, before it is levelled.

    Raises
    ------
    AudioError
        As `read`.
    OSError
        If there is no room to keep it.
    """

    def __init__(self, path: str | os.PathLike, kept: BinaryIO, longest: float = LONGEST):
        self.kept, self.start = kept, kept.seek(0, os.SEEK_END)
        self.lowest, self.highest = np.inf, -np.inf
        self.samples, self.loudness = measure(self._keep(path, round(longest * SAMPLE_RATE)))
        self.span = self.highest - self.lowest

    def _keep(self, path: str | os.PathLike, most: int) -> Iterator[np.ndarray]:
        left = most
        for block in stream(path):
            block, whole = block[:left], len(block)
            self.kept.write(block.tobytes())
            self.lowest = min(self.lowest, block.min(initial=np.inf))
            self.highest = max(self.highest, block.max(initial=-np.inf))
            yield block
            left -= whole
            if left < 0:
                _warn(f"{path} is cut after {most / SAMPLE_RATE:g} s")
                return

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all of it as float32 blocks of shape (block,)."""
        return levelled(self._read(self.samples), self.loudness)

    def beginning(self, samples: int) -> np.ndarray:
        """Return its first samples, or all if there are fewer."""
        part = self._read(min(samples, self.samples))
        return np.concatenate([*levelled(part, self.loudness)])

    def _read(self, samples: int) -> Iterator[np.ndarray]:
        for first in range(0, samples, _BLOCK):
            self.kept.seek(self.start + 4 * first)
            yield np.frombuffer(self.kept.read(4 * min(_BLOCK, samples - first)), np.float32)


@contextlib.contextmanager
def silenced_decoder() -> Iterator[None]:
    """Hide what the MP3 decoder writes to stderr about damaged files; warnings come at the end."""
    saved, told = os.dup(2), []
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings(record=True) as told:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        for one in told:
            warnings.showwarning(one.message, one.category, one.filename, one.lineno)


def to_mono_16k(audio: np.ndarray, sample_rate: float) -> np.ndarray:
    """Convert an array to what the network works on; the same rules as in `read`.

    Parameters
    ----------
    audio : np.ndarray
        Shape (frames,) or (frames, channels). Floats in [-1, 1]; or int16, int32 or uint8 as WAV
        files hold them.
    sample_rate : float
        Of ``audio``, in Hz.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1], shape (T,), T = round(frames * 16000 / sample_rate), never 0.

    Raises
    ------
    AudioError
        If the shape, the type or the rate makes no sense, or the audio is empty or not finite.

    Examples
    --------
    >>> to_mono_16k(np.zeros((44100, 2)), 44100).shape
    (16000,)
    """
    audio = np.asarray(audio)
    if audio.ndim not in (1, 2):
        raise AudioError(f"audio has shape {audio.shape}; give (frames,) or (frames, channels)")
    samples = _as_float(audio if audio.ndim == 2 else audio[:, None])
    if not 1 <= samples.shape[1] <= _MOST_CHANNELS:
        raise AudioError(f"audio has shape {audio.shape}; time must come first: transpose it")
    step = _BLOCK // samples.shape[1]
    blocks = [samples[start : start + step] for start in range(0, len(samples), step)]
    signs = _signs(blocks, samples.shape[1], sample_rate, "the audio")
    return _limited(np.concatenate(list(_to_16k(blocks, sample_rate, "the audio", signs))))


def write(path: str | os.PathLike, waveform: np.ndarray) -> None:
    """Write a waveform as a 16 kHz mono 16-bit WAV file.

    The file appears under its name only when it is complete; one that is there is replaced.

    Parameters
    ----------
    path : path
        Its folder must be there.
    waveform : np.ndarray
        Floats in [-1, 1], shape (T,); beyond is clipped.

    Raises
    ------
    AudioError
        If the waveform is not finite, or the file cannot be written.
    """
    with writing(path) as put:
        put(waveform)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Callable[[np.ndarray], None]]:
    """Do what `write` does, piece by piece: gives a function that takes the next piece.

    Raises
    ------
    AudioError
        As `write`. Whatever is raised inside, no file is left.
    """

    def put(waveform: np.ndarray) -> None:
        if not np.isfinite(waveform).all():
            raise AudioError(f"{path} is not written: the waveform holds NaN or infinite samples")
        pcm = np.clip(np.round(np.asarray(waveform) * 32768.0), -32768, 32767)
        file.write(pcm.astype(np.int16))

    with replacing(path) as part:
        with soundfile.SoundFile(
            native(part), "w", SAMPLE_RATE, channels=1, subtype="PCM_16", format="WAV"
        ) as file:
            yield put


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Do what `files.replacing` does, for audio.

    Raises
    ------
    AudioError
        If the folder or the file cannot be written.
    """
    try:
        with files.replacing(path) as part:
            yield part
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise AudioError(f"cannot write {path}: {reason}; choose another folder") from error


def _decode(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yield blocks of shape (frames, channels) until the file, or what decodes of it, ends."""
    start, block = 0, np.zeros((max(1, _BLOCK // file.channels), file.channels), np.float32)
    while True:
        try:
            frames = len(file.read(out=block))
        except soundfile.LibsndfileError:  # a damaged place: keep what came before it
            yield block[: max(0, file.tell() - start)]
            return
        if not frames:
            return
        yield block[:frames]
        start += frames


def _as_float(audio: np.ndarray) -> np.ndarray:
    if audio.dtype.kind == "f":
        return audio
    if audio.dtype == np.uint8:
        return (audio.astype(np.float32) - 128) / 128
    if audio.dtype in (np.int16, np.int32):
        return audio / np.float32(2.0 ** (8 * audio.dtype.itemsize - 1))
    raise AudioError(f"audio of type {audio.dtype}: give floats in [-1, 1], int16, int32 or uint8")


def _tell_what_lacks(path: Path, seconds: float, promise: float, file) -> None:
    promised = seconds * promise
    if promise == 1 and 1.02 * seconds + 0.1 < file.frames / file.samplerate < LONGEST:
        promised = file.frames / file.samplerate  # of an MP3 it is an estimate
    if promised > seconds:
        _warn(f"{path} holds {seconds:.4g} s of the {promised:.4g} s that its header says; it is "
              "used as far as it goes")  # fmt: skip


def _warn(text: str) -> None:
    warnings.warn(readable(text), UmtWarning, stacklevel=2)


def _signs(blocks: Iterable[np.ndarray], channels: int, rate: float, name: str) -> np.ndarray:
    """Return 1 or -1 for each channel, so that their average does not lose what is heard.

    All are 1 unless the average has a quarter of the channels' mean power or less, as when one
    channel of a stereo cable is wired the wrong way round.
    """
    signs = np.ones(channels, np.float32)
    if not 2 <= channels <= 16:  # the work grows with the square
        return signs
    products, sums, frames, offset = np.zeros((channels, channels)), np.zeros(channels), 0, None
    with np.errstate(all="ignore"):  # what is not finite is refused later
        for block in blocks:
            offset = block[:800].mean(axis=0, dtype=np.float64) if offset is None else offset
            block, frames = block - offset, frames + len(block)
            products += np.einsum("fc,fd->cd", block, block)  # BLAS would take memory for itself
            sums += block.sum(axis=0)
            if frames > _JUDGED * rate:
                break
        products -= np.outer(sums, sums) / max(frames, 1)
        powers, before = products.diagonal(), products.mean()
        mixed = np.zeros(channels)
        for number in np.argsort(-powers, kind="stable"):  # each as the louder ones together need
            signs[number] = -1 if (products[number] * mixed).sum() < 0 else 1
            mixed[number] = signs[number]
        after = (products * np.outer(signs, signs)).mean()
        cancels = before < powers.mean() / 4 and after > 2 * before
    if not cancels:
        return np.ones(channels, np.float32)
    turned = ", ".join(str(number + 1) for number in np.flatnonzero(signs < 0))
    _warn(f"{name}: the average of its channels cancels what is heard; channel {turned} is turned "
          "over first")  # fmt: skip
    return signs


def _to_16k(
    blocks: Iterable[np.ndarray], rate: float, name: str, signs: np.ndarray
) -> Iterator[np.ndarray]:
    """Average the channels of blocks (frames, channels) and resample; return the frames."""
    if not RATES.start <= rate < RATES.stop:
        raise AudioError(f"{name}: a sample rate of {rate:g} Hz; give audio of 4 to 768 kHz")
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames = made = 0
    for block in blocks:
        frames += len(block)
        if frames > LONGEST * rate:
            raise AudioError(f"{name} is longer than {LONGEST // 3600} hours; cut it into parts")
        block = block if signs.min() > 0 else block * signs
        mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise AudioError(f"{name} holds NaN or infinite samples; export it again")
        piece = mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono)
        made += len(piece)
        yield piece
    length = round(frames * SAMPLE_RATE / rate)
    if not length:
        raise AudioError(f"{name} holds no audio ({frames} samples); record or export it again")
    if rate != SAMPLE_RATE:  # whose length can differ by one
        last, left = resampler.resample_chunk(np.zeros(0, np.float32), last=True), length - made
        yield np.pad(last[:left], (0, max(0, left - len(last))))
    return frames


def _limited(waveform: np.ndarray) -> np.ndarray:
    peak = np.maximum(waveform.max(), -waveform.min())  # no copy of a long waveform; NaN stays
    return waveform / peak if peak > 1 else waveform
