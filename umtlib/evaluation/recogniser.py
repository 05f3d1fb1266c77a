"""Does it sound like the target domain? A recogniser trained on real domain audio, never on ours.

Conventions. An excerpt is heard through 8-bit mu-law, as all translations are, so that the codec's
noise tells nothing. Each window of 2 s (step 1 s; shorter excerpts are one window) becomes 174
numbers. Without order in time: mean, standard deviation and mean absolute difference of 32 cepstral
coefficients, without loudness. With order, in 8 groups of mel bands: how far the level moves within
16, 32, 64 and 128 ms and whether it rises faster than it falls; and in the lower and the upper
half, how much it swings in 7 bands from 2 to 31 Hz. A net with one hidden layer of 24 units names
the domain; an excerpt's probabilities are the average of its windows'. Half the training windows
have white noise added (10 to 40 dB below the music): hiss is not an instrument.

A net that learns domains only may ignore time, for spectra suffice. So it has one answer more,
*none of them*, and learns it from the same recordings played backwards, with their frames
shuffled, or their level fluttering. Its probability is what the domains' lack to 1.

The 24 values before the hidden tanh are also the embedding of `umtlib.evaluation.frechet`. The
shipped recogniser was trained by `train` on the training tracks of the rendered corpus; its card
states its accuracy on tracks that it never heard. Notebook: ``05_evaluation``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umtlib import files
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.corpus import Corpus
from umtlib.errors import EvaluationError
from umtlib.evaluation import nets, standins
from umtlib.evaluation.features import HOP, Excerpt, excerpt

SHIPPED = Path(__file__).parents[1] / "pretrained" / "domain-recogniser"
WEIGHTS, CARD = "recogniser.safetensors", nets.CARD
HIDDEN = 24
_FRAMES = 2 * SAMPLE_RATE // HOP  # of a window
_WEIGHT_DECAY = 2e-3
_NOISE_DB = (-40.0, -10.0)  # relative to the music
_LAGS = (1, 2, 4, 8)  # frames of 16 ms
_GROUPS = 8  # of mel bands
_RATES = (2, 4, 6, 8, 10, 14, 20, 31)  # Hz; edges of the bands of the modulation spectrum


@dataclass(frozen=True, eq=False)
class Recogniser(nets.Net):
    """A trained recogniser, of 24 hidden units.

    Attributes
    ----------
    domains : tuple of str
        What it can answer; its last answer, one more, is none of them.
    """

    domains: tuple[str, ...]

    def embed(self, sound: np.ndarray | Excerpt) -> np.ndarray:
        """Return the embedding of each window, shape (windows, 24)."""
        return self._embed(windows(sound))

    def probabilities(self, sound: np.ndarray | Excerpt) -> np.ndarray:
        """Return the probability of each domain, shape (K,); what lacks to 1 is that of none."""
        return self._classify(windows(sound)).mean(axis=0)

    def _embed(self, statistics: np.ndarray) -> np.ndarray:
        return (statistics - self.mean) / self.scale @ self.hidden.T + self.hidden_bias

    def _classify(self, statistics: np.ndarray) -> np.ndarray:
        logits = np.tanh(self._embed(statistics)) @ self.output.T + self.output_bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True))[:, : len(self.domains)]


def windows(sound: np.ndarray | Excerpt, step: float = 1.0) -> np.ndarray:
    """Return the statistics of every window of two seconds, shape (windows, D)."""
    heard = excerpt(sound).coded
    last = max(1, heard.mfcc.shape[1] - _FRAMES + 1)
    starts = range(0, last, round(step * SAMPLE_RATE / HOP))
    spans = [slice(start, start + _FRAMES) for start in starts]
    return np.stack([
        np.concatenate([_statistics(heard.mfcc[:, span]), _course(heard.log_mel[:, span])])
        for span in spans
    ])  # fmt: skip


def _statistics(cepstrum: np.ndarray) -> np.ndarray:
    change = np.abs(np.diff(cepstrum, axis=1)).mean(axis=1)
    return np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1), change])


def _course(log_mel: np.ndarray) -> np.ndarray:
    """Return what depends on the order in time, of a spectrum of shape (64, F)."""
    levels = log_mel.reshape(_GROUPS, -1, log_mel.shape[1]).mean(axis=1)
    found = []
    for lag in _LAGS:
        change = levels[:, lag:] - levels[:, :-lag]
        power = (change**2).mean(axis=1)
        found += [np.sqrt(power), (change * np.abs(change)).mean(axis=1) / (power + 1)]
    swing = (levels - levels.mean(axis=1, keepdims=True)) * np.hanning(levels.shape[1])
    power = np.abs(np.fft.rfft(swing, n=2 * _FRAMES)) ** 2 / levels.shape[1]
    hertz = np.fft.rfftfreq(2 * _FRAMES, HOP / SAMPLE_RATE)
    for low, high in zip(_RATES, _RATES[1:], strict=False):
        band = power[:, (low <= hertz) & (hertz < high)].mean(axis=1)
        found.append(10 * np.log10(band.reshape(2, -1).mean(axis=1) + 0.01))
    return np.concatenate(found)


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
    if len(set(labels)) < 3:
        known = max(0, len(set(labels)) - 1)
        raise EvaluationError(f"{data} has training tracks of {known} domains; give two")
    judge = _fit(heard, labels, corpus.domains, seed)
    card = _card(corpus, judge, len(heard), seed)
    nets.keep(Path(out) / WEIGHTS, judge, card)
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
        domains = tuple(files.read_json(folder / CARD)["domains"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"no recogniser can be read from {folder}: {error}") from error
    return Recogniser(domains=domains, **nets.read(folder / WEIGHTS, "recogniser"))


def _collect(corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    heard, labels = [], []
    for label, domain in enumerate(corpus.domains):
        for number, track in enumerate(corpus.select(domain, "train")):
            clean = excerpt(corpus.audio(track))
            noise = rng.standard_normal(len(clean.waveform), dtype=np.float32)
            gain = clean.waveform.std() * 10 ** (rng.uniform(*_NOISE_DB) / 20)
            noisy = excerpt(clean.waveform + np.float32(gain) * noise)
            none = len(corpus.domains)
            versions = [(clean, label), (noisy, label)]
            versions += [(sound, none) for sound in _wrong_in_time(clean, noisy, number, rng)]
            for version, answer in versions:
                found = windows(version, step=2.0)
                heard.append(found)
                labels += [answer] * len(found)
    return np.concatenate(heard) if heard else np.zeros((0, 1)), labels


def _wrong_in_time(
    clean: Excerpt, noisy: Excerpt, number: int, rng: np.random.Generator
) -> list[Excerpt]:
    """Return two counterfeits of a track: backwards, and fluttering or shuffled."""
    first, second = (clean, noisy) if number % 4 < 2 else (noisy, clean)
    if number % 2:
        other = standins.shuffled(second, rng.uniform(0.03, 0.1))
    else:
        other = standins.fluttering(second, rng.uniform(2, 6), rng.uniform(4, 12))
    return [standins.backwards(first), other]


def _fit(heard: np.ndarray, labels: list[int], domains: tuple[str, ...], seed: int) -> Recogniser:
    from sklearn.neural_network import MLPClassifier  # takes a second, and only here

    mean, scale = heard.mean(axis=0), heard.std(axis=0) + 1e-6
    net = MLPClassifier(
        (HIDDEN,), activation="tanh", solver="lbfgs", alpha=_WEIGHT_DECAY * len(heard),
        max_iter=300, random_state=seed,
    )  # fmt: skip
    weights = nets.fitted(net, (heard - mean) / scale, labels, mean, scale)
    return Recogniser(domains=domains, **weights)


def _card(corpus: Corpus, judge: Recogniser, count: int, seed: int) -> dict:
    tracks = [t for t in corpus.tracks if t.split == "train"]
    return {
        "what": "names the domain of 2 s of music from cepstrum and course; see umtlib.evaluation",
        "domains": list(judge.domains),
        "trained_on": {
            "tracks": len(tracks),
            "windows": count,
            "seconds": round(sum(track.seconds for track in tracks)),
        },
        "seed": seed,
        "limits": "knows these domains as this corpus renders them, and names the likeliest",
        "held_out": {split: _held_out(corpus, judge, split) for split in ("val", "test")},
        "certainty": _certainty(corpus, judge),
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


def _certainty(corpus: Corpus, judge: Recogniser) -> dict:
    """Return the mean probability of the true domain on test tracks as they are, and spoilt."""
    kinds = {"as it is": lambda sound: sound, **standins.IN_TIME, "backwards": standins.backwards}
    found: dict[str, list] = {kind: [] for kind in kinds}
    for row, domain in enumerate(corpus.domains):
        for track in corpus.select(domain, "test"):
            sound = excerpt(corpus.audio(track))
            for kind, change in kinds.items():
                found[kind].append(float(judge.probabilities(change(sound))[row]))
    return {kind: round(float(np.mean(values)), 3) for kind, values in found.items() if values}
