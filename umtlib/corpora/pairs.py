"""The paired excerpts: the same notes played by the instruments of every domain."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umtlib import files
from umtlib.config import check
from umtlib.corpora.corpus import open_audio, read_lines
from umtlib.errors import CorpusError

PAIRS = "paired/pairs.jsonl"
PAIR_SECONDS = 5.0


@dataclass(frozen=True)
class Pair:
    """One excerpt in all its true translations.

    ``files`` and ``sha256`` have an entry for each domain, and for the source if it is none.
    """

    id: str  # unique in the folder
    source: str  # where a translation starts from: a domain, or "unseen/<timbre>"
    piece: str  # the test piece that is played
    licence: str  # of its score
    seconds: float  # the same for all files
    melody: bool  # no two notes sound together
    notes: tuple[tuple[float, float, int], ...]  # onset and offset in seconds, sounding MIDI pitch
    files: Mapping[str, str]  # paths relative to `folder`
    sha256: Mapping[str, str]
    folder: Path

    def audio(self, name: str | None = None) -> np.ndarray:
        """Return one rendering, int16, shape (T,), the source's by default; see `open_audio`."""
        return open_audio(self.folder / self.files[name or self.source])


def read_pairs(folder: str | Path) -> list[Pair]:
    """Read the paired excerpts of a corpus; a CorpusError if it has none, or they are damaged."""
    path = Path(folder, PAIRS)
    if not path.is_file():
        raise CorpusError(f"{folder} has no {PAIRS}; make it with 'umt corpus six-domains'")

    def make(line: bytes) -> Pair:
        fields = files.parse_json(line)
        fields["notes"] = tuple(map(tuple, fields["notes"]))
        pair = Pair(**fields, folder=Path(folder))
        check(pair)
        return pair

    return list(read_lines(path, make))
