"""Is a blend of two inputs seamless? And a creative decoder free? Section 4.3 of the paper.

Conventions. A **blend** of two segments of 5 s is 3.5 s of the first latent, then 1.5 s of
``(1 - t / 1.5) e_i + (t / 1.5) e_j``, then the rest of the second; decoded as one. ``seam`` is the
sharpest spectral change inside the blend, divided by the 98th percentile of the changes outside it
(change: mean absolute difference of log-mel frames 32 ms apart): about 1 is seamless, 0 silence.

**Creative decoding**: ``kept`` is the chroma correlation (`umtlib.evaluation.pitch`) of takes with
the input, ``agreed`` that of takes from different random numbers. Notebook: ``08_evaluation``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.pairs import Pair
from umtlib.errors import EvaluationError
from umtlib.evaluation import pitch
from umtlib.evaluation.features import HOP, Sound, excerpt
from umtlib.evaluation.translations import Made, choose, translate_pairs
from umtlib.generation import translation
from umtlib.translator import MusicTranslator

BLEND = 1.5  # seconds
_LAG = 2  # frames


def blend(first: Tensor, second: Tensor, frames: int) -> Tensor:
    """Cross-fade latents, (1, latent, F) and (1, latent, G), to (1, latent, F + G - frames).

    If one is shorter than the blend, it raises EvaluationError.
    """
    begin = first.shape[2] - frames
    if begin < 0 or frames > second.shape[2]:
        lengths = f"{first.shape[2]} and {second.shape[2]}"
        raise EvaluationError(f"latents of {lengths} frames cannot blend over {frames}")
    weight = (torch.arange(frames, device=first.device) + 0.5) / frames
    middle = (1 - weight) * first[:, :, begin:] + weight * second[:, :, :frames]
    return torch.cat([first[:, :, :begin], middle, second[:, :, frames:]], dim=2)


def decode(model: MusicTranslator, domain: str, *sounds: np.ndarray, **settings) -> np.ndarray:
    """Blend two waveforms of 1.5 s or more; one decoder plays the whole, as `umtlib.translate`."""
    latents = [translation.encode(model, excerpt(sound).waveform) for sound in sounds]
    pool = model.config.encoder.pool
    mixed = blend(*latents, round(BLEND * SAMPLE_RATE / pool))
    return translation.decode(model, (domain,), mixed, mixed.shape[2] * pool, **settings)[domain]


def evaluate(blended: Sound, begin: float, end: float) -> dict[str, float]:
    """Measure the ``seam`` of a decoded blend, which lies inside, between two seconds."""
    log_mel = excerpt(blended).log_mel
    first, last = (round(second * SAMPLE_RATE / HOP) for second in (begin, end))
    change = np.abs(log_mel[:, _LAG:] - log_mel[:, :-_LAG]).mean(axis=0)
    before, inside, after = np.split(change, [max(first - _LAG, 0), last])
    usual = np.quantile(np.concatenate([before, after]), 0.98)
    return {"seam": float(inside.max() / usual) if usual > 1e-6 else 0.0}


def creativity(reference: Sound, one: Sound, other: Sound) -> dict[str, float]:
    """Measure how far takes of two seeds leave their input, and each other."""
    source, first, second = map(excerpt, (reference, one, other))
    kept = [pitch.evaluate(source, take)["chroma"] for take in (first, second)]
    return {"kept": sum(kept) / 2, "agreed": pitch.evaluate(first, second)["chroma"]}


def freedom(
    model: MusicTranslator, pairs: Sequence[Pair], made: Made | None = None, *, seed=0, **settings
) -> dict:
    """Ask for the `creativity` in few excerpts; what has the first seed may have been ``made``.

    Without an excerpt from another domain it raises EvaluationError.
    """
    few = choose(pairs, 3)
    first = made or translate_pairs(model, few, seed=seed, **settings)
    second = translate_pairs(model, few, seed=seed + 1, **settings)
    asked = [(pair, name) for pair in few for name in model.domains if name != pair.source]
    if not asked:
        raise EvaluationError("no excerpt comes from another domain than the model's only one")
    takes = ((pair.audio(), first[pair.id, name], second[pair.id, name]) for pair, name in asked)
    found = [creativity(*sounds) for sounds in takes]
    means = {name: float(np.mean([one[name] for one in found])) for name in ("kept", "agreed")}
    return means | {"n": len(found)}


def blends(model: MusicTranslator, pairs: Sequence[Pair], **settings) -> list[dict]:
    """Blend the first two excerpts of each domain; beside it, the recordings with a hard cut.

    If no domain has two excerpts, it raises EvaluationError.
    """
    found, half = [], round(BLEND * SAMPLE_RATE / 2)
    for domain in model.domains:
        sounds = [excerpt(pair.audio()).waveform for pair in pairs if pair.source == domain][:2]
        if len(sounds) < 2 or min(map(len, sounds)) < 4 * half:
            continue
        mixed = decode(model, domain, *sounds, **settings)
        cut = np.concatenate([sounds[0][:-half], sounds[1][half:]])
        end = len(sounds[0]) / SAMPLE_RATE
        seams = [evaluate(sound, end - BLEND, end)["seam"] for sound in (mixed, cut)]
        found.append({"domain": domain, "blend": seams[0], "hard_cut": seams[1]})
    if not found:
        raise EvaluationError(f"no domain of the model has two excerpts of {2 * BLEND:g} s")
    return found
