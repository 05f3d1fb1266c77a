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
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from umtlib.corpora.prepare import Item, Summary, prepare
from umtlib.errors import CorpusError

SPLITS = {"nsynth-train": "train", "nsynth-valid": "val", "nsynth-test": "test"}
DOMAIN = {"family": "instrument_family_str", "source": "instrument_source_str",
          "instrument": "instrument_str"}  # fmt: skip
_WORDS, _NUMBERS = ("note_str", *DOMAIN.values()), ("pitch", "velocity")


def build(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    *,
    by: Literal["family", "source", "instrument"] = "family",
    families: Collection[str] = (),  # such as "guitar"
    sources: Collection[str] = (),  # such as "acoustic"
    instruments: Collection[str] = (),  # such as "guitar_acoustic_010"
    pitches: tuple[int, int] = (0, 127),  # lowest and highest, MIDI
    velocities: Collection[int] = (),  # of 25, 50, 75, 100, 127
    **settings,
) -> Summary | None:
    """Make a corpus of a folder with ``nsynth-train`` and its siblings, or some of them.

    ``by`` says what is to be a domain; an empty choice takes all notes; settings are those of
    `prepare`. Another layout, no note that is chosen, or a domain with none to train or validate
    on raises a CorpusError.
    """
    if by not in DOMAIN:
        raise CorpusError(f"domains by {by!r}: choose one of {', '.join(DOMAIN)}")
    lists = {part: Path(folder, part, "examples.json") for part in SPLITS}
    lists = {part: path for part, path in lists.items() if path.is_file()}
    if not lists:
        raise CorpusError(f"{folder} has no nsynth-train/examples.json; name NSynth's folder")
    choices = (families, sources, instruments, velocities)
    wanted = dict(zip((*DOMAIN.values(), "velocity"), choices, strict=True))
    chosen = [
        (part, note) for part, path in lists.items() for note in read_examples(path)
        if pitches[0] <= note["pitch"] <= pitches[1]
        and all(not some or note[key] in some for key, some in wanted.items())
    ]  # fmt: skip
    if not chosen:
        raise CorpusError(f"no note of {folder} is chosen; loosen the selection")
    validated = {note[DOMAIN[by]] for part, note in chosen if part == "nsynth-valid"}
    return prepare([_item(Path(folder), *one, by, validated) for one in chosen], out, **settings)


def read_examples(path: Path) -> list[dict]:
    """Return the notes of an ``examples.json``, by name; another file raises a CorpusError."""
    try:
        # Each note is stripped as it is parsed: the whole file as objects would take a gigabyte.
        notes = json.loads(path.read_text(encoding="utf-8"), object_hook=_strip)
        return sorted(notes.values(), key=lambda note: note["note_str"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path} is no list of notes ({error}); unpack it again") from error


def _strip(fields: dict) -> dict:
    if "note_str" not in fields:  # all of the notes
        return fields
    return {key: str(fields[key]) for key in _WORDS} | {key: int(fields[key]) for key in _NUMBERS}


def _item(folder: Path, part: str, note: dict, by: str, validated: set[str]) -> Item:
    name, domain = f"{part}/audio/{note['note_str']}.wav", note[DOMAIN[by]]
    # A family without validation notes (synth_lead) gives some of its training instruments.
    open_ = by == "instrument" or (part == "nsynth-train" and domain not in validated)
    group = f"pitch {note['pitch']}" if by == "instrument" else note["instrument_str"]
    source = {key: note[key] for key in (*DOMAIN.values(), *_NUMBERS)} | {"nsynth": part}
    return Item(str(folder / name), name, domain, group, None if open_ else SPLITS[part], source)
