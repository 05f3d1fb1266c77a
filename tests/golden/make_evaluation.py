"""Write golden/evaluation.json: every metric of fixed, synthetic excerpts.

Run ``python tests/golden/make_evaluation.py`` after a change of a metric that is meant, look at the
difference, and commit both. The excerpts are arithmetic, so any machine makes the same ones.
"""

import json
from pathlib import Path

import numpy as np

from umtlib.evaluation import (
    blending,
    dynamics,
    frechet,
    latent,
    listening,
    notes,
    nsynth,
    pitch,
    recogniser,
    truth,
)

PATH = Path(__file__).with_name("evaluation.json")
SCORE = [(0.05, 0.5, 60), (0.5, 1.0, 64), (1.0, 1.5, 67), (1.5, 1.95, 62)]
OTHER = [(0.05, 0.7, 61), (0.7, 1.2, 58), (1.2, 1.95, 66)]
CHORDS = [(0.05, 1.0, p) for p in (48, 64, 67)] + [(1.0, 1.95, p) for p in (53, 65, 69)]


def play(score, seconds=2.0, partials=(1.0, 0.5, 0.3, 0.2), fade=3.0):
    """Sound a score by adding decaying partials; float32, (16000 * seconds,)."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    sound = np.zeros(len(t))
    for onset, offset, number in score:
        age = t - onset
        shape = np.clip(age / 0.01, 0, 1) * np.exp(-fade * np.maximum(age, 0))
        shape *= (age >= 0) * np.clip((offset - t) / 0.02, 0, 1)
        hertz = 440 * 2 ** ((number - 69) / 12)
        for rank, amplitude in enumerate(partials, start=1):
            sound += amplitude * shape * np.sin(2 * np.pi * rank * hertz * t)
    return (0.1 * sound).astype(np.float32)


def ratings(rng, raters=8, clips=10, sizes=(0.3, 0.4, 0.5)):
    """Simulated opinion scores around 3, from crossed effects of these standard deviations."""
    lenient = rng.normal(0, sizes[0], raters)
    merit = rng.normal(0, sizes[1], clips)
    return [
        {"rater": f"r{r}", "clip": f"c{c}", "system": "a", "score": score}
        for r in range(raters)
        for c in range(clips)
        for score in [float(np.clip(3 + lenient[r] + merit[c] + rng.normal(0, sizes[2]), 1, 5))]
    ]


def compute():
    """Return every golden number, by module, case and measure."""
    rng = np.random.default_rng(0)
    bright, soft, other = play(SCORE), play(SCORE, partials=(1.0, 0.1), fade=0.5), play(OTHER)
    judge, points, labels = recogniser.load(), rng.normal(size=(3, 40, 5)), np.arange(40) % 2
    latents = points[0].repeat(4, axis=0)[:40, :, None] + labels[:, None, None]
    answers = [{"domain": "ab"[i % 2], "answer": "ab"[i % 3 == 0]} for i in range(12)]
    takes = {"same notes": soft, "other notes": other}
    return flat({
        "pitch": {name: pitch.evaluate(bright, take, True) for name, take in takes.items()},
        "notes": {
            "melody": notes.evaluate(SCORE, bright, True),
            "chords": notes.evaluate(CHORDS, play(CHORDS)),
            "other notes": notes.evaluate(SCORE, other, True),
        },
        "truth": {name: truth.evaluate(bright, take, judge) for name, take in takes.items()},
        "dynamics": {name: dynamics.evaluate(bright, take, SCORE) for name, take in takes.items()},
        "recogniser": judge.probabilities(bright).tolist(),
        "frechet": frechet.evaluate(points[0], points[1] + 0.5),
        "probe": latent.probe(latents, labels, latents[::-1] + 0.1, labels[::-1]),
        "linear": latent.linear(points[0], points[1] > 0).predict_proba(points[2])[0].tolist(),
        "threshold": latent.best_threshold(points[0], points[1] > 1),
        "nsynth": nsynth.agreement(points[0], points[0] + 0.5 * points[1]),
        "blending": blending.evaluate(np.concatenate([bright, soft]), 1.9, 2.1)
        | blending.creativity(bright, soft, other),
        "opinion": listening.opinion(ratings(rng)[:-7]),
        "lineup": listening.lineup(answers, "ab"),
    })  # fmt: skip


def flat(found, name=""):
    """Return nested dicts and lists as one table, by path."""
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict):
        return {name: found} if isinstance(found, int | float) else {}
    parts = (flat(value, f"{name}/{key}".strip("/")) for key, value in found.items())
    return {path: value for part in parts for path, value in part.items()}


if __name__ == "__main__":
    PATH.write_text(json.dumps(compute(), indent=1) + "\n", encoding="utf-8")
