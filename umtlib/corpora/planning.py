"""What each domain of ``six-domains`` plays, and which excerpts are played in all of them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle

import numpy as np

from umtlib.corpora import instruments
from umtlib.corpora.instruments import DOMAINS, UNSEEN
from umtlib.corpora.pairs import PAIR_SECONDS
from umtlib.corpora.performing import Performance, perform
from umtlib.corpora.scores import Score
from umtlib.errors import CorpusError

# What each domain plays: its own composer as far as there are scores, then transcriptions.
_SHELVES = ("various", "monteverdi", "haydn", "mozart", "beethoven", "schumann", "chorales",
            "fiddle")  # fmt: skip
_SHARES = {
    "mozart_orchestra": (0.04, 0.00, 0.08, 0.46, 0.16, 0.06, 0.10, 0.10),
    "haydn_quartet":    (0.00, 0.00, 0.44, 0.16, 0.14, 0.06, 0.10, 0.10),
    "bach_cantata":     (0.06, 0.16, 0.08, 0.00, 0.00, 0.00, 0.58, 0.12),
    "bach_organ":       (0.10, 0.10, 0.10, 0.00, 0.12, 0.00, 0.46, 0.12),
    "beethoven_piano":  (0.14, 0.00, 0.00, 0.10, 0.48, 0.06, 0.10, 0.12),
    "bach_harpsichord": (0.14, 0.06, 0.10, 0.14, 0.00, 0.00, 0.40, 0.16),
}  # fmt: skip
REPERTORY = {
    domain: {name: share for name, share in zip(_SHELVES, shares, strict=True) if share}
    for domain, shares in _SHARES.items()
}


@dataclass(frozen=True)
class Size:
    """How much to make: seconds per domain and of a single track, by split; paired excerpts."""

    seconds: dict[str, float]
    longest: dict[str, tuple[float, float]]
    pairs: int
    unseen: int
    suffix: str  # in ".flac", `six_domains` drops the bits that 8-bit mu-law would drop anyway


FULL = Size(
    {"train": 1770, "val": 170, "test": 170},
    {"train": (45, 80), "val": (20, 40), "test": (20, 40)},
    pairs=20, unseen=28, suffix=".wav",
)  # fmt: skip
MINI = Size(
    {"train": 30, "val": 16, "test": 16},
    {"train": (9, 16), "val": (6, 9), "test": (6, 9)},
    pairs=2, unseen=6, suffix=".flac",
)  # fmt: skip


@dataclass(frozen=True)
class Take:
    """A track or paired excerpt to be: who plays what, and the seed of its own generator."""

    domain: str  # of a paired excerpt the source, which may be "unseen/..."
    split: str
    score: Score  # without its lines
    performance: Performance
    seed: int
    id: str = ""


def plan_tracks(scores: list[Score], domain: str, split: str, size: Size, seed: int) -> list[Take]:
    """Decide what a domain plays in a split: always next what its repertory is most short of.

    With too few scores it raises a CorpusError.
    """
    shelves = _shelves(scores, domain, split)
    got, takes, numbers = dict.fromkeys(shelves, 0.0), [], count()
    while sum(got.values()) < size.seconds[split]:
        total = sum(got.values()) + 60
        name = max(shelves, key=lambda n: REPERTORY[domain][n] * total - got[n])
        score = next(shelves[name])
        own = _seed(seed, domain, split, score.piece, next(numbers))
        rng = np.random.default_rng(own)
        performance = perform(score, rng, float(rng.uniform(*size.longest[split])))
        if performance is not None:
            takes.append(Take(domain, split, replace(score, lines=[]), performance, own))
            got[name] += performance.seconds
    return takes


def _shelves(scores: list[Score], domain: str, split: str) -> dict[str, Iterator[Score]]:
    """Return the pieces of each collection over and over, in an order of the domain's own."""
    pieces = sorted(
        (score for score in scores if score.split == split),
        key=lambda score: _seed(domain, score.piece),
    )
    own = {name: [s for s in pieces if s.collection == name] for name in REPERTORY[domain]}
    if not any(own.values()):
        raise CorpusError(f"no {split} piece for {domain}: too few scores could be read")
    return {name: cycle(scores) for name, scores in own.items() if scores}


def _seed(*words: object) -> int:
    digest = hashlib.sha256("\n".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def plan_pairs(scores: list[Score], size: Size, seed: int) -> list[Take]:
    """Choose the excerpts: test pieces only, within the range of every instrument.

    If none suits a source it raises a CorpusError.
    """
    wanted = [(domain, domain, number) for domain in DOMAINS for number in range(size.pairs)]
    unseen = [f"unseen/{timbre}" for timbre in ("whistle", *UNSEEN)]
    wanted += [
        (unseen[number % len(unseen)], DOMAINS[number % len(DOMAINS)], number)
        for number in range(size.unseen)
    ]
    shelves = {domain: _test_pieces(scores, domain) for domain in DOMAINS}
    return [_plan_pair(source, shelves[domain], number, seed) for source, domain, number in wanted]


def _test_pieces(scores: list[Score], domain: str) -> Iterator[Score]:
    shelves = _shelves(scores, domain, "test")
    names = sorted(shelves, key=REPERTORY[domain].get, reverse=True)
    return (next(shelves[name]) for name in cycle(names))


def _plan_pair(source: str, pieces: Iterator[Score], number: int, seed: int) -> Take:
    whistled = source == "unseen/whistle"
    solo = whistled or (source.startswith("unseen/") and number % 4 != 3)
    how = {"texture": "solo", "centre": 80 if whistled else 68} if solo else {}
    for attempt in range(200):
        score = next(pieces)
        own = _seed(seed, "pair", source, score.piece, number, attempt)
        played = perform(score, np.random.default_rng(own), PAIR_SECONDS, **how)
        if played is not None and _fits(played, source):
            name = f"{source.replace('/', '-')}-{number:02d}"
            return Take(source, "test", replace(score, lines=[]), played, own, name)
    raise CorpusError(f"no test piece suits a paired excerpt for {source}; is music21 complete?")


def _fits(performance: Performance, source: str) -> bool:
    """Say whether all domains can play the notes as written, to the end of the excerpt."""
    if performance.seconds < PAIR_SECONDS - 0.5:
        return False
    names = [*DOMAINS] + [source] * (source not in DOMAINS and source != "unseen/whistle")
    return all(instruments.plays_as_written(name, performance.notes) for name in names)
