"""Does it sound like the target domain? A recogniser trained on real domain audio, never on ours.

Conventions. An excerpt is heard through 8-bit mu-law, as all translations are, so that the codec's
noise tells nothing. Each window of 2 s (step 1 s; shorter excerpts are one window) becomes 96
numbers: mean, standard deviation and mean absolute difference over time of 32 cepstral
coefficients, without loudness and without order in time. A net with one hidden layer of 24 units
names the domain; an excerpt's probabilities are the average of its windows'. Half the training
windows have white noise added (10 to 40 dB below the music): hiss is not an instrument.

The 24 values before the hidden tanh are also the embedding of `umtlib.evaluation.frechet`. The
shipped recogniser was trained by `train` on the training tracks of the rendered corpus; its card
states its accuracy on tracks that it never heard. Notebook: ``05_evaluation``.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from umtlib import files
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.corpus import Corpus
from umtlib.errors import EvaluationError
from umtlib.evaluation.features import HOP, Excerpt, excerpt

SHIPPED = Path(__file__).parents[1] / "pretrained" / "domain-recogniser"
WEIGHTS, CARD = "recogniser.safetensors", "card.json"
HIDDEN = 24
_FRAMES = 2 * SAMPLE_RATE // HOP  # of a window
_WEIGHT_DECAY = 2e-3
_NOISE_DB = (-40.0, -10.0)  # relative to the music


@dataclass(frozen=True, eq=False)
class Recogniser:
    """A trained recogniser.

    Attributes
    ----------
    domains : tuple of str
        What it can answer.
    mean, scale : np.ndarray
        Of the window statistics in training, shape (96,).
    hidden, hidden_bias, output, output_bias : np.ndarray
        Shapes (24, 96), (24,), (K, 24), (K,).
    """

    domains: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray

    def embed(self, sound: np.ndarray | Excerpt) -> np.ndarray:
        """Return the embedding of each window, shape (windows, 24)."""
        return self._embed(windows(sound))

    def probabilities(self, sound: np.ndarray | Excerpt) -> np.ndarray:
        """Return the probability of each domain, shape (K,)."""
        return self._classify(windows(sound)).mean(axis=0)

    def _embed(self, statistics: np.ndarray) -> np.ndarray:
        return (statistics - self.mean) / self.scale @ self.hidden.T + self.hidden_bias

    def _classify(self, statistics: np.ndarray) -> np.ndarray:
        logits = np.tanh(self._embed(statistics)) @ self.output.T + self.output_bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def windows(sound: np.ndarray | Excerpt, step: float = 1.0) -> np.ndarray:
    """Return the 96 statistics of every window of two seconds, shape (windows, 96)."""
    cepstrum = excerpt(sound).coded.mfcc
    last = max(1, cepstrum.shape[1] - _FRAMES + 1)
    starts = range(0, last, round(step * SAMPLE_RATE / HOP))
    return np.stack([_statistics(cepstrum[:, start : start + _FRAMES]) for start in starts])


def _statistics(cepstrum: np.ndarray) -> np.ndarray:
    change = np.abs(np.diff(cepstrum, axis=1)).mean(axis=1)
    return np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1), change])


def validate(wanted: Sequence[str], called: Sequence[str], domains: Sequence[str]) -> None:
    """Check two sequences of domain names.

    Raises
    ------
    EvaluationError
        If they are not equally long, or a name is not among the domains.
    """
    if len(wanted) != len(called):
        raise EvaluationError(f"{len(wanted)} wanted names, but {len(called)} answers")
    if unknown := ({*wanted, *called} - {*domains}):
        raise EvaluationError(f"{sorted(unknown)[0]!r} is not one of {', '.join(domains)}")


def confusion(wanted: Sequence[str], called: Sequence[str], domains: Sequence[str]) -> np.ndarray:
    """Return how often each domain (row) was called what (column), int, shape (K, K)."""
    validate(wanted, called, domains)
    counts = np.zeros((len(domains), len(domains)), int)
    for want, call in zip(wanted, called, strict=True):
        counts[domains.index(want), domains.index(call)] += 1
    return counts


def evaluate(
    sounds: Sequence[np.ndarray | Excerpt], wanted: Sequence[str], judge: Recogniser
) -> dict:
    """Let the recogniser name every excerpt.

    Parameters
    ----------
    sounds : sequence of np.ndarray or Excerpt
        Waveforms; see `umtlib.evaluation.features.excerpt`.
    wanted : sequence of str
        The domain that each is meant to be in.
    judge : Recogniser
        For instance `load()`.

    Returns
    -------
    dict
        ``accuracy`` (None without excerpts), ``by_domain``, ``confusion`` (list of rows) and
        ``domains``, the order of its rows and columns.

    Raises
    ------
    EvaluationError
        If a name is unknown, or there is not one for each excerpt.
    """
    called = [judge.domains[int(judge.probabilities(sound).argmax())] for sound in sounds]
    return summary(confusion(wanted, called, judge.domains), judge.domains)


def summary(counts: np.ndarray, domains: Sequence[str]) -> dict:
    """Return accuracies of a confusion matrix, as `evaluate` does."""
    right, total = counts.diagonal(), counts.sum(axis=1)
    return {
        "accuracy": float(right.sum() / total.sum()) if total.sum() else None,
        "by_domain": {
            name: float(r / t)
            for name, r, t in zip(domains, right, total, strict=True)
            if t
        },
        "confusion": counts.tolist(),
        "domains": list(domains),
    }  # fmt: skip


def train(data: str | os.PathLike, out: str | os.PathLike, *, seed: int = 0) -> dict:
    """Train a recogniser on the training tracks of a corpus, and measure it on the others.

    Parameters
    ----------
    data : path
        A corpus folder; see `umtlib.corpora.corpus`.
    out : path
        Folder to write ``recogniser.safetensors`` and ``card.json`` to.
    seed : int
        Of the initial weights and the added noise.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    EvaluationError
        If the corpus has no training tracks of two domains.
    """
    corpus, rng = Corpus(data), np.random.default_rng(seed)
    heard, labels = _collect(corpus, rng)
    if len(set(labels)) < 2:
        raise EvaluationError(f"{data} has training tracks of {len(set(labels))} domains; give two")
    judge = _fit(heard, labels, corpus.domains, seed)
    card = _card(corpus, judge, len(heard), seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {k: np.ascontiguousarray(v) for k, v in vars(judge).items() if k != "domains"}
    save_file(tensors, out / WEIGHTS)
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def load(folder: str | os.PathLike = SHIPPED) -> Recogniser:
    """Load a recogniser, by default the shipped one.

    Raises
    ------
    EvaluationError
        If there is none, or a file is damaged.
    """
    folder = Path(folder)
    try:
        card = files.read_json(folder / CARD)
        files.open_regular(folder / WEIGHTS).close()
        return Recogniser(tuple(card["domains"]), **load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EvaluationError(f"no recogniser can be read from {folder}: {error}") from error


def _collect(corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    heard, labels = [], []
    for label, domain in enumerate(corpus.domains):
        for track in corpus.select(domain, "train"):
            clean = excerpt(corpus.audio(track)).waveform
            noise = rng.standard_normal(len(clean), dtype=np.float32)
            gain = clean.std() * 10 ** (rng.uniform(*_NOISE_DB) / 20)
            for version in (clean, clean + np.float32(gain) * noise):
                found = windows(version, step=2.0)
                heard.append(found)
                labels += [label] * len(found)
    return np.concatenate(heard) if heard else np.zeros((0, 96)), labels


def _fit(heard: np.ndarray, labels: list[int], domains: tuple[str, ...], seed: int) -> Recogniser:
    mean, scale = heard.mean(axis=0), heard.std(axis=0) + 1e-6
    inputs = torch.tensor((heard - mean) / scale, dtype=torch.float32)
    targets = torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(heard.shape[1], HIDDEN), nn.Linear(HIDDEN, len(domains))
    net = nn.Sequential(layers[0], nn.Tanh(), layers[1])
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        penalty = sum((p**2).sum() for p in net.parameters()) / 2
        loss = nn.functional.cross_entropy(net(inputs), targets) + _WEIGHT_DECAY * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    weights = [p.detach().numpy() for layer in layers for p in (layer.weight, layer.bias)]
    return Recogniser(domains, mean.astype(np.float32), scale.astype(np.float32), *weights)


def _card(corpus: Corpus, judge: Recogniser, count: int, seed: int) -> dict:
    tracks = [t for t in corpus.tracks if t.split == "train"]
    return {
        "what": "names the domain of 2 s of music from cepstral statistics; see umtlib.evaluation",
        "domains": list(judge.domains),
        "trained_on": {
            "tracks": len(tracks),
            "windows": count,
            "seconds": round(sum(track.seconds for track in tracks)),
        },
        "seed": seed,
        "limits": "knows these domains as this corpus renders them, and must name one of them",
        "held_out": {split: _held_out(corpus, judge, split) for split in ("val", "test")},
    }


def _held_out(corpus: Corpus, judge: Recogniser, split: str) -> dict:
    """Measure by window and by track; the tracks' pieces are in no training track."""
    by_window, by_track = np.zeros((2, len(judge.domains), len(judge.domains)), int)
    for row, domain in enumerate(corpus.domains):
        for track in corpus.select(domain, split):
            answers = judge._classify(windows(corpus.audio(track)))
            by_track[row, answers.mean(axis=0).argmax()] += 1
            np.add.at(by_window[row], answers.argmax(axis=1), 1)
    return {
        "by_window": summary(by_window, judge.domains),
        "by_track": summary(by_track, judge.domains),
    }
