"""The corpus ``six-domains``: public scores, played by sampled instruments in six domains.

``build`` reads scores (`scores`), decides what each domain plays and how (`performing`), sounds it
(`instruments`) and writes a corpus (`corpus`) with paired excerpts (`pairs`). All of it follows
from the seed, whatever the number of workers: every track draws from its own random generator.
Tracks are named after a digest of what they play, so that a build that was cut off goes on
where it stopped.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from pretty_midi import program_to_instrument_name

from umtlib.audio import SAMPLE_RATE, native, replacing
from umtlib.corpora import instruments
from umtlib.corpora import scores as score_library
from umtlib.corpora.corpus import MANIFEST, SKIPPED, SPLITS, Track, sha256, write_manifest
from umtlib.corpora.instruments import DOMAINS, UNSEEN
from umtlib.corpora.pairs import PAIR_SECONDS, PAIRS
from umtlib.corpora.performing import Performance, perform
from umtlib.corpora.scores import Score
from umtlib.errors import CorpusError

Progress = Callable[[str, int, int], None]

_RENDERING = "1 1"  # goes into every file's name; change it when `render` or `finish` change

# What each domain plays: its own composer as far as there are scores, then transcriptions.
REPERTORY = {
    "mozart_orchestra": {
        "mozart": 0.46, "beethoven": 0.16, "haydn": 0.08, "schumann": 0.06, "various": 0.04,
        "chorales": 0.1, "fiddle": 0.1},
    "haydn_quartet": {
        "haydn": 0.44, "mozart": 0.16, "beethoven": 0.14, "schumann": 0.06, "chorales": 0.1,
        "fiddle": 0.1},
    "bach_cantata": {
        "chorales": 0.58, "monteverdi": 0.16, "haydn": 0.08, "various": 0.06, "fiddle": 0.12},
    "bach_organ": {
        "chorales": 0.46, "various": 0.1, "monteverdi": 0.1, "beethoven": 0.12, "haydn": 0.1,
        "fiddle": 0.12},
    "beethoven_piano": {
        "beethoven": 0.48, "various": 0.14, "mozart": 0.1, "schumann": 0.06, "chorales": 0.1,
        "fiddle": 0.12},
    "bach_harpsichord": {
        "chorales": 0.4, "various": 0.14, "mozart": 0.14, "haydn": 0.1, "monteverdi": 0.06,
        "fiddle": 0.16},
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much to make: seconds per domain and of a single track, by split; paired excerpts."""

    seconds: dict[str, float]
    longest: dict[str, tuple[float, float]]
    pairs: int
    unseen: int
    suffix: str  # in ".flac", `_coarsen` drops the bits that 8-bit mu-law would drop anyway


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


@dataclass(frozen=True)
class Job:
    """What a worker must know besides the take."""

    out: Path
    soundfont: Path
    size: Size


def build(
    out: str | os.PathLike,
    *,
    seed: int = 0,
    workers: int | None = None,
    mini: bool = False,
    soundfont: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Path:
    """Render the corpus.

    Parameters
    ----------
    out : path
        Folder to write. Tracks that a build with the same settings left there are kept.
    seed : int
        Everything that is drawn follows from it.
    workers : int, optional
        Processes; one per CPU by default, and none besides this one for 1. The result does not
        depend on it.
    mini : bool
        A few minutes in FLAC, as it ships, in place of three and a half hours in WAV.
    soundfont : path, optional
        A General MIDI soundfont; FluidR3 in its usual places by default.
    progress : callable, optional
        Called with a stage (``"scores"``, ``"tracks"``, ``"pairs"``), steps done, and steps in all.

    Returns
    -------
    Path
        `out`, which now has a manifest, ``skipped.jsonl`` and ``paired/pairs.jsonl``.

    Raises
    ------
    CorpusError
        If fluidsynth, the soundfont or music21 is missing (the message says what to install), no
        score can be read, or `out` cannot be written.
    """
    job = Job(Path(out), instruments.find_soundfont(soundfont), MINI if mini else FULL)
    tell = progress or (lambda stage, done, total: None)
    scores, skipped = _read_scores(job.out, workers, tell)
    return render_corpus(scores, job, seed=seed, workers=workers, progress=tell, skipped=skipped)


def render_corpus(
    scores: list[Score],
    job: Job,
    *,
    seed: int,
    workers: int | None = None,
    progress: Progress,
    skipped: Iterable[dict] = (),
) -> Path:
    """Do what `build` does, for scores that are in memory and a size of the caller's own."""
    takes = [t for d in DOMAINS for s in SPLITS for t in plan_tracks(scores, d, s, job.size, seed)]
    plans = plan_pairs(scores, job.size, seed)
    tracks = _each(partial(render_take, job), takes, workers, "tracks", progress)
    pairs = _each(partial(render_pair, job), plans, workers, "pairs", progress)
    (job.out / PAIRS).parent.mkdir(parents=True, exist_ok=True)
    write_manifest(job.out / PAIRS, pairs)
    write_manifest(job.out / SKIPPED, skipped)
    write_manifest(job.out / MANIFEST, tracks)  # the last one: a corpus with a manifest is whole
    return job.out


def _each(work: Callable, items: list, workers: int | None, stage: str, tell: Progress) -> list:
    """Do `work` on all items, in parallel but in order; one worker means this very process."""
    tell(stage, 0, len(items))
    if workers == 1:
        return _collect(map(work, items), stage, len(items), tell)
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return _collect(pool.map(work, items, chunksize=2), stage, len(items), tell)


def _collect(results: Iterable, stage: str, total: int, tell: Progress) -> list:
    collected = []
    for result in results:
        collected.append(result)
        tell(stage, len(collected), total)
    return collected


def _read_scores(out: Path, workers: int | None, tell: Progress) -> tuple[list[Score], list[dict]]:
    root, cache = score_library.corpus_root(), out / ".cache" / f"music21-{version('music21')}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"cannot write to {out}: {error}; choose another folder") from error
    files, skipped = score_library.find_scores(root)
    results = _each(partial(_try_score, root, cache), files, workers, "scores", tell)
    scores = [r for r in results if isinstance(r, Score)]
    skipped += [r for r in results if isinstance(r, dict)]
    if not scores:
        raise CorpusError(f"no score below {root} can be read; is music21's corpus installed?")
    splits = score_library.assign_splits(scores)
    return [replace(score, split=splits[score.piece]) for score in scores], skipped


def _try_score(root: Path, cache: Path, entry: tuple[str, str]) -> Score | dict:
    try:
        return score_library.read_score(root, *entry, cache)
    except CorpusError as error:
        return {"piece": entry[1], "files": 1, "reason": str(error)}


def plan_tracks(scores: list[Score], domain: str, split: str, size: Size, seed: int) -> list[Take]:
    """Decide what a domain plays in a split: always next what its repertory is most short of.

    Raises
    ------
    CorpusError
        If too few scores can be read.
    """
    shelves = {name: _shelf(scores, name, domain, split) for name in REPERTORY[domain]}
    got, takes, number = dict.fromkeys(shelves, 0.0), [], 0
    while sum(got.values()) < size.seconds[split]:
        if not shelves or number > 10_000:
            raise CorpusError(f"no {split} piece for {domain}: too few scores could be read")
        total = sum(got.values()) + 60
        name = max(shelves, key=lambda n: REPERTORY[domain][n] * total - got[n])
        score = next(shelves[name], None)
        if score is None:
            del shelves[name], got[name]
            continue
        own = _seed(seed, domain, split, score.piece, number)
        number += 1
        rng = np.random.default_rng(own)
        performance = perform(score, rng, float(rng.uniform(*size.longest[split])))
        if performance is not None:
            takes.append(Take(domain, split, replace(score, lines=[]), performance, own))
            got[name] += performance.seconds
    return takes


def _shelf(scores: list[Score], collection: str, domain: str, split: str) -> Iterator[Score]:
    """Yield the pieces of a collection over and over, in an order of the domain's own."""
    own = [s for s in scores if s.collection == collection and s.split == split]
    own.sort(key=lambda score: _seed(domain, score.piece))
    while own:
        yield from own


def _seed(*words: object) -> int:
    digest = hashlib.sha256("\n".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def render_take(job: Job, take: Take) -> Track:
    """Render one track, unless it is already there, and describe it."""
    rng = np.random.default_rng([take.seed, 1])
    parts = instruments.orchestrate(take.domain, take.performance.notes, rng)
    midi = instruments.to_midi(parts, take.performance.swell)
    digest = _digest(midi, job)
    piece = take.score.piece.replace("/", "-")
    stem = f"{piece}-{take.performance.texture}-{digest}{job.size.suffix}"
    file = f"{take.split}/{take.domain}/{stem}"
    if not (job.out / file).is_file():
        samples = instruments.render(midi, job.soundfont)
        _write(job, file, instruments.finish(samples, take.performance.seconds))
    path, source = job.out / file, _source(take, parts)
    seconds = soundfile.info(path).frames / SAMPLE_RATE
    return Track(take.domain, take.split, file, seconds, sha256(path), source)


def _digest(midi: bytes, job: Job) -> str:
    settings = f"{job.soundfont.name} {job.soundfont.stat().st_size} {_RENDERING}".encode()
    return hashlib.sha256(midi + settings).hexdigest()[:8]


def _source(take: Take, parts: list[instruments.Part]) -> dict:
    score, played = take.score, take.performance
    return {
        "piece": score.piece,
        "title": score.title,
        "composer": score.composer,
        "collection": score.collection,
        "source": "music21's corpus",
        "licence": score.licence,
        "instruments": sorted({program_to_instrument_name(part.program) for part in parts}),
        "texture": played.texture,
        "tempo": played.tempo,
        "transposition": played.transposition,
    }


def _write(job: Job, file: str, samples: np.ndarray) -> None:
    path = job.out / file
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".wav": "WAV", ".flac": "FLAC"}[job.size.suffix]
    if kind == "FLAC":
        samples = _coarsen(samples)
    with replacing(path) as part:
        soundfile.write(native(part), samples, SAMPLE_RATE, subtype="PCM_16", format=kind)


def _coarsen(samples: np.ndarray) -> np.ndarray:
    """Clear low bits, leaving noise 40 to 46 dB below each FLAC frame; mu-law's: 38.

    It saves a third of the file. Each frame of 4,096 samples has a power of two as its own step.
    """
    coarse = samples.copy()
    for start in range(0, len(samples), 4096):
        frame = samples[start : start + 4096].astype(float)
        noise = np.sqrt(12 * np.mean(frame**2)) * 10 ** (-40 / 20)
        step = 2 ** int(np.log2(max(noise, 1.0)))
        coarse[start : start + 4096] = np.trunc(frame / step + 0.5 * np.sign(frame)) * step
    return coarse


def plan_pairs(scores: list[Score], size: Size, seed: int) -> list[Take]:
    """Choose the excerpts: test pieces only, within the range of every instrument.

    Raises
    ------
    CorpusError
        If no test piece suits a source.
    """
    wanted = [(domain, domain, number) for domain in DOMAINS for number in range(size.pairs)]
    timbres = ["whistle", *UNSEEN]
    for number in range(size.unseen):
        timbre = timbres[number % len(timbres)]
        wanted.append((f"unseen/{timbre}", DOMAINS[number % len(DOMAINS)], number))
    shelves = {domain: _test_pieces(scores, domain) for domain in DOMAINS}
    return [_plan_pair(source, shelves[domain], number, seed) for source, domain, number in wanted]


def _test_pieces(scores: list[Score], domain: str) -> Iterator[Score]:
    shelves = {name: _shelf(scores, name, domain, "test") for name in REPERTORY[domain]}
    names = sorted(REPERTORY[domain], key=REPERTORY[domain].get, reverse=True)
    while True:
        yield from filter(None, (next(shelves[name], None) for name in names))


def _plan_pair(source: str, pieces: Iterator[Score], number: int, seed: int) -> Take:
    unseen, whistled = source.startswith("unseen/"), source == "unseen/whistle"
    solo = whistled or (unseen and number % 4 != 3)
    for attempt in range(200):
        score = next(pieces)
        own = _seed(seed, "pair", source, score.piece, number, attempt)
        played = perform(
            score,
            np.random.default_rng(own),
            PAIR_SECONDS,
            texture="solo" if solo else None,
            centre=80 if whistled else 68 if solo else None,
        )
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


def render_pair(job: Job, take: Take) -> dict:
    """Render one excerpt on every domain's instruments, and on its source's if that is none."""
    names = [*DOMAINS] + [take.domain] * (take.domain not in DOMAINS)
    files = {name: _render_version(job, take, name) for name in names}
    notes = take.performance.notes
    return {
        "id": take.id,
        "source": take.domain,
        "piece": take.score.piece,
        "licence": take.score.licence,
        "seconds": PAIR_SECONDS,
        "melody": take.performance.texture in ("solo", "octave"),
        "notes": [[note.onset, note.offset, note.pitch] for note in notes],
        "files": files,
        "sha256": {name: sha256(job.out / file) for name, file in files.items()},
    }


def _render_version(job: Job, take: Take, name: str) -> str:
    notes, whistled = take.performance.notes, name == "unseen/whistle"
    parts = [] if whistled else instruments.orchestrate(name, notes)
    midi = instruments.to_midi(parts, take.performance.swell)
    digest = _digest(repr(notes).encode() if whistled else midi, job)
    file = f"paired/{take.id}/{name.replace('/', '-')}-{digest}{job.size.suffix}"
    if not (job.out / file).is_file():
        samples = _whistled(take) if whistled else instruments.render(midi, job.soundfont)
        _write(job, file, instruments.finish(samples, PAIR_SECONDS, exact=True))
    return file


def _whistled(take: Take) -> np.ndarray:
    from umtlib.corpora.whistle import whistle  # its scipy.signal costs every worker a second

    song = [(note.onset, note.offset, note.pitch) for note in take.performance.notes]
    return whistle(song, PAIR_SECONDS, np.random.default_rng(take.seed))
