"""Every question asked of one model: ``report.json``, tables and plots.

The same code measures the model's translations and, so that a reader sees what a number is worth,
six stand-ins for a translator (`SYSTEMS`). Nothing here depends on where a translation comes from:
give `measure` any mapping from (excerpt, target) to waveforms. Notebook: ``05_evaluation``.
"""

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import umtlib
from umtlib import audio, files, translation
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import Pair, read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    frechet,
    latent,
    notes,
    nsynth,
    pitch,
    recogniser,
    transcription,
    truth,
)
from umtlib.evaluation.features import Excerpt, excerpt
from umtlib.evaluation.folder import new_folder
from umtlib.evaluation.plots import draw
from umtlib.evaluation.tables import PAPER, tables
from umtlib.generation.perform import Heard, perform
from umtlib.translator import MusicTranslator

Translations = Mapping[tuple[str, str], np.ndarray]  # (excerpt's id, target domain) -> waveform
Progress = Callable[[str, int, int], None]

SYSTEMS = {
    "translation": "the model",
    "input": "the untranslated input (identity)",
    "input_mulaw": "the input through 8-bit mu-law",
    "noise": "white noise",
    "wrong_excerpt": "another piece, played by the target",
    "wrong_domain": "the true notes, played by a third domain",
    "truth": "the true rendering through 8-bit mu-law",
}
METRICS = (*pitch.METRICS, *notes.METRICS, *truth.METRICS)
_STREAMS = 32  # excerpts generated at a time
_RETAKEN = 3  # excerpts that are translated twice, to measure how free the decoders are


def evaluate(
    model: MusicTranslator,
    data: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    excerpts: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    name: str = "",
    compare: MusicTranslator | None = None,
    single_notes: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> dict:
    """Translate the paired excerpts of a corpus with a model, and measure everything.

    Parameters
    ----------
    model : MusicTranslator
        Its domains must be among those of the pairs.
    data : path
        A corpus folder with paired excerpts and held-out tracks.
    out : path, optional
        Folder to write ``report.json``, ``report.md``, ``rows.csv`` and plots to; must not exist
        yet, and is there only when it is complete.
    excerpts : int, optional
        Use so many excerpts, spread over the sources; by default all.
    temperature, seed, backend
        As in `umtlib.translate`, whose output for this seed is what is measured.
    name : str
        What the report calls the model.
    compare : MusicTranslator, optional
        Another model, whose latent and freedom are measured too; one trained without the confusion
        loss, say, or with a small latent.
    single_notes : path, optional
        Notes in NSynth's format, to compare embeddings across instruments.
    progress : callable, optional
        Called with a stage, steps done and steps in all.

    Returns
    -------
    dict
        The report, plain JSON.

    Raises
    ------
    EvaluationError
        If the corpus does not have what is needed, the recogniser does not know a domain, or
        ``out`` exists or cannot be written.
    CorpusError
        If it cannot be read.
    """
    with nullcontext() if out is None else new_folder(out) as part:
        pairs = choose(read_pairs(data), excerpts)
        judge, corpus = recogniser.load(), Corpus(data)
        settings = {"temperature": temperature, "seed": seed, "backend": backend}
        _check_domains(model.domains, judge)
        single = single_notes and nsynth.embeddings(model, single_notes)
        made = translate_pairs(model, pairs, progress=progress, **settings)
        report = {"model": name, "umtlib": umtlib.__version__, **settings}
        rows, report["results"] = measure(pairs, model.domains, made, corpus, judge, progress)
        _tell(progress, "probing", 0, 1)
        report["latent"] = latent.evaluate(model, corpus)
        report["transcription"] = transcription.evaluate(model, pairs)
        report["blending"] = _blends(model, pairs, settings)
        report["creativity"] = creativity(model, pairs, made, **settings)
        if compare is not None:
            report["latent_compared"] = latent.evaluate(compare, corpus)
            report["creativity_compared"] = creativity(compare, pairs, None, **settings)
        if single:
            report["nsynth"] = nsynth.compare(*single)
        if part is not None:
            write(report, rows, part, {"nsynth": nsynth.plot(*single)} if single else {})
        _tell(progress, "probing", 1, 1)
    return report


def creativity(
    model: MusicTranslator,
    pairs: Sequence[Pair],
    made: Translations | None,
    *,
    seed: int = 0,
    **settings,
) -> dict[str, float]:
    """Translate a few excerpts to the other domains with two seeds; see `blending.creativity`.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    pairs : sequence of Pair
        From which the excerpts are chosen, of different sources.
    made : mapping or None
        Their translations with this seed, if there are any.
    seed : int
        Of the first take; the second has the next one.
    **settings
        Temperature, backend, progress; as in `translate_pairs`.

    Returns
    -------
    dict
        Averages of ``kept`` and ``agreed``, and their number ``n``.
    """
    few = choose(pairs, _RETAKEN)
    first = made or translate_pairs(model, few, seed=seed, **settings)
    second = translate_pairs(model, few, seed=seed + 1, **settings)
    found = [
        blending.creativity(pair.audio(), [first[pair.id, domain], second[pair.id, domain]])
        for pair in few
        for domain in model.domains
        if domain != pair.source
    ]
    return {name: mean(found, name) for name in ("kept", "agreed")} | {"n": len(found)}


def _blends(model: MusicTranslator, pairs: Sequence[Pair], settings: Mapping) -> list[dict]:
    """Blend the first two excerpts of each domain; beside it, the recordings with a hard cut."""
    found = []
    for domain in model.domains:
        sounds = [excerpt(pair.audio()).waveform for pair in pairs if pair.source == domain][:2]
        if len(sounds) == 2:
            first, second = sounds
            end = len(first) / audio.SAMPLE_RATE
            begin, half = end - blending.BLEND, round(blending.BLEND * audio.SAMPLE_RATE / 2)
            cut = np.concatenate([first[:-half], second[half:]])
            mixed = blending.decode(model, domain, first, second, **settings)
            seams = [blending.evaluate(sound, begin, end)["seam"] for sound in (mixed, cut)]
            found.append({"domain": domain, "blend": seams[0], "hard_cut": seams[1]})
    return found


def choose(pairs: Sequence[Pair], number: int | None) -> list[Pair]:
    """Return so many pairs, taken from the sources in turn; all if ``number`` is None.

    Raises
    ------
    EvaluationError
        If the number is less than 1 or there are no pairs.
    """
    if not pairs or (number is not None and number < 1):
        raise EvaluationError(f"{number} of {len(pairs)} paired excerpts: nothing to evaluate")
    turn: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(pairs):
        group = pair.source.split("/")[0]  # the unseen timbres take turns as one source
        turn[group] = turn.get(group, -1) + 1
        ranked.append((turn[group], place))
    kept = sorted(place for _, place in sorted(ranked)[:number])
    return [pairs[place] for place in kept]


def translate_pairs(
    model: MusicTranslator,
    pairs: Sequence[Pair],
    domains: Sequence[str] | None = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """Translate every excerpt to every domain (or to those named), many streams at a time.

    Each result is the one that `umtlib.translate` gives for this excerpt, domain and seed, but for
    the rounding of sums; which codes are drawn can differ where two are about equally likely.

    Returns
    -------
    dict
        From (excerpt's id, domain) to float32 waveforms, shape (T,).
    """
    made, done, domains, pool = {}, 0, domains or model.domains, model.config.encoder.pool
    total = len(pairs) * len(domains)

    def tell(rows: int, frames: int, samples: int) -> None:
        share = done + rows * samples / (frames * pool)
        _tell(progress, "translating", round(100 * share), 100 * total)

    for first in range(0, len(pairs), _STREAMS):
        group = pairs[first : first + _STREAMS]
        sounds = [audio.level(pair.audio() / np.float32(32_768)) for pair in group]
        found = [translation.hear(model, [sound], len(sound)) for sound in sounds]
        for frames in sorted({one.latent.shape[2] for one in found}):  # of one corpus: all alike
            some = [i for i, one in enumerate(found) if one.latent.shape[2] == frames]
            heard = Heard(
                torch.cat([found[i].latent for i in some]),
                frames * pool,
                torch.cat([found[i].levels for i in some]),
            )
            for domain in domains:
                pieces = perform(
                    model, [domain], heard.split(pool),
                    states=[translation.seeded(seed, len(some))], temperature=temperature,
                    backend=backend, progress=partial(tell, len(some), frames),
                )  # fmt: skip
                rows = torch.cat([piece for _, piece in pieces], dim=1)
                for i, row in zip(some, rows, strict=True):
                    made[group[i].id, domain] = row[: found[i].samples].numpy()
                done += len(some)
    return made


def apply(
    translate: Callable[[np.ndarray, str], np.ndarray],
    pairs: Sequence[Pair],
    domains: Sequence[str],
) -> dict[tuple[str, str], np.ndarray]:
    """Translate every excerpt with any function of a waveform (float32, (T,)) and a domain."""
    return {
        (pair.id, domain): translate(pair.audio() / np.float32(32_768), domain)
        for pair in pairs
        for domain in domains
    }


def measure(
    pairs: Sequence[Pair],
    domains: Sequence[str],
    made: Translations,
    corpus: Corpus | None,
    judge: recogniser.Recogniser,
    progress: Progress | None = None,
) -> tuple[list[dict], dict]:
    """Measure translations and the stand-ins.

    Parameters
    ----------
    pairs : sequence of Pair
        The excerpts.
    domains : sequence of str
        The targets.
    made : mapping
        From (excerpt's id, target) to waveforms; whatever made them.
    corpus : Corpus or None
        Its held-out tracks are the reference set of the Frechet distance; None leaves that out.
    judge : Recogniser
        Must know the domains.
    progress : callable, optional
        See `evaluate`.

    Returns
    -------
    tuple of (list of dict, dict)
        One row per system, excerpt and target; and what the report says of them.

    Raises
    ------
    EvaluationError
        If a translation is missing or of the wrong length, or a domain is unknown.
    """
    _check_domains(domains, judge)
    rows, embedded = [], {}
    for done, pair in enumerate(pairs, start=1):
        for target, system, row, points in _measure_pair(pair, pairs, domains, made, judge):
            rows.append(row)
            if pair.source != target:
                embedded.setdefault((system, target), []).append(points)
        _tell(progress, "measuring", done, len(pairs))
    results = summarise(rows, domains, judge)
    if corpus is not None:
        results["frechet"] = _frechet(corpus, domains, judge, embedded)
    return rows, results


def _check_domains(domains: Sequence[str], judge: recogniser.Recogniser) -> None:
    if unknown := set(domains) - set(judge.domains):
        raise EvaluationError(
            f"the recogniser does not know {sorted(unknown)[0]!r}, only {', '.join(judge.domains)}"
        )


def _measure_pair(pair: Pair, pairs, domains, made, judge):
    """Yield (target, system, row, embedded windows) for one excerpt."""
    source = excerpt(pair.audio())
    fixed = {"input": source, "input_mulaw": source.coded, "noise": _noise(source)}
    found: dict[Excerpt, dict] = {}  # what the stand-ins contain is the same for all targets
    for target in domains:
        if (pair.id, target) not in made:
            raise EvaluationError(f"there is no translation of {pair.id} to {target}")
        true = _rendering(pair, target)
        systems = {"translation": excerpt(made[pair.id, target]), **fixed, "truth": true.coded}
        systems |= _wrong(pair, pairs, target)
        for system in (name for name in SYSTEMS if name in systems):
            heard = systems[system]
            if heard not in found:
                found[heard] = _alone(pair, source, heard, judge)
            row = {"system": system, "excerpt": pair.id, "source": pair.source, "target": target}
            row |= found[heard] | truth.evaluate(true, heard, judge)
            yield target, system, row, judge.embed(heard)


def _alone(pair: Pair, source: Excerpt, heard: Excerpt, judge: recogniser.Recogniser) -> dict:
    """Return what does not depend on the target."""
    called = judge.domains[int(judge.probabilities(heard).argmax())]
    found = pitch.evaluate(source, heard, pair.melody)
    found |= notes.evaluate(pair.notes, heard, pair.melody)
    return {"called": called} | found


def _rendering(pair: Pair, name: str) -> Excerpt:
    """Return a true rendering; kept for a while, for it also stands in for wrong translations."""
    return _read(pair.folder / pair.files[name], pair.sha256[name])


@lru_cache(maxsize=32)
def _read(path: Path, _digest: str) -> Excerpt:
    return excerpt(audio.read(path))


def _noise(sound: Excerpt) -> Excerpt:
    return excerpt(0.1 * np.random.default_rng(0).standard_normal(len(sound.waveform)))


def _wrong(pair: Pair, pairs: Sequence[Pair], target: str) -> dict[str, Excerpt]:
    """Return the true rendering of another piece, and that of this one by another domain."""
    place, found = pairs.index(pair), {}
    for other in (*pairs[place + 1 :], *pairs[:place]):
        if other.piece != pair.piece:
            found["wrong_excerpt"] = _rendering(other, target)
            break
    names = sorted(name for name in pair.files if "/" not in name)
    turn = names.index(target)
    for name in (*names[turn + 1 :], *names[:turn]):
        if name != pair.source:  # that would be the input
            found["wrong_domain"] = _rendering(pair, name)
            break
    return found


def mean(rows: Iterable[Mapping], metric: str) -> float | None:
    """Return the average of a metric over the rows that have it, or None."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return float(np.mean(values)) if values else None


def means(rows: Iterable[Mapping]) -> dict[str, float | None]:
    """Return the average of every metric, and the number of rows as ``n``."""
    rows = list(rows)
    return {metric: mean(rows, metric) for metric in METRICS} | {"n": len(rows)}


def group(source: str) -> str:
    """Return a source's name in the tables: its domain, or ``"unseen"``."""
    return "unseen" if source.startswith("unseen/") else source


def summarise(
    rows: Sequence[Mapping], domains: Sequence[str], judge: recogniser.Recogniser
) -> dict:
    """Return the averages that the report shows; a domain to itself counts in ``pairs`` only."""
    away = [row for row in rows if row["source"] != row["target"]]
    of = {system: [row for row in away if row["system"] == system] for system in SYSTEMS}
    sources = sorted({group(row["source"]) for row in rows})
    by_pair = {
        source: {
            target: {
                system: means(
                    row for row in rows
                    if (row["system"], row["target"]) == (system, target)
                    and group(row["source"]) == source
                )
                for system in ("translation", "input", "truth")
            }
            for target in domains
        }
        for source in sources
    }  # fmt: skip
    results = {
        "excerpts": len({row["excerpt"] for row in rows}),
        "systems": {system: means(of[system]) for system in SYSTEMS},
        "to_piano": _to_piano(of),
        "pairs": by_pair,
        "recogniser": {system: _called(of[system], judge) for system in ("translation", "truth")},
    }
    return results | {"targets": _targets(results, of, domains)}


def _to_piano(of: Mapping[str, list]) -> dict:
    """Return the paper's table: from its three kinds of source to the piano."""
    return {
        source: {
            system: means(
                row for row in rows
                if row["target"] == "beethoven_piano" and group(row["source"]) == source
            )
            for system, rows in of.items()
        }
        for source in PAPER
    }  # fmt: skip


def _called(rows: Sequence[Mapping], judge: recogniser.Recogniser) -> dict:
    wanted, called = ([row[name] for row in rows] for name in ("target", "called"))
    return recogniser.summary(recogniser.confusion(wanted, called, judge.domains), judge.domains)


def _targets(results: Mapping, of: Mapping[str, list], domains: Sequence[str]) -> list[dict]:
    """Compare with what the project set itself to reach."""
    right = [results["recogniser"][s]["by_domain"].values() for s in ("translation", "truth")]
    ours, true = (results["systems"][system] for system in ("translation", "truth"))
    found = [("recognised as the target, worst domain", 0.9, *map(_lowest, right))]
    for source, paper in PAPER.items():
        for metric, wanted in zip(("ncc", "dtw"), paper["network"], strict=True):
            values = [results["to_piano"][source][s][metric] for s in ("translation", "truth")]
            found.append((f"{metric}, {source} to piano", wanted, *values))
    found += [
        (f"{m}, all", w, ours[m], true[m]) for m, w in (("ncc_centred", 0.6), ("chroma", 0.5))
    ]
    for metric, sign in (("log_mel", -1), ("note_f", 1)):
        values = (
            _closer(results["pairs"], domains, s, metric, sign) for s in ("translation", "truth")
        )
        found.append((f"pairs closer to the truth than the input is, {metric}", 1.0, *values))
    for metric, what in (("melody", ""), ("melody_chroma", ", in any octave")):
        values = (_whistled(of[s], domains, metric) for s in ("translation", "truth"))
        found.append((f"melody of the whistle{what}, worst domain", 0.7, *values))
    return [
        {"target": what, "wanted": wanted, "reached": value, "truth": ceiling,
         "met": None if value is None else value >= wanted}
        for what, wanted, value, ceiling in found
    ]  # fmt: skip


def _lowest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _whistled(rows: Sequence[Mapping], domains: Sequence[str], metric: str) -> float | None:
    """Return the average over the whistled excerpts, in the worst domain."""
    rows = [row for row in rows if row["source"] == "unseen/whistle"]
    return _lowest(mean((r for r in rows if r["target"] == name), metric) for name in domains)


def _closer(
    by_pair: Mapping, domains: Sequence[str], system: str, metric: str, sign: int
) -> float | None:
    """Return the part of the pairs of two domains in which a system beats the input."""
    wins = []
    for source, target in product(domains, domains):
        cell = by_pair.get(source, {}).get(target)
        if source != target and cell and cell[system][metric] is not None:
            wins.append(sign * (cell[system][metric] - cell["input"][metric]) > 0)
    return float(np.mean(wins)) if wins else None


def _frechet(corpus: Corpus, domains: Sequence[str], judge, embedded: Mapping) -> dict:
    results = {}
    for target in domains:
        if ("translation", target) not in embedded:
            continue  # every excerpt comes from this domain
        tracks = corpus.select(target, "val") + corpus.select(target, "test")
        if not tracks:
            raise EvaluationError(f"{corpus.folder} has no held-out tracks of {target}")
        reference = np.concatenate([judge.embed(corpus.audio(track)) for track in tracks])
        results[target] = {
            system: frechet.evaluate(reference, np.concatenate(embedded[system, target]))
            for system in SYSTEMS
            if (system, target) in embedded
        }
    return results


def write(
    report: dict, rows: Sequence[Mapping], out: Path, pictures: Mapping[str, Figure] | None = None
) -> None:
    """Write ``report.json``, ``report.md``, ``rows.csv`` and plots to a folder that is there."""
    (out / "report.json").write_text(files.to_json(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(tables(report), encoding="utf-8")
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        columns = ("system", "excerpt", "source", "target", "called", *METRICS)
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
    for name, figure in {**draw(report), **(pictures or {})}.items():
        figure.savefig(out / f"{name}.png", dpi=110)


def _short(value: object) -> object:
    """Return a number with five digits: more of them differ from one run to the next."""
    return f"{value:.5g}" if isinstance(value, float) else value


def _tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress is not None:
        progress(stage, done, total)
