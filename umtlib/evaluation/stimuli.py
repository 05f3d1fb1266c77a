"""What listeners are given: blinded packs for a test of opinion scores and for a lineup.

Conventions. A pack is a folder of levelled 16 kHz WAV files whose names tell nothing, a sheet to be
filled in (one copy per rater) and ``key.csv``, which says what the files are and is not for the
raters.

* **Opinion scores**: ``000.wav`` and so on, in random order; ``source-00.wav``..., the open source
  that a question about the translation needs; ``sheet.csv`` with ``rater,stimulus,source,score``.
  Each clip comes as translation, source, true rendering (the hidden reference), that through 8-bit
  mu-law (what no translation can be better than) and below 1 kHz (the anchor that must be found
  bad). The key has ``stimulus,clip,group,system``.
* **Lineup**: ``lineup-00-1.wav`` to ``lineup-00-K.wav``, and so on: one excerpt by the decoders of
  all K domains, its own among them, in random order; ``sheet.csv`` with ``rater,lineup,answer``,
  the answer a number from 1 to K. The key has ``lineup,number,clip,domain,heard``: the source's
  domain, and the decoder's.

`unblind` joins key and sheets to the tables that `umtlib.evaluation.listening` analyses. How to run
a test: ``docs/evaluation.md``. Notebook: ``05_evaluation``.
"""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.signal

from umtlib import audio, translation
from umtlib.corpora.pairs import read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import listening
from umtlib.evaluation.features import excerpt
from umtlib.evaluation.folder import new_folder
from umtlib.evaluation.summary import group
from umtlib.evaluation.translations import choose, translate_pairs
from umtlib.translator import MusicTranslator

KEY, SHEET = "key.csv", "sheet.csv"
OPINION_KEY = ("stimulus", "clip", "group", "system")
LINEUP_KEY = ("lineup", "number", "clip", "domain", "heard")
OPINION_SHEET = ("rater", "stimulus", "source", "score")
LINEUP_SHEET = ("rater", "lineup", "answer")
_LOW_ANCHOR = 1_000.0  # Hz, above which the low anchor has nothing (MUSHRA's is at 3,500)


def opinion(
    model: MusicTranslator,
    data: str | os.PathLike,
    target: str,
    out: str | os.PathLike,
    *,
    excerpts: int | None = None,
    seed: int = 0,
    **settings,
) -> Path:
    """Write a pack for a test of opinion scores: translations of paired excerpts to one domain.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    data : path
        A corpus folder with paired excerpts.
    target : str
        The domain.
    out : path
        The pack; must not exist yet.
    excerpts : int, optional
        Use so many excerpts, spread over the sources; by default all from other domains.
    seed : int
        Of the translations and the order.
    **settings
        Temperature, backend, progress; as in `umtlib.evaluation.translations.translate_pairs`.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        If the model has no such domain.
    EvaluationError
        If the pack exists or cannot be written, the target is not one domain, or there are no
        excerpts.
    """
    with new_folder(out) as part:
        if target == translation.ALL:
            raise EvaluationError(
                f"a pack has one target, not all; choose one of {', '.join(model.domains)}"
            )
        (target,) = translation.domains(model, (target,))
        pairs = choose([pair for pair in read_pairs(data) if pair.source != target], excerpts)
        made = translate_pairs(model, pairs, (target,), seed=seed, **settings)
        clips = {
            pair.id: {
                "source": pair.audio(),
                "translation": made[pair.id, target],
                "truth": pair.audio(target),
            }
            for pair in pairs
        }
        write_opinion(clips, part, {pair.id: group(pair.source) for pair in pairs}, seed)
    return Path(out)


def lineup(
    model: MusicTranslator,
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    excerpts: int | None = None,
    seed: int = 0,
    **settings,
) -> Path:
    """Write a pack for a lineup: each excerpt's own reconstruction among its translations.

    Parameters
    ----------
    model, data, out, excerpts, seed, **settings
        As in `opinion`; the excerpts are those from the model's own domains.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    EvaluationError
        If the pack exists or cannot be written, or there are no excerpts.
    """
    with new_folder(out) as part:
        pairs = choose([p for p in read_pairs(data) if p.source in model.domains], excerpts)
        made = translate_pairs(model, pairs, seed=seed, **settings)
        clips = {p.id: {name: made[p.id, name] for name in model.domains} for p in pairs}
        write_lineup(clips, part, {pair.id: pair.source for pair in pairs}, seed)
    return Path(out)


def write_opinion(
    clips: Mapping[str, Mapping[str, np.ndarray]],
    folder: Path,
    groups: Mapping[str, str],
    seed: int,
) -> None:
    """Write the files of a test of opinion scores.

    Parameters
    ----------
    clips : mapping
        From a clip's name to the waveforms of its systems, 16 kHz; any systems. From ``"truth"``,
        where there is one, the systems ``"mulaw"`` and ``"low"`` are made; ``"source"`` is also
        given openly.
    folder : Path
        Exists.
    groups : mapping
        From a clip's name to its group, such as the kind of its source.
    seed : int
        Of the order.
    """
    stimuli = [
        (clip, system, sound)
        for clip, systems in clips.items()
        for system, sound in _with_anchors(systems).items()
    ]
    open_sources = {}
    for number, (clip, systems) in enumerate(clips.items()):
        if "source" in systems:
            open_sources[clip] = f"source-{number:02d}.wav"
            audio.write(folder / open_sources[clip], excerpt(systems["source"]).waveform)
    keys, sheet = [], []
    for number, place in enumerate(np.random.default_rng(seed).permutation(len(stimuli))):
        clip, system, sound = stimuli[place]
        name = f"{number:03d}.wav"
        audio.write(folder / name, excerpt(sound).waveform)
        keys.append((name, clip, groups[clip], system))
        sheet.append(("", name, open_sources.get(clip, ""), ""))
    _write_table(folder / KEY, OPINION_KEY, keys)
    _write_table(folder / SHEET, OPINION_SHEET, sheet)


def write_lineup(
    clips: Mapping[str, Mapping[str, np.ndarray]],
    folder: Path,
    sources: Mapping[str, str],
    seed: int,
) -> None:
    """Write the files of a lineup.

    Parameters
    ----------
    clips : mapping
        From a clip's name to the waveforms by domain, 16 kHz; the same domains for each.
    folder : Path
        Exists.
    sources : mapping
        From a clip's name to the domain that it comes from, the right answer.
    seed : int
        Of the order of the clips, and within each of them.
    """
    rng, keys, sheet = np.random.default_rng(seed), [], []
    for place, clip in enumerate(rng.permutation(sorted(clips)).tolist()):
        name = f"lineup-{place:02d}"
        for number, heard in enumerate(rng.permutation(sorted(clips[clip])).tolist(), start=1):
            audio.write(folder / f"{name}-{number}.wav", excerpt(clips[clip][heard]).waveform)
            keys.append((name, number, clip, sources[clip], heard))
        sheet.append(("", name, ""))
    _write_table(folder / KEY, LINEUP_KEY, keys)
    _write_table(folder / SHEET, LINEUP_SHEET, sheet)


def _with_anchors(systems: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "truth" not in systems:
        return dict(systems)
    true = excerpt(systems["truth"])
    filter_ = scipy.signal.butter(8, _LOW_ANCHOR, fs=audio.SAMPLE_RATE, output="sos")
    low = scipy.signal.sosfiltfilt(filter_, true.waveform).astype(np.float32)
    return {**systems, "mulaw": true.coded.waveform, "low": low}


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def unblind(key: str | os.PathLike, sheets: Sequence[str | os.PathLike]) -> list[dict]:
    """Join the filled-in sheets of a pack with its key.

    Parameters
    ----------
    key : path
        ``key.csv`` of either kind of pack.
    sheets : sequence of path
        Filled in; lines that nobody answered must be removed.

    Returns
    -------
    list of dict
        Rows with `listening.RATING_COLUMNS` and ``group``, or with `listening.LINEUP_COLUMNS`.

    Raises
    ------
    EvaluationError
        If a table does not follow the conventions, or names what is not in the key.
    """
    rows = listening.read(key, ("clip",))
    join = _join_lineup if rows and "lineup" in rows[0] else _join_opinion
    return [row for sheet in sheets for row in join(key, sheet)]


def choices(key: str | os.PathLike) -> list[str]:
    """Return the domains of a lineup's key, sorted; none for a test of opinion scores."""
    return sorted({row["heard"] for row in listening.read(key, ("clip",)) if "heard" in row})


def _join_opinion(key: str | os.PathLike, sheet: str | os.PathLike) -> Iterator[dict]:
    names = {row["stimulus"]: row for row in listening.read(key, OPINION_KEY)}
    for row in listening.read(sheet, ("rater", "stimulus", "score")):
        found = _look_up(names, row["stimulus"], sheet, key)
        told = {name: found[name] for name in ("clip", "group", "system")}
        yield {"rater": row["rater"], "score": row["score"]} | told


def _join_lineup(key: str | os.PathLike, sheet: str | os.PathLike) -> Iterator[dict]:
    names = {f"{row['lineup']}-{row['number']}": row for row in listening.read(key, LINEUP_KEY)}
    for row in listening.read(sheet, LINEUP_SHEET):
        found = _look_up(names, f"{row['lineup']}-{row['answer'].strip()}", sheet, key)
        told = {name: found[name] for name in ("clip", "domain")}
        yield {"rater": row["rater"], "answer": found["heard"]} | told


def _look_up(names: Mapping, name: str, sheet: str | os.PathLike, key: str | os.PathLike) -> dict:
    if name not in names:
        raise EvaluationError(f"{sheet}: {name!r} is not in {key}; is it the key of this pack?")
    return names[name]
