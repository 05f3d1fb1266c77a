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
from umtlib.audio.levels import CEILING, LEVEL, SAMPLE_RATE, level, level_gain, levelled, measure
from umtlib.audio.opening import native, opened
from umtlib.errors import AudioError, UmtWarning
from umtlib.files.names import readable

__all__ = [
    "CEILING", "LEVEL", "SAMPLE_RATE", "Recording", "level", "level_gain", "levelled", "measure",
    "native", "read", "replacing", "stream", "to_mono_16k", "write", "writing",
]  # fmt: skip

LONGEST = 12 * 3600  # seconds; what decodes to more than this is refused, not collected in memory
_MOST_CHANNELS = 64  # of an array; more means that time does not come first
_BLOCK = 1 << 18  # values (frames times channels) decoded at a time


def read(path: str | os.PathLike) -> np.ndarray:
    """Read an audio file as 16 kHz mono.

    Any format of libsndfile (WAV, FLAC, OGG, MP3, AIFF...), sample rate, number of channels and
    length up to 12 hours. Channels are averaged; of two that would cancel each other the louder is
    taken, with a warning. If the result exceeds +-1 (float files can, and so can resampling of loud
    audio), all of it is scaled down to a peak of 1: nothing is clipped. From a truncated file comes
    what can be decoded, with a warning. A 16 kHz mono 16-bit file is returned without any change.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1], shape (T,), T = round(frames * 16000 / rate), never 0.

    Raises
    ------
    AudioError
        If the file cannot be opened or decoded, or holds no audio, or holds NaN or infinities.
    """
    return _limited(np.concatenate(list(stream(path))))


def stream(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Do what `read` does, block by block, for files that are longer than the memory allows.

    Joined, the blocks are what `read` returns, but not scaled down to a peak of 1. AudioError is
    raised where reading has got to what is wrong.
    """
    path = Path(path)
    try:
        with opened(path) as (file, promised):
            frames = yield from _to_16k(_decode(file), file.samplerate, str(path))
            lacking = promised - 1.02 * frames  # of an MP3 the promise is an estimate
            if 0.1 * file.samplerate < lacking < 2**62:  # more: the header of FLAC does not say it
                _warn(f"{path} holds {frames / file.samplerate:.4g} s of the "
                      f"{promised / file.samplerate:.4g} s that its header says; it is used as far "
                      "as it goes")  # fmt: skip
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be decoded as audio; convert it to WAV first, for example with ffmpeg"
        ) from error


class Recording:
    """What `stream` yields of a file, brought to `level`: decoded to be kept on the disk.

    64 KB per second are appended to ``kept``, such as a `tempfile.TemporaryFile`. ``span`` is
    from the lowest sample to the highest, in the liveliest block, before it is levelled.
    """

    def __init__(self, path: str | os.PathLike, kept: BinaryIO):
        start, self.samples, self.span = kept.seek(0, os.SEEK_END), 0, 0.0
        for block in filter(len, stream(path)):
            self.samples += kept.write(block.tobytes()) // block.itemsize
            self.span = max(self.span, float(np.ptp(block)))
        kept.flush()
        self.waveform = np.memmap(kept, np.float32, "r", start, (self.samples,))
        self.loudness = measure(self.waveform)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all of it as float32 blocks of shape (block,)."""
        return levelled(self.waveform, self.loudness)

    def beginning(self, samples: int) -> np.ndarray:
        """Return its first samples, or all if there are fewer."""
        return np.concatenate([*levelled(self.waveform[:samples], self.loudness)])


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
    samples = _as_float(audio[:, None] if audio.ndim == 1 else audio)
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= _MOST_CHANNELS:
        raise AudioError(f"audio has shape {audio.shape}; give (frames,) or (frames, channels)")
    step = _BLOCK // samples.shape[1]
    blocks = (samples[start : start + step] for start in range(0, len(samples), step))
    return _limited(np.concatenate(list(_to_16k(blocks, sample_rate, "the audio"))))


def write(path: str | os.PathLike, waveform: np.ndarray) -> None:
    """Write a waveform, floats in [-1, 1], shape (T,), as a 16 kHz mono 16-bit WAV file.

    What is beyond is clipped. The file appears under its name only when it is complete; one that is
    there is replaced. A waveform that is not finite, or a file that cannot be written, raises
    AudioError.
    """
    with writing(path) as put:
        put(waveform)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Callable[[np.ndarray], None]]:
    """Do what `write` does, piece by piece: gives a function that takes the next piece.

    It raises AudioError as `write` does, and whatever is raised inside leaves no file.
    """

    def put(waveform: np.ndarray) -> None:
        if not np.isfinite(waveform).all():
            raise AudioError(f"{path} is not written: the waveform holds NaN or infinite samples")
        pcm = np.clip(np.round(np.asarray(waveform) * 32768.0), -32768, 32767)
        file.write(pcm.astype(np.int16))

    kind = {"samplerate": SAMPLE_RATE, "channels": 1, "subtype": "PCM_16", "format": "WAV"}
    with replacing(path) as part, soundfile.SoundFile(native(part), "w", **kind) as file:
        yield put


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Do what `files.replacing` does, and raise AudioError if the file cannot be written."""
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


def _warn(text: str) -> None:
    warnings.warn(readable(text), UmtWarning, stacklevel=2)


def _mono(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Average the channels of blocks (frames, channels).

    Of two that cancel each other where they begin to sound, as when one is wired the wrong way
    round, the louder is taken: their average has a quarter of their power or less.
    """
    heard, judged = slice(None), False
    for block in blocks:
        if block.shape[1] == 2 and not judged and block.any():
            with np.errstate(all="ignore"):  # what is not finite is refused later
                judged, powers = True, block.var(axis=0, dtype=np.float64)
                cancel = block.mean(axis=1, dtype=np.float64).var() < powers.mean() / 4
            if cancel:
                louder = int(powers[1] > 1.1 * powers[0])
                heard = slice(louder, louder + 1)
                _warn(f"{name}: its two channels cancel each other; only the "
                      f"{('first', 'second')[louder]} is heard")  # fmt: skip
        yield block[:, heard].mean(axis=1, dtype=np.float32)


def _to_16k(blocks: Iterable[np.ndarray], rate: float, name: str) -> Iterator[np.ndarray]:
    """Average the channels of blocks (frames, channels) and resample; return the frames."""
    if not 4_000 <= rate <= 768_000:  # the header is damaged
        raise AudioError(f"{name}: a sample rate of {rate:g} Hz; give audio of 4 to 768 kHz")
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames = made = 0
    for mono in _mono(blocks, name):
        frames += len(mono)
        if frames > LONGEST * rate:
            raise AudioError(f"{name} is longer than {LONGEST // 3600} hours; cut it into parts")
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
