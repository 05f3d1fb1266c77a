"""Does it sound like the target domain? A recogniser trained on real domain audio, never on ours.

Conventions. An excerpt is heard through 8-bit mu-law, as all translations are. Each window of 2 s
(step 1 s; shorter excerpts are one window) becomes 174 numbers. Without order in time: mean,
standard deviation and mean absolute difference of 32 cepstral coefficients. With order, in 8 groups
of mel bands: how far the level moves within 16 to 128 ms and whether it rises faster than it falls;
and in their lower and upper half, how much it swings in 7 bands from 2 to 31 Hz. A net names the
domain, or *none of them*: recordings that are played backwards, shuffled or fluttering.

``scripts/fit_listeners.py`` fits one to any corpus. Notebook: ``08_evaluation``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import softmax

from umtlib import files
from umtlib.audio import SAMPLE_RATE
from umtlib.errors import EvaluationError
from umtlib.evaluation.features import HOP, Sound, excerpt

SHIPPED = Path(__file__).parents[1] / "pretrained" / "domain-recogniser"
WEIGHTS, CARD = "recogniser.safetensors", "card.json"
HIDDEN = 24
_FRAMES = 2 * SAMPLE_RATE // HOP  # of a window
_RATES = (2, 4, 6, 8, 10, 14, 20, 31)  # Hz; edges of the bands of the modulation spectrum


@dataclass(frozen=True, eq=False)
class Net:
    """The weights, float32, of D inputs, H hidden units and K outputs."""

    mean: np.ndarray  # (D,), of what it saw in training
    scale: np.ndarray  # (D,)
    hidden: np.ndarray  # (H, D)
    hidden_bias: np.ndarray  # (H,)
    output: np.ndarray  # (K, H)
    output_bias: np.ndarray  # (K,)


NAMES = tuple(field.name for field in fields(Net))


def weights(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of a `Net` from its file."""
    return {name: array.astype(np.float32) for name, array in load_file(path).items()}


@dataclass(frozen=True, eq=False)
class Recogniser(Net):
    """A trained recogniser; it has one answer more than domains: none of them."""

    domains: tuple[str, ...]

    def embed(self, sound: Sound) -> np.ndarray:
        """Return the embedding of each window, shape (windows, 24)."""
        return (windows(sound) - self.mean) / self.scale @ self.hidden.T + self.hidden_bias

    def by_window(self, sound: Sound) -> np.ndarray:
        """Return the probability of each domain in each window, shape (windows, K)."""
        logits = np.tanh(self.embed(sound)) @ self.output.T + self.output_bias
        return softmax(logits, axis=1)[:, : len(self.domains)]

    def probabilities(self, sound: Sound) -> np.ndarray:
        """Return the probability of each domain, shape (K,); what lacks to 1 is that of none."""
        return self.by_window(sound).mean(axis=0)


def windows(sound: Sound, step: float = 1.0) -> np.ndarray:
    """Return the statistics of every window of two seconds, shape (windows, D)."""
    heard = excerpt(sound).coded
    last = max(1, heard.mfcc.shape[1] - _FRAMES + 1)
    starts = range(0, last, round(step * SAMPLE_RATE / HOP))
    found = []
    for span in (slice(start, start + _FRAMES) for start in starts):
        cepstrum = heard.mfcc[:, span]
        change = np.abs(np.diff(cepstrum, axis=1)).mean(axis=1)
        statistics = cepstrum.mean(axis=1), cepstrum.std(axis=1), change
        found.append(np.concatenate([*statistics, _course(heard.log_mel[:, span])]))
    return np.stack(found)


def _course(log_mel: np.ndarray) -> np.ndarray:
    """Return what depends on the order in time, of a spectrum of shape (64, F)."""
    levels = log_mel.reshape(8, -1, log_mel.shape[1]).mean(axis=1)
    found = []
    for lag in (1, 2, 4, 8):  # frames of 16 ms
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


def confusion(wanted: Sequence[str], called: Sequence[str], domains: Sequence[str]) -> np.ndarray:
    """Return how often each domain (row) was called what (column), int, shape (K, K)."""
    counts = np.zeros((len(domains),) * 2, int)
    np.add.at(counts, tuple([domains.index(name) for name in some] for some in (wanted, called)), 1)
    return counts


def evaluate(wanted: Sequence[str], called: Sequence[str], domains: Sequence[str]) -> dict:
    """Return the ``accuracy`` of what domains were called, None without any, and the confusion."""
    counts = confusion(wanted, called, domains)
    total = counts.sum()
    return {
        "accuracy": float(counts.trace() / total) if total else None,
        "confusion": counts.tolist(),
        "domains": list(domains),
    }


def load(folder: str | os.PathLike = SHIPPED) -> Recogniser:
    """Load a recogniser, by default the shipped one; EvaluationError if none can be read."""
    folder = Path(folder)
    try:
        domains = tuple(files.read_json(folder / CARD)["domains"])
        return Recogniser(domains=domains, **weights(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EvaluationError(
            f"no recogniser can be read from {folder}: {error}; fit one by scripts/fit_listeners.py"
        ) from error
