"""What did listeners say? Opinion scores, the lineup, and the stimuli for both.

Conventions. Ratings are a CSV file in long form, one line per rating, with the columns

* ``rater,clip,system,score`` for opinion scores: ``score`` is 1 (bad) to 5 (excellent); the same
  ``clip`` name stands for the same source in every system;
* ``rater,clip,domain,answer`` for the lineup: which of the K clips is the source's own
  reconstruction? ``domain`` is the right answer, ``answer`` the given one.

**Opinion scores.** A rating is a mean, plus a rater's leniency, plus a clip's merit, plus noise;
raters and clips are crossed and both are samples of a population. The interval that treats ratings
as independent is too narrow, because twenty ratings by one rater are not twenty opinions. As in
CrowdMOS (Ribeiro et al. 2011) the three variances are estimated and enter the interval. The
estimator is Henderson's first method: sums of squares set equal to their expectations, which holds
for any pattern of missing ratings; a negative variance counts as 0.

**Lineup** (section 4.1 of the paper). If translations are as good as reconstructions, nobody can
find the source among them: answers are spread evenly and the share of right ones is 1/K.
Notebook: ``05_evaluation``.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.signal
import scipy.stats

from umtlib import audio
from umtlib.errors import EvaluationError
from umtlib.evaluation.features import excerpt

RATING_COLUMNS = ("rater", "clip", "system", "score")
LINEUP_COLUMNS = ("rater", "clip", "domain", "answer")
_LOW_ANCHOR = 1_000.0  # Hz, above which the low anchor has nothing (MUSHRA's is at 3,500)


def read(path: str | os.PathLike, columns: Sequence[str] = RATING_COLUMNS) -> list[dict]:
    """Read ratings from a CSV file.

    Returns
    -------
    list of dict
        One per rating, by column; a ``score`` is a float.

    Raises
    ------
    EvaluationError
        If a column is missing, or a line does not follow the conventions.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if missing := set(columns) - set(lines.fieldnames or ()):
            raise EvaluationError(f"{path} has no column {sorted(missing)[0]!r}; wanted {columns}")
        ratings = list(lines)
    for number, rating in enumerate(ratings, start=2):
        try:
            if "score" in columns:
                rating["score"] = float(rating["score"])
            if columns == RATING_COLUMNS:
                validate([rating])
        except (ValueError, EvaluationError) as error:
            raise EvaluationError(f"{path}, line {number}: {error}") from error
    return ratings


def validate(ratings: Sequence[Mapping]) -> None:
    """Check opinion scores.

    Raises
    ------
    EvaluationError
        If a field is missing, or a score is not in 1..5.
    """
    for rating in ratings:
        if missing := [column for column in RATING_COLUMNS if column not in rating]:
            raise EvaluationError(f"a rating without {missing[0]!r}: {dict(rating)}")
        if not 1 <= rating["score"] <= 5:
            raise EvaluationError(f"score {rating['score']} is not in 1 to 5")


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
    counts = np.zeros((raters.max() + 1, clips.max() + 1))
    np.add.at(counts, (raters, clips), 1)
    per_rater, per_clip = counts.sum(axis=1), counts.sum(axis=0)
    by_rater = (np.bincount(raters, y) ** 2 / per_rater).sum()
    by_clip = (np.bincount(clips, y) ** 2 / per_clip).sum()
    # Coefficients of (rater, clip, noise) in the expectation of each sum of squares, less those
    # of the sum for the mean.
    mean = np.array([(per_rater**2).sum() / n, (per_clip**2).sum() / n, 1.0])
    rows = np.array([
        [n, ((counts**2).sum(axis=1) / per_rater).sum(), len(per_rater)],
        [((counts**2).sum(axis=0) / per_clip).sum(), n, len(per_clip)],
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
    clip and system is below ``least`` (0.25 there). Raters with fewer than three shared clips, and
    those who give everything one score, are left out too.
    """
    validate(ratings)
    bad = []
    for rater in sorted({str(rating["rater"]) for rating in ratings}):
        own, others = {}, {}
        for rating in ratings:
            key = rating["clip"], rating["system"]
            mine = str(rating["rater"]) == rater
            (own if mine else others).setdefault(key, []).append(rating["score"])
        both = [(np.mean(own[key]), np.mean(others[key])) for key in own if key in others]
        spread = np.std(both, axis=0).min() if len(both) >= 3 else 0.0
        if spread < 1e-9 or np.corrcoef(np.transpose(both))[0, 1] < least:
            bad.append(rater)
    return bad


def evaluate(ratings: Sequence[Mapping], level: float = 0.95) -> dict:
    """Analyse a test of opinion scores.

    Returns
    -------
    dict
        ``screened`` (raters left out) and ``systems``: for each system what `opinion` returns.

    Raises
    ------
    EvaluationError
        See `validate`.
    """
    screened = screen(ratings)
    kept = [rating for rating in ratings if str(rating["rater"]) not in screened]
    systems = {
        name: opinion([rating for rating in kept if rating["system"] == name], level)
        for name in sorted({rating["system"] for rating in ratings})
    }
    return {"screened": screened, "systems": systems}


def lineup(answers: Sequence[Mapping], domains: Sequence[str]) -> dict:
    """Analyse a lineup.

    Parameters
    ----------
    answers : sequence of mapping
        With ``domain`` and ``answer``; see the conventions above.
    domains : sequence of str
        All K of them.

    Returns
    -------
    dict
        ``confusion`` (rows: right, columns: given), ``diagonal`` (the mean over the domains of the
        share of right answers, as in the paper; None without answers), ``chance``, ``right`` and
        ``n``, and ``p``: how probable at least as many right answers are by chance (exact
        binomial).

    Raises
    ------
    EvaluationError
        If an answer names no domain.
    """
    counts = np.zeros((len(domains), len(domains)), int)
    for answer in answers:
        for name in (answer["domain"], answer["answer"]):
            if name not in domains:
                raise EvaluationError(f"{name!r} is not one of {', '.join(domains)}")
        counts[domains.index(answer["domain"]), domains.index(answer["answer"])] += 1
    n, right = int(counts.sum()), int(counts.trace())
    totals = counts.sum(axis=1)
    shares = counts.diagonal()[totals > 0] / totals[totals > 0]
    return {
        "confusion": counts.tolist(),
        "diagonal": float(shares.mean()) if n else None,
        "chance": 1 / len(domains),
        "right": right,
        "n": n,
        "p": float(scipy.stats.binom.sf(right - 1, n, 1 / len(domains))),
    }


def pack(
    clips: Mapping[str, Mapping[str, np.ndarray]], out: str | os.PathLike, *, seed: int = 0
) -> Path:
    """Write a blinded stimulus pack: levelled, in random order, under names that tell nothing.

    Parameters
    ----------
    clips : mapping
        From a clip's name to the waveforms of its systems, 16 kHz. From ``"truth"``, where there
        is one, two more are made: ``"mulaw"`` (hidden reference through 8-bit mu-law) and ``"low"``
        (low-pass at 1 kHz, the anchor that must be found bad).
    out : path
        Folder for the WAV files, ``ratings.csv`` (to be filled in, one copy per rater) and
        ``key.csv`` (stimulus, clip, system; not for the raters).
    seed : int
        Of the order.

    Returns
    -------
    Path
        ``out``.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    stimuli = [
        (clip, system, sound)
        for clip, systems in clips.items()
        for system, sound in _with_anchors(systems).items()
    ]
    order = np.random.default_rng(seed).permutation(len(stimuli))
    with (
        (out / "key.csv").open("w", newline="", encoding="utf-8") as key,
        (out / "ratings.csv").open("w", newline="", encoding="utf-8") as sheet,
    ):
        keys, sheets = csv.writer(key), csv.writer(sheet)
        keys.writerow(("stimulus", "clip", "system"))
        sheets.writerow(("rater", "stimulus", "score"))
        for number, place in enumerate(order):
            clip, system, sound = stimuli[place]
            name = f"{number:03d}.wav"
            audio.write(out / name, excerpt(sound).waveform)
            keys.writerow((name, clip, system))
            sheets.writerow(("", name, ""))
    return out


def _with_anchors(systems: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "truth" not in systems:
        return dict(systems)
    true = excerpt(systems["truth"])
    filter_ = scipy.signal.butter(8, _LOW_ANCHOR, fs=audio.SAMPLE_RATE, output="sos")
    low = scipy.signal.sosfiltfilt(filter_, true.waveform).astype(np.float32)
    return {**systems, "mulaw": true.coded.waveform, "low": low}


def unblind(key: str | os.PathLike, sheets: Sequence[str | os.PathLike]) -> list[dict]:
    """Return the ratings of filled-in sheets of a pack, with its key; see `evaluate`.

    Raises
    ------
    EvaluationError
        If a stimulus is not in the key, or a score is missing or not in 1..5.
    """
    names = {row["stimulus"]: row for row in read(key, ("stimulus", "clip", "system"))}
    ratings = []
    for sheet in sheets:
        for row in read(sheet, ("rater", "stimulus", "score")):
            if row["stimulus"] not in names:
                raise EvaluationError(f"{sheet}: stimulus {row['stimulus']!r} is not in {key}")
            found = names[row["stimulus"]]
            ratings.append({**row, "clip": found["clip"], "system": found["system"]})
    validate(ratings)
    return ratings
