"""Every question asked of one model: ``report.json``, tables and plots.

The same code measures the model's translations and, so that a reader sees what a number is worth,
nine stand-ins for a translator (`SYSTEMS`). Nothing here depends on where a translation comes from:
give `measure` any mapping from (excerpt, target) to waveforms. Notebook: ``05_evaluation``.
"""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import umtlib
from umtlib import audio, files
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import Pair, read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    dynamics,
    frechet,
    latent,
    notes,
    nsynth,
    pitch,
    recogniser,
    standins,
    transcription,
    truth,
)
from umtlib.evaluation.features import Excerpt, excerpt
from umtlib.evaluation.folder import new_folder
from umtlib.evaluation.plots import draw
from umtlib.evaluation.summary import METRICS, SYSTEMS, mean, summarise
from umtlib.evaluation.tables import tables
from umtlib.evaluation.translations import Progress, choose, tell, translate_pairs
from umtlib.translator import MusicTranslator

Translations = Mapping[tuple[str, str], np.ndarray]  # (excerpt's id, target domain) -> waveform
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
        tell(progress, "probing", 0, 1)
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
        tell(progress, "probing", 1, 1)
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
        tell(progress, "measuring", done, len(pairs))
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
    fixed = {"input": source, "input_mulaw": source.coded, "noise": standins.noise(source)}
    found: dict[Excerpt, tuple] = {}  # what the stand-ins contain is the same for all targets
    for target in domains:
        if (pair.id, target) not in made:
            raise EvaluationError(f"there is no translation of {pair.id} to {target}")
        true = _rendering(pair, target)
        systems = {"translation": excerpt(made[pair.id, target]), **fixed, "truth": true.coded}
        systems |= _wrong(pair, pairs, target)
        systems |= {name: late(true) for name, late in standins.IN_TIME.items()}
        for system in (name for name in SYSTEMS if name in systems):
            heard = systems[system]
            if heard not in found:
                tuned = system not in standins.IN_TIME
                found[heard] = judge.probabilities(heard), _alone(pair, source, heard, tuned)
            chances, alone = found[heard]
            row = {"system": system, "excerpt": pair.id, "source": pair.source, "target": target}
            row |= alone | truth.evaluate(true, heard, judge)
            row |= dynamics.evaluate(true, heard, pair.notes)
            row["called"] = judge.domains[int(chances.argmax())]
            row["certainty"] = float(chances[judge.domains.index(target)])
            yield target, system, row, judge.embed(heard)


def _alone(pair: Pair, source: Excerpt, heard: Excerpt, tuned: bool) -> dict:
    """Return what does not depend on the target; the pitch, which takes long, only if ``tuned``."""
    found = pitch.evaluate(source, heard, pair.melody) if tuned else {}
    return found | notes.evaluate(pair.notes, heard, pair.melody and tuned)


def _rendering(pair: Pair, name: str) -> Excerpt:
    """Return a true rendering; kept for a while, for it also stands in for wrong translations."""
    return _read(pair.folder / pair.files[name], pair.sha256[name])


@lru_cache(maxsize=32)
def _read(path: Path, _digest: str) -> Excerpt:
    return excerpt(audio.read(path))


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
