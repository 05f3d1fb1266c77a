"""Audio files of any kind become the tracks of a corpus: in parallel, resumable, in shards.

Every file is decoded block by block, averaged to mono, resampled to 16 kHz, brought to the level of
all training audio (`umtlib.audio.level`) and written as 16-bit WAV. Nothing else is done to it.
``skipped.jsonl`` names each that could not be used, or not whole, with the reason.

Results are noted one by one in ``.work/``: a run that was cut off goes on where it stopped, and
processes share the work through the file system alone, on one machine or many. Each takes every
n-th file, and whichever finishes last writes the manifest.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from umtlib import audio
from umtlib.audio import SAMPLE_RATE
from umtlib.config import ModelConfig
from umtlib.corpora import Progress
from umtlib.corpora.corpus import MANIFEST, SKIPPED, Track, sha256, write_manifest
from umtlib.corpora.processes import each
from umtlib.errors import AudioError, CorpusError, UmtWarning
from umtlib.files.names import readable

WORK = ".work"
SHARE = 0.1  # of the groups of a domain, for each of val and test
SHORTEST = 0.5  # seconds; less is no music
QUIETEST = 2e-4  # peak to peak, -80 dBFS; less is a recording of nothing


@dataclass(slots=True)
class Item:
    """A file that is to become a track."""

    path: str
    name: str  # what people, the manifest and the key know it by; the same on every machine
    domain: str
    group: str  # tracks of one group are never divided between splits
    split: str | None = None  # decided by the data set, or, with None, by the group's name
    source: Mapping = field(default_factory=dict)  # further fields for the manifest
    key: str = field(init=False)  # 16 hex digits; another size or time of change is another file

    def __post_init__(self):
        try:
            status = os.stat(self.path)
            stamp = f"{status.st_size}.{status.st_mtime_ns}"
        except (OSError, ValueError):
            stamp = "missing"
        text = "\0".join((self.domain, self.name, stamp))
        self.key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def file(self) -> str:
        """Path of the track in the corpus; no folder gets more than a 256th of a domain."""
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(self.name).stem)[:60]
        return f"{self.domain}/{self.key[:2]}/{stem}-{self.key}.wav"


@dataclass(frozen=True)
class Summary:
    """What became of the files."""

    used: int  # with a track
    dropped: int  # without one
    cut: int  # with a track that lacks a part of the file, or for which it was mended
    seconds: float  # of all tracks


def prepare(
    items: list[Item],
    out: str | os.PathLike,
    *,
    left_out: Sequence[Mapping] = (),
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> Summary | None:
    """Make a corpus of files in a folder; tracks that are there already are kept.

    Every shard is given all files, in the same order, and returns None while others have some to
    do: there is no new manifest yet. ``left_out`` is what the caller has dropped: ``file`` and
    ``reason``. For ``workers`` and ``shard`` see `processes`; ``progress`` is told of ``"files"``.

    Raises
    ------
    ConfigError
        If a model cannot have a domain of such a name.
    CorpusError
        If the folder cannot be written, or a domain has too few tracks to train on.
    """
    for name in {item.domain for item in items}:
        ModelConfig(domains=(name,))
    out, tell = Path(out), progress or (lambda *_: None)
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        done, mine = _read_journals(out), items[shard[0] :: shard[1]]
        todo = [item for item in mine if "file" not in done.get(item.key, ())]
        kept = len(mine) - len(todo)
        tell("files", kept, len(mine))
        with (out / WORK / f"{shard[0]}-of-{shard[1]}.jsonl").open("a") as journal:
            journal.write("\n")  # ends a line that a crash has torn
            for count, entry in enumerate(each(partial(convert, out), todo, workers), kept + 1):
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
                tell("files", count, len(mine))
        return _merge(items, out, left_out)
    except OSError as error:
        raise CorpusError(f"cannot write {out}: {error.strerror}; choose another folder") from error


def _read_journals(out: Path) -> dict[str, dict]:
    """Return the results so far, by key, but for tracks whose file is gone."""
    entries = {}
    for path in sorted((out / WORK).glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # torn by a crash
                    entry = json.loads(line)
                    entries[entry["key"]] = entry
    return {k: e for k, e in entries.items() if "file" not in e or (out / e["file"]).is_file()}


def convert(out: Path, item: Item) -> dict:
    """Make one track; return its journal entry: either with ``file``, or only with ``reason``."""
    target, entry = out / item.file, {"key": item.key}
    with (
        tempfile.TemporaryFile(dir=out / WORK) as kept,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always", UmtWarning)
        try:
            recording = audio.Recording(item.path, kept)
            seconds = recording.samples / SAMPLE_RATE
            if seconds < SHORTEST:
                raise AudioError(f"too short: {seconds:.4g} s, and a track needs {SHORTEST} s")
            if recording.span < QUIETEST:
                raise AudioError("silent: nothing in it is above -80 dBFS")
        except AudioError as error:
            return entry | {"reason": _without_path(error, item)}
        target.parent.mkdir(parents=True, exist_ok=True)
        with audio.writing(target) as put:
            for block in recording.blocks():
                put(block)
    entry |= {"file": item.file, "sha256": sha256(target), "seconds": seconds}
    notes = "; ".join(_without_path(warning.message, item) for warning in told)
    return entry | ({"reason": notes} if notes else {})


def _without_path(message: object, item: Item) -> str:
    return readable(str(message)).replace(readable(item.path), "it")


def _merge(items: list[Item], out: Path, left_out: Sequence[Mapping]) -> Summary | None:
    """Write the manifest, each audio once, if every file of every shard has a result."""
    entries = _read_journals(out)
    if any(item.key not in entries for item in items):
        return None
    kept: dict[str, Item] = {}  # by the track's checksum
    lines, cut = [], 0
    for item in items:
        entry, line = entries[item.key], {"file": readable(item.name), "domain": item.domain}
        reason = entry.get("reason")
        if "file" in entry and (first := kept.setdefault(entry["sha256"], item)) is not item:
            reason = f"the same audio as {readable(first.name)}"
        elif "file" in entry:
            line["kept_seconds"] = entry["seconds"]
            cut += bool(reason)
        if reason:
            lines.append(line | {"reason": reason})
    write_manifest(out / SKIPPED, [*lines, *left_out])
    tracks = []
    for item, split in zip(kept.values(), assign_splits([*kept.values()]), strict=True):
        made = (entries[item.key][name] for name in ("file", "seconds", "sha256"))
        source = {"source": readable(item.name)} | dict(item.source)
        tracks.append(Track(item.domain, split, *made, source))
    _check_domains({item.domain for item in items}, tracks, out)
    write_manifest(out / MANIFEST, tracks)
    dropped = len(lines) + len(left_out) - cut
    return Summary(len(tracks), dropped, cut, sum(track.seconds for track in tracks))


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


def _check_domains(domains: set[str], tracks: list[Track], out: Path) -> None:
    have = {(track.domain, track.split) for track in tracks}
    for domain, split in product(sorted(domains), ("train", "val")):
        if (domain, split) not in have:
            raise CorpusError(f"domain {domain!r} has no track for {split}: give it two usable "
                              f"recordings or more; {out / SKIPPED} lists the others")  # fmt: skip
