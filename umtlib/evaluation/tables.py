"""Reports as Markdown tables, each with a sentence on how to read it."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from umtlib.evaluation import dynamics
from umtlib.files.names import readable

# Mor et al. 2018, Table 2: NCC and DTW of the conversion to piano, from three kinds of source, by
# the musicians E, M and A, who replayed the segments, and by the network.
PAPER_TARGET = "beethoven_piano"  # a corpus without these domains has no such table
PAPER = {
    "bach_harpsichord": ((0.82, 0.98), (0.69, 0.96), (0.76, 0.97), (0.84, 0.98)),
    "mozart_orchestra": ((0.78, 0.97), (0.65, 0.95), (0.73, 0.95), (0.82, 0.97)),
    "unseen": ((0.76, 0.97), (0.72, 0.95), (0.75, 0.94), (0.88, 0.98)),
}
COMPARED = ("translation", "input", "truth")  # in each cell of some tables
IN_TIME = (*dynamics.METRICS, "certainty")  # by target, in a table of their own


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return one table; numbers get three digits, and texts stay what they are."""
    lines = [map(_cell, header), ["---"] * len(header), *(map(_cell, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        # Sums that should be 0 are not quite, and on every machine something else.
        return f"{round(value, 9) + 0:.3g}"
    return readable(str(value).replace("\\", "\\\\")).replace("|", "\\|")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def tables(report: Mapping) -> str:
    """Return a report (`umtlib.evaluation.report.evaluate`) as Markdown."""
    results = report["results"]
    left_out = "\n".join(f"- left out: {name}: {why}" for name, why in report["left_out"].items())
    parts = (
        f"# Evaluation of {report['model'] or 'a model'}",
        f"{results['excerpts']} excerpts; temperature {report['temperature']}, seed "
        f"{report['seed']}; umtlib {report['umtlib']}. A dash: not applicable.",
        left_out,
        *measured(results),
        *_probes(report),
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def measured(results: Mapping) -> list[str]:
    """Return what `umtlib.evaluation.report.measure` says of translations, as Markdown's blocks."""
    systems, in_time = results["systems"], ("note_f", *IN_TIME)
    metrics = [metric for metric in systems["translation"] if metric not in IN_TIME]
    by_target = (
        (t, *(_together(found, m) for m in in_time)) for t, found in results["in_time"].items()
    )
    return [
        "## The translations and what stands in for them",
        _by_system(systems, metrics),
        "Averages over all excerpts and targets other than the source. `chroma` to `dtw` compare "
        "with the input (`pyin_` for melodies only), `note_f` to `melody_chroma` with the score, "
        "`log_mel` to `chroma_cosine` with the true rendering; in log_mel and timbre less is "
        "better. `ncc` and `dtw` are the paper's, and say next to nothing: look at another piece "
        "and at white noise.",
        "## In time",
        _by_system(systems, IN_TIME),
        "`attack`: rise at an onset, dB. `onset_f`: the onsets found against the score's, "
        "`onset_f_truth`: against those found in the true rendering. `decay`, dB/s, and `flutter`, "
        "dB, between the score's onsets. `level_corr`: with the truth's level. `certainty`: the "
        "recogniser's, that it is the target. What matters is how near a row is to the truth's.",
        "By target: translation / untranslated input / true rendering.",
        markdown(("target", *in_time), by_target),
        *_to_piano(results["pairs"]),
        *_pairs(results["pairs"]),
        *_recogniser(results.get("recogniser", {})),
        *_frechet(results.get("frechet", {})),
    ]


def _by_system(systems: Mapping, metrics: Iterable[str]) -> str:
    """Return one row per system, with the metrics that any of them has."""
    there = [m for m in metrics if any(values[m] is not None for values in systems.values())]
    rows = ((name, *(values[m] for m in there)) for name, values in systems.items())
    return markdown(("", *there), rows)


def _together(systems: Mapping, metric: str) -> str:
    return " / ".join(_cell(systems[system][metric]) for system in COMPARED)


def _to_piano(pairs: Mapping) -> list[str]:
    """Return the paper's table, if its domains are there."""
    groups = {g: pairs[g][PAPER_TARGET] for g in PAPER if PAPER_TARGET in pairs.get(g, {})}
    if not groups:
        return []
    shown = "{:.2f} / {:.2f}".format
    rows = [
        (f"paper: {who}", *(shown(*PAPER[g][place]) for g in groups))
        for place, who in enumerate(("E", "M", "A", "network"))
    ]
    kinds = (("", "ncc", "dtw"), (", centred", "ncc_centred", "dtw_centred"),
             (", pyin, melodies", "pyin_ncc", "pyin_dtw"))  # fmt: skip
    for (kind, *metrics), system in product(kinds, next(iter(groups.values()))):
        found = [[values[system][m] for m in metrics] for values in groups.values()]
        cells = [None if None in two else shown(*two) for two in found]
        if any(cells):  # the pitch of some stand-ins is not asked for
            rows.append((system + kind, *cells))
    return ["## Conversion to piano, as in the paper: NCC / DTW", markdown(("", *groups), rows)]


def _pairs(pairs: Mapping) -> list[str]:
    targets, parts = list(next(iter(pairs.values()))), []
    for metric in ("log_mel", "timbre", "chroma_cosine", "note_f", "frame_f"):
        rows = [(g, *(_together(cells[t], metric) for t in targets)) for g, cells in pairs.items()]
        if any(cell.strip("-/ ") for row in rows for cell in row[1:]):
            parts += [f"### {metric}", markdown((r"source \ target", *targets), rows)]
    said = "Each cell: translation / untranslated input / true rendering through mu-law."
    return ["## Pairs of source and target", said, *parts] if parts else []


def _confusion(corner: str, found: Mapping) -> str:
    rows = zip(found["domains"], found["confusion"], strict=True)
    return markdown((corner, *found["domains"]), ((name, *row) for name, row in rows))


def _recogniser(results: Mapping) -> list[str]:
    parts = ["## What the domain recogniser calls them"] if results else []
    for system, found in results.items():
        title = f"### {system}: {_cell(found['accuracy'])} right"
        parts += [title, _confusion(r"target \ called", found)]
    return parts


def _frechet(results: Mapping) -> list[str]:
    if not results:
        return []
    systems = max(results.values(), key=len)  # a target may lack some stand-ins
    counts, rows = ("reference_windows", "windows"), []
    for target, found in results.items():
        windows = (found["translation"][name] for name in counts)
        distances = (found[name]["distance"] if name in found else None for name in systems)
        rows.append((target, *windows, *distances))
    return [
        "## Frechet distance to the target domain",
        markdown(("target", "reference windows", "windows", *systems), rows),
        "Embedding: the hidden layer of the domain recogniser; not comparable with others. "
        "Reference: held-out tracks of the target. The distance falls with the number of windows; "
        "that of the truth, from as many windows, is its floor.",
    ]


def _probes(report: Mapping) -> list[str]:
    compared = {f"{k}, model compared": v for k, v in report.get("latent_compared", {}).items()}
    freedom = {"the model": "creativity", "the model compared": "creativity_compared"}
    free = [(title, *report[name].values()) for title, name in freedom.items() if name in report]
    notes = report.get("nsynth", {"pairs": []})["pairs"]
    found = {
        "The source domain in the latent":
            (("accuracy", ""), (report.get("latent", {}) | compared).items()),
        "The notes in the latent, by a linear probe":
            (("", ""), report.get("transcription", {}).items()),
        "Blending: the seam":
            (("domain", "blend", "hard cut"), [x.values() for x in report.get("blending", [])]),
        "How free the decoders are: chroma correlation of translations with their input (kept), "
        "and of those of two seeds (agreed)": (("", "kept", "agreed", "n"), free),
        "Embeddings of single notes (cosines)": ([*notes[0]] if notes else (),
            [x.values() for x in notes]),
    }  # fmt: skip
    tables = ((f"## {title}", markdown(*table)) for title, table in found.items() if table[1])
    return [part for parts in tables for part in parts]


def opinion(found: Mapping) -> str:
    """Return `umtlib.evaluation.listening.evaluate` as Markdown: per group like the paper's."""
    groups, systems, parts = found["groups"].values(), found["systems"], []
    if groups:
        cells = ((name, *(_mean_sd(group.get(name)) for group in groups)) for name in systems)
        parts = ["Mean and SD, by group", markdown(("", *found["groups"]), cells)]
    rows = (
        (name, result["n"], _mean_sd(result), result["naive"], result["interval"])
        for name, result in systems.items()
    )
    header = ("", "n", "mean±SD", "± if ratings were independent", "± raters and clips sampled")
    screened = ", ".join(found["screened"]) or "nobody"
    return "\n\n".join([*parts, "All ratings", markdown(header, rows), f"Left out: {screened}."])


def _mean_sd(result: Mapping | None) -> str | None:
    known = result and result["sd"] is not None
    return f"{result['mean']:.2f}±{result['sd']:.2f}" if known else None


def lineup(found: Mapping) -> str:
    """Return `umtlib.evaluation.listening.lineup` as Markdown."""
    low, high = found["interval"]
    said = (
        f"{found['right']} of {found['n']} right, {low:.3f} to {high:.3f} of all; mean of the "
        f"diagonal {_cell(found['diagonal'])}, by chance {found['chance']:.3f}; as many by chance: "
        f"p = {found['p']:.3g}."
    )
    return "\n\n".join([_confusion(r"source \ answer", found), said])
