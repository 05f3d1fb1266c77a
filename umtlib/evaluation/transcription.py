"""Are the notes in the latent? The paper's outlook, in its simplest form: a linear probe.

Conventions. One logistic regression per pitch (E1 to F7) reads from the latent of a frame, and of
the frames beside it, which notes of the score sound in it (50 ms cells of a piano roll). It is
fitted to the renderings of one half of the paired pieces, by all domains, and tested on the other
half; the threshold is the best one on the first half. ``frame_f`` is the F-measure over all cells
of the test half, ``prior`` that of a probe that knows only how often each pitch occurs.

Source: Mor et al. 2018, section 5. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence

import numpy as np
import torch

from umtlib import translation
from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.pairs import Pair
from umtlib.errors import EvaluationError
from umtlib.evaluation import linear
from umtlib.evaluation.features import excerpt
from umtlib.evaluation.notes import frame_f, roll
from umtlib.evaluation.transcriber import PITCHES
from umtlib.translator import MusicTranslator


def validate(scores: np.ndarray, cells: np.ndarray) -> None:
    """Check scores and truth, both of shape (frames, pitches).

    Raises
    ------
    EvaluationError
        If the shapes differ, or a score is not finite.
    """
    if np.ndim(scores) != 2 or np.shape(scores) != np.shape(cells):
        raise EvaluationError(f"scores {np.shape(scores)} and cells {np.shape(cells)} do not fit")
    if not np.isfinite(scores).all():
        raise EvaluationError("the scores hold NaN or infinities")


def best_threshold(scores: np.ndarray, cells: np.ndarray) -> float:
    """Return the threshold on the scores, (frames, pitches), with the highest F-measure.

    Without any note to find it is infinite: nothing is called a note.
    """
    validate(scores, cells)
    if not np.any(cells):
        return float("inf")
    order = np.argsort(scores, axis=None)[::-1]
    hits = np.cumsum(np.asarray(cells).ravel()[order])
    measure = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
    return float(scores.ravel()[order[int(measure.argmax())]])


def evaluate(model: MusicTranslator, pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Fit and test the probe on the paired excerpts.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    pairs : sequence of Pair
        With the scores of their notes.

    Returns
    -------
    dict
        ``frame_f`` and ``prior`` (None with fewer than two pieces), ``frames`` tested.
    """
    pieces = sorted({pair.piece for pair in pairs})
    if len(pieces) < 2:
        return {"frame_f": None, "prior": None, "frames": 0}
    tested = set(pieces[1::2])
    z, cells = _frames(model, [pair for pair in pairs if pair.piece not in tested])
    fitted = linear.fit(z, cells)
    prior = np.broadcast_to(cells.mean(axis=0), cells.shape)
    limit, prior_limit = best_threshold(fitted.scores(z), cells), best_threshold(prior, cells)
    z, truth = _frames(model, [pair for pair in pairs if pair.piece in tested])
    return {
        "frame_f": frame_f(truth, fitted.scores(z) >= limit),
        "prior": frame_f(truth, np.broadcast_to(prior[0], truth.shape) >= prior_limit),
        "frames": len(truth),
    }


def _frames(model: MusicTranslator, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return the latents with their neighbours, (n, 3 latent), and the cells, (n, pitches)."""
    inputs, cells = [], []
    for pair in pairs:
        for name in pair.files:
            z = translation.encode(model, excerpt(pair.audio(name)).waveform)[0]
            wide = torch.nn.functional.pad(z, (1, 1))
            inputs.append(torch.cat([wide[:, :-2], z, wide[:, 2:]]).T.numpy())
            rate = SAMPLE_RATE / model.config.encoder.pool
            cells.append(roll(pair.notes, z.shape[1], rate)[PITCHES].T)
    return np.concatenate(inputs), np.concatenate(cells)
