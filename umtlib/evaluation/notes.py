"""Are the notes of the score there? Melody, notes and frames, against the score that was rendered.

Conventions. The score is a sequence of (onset, offset, MIDI pitch), seconds.

* ``note_f``: F-measure of mir_eval: a note is right if its onset is within 50 ms and its pitch
  within 50 cents; offsets do not count.
* ``frame_f``: F-measure over the cells of a piano roll, 16 ms by a semitone.
* ``melody``, ``melody_chroma`` (melodies only): mir_eval's raw pitch and raw chroma accuracy, the
  part of the score's frames whose pitch is within a semitone, and within one but for the octave.

`umtlib.evaluation.transcriber` finds the notes, and not all of them. Notebook: ``08_evaluation``.
"""

from collections.abc import Sequence

import librosa
import mir_eval
import numpy as np

from umtlib.evaluation import transcriber
from umtlib.evaluation.features import Sound, excerpt
from umtlib.evaluation.transcriber import FRAMES_PER_SECOND, Note

METRICS = ("note_f", "frame_f", "melody", "melody_chroma")


def transcribe(sound: Sound) -> list[Note]:
    """Estimate the notes of a waveform; (onset, offset, pitch) by pitch, then time."""
    return transcriber.load().transcribe(sound)


def note_f(score: Sequence[Note], estimate: Sequence[Note]) -> float:
    """Return the F-measure of notes, in [0, 1]; two empty scores agree: 1."""
    if not len(score) or not len(estimate):
        return float(len(score) == len(estimate))
    arrays = [np.asarray(notes, float) for notes in (score, estimate)]
    given = [part for a in arrays for part in (a[:, :2], librosa.midi_to_hz(a[:, 2]))]
    measure = mir_eval.transcription.precision_recall_f1_overlap
    return float(measure(*given, offset_ratio=None)[2])


def roll(notes: Sequence[Note], frames: int, rate: float = FRAMES_PER_SECOND) -> np.ndarray:
    """Return a piano roll: bool, shape (128, frames), ``rate`` frames a second."""
    cells = np.zeros((128, frames), bool)
    for onset, offset, pitch in notes:
        first = round(onset * rate)
        cells[round(pitch), first : max(round(offset * rate), first + 1)] = True
    return cells


def frame_f(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Return the F-measure of two boolean piano rolls of one shape; 1 if both are empty."""
    total = int(np.sum(truth)) + int(np.sum(estimate))
    return 2 * int(np.sum(np.logical_and(truth, estimate))) / total if total else 1.0


def melody_accuracy(score: Sequence[Note], frequencies: np.ndarray) -> tuple[float, float]:
    """Return raw pitch and chroma accuracy of frequencies, Hz every 16 ms, 0 for none, (F,)."""
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


def evaluate(score: Sequence[Note], estimate: Sound, melody: bool = False) -> dict[str, float]:
    """Look for the notes of a score in a waveform; of a ``melody`` no two sound together."""
    sound = excerpt(estimate)
    found, frames = transcribe(sound), sound.constant_q.shape[1]
    result = {"note_f": note_f(score, found)}
    result["frame_f"] = frame_f(roll(score, frames), roll(found, frames))
    if melody:
        result["melody"], result["melody_chroma"] = melody_accuracy(score, sound.melody)
    return result
