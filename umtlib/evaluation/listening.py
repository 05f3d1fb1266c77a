"""What did listeners say? Opinion scores, and the lineup.

Conventions. Ratings are a CSV file in long form, one line per rating, with the columns

* ``rater,clip,system,score`` for opinion scores: ``score`` is 1 (bad) to 5 (excellent); the same
  ``clip`` name stands for the same source in every system. A further column ``group`` (the kind of
  source, say) makes a table by group, as in the paper;
* ``rater,clip,domain,answer`` for the lineup: which of the K clips is the source's own
  reconstruction? ``domain`` is the right answer, ``answer`` the given one.

The sheets that come back from a blinded test are brought into this form by
`umtlib.evaluation.stimuli.unblind`.

**Opinion scores.** A rating is a mean, plus a rater's leniency, plus a clip's merit, plus noise;
raters and clips are crossed and both are samples of a population. The interval that treats ratings
as independent is too narrow, because twenty ratings by one rater are not twenty opinions. As in
CrowdMOS (Ribeiro et al. 2011) the three variances are estimated and enter the interval. The
estimator is Henderson's first method: sums of squares set equal to their expectations, which holds
for any pattern of missing ratings; a negative variance counts as 0.

**Lineup** (section 4.1 of the paper). If translations are as good as reconstructions, nobody can
find the source among them: answers are spread evenly and the share of right ones is 1/K. The test
against 1/K is exact if the answers are independent, so each lineup is shuffled anew.
Notebook: ``05_evaluation``.
"""

import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import scipy.stats

from umtlib import spreadsheet
from umtlib.errors import EvaluationError, UmtWarning

RATING_COLUMNS = ("rater", "clip", "system", "score")
LINEUP_COLUMNS = ("rater", "clip", "domain", "answer")


def read(path: str | os.PathLike, columns: Sequence[str] | None = None) -> list[dict]:
    """Read ratings, or another table of a listening test, from a CSV file.

    Parameters
    ----------
    path : path
        See `umtlib.spreadsheet.read`.
    columns : sequence of str, optional
        That it must have. By default those of the lineup if there is an ``answer``, and else those
        of opinion scores.

    Returns
    -------
    list of dict
        One per line, by column; a ``score`` is a float.

    Raises
    ------
    EvaluationError
        If a column is missing, or a line does not follow the conventions.
    """
    rows = spreadsheet.read(path, columns or _columns, EvaluationError)
    wanted = columns or _columns(rows[0][1] if rows else ())
    return [_rating(row, wanted, f"{path}, line {number}") for number, row in rows]


def _columns(found: Collection[str]) -> Sequence[str]:
    return LINEUP_COLUMNS if "answer" in found else RATING_COLUMNS


def _rating(line: dict, columns: Sequence[str], where: str) -> dict:
    if missing := [name for name in columns if not line[name]]:
        raise EvaluationError(f"{where}: no {missing[0]}; fill it in, or remove the line")
    if "score" in columns:
        try:
            line["score"] = spreadsheet.number(line["score"])
        except ValueError:
            raise EvaluationError(f"{where}: score {line['score']!r} is no number") from None
        if not 1 <= line["score"] <= 5:
            raise EvaluationError(f"{where}: score {line['score']:g} is not in 1 to 5")
    return line


def validate(ratings: Sequence[Mapping]) -> None:
    """Check opinion scores.

    Raises
    ------
    EvaluationError
        If a field is missing, or a score is not in 1..5.
    """
    _check_fields(ratings, RATING_COLUMNS)
    for rating in ratings:
        if not 1 <= rating["score"] <= 5:
            raise EvaluationError(f"score {rating['score']} is not in 1 to 5")


def _check_fields(rows: Sequence[Mapping], names: Sequence[str]) -> None:
    for row in rows:
        if missing := [name for name in names if name not in row]:
            raise EvaluationError(f"a rating without {missing[0]!r}: {dict(row)}")


def once(rows: Sequence[Mapping], item: Sequence[str]) -> list[Mapping]:
    """Count every answer once, and warn of what was not counted.

    Raters whose names differ in case, spaces or the coding of accents only are one, under the name
    that comes first. Of several answers by a rater to the same item the last one counts.

    Parameters
    ----------
    rows : sequence of mapping
        Of opinion scores or of a lineup.
    item : sequence of str
        The fields that tell what was rated.

    Returns
    -------
    list of mapping
        The rows that count.
    """
    names: dict[str, str] = {}
    joined: dict[str, str] = {}
    answers: dict[tuple, Mapping] = {}
    for row in rows:
        given = str(row["rater"])
        rater = names.setdefault(_folded(given), given)
        if rater != given:
            joined[given] = rater
        answers[rater, *(row[name] for name in item)] = {**row, "rater": rater}
    if joined:
        pairs = ", ".join(f"{given!r} as {rater!r}" for given, rater in joined.items())
        _warn(f"raters whose names differ only in how they are written count as one: {pairs}")
    if again := len(rows) - len(answers):
        _warn(f"{again} of {len(rows)} answers were given again by the same rater to the same "
              "item; the last one counts")  # fmt: skip
    return list(answers.values())


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _warn(text: str) -> None:
    warnings.warn(text if len(text) < 500 else text[:500] + "...", UmtWarning, stacklevel=4)


def variances(scores: np.ndarray, raters: np.ndarray, clips: np.ndarray) -> dict[str, float]:
    """Estimate the variance between raters, between clips, and of the rest.

    Parameters
    ----------
    scores : np.ndarray
        Shape (n,).
    raters, clips : np.ndarray
        Index of the rater and the clip of each score, int, shape (n,).

    Returns
    -------
    dict
        ``rater``, ``clip`` and ``noise``; each at least 0.
    """
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
    found, *_ = np.linalg.lstsq(
        rows - mean, np.array([by_rater, by_clip, (y**2).sum()]), rcond=None
    )
    return dict(zip(("rater", "clip", "noise"), np.maximum(found, 0).tolist(), strict=True))


def opinion(ratings: Sequence[Mapping], level: float = 0.95) -> dict[str, float | None]:
    """Return the mean opinion score of one system's ratings, with two intervals.

    Parameters
    ----------
    ratings : sequence of mapping
        See the conventions above; the systems are not looked at.
    level : float
        Of the intervals, in (0, 1).

    Returns
    -------
    dict
        ``n``, ``mean``, ``sd`` (as in the paper's Table 1), ``naive`` and ``interval`` (half
        widths: ratings as independent, and with crossed random effects) and the three variances.
        None where it is undefined: all of them without ratings, the intervals unless there are at
        least two raters and two clips.
    """
    validate(ratings)
    n, names = len(ratings), ("rater", "clip", "noise")
    result = dict.fromkeys(("mean", "sd", "naive", "interval", *names)) | {"n": n}
    if not n:
        return result
    scores = np.array([rating["score"] for rating in ratings], float)
    result |= {"mean": float(scores.mean()), "sd": float(scores.std(ddof=1)) if n > 1 else None}
    raters, clips = (
        np.unique([str(rating[name]) for rating in ratings], return_inverse=True)[1]
        for name in ("rater", "clip")
    )
    if min(raters.max(), clips.max()) < 1:
        return result
    found = variances(scores, raters, clips)
    weights = [
        (np.bincount(raters) ** 2).sum() / n**2,
        (np.bincount(clips) ** 2).sum() / n**2,
        1 / n,
    ]
    terms = np.array([w * found[name] for w, name in zip(weights, names, strict=True)])
    quantile = (1 + level) / 2
    naive = scipy.stats.t.ppf(quantile, n - 1) * scores.std(ddof=1) / np.sqrt(n)
    # Satterthwaite: few raters or few clips leave few degrees of freedom.
    sizes = np.array([raters.max(), clips.max(), max(n - raters.max() - clips.max() - 1, 1)])
    freedom = terms.sum() ** 2 / max((terms**2 / sizes).sum(), 1e-30)
    half = scipy.stats.t.ppf(quantile, max(freedom, 1)) * np.sqrt(terms.sum())
    return result | found | {"naive": float(naive), "interval": float(half)}


def screen(ratings: Sequence[Mapping], least: float = 0.25) -> list[str]:
    """Return the raters to leave out: whose scores do not go with those of the others.

    As in CrowdMOS: the correlation of a rater's scores with the others' mean scores of the same
    clip and system is below ``least`` (0.25 there). Who gives everything one score, while the
    others tell systems and clips apart, is left out too. Who shares fewer than three of them with
    others cannot be judged, and stays.
    """
    validate(ratings)
    everyone: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(2))  # sum and number
    by_rater: dict[str, dict] = defaultdict(lambda: defaultdict(lambda: np.zeros(2)))
    for rating in ratings:
        key, score = (rating["clip"], rating["system"]), (rating["score"], 1)
        everyone[key] += score
        by_rater[str(rating["rater"])][key] += score
    bad = []
    for rater, own in sorted(by_rater.items()):
        mine, all_ = np.array(list(own.values())), np.array([everyone[key] for key in own])
        shared = all_[:, 1] > mine[:, 1]
        (sums, numbers), (rest, others) = mine[shared].T, (all_ - mine)[shared].T
        both = np.array([sums / numbers, rest / others])
        if shared.sum() < 3 or np.ptp(both[1]) < 1e-9:
            continue
        if np.ptp(both[0]) < 1e-9 or np.corrcoef(both)[0, 1] < least:
            bad.append(rater)
    return bad


def evaluate(ratings: Sequence[Mapping], level: float = 0.95) -> dict:
    """Analyse a test of opinion scores, of which every answer counts `once`.

    Returns
    -------
    dict
        ``screened`` (raters left out); ``systems``: for each system what `opinion` returns; and
        ``groups``: the same for each group, if every rating has a ``group``.

    Raises
    ------
    EvaluationError
        See `validate`.
    """
    validate(ratings)
    ratings = once(ratings, ("clip", "system"))
    screened = screen(ratings)
    left_out = set(screened)
    kept = [rating for rating in ratings if str(rating["rater"]) not in left_out]
    grouped = all(rating.get("group") for rating in ratings)
    groups = dict.fromkeys(sorted({rating["group"] for rating in ratings}), ()) if grouped else {}
    groups |= _split(kept, "group") if grouped else {}
    by_group = {name: _by_system(found, level) for name, found in groups.items()}
    return {"screened": screened, "systems": _by_system(kept, level), "groups": by_group}


def _by_system(ratings: Sequence[Mapping], level: float) -> dict[str, dict]:
    return {name: opinion(found, level) for name, found in _split(ratings, "system").items()}


def _split(ratings: Iterable[Mapping], field: str) -> dict[str, list[Mapping]]:
    parts: dict[str, list[Mapping]] = defaultdict(list)
    for rating in ratings:
        parts[rating[field]].append(rating)
    return dict(sorted(parts.items()))


def lineup(answers: Sequence[Mapping], domains: Sequence[str], level: float = 0.95) -> dict:
    """Analyse a lineup.

    Parameters
    ----------
    answers : sequence of mapping
        With ``domain`` and ``answer``; see the conventions above. Where all have a ``rater`` and a
        ``clip``, every answer counts `once`.
    domains : sequence of str
        All K of them.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    dict
        ``domains``; ``confusion`` (rows: right, columns: given); ``diagonal`` (the mean over the
        domains of the share of right answers, as in the paper; None without answers); ``chance``;
        ``right`` and ``n``; ``interval`` (exact, Clopper and Pearson, of the share right / n);
        ``p``: how probable at least as many right answers are by chance (exact binomial).

    Raises
    ------
    EvaluationError
        If there are no two domains, a field is missing, or an answer names none of the domains.
    """
    if len(domains) < 2:
        raise EvaluationError(f"a lineup of {len(domains)} domains; at least two are needed")
    _check_fields(answers, ("domain", "answer"))
    if all("rater" in answer and "clip" in answer for answer in answers):
        answers = once(answers, ("clip",))
    counts = np.zeros((len(domains), len(domains)), int)
    places = {name: place for place, name in enumerate(domains)}
    for answer in answers:
        for name in (answer["domain"], answer["answer"]):
            if name not in places:
                raise EvaluationError(f"{name!r} is not one of {', '.join(domains)}")
        counts[places[answer["domain"]], places[answer["answer"]]] += 1
    n, right = int(counts.sum()), int(counts.trace())
    totals = counts.sum(axis=1)
    shares = counts.diagonal()[totals > 0] / totals[totals > 0]
    interval = scipy.stats.binomtest(right, n).proportion_ci(level, "exact") if n else (0.0, 1.0)
    return {
        "domains": list(domains),
        "confusion": counts.tolist(),
        "diagonal": float(shares.mean()) if n else None,
        "chance": 1 / len(domains),
        "right": right,
        "n": n,
        "interval": [float(end) for end in interval],
        "p": float(scipy.stats.binom.sf(right - 1, n, 1 / len(domains))),
    }
