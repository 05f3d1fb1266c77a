"""Can one hear where a long translation was cut? Its seams against exact generation.

::

    python scripts/seams.py my.wav bach_organ

A seam is the 25 ms from a cut on, where one stretch fades into the next
(`umtlib.generation.chunks`).

* ``level_db``: mean power of the seams over that of an exact generation at the same places.
* ``flux``: spectral flux across the seams over that elsewhere, 1 if they cannot be told apart.
  Flux is the mean absolute difference of the magnitude spectra of the 16 ms before and after the
  middle of a fade; "elsewhere" is every 25 ms, at least 50 ms away from any cut.
* ``flux_exact``: the same of the exact generation, at the same places.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch

import umtlib
from umtlib import audio
from umtlib.errors import EvaluationError
from umtlib.generation import chunks
from umtlib.generation.perform import perform
from umtlib.generation.translation import hear
from umtlib.translator import MusicTranslator

WINDOW = 256  # samples on either side


def flux_ratio(waveform: np.ndarray, cuts: Sequence[int]) -> float:
    """Return the spectral flux across seams over that elsewhere; NaN if there is no elsewhere."""
    seams = np.asarray(cuts) + chunks.FADE // 2
    grid = np.arange(WINDOW, len(waveform) - WINDOW, chunks.FADE)
    far = grid[np.abs(grid[:, None] - seams[None]).min(axis=1) > 2 * chunks.FADE]
    if not len(far):
        return float("nan")
    flux = []
    for places in (seams, far):
        before, after = (
            np.abs(np.fft.rfft([np.hanning(WINDOW) * waveform[i : i + WINDOW] for i in places + o]))
            for o in (-WINDOW, 0)
        )
        flux.append(np.abs(after - before).mean())
    return float(flux[0] / flux[1])


def evaluate(made: np.ndarray, exact: np.ndarray, cuts: Sequence[int]) -> dict:
    """Compare the seams of a chunked generation with an exact one of the same input.

    Both are in [-1, 1], 16 kHz, shape (T,). At the cuts, in samples, stretches of ``made`` begin.
    """
    powers = [np.mean([np.square(x[c : c + chunks.FADE]) for c in cuts]) for x in (made, exact)]
    return {
        "seams": len(cuts),
        "level_db": float(10 * np.log10((powers[0] + 1e-12) / (powers[1] + 1e-12))),
        "flux": flux_ratio(made, cuts),
        "flux_exact": flux_ratio(exact, cuts),
    }


def compare(
    model: MusicTranslator, waveform: np.ndarray, to: str, *, seconds=None, seed=0, **options
) -> dict:
    """Translate a recording, levelled, (T,), exactly and in stretches, and evaluate the seams.

    The stretches are of some ``seconds``, see `umtlib.generation.chunks.plan`; options are those of
    `umtlib.generation.generate`.
    """
    decoder, heard = model.decoders[to], hear(model, [waveform], len(waveform))
    rng = torch.Generator().manual_seed(seed)
    takes = (
        chunks.perform_long(model, to, heard, seconds=seconds, generator=rng, **options),
        perform(model, [to], [heard], generator=rng, **options),
    )
    made, exact = (torch.cat([piece[0] for _, piece in take]).numpy() for take in takes)
    cuts = chunks.plan(decoder, heard.levels[0], seconds)[1:-1]
    if not len(cuts):
        raise EvaluationError("a recording that is so short is not cut; give a longer one")
    return evaluate(made, exact, [frame * decoder.guide.pool for frame in cuts])


if __name__ == "__main__":
    print(compare(umtlib.load(), audio.level(audio.read(sys.argv[1])), sys.argv[2]))
