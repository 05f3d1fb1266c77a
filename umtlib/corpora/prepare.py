"""Audio files of any kind become the tracks of a corpus: in parallel, resumable, in shards.

Every file is decoded block by block, averaged to mono, resampled to 16 kHz, brought to the level of
all training audio (`umtlib.audio.level`) and written as 16-bit WAV. Nothing else is done to it. A
file that cannot be used is named in ``skipped.jsonl`` with the reason, and so is one of which only
a part could be used or that had to be mended; neither is tried again until it changes.

Results are noted one by one in ``.work/``, so that a run that was cut off goes on where it stopped.
Several processes, on one machine or many, may share the work through the file system alone: each
takes every n-th file, and whichever finishes last writes the manifest.
"""

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from umtlib import audio, files
from umtlib.audio import SAMPLE_RATE
from umtlib.config import ModelConfig
from umtlib.corpora import Progress
from umtlib.corpora.corpus import MANIFEST, SKIPPED, Track, sha256, write_manifest
from umtlib.corpora.processes import in_parallel
from umtlib.errors import AudioError, ConfigError, CorpusError, UmtWarning
from umtlib.files.names import readable

WORK = ".work"
SHARE = 0.1  # of the groups of a domain, for each of val and test
SHORTEST = 0.5  # seconds; less is no music
LONGEST = 6 * 3600  # seconds; the rest of a longer file is cut off
QUIETEST = 2e-4  # peak to peak, -80 dBFS; less is a recording of nothing
CRASHES = "the decoder crashes on it; convert it to WAV first"


@dataclass(frozen=True, slots=True)
class Item:
    """A file that is to become a track.

    Attributes
    ----------
    path : str
        Where to read it.
    name : str
        What people, the manifest and the key know it by; the same on every machine.
    domain : str
        Its musical domain.
    group : str
        Tracks of one group are never divided between splits.
    split : str or None
        Decided by the data set, or, with None, by the group's name.
    stamp : str
        Size and time of the last change: another stamp is another file.
    source : Mapping
        Further fields for the manifest.
    """

    path: str
    name: str
    domain: str
    group: str
    split: str | None
    stamp: str
    source: Mapping = field(default_factory=dict)

    @property
    def key(self) -> str:
        """16 hex digits that name the item and its content."""
        text = "\0".join((self.domain, self.name, self.stamp))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def file(self) -> str:
        """Path of the track in the corpus; no folder gets more than a 256th of a domain."""
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(self.name).stem)[:60]
        return f"{self.domain}/{self.key[:2]}/{stem}-{self.key}.wav"


@dataclass(frozen=True)
class Summary:
    """What became of the files.

    Attributes
    ----------
    used, dropped, cut : int
        Files with a track; without one; with a track that lacks a part of the file, or for which
        it was mended.
    seconds : float
        Of all tracks.
    complete : bool
        False while other shards still have files to do: there is no new manifest yet.
    """

    used: int
    dropped: int
    cut: int
    seconds: float
    complete: bool


def check_names(domains: Iterable[str]) -> None:
    """Make sure that a model can have domains of these names.

    Raises
    ------
    CorpusError
        If there are none, or too many, or one is no name.
    """
    try:
        ModelConfig(domains=tuple(domains))
    except ConfigError as error:
        raise CorpusError(str(error)) from error


def stamp(path: str | os.PathLike) -> str:
    """Return a file's size and time of the last change, in one word; "missing" if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return "missing"
    return f"{status.st_size}.{status.st_mtime_ns}"


def prepare(
    items: list[Item],
    out: str | os.PathLike,
    *,
    left_out: Iterable[Mapping] = (),
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    longest: float = LONGEST,
    progress: Progress | None = None,
) -> Summary:
    """Make a corpus of files in a folder; tracks that are there already are kept.

    Parameters
    ----------
    items : list of Item
        All files, in the same order in every shard.
    left_out : iterable of mappings
        What the caller has dropped: ``file`` and ``reason``.
    workers : int, optional
        Processes; see `processes.in_parallel`.
    shard : tuple of int
        Rank and number of the processes that share the work; see `processes.shard`.
    longest : float
        Seconds, below 12 hours; a longer file is cut there.
    progress : callable, optional
        Called with ``"files"``, files done and files in all, of this shard.

    Raises
    ------
    CorpusError
        If the folder cannot be written, or a domain has too few tracks to train on.
    """
    out = Path(out)
    tell = progress or (lambda stage, done, total: None)
    if not SHORTEST <= longest < audio.LONGEST:
        raise CorpusError(f"longest {longest:g} s must be {SHORTEST} s or more, below 12 hours")
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        done = _read_journals(out, longest)
        mine = items[shard[0] :: shard[1]]
        todo = [item for item in mine if done.get(item.key, {"again": True}).get("again")]
        tell("files", len(mine) - len(todo), len(mine))
        with _journal(out, shard) as journal:
            made = in_parallel(partial(convert, out, longest), todo, workers)
            for count, (item, entry) in enumerate(made, start=len(mine) - len(todo) + 1):
                entry = entry or {"key": item.key, "reason": CRASHES}
                journal.write(json.dumps(entry | {"longest": longest}) + "\n")
                journal.flush()
                tell("files", count, len(mine))
            os.fsync(journal.fileno())
        return _merge(items, out, list(left_out), longest)
    except OSError as error:
        raise CorpusError(f"cannot write {out}: {error.strerror}; choose another folder") from error


def _journal(out: Path, shard: tuple[int, int]) -> IO[str]:
    """Open this shard's journal at its end, after whatever a crash has left there."""
    path = out / WORK / f"{shard[0]}-of-{shard[1]}.jsonl"
    journal = path.open("a", encoding="utf-8")
    journal.write("\n")  # ends a line that a crash has torn
    return journal


def _read_journals(out: Path, longest: float) -> dict[str, dict]:
    """Return the results so far, by key; a track whose file is gone or damaged does not count."""
    entries = {}
    for path in sorted((out / WORK).glob("*.jsonl")):
        for line in files.open_regular(path):
            try:
                entry = files.parse_json(line)
                if "file" in entry and os.stat(out / entry["file"]).st_size != entry["bytes"]:
                    continue
                if entry["longest"] == longest:
                    entries[entry["key"]] = entry
            except (ValueError, KeyError, TypeError, OSError):
                continue  # torn by a crash, or the file is gone: it is done again
    return entries


def convert(out: Path, longest: float, item: Item) -> dict:
    """Make one track; return its journal entry: either with ``file``, or only with ``reason``.

    Raises
    ------
    CorpusError
        If the track cannot be written.
    """
    target, entry = out / item.file, {"key": item.key}
    with (
        tempfile.TemporaryFile(dir=out / WORK) as kept,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always", UmtWarning)
        try:
            recording = audio.Recording(item.path, kept, longest)
            _check_worth(recording)
        except AudioError as error:
            reason = _without_path(error, item)
            # A permission can be given without any change to the file.
            return entry | {"reason": reason, "again": reason.startswith("cannot read")}
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with audio.writing(target) as put:
                for block in recording.blocks():
                    put(block)
        except AudioError as error:  # of the disk, not of the file: the run must not go on
            raise CorpusError(str(error)) from error
    entry |= {"file": item.file, "bytes": target.stat().st_size, "sha256": sha256(target)}
    entry |= {"seconds": recording.samples / SAMPLE_RATE}
    notes = "; ".join(_without_path(warning.message, item) for warning in told)
    return entry | ({"reason": notes} if notes else {})


def _without_path(message: object, item: Item) -> str:
    return readable(str(message)).replace(readable(item.path), "it")


def _check_worth(recording: audio.Recording) -> None:
    seconds = recording.samples / SAMPLE_RATE
    if seconds < SHORTEST:
        raise AudioError(f"too short: {seconds:.4g} s, and a track needs {SHORTEST} s")
    if recording.span < QUIETEST:
        raise AudioError("silent: nothing in it is above -80 dBFS")


def _merge(items: list[Item], out: Path, left_out: list[Mapping], longest: float) -> Summary:
    """Write the manifest, if every file of every shard has a result."""
    entries = _read_journals(out, longest)
    found = [(item, entries[item.key]) for item in items if item.key in entries]
    kept, lines = _distinct(found)
    lines += left_out
    cut = sum("kept_seconds" in line for line in lines)
    seconds = sum(entry["seconds"] for _, entry in kept)
    summary = Summary(len(kept), len(lines) - cut, cut, seconds, len(found) == len(items))
    if summary.complete:
        write_manifest(out / SKIPPED, lines)
        splits = assign_splits([item for item, _ in kept])
        _check_domains(items, kept, splits, out)
        write_manifest(out / MANIFEST, map(_track, kept, splits))
    return summary


def _distinct(found: list[tuple[Item, dict]]) -> tuple[list[tuple[Item, dict]], list[dict]]:
    """Divide results into tracks, each audio once, and lines for ``skipped.jsonl``."""
    kept, lines, seen = [], [], {}
    for item, entry in found:
        line = {"file": readable(item.name), "domain": item.domain}
        reason = entry.get("reason")
        if "file" in entry and entry["sha256"] in seen:
            reason = f"the same audio as {seen[entry['sha256']]}"
        elif "file" in entry:
            seen[entry["sha256"]] = line["file"]
            kept.append((item, entry))
            line["kept_seconds"] = entry["seconds"]
        if reason:
            lines.append(line | {"reason": reason})
    return kept, lines


def _track(pair: tuple[Item, dict], split: str) -> Track:
    item, entry = pair
    source = {"source": readable(item.name)} | dict(item.source)
    return Track(item.domain, split, entry["file"], entry["seconds"], entry["sha256"], source)


def assign_splits(items: list[Item]) -> list[str]:
    """Divide the tracks of each domain into train, val and test.

    A group without a split of its own gets one by a hash of its name, so that new files never move
    old ones, and a group is in the same split in every domain. Where that leaves val or test empty
    and the data set has decided nothing, the group with the smallest hash moves there; train keeps
    the one with the largest.
    """
    decided, free = defaultdict(set), defaultdict(set)
    for item in items:
        (free if item.split is None else decided)[item.domain].add(item.split or item.group)
    chosen = {name: _split_groups(groups, decided[name]) for name, groups in free.items()}
    return [item.split or chosen[item.domain][item.group] for item in items]


def _split_groups(groups: set[str], decided: set[str]) -> dict[str, str]:
    free = sorted(groups, key=_hash)
    wanted = [split for split in ("val", "test") if split not in decided]
    limits = {split: SHARE * (number + 1) for number, split in enumerate(wanted)}
    new = {g: next((s for s in wanted if _hash(g) < limits[s]), "train") for g in free}
    movable = free if "train" in decided else free[:-1]
    new |= dict.fromkeys(free[len(movable) :], "train")
    for split in wanted:
        # Training cannot do without val, so val may also take from test.
        spare = [g for g in movable if new[g] == "train"] + [g for g in movable if split == "val"]
        if split not in new.values() and spare:
            new[spare[0]] = split
    return new


def _hash(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_domains(items: list[Item], kept: list, splits: list[str], out: Path) -> None:
    have = {(item.domain, split) for (item, _), split in zip(kept, splits, strict=True)}
    for domain in sorted({item.domain for item in items}):
        for split in ("train", "val"):
            if (domain, split) not in have:
                raise CorpusError(
                    f"domain {domain!r} has no track for {split}: give it at least two usable "
                    f"recordings; {out / SKIPPED} says what was left out and why"
                )
