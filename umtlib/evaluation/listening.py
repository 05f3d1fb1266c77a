"""What did listeners say? Opinion scores, and the lineup.

Conventions. Ratings are rows (`read` takes them from CSV files) with the fields

* ``rater,clip,system,score`` for opinion scores, ``score`` from 1 (bad) to 5 (excellent), the same
  ``clip`` for the same source in every system, and if you like ``group``, as in the paper's table;
* ``rater,clip,domain,answer`` for the lineup: which of the K clips is the source's own
  reconstruction? ``domain`` is the right answer.

A score is a mean, plus a rater's leniency, plus a clip's merit, plus noise. As in CrowdMOS (Ribeiro
et al. 2011) the three variances are estimated, by Henderson's first method (sums of squares set
equal to their expectations), and enter the interval. Intervals are of 95 %. Notebook:
``09_listening_tests``.
"""

import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import scipy.stats

from umtlib.errors import EvaluationError
from umtlib.evaluation.recogniser import confusion
from umtlib.files import spreadsheet

RATING_COLUMNS = ("rater", "clip", "system", "score")
LINEUP_COLUMNS = ("rater", "clip", "domain", "answer")
LEVEL = 0.95  # of the intervals
_PARTS = ("rater", "clip", "noise")  # of the variance


def read(path: str | os.PathLike, columns: Sequence[str] | None = None) -> list[dict]:
    """Read a table of a listening test; by default of a lineup or, without ``answer``, of scores.

    If it has no line, lacks a column or a cell, or a score is not in 1..5: EvaluationError.
    """

    def wanted(found: Collection[str]) -> Sequence[str]:
        return columns or (LINEUP_COLUMNS if "answer" in found else RATING_COLUMNS)

    rows = spreadsheet.read(path, wanted, EvaluationError)
    if not rows:
        raise EvaluationError(f"{path} has no line that is filled in")
    for number, row in rows:
        where = f"{path}, line {number}:"
        if missing := [name for name in wanted(row) if not row[name]]:
            raise EvaluationError(f"{where} no {missing[0]}; fill it in, or remove the line")
        if "score" in wanted(row):
            row["score"] = _score(row["score"], where)
    return [row for _, row in rows]


def once(rows: Sequence[Mapping]) -> list[Mapping]:
    """Return a rater's last answer to each item: a sheet may be handed in twice, or corrected."""
    items = (tuple(row.get(name) for name in ("rater", "clip", "system", "domain")) for row in rows)
    return [*dict(zip(items, rows, strict=True)).values()]


def _score(text: str, where: str) -> float:
    try:
        if 1 <= (score := float(text)) <= 5:
            return score
    except ValueError:
        pass
    raise EvaluationError(f"{where} score {text!r} is no number from 1 to 5")


def variances(scores: np.ndarray, raters: np.ndarray, clips: np.ndarray) -> dict[str, float]:
    """Return the variances of scores, (n,), by raters and clips, int, (n,), and of the rest."""
    n, y = len(scores), scores - scores.mean()
    per_rater, per_clip = np.bincount(raters), np.bincount(clips)
    met, counts = np.unique(raters * len(per_clip) + clips, return_counts=True)
    rater, clip = np.divmod(met, len(per_clip))  # of each pair that there is, counted
    by_rater = (np.bincount(raters, y) ** 2 / per_rater).sum()
    by_clip = (np.bincount(clips, y) ** 2 / per_clip).sum()
    # Coefficients of (rater, clip, noise) in the expectation of each sum of squares, less those
    # of the sum for the mean.
    mean = np.array([(per_rater**2).sum() / n, (per_clip**2).sum() / n, 1.0])
    rows = np.array([
        [n, (counts**2 / per_rater[rater]).sum(), len(per_rater)],
        [(counts**2 / per_clip[clip]).sum(), n, len(per_clip)],
        [n, n, n],
    ])  # fmt: skip
    sums = np.array([by_rater, by_clip, (y**2).sum()])
    found, *_ = np.linalg.lstsq(rows - mean, sums, rcond=None)
    return dict(zip(_PARTS, np.maximum(found, 0).tolist(), strict=True))


def opinion(ratings: Sequence[Mapping]) -> dict[str, float | None]:
    """Return the mean opinion score of one system's ratings, with half widths of two intervals.

    ``naive`` takes ratings as independent, ``interval`` raters and clips as crossed random effects,
    two of each at least. What is undefined is None.
    """
    n = len(ratings)
    result = dict.fromkeys(("mean", "sd", "naive", "interval", *_PARTS)) | {"n": n}
    scores = np.array([rating["score"] for rating in ratings], float)
    result |= {"mean": float(scores.mean()), "sd": float(scores.std(ddof=1)) if n > 1 else None}
    raters, clips = (
        np.unique([rating[name] for rating in ratings], return_inverse=True)[1]
        for name in ("rater", "clip")
    )
    if min(raters.max(), clips.max()) < 1:
        return result
    found = variances(scores, raters, clips)
    shares = [(np.bincount(who) ** 2).sum() / n**2 for who in (raters, clips)]
    terms = np.array([*found.values()]) * [*shares, 1 / n]
    quantile = (1 + LEVEL) / 2
    naive = scipy.stats.t.ppf(quantile, n - 1) * scores.std(ddof=1) / np.sqrt(n)
    # Satterthwaite: few raters or few clips leave few degrees of freedom.
    sizes = np.array([raters.max(), clips.max(), max(n - raters.max() - clips.max() - 1, 1)])
    freedom = terms.sum() ** 2 / max((terms**2 / sizes).sum(), 1e-30)
    half = scipy.stats.t.ppf(quantile, max(freedom, 1)) * np.sqrt(terms.sum())
    return result | found | {"naive": float(naive), "interval": float(half)}


def screen(ratings: Sequence[Mapping], least: float = 0.25) -> list[str]:
    """Return the raters to leave out: whose scores do not go with those of the others.

    As in CrowdMOS: the correlation of a rater's scores with the others' mean scores of the same
    clip and system is below ``least``. Who gives everything one score, while the others tell
    systems and clips apart, is left out too. Who shares fewer than three of them with others stays.
    """
    raters, who = np.unique([rating["rater"] for rating in ratings], return_inverse=True)
    items = [(rating["clip"], rating["system"]) for rating in ratings]
    places = {item: place for place, item in enumerate(dict.fromkeys(items))}
    sums, numbers = np.zeros((2, len(raters), len(places)))
    cells = who, [places[item] for item in items]
    np.add.at(sums, cells, [rating["score"] for rating in ratings])
    np.add.at(numbers, cells, 1)
    bad = []
    for rater, own, number in zip(raters.tolist(), sums, numbers, strict=True):
        rest, others = sums.sum(axis=0) - own, numbers.sum(axis=0) - number
        shared = (number > 0) & (others > 0)
        mine, theirs = own[shared] / number[shared], rest[shared] / others[shared]
        if shared.sum() < 3 or np.ptp(theirs) < 1e-9:
            continue
        if np.ptp(mine) < 1e-9 or np.corrcoef(mine, theirs)[0, 1] < least:
            bad.append(rater)
    return bad


def evaluate(ratings: Sequence[Mapping]) -> dict:
    """Analyse scores: ``screened`` raters, ``systems`` and ``groups``, if every rating has one."""
    left_out = screen(ratings)
    kept = [rating for rating in ratings if rating["rater"] not in left_out]
    groups = _by("group", kept) if all(rating.get("group") for rating in ratings) else {}
    return {
        "screened": left_out,
        "systems": _opinions(kept),
        "groups": {name: _opinions(rows) for name, rows in groups.items()},
    }


def _opinions(ratings: Sequence[Mapping]) -> dict[str, dict]:
    return {system: opinion(rows) for system, rows in _by("system", ratings).items()}


def _by(field: str, ratings: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    names = sorted({rating[field] for rating in ratings})
    return {name: [rating for rating in ratings if rating[field] == name] for name in names}


def lineup(answers: Sequence[Mapping], domains: Sequence[str]) -> dict:
    """Analyse a lineup of K domains.

    Gives ``confusion`` (rows: right, columns: given), ``diagonal`` (the mean over the domains of
    the share of right answers), the exact ``interval`` of right / n (Clopper and Pearson), and
    ``p``: how probable at least as many right answers are by chance, 1 / K.
    """
    counts = confusion(*([a[name] for a in answers] for name in ("domain", "answer")), domains)
    n, right, totals = int(counts.sum()), int(counts.trace()), counts.sum(axis=1)
    interval = scipy.stats.binomtest(right, n).proportion_ci(LEVEL, "exact")
    return {
        "domains": list(domains),
        "confusion": counts.tolist(),
        "diagonal": float((counts.diagonal()[totals > 0] / totals[totals > 0]).mean()),
        "chance": 1 / len(domains),
        "right": right,
        "n": n,
        "interval": [float(end) for end in interval],
        "p": float(scipy.stats.binom.sf(right - 1, n, 1 / len(domains))),
    }
