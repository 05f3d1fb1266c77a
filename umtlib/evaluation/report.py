"""Every question asked of one model: ``report.json``, tables and plots.

The same code measures the model's translations and, so that a reader sees what a number is worth,
nine stand-ins for a translator (`SYSTEMS`). What a model or a corpus does not allow to measure is
left out, by name. Notebook: ``08_evaluation``.
"""

import os
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import umtlib
from umtlib import files
from umtlib.corpora import Progress
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import Pair
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    dynamics,
    frechet,
    latent,
    notes,
    nsynth,
    pitch,
    plots,
    recogniser,
    standins,
    tables,
    translations,
    truth,
)
from umtlib.evaluation.features import Excerpt, excerpt
from umtlib.machine.team import Team, join
from umtlib.translator import MusicTranslator

SYSTEMS = (  # docs/evaluation.md says what they are
    "translation", "input", "input_mulaw", "noise", "wrong_excerpt", "wrong_domain",
    *standins.IN_TIME, "truth",
)  # fmt: skip
METRICS = (*pitch.METRICS, *notes.METRICS, *truth.METRICS, *tables.IN_TIME)
_PATIENCE = timedelta(days=1)  # shares of excerpts take unequal time


def evaluate(
    model: MusicTranslator,
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    excerpts: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    name: str = "",
    compare: MusicTranslator | None = None,
    single_notes: str | os.PathLike | None = None,
    listener: str | os.PathLike | None = None,
    progress: Progress = lambda *_: None,
) -> dict:
    """Translate the excerpts of a corpus with a model, and measure everything; return the report.

    The folder ``data`` is a corpus with paired excerpts, or with held-out tracks of the model's
    domains; so many ``excerpts`` are used, spread over the sources, by default all. The new folder
    ``out`` gets ``report.json``, ``report.md``, ``rows.csv`` and plots. Temperature, seed and
    backend are as in `umtlib.translate`, whose output for this seed is what is measured. The report
    calls the model by ``name``; its ``left_out`` says what was not measured, and why. Of a model to
    ``compare`` latent and freedom are measured beside. ``single_notes`` are notes in NSynth's
    format; ``listener`` is the folder of a recogniser.

    Processes that ``torchrun`` started share the excerpts; the first of them does all the rest, and
    the others return an empty report.
    """
    with (
        join(torch.device("cpu"), _PATIENCE) as team,
        nullcontext() if team.rank else files.new_folder(out, EvaluationError) as part,
    ):
        pairs = translations.choose(translations.excerpts_of(data), excerpts)
        corpus, judge = Corpus(data), recogniser.load(listener or recogniser.SHIPPED)
        settings = {"temperature": temperature, "seed": seed, "backend": backend}
        single = single_notes and not team.rank and nsynth.embeddings(model, single_notes)
        mine = team.share(pairs)
        made = translations.translate_pairs(model, mine, progress=progress, **settings)
        report = {"model": name, "umtlib": umtlib.__version__, **settings}
        rows, report["results"] = measure(pairs, model.domains, made, corpus, judge, progress, team)
        if team.rank:
            team.gather(None)  # torchrun waits for the first only some minutes, if this one ends
            return {}
        report["left_out"] = report["results"].pop("left_out")
        whole = made if team.size == 1 else None
        questions = {
            "latent": lambda: latent.evaluate(model, corpus),
            "transcription": lambda: latent.evaluate_notes(model, pairs),
            "blending": lambda: blending.blends(model, pairs, **settings),
            "creativity": lambda: blending.freedom(model, pairs, whole, **settings),
        }
        if compare:
            questions["latent_compared"] = lambda: latent.evaluate(compare, corpus)
            questions["creativity_compared"] = lambda: blending.freedom(compare, pairs, **settings)
        if single:
            questions["nsynth"] = lambda: nsynth.evaluate(*single)
        _ask(questions, report, progress)
        write(report, rows, part, {"nsynth": nsynth.plot(*single)} if single else {})
        team.gather(None)
    return report


def _ask(questions: Mapping[str, Callable], report: dict, progress: Progress) -> None:
    """Add the answers to a report, or why there is none."""
    for done, (question, ask) in enumerate(questions.items(), start=1):
        try:
            report[question] = ask()
        except EvaluationError as reason:
            report["left_out"][question] = str(reason)
        progress("probing", done, len(questions))


def apply(translate: Callable, pairs: Sequence[Pair], domains: Sequence[str]) -> translations.Made:
    """Translate every excerpt with any function of a waveform (float32, (T,)) and a domain."""
    sounds = {pair.id: pair.audio() / np.float32(32_768) for pair in pairs}
    return {(id_, domain): translate(x, domain) for id_, x in sounds.items() for domain in domains}


def measure(
    pairs: Sequence[Pair],
    domains: Sequence[str],
    made: translations.Made,
    corpus: Corpus | None,
    judge: recogniser.Recogniser,
    progress: Progress = lambda *_: None,
    team: Team = Team(),
) -> tuple[list[dict], dict]:
    """Measure translations and the stand-ins; the processes of a team take a share each.

    The translations were ``made`` by anything; if one is missing or of the wrong length, it raises
    EvaluationError. The recogniser is asked if it knows the domains. The corpus's held-out tracks
    are the reference set of the Frechet distance.

    Gives a row per system, excerpt and target, with those of `METRICS` that apply, the recogniser's
    ``embedding`` and ``called``, what it takes it for; and what the report says of the rows.
    """
    known = judge if {*domains} <= {*judge.domains} else None
    render = lru_cache(32)(lambda place, name: excerpt(pairs[place].audio(name)))
    found, mine = {}, team.share(range(len(pairs)))
    for done, place in enumerate(mine, start=1):
        found[place] = [*_rows(place, pairs, domains, made, known, render)]
        progress("measuring", done, len(mine))
    everyones = ChainMap(*team.gather(found))
    rows = [row for place in sorted(everyones) for row in everyones[place]]
    results = summarise(rows, domains, known) | {"left_out": _left_out(pairs, domains, known)}
    if corpus and known:
        results["frechet"] = _frechet(corpus, domains, known, rows)
    return rows, results


def _left_out(pairs: Sequence[Pair], domains: Sequence[str], known) -> dict[str, str]:
    """Return what cannot be measured, and why."""
    asked = (
        (known, "recognised, certainty, timbre, Frechet distance",
         "the recogniser does not know these domains; scripts/fit_listeners.py fits one"),
        (all({*domains} <= {*pair.files} for pair in pairs), "log_mel, timbre, chroma_cosine, "
         "onset_f_truth, level_corr, stand-ins of the true rendering",
         "there is none in these domains"),
        (all(pair.notes for pair in pairs), "note_f, frame_f, melody, onset_f, decay, flutter",
         "the notes of the excerpts are not known"),
    )  # fmt: skip
    return {name: why for there, name, why in asked if not there}


def _rows(place, pairs, domains, made, judge, render) -> Iterator[dict]:
    """Yield the rows of one excerpt; with ``embedding``, if there is a judge."""
    pair, source = pairs[place], excerpt(pairs[place].audio())
    fixed = {"input": source, "input_mulaw": source.coded, "noise": standins.noise(source)}
    found: dict[Excerpt, dict] = {}  # what the stand-ins contain is the same for all targets
    for target in domains:
        if (pair.id, target) not in made:
            raise EvaluationError(f"there is no translation of {pair.id} to {target}")
        systems = {"translation": excerpt(made[pair.id, target]), **fixed}
        systems |= wrong(place, pairs, target, render)
        if true := render(place, target) if target in pair.files else None:
            systems |= {name: late(true) for name, late in standins.IN_TIME.items()}
            systems["truth"] = true.coded
        for system, heard in systems.items():
            if heard not in found:
                tuned = system not in standins.IN_TIME  # the pitch takes long
                found[heard] = pitch.evaluate(source, heard, pair.melody) if tuned else {}
                if pair.notes:
                    found[heard] |= notes.evaluate(pair.notes, heard, pair.melody and tuned)
            row = {"system": system, "excerpt": pair.id, "source": pair.source, "target": target}
            row |= found[heard] | dynamics.evaluate(true, heard, pair.notes or None)
            row |= truth.evaluate(true, heard, judge) if true else {}
            if judge:
                row["embedding"], chances = judge.embed(heard), judge.probabilities(heard)
                row["called"] = judge.domains[int(chances.argmax())]
                row["certainty"] = float(chances[judge.domains.index(target)])
            yield row


def wrong(place: int, pairs: Sequence[Pair], target: str, render: Callable) -> dict[str, Excerpt]:
    """Return another piece as the target plays it, and this one as a third domain does, if any."""
    pair, after = pairs[place], [*range(place + 1, len(pairs)), *range(place)]
    others = [n for n in after if pairs[n].piece != pair.piece and target in pairs[n].files]
    names = sorted({target, *(name for name in pair.files if "/" not in name)})
    turn = names.index(target)
    # The source's own would be the input.
    third = [name for name in names[turn + 1 :] + names[:turn] if name != pair.source]
    found = {"wrong_excerpt": render(others[0], target)} if others else {}
    return found | ({"wrong_domain": render(place, third[0])} if third else {})


def _frechet(corpus: Corpus, domains: Sequence[str], judge, rows: Sequence[Mapping]) -> dict:
    results, embedded = {}, defaultdict(list)
    for row in rows:
        if row["source"] != row["target"]:
            embedded[row["target"], row["system"]].append(row["embedding"])
    for target in domains:
        tracks = corpus.select(target, "val") + corpus.select(target, "test")
        if (target, "translation") not in embedded or not tracks:
            continue  # every excerpt comes from this domain, or nothing was held out
        heard = [judge.embed(corpus.audio(track)) for track in latent.spread(tracks, 400)]
        results[target] = {
            system: frechet.evaluate(np.concatenate(heard), np.concatenate(found))
            for system in SYSTEMS
            if (found := embedded.get((target, system)))
        }
    return results


def means(rows: Iterable[Mapping], metrics: Sequence[str] = METRICS) -> dict[str, float | None]:
    """Return the average of each metric over the rows that have it, and their number as ``n``."""
    rows = list(rows)
    found = {m: [row[m] for row in rows if row.get(m) is not None] for m in metrics}
    return {m: float(np.mean(x)) if x else None for m, x in found.items()} | {"n": len(rows)}


def summarise(rows: Sequence[Mapping], domains: Sequence[str], judge=None) -> dict:
    """Return the averages that the report shows; a domain to itself counts in ``pairs`` only."""
    by = defaultdict(list)
    for row in rows:
        source, target, system = translations.group(row["source"]), row["target"], row["system"]
        by[source, target, system].append(row)
        if row["source"] != target:
            by[system].append(row)
            by[target, system].append(row)
    results = {
        "excerpts": len({row["excerpt"] for row in rows}),
        "systems": {s: means(by[s]) for s in SYSTEMS if by[s] or s == "translation"},
        "in_time": {
            t: {s: means(by[t, s], ("note_f", *tables.IN_TIME)) for s in tables.COMPARED}
            for t in domains
        },
        "pairs": {
            g: {t: {s: means(by[g, t, s]) for s in SYSTEMS} for t in domains}
            for g in sorted({translations.group(row["source"]) for row in rows})
        },
    }
    if judge:
        results["recogniser"] = {
            s: recogniser.evaluate(*zip(*answers, strict=True), judge.domains)
            for s in ("translation", "truth")
            if (answers := [(row["target"], row["called"]) for row in by[s]])
        }
    return results


def write(report: dict, rows: Sequence[Mapping], out: Path, pictures: Mapping[str, Figure]) -> None:
    """Write ``report.json``, ``report.md``, ``rows.csv`` and plots to a folder that is there."""
    (out / "report.json").write_text(files.to_json(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(tables.tables(report), encoding="utf-8")
    columns = ("system", "excerpt", "source", "target", "called", *METRICS)
    cells = ([row.get(name) for name in columns] for row in rows)
    # Five digits: more of them differ from one run to the next.
    short = ([f"{x:.5g}" if isinstance(x, float) else x for x in line] for line in cells)
    tables.write_csv(out / "rows.csv", columns, short)
    pictures = {"systems": plots.systems(report["results"]["systems"]), **pictures}
    for name, figure in pictures.items():
        figure.savefig(out / f"{name}.png", dpi=110)
