"""NSynth (Engel et al. 2017), in the layout in which it is published.

::

    nsynth-train/examples.json   one object per note: instrument, family, source, pitch, velocity
    nsynth-train/audio/*.wav     the notes: 4 s, 16 kHz, mono
    nsynth-valid/..., nsynth-test/...

No instrument of ``nsynth-train`` is in the other two. With families (or sources) as domains these
official splits become train, val and test. An instrument as a domain of its own is in one of them
only, so there its pitches are divided: all velocities of a pitch are in the same split. Every note
is brought to the same level, so that velocity stays audible in the timbre alone.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from umtlib.corpora.prepare import Item, Summary, prepare, stamp
from umtlib.errors import CorpusError
from umtlib.files.names import readable

SPLITS = {"nsynth-train": "train", "nsynth-valid": "val", "nsynth-test": "test"}
DOMAIN = {"family": "instrument_family_str", "source": "instrument_source_str",
          "instrument": "instrument_str"}  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{,99}")  # a domain's name, and no way out of a folder
_WORDS = ("note_str", *DOMAIN.values())


@dataclass(frozen=True)
class Selection:
    """Which notes to take; an empty choice takes all.

    Attributes
    ----------
    families, sources, instruments : collection of str
        Such as ``"guitar"``, ``"acoustic"``, ``"guitar_acoustic_010"``.
    pitches : tuple of int
        Lowest and highest MIDI pitch.
    velocities : collection of int
        Of 25, 50, 75, 100, 127.
    """

    families: Collection[str] = ()
    sources: Collection[str] = ()
    instruments: Collection[str] = ()
    pitches: tuple[int, int] = (0, 127)
    velocities: Collection[int] = ()

    def takes(self, note: Mapping) -> bool:
        """Say whether a note of ``examples.json`` is chosen."""
        chosen = (
            (self.families, note["instrument_family_str"]),
            (self.sources, note["instrument_source_str"]),
            (self.instruments, note["instrument_str"]),
            (self.velocities, note["velocity"]),
        )
        in_range = self.pitches[0] <= note["pitch"] <= self.pitches[1]
        return in_range and all(not wanted or value in wanted for wanted, value in chosen)


def build(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    by: Literal["family", "source", "instrument"] = "family",
    selection: Selection = Selection(),
    **settings,
) -> Summary:
    """Make a corpus of NSynth.

    Parameters
    ----------
    folder : path
        With ``nsynth-train`` and its siblings, or some of them.
    by : {"family", "source", "instrument"}
        What is a domain.
    selection : Selection
        Which notes.
    **settings
        ``workers``, ``shard`` and ``progress`` of `prepare`.

    Raises
    ------
    CorpusError
        If the folder has not NSynth's layout, or no note is chosen, or a domain has none to train
        or validate on.
    """
    if by not in DOMAIN:
        raise CorpusError(f"domains by {by!r}: choose one of {', '.join(DOMAIN)}")
    parts = [name for name in SPLITS if (Path(folder) / name / "examples.json").is_file()]
    if not parts:
        raise CorpusError(
            f"{folder} has no nsynth-train/examples.json; give the folder with the unpacked NSynth"
        )
    if by != "instrument" and "nsynth-train" not in parts:
        raise CorpusError(f"{folder} has only {', '.join(parts)}; add nsynth-train, or take by "
                          "instrument, which divides the pitches")  # fmt: skip
    chosen: list[tuple[str, dict]] = []
    left_out: list[dict] = []
    for part in parts:
        notes = list(read_examples(Path(folder) / part / "examples.json"))
        left_out += _strangers(Path(folder) / part / "audio", {note["note_str"] for note in notes})
        chosen += [(part, note) for note in notes if selection.takes(note)]
    if not chosen:
        raise CorpusError(f"no note of {folder} is chosen; loosen the selection")
    validated = {note[DOMAIN[by]] for part, note in chosen if part == "nsynth-valid"}
    items = [_item(Path(folder), part, note, by, validated) for part, note in chosen]
    return prepare(items, out, left_out=left_out, **settings)


def read_examples(path: Path) -> Iterator[dict]:
    """Yield the notes of an ``examples.json``, in the order of their names.

    Raises
    ------
    CorpusError
        If the file is not JSON, or a note lacks a field, or its name could lead out of the folder.
    """
    try:
        # Each note is stripped as it is parsed: the whole file as objects would take a gigabyte.
        notes = json.loads(path.read_text(encoding="utf-8"), object_hook=_strip)
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{path} cannot be read: {error}; unpack it again") from error
    if not isinstance(notes, dict):
        raise CorpusError(f"{path} is no list of notes by name; unpack it again")
    for name in sorted(notes):
        note = notes[name]
        if not isinstance(note, dict) or len(note) != len(_WORDS) + 2 or note["note_str"] != name:
            raise CorpusError(f"{path}: note {name[:80]!r} is damaged; unpack it again")
        yield note


def _strip(fields: dict) -> dict:
    """Keep what is used of a note, and only if it has the right type; leave other objects alone."""
    if "note_str" not in fields:
        return fields
    words = {key: fields.get(key) for key in _WORDS}
    kept = {k: v for k, v in words.items() if isinstance(v, str) and _WORD.fullmatch(v)}
    return kept | {k: fields[k] for k in ("pitch", "velocity") if type(fields.get(k)) is int}


def _item(folder: Path, part: str, note: dict, by: str, validated: set[str]) -> Item:
    path = str(folder / part / "audio" / f"{note['note_str']}.wav")
    domain = note[DOMAIN[by]]
    # A family without validation notes (synth_lead) gives some of its training instruments.
    open_ = by == "instrument" or (part == "nsynth-train" and domain not in validated)
    source = {key: note[key] for key in (*DOMAIN.values(), "pitch", "velocity")}
    return Item(
        path,
        f"{part}/audio/{note['note_str']}.wav",
        domain,
        f"pitch {note['pitch']}" if by == "instrument" else note["instrument_str"],
        None if open_ else SPLITS[part],
        stamp(path),
        source | {"nsynth": part},
    )


def _strangers(audio: Path, known: set[str]) -> Iterator[dict]:
    """Yield lines for the files that ``examples.json`` does not know."""
    if not audio.is_dir():
        raise CorpusError(f"{audio} is missing; unpack NSynth again")
    for name in sorted(os.listdir(audio)):
        if name.removesuffix(".wav") not in known:
            file = f"{audio.parent.name}/audio/{readable(name)}"
            yield {"file": file, "reason": "not in examples.json"}
