"""Makes the example beside it: Ode to Joy, whistled; the same bits on the same processor."""

import json
from pathlib import Path

import numpy as np
import soundfile

from umtlib.audio import SAMPLE_RATE
from umtlib.corpora.whistle import whistle

# Beethoven, Ode to Joy, first phrase: (MIDI pitch, quarter notes).
ODE_TO_JOY = [(n, 1.0) for n in (81, 81, 82, 84, 84, 82, 81, 79, 77, 77, 79, 81)]
ODE_TO_JOY += [(81, 1.5), (79, 0.5), (79, 2.0)]


def write_example(folder: Path, *, seed: int = 0) -> None:
    """Write ``whistle.wav`` (16 kHz, mono, 16 bit) and ``whistle.json`` with its notes."""
    notes, onset, beat = [], 0.15, 0.36
    for pitch, quarters in ODE_TO_JOY:
        notes.append([round(onset, 3), round(onset + quarters * beat - 0.035, 3), pitch])
        onset += quarters * beat
    samples = whistle(notes, onset + 0.15, np.random.default_rng(seed))
    samples *= 0.5 / np.abs(samples).max()
    folder.mkdir(parents=True, exist_ok=True)
    pcm = np.rint(samples * 32767).astype(np.int16)
    soundfile.write(folder / "whistle.wav", pcm, SAMPLE_RATE, subtype="PCM_16")
    song = {"title": "Ode to Joy (Beethoven), synthesised whistle", "notes": notes}
    (folder / "whistle.json").write_text(json.dumps(song) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_example(Path(__file__).parent)
