"""Are the notes of the score there? Melody, notes and frames, against the score that was rendered.

Conventions. The score is a sequence of (onset, offset, MIDI pitch), seconds.

* ``note_f``: F-measure of mir_eval: a note is right if its onset is within 50 ms and its pitch
  within 50 cents; offsets do not count.
* ``frame_f``: F-measure over the cells of a piano roll, 16 ms by a semitone.
* ``melody``, ``melody_chroma`` (melodies only): mir_eval's raw pitch and raw chroma accuracy, the
  part of the score's frames whose pitch is within a semitone, and within one but for the octave.

Audio becomes notes by `transcribe`, which needs no download and was trained on nothing, so it
cannot favour a timbre that it has learnt: each frame of a constant-Q spectrum is explained as a
non-negative sum of harmonic combs, one per pitch (Kullback-Leibler multiplicative updates; Lee and
Seung 2001, with the harmonic dictionary of Raczynski et al. 2007). It is not a good transcriber:
on the corpus's own true renderings it finds most of a harpsichord and about half of an orchestra's
blurred onsets. So a score is worth nothing without its ceiling, that of the true rendering, which
`report` prints beside it; where the ceiling is low, trust ``frame_f``. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np

from umtlib.audio import SAMPLE_RATE
from umtlib.errors import EvaluationError
from umtlib.evaluation.features import (
    BINS_PER_SEMITONE,
    HOP,
    LOWEST,
    SEMITONES,
    Excerpt,
    excerpt,
)

Note = tuple[float, float, float]  # onset and offset in seconds, MIDI pitch
PITCHES = np.arange(LOWEST, LOWEST + 74)  # E1 to F7: at least one overtone lies below 6.3 kHz
METRICS = ("note_f", "frame_f", "melody", "melody_chroma")
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
_PARTIALS, _DECAY, _WIDTH = 16, 0.7, 0.9  # of a comb; the width in rows of the spectrum
_ROUNDS = 40
_AUDIBLE = 0.18  # of the loud frames' strongest pitch
_SHORTEST = 4  # frames, 64 ms
_ATTACK = 2.5  # a pitch that rises by this factor within 48 ms is struck again


def validate(notes: Sequence[Note]) -> None:
    """Check a score.

    Raises
    ------
    EvaluationError
        If a note does not end after it begins, or its pitch is not in 0..127.
    """
    for note in notes:
        if len(note) != 3 or not (0 <= note[0] < note[1] < np.inf and 0 <= note[2] <= 127):
            raise EvaluationError(
                f"note {note}: give (onset, offset, pitch), seconds and MIDI number"
            )


def activations(sound: Excerpt) -> np.ndarray:
    """Return how strongly each of `PITCHES` sounds, shape (74, F), in the spectrum's units."""
    spectrum = sound.constant_q + 1e-6
    combs = _combs()
    strength = np.full((combs.shape[1], spectrum.shape[1]), spectrum.mean(), np.float32)
    for _ in range(_ROUNDS):
        strength *= combs.T @ (spectrum / (combs @ strength + 1e-9))
    return strength


def _combs() -> np.ndarray:
    partials = np.arange(1, _PARTIALS + 1)
    rows = np.arange(SEMITONES * BINS_PER_SEMITONE)
    semitones = PITCHES[:, None] - LOWEST + 12 * np.log2(partials)
    centres = semitones * BINS_PER_SEMITONE + 1  # row 1 is the pitch LOWEST
    peaks = np.exp(-0.5 * ((rows[:, None, None] - centres) / _WIDTH) ** 2)
    combs = (peaks * _DECAY ** (partials - 1)).sum(axis=2)
    return (combs / combs.sum(axis=0)).astype(np.float32)


def transcribe(sound: np.ndarray | Excerpt) -> list[Note]:
    """Estimate the notes of a waveform; (onset, offset, pitch) by pitch, then time."""
    strength = activations(excerpt(sound))
    loud = np.quantile(strength.max(axis=0), 0.9)
    if loud < 1e-4:
        return []
    found = []
    for pitch, row in zip(PITCHES, strength, strict=True):
        for begin, end in _stretches(row, _AUDIBLE * loud):
            found.append((begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND, float(pitch)))
    return found


def _stretches(row: np.ndarray, threshold: float):
    """Yield the (begin, end) frames in which a pitch sounds, cut where it is struck again."""
    edges = np.flatnonzero(np.diff(np.r_[False, row > threshold, False].astype(int)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        cuts = [begin]
        for frame in range(begin + 3, end - 2):
            struck = row[frame + 1] > max(_ATTACK * row[frame - 2], 3 * threshold)
            if struck and frame - cuts[-1] > 5:
                cuts.append(frame)
        for first, last in zip(cuts, [*cuts[1:], end], strict=True):
            if last - first >= _SHORTEST:
                yield first, last


def note_f(score: Sequence[Note], estimate: Sequence[Note]) -> float:
    """Return the note F-measure (onset within 50 ms, pitch within 50 cents), in [0, 1].

    Two empty scores agree: 1.
    """
    validate(score)
    validate(estimate)
    if not len(score) or not len(estimate):
        return float(len(score) == len(estimate))
    (times, hertz), (times_, hertz_) = _arrays(score), _arrays(estimate)
    return float(
        mir_eval.transcription.precision_recall_f1_overlap(
            times, hertz, times_, hertz_, offset_ratio=None
        )[2]
    )


def _arrays(notes: Sequence[Note]) -> tuple[np.ndarray, np.ndarray]:
    array = np.asarray(notes, float)
    return array[:, :2], librosa.midi_to_hz(array[:, 2])


def roll(notes: Sequence[Note], frames: int, rate: float = FRAMES_PER_SECOND) -> np.ndarray:
    """Return a piano roll: bool, shape (128, frames), ``rate`` frames a second."""
    cells = np.zeros((128, frames), bool)
    for onset, offset, pitch in notes:
        first = round(onset * rate)
        cells[round(pitch), first : max(round(offset * rate), first + 1)] = True
    return cells


def frame_f(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the F-measure of two boolean piano rolls of one shape; 1 if both are empty.

    Raises
    ------
    EvaluationError
        If the shapes differ.
    """
    if np.shape(truth) != np.shape(estimate):
        raise EvaluationError(f"rolls of shapes {np.shape(truth)} and {np.shape(estimate)}")
    total = int(np.sum(truth)) + int(np.sum(estimate))
    return 2 * int(np.sum(np.logical_and(truth, estimate))) / total if total else 1.0


def melody_accuracy(score: Sequence[Note], frequencies: np.ndarray) -> tuple[float, float]:
    """Return raw pitch and raw chroma accuracy of a melody within a semitone (mir_eval).

    Parameters
    ----------
    score : sequence of Note
        One note at a time.
    frequencies : np.ndarray
        Hz per frame of 16 ms, 0 where there is none, shape (F,).

    Returns
    -------
    tuple of float
        In [0, 1]; 0 for a score without notes.
    """
    validate(score)
    wanted = np.zeros(len(frequencies))
    for onset, offset, pitch in score:
        span = slice(round(onset * FRAMES_PER_SECOND), round(offset * FRAMES_PER_SECOND))
        wanted[span] = librosa.midi_to_hz(pitch)
    if not wanted.any() or not np.any(frequencies):
        return 0.0, 0.0
    times = np.arange(len(frequencies)) / FRAMES_PER_SECOND
    aligned = mir_eval.melody.to_cent_voicing(times, wanted, times, frequencies)
    measures = mir_eval.melody.raw_pitch_accuracy, mir_eval.melody.raw_chroma_accuracy
    pitch, chroma = (float(measure(*aligned, cent_tolerance=100)) for measure in measures)
    return pitch, chroma


def evaluate(
    score: Sequence[Note], estimate: np.ndarray | Excerpt, melody: bool = False
) -> dict[str, float]:
    """Look for the notes of a score in a waveform.

    Parameters
    ----------
    score : sequence of (float, float, int)
        Onset and offset in seconds and MIDI pitch.
    estimate : np.ndarray or Excerpt
        The waveform; see `umtlib.evaluation.features.excerpt`.
    melody : bool
        No two notes sound together: also give the melody measures.

    Returns
    -------
    dict
        Floats in [0, 1], by the names in `METRICS`.
    """
    validate(score)
    sound = excerpt(estimate)
    found, frames = transcribe(sound), sound.constant_q.shape[1]
    result = {"note_f": note_f(score, found)}
    result["frame_f"] = frame_f(roll(score, frames), roll(found, frames))
    if melody:
        result["melody"], result["melody_chroma"] = melody_accuracy(score, sound.melody)
    return result
