"""Are the notes of the score there? Melody, notes and frames, against the score that was rendered.

Conventions. The score is a sequence of (onset, offset, MIDI pitch), seconds.

* ``note_f``: F-measure of mir_eval: a note is right if its onset is within 50 ms and its pitch
  within 50 cents; offsets do not count.
* ``frame_f``: F-measure over the cells of a piano roll, 16 ms by a semitone.
* ``melody``, ``melody_chroma`` (melodies only): mir_eval's raw pitch and raw chroma accuracy, the
  part of the score's frames whose pitch is within a semitone, and within one but for the octave.

Audio becomes notes by `umtlib.evaluation.transcriber`, a small net trained on training pieces that
any instrument plays. It finds most notes of a piano or harpsichord, and fewer of the slow onsets of
a choir. So a score is worth nothing without its ceiling, that of the true rendering, which `report`
prints beside it. Notebook: ``05_evaluation``.
"""

from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np

from umtlib.errors import EvaluationError
from umtlib.evaluation import transcriber
from umtlib.evaluation.features import Excerpt, excerpt
from umtlib.evaluation.transcriber import FRAMES_PER_SECOND, Note

METRICS = ("note_f", "frame_f", "melody", "melody_chroma")


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


def transcribe(sound: np.ndarray | Excerpt) -> list[Note]:
    """Estimate the notes of a waveform; (onset, offset, pitch) by pitch, then time."""
    return transcriber.load().transcribe(sound)


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
