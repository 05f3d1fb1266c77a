"""What a report says of its rows: averages by system, by target, and by pair of domains.

A row is what was measured of one sound: a dict with ``system``, ``excerpt``, ``source``, ``target``
and ``called`` (what the recogniser takes it for), and of `METRICS` those that apply.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from umtlib.evaluation import dynamics, notes, pitch, recogniser, truth
from umtlib.evaluation.tables import PAPER, PAPER_TARGET

SYSTEMS = {
    "translation": "the model",
    "input": "the untranslated input (identity)",
    "input_mulaw": "the input through 8-bit mu-law",
    "noise": "white noise",
    "wrong_excerpt": "another piece, played by the target",
    "wrong_domain": "the true notes, played by a third domain",
    "fluttering": "the true rendering, its level swinging by 3 dB eight times a second",
    "smeared": "the true rendering, its spectrum averaged over 100 ms",
    "shuffled": "the true rendering, its frames of 50 ms in random order",
    "truth": "the true rendering through 8-bit mu-law",
}
IN_TIME = (*dynamics.METRICS, "certainty")  # by target, in a table of their own
METRICS = (*pitch.METRICS, *notes.METRICS, *truth.METRICS, *IN_TIME)
_COMPARED = ("translation", "input", "truth")


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
    return {
        "excerpts": len({row["excerpt"] for row in rows}),
        "systems": {system: means(of[system]) for system in SYSTEMS},
        "in_time": _in_time(of, domains),
        "to_piano": _to_piano(of),
        "pairs": _pairs(rows, domains),
        "recogniser": {system: _called(of[system], judge) for system in ("translation", "truth")},
    }


def _in_time(of: Mapping[str, list], domains: Sequence[str]) -> dict:
    """Return the measures of time by target; to read beside the truth's, which differ a lot."""
    return {
        target: {
            system: {metric: mean(rows, metric) for metric in ("note_f", *IN_TIME)}
            for system in _COMPARED
            for rows in [[row for row in of[system] if row["target"] == target]]
        }
        for target in domains
    }


def _to_piano(of: Mapping[str, list]) -> dict:
    """Return the paper's table: from its three kinds of source to its target."""
    to_target = {
        system: [row for row in rows if row["target"] == PAPER_TARGET]
        for system, rows in of.items()
    }
    return {
        source: {
            system: means(row for row in rows if group(row["source"]) == source)
            for system, rows in to_target.items()
        }
        for source in PAPER
    }


def _pairs(rows: Sequence[Mapping], domains: Sequence[str]) -> dict:
    """Return all averages by source, target and system."""
    found: dict[tuple, list] = {}
    for row in rows:
        found.setdefault((group(row["source"]), row["target"], row["system"]), []).append(row)
    return {
        source: {
            target: {system: means(found.get((source, target, system), [])) for system in _COMPARED}
            for target in domains
        }
        for source in sorted({source for source, _, _ in found})
    }


def _called(rows: Sequence[Mapping], judge: recogniser.Recogniser) -> dict:
    wanted, called = ([row[name] for row in rows] for name in ("target", "called"))
    return recogniser.summary(recogniser.confusion(wanted, called, judge.domains), judge.domains)
