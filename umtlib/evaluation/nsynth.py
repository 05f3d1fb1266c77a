"""Do the embeddings of one pitch agree across instruments? The paper's Figure 3 and its numbers.

Conventions. Notes are in NSynth's format: 16 kHz WAV files of 4 s named
``<family>_<source>_<number>-<pitch>-<velocity>.wav``. The embedding of a note is its latent,
averaged over time. Two instruments give a matrix of cosines: pitches of the one by pitches of the
other.
``diagonal`` is the mean over equal pitches (the paper: .90 to .95 between instruments), and
``off_diagonal`` that over unequal ones. A high diagonal alone proves nothing, for latents share a
large common part; in ``diagonal_centred`` and ``off_diagonal_centred`` each instrument's mean
embedding is subtracted first. ``nearest`` is the part of the pitches of the one whose nearest
embedding in the other, centred, has the same pitch; chance is one in as many as there are pitches.

Without NSynth, `render_notes` makes notes of four sampled instruments in the same format.
Source: Mor et al. 2018, section 4.2; Engel et al. 2017. Notebook: ``05_evaluation``.
"""

import os
import re
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from umtlib import audio, translation
from umtlib.corpora import instruments
from umtlib.corpora.performing import Note
from umtlib.errors import EvaluationError
from umtlib.translator import MusicTranslator

# The paper's four instruments of NSynth, and General MIDI programs that stand in for them.
PAPERS = (
    "flute_acoustic_027",
    "keyboard_electronic_019",
    "brass_acoustic_018",
    "string_acoustic_029",
)
STAND_INS = {"flute": 73, "keyboard": 4, "brass": 56, "string": 40}
SECONDS, VELOCITY = 4.0, 100
_NAME = re.compile(r"(?P<instrument>.+)-(?P<pitch>\d{3})-(?P<velocity>\d{3})\.wav")


def find_notes(folder: str | os.PathLike) -> dict[str, dict[int, Path]]:
    """Return the notes of a folder, or of its ``audio`` folder: file by instrument and pitch.

    Of several velocities the one nearest to 100 is taken.

    Raises
    ------
    EvaluationError
        If there are none.
    """
    folder = Path(folder)
    folder = folder / "audio" if (folder / "audio").is_dir() else folder
    found: dict[str, dict[int, Path]] = {}
    best: dict[tuple[str, int], int] = {}
    for path in sorted(folder.glob("*.wav")):
        if match := _NAME.fullmatch(path.name):
            key = match["instrument"], int(match["pitch"])
            off = abs(int(match["velocity"]) - VELOCITY)
            if off < best.get(key, 128):
                best[key] = off
                found.setdefault(key[0], {})[key[1]] = path
    if not found:
        raise EvaluationError(f"{folder} holds no notes named like flute_acoustic_027-060-100.wav")
    return found


def render_notes(out: str | os.PathLike, pitches: Sequence[int] = range(60, 84)) -> Path:
    """Render notes of four sampled instruments in NSynth's format; needs fluidsynth.

    Raises
    ------
    CorpusError
        If fluidsynth or the soundfont is missing.
    """
    out, soundfont = Path(out), instruments.find_soundfont()
    out.mkdir(parents=True, exist_ok=True)
    for family, program in STAND_INS.items():
        for pitch in pitches:
            note = Note(0, 0.0, 3.0, pitch, VELOCITY)  # as in NSynth: held for 3 s, 1 s of decay
            midi = instruments.to_midi([instruments.Part(program, 100, 0, (note,))])
            sound = instruments.finish(instruments.render(midi, soundfont), SECONDS, exact=True)
            name = f"{family}_sampled_{program:03d}-{pitch:03d}-{VELOCITY:03d}.wav"
            audio.write(out / name, sound / np.float32(32_768))
    return out


def validate(first: np.ndarray, second: np.ndarray) -> None:
    """Check two sets of embeddings, one row per pitch.

    Raises
    ------
    EvaluationError
        If they are not of one shape (pitches, D) and finite.
    """
    if np.ndim(first) != 2 or np.shape(first) != np.shape(second):
        raise EvaluationError(
            f"embeddings {np.shape(first)} and {np.shape(second)}; give (pitches, D) twice"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise EvaluationError("the embeddings hold NaN or infinities")


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of every pair of rows, in [-1, 1], shape (pitches, pitches)."""
    validate(first, second)
    units = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (first, second)
    ]
    return units[0] @ units[1].T


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Compare the embeddings of two instruments.

    Parameters
    ----------
    first, second : np.ndarray
        Shape (pitches, D), the same pitches in both.

    Returns
    -------
    dict
        ``diagonal``, ``off_diagonal``, both again with ``_centred``, and ``nearest``; NaN with
        fewer than two pitches.
    """
    validate(first, second)
    names = ("diagonal", "off_diagonal", "diagonal_centred", "off_diagonal_centred", "nearest")
    count = len(first)
    if count < 2:
        return dict.fromkeys(names, float("nan"))
    plain = cosines(first, second)
    centred = cosines(first - first.mean(axis=0), second - second.mean(axis=0))
    values = []
    for matrix in (plain, centred):
        values += [matrix.trace() / count, (matrix.sum() - matrix.trace()) / (count * (count - 1))]
    values.append((centred.argmax(axis=1) == np.arange(count)).mean())
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def embeddings(
    model: MusicTranslator, folder: str | os.PathLike, names: Sequence[str] | None = None
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Embed the notes that all of some instruments have.

    Parameters
    ----------
    model : MusicTranslator
        The model.
    folder : path
        Notes in NSynth's format.
    names : sequence of str, optional
        Instruments. By default the paper's four if they are there, and otherwise the first four.

    Returns
    -------
    tuple of (list of int, dict)
        The pitches, and by instrument an array of shape (pitches, D).

    Raises
    ------
    EvaluationError
        If an instrument is missing, or they share no two pitches.
    """
    notes = find_notes(folder)
    if names is None:
        names = PAPERS if set(PAPERS) <= set(notes) else sorted(notes)[:4]
    if missing := set(names) - set(notes):
        raise EvaluationError(f"{folder} has no instrument {sorted(missing)[0]!r}")
    pitches = sorted(set.intersection(*(set(notes[name]) for name in names)))
    if len(pitches) < 2:
        raise EvaluationError(
            f"{', '.join(names)} share {len(pitches)} pitches; at least two needed"
        )
    found = {
        name: np.stack([_embed(model, notes[name][pitch]) for pitch in pitches]) for name in names
    }
    return pitches, found


def _embed(model: MusicTranslator, path: Path) -> np.ndarray:
    return translation.encode(model, audio.level(audio.read(path)))[0].mean(dim=1).numpy()


def compare(pitches: Sequence[int], found: dict[str, np.ndarray]) -> dict:
    """Compare the embeddings of instruments, pairwise and each with itself.

    Parameters
    ----------
    pitches, found
        What `embeddings` returns.

    Returns
    -------
    dict
        ``pitches``, and ``pairs``: a list of ``first``, ``second`` and the numbers of `agreement`.
    """
    pairs = [
        {"first": first, "second": second} | agreement(found[first], found[second])
        for first, second in combinations_with_replacement(found, 2)
    ]
    return {"pitches": list(pitches), "pairs": pairs}


def evaluate(
    model: MusicTranslator, folder: str | os.PathLike, names: Sequence[str] | None = None
) -> dict:
    """Embed the notes of a folder, and compare them; see `embeddings` and `compare`."""
    return compare(*embeddings(model, folder, names))


def plot(pitches: Sequence[int], found: dict[str, np.ndarray], *, centred: bool = False) -> Figure:
    """Draw the matrices of cosines of all pairs of instruments, like the paper's Figure 3."""
    count = len(found)
    figure = Figure(figsize=(2.4 * count, 2.4 * count), layout="constrained")
    grid = figure.subplots(count, count, squeeze=False, sharex=True, sharey=True)
    extent = (min(pitches), max(pitches)) * 2
    for row, (first, a) in zip(grid, found.items(), strict=True):
        for axes, (second, b) in zip(row, found.items(), strict=True):
            a_, b_ = (x - x.mean(axis=0) if centred else x for x in (a, b))
            image = axes.imshow(cosines(a_, b_), vmin=-1, vmax=1, origin="lower", extent=extent)
            axes.set_title(f"{first} / {second}", fontsize=6)
    figure.colorbar(image, ax=grid, label="cosine", shrink=0.6)
    return figure
