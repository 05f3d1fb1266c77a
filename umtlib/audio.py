"""Any audio in, 16 kHz mono in the middle, a 16-bit WAV file out.

Files are decoded by libsndfile and resampled by soxr, both block by block: a long file costs the
memory of its 16 kHz result and no more. What a header claims is never trusted; only what decodes
counts. Notebook: ``01_quickstart``.

The level is measured as the loudness standards do (ITU-R BS.1770, EBU R128): without what is too
slow to hear, over what passes an absolute and a relative gate, and the peaks are limited, not
scaled to. But for the weighting of frequencies, which would make a flute quieter than a cello of
the same power: the shipped models have heard instruments of equal power.
"""

import contextlib
import io
import itertools
import os
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import butter, sosfilt, sosfilt_zi

from umtlib import files
from umtlib.errors import AudioError, UmtWarning
from umtlib.names import readable

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
LOWEST = 10.0  # Hz; what is slower is offset, drift and rumble
FRAME = SAMPLE_RATE // 20  # samples of which the power is measured
MOST_GAIN = 10 ** (40 / 20)  # by which a quiet recording is raised, and its noise with it
_MOST_CHANNELS = 64  # of an array; more means that time does not come first
_BLOCK = 1 << 20  # values (frames times channels) decoded at a time
_HIGHPASS = butter(2, LOWEST, "highpass", fs=SAMPLE_RATE, output="sos")
_SETTLED = sosfilt_zi(_HIGHPASS)
_PIECE = 1 << 16  # samples levelled at a time
_REACH = 80  # samples over which the limiter looks ahead, and back, before it turns down
_JUDGED = 600  # seconds that tell whether the channels cancel each other
# Bytes of samples, as those who write to a pipe and cannot know them say, if they do not say 0.
_NO_SIZE = (range(0x7FFFF000, 0x80010000), range(0xFFFFF000, 2**32), range(2**62, 2**64))


def read(path: str | os.PathLike) -> np.ndarray:
    """Read an audio file as 16 kHz mono.

    Any format of libsndfile (WAV, FLAC, OGG, MP3, AIFF...), sample rate, number of channels and
    length up to 12 hours. Channels are averaged; those that would cancel the others are turned over
    first, with a warning. If the result exceeds +-1 (float files can, and
    so can resampling of loud audio), all of it is scaled down to a peak of 1: nothing is clipped.
    From a truncated file comes what can be decoded, with a warning.

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
        with _opened(path) as (file, _):
            if file.subtype not in SUBTYPES:
                raise AudioError(f"{path} is coded as {file.subtype}, which is not read; "
                                 "convert it to plain WAV first")  # fmt: skip
            signs = _signs(_decode(file), file.channels, file.samplerate, str(path))
        with _opened(path) as (file, promise):
            frames = yield from _to_16k(_decode(file), file.samplerate, str(path), signs)
            _tell_what_lacks(path, frames / file.samplerate, promise, file)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(_UNREADABLE.format(path)) from error


class Recording:
    """What `stream` yields of a file, brought to `level`: decoded to be kept on the disk.

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
            self.samples, self.loudness = measure(map(self._keep, stream(path)))
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
        return levelled(self._read(samples), self.loudness)

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


def level(waveform: np.ndarray) -> np.ndarray:
    """Bring a recording to the level of the training audio: -20 dBFS root mean square.

    What is below 10 Hz is removed, if it changes the level. Of the rest the 50 ms frames above
    -70 dBFS and within 30 dB of the loudest count, so pauses do not; where "the loudest" leaves
    out 0.6 s, and nothing counts as more than 5 dB above it, so clicks and knocks do not
    either. Peaks are limited to -1 dBFS, and the gain to 40 dB: silence stays silence.

    Parameters
    ----------
    waveform : np.ndarray
        Floats in [-1, 1] at 16 kHz, shape (T,), T at least 1.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1], shape (T,).
    """
    return np.concatenate(list(levelled([waveform], measure([waveform])[1])))


def level_gain(waveform: np.ndarray) -> np.float32:
    """Return the factor by which `level` multiplies; it makes no copy of the waveform."""
    return measure([waveform])[1].gain


class Loudness(NamedTuple):
    """What `measure` finds.

    Attributes
    ----------
    gain : np.float32
        The factor by which `level` multiplies.
    slow : bool
        True if what is below 10 Hz must be removed first.
    """

    gain: np.float32
    slow: bool


def levelled(blocks: Iterable[np.ndarray], loudness: Loudness) -> Iterator[np.ndarray]:
    """Do what `level` does, block by block.

    Parameters
    ----------
    blocks : iterable of np.ndarray
        The recording at 16 kHz, each block of shape (samples,); from `stream`, for example.
    loudness : Loudness
        From `measure`.

    Yields
    ------
    np.ndarray
        float32 in [-1, 1], shape (samples,).
    """
    if loudness.slow:
        blocks = (steady for _, steady in _with_steady(blocks))
    pieces = (piece.astype(np.float32, copy=False) for piece in _small(blocks))
    return _peaks_limited(piece * loudness.gain for piece in pieces)


def measure(blocks: Iterable[np.ndarray]) -> tuple[int, Loudness]:
    """Count the samples of a recording, and find what brings it to the level, block by block.

    Parameters
    ----------
    blocks : iterable of np.ndarray
        The recording at 16 kHz, each block of shape (samples,); from `stream`, for example.

    Returns
    -------
    samples : int
        In all blocks together.
    loudness : Loudness
        For `levelled`.
    """
    powers, samples, rest = [], 0, np.zeros((2, 0), np.float32)
    for pair in _with_steady(blocks):
        samples, rest = samples + pair.shape[1], np.concatenate([rest, pair], axis=1)
        powers.append(_frame_powers(rest, FRAME))
        rest = rest[:, powers[-1].shape[1] * FRAME :]
    if samples < FRAME:
        powers = [_frame_powers(rest, samples)]
    whole, steady = map(_heard, np.concatenate(powers, axis=1))
    slow = bool(whole > 1.05 * steady)
    heard = np.sqrt(steady if slow else whole)
    return samples, Loudness(np.float32(min(LEVEL / max(heard, 1e-9), MOST_GAIN)), slow)


def _heard(power: np.ndarray) -> float:
    """Return the mean power of a recording's music, from that of all frames."""
    power = power[power >= 1e-7] if power.max() >= 1e-7 else power
    loudest = min(12, len(power) // 5)  # 0.6 s of knocks and clicks
    top = np.partition(power, -1 - loudest)[-1 - loudest]
    return np.minimum(power[power >= top * 1e-3], 3 * top).mean()


def _frame_powers(pair: np.ndarray, frame: int) -> np.ndarray:
    """Return the mean square of every whole frame, float64: `stream` does not limit its peaks."""
    whole = pair[:, : pair.shape[1] // frame * frame].reshape(2, -1, frame)
    return np.einsum("cft,cft->cf", whole, whole, dtype=np.float64) / frame


def _with_steady(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield small blocks, shape (2, samples): as they are, and without what is below `LOWEST`."""
    state = None
    for piece in _small(blocks):
        if state is None:  # an offset from the start on is no step
            state = _SETTLED * piece[:FRAME].mean(dtype=np.float64)
        steady, state = sosfilt(_HIGHPASS, piece, zi=state)
        yield np.stack([piece, steady]).astype(np.float32)


def _small(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut blocks into pieces that take little memory."""
    return (block[i : i + _PIECE] for block in blocks for i in range(0, len(block), _PIECE))


def _peaks_limited(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Turn down smoothly around every peak above `CEILING`, and nowhere else."""
    context, size = 2 * _REACH, 2 * _REACH + 1
    held, given = np.zeros(0, np.float32), 0  # samples, of which the first are given already
    for block in itertools.chain(blocks, [None]):
        held = held if block is None else np.concatenate([held, block])
        end = len(held) if block is None else max(given, len(held) - context)
        gain = CEILING / np.maximum(np.abs(held), CEILING)
        if len(gain) and gain.min() < 1:
            gain = uniform_filter1d(minimum_filter1d(gain.astype(np.float64), size), size)
            yield np.clip(held * gain, -CEILING, CEILING).astype(np.float32)[given:end]
        else:
            yield held[given:end]
        before = max(0, end - context)
        held, given = held[before:], end - before


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
    """Return a path as soundfile takes it, also one whose name is no valid text, or ``-``."""
    path = os.path.join(os.curdir, path)
    return os.fsencode(path) if os.name == "posix" else path


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


class _Mended(io.FileIO):
    """A file some bytes of which are read as others."""

    def __init__(self, path: Path, place: int, new: bytes):
        super().__init__(path)
        self.place, self.new = place, new

    def readinto(self, buffer) -> int:
        at, count = self.tell(), super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for place, byte in enumerate(self.new, self.place):
            if at <= place < at + count:
                view[place - at] = byte
        return count


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, float]]:
    """Open a file, whatever its header says of its length.

    Gives also how many times what the file holds its header promises; 1 if that cannot be told.
    """
    place, form, claimed, held = _find_samples(path) or (0, "B", 0, 0)
    if held > 0 and (claimed == 0 or claimed > held):
        most = 2 ** (8 * struct.calcsize(form)) - 1
        source = _Mended(path, place, struct.pack(form, min(held, most)))
    else:
        source = contextlib.nullcontext(native(path))
    lies = 0 < held < claimed - 1 and not any(claimed in sizes for sizes in _NO_SIZE)
    with source as opened, _Sequential(opened) as file:
        yield file, claimed / held if lies else 1.0


# By a file's first bytes: where its chunks begin, the bytes of their names, how their sizes are
# written, the bytes of name and size if they count too, to what chunks are padded, and whose are
# the samples.
_CHUNKS = {
    b"RIFF": (12, 4, "<I", 0, 2, b"data"), b"RIFX": (12, 4, ">I", 0, 2, b"data"),
    b"RF64": (12, 4, "<I", 0, 2, b"data"), b"FORM": (12, 4, ">I", 0, 2, b"SSND"),
    b"caff": (8, 4, ">Q", 0, 1, b"data"), b"riff": (40, 16, "<Q", 24, 8, b"data"),
}  # fmt: skip


def _find_samples(path: Path) -> tuple[int, str, int, int] | None:
    """Return where the size of the samples is written, how, what it is and what it can be.

    None where the format has none. A size of 0 before other chunks is true: the file is empty.
    """
    with path.open("rb") as file:
        end, magic = os.fstat(file.fileno()).st_size, file.read(4)
        if magic == b".snd":
            offset, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
            return 8, ">I", size, end - offset
        if magic not in _CHUNKS:
            return None
        at, word, form, own, padding, wanted = _CHUNKS[magic]
        long = None  # where RF64 has the size
        for name, size, body in _walk(file, at, word, form, own, padding):
            if name == b"ds64":
                long = body + 8
            if name.startswith(wanted):
                if size <= own and _ends_well(_walk(file, body, word, form, own, padding), end):
                    return None
                if long and size == 0xFFFFFFFF:
                    file.seek(long)
                    given = file.read(8)
                    if len(given) < 8:
                        return None
                    return long, "<Q", *struct.unpack("<Q", given), end - body
                return body - struct.calcsize(form), form, size, end - body + own
    return None


def _walk(file, at: int, word: int, form: str, own: int, padding: int) -> Iterator[tuple]:
    """Yield name, size and place of the content of a file's chunks; a thousand at most."""
    width, end = struct.calcsize(form), os.fstat(file.fileno()).st_size
    for _ in range(1000):
        if at > end:  # some file systems refuse to go there
            return
        file.seek(at)
        header = file.read(word + width)
        if len(header) < word + width:
            return
        name, (size,) = header[:word], struct.unpack(form, header[word:])
        yield name, size, at + word + width
        at = min(2**62, at + word + width + -(-max(0, size - own) // padding) * padding)


def _ends_well(chunks: Iterable[tuple], end: int) -> bool:
    """Say whether these are chunks up to the end of the file, and no samples."""
    last = 0
    for name, size, body in chunks:
        if not name[:4].isascii() or not name[:4].decode("ascii").isprintable():
            return False
        last = body + size
    return abs(last - end) <= 1


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
            offset = block[:FRAME].mean(axis=0, dtype=np.float64) if offset is None else offset
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
    if rate != SAMPLE_RATE:
        yield _fit(resampler.resample_chunk(np.zeros(0, np.float32), last=True), length - made)
    return frames


def _fit(piece: np.ndarray, length: int) -> np.ndarray:
    """Settle the one sample by which the resampler's length can differ."""
    return np.pad(piece[:length], (0, max(0, length - len(piece))))


def _limited(waveform: np.ndarray) -> np.ndarray:
    peak = _peak(waveform)
    return waveform / peak if peak > 1 else waveform


def _peak(waveform: np.ndarray) -> np.floating:
    return np.maximum(waveform.max(), -waveform.min())  # no copy of a long waveform; NaN stays
