"""Audio files opened for decoding by libsndfile."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import soundfile

from umtlib import files
from umtlib.errors import AudioError

# What decodes without surprises. The codecs of games, telephones and old samplers are left out:
# their decoders have had most of libsndfile's memory errors.
SUBTYPES = (
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
    "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III",
)  # fmt: skip
# A line of libsndfile's log: the bytes that a header claims, and those that are there; of samples
# or, in W64 and RF64, of nearly nothing else.
_CLAIM = re.compile(r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
_UNKNOWN = 2**31 - 2**16  # who writes to a pipe claims as much or more


def native(path: str | os.PathLike) -> str | bytes:
    """Return a path as soundfile takes it, also one whose name is no valid text."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, float]]:
    """Open a file; also give the number of frames that its header promises.

    What cannot be read, or has a codec that is not decoded here, raises AudioError; what is no
    audio raises what soundfile does.
    """
    try:
        files.open_regular(path).close()  # a pipe would be waited for
    except OSError as error:
        reason = error.strerror or "not a regular file"
        raise AudioError(f"cannot read {path}: {reason}; name an audio file") from error
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_Sequential(native(path)))
        if file.format == "WAV" and not file.frames:
            file = stack.enter_context(_Sequential(stack.enter_context(_Unfinished(path))))
        if file.subtype not in SUBTYPES:
            raise AudioError(f"{path} is coded as {file.subtype}, which is not read; "
                             "convert it to plain WAV first")  # fmt: skip
        claimed, held = map(int, (_CLAIM.findall(file.extra_info) or [(0, 1)])[-1])
        yield file, file.frames * (claimed / max(held, 1) if held < claimed < _UNKNOWN else 1)


class _Sequential(soundfile.SoundFile):
    """soundfile seeks after every read, which breaks the sound of an MP3 there; this does not."""

    def seekable(self) -> bool:
        return False


class _Unfinished(io.FileIO):
    """A WAV file whose recorder was cut off: its size, 0, reads as 2**32 - 1, to the file's end."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.size = self.read(1 << 16).find(b"data") + 4
        self.seek(0)

    def readinto(self, buffer) -> int:
        at, count = self.tell(), super().readinto(buffer)
        first, last = max(at, self.size) - at, min(at + count, self.size + 4) - at
        if first < last:
            memoryview(buffer).cast("B")[first:last] = b"\xff" * (last - first)
        return count
