"""Render the notes of this folder; needs fluidsynth and the soundfont FluidR3."""

import json
from pathlib import Path

import numpy as np

from umtlib import audio
from umtlib.corpora import instruments
from umtlib.corpora.instruments import Part
from umtlib.corpora.performing import Note

SECONDS, HELD = 1.0, 0.75
GAIN = 4  # the same for all notes, so that velocities differ as they were played
FAMILIES = {"flute": 2, "guitar": 3, "keyboard": 4}  # NSynth's numbers
# Instruments of General MIDI (from 0) by family: two to train, one each to validate and to test.
PROGRAMS = {"flute": (73, 72, 75, 79), "guitar": (24, 25, 26, 27), "keyboard": (0, 6, 4, 2)}
PARTS = {"nsynth-train": (0, 1), "nsynth-valid": (2,), "nsynth-test": (3,)}
KEYS = ((48, 100), (60, 50), (60, 100), (67, 100))  # MIDI pitch, velocity
MORE = ((55, 100), (72, 100))  # for training only


def main(folder: Path) -> None:
    """Write all notes and their examples.json."""
    number = 0
    for part, members in PARTS.items():
        examples = {}
        (folder / part / "audio").mkdir(parents=True, exist_ok=True)
        for family, programs in PROGRAMS.items():
            for member in members:
                keys = KEYS + (MORE if part == "nsynth-train" else ())
                for pitch, velocity in keys:
                    note = describe(number, family, member, pitch, velocity)
                    sound = render(programs[member], pitch, velocity)
                    audio.write(folder / part / "audio" / f"{note['note_str']}.wav", sound)
                    examples[note["note_str"]] = note
                    number += 1
        (folder / part / "examples.json").write_text(json.dumps(examples, indent=1) + "\n")


def describe(number: int, family: str, member: int, pitch: int, velocity: int) -> dict:
    """Return a note's fields, as NSynth has them."""
    instrument = f"{family}_synthetic_{member:03d}"
    return {
        "note": number,
        "note_str": f"{instrument}-{pitch:03d}-{velocity:03d}",
        "instrument": 4 * list(FAMILIES).index(family) + member,
        "instrument_str": instrument,
        "pitch": pitch,
        "velocity": velocity,
        "sample_rate": 16_000,
        "qualities": [0] * 10,
        "qualities_str": [],
        "instrument_family": FAMILIES[family],
        "instrument_family_str": family,
        "instrument_source": 2,
        "instrument_source_str": "synthetic",
    }


def render(program: int, pitch: int, velocity: int) -> np.ndarray:
    """Return a note's sound, shape (16000,)."""
    part = Part(program, 100, 0, [Note(0, 0.0, HELD, pitch, velocity)])
    samples = GAIN * instruments.render(instruments.to_midi([part]), instruments.find_soundfont())
    length = round(SECONDS * audio.SAMPLE_RATE)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


if __name__ == "__main__":
    main(Path(__file__).parent)
