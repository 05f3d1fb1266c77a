"""Reports as Markdown tables, each with a sentence on how to read it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from umtlib.names import readable

# Mor et al. 2018, Table 2: NCC and DTW of the conversion to piano, from three kinds of source. E,
# M and A are musicians, who replayed the segments.
PAPER_TARGET = "beethoven_piano"  # a corpus without these domains has no such table
PAPER = {
    "bach_harpsichord": {
        "E": (0.82, 0.98), "M": (0.69, 0.96), "A": (0.76, 0.97), "network": (0.84, 0.98)},
    "mozart_orchestra": {
        "E": (0.78, 0.97), "M": (0.65, 0.95), "A": (0.73, 0.95), "network": (0.82, 0.97)},
    "unseen": {
        "E": (0.76, 0.97), "M": (0.72, 0.95), "A": (0.75, 0.94), "network": (0.88, 0.98)},
}  # fmt: skip
# What Markdown takes for more than itself; an underscore within a word it does not.
_MARKS = re.compile(r"[\\`*\[\]<>|$~#&]|(?<![^\W_])_|_(?![^\W_])")
_DISTANCES = ("log_mel", "timbre")  # less is better
_IN_TIME = (
    "attack", "onsets", "onset_f", "onset_f_truth", "decay", "flutter", "level_corr", "certainty",
)  # fmt: skip


def tables(report: Mapping) -> str:
    """Return a report (`umtlib.evaluation.report.evaluate`) as Markdown."""
    results = report["results"]
    parts = [
        f"# Evaluation of {escaped(report['model'] or 'a model')}",
        f"{results['excerpts']} excerpts; temperature {report['temperature']}, seed "
        f"{report['seed']}; umtlib {report['umtlib']}. A dash: not applicable.",
        *measured(results),
        *_probes(report),
    ]
    return "\n\n".join(parts) + "\n"


def measured(results: Mapping) -> list[str]:
    """Return what `umtlib.evaluation.report.measure` says of translations, as Markdown's blocks."""
    return [
        *_systems(results["systems"]),
        *_in_time(results["systems"], results["in_time"]),
        *_to_piano(results["to_piano"]),
        *_pairs(results["pairs"]),
        *_recogniser(results["recogniser"]),
        *_frechet(results.get("frechet", {})),
    ]


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return one table; numbers get three digits, and texts stay what they are."""
    cells = ([_cell(value) for value in row] for row in rows)
    lines = [[escaped(name) for name in header], ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    # Sums that should be 0 are not quite, and on every machine something else.
    return f"{round(value, 9) + 0:.3g}" if isinstance(value, float) else escaped(str(value))


def escaped(name: str) -> str:
    r"""Return a name as Markdown that shows it as it is.

    >>> print(escaped("a|b*"), escaped("bach_organ"))
    a\|b\* bach_organ
    """
    return _MARKS.sub(r"\\\g<0>", readable(name))


def _systems(systems: Mapping) -> list[str]:
    metrics = [metric for metric in next(iter(systems.values())) if metric not in _IN_TIME]
    rows = [(name, *(values[m] for m in metrics)) for name, values in systems.items()]
    note = (
        "Averages over all excerpts and targets other than the source. `chroma` to `dtw` compare "
        "with the input (`pyin_` for melodies only), `note_f` to `melody_chroma` with the score, "
        "`log_mel` to `chroma_cosine` with the true rendering; in "
        f"{' and '.join(_DISTANCES)} less is better. `ncc` and `dtw` are the paper's, and say next "
        "to nothing: look at another piece and at white noise."
    )
    return ["## The translations and what stands in for them", markdown(("", *metrics), rows), note]


def _in_time(systems: Mapping, targets: Mapping) -> list[str]:
    rows = [(name, *(values[metric] for metric in _IN_TIME)) for name, values in systems.items()]
    note = (
        "`attack`: rise at an onset, dB. `onset_f`: the onsets found against the score's, "
        "`onset_f_truth`: against those found in the true rendering. `decay`, dB/s, and `flutter`, "
        "dB, between the score's onsets. `level_corr`: with the truth's level. `certainty`: "
        "the recogniser's, that it is the target. What matters is how near a row is to the truth's."
    )
    metrics = ("note_f", *_IN_TIME)
    cells = [
        (target, *(" / ".join(_cell(found[s][m]) for s in found) for m in metrics))
        for target, found in targets.items()
    ]
    by_target = "By target: translation / untranslated input / true rendering."
    parts = ["## In time", markdown(("", *_IN_TIME), rows), note, by_target]
    return [*parts, markdown(("target", *metrics), cells)]


def _to_piano(groups: Mapping) -> list[str]:
    names = [name for name in groups if groups[name]["input"]["n"]]
    rows = [
        (f"paper: {who}", *("{:.2f} / {:.2f}".format(*PAPER[g][who]) for g in names))
        for who in ("E", "M", "A", "network")
    ]
    kinds = {
        "": ("ncc", "dtw"),
        ", centred": ("ncc_centred", "dtw_centred"),
        ", pyin, melodies": ("pyin_ncc", "pyin_dtw"),
    }
    for (kind, metrics), system in product(kinds.items(), next(iter(groups.values()))):
        cells = [_two([groups[g][system][m] for m in metrics]) for g in names]
        if any(cells):  # the pitch of some stand-ins is not asked for
            rows.append((system + kind, *cells))
    title = "## Conversion to piano, as in the paper: NCC / DTW"
    return [title, markdown(("", *names), rows)] if names else []


def _two(values: Sequence) -> str | None:
    return None if None in values else "{:.2f} / {:.2f}".format(*values)


def _pairs(pairs: Mapping) -> list[str]:
    targets = list(next(iter(pairs.values())))
    parts = [
        "## Pairs of source and target",
        "Each cell: translation / untranslated input / true rendering through mu-law.",
    ]
    for metric in ("log_mel", "timbre", "chroma_cosine", "note_f", "frame_f"):
        rows = []
        for source, cells in pairs.items():
            texts = (
                " / ".join(_cell(values[metric]) for values in cells[target].values())
                for target in targets
            )
            rows.append((source, *texts))
        parts += [f"### {metric}", markdown((r"source \ target", *targets), rows)]
    return parts


def _recogniser(results: Mapping) -> list[str]:
    parts = ["## What the domain recogniser calls them"]
    for system, found in results.items():
        names = found["domains"]
        rows = [(name, *row) for name, row in zip(names, found["confusion"], strict=True)]
        accuracy = _cell(found["accuracy"])
        parts += [f"### {system}: {accuracy} right", markdown((r"target \ called", *names), rows)]
    return parts


def _frechet(results: Mapping) -> list[str]:
    if not results:
        return []
    systems = list(next(iter(results.values())))
    counts = ("reference_windows", "windows")
    rows = [
        (target, *(found[systems[0]][name] for name in counts))
        + tuple(found[system]["distance"] for system in systems)
        for target, found in results.items()
    ]
    note = (
        "Embedding: the hidden layer of the domain recogniser; not comparable with others. "
        "Reference: held-out tracks of the target. The distance falls with the number of windows; "
        "that of the truth, from as many windows, is its floor."
    )
    header = ("target", "reference windows", "windows", *systems)
    return ["## Frechet distance to the target domain", markdown(header, rows), note]


def _probes(report: Mapping) -> list[str]:
    parts = []
    if "latent" in report:
        rows = list(report["latent"].items()) + [
            (f"{name}, model compared", value)
            for name, value in report.get("latent_compared", {}).items()
        ]
        parts += ["## The source domain in the latent", markdown(("accuracy", ""), rows)]
    if "transcription" in report:
        rows = list(report["transcription"].items())
        parts += ["## The notes in the latent, by a linear probe", markdown(("", ""), rows)]
    if report.get("blending"):
        rows = [list(found.values()) for found in report["blending"]]
        parts += ["## Blending: the seam", markdown(("domain", "blend", "hard cut"), rows)]
    if "creativity" in report:
        names = {"creativity": "the model", "creativity_compared": "the model compared"}
        rows = [(title, *report[name].values()) for name, title in names.items() if name in report]
        note = (
            "Chroma correlation of translations with their input (kept), and of those of two seeds "
            "with each other (agreed)."
        )
        parts += ["## How free the decoders are", markdown(("", "kept", "agreed", "n"), rows), note]
    if "nsynth" in report:
        found = report["nsynth"]["pairs"]
        rows = [list(pair.values()) for pair in found]
        parts += ["## Embeddings of single notes (cosines)", markdown(list(found[0]), rows)]
    return parts


def opinion(found: Mapping) -> str:
    """Return `umtlib.evaluation.listening.evaluate` as Markdown: per group like the paper's."""
    groups = found["groups"]
    parts = ["Mean and SD, by group", markdown(("", *groups), _by_group(found))] if groups else []
    rows = [
        (name, result["n"], _mean_sd(result), result["naive"], result["interval"])
        for name, result in found["systems"].items()
    ]
    header = ("", "n", "mean±SD", "± if ratings were independent", "± raters and clips sampled")
    screened = ", ".join(map(escaped, found["screened"])) or "nobody"
    return "\n\n".join([*parts, "All ratings", markdown(header, rows), f"Left out: {screened}."])


def _by_group(found: Mapping) -> list[tuple]:
    return [
        (name, *(_mean_sd(systems.get(name)) for systems in found["groups"].values()))
        for name in found["systems"]
    ]


def _mean_sd(result: Mapping | None) -> str | None:
    if result is None or result["sd"] is None:
        return None
    return f"{result['mean']:.2f}±{result['sd']:.2f}"


def lineup(found: Mapping) -> str:
    """Return `umtlib.evaluation.listening.lineup` as Markdown."""
    names = found["domains"]
    rows = [(name, *row) for name, row in zip(names, found["confusion"], strict=True)]
    low, high = found["interval"]
    return "\n\n".join([
        markdown((r"source \ answer", *names), rows),
        f"{found['right']} of {found['n']} right, {low:.3f} to {high:.3f} of all; mean of the "
        f"diagonal {_cell(found['diagonal'])}, by chance {found['chance']:.3f}; as many by chance: "
        f"p = {found['p']:.3g}.",
    ])  # fmt: skip
