"""Audio files opened for decoding, whatever their headers say: only what decodes counts."""

import contextlib
import io
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

import soundfile

from umtlib.errors import AudioError

UNREADABLE = "{} cannot be decoded as audio; convert it to WAV first, with ffmpeg or an editor"
# What decodes without surprises. The codecs of games, telephones and old samplers are left out:
# their decoders have had most of libsndfile's memory errors.
SUBTYPES = (
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
    "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III",
)  # fmt: skip
# By a file's first bytes: the name after which the size of the samples is written, how many bytes
# after its beginning, and how. Of AIFF and W64, libsndfile believes the length of the file itself.
_SIZES = {
    b"RIFF": (b"data", 4, "<I"), b"RIFX": (b"data", 4, ">I"), b"RF64": (b"ds64", 16, "<Q"),
    b"caff": (b"data", 4, ">Q"), b".snd": (b".snd", 8, ">I"),
}  # fmt: skip
# A line of libsndfile's log: the size of the samples, or of a whole W64 or RF64, is corrected.
_CORRECTED = re.compile(r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
_MAGICS = (*_SIZES, b"FORM", b"riff", b"fLaC", b"OggS")


def native(path: str | os.PathLike) -> str | bytes:
    """Return a path as soundfile takes it, also one whose name is no valid text, or ``-``."""
    path = os.path.join(os.curdir, path)
    return os.fsencode(path) if os.name == "posix" else path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, float]]:
    """Open a file; also give the ratio of what its header promises to what is there.

    The ratio is 1 if the header promises no more than that, or if that cannot be told.

    Raises
    ------
    AudioError
        If it cannot be read, or is nothing that is decoded here.
    """
    magic = _check(path)
    with contextlib.ExitStack() as stack:
        file, ratio = None, 1.0
        with contextlib.suppress(soundfile.LibsndfileError):
            file = stack.enter_context(_Sequential(native(path)))
            if corrected := _CORRECTED.findall(file.extra_info):
                ratio = _ratio(*map(int, corrected[-1]))
        empty = magic in _SIZES and not (file and file.frames)
        if empty and (mended := _to_the_end(path, *_SIZES[magic])):
            raw, ratio = mended
            file = stack.enter_context(_Sequential(stack.enter_context(raw)))
        if file is None:
            raise AudioError(UNREADABLE.format(path))
        if file.subtype not in SUBTYPES:
            raise AudioError(f"{path} is coded as {file.subtype}, which is not read; "
                             "convert it to plain WAV first")  # fmt: skip
        yield file, ratio


def _check(path: Path) -> bytes:
    """Return the first bytes of what is a file and may be audio."""
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
    mp3 = start[:3] == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")
    known = start[:4] in _MAGICS and (start[:4] != b"FORM" or start[8:12] in (b"AIFF", b"AIFC"))
    if not (mp3 or known):  # no other parser of libsndfile is let near it
        raise AudioError(UNREADABLE.format(path))
    return start[:4]


def _ratio(claimed: int, held: int) -> float:
    # Who writes to a pipe cannot know the size, and says a number near one of these.
    unknown = any(abs(claimed - 2**bits) <= 2**16 for bits in (31, 32, 63, 64))
    return claimed / held if 0 < held < claimed - 1 and not unknown else 1.0


class _Sequential(soundfile.SoundFile):
    """soundfile seeks after every read, which breaks the sound of an MP3 there; this does not."""

    def seekable(self) -> bool:
        return False


class _Mended(io.FileIO):
    """A file that is read as if there were other bytes in one place."""

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


def _to_the_end(path: Path, name: bytes, offset: int, form: str) -> tuple[_Mended, float] | None:
    """Correct the size of the samples so that they go on to the end; also return the ratio.

    None where no size is found, or where what follows is not samples but one chunk of text.
    """
    with path.open("rb") as file:
        start, end = file.read(1 << 20), os.fstat(file.fileno()).st_size
    width, place = struct.calcsize(form), start.find(name) + offset
    samples = place + width
    held, head = end - samples, start[samples : samples + 4 + width]
    if name not in start or len(head) < 4 + width:
        return None
    (claimed,), (following,) = (struct.unpack(form, x) for x in (start[place:samples], head[4:]))
    text = head[:4].isascii() and head[:4].decode().isprintable()
    if text and held - len(head) - following in (0, 1):
        return None
    true = struct.pack(form, min(held, 2 ** (8 * width) - 1))
    return _Mended(path, place, true), _ratio(claimed, held)
