"""Whether a blend of two inputs is seamless, and how free a creative decoder is.

Conventions. **Blending**, as in the paper: of two segments of 5 s, 3.5 s of the first latent, then
1.5 s of ``(1 - t / 1.5) e_i + (t / 1.5) e_j``, then the rest of the second; decoded as one.
``seam`` is the sharpest spectral change inside the blend, divided by the 98th percentile of the
changes outside it (change: mean absolute difference of log-mel frames 32 ms apart). About 1 means
that nothing in the blend is more abrupt than the music's own note onsets; a click or a hard cut is
well above. Silence, and an excerpt without frames inside or outside, has 0.

**Creative decoding**: a decoder with a small latent plays on by itself. ``kept`` is the chroma
correlation (`umtlib.evaluation.pitch`) of its takes with the input, ``agreed`` that of takes made
from different random numbers with each other. A translator has both high; a creative decoder has
``kept`` low; noise has both at 0, so look also at what the recogniser says.

Source: Mor et al. 2018, section 4.3. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from umtlib import translation
from umtlib.audio import SAMPLE_RATE
from umtlib.errors import EvaluationError
from umtlib.evaluation import pitch
from umtlib.evaluation.features import HOP, Excerpt, excerpt
from umtlib.translator import MusicTranslator

BLEND = 1.5  # seconds

_LAG = 2  # frames


def blend(first: Tensor, second: Tensor, frames: int) -> Tensor:
    """Cross-fade two latents.

    Parameters
    ----------
    first, second : Tensor
        Shapes (1, latent, F) and (1, latent, G).
    frames : int
        Length of the blend: the last frames of the first over the first of the second. The paper's
        1.5 s are 30.

    Returns
    -------
    Tensor
        Shape (1, latent, F + G - frames).

    Raises
    ------
    EvaluationError
        If a latent is shorter than the blend, or their channels differ.
    """
    longest = min(first.shape[2], second.shape[2])
    if first.shape[:2] != second.shape[:2] or not 0 <= frames <= longest:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise EvaluationError(f"latents of shapes {shapes} cannot blend over {frames} frames")
    begin = first.shape[2] - frames
    weight = (torch.arange(frames, device=first.device) + 0.5) / max(frames, 1)
    middle = (1 - weight) * first[:, :, begin:] + weight * second[:, :, :frames]
    return torch.cat([first[:, :, :begin], middle, second[:, :, frames:]], dim=2)


def decode(
    model: MusicTranslator, domain: str, first: np.ndarray, second: np.ndarray, **settings
) -> np.ndarray:
    """Blend two segments over 1.5 s, and let one decoder play the whole.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    domain : str
        Whose decoder.
    first, second : np.ndarray
        Waveforms of at least 1.5 s, 16 kHz; the paper's are of 5 s.
    **settings
        Temperature, seed, backend, progress; as in `umtlib.translate`.

    Returns
    -------
    np.ndarray
        float32, 16 kHz, 1.5 s shorter than both together.
    """
    latents = [translation.encode(model, excerpt(sound).waveform) for sound in (first, second)]
    pool = model.config.encoder.pool
    mixed = blend(*latents, round(BLEND * SAMPLE_RATE / pool))
    return translation.decode(model, (domain,), mixed, mixed.shape[2] * pool, **settings)[domain]


def validate(begin: float, end: float, seconds: float) -> None:
    """Check a blend's place in seconds.

    Raises
    ------
    EvaluationError
        If it does not lie inside the excerpt.
    """
    if not 0 <= begin < end <= seconds:
        raise EvaluationError(f"a blend from {begin} to {end} s does not lie in {seconds:g} s")


def seam(log_mel: np.ndarray, begin: int, end: int) -> float:
    """Return the sharpest change within frames begin..end, relative to those outside.

    Parameters
    ----------
    log_mel : np.ndarray
        dB, shape (64, F).
    begin, end : int
        Frames of the blend.

    Returns
    -------
    float
        At least 0.
    """
    change = np.abs(log_mel[:, _LAG:] - log_mel[:, :-_LAG]).mean(axis=0)
    inside = change[max(begin - _LAG, 0) : end]
    outside = np.concatenate([change[: max(begin - _LAG, 0)], change[end:]])
    if not inside.size or not outside.size:
        return 0.0
    usual = np.quantile(outside, 0.98)
    return float(inside.max() / usual) if usual > 1e-6 else 0.0


def evaluate(
    blended: np.ndarray | Excerpt, begin: float = 3.5, end: float = 5.0
) -> dict[str, float]:
    """Measure the seam of a decoded blend.

    Parameters
    ----------
    blended : np.ndarray or Excerpt
        The waveform; see `umtlib.evaluation.features.excerpt`.
    begin, end : float
        Where the blend lies, seconds.

    Returns
    -------
    dict
        ``seam``.
    """
    sound = excerpt(blended)
    validate(begin, end, len(sound.waveform) / SAMPLE_RATE)
    place = (round(second * SAMPLE_RATE / HOP) for second in (begin, end))
    return {"seam": seam(sound.log_mel, *place)}


def creativity(
    reference: np.ndarray | Excerpt, takes: Sequence[np.ndarray | Excerpt]
) -> dict[str, float]:
    """Measure how far takes leave their input, and each other.

    Parameters
    ----------
    reference : np.ndarray or Excerpt
        The input.
    takes : sequence of np.ndarray or Excerpt
        Outputs for the same input and different seeds; at least two.

    Returns
    -------
    dict
        ``kept`` and ``agreed``, at most 1.

    Raises
    ------
    EvaluationError
        If there are fewer than two takes.
    """
    if len(takes) < 2:
        raise EvaluationError(f"{len(takes)} takes: give two or more, made with different seeds")
    reference, takes = excerpt(reference), [excerpt(take) for take in takes]
    kept = [pitch.evaluate(reference, take)["chroma"] for take in takes]
    agreed = [pitch.evaluate(a, b)["chroma"] for a, b in combinations(takes, 2)]
    return {"kept": float(np.mean(kept)), "agreed": float(np.mean(agreed))}
