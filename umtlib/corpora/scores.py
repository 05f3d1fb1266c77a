"""Public scores, read from the collection that ships with music21.

Every score becomes plain lines of notes in quarter notes (`Score`), gets its licence written beside
it, and is assigned to train, val or test. Files whose encoders reserve derivatives, or that are
bound to non-commercial or share-alike terms, are left out, and `EXCLUDED` says so.
"""

import fnmatch
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from umtlib import files
from umtlib.errors import CorpusError

_PLAIN = "music in the public domain; encoding distributed with music21, no terms in the file"
_CHORALE = (
    "music in the public domain; encoding distributed with music21 by permission; "
    "its notice, '(c) Margaret Greentree', is on the PDF engraving"
)

# collection: (patterns below music21's corpus folder, quarter notes a minute)
COLLECTIONS = {
    "chorales": (["bach/bwv*.mxl", "bach/*.xml", "!bach/bwv846.mxl"], 76),
    "mozart": (["mozart/k*/movement?.mxl"], 104),
    "haydn": (["haydn/*/*.mxl"], 104),
    "beethoven": (["beethoven/*.mxl", "beethoven/*/*.mxl"], 108),
    "schumann": (["schumann_robert/opus41no1/*.mxl"], 104),
    "monteverdi": (["monteverdi/*.mxl"], 104),
    "various": (
        ["bach/bwv846.mxl", "mozart/k545/*.mxl", "chopin/*.krn", "joplin/*.mxl", "cpebach/*.mxl",
         "handel/*/*.mxl", "verdi/*.mxl", "corelli/*/*.xml", "weber/*.mxl", "lusitano/*.mxl"],
        92,
    ),
    "fiddle": (["ryansMammoth/*.abc"], 112),
}  # fmt: skip
_LICENCES = {  # by the beginning of the file's name; _PLAIN for all others
    "bach/bwv846": _PLAIN,
    "bach/": _CHORALE,
    "corelli/": "music in the public domain; encoding CC BY, (c) 2014, Michael Scott Cuthbert",
    "lusitano/": "music in the public domain; encoding CC0, Michael Scott Asato Cuthbert",
    "weber/": "music in the public domain; encoding released to the public domain, Oliver Seely",
}
FIDDLE_TUNES = 240  # of 1,059: as many as are ever asked for

_REASONS = {  # and the patterns of what is left out for it
    "the encodings reserve all derivative electronic formats": "palestrina/*",
    "non-commercial terms, legal status unclear (its license.txt)": "essenFolksong/*",
    "carries a publisher's notice of 2003": "monteverdi/madrigal.5.4.* monteverdi/madrigal.5.5.*",
    "CC BY-SA: share-alike would bind the audio":
        "schumann_clara/* beach/* ciconia/* luca/* webern/*",
    "all rights reserved in one of the two; no scores": "leadSheet/*",
    "the transcriber's name and year, but no terms, are in the file": "airdsAirs/*",
    "transcribers' addresses, but no terms, are in the file": "oneills1850/*",
    "not asked for: medieval notation": "trecento/*",
    "a second encoding of a score that is used": "bach/*.krn beethoven/*/*.krn",
}  # fmt: skip
EXCLUDED = {one: reason for reason, patterns in _REASONS.items() for one in patterns.split()}

_TEMPO_WORDS = {
    "grave": 50, "largo": 52, "lento": 56, "adagio": 60, "larghetto": 64, "andante": 80,
    "andantino": 84, "moderato": 100, "menuetto": 112, "allegretto": 108, "allegro": 126,
    "vivace": 138, "presto": 152,
}  # fmt: skip
_DYNAMICS = {"ppp": -24, "pp": -18, "p": -10, "mp": -4, "mf": 0, "f": 9, "ff": 16, "fff": 20}


@dataclass(frozen=True)
class Score:
    """A piece as lines of notes, one per part, highest first.

    A note is ``(onset, duration, pitch, dynamic)``: quarter notes from the start, quarter notes,
    MIDI number, and an offset of the MIDI velocity.
    """

    piece: str  # its name in music21's corpus, without suffix: "bach/bwv66.6"
    collection: str  # a key of `COLLECTIONS`
    title: str
    composer: str
    licence: str
    lines: list
    tempi: list  # onset in quarter notes and quarter notes a minute, the first at 0
    split: str = ""  # "train", "val" or "test", the same in every domain


def corpus_root() -> Path:
    """Return music21's corpus folder; a CorpusError, if music21 is not installed."""
    try:
        from music21 import common
    except ImportError as error:
        raise CorpusError("the scores come with music21: 'pip install music21'") from error
    return Path(common.getCorpusFilePath())


def find_scores(root: Path) -> tuple[list[tuple[str, str]], list[dict]]:
    """List the scores to read, as (collection, file), and the excluded ones with the reason."""
    found = [(name, file) for name in COLLECTIONS for file in _files(root, name)]
    return found, [
        {"piece": pattern, "files": len(list(root.glob(pattern))), "reason": reason}
        for pattern, reason in EXCLUDED.items()
    ]


def _files(root: Path, collection: str) -> list[str]:
    patterns = COLLECTIONS[collection][0]
    names = {p.relative_to(root).as_posix() for g in patterns if g[0] != "!" for p in root.glob(g)}
    banned = [g[1:] for g in patterns if g[0] == "!"] + list(EXCLUDED)
    kept = [n for n in names if not any(fnmatch.fnmatch(n, g) for g in banned)]
    return sorted(kept, key=_hash)[: FIDDLE_TUNES if collection == "fiddle" else None]


def read_score(root: Path, cache: Path, entry: tuple[str, str]) -> Score | dict:
    """Read a (collection, file), through a cache of JSON: music21 needs seconds for a quartet.

    Of what it cannot read, or what holds no notes, return the line for ``skipped.jsonl``.
    """
    collection, file = entry
    cached = cache / (file.replace("/", "-") + ".json")
    if cached.is_file():
        score = Score(**json.loads(cached.read_text(encoding="utf-8")))
    else:
        try:
            score = _parse(root, collection, file)
        except Exception as error:  # music21 raises whatever its many readers raise
            return {"piece": file, "files": 1, "reason": f"music21 cannot read it: {error}"}
        with files.replacing(cached) as part:
            part.write_text(json.dumps(vars(score)), encoding="utf-8")
    licence = next((text for start, text in _LICENCES.items() if file.startswith(start)), _PLAIN)
    return replace(score, licence=licence)


def _parse(root: Path, collection: str, file: str) -> Score:
    import music21

    parsed = music21.converter.parse(root / file, forceSource=True)
    if any(part.getInstrument().transposition for part in parsed.parts):
        parsed = parsed.toSoundingPitch()
    lines = [line for line in map(_line, parsed.parts) if line]
    if not lines:
        raise CorpusError("it holds no notes")
    lines.sort(key=lambda line: -statistics.fmean(note[2] for note in line))
    meta, piece = parsed.metadata, file.rsplit(".", 1)[0]
    title, composer = (meta.title, meta.composer) if meta else (None, None)
    tempi = _tempi(parsed, COLLECTIONS[collection][1])
    return Score(piece, collection, title or piece, composer or "", "", lines[:5], tempi)


def _line(part) -> list:
    """Return a part's notes with ties joined; grace notes and chord symbols are left out."""
    flat = part.flatten()
    marks = [(float(d.offset), _DYNAMICS[d.value]) for d in flat["Dynamic"] if d.value in _DYNAMICS]
    notes, held = [], {}
    for element in flat.notes:
        if element.duration.isGrace or "Harmony" in element.classes:
            continue
        onset, duration = float(element.offset), float(element.quarterLength)
        dynamic = next((value for at, value in reversed(marks) if at <= onset), 0)
        for note in getattr(element, "notes", None) or [element]:
            pitch, tie = note.pitch.midi, note.tie.type if note.tie else ""
            if tie in ("stop", "continue") and pitch in held:
                held[pitch][1] = onset + duration - held[pitch][0]
            else:
                notes.append([onset, duration, pitch, dynamic])
            if tie in ("start", "continue"):
                held.setdefault(pitch, notes[-1])
            else:
                held.pop(pitch, None)
    return sorted(notes)


def _tempi(parsed, default: float) -> list:
    """Return the tempo marks, from numbers where the score has sane ones, else from words."""
    flat, marks = parsed.flatten(), {0.0: float(default)}

    def mark_word(offset: float, text: str) -> None:
        words = [word for word in text.lower().replace(",", " ").split() if word in _TEMPO_WORDS]
        if words:
            marks[float(offset)] = float(_TEMPO_WORDS[words[0]])

    for text in flat["TextExpression"]:
        mark_word(text.offset, text.content)
    for mark in flat["MetronomeMark"]:
        mark_word(mark.offset, mark.text or "")
        if mark.number and not mark.numberImplicit and 40 <= mark.number <= 160:
            marks[float(mark.offset)] = float(mark.number)
    return sorted(marks.items())


def assign_splits(scores: Sequence[Score]) -> list[Score]:
    """Return the pieces with their splits: of twelve tunes, ten train, one validates, one tests.

    Pieces that begin with the same tune (a chorale in two harmonisations) go together, so that a
    test piece is new. The order is that of a hash: it does not depend on what is played where.
    """
    tunes, splits = [(score.collection, _tune(score)) for score in scores], {}
    for collection in COLLECTIONS:
        own = {tune for name, tune in tunes if name == collection}
        for rank, tune in enumerate(sorted(own, key=_hash)):
            splits[collection, tune] = {3: "test", 7: "val"}.get(rank % 12, "train")
    return [replace(one, split=splits[tune]) for one, tune in zip(scores, tunes, strict=True)]


def _tune(score: Score) -> str:
    pitches = [note[2] for note in score.lines[0][:9]]
    return str([b - a for a, b in zip(pitches, pitches[1:], strict=False)])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
