"""Any audio in, 16 kHz mono in the middle, a 16-bit WAV file out.

Files are decoded by libsndfile and resampled by soxr, both block by block: a long file costs the
memory of its 16 kHz result and no more. What a header claims is never trusted; only what decodes
counts. Notebook: ``01_quickstart``.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from umtlib.errors import AudioError

SAMPLE_RATE = 16_000
LONGEST = 12 * 3600  # seconds; what decodes to more than this is refused, not collected in memory
# What decodes without surprises. The codecs of games, telephones and old samplers are left out:
# their decoders have had most of libsndfile's memory errors.
SUBTYPES = (
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
    "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III",
)  # fmt: skip
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b".snd", b"caff")  # see _is_known
_UNREADABLE = "{} cannot be decoded as audio; convert it to WAV first, with ffmpeg or an editor"
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
    return _limited(np.concatenate(list(stream(path))))


def stream(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Do what `read` does, block by block, for files that are longer than the memory allows.

    Parameters
    ----------
    path : path
        The file.

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
    _check_file(path)
    try:
        with _Sequential(native(path)) as file:
            if file.subtype not in SUBTYPES:
                raise AudioError(f"{path} is coded as {file.subtype}, which is not read; "
                                 "convert it to plain WAV first")  # fmt: skip
            yield from _to_16k(_decode(file), file.samplerate, str(path))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(_UNREADABLE.format(path)) from error


class Recording:
    """What `stream` yields of a file, brought to `level`: decoded once, and kept on the disk.

    Parameters
    ----------
    path : path
        The file.
    kept : file
        To read and write, such as a `tempfile.TemporaryFile`; 64 KB per second are appended.

    Raises
    ------
    AudioError
        As `read`; or if there is no room to keep it.
    """

    def __init__(self, path: str | os.PathLike, kept: BinaryIO):
        self.kept, self.start = kept, kept.seek(0, os.SEEK_END)
        try:
            self.samples, self.gain = measure(self._keep(block) for block in stream(path))
        except OSError as error:
            raise AudioError(
                f"{path} cannot be kept decoded in {tempfile.gettempdir()}: {error.strerror}; set "
                "TMPDIR to a folder on a larger disk"
            ) from error

    def _keep(self, block: np.ndarray) -> np.ndarray:
        self.kept.write(block.tobytes())
        return block

    def blocks(self, samples: int | None = None) -> Iterator[np.ndarray]:
        """Yield all of it, or so many samples, as float32 blocks of shape (block,)."""
        samples = self.samples if samples is None else min(samples, self.samples)
        for first in range(0, samples, _BLOCK):
            self.kept.seek(self.start + 4 * first)
            data = self.kept.read(4 * min(_BLOCK, samples - first))
            yield np.frombuffer(data, np.float32) * self.gain


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
    return _limited(np.concatenate(list(_to_16k(blocks, sample_rate, "the audio"))))


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
    return (waveform * level_gain(waveform)).astype(np.float32, copy=False)


def level_gain(waveform: np.ndarray) -> np.float32:
    """Return the factor by which `level` multiplies; it makes no copy of the waveform."""
    return measure(waveform[i : i + _BLOCK] for i in range(0, len(waveform), _BLOCK))[1]


def measure(blocks: Iterable[np.ndarray]) -> tuple[int, np.float32]:
    """Count the samples of a recording, and find its `level_gain`, block by block.

    Parameters
    ----------
    blocks : iterable of np.ndarray
        The recording at 16 kHz, each block of shape (samples,); from `stream`, for example.

    Returns
    -------
    samples : int
        In all blocks together.
    gain : np.float32
        The factor by which `level` would multiply.
    """
    frame, powers, peak, samples, rest = SAMPLE_RATE // 20, [], 0.0, 0, np.zeros(0, np.float32)
    for block in blocks:
        if len(block):
            samples, peak = samples + len(block), np.maximum(peak, _peak(block))
        rest = np.concatenate([rest, block])
        powers.append(_frame_powers(rest, frame))
        rest = rest[len(powers[-1]) * frame :]
    if samples < frame:
        powers = [_frame_powers(rest, samples)]
    power = np.concatenate(powers)
    heard = np.sqrt(power[power >= power.max() * 1e-3].mean())
    gain = min(LEVEL / max(heard, 1e-9), CEILING / max(peak, 1e-9), MOST_GAIN)
    return samples, np.float32(gain)


def _frame_powers(waveform: np.ndarray, frame: int) -> np.ndarray:
    """Return the mean square of every whole frame, float64: `stream` does not limit its peaks."""
    whole = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    return np.einsum("ft,ft->f", whole, whole, dtype=np.float64) / frame


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


def native(path: str | os.PathLike) -> str | bytes:
    """Return a path as soundfile takes it, also one whose name is no valid text."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


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
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        mend = "check the name" if isinstance(error, FileNotFoundError) else "check its permissions"
        raise AudioError(f"cannot read {path}: {error.strerror}; {mend}") from error
    if status.st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); record or export it again")
    if not _is_known(start):
        raise AudioError(_UNREADABLE.format(path))


def _is_known(start: bytes) -> bool:
    """Say whether a file starts as one of the formats that may reach libsndfile's parsers."""
    mp3 = start[:3] == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")
    aiff = start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC")
    return mp3 or aiff or start[:4] in _MAGIC


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


def _to_16k(blocks: Iterable[np.ndarray], rate: float, name: str) -> Iterator[np.ndarray]:
    """Average the channels of blocks (frames, channels) and resample."""
    if not RATES.start <= rate < RATES.stop:
        raise AudioError(f"{name}: a sample rate of {rate:g} Hz; give audio of 4 to 768 kHz")
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames = made = 0
    for block in blocks:
        frames += len(block)
        if frames > LONGEST * rate:
            raise AudioError(f"{name} is longer than {LONGEST // 3600} hours; cut it into parts")
        mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise AudioError(f"{name} holds NaN or infinite samples; export it again")
        piece = mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono)
        made += len(piece)
        yield piece
    length = round(frames * SAMPLE_RATE / rate)
    if not length:
        raise AudioError(f"{name} holds no audio ({frames} samples); record or export it again")
    if rate != SAMPLE_RATE:
        yield _fit(resampler.resample_chunk(np.zeros(0, np.float32), last=True), length - made)


def _fit(piece: np.ndarray, length: int) -> np.ndarray:
    """Settle the one sample by which the resampler's length can differ."""
    return np.pad(piece[:length], (0, max(0, length - len(piece))))


def _limited(waveform: np.ndarray) -> np.ndarray:
    peak = _peak(waveform)
    return waveform / peak if peak > 1 else waveform


def _peak(waveform: np.ndarray) -> np.floating:
    return np.maximum(waveform.max(), -waveform.min())  # no copy of a long waveform; NaN stays
