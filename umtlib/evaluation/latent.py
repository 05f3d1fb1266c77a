"""Is the latent free of the source domain? The confusion loss wants it to be (section 3.3).

Conventions. A latent is cut into stretches of one second. ``probe`` is the part of held-out
stretches whose domain a logistic regression names right from the latent's average over the
stretch; it is fitted to stretches of the training tracks. ``classifier`` is the same part for the
model's own classifier, which the encoder has learnt to fool; a probe that was never fooled is the
stricter judge. ``chance`` is 1/K. Compare with a model trained without the confusion loss: a
number alone does not say what the loss has done, for domains also differ in what they *play*
(register, tempo, texture), which a latent must keep. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence

import numpy as np
import torch

from umtlib import translation
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.corpus import Corpus
from umtlib.errors import EvaluationError
from umtlib.evaluation import linear
from umtlib.evaluation.features import excerpt
from umtlib.translator import MusicTranslator


def validate(stretches: np.ndarray, labels: np.ndarray) -> None:
    """Check latents, shape (n, latent, F), and the index of the domain of each, shape (n,).

    Raises
    ------
    EvaluationError
        If the shapes do not match, or a value is not finite.
    """
    if np.ndim(stretches) != 3 or np.shape(labels) != np.shape(stretches)[:1]:
        raise EvaluationError(
            f"latents of shape {np.shape(stretches)} and labels {np.shape(labels)}; "
            "give (n, latent, F) and (n,)"
        )
    if not np.isfinite(stretches).all():
        raise EvaluationError("the latents hold NaN or infinities")


def probe(
    seen: np.ndarray, seen_labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray
) -> float:
    """Return the accuracy of a linear probe on held-out stretches.

    Parameters
    ----------
    seen, held_out : np.ndarray
        Latents, shapes (n, latent, F) and (m, latent, F).
    seen_labels, held_out_labels : np.ndarray
        Index of the domain, int, shapes (n,) and (m,).

    Returns
    -------
    float
        In [0, 1]; NaN if nothing is held out.
    """
    validate(seen, seen_labels)
    validate(held_out, held_out_labels)
    if not len(held_out):
        return float("nan")
    fitted = linear.fit(seen.mean(axis=2), seen_labels)
    called = fitted.scores(held_out.mean(axis=2)).argmax(axis=1)
    return float((called == held_out_labels).mean())


def stretches(
    model: MusicTranslator, corpus: Corpus, splits: Sequence[str], seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Encode so many seconds of each domain, the same from each track, in stretches of one second.

    Returns
    -------
    tuple of np.ndarray
        Latents, shape (n, latent, F), and the index of the domain of each, shape (n,).

    Raises
    ------
    EvaluationError
        If the corpus has no tracks of a domain in the splits.
    """
    frames = SAMPLE_RATE // model.config.encoder.pool
    found, labels = [], []
    for label, domain in enumerate(model.domains):
        tracks = [track for split in splits for track in corpus.select(domain, split)]
        if not tracks:
            raise EvaluationError(f"{corpus.folder} has no tracks of {domain} in {splits}")
        for track in tracks:
            length = max(1, round(seconds / len(tracks))) * SAMPLE_RATE
            z = translation.encode(model, excerpt(corpus.audio(track)[:length]).waveform)[0]
            cut = z[:, : z.shape[1] // frames * frames].unflatten(1, (-1, frames)).transpose(0, 1)
            found.append(cut.numpy())
            labels += [label] * len(cut)
    return np.concatenate(found), np.array(labels)


def evaluate(model: MusicTranslator, corpus: Corpus, *, seconds: float = 80) -> dict[str, float]:
    """Try to tell the domain from a model's latent.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    corpus : Corpus
        With training tracks and held-out tracks of the model's domains.
    seconds : float
        Of each domain to fit to, and to test on.

    Returns
    -------
    dict
        ``probe``, ``classifier``, ``chance``, and ``n``, the held-out stretches.
    """
    seen = stretches(model, corpus, ("train",), seconds)
    held_out, labels = stretches(model, corpus, ("val", "test"), seconds)
    with torch.inference_mode():
        called = model.classifier(torch.from_numpy(held_out)).argmax(dim=1).numpy()
    return {
        "probe": probe(*seen, held_out, labels),
        "classifier": float((called == labels).mean()),
        "chance": 1 / len(model.domains),
        "n": len(labels),
    }
