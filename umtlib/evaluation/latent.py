"""What is in the latent? The source domain should not be (section 3.3), the notes should.

Conventions. **Domain**: a latent is cut into stretches of one second. ``probe`` is the part of
held-out stretches whose domain a logistic regression names right from the latent's average over the
stretch; it is fitted to the training tracks. ``classifier`` is the same for the model's own.

**Notes** (section 5): one logistic regression per pitch (E1 to F7) reads from the latent of a frame
and its neighbours which notes sound (50 ms cells of a piano roll). It is fitted to one half of the
paired pieces, played by all domains, and tested on the other; the threshold is the best on the
first half. ``frame_f`` is the F-measure over all cells, ``prior`` that of a probe that knows only
how often each pitch occurs. Notebook: ``08_evaluation``.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.corpus import Corpus, Track
from umtlib.corpora.pairs import Pair
from umtlib.errors import EvaluationError
from umtlib.evaluation.features import excerpt
from umtlib.evaluation.notes import frame_f, roll
from umtlib.evaluation.transcriber import PITCHES
from umtlib.generation import translation
from umtlib.translator import MusicTranslator


def linear(inputs: np.ndarray, targets: np.ndarray):
    """Fit scikit-learn's logistic regression, of classes, (n,), or labels, (n, K), to (n, D)."""
    from sklearn.exceptions import ConvergenceWarning  # takes a second, and only here
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Without a hidden layer the net is a logistic regression, of classes or of many labels at once.
    net = MLPClassifier((), solver="lbfgs", alpha=1e-3 * len(inputs), random_state=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return make_pipeline(StandardScaler(), net).fit(np.asarray(inputs, float), targets)


def probe(
    seen: np.ndarray, seen_labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray
) -> float:
    """Return the accuracy of a probe on latents, (n, latent, F), and domains, int, (n,)."""
    called = linear(seen.mean(axis=2), seen_labels).predict(held_out.mean(axis=2).astype(float))
    return float((called == held_out_labels).mean())


def best_threshold(scores: np.ndarray, cells: np.ndarray) -> float:
    """Return the threshold on scores, (frames, pitches), with the best F-measure of the cells."""
    order = np.argsort(scores, axis=None)[::-1]
    hits = np.cumsum(np.asarray(cells).ravel()[order])
    measure = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
    return float(scores.ravel()[order[int(measure.argmax())]])


def spread(tracks: Sequence[Track], most: int) -> Sequence[Track]:
    """Return so many of the tracks, evenly, or all if there are no more."""
    count = min(most, len(tracks))
    return [tracks[i * len(tracks) // count] for i in range(count)]


def stretches(
    model: MusicTranslator, corpus: Corpus, splits: Sequence[str], seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return some seconds of each domain as latents, (n, latent, F), and domains, int, (n,).

    If the splits have no second of a domain, it raises EvaluationError.
    """
    frames = SAMPLE_RATE // model.config.encoder.pool
    found, labels = [], []
    for label, domain in enumerate(model.domains):
        tracks = [track for split in splits for track in corpus.select(domain, split)]
        for track in spread(tracks, max(1, round(seconds))):
            length = max(1, round(seconds / len(tracks))) * SAMPLE_RATE
            z = translation.encode(model, excerpt(corpus.audio(track)[:length]).waveform)[0]
            cut = z[:, : z.shape[1] // frames * frames].unflatten(1, (-1, frames)).transpose(0, 1)
            found.append(cut.numpy())
            labels += [label] * len(cut)
        if label not in labels:
            raise EvaluationError(f"{corpus.folder} has no second of {domain} in {splits}")
    return np.concatenate(found), np.array(labels)


def evaluate(model: MusicTranslator, corpus: Corpus, *, seconds: float = 80) -> dict[str, float]:
    """Try to tell the domain from the latent of some seconds of each, seen and held out."""
    seen = stretches(model, corpus, ("train",), seconds)
    held_out, labels = stretches(model, corpus, ("val", "test"), seconds)
    with torch.inference_mode():
        place = next(model.classifier.parameters()).device
        called = model.classifier(torch.from_numpy(held_out).to(place)).argmax(dim=1).cpu().numpy()
    return {
        "probe": probe(*seen, held_out, labels),
        "classifier": float((called == labels).mean()),
        "chance": 1 / len(model.domains),
        "n": len(labels),
    }


def evaluate_notes(model: MusicTranslator, pairs: Sequence[Pair]) -> dict[str, float]:
    """Try to read the notes of paired excerpts from their latents.

    If the notes of two pieces are not known, it raises EvaluationError.
    """
    pieces = sorted({pair.piece for pair in pairs if pair.notes})
    if len(pieces) < 2:
        raise EvaluationError(f"the notes of {len(pieces)} pieces are known, and two are needed")
    halves = ([p for p in pairs if (p.piece in pieces[1::2]) == tested] for tested in (False, True))
    (z, cells), (z_tested, truth) = (_frames(model, half) for half in halves)
    fitted = linear(z, cells)
    prior = np.broadcast_to(cells.mean(axis=0), cells.shape)
    limit, prior_limit = (best_threshold(x, cells) for x in (fitted.predict_proba(z), prior))
    return {
        "frame_f": frame_f(truth, fitted.predict_proba(z_tested) >= limit),
        "prior": frame_f(truth, np.broadcast_to(prior[0], truth.shape) >= prior_limit),
        "frames": len(truth),
    }


def _frames(model: MusicTranslator, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return the latents with their neighbours, (n, 3 latent), and the cells, (n, pitches)."""
    inputs, cells, rate = [], [], SAMPLE_RATE / model.config.encoder.pool
    for pair, name in [(one, name) for one in pairs for name in one.files]:
        z = translation.encode(model, excerpt(pair.audio(name)).waveform)[0]
        wide = torch.nn.functional.pad(z, (1, 1))
        inputs.append(torch.cat([wide[:, :-2], z, wide[:, 2:]]).T.numpy())
        cells.append(roll(pair.notes, z.shape[1], rate)[PITCHES].T)
    return np.concatenate(inputs).astype(float), np.concatenate(cells)
