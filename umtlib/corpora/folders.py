"""Anybody's recordings, as a corpus: one folder of audio files per domain.

The tree below a folder may have any shape. What programs keep beside people's files (hidden files
and folders, checkpoints, trash, the forks of a Mac) is no part of it. What happens to each file:
see `prepare`.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path

from umtlib.corpora.prepare import Item, Summary, prepare
from umtlib.errors import CorpusError
from umtlib.files.names import readable

# What is tried. Those that libsndfile cannot decode are refused with advice, not passed over.
SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc",
    ".au", ".snd", ".caf", ".w64", ".rf64", ".m4a", ".mp4", ".aac", ".wma", ".webm", ".ape", ".wv",
)  # fmt: skip
# Of operating systems and storage servers, not of people; beside what begins with a dot.
_KEPT_BY_PROGRAMS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir")


def build(
    domains: Mapping[str, str | os.PathLike], out: str | os.PathLike, **settings
) -> Summary | None:
    """Make a corpus of a folder of recordings for each domain; settings are those of `prepare`.

    Folders that are not apart, or without enough recordings, raise a CorpusError.
    """
    _check_apart([out, *domains.values()])
    items: list[Item] = []
    left_out: list[dict] = []
    for domain, root in domains.items():
        for path in _walk(root):
            name = os.path.relpath(path, root)
            if reason := _unwanted(path):
                left_out.append({"file": readable(name), "domain": domain, "reason": reason})
            else:
                items.append(Item(path, name, domain, group_of(name)))
        if not any(item.domain == domain for item in items):
            raise CorpusError(f"{root} is no folder with audio files for domain {domain!r}")
    return prepare(items, out, left_out=left_out, **settings)


def group_of(name: str) -> str:
    """Return what a file's name says about the recording, the same in every format.

    A number at the end tells recordings apart: a copy is what has the same content.

    >>> group_of("Bach/Suite (1).mp3") == group_of("bach/suite (1).wav")
    True
    """
    return unicodedata.normalize("NFC", os.path.splitext(readable(name))[0]).casefold().strip()


def _check_apart(folders: list[str | os.PathLike]) -> None:
    """What is written must not be read by the next run, and no recording be of two domains."""
    for one, other in permutations([Path(os.path.realpath(folder)) for folder in folders], 2):
        if one.is_relative_to(other):
            raise CorpusError(f"{one} is inside {other}; the folders must be apart")


def _walk(root: str | os.PathLike) -> Iterator[str]:
    """Yield every file, in a fixed order; only the folder if it is hidden, shut or a link."""
    shut: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=shut.append):
        closed = {n for n in folders if _hidden(n) or os.path.islink(os.path.join(folder, n))}
        folders[:] = sorted(set(folders) - closed)
        yield from (os.path.join(folder, name) for name in sorted([*names, *closed]))
    yield from (error.filename for error in shut if os.path.isdir(error.filename))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _KEPT_BY_PROGRAMS


def _unwanted(path: str) -> str | None:
    """Say why a file is not to be read, if so."""
    suffix = os.path.splitext(path)[1].lower()
    if _hidden(os.path.basename(path)):
        return "hidden, or kept by a program"
    if os.path.islink(path) and os.path.isdir(path):
        return "a link to a folder, which is not followed"
    if os.path.isdir(path):
        return "a folder that cannot be read"
    return None if suffix in SUFFIXES else f"no audio file by its name ({readable(suffix)!r})"
