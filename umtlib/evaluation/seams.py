"""Can one hear where a long translation was cut? Its seams against exact generation.

Conventions. A seam is where one stretch fades into the next (`umtlib.generation.chunks`): the 25 ms
from a cut on. Cuts lie where the input is quiet, so a seam differs from other places even if
nothing was cut; each number is therefore also taken of an exact generation of the same input.

* ``level_db``: mean power of the seams over that of the exact generation at the same places.
* ``flux``: spectral flux across the seams over that elsewhere, 1 if they cannot be told apart.
  Flux is the mean absolute difference of the magnitude spectra of the 16 ms before and after the
  middle of a fade; "elsewhere" is every 25 ms, at least 50 ms away from any cut.
* ``flux_exact``: the same of the exact generation, at the same places.

Notebook: ``04_generation``.
"""

from collections.abc import Sequence

import numpy as np
import torch

from umtlib.errors import EvaluationError
from umtlib.generation import chunks
from umtlib.generation.perform import perform, perform_long
from umtlib.translation import hear
from umtlib.translator import MusicTranslator

WINDOW = 256  # samples on either side


def validate(made: np.ndarray, exact: np.ndarray, cuts: Sequence[int]) -> None:
    """Check two waveforms and the places of the cuts.

    Raises
    ------
    EvaluationError
        If the waveforms differ in shape, or no seam lies wholly inside.
    """
    if np.ndim(made) != 1 or np.shape(made) != np.shape(exact):
        raise EvaluationError(
            f"waveforms of shapes {np.shape(made)}, {np.shape(exact)}; give two of one length"
        )
    if not len(cuts) or min(cuts) < WINDOW or max(cuts) + chunks.FADE + WINDOW > len(made):
        raise EvaluationError(f"cuts {list(cuts)} of {len(made)} samples; give some, all inside")


def level_db(made: np.ndarray, exact: np.ndarray, cuts: Sequence[int]) -> float:
    """Return the level of the seams against exact generation, in dB; see `evaluate`."""
    validate(made, exact, cuts)
    powers = [
        np.mean([np.square(x[cut : cut + chunks.FADE]).mean() for cut in cuts])
        for x in (made, exact)
    ]
    return float(10 * np.log10((powers[0] + 1e-12) / (powers[1] + 1e-12)))


def flux_ratio(waveform: np.ndarray, cuts: Sequence[int]) -> float:
    """Return the spectral flux across seams over that elsewhere; NaN if there is no elsewhere."""
    seams = np.asarray(cuts) + chunks.FADE // 2
    grid = np.arange(WINDOW, len(waveform) - WINDOW, chunks.FADE)
    far = np.abs(grid[:, None] - seams[None]).min(axis=1) > 2 * chunks.FADE
    return _flux(waveform, seams) / _flux(waveform, grid[far]) if far.any() else float("nan")


def _flux(waveform: np.ndarray, places: np.ndarray) -> float:
    window = np.hanning(WINDOW)
    before, after = (
        np.abs(np.fft.rfft([waveform[i + o : i + o + WINDOW] * window for i in places], axis=1))
        for o in (-WINDOW, 0)
    )
    return float(np.abs(after - before).mean())


def evaluate(made: np.ndarray, exact: np.ndarray, cuts: Sequence[int]) -> dict:
    """Compare the seams of a chunked generation with an exact one.

    Parameters
    ----------
    made, exact : np.ndarray
        Waveforms in [-1, 1], 16 kHz, shape (T,), of the same input.
    cuts : sequence of int
        Where the stretches of ``made`` begin, in samples, without the first.

    Returns
    -------
    dict
        ``seams`` (their number), ``level_db``, ``flux``, ``flux_exact``.
    """
    return {
        "seams": len(cuts),
        "level_db": level_db(made, exact, cuts),
        "flux": flux_ratio(made, cuts),
        "flux_exact": flux_ratio(exact, cuts),
    }


def compare(
    model: MusicTranslator,
    waveform: np.ndarray,
    to: str,
    *,
    seconds: float | None = None,
    seed: int = 0,
    **options,
) -> dict:
    """Translate a recording exactly and in stretches, and evaluate the seams.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    waveform : np.ndarray
        Levelled, 16 kHz, shape (T,).
    to : str
        A domain of the model.
    seconds : float, optional
        Length of a stretch; see `umtlib.generation.chunks.plan`.
    seed : int
        Random numbers follow from it, other ones for the exact generation.
    **options
        Of `umtlib.generation.generate`: temperature, backend, dtype, threads.

    Returns
    -------
    dict
        Of `evaluate`.
    """
    decoder, heard = model.decoders[to], hear(model, [waveform], len(waveform))
    rng = torch.Generator().manual_seed(seed)
    takes = (
        perform_long(model, to, heard, seconds=seconds, generator=rng, **options),
        perform(model, [to], [heard], generator=rng, **options),
    )
    made, exact = (torch.cat([piece[0] for _, piece in take]).numpy() for take in takes)
    cuts = chunks.plan(decoder, heard.levels[0], seconds)[1:-1]
    return evaluate(made, exact, [frame * decoder.guide.pool for frame in cuts])
