"""The one format in which every corpus lies on disk, and the way to read it.

A corpus is a folder with ``manifest.jsonl``, one line (a JSON object) per track::

    {"domain": "bach_organ", "split": "train", "file": "train/bach_organ/bwv66.6.wav",
     "seconds": 61.5, "sha256": "...", ...}

``file`` is relative to the folder: 16 kHz, mono, 16 bit, either ``.wav`` (memory-mapped, so that a
corpus may be larger than the memory) or ``.flac`` (decoded once, for the small corpora that ship).
Further fields say where the track came from. ``skipped.jsonl`` beside it lists what was left out
and why.
"""

import hashlib
import json
import os
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import soundfile

from umtlib import files
from umtlib.audio import SAMPLE_RATE
from umtlib.config import Range, check
from umtlib.errors import ConfigError, CorpusError

SPLITS = ("train", "val", "test")  # a track is never in two
Made = TypeVar("Made")
MANIFEST = "manifest.jsonl"
SKIPPED = "skipped.jsonl"


@dataclass(frozen=True)
class Track:
    """One recording of a corpus: what the manifest says of it."""

    domain: str
    split: Literal["train", "val", "test"]
    file: str  # relative to the corpus folder, with ``/`` as separator
    seconds: Annotated[float, Range(0, 10**9)]
    sha256: str  # hex digest of the file
    source: Mapping = field(default_factory=dict)  # all further fields: piece, licence...

    def fields(self) -> dict:
        """Return its line of the manifest."""
        return {name: getattr(self, name) for name in _OWN_FIELDS} | dict(self.source)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Track":
        """Read a manifest line; what is none raises one of the errors that `read_lines` names."""
        fields = files.parse_json(line)
        track = cls(*(fields.pop(name) for name in _OWN_FIELDS), source=fields)
        check(track)
        return track


_OWN_FIELDS = ("domain", "split", "file", "seconds", "sha256")


class Corpus:
    """A folder with a ``manifest.jsonl``; without one that can be read it raises a CorpusError."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.tracks = tuple(read_manifest(self.folder / MANIFEST))
        self.domains = tuple(sorted({track.domain for track in self.tracks}))

    def select(self, domain: str, split: str) -> list[Track]:
        """Return the tracks of one domain and split, in manifest order."""
        return [t for t in self.tracks if t.domain == domain and t.split == split]

    def audio(self, track: Track) -> np.ndarray:
        """Return a track's samples, int16, shape (T,); see `open_audio`."""
        return _kept_open(self.folder / track.file)


def open_audio(path: Path) -> np.ndarray:
    """Return the samples of a file, int16, shape (T,), memory-mapped where it is a WAV file.

    What cannot be read, or is not 16 kHz, mono, 16 bit, raises a CorpusError.
    """
    try:
        if path.suffix == ".wav":
            rate, samples = _map_wav(path)
        else:
            samples, rate = soundfile.read(path, dtype="int16")
    except (OSError, EOFError, ValueError, wave.Error, soundfile.LibsndfileError) as error:
        raise CorpusError(f"cannot read {path}: {error}; prepare the corpus again") from error
    if rate != SAMPLE_RATE or samples.ndim != 1 or samples.dtype != np.int16:
        raise CorpusError(f"{path} is not 16 kHz, mono, 16 bit; prepare it with 'umt corpus' first")
    return samples


_kept_open = lru_cache(maxsize=512)(open_audio)


def _map_wav(path: Path) -> tuple[int, np.ndarray]:
    """Map a file's samples read-only, so that they are never part of a process's own memory."""
    with open(path, "rb") as file, wave.open(file) as wav:
        if (wav.getnchannels(), wav.getsampwidth()) != (1, 2):
            return 0, np.zeros(0)  # refused by the caller
        # `wave` has read up to the first sample.
        return wav.getframerate(), np.memmap(file, "<i2", "r", file.tell(), (wav.getnframes(),))


def read_manifest(path: Path) -> Iterator[Track]:
    """Yield the tracks of a manifest; a CorpusError if it is missing, or a line cannot be read."""
    if not path.is_file():
        raise CorpusError(f"{path.parent} is no corpus: it has no {path.name}; make one from it by "
                          "'umt corpus folder', 'nsynth' or 'musicnet'")  # fmt: skip
    return read_lines(path, Track.from_json)


def read_lines(path: Path, make: Callable[[bytes], Made]) -> Iterator[Made]:
    """Yield what is made of each line of a file, or raise CorpusError if nothing can be made."""
    with files.open_regular(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield make(line)
            except (ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
                text = f"{path}, line {number}: {error}; prepare the corpus again"
                raise CorpusError(text) from error


def write_manifest(path: Path, lines: Iterable[Track | Mapping]) -> None:
    """Write tracks (or plain mappings, for ``skipped.jsonl``) one a line, atomically."""
    # Two processes that merge the same shards may write at the same time: equal lines, own files.
    with files.replacing(path) as part, part.open("w", encoding="utf-8") as out:
        for line in lines:
            fields = line.fields() if isinstance(line, Track) else line
            out.write(json.dumps(fields, ensure_ascii=False) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """Return the hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
