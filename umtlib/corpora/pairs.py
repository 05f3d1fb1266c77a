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

    Attributes
    ----------
    id : str
        Name, unique in the folder.
    source : str
        Where a translation starts from: a domain, or ``"unseen/<timbre>"``.
    piece, licence : str
        The test piece that is played and the terms of its score.
    seconds : float
        Duration; the same for all files.
    melody : bool
        True if no two notes sound together.
    notes : tuple of (float, float, int)
        Onset and offset in seconds and sounding MIDI pitch, as played in every file.
    files : Mapping
        From each domain, and the source if it is none, to a path relative to ``folder``.
    sha256 : Mapping
        Likewise, to the file's hex digest.
    folder : Path
        The corpus.
    """

    id: str
    source: str
    piece: str
    licence: str
    seconds: float
    melody: bool
    notes: tuple[tuple[float, float, int], ...]
    files: Mapping[str, str]
    sha256: Mapping[str, str]
    folder: Path

    def audio(self, name: str | None = None) -> np.ndarray:
        """Return one rendering, int16, shape (T,); the source's by default.

        Raises
        ------
        CorpusError
            If the file cannot be read, or is not 16 kHz, mono, 16 bit.
        """
        return open_audio(self.folder / self.files[name or self.source])


def read_pairs(folder: str | Path) -> list[Pair]:
    """Read the paired excerpts of a corpus.

    Raises
    ------
    CorpusError
        If the corpus has none, or a line cannot be read.
    """
    path = Path(folder) / PAIRS
    if not path.is_file():
        raise CorpusError(f"{folder} has no {PAIRS}; make it with 'umt corpus six-domains'")

    def make(line: bytes) -> Pair:
        fields = files.parse_json(line)
        fields["notes"] = tuple(tuple(note) for note in fields["notes"])
        pair = Pair(**fields, folder=Path(folder))
        check(pair)
        return pair

    return list(read_lines(path, make))
