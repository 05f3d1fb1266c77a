"""Any audio in, 16 kHz mono in the middle, a 16-bit WAV file out.

Files are decoded by libsndfile and resampled by soxr, both block by block: a long file costs the
memory of its 16 kHz result and no more. What a header claims is never trusted; only what decodes
counts. Notebook: ``01_quickstart``.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG

import numpy as np
import soundfile
import soxr

from umtlib.errors import AudioError

SAMPLE_RATE = 16_000
LONGEST = 12 * 3600  # seconds; what decodes to more than this is refused, not collected in memory
RATES = range(4_000, 768_001)  # Hz; a header with another rate is damaged
LEVEL = 10 ** (-20 / 20)  # root mean square at which all training audio is
CEILING = 10 ** (-1 / 20)  # its highest peak
MOST_GAIN = 10 ** (40 / 20)  # by which a quiet recording is raised, and its noise with it
_MOST_CHANNELS = 64  # of an array; more means that time does not come first
_BLOCK = 1 << 20  # values (frames times channels) decoded at a time


def read(path: str | os.PathLike) -> np.ndarray:
    """Read an audio file as 16 kHz mono.

    Any format of libsndfile (WAV, FLAC, OGG, MP3, AIFF...), sample rate, number of channels and
    length up to 12 hours. Channels are averaged. If the result exceeds +-1 (float files can, and
    so can resampling of loud audio), all of it is scaled down to a peak of 1: nothing is clipped.
    From a truncated file comes what can be decoded.

    Parameters
    ----------
    path : path
        The file.

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
    path = Path(path)
    _check_file(path)
    try:
        with _Sequential(path) as file:
            return _to_16k(_decode(file), file.samplerate, str(path))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be decoded as audio; convert it to WAV first, with ffmpeg or an editor"
        ) from error


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
    blocks = (samples[start : start + step] for start in range(0, len(samples), step))
    return _to_16k(blocks, sample_rate, "the audio")


def level(waveform: np.ndarray) -> np.ndarray:
    """Bring a recording to the level of the training audio: -20 dBFS root mean square.

    Pauses do not count: only the 50 ms frames within 30 dB of the loudest one do. The peak stays
    below -1 dBFS, and the gain below 40 dB: silence stays silence.

    Parameters
    ----------
    waveform : np.ndarray
        Floats in [-1, 1] at 16 kHz, shape (T,), T at least 1.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1], shape (T,).
    """
    frame = min(len(waveform), SAMPLE_RATE // 20)
    whole = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    power = np.einsum("ft,ft->f", whole, whole) / frame
    heard = np.sqrt(power[power >= power.max() * 1e-3].mean())
    gain = min(LEVEL / max(heard, 1e-9), CEILING / max(_peak(waveform), 1e-9), MOST_GAIN)
    return (waveform * np.float32(gain)).astype(np.float32, copy=False)


def write(path: str | os.PathLike, waveform: np.ndarray) -> None:
    """Write a waveform as a 16 kHz mono 16-bit WAV file.

    The file appears under its name only when it is complete; one that is there is replaced.

    Parameters
    ----------
    path : path
        The file.
    waveform : np.ndarray
        Floats in [-1, 1], shape (T,); beyond is clipped.

    Raises
    ------
    AudioError
        If the waveform is not finite, or the file cannot be written.
    """
    if not np.isfinite(waveform).all():
        raise AudioError(f"{path} is not written: the waveform holds NaN or infinite samples")
    pcm = np.clip(np.round(np.asarray(waveform) * 32768.0), -32768, 32767).astype(np.int16)
    with replacing(path) as part:
        soundfile.write(part, pcm, SAMPLE_RATE, subtype="PCM_16", format="WAV")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to ``path`` at the end, or remove it.

    Raises
    ------
    AudioError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise AudioError(f"cannot write {path}: {reason}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise AudioError(f"{path} is {kind}; name an audio file")
        path.open("rb").close()
    except OSError as error:
        mend = "check the name" if isinstance(error, FileNotFoundError) else "check its permissions"
        raise AudioError(f"cannot read {path}: {error.strerror}; {mend}") from error
    if status.st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); record or export it again")


class _Sequential(soundfile.SoundFile):
    """soundfile seeks after every read, which breaks the sound of an MP3 there; this does not."""

    def seekable(self) -> bool:
        return False


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


def _to_16k(blocks: Iterable[np.ndarray], rate: float, name: str) -> np.ndarray:
    """Average the channels of blocks (frames, channels), resample, and limit the peak to 1."""
    if not RATES.start <= rate < RATES.stop:
        raise AudioError(f"{name}: a sample rate of {rate:g} Hz; give audio of 4 to 768 kHz")
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames, pieces = 0, []
    for block in blocks:
        frames += len(block)
        if frames > LONGEST * rate:
            raise AudioError(f"{name} is longer than {LONGEST // 3600} hours; cut it into parts")
        mono = block.mean(axis=1, dtype=np.float32)
        pieces.append(mono if rate == SAMPLE_RATE else stream.resample_chunk(mono))
    if rate != SAMPLE_RATE:
        pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    length = round(frames * SAMPLE_RATE / rate)
    if not length:
        raise AudioError(f"{name} holds no audio ({frames} samples); record or export it again")
    return _limited(_fit(pieces, length), name)


def _fit(pieces: list[np.ndarray], length: int) -> np.ndarray:
    """Join, and settle the one sample by which the resampler's length can differ."""
    missing = length - sum(map(len, pieces))
    return np.concatenate([*pieces, np.zeros(max(0, missing), np.float32)])[:length]


def _limited(waveform: np.ndarray, name: str) -> np.ndarray:
    peak = _peak(waveform)
    if not np.isfinite(peak):
        raise AudioError(f"{name} holds NaN or infinite samples; export it again")
    return waveform / peak if peak > 1 else waveform


def _peak(waveform: np.ndarray) -> np.floating:
    return np.maximum(waveform.max(), -waveform.min())  # no copy of a long waveform; NaN stays
