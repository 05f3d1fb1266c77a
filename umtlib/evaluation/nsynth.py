"""Do the embeddings of one pitch agree across instruments? The paper's Figure 3 and its numbers.

Conventions. Notes are in NSynth's format: 16 kHz WAV files of 4 s named
``<family>_<source>_<number>-<pitch>-<velocity>.wav``. The embedding of a note is its latent,
averaged over time. Two instruments give a matrix of cosines: pitches of the one by pitches of the
other. ``diagonal`` is the mean over equal pitches (the paper: .90 to .95), ``off_diagonal`` that
over unequal ones, both also after each instrument's mean is subtracted: latents share a large
common part. ``nearest`` is the part of the pitches of the one whose nearest in the other, centred,
has the same pitch. Source: Mor et al. 2018, section 4.2. Notebook: ``08_evaluation``.
"""

import math
import os
import re
from collections.abc import Sequence
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from umtlib import audio
from umtlib.errors import EvaluationError
from umtlib.generation import translation
from umtlib.translator import MusicTranslator

METRICS = ("diagonal", "off_diagonal", "diagonal_centred", "off_diagonal_centred", "nearest")
# The paper's four instruments.
PAPERS = (
    "flute_acoustic_027", "keyboard_electronic_019", "brass_acoustic_018", "string_acoustic_029",
)  # fmt: skip
VELOCITY = 100
_NAME = re.compile(r"(?P<instrument>.+)-(?P<pitch>\d{3})-(?P<velocity>\d{3})\.wav")


def find_notes(folder: str | os.PathLike) -> dict[str, dict[int, Path]]:
    """Return the notes in a folder, by instrument and pitch; of velocities, the nearest to 100.

    If there are none, it raises EvaluationError.
    """
    named = [(m, path) for path in Path(folder).rglob("*.wav") if (m := _NAME.fullmatch(path.name))]
    if not named:
        raise EvaluationError(f"{folder} holds no notes named like flute_acoustic_027-060-100.wav")
    found: dict[str, dict[int, Path]] = {}
    # The velocity nearest to 100 comes last, and stays.
    for match, path in sorted(named, key=lambda x: (-abs(int(x[0]["velocity"]) - VELOCITY), x[1])):
        found.setdefault(match["instrument"], {})[int(match["pitch"])] = path
    return found


def cosines(first: np.ndarray, second: np.ndarray, *, centred: bool = False) -> np.ndarray:
    """Return the cosine of every pair of rows of arrays, (pitches, D), without their means."""
    rows = [x - x.mean(axis=0) if centred else x for x in (first, second)]
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in rows]
    return units[0] @ units[1].T


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return `METRICS` of two instruments, (pitches, D), two pitches at least."""
    count, values = len(first), []
    for matrix in (cosines(first, second, centred=centred) for centred in (False, True)):
        values += [matrix.trace() / count, (matrix.sum() - matrix.trace()) / (count * (count - 1))]
    values.append((matrix.argmax(axis=1) == np.arange(count)).mean())
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def embeddings(
    model: MusicTranslator, folder: str | os.PathLike, names: Sequence[str] | None = None
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return the pitches that all of some instruments have, and by instrument (pitches, D).

    By default the instruments are the paper's, if they are there, and otherwise the first four.
    If they share no two pitches, it raises EvaluationError.
    """
    notes = find_notes(folder)
    if names is None:
        names = PAPERS if {*PAPERS} <= {*notes} else sorted(notes)[:4]
    pitches = sorted(set.intersection(*({*notes[name]} for name in names)))
    if len(pitches) < 2:
        raise EvaluationError(f"{', '.join(names)} share {len(pitches)} pitches, and need two")
    sounds = {name: [audio.level(audio.read(notes[name][p])) for p in pitches] for name in names}
    return pitches, {
        name: np.stack([translation.encode(model, s)[0].mean(dim=1).numpy() for s in heard])
        for name, heard in sounds.items()
    }


def evaluate(pitches: Sequence[int], found: dict[str, np.ndarray]) -> dict:
    """Compare what `embeddings` returns, pairwise and each with itself: a row for each pair."""
    both = combinations_with_replacement(found, 2)
    pairs = [{"first": a, "second": b} | agreement(found[a], found[b]) for a, b in both]
    return {"pitches": list(pitches), "pairs": pairs}


def plot(pitches: Sequence[int], found: dict[str, np.ndarray], *, centred: bool = False) -> Figure:
    """Draw the matrices of cosines of all pairs of instruments, like the paper's Figure 3."""
    count = len(found)
    figure = Figure(figsize=(2.4 * count, 2.4 * count), layout="constrained")
    grid = figure.subplots(count, count, squeeze=False, sharex=True, sharey=True)
    some = slice(None, None, math.ceil(len(pitches) / 6))
    places, names = np.arange(len(pitches))[some], list(pitches)[some]
    for axes, (first, second) in zip(grid.flat, product(found, repeat=2), strict=True):
        shown = cosines(found[first], found[second], centred=centred)
        image = axes.imshow(shown, vmin=-1, vmax=1, origin="lower")
    axes.set(xticks=places, xticklabels=names, yticks=places, yticklabels=names)  # as all
    for name, top, left in zip(found, grid[0], grid[:, 0], strict=True):
        top.set_title(name, fontsize=8)
        left.set_ylabel(name, fontsize=8)
    figure.colorbar(image, ax=grid, label="cosine", shrink=0.6)
    return figure
