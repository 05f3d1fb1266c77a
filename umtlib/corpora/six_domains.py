"""The corpus ``six-domains``: public scores, played by sampled instruments in six domains.

``build`` reads scores (`scores`), decides what each domain plays (`planning`) and how
(`performing`), sounds it (`instruments`) and writes a corpus (`corpus`) with paired excerpts
(`pairs`). All of it follows from the seed: every track draws from its own random generator. Tracks
are named after a digest of what they play, so that a build that was cut off goes on there.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from pretty_midi import program_to_instrument_name

from umtlib.audio import SAMPLE_RATE, native, replacing
from umtlib.corpora import Progress, instruments
from umtlib.corpora import scores as score_library
from umtlib.corpora.corpus import MANIFEST, SKIPPED, SPLITS, Track, sha256, write_manifest
from umtlib.corpora.instruments import DOMAINS
from umtlib.corpora.pairs import PAIR_SECONDS, PAIRS
from umtlib.corpora.planning import FULL, MINI, Size, Take, plan_pairs, plan_tracks
from umtlib.corpora.processes import each
from umtlib.corpora.scores import Score
from umtlib.errors import CorpusError

_RENDERING = "1 1"  # goes into every file's name; change it when `render` or `finish` change


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
    progress: Progress | None = None,
) -> Path:
    """Render the corpus into a folder: a manifest, ``skipped.jsonl`` and ``paired/pairs.jsonl``.

    Tracks that a build with the same settings left there are kept. ``mini`` is what ships, a few
    minutes in FLAC in place of three and a half hours in WAV. The result does not depend on the
    workers, see `processes.each`. The stages of ``progress`` are scores, tracks and pairs.

    Raises
    ------
    CorpusError
        If fluidsynth, the soundfont or music21 is missing (the message says what to install), no
        score can be read, or `out` cannot be written.
    """
    out, size, tell = Path(out), MINI if mini else FULL, progress or (lambda *_: None)
    job = Job(out, instruments.find_soundfont(), size)
    scores, skipped = read_scores(out, workers, tell)
    takes = [t for d in DOMAINS for s in SPLITS for t in plan_tracks(scores, d, s, size, seed)]
    plans = plan_pairs(scores, size, seed)
    tracks = _all(partial(render_take, job), takes, workers, "tracks", tell)
    pairs = _all(partial(render_pair, job), plans, workers, "pairs", tell)
    (out / PAIRS).parent.mkdir(parents=True, exist_ok=True)
    write_manifest(out / PAIRS, pairs)
    write_manifest(out / SKIPPED, skipped)
    write_manifest(out / MANIFEST, tracks)  # the last one: a corpus with a manifest is whole
    return out


def _all(work: Callable, items: list, workers: int | None, stage: str, tell: Progress) -> list:
    tell(stage, 0, len(items))
    results = []
    for result in each(work, items, workers):
        results.append(result)
        tell(stage, len(results), len(items))
    return results


def read_scores(out: Path, workers: int | None, tell: Progress) -> tuple[list[Score], list[dict]]:
    """Read what can be read, through a cache below ``out``; also return what cannot, and why.

    If ``out`` cannot be written to, or music21 is missing, it raises a CorpusError.
    """
    root, cache = score_library.corpus_root(), out / ".cache" / f"music21-{version('music21')}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"cannot write to {out}: {error}; choose another folder") from error
    files, skipped = score_library.find_scores(root)
    results = _all(partial(score_library.read_score, root, cache), files, workers, "scores", tell)
    skipped += [one for one in results if isinstance(one, dict)]
    return score_library.assign_splits([one for one in results if isinstance(one, Score)]), skipped


def render_take(job: Job, take: Take) -> Track:
    """Render one track, unless it is already there, and describe it."""
    score, played = take.score, take.performance
    rng = np.random.default_rng([take.seed, 1])
    parts = instruments.orchestrate(take.domain, played.notes, rng)
    midi = instruments.to_midi(parts, played.swell)
    stem = f"{take.split}/{take.domain}/{score.piece.replace('/', '-')}-{played.texture}"
    sound = partial(instruments.render, midi, job.soundfont)
    file = _rendered(job, stem, midi, sound, played.seconds)
    seconds = soundfile.info(job.out / file).frames / SAMPLE_RATE
    source = {
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
    return Track(take.domain, take.split, file, seconds, sha256(job.out / file), source)


def _rendered(job: Job, stem: str, played: bytes, sound: Callable, seconds: float, **how) -> str:
    """Return the name of the file of what is played; `sound` makes it, unless it is there."""
    settings = f"{job.soundfont.name} {job.soundfont.stat().st_size} {_RENDERING}".encode()
    digest = hashlib.sha256(played + settings).hexdigest()[:8]
    file = f"{stem}-{digest}{job.size.suffix}"
    path, kind = job.out / file, job.size.suffix[1:].upper()
    if not path.is_file():
        samples = instruments.finish(sound(), seconds, **how)
        samples = _coarsen(samples) if kind == "FLAC" else samples
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            soundfile.write(native(part), samples, SAMPLE_RATE, subtype="PCM_16", format=kind)
    return file


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


def render_pair(job: Job, take: Take) -> dict:
    """Render one excerpt on every domain's instruments, and on its source's if that is none."""
    names = [*DOMAINS] + [take.domain] * (take.domain not in DOMAINS)
    files = {name: _render_version(job, take, name) for name in names}
    played = take.performance
    return {
        "id": take.id,
        "source": take.domain,
        "piece": take.score.piece,
        "licence": take.score.licence,
        "seconds": PAIR_SECONDS,
        "melody": played.texture in ("solo", "octave"),
        "notes": [[note.onset, note.offset, note.pitch] for note in played.notes],
        "files": files,
        "sha256": {name: sha256(job.out / file) for name, file in files.items()},
    }


def _render_version(job: Job, take: Take, name: str) -> str:
    notes, stem = take.performance.notes, f"paired/{take.id}/{name.replace('/', '-')}"
    if name == "unseen/whistle":
        played, sound = repr(notes).encode(), partial(_whistled, take)
    else:
        played = instruments.to_midi(instruments.orchestrate(name, notes), take.performance.swell)
        sound = partial(instruments.render, played, job.soundfont)
    return _rendered(job, stem, played, sound, PAIR_SECONDS, exact=True)


def _whistled(take: Take) -> np.ndarray:
    from umtlib.corpora.whistle import whistle  # its scipy.signal costs every worker a second

    song = [(note.onset, note.offset, note.pitch) for note in take.performance.notes]
    return whistle(song, PAIR_SECONDS, np.random.default_rng(take.seed))
