"""Anybody's recordings, as a corpus: one folder of audio files per domain.

The tree below a folder may have any shape. What programs keep beside people's files (hidden files
and folders, checkpoints, trash, the forks of a Mac) is no part of it. What happens to each file:
see `prepare`.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from umtlib.corpora.prepare import Item, Summary, check_names, prepare, stamp
from umtlib.errors import CorpusError
from umtlib.files.names import readable

# What is tried. Those that libsndfile cannot decode are refused with advice, not passed over.
SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc",
    ".au", ".snd", ".caf", ".w64", ".rf64", ".m4a", ".mp4", ".aac", ".wma", ".webm", ".ape", ".wv",
)  # fmt: skip
# Of operating systems and storage servers, not of people; beside what begins with a dot.
_KEPT_BY_PROGRAMS = {
    "__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "@eadir",
    "#recycle", "__pycache__",
}  # fmt: skip


def build(domains: Mapping[str, str | os.PathLike], out: str | os.PathLike, **settings) -> Summary:
    """Make a corpus of folders of recordings.

    Parameters
    ----------
    domains : mapping
        A folder for each domain's name.
    **settings
        ``workers``, ``shard``, ``longest`` and ``progress`` of `prepare`.

    Raises
    ------
    CorpusError
        If a name or a folder is not usable, or a domain has too few recordings.
    """
    roots = _check(domains, Path(out))
    items: list[Item] = []
    left_out: list[dict] = []
    for domain, root in roots.items():
        for path, problem in _walk(root):
            name = os.path.relpath(path, root)
            if problem:
                line = {"file": readable(name), "domain": domain, "reason": problem}
                left_out.append(line)
            else:
                items.append(Item(path, name, domain, group_of(name), None, stamp(path)))
        if not any(item.domain == domain for item in items):
            raise CorpusError(
                f"{root} has no audio file for domain {domain!r}; name another folder"
            )
    return prepare(items, out, left_out=left_out, **settings)


def group_of(name: str) -> str:
    """Return what a file's name says about the recording, the same in every format.

    A number at the end tells recordings apart: a copy is what has the same content.

    >>> group_of("Bach/Suite (1).mp3") == group_of("bach/suite (1).wav")
    True
    """
    return unicodedata.normalize("NFC", os.path.splitext(readable(name))[0]).casefold().strip()


def _check(domains: Mapping[str, str | os.PathLike], out: Path) -> dict[str, Path]:
    check_names(domains)
    roots = {name: Path(folder) for name, folder in domains.items()}
    for root in roots.values():
        if not root.is_dir():
            raise CorpusError(f"{root} is no folder; give NAME=FOLDER")
    places = [Path(os.path.realpath(place)) for place in (out, *roots.values())]
    for number, place in enumerate(places):
        for other in places[:number] + places[number + 1 :]:
            if place.is_relative_to(other):
                raise CorpusError(f"{place} is inside {other}; the folders must be apart")
    return roots


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Yield every file below a folder, in a fixed order, and why it is not to be read, if so."""
    problems: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=problems.append):
        folders.sort()
        for name in list(folders):
            if reason := _hidden(name):
                folders.remove(name)
                yield os.path.join(folder, name), f"{reason} folder, with all that is in it"
            elif os.path.islink(os.path.join(folder, name)):  # os.walk does not follow it
                yield os.path.join(folder, name), "a link to a folder, which is not followed"
        for name in sorted(files):
            yield os.path.join(folder, name), _unwanted(name)
    for error in problems:
        yield error.filename, f"the folder cannot be read: {error.strerror}"


def _unwanted(name: str) -> str | None:
    suffix = os.path.splitext(name)[1].lower()
    if reason := _hidden(name):
        return f"{reason} file"
    return None if suffix in SUFFIXES else f"no audio file by its name ({readable(suffix)!r})"


def _hidden(name: str) -> str | None:
    if name.startswith("."):
        return "a hidden"
    return "a program's" if name.casefold() in _KEPT_BY_PROGRAMS else None
