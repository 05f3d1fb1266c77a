"""The six domains as instruments, and their sound: MIDI in memory, fluidsynth, 16 kHz."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile
import soxr

from umtlib.audio import CEILING, LEVEL, SAMPLE_RATE
from umtlib.config import SIX_DOMAINS
from umtlib.corpora.performing import Note
from umtlib.errors import CorpusError

DOMAINS = SIX_DOMAINS
SOUNDFONTS = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
    "/usr/local/share/soundfonts/FluidR3_GM.sf2",
)
_RENDER_RATE = 48_000  # three times ours: fluidsynth's own interpolation aliases less up there
_FLUIDSYNTH = (
    f"fluidsynth -ni -q -O float -T wav -r {_RENDER_RATE} -o synth.chorus.active=0 "
    "-o synth.dynamic-sample-loading=1 -o synth.cpu-cores=1 -F"
).split()
_TAIL = 0.5  # seconds of reverberation kept after the last note

PIANO, HARPSICHORD, ORGAN, CHOIR, STRINGS = 0, 6, 19, 52, 48
VIOLIN, VIOLA, CELLO, BASS = 40, 41, 42, 43
FLUTE, OBOE, CLARINET, BASSOON, HORN = 73, 68, 71, 70, 60
# Where FluidR3 sounds in tune, by measurement: at most as wide as the real instrument.
RANGES = {
    PIANO: (21, 108), HARPSICHORD: (29, 91), ORGAN: (36, 96), CHOIR: (41, 88), STRINGS: (28, 96),
    VIOLIN: (55, 89), VIOLA: (48, 84), CELLO: (36, 76), BASS: (28, 56), FLUTE: (60, 96),
    OBOE: (58, 91), CLARINET: (50, 91), BASSOON: (34, 74), HORN: (41, 77),
    24: (40, 88), 65: (45, 84), 12: (45, 88), 56: (45, 88), 21: (41, 88), 81: (36, 96),
}  # fmt: skip
# Timbres in no domain, to translate from; `whistle` is synthesised and not among them.
UNSEEN = {
    "guitar": 24, "saxophone": 65, "marimba": 12, "trumpet": 56, "accordion": 21, "synth_lead": 81,
}  # fmt: skip
_CHOIR_BEND = 614  # +15 cents: most of its samples are 15 to 25 cents flat
_STEADY = {ORGAN, HARPSICHORD}  # a key there sounds equally loud however it is struck
_NO_SWELL = {PIANO, HARPSICHORD, ORGAN, 24, 12}
_REVERB = {
    "mozart_orchestra": 60, "haydn_quartet": 45, "bach_cantata": 70, "bach_organ": 80,
    "beethoven_piano": 35, "bach_harpsichord": 30,
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What one MIDI channel plays: General MIDI program (from 0), volume, reverb, notes."""

    program: int
    volume: int
    reverb: int
    notes: tuple[Note, ...]


def orchestrate(
    domain: str, notes: Sequence[Note], rng: np.random.Generator | None = None
) -> list[Part]:
    """Give the lines of a performance to a domain's instruments, or to ``"unseen/<name>"``.

    The generator chooses among registrations (a 4-foot stop, a doubling flute...). Without it the
    plain registration sounds: nothing but the written pitches.
    """
    lines = sorted({note.line for note in notes})
    draws = [1.0] * 4 if rng is None else rng.random(4).tolist()  # one set of stops for all lines
    parts: list[Part] = []
    for place, line in enumerate(lines):
        own = [note for note in notes if note.line == line]
        role = "top" if place == 0 else "bass" if place == len(lines) - 1 else "inner"
        for rank, layer in enumerate(_layers(domain, role, own, draws)):
            parts.append(_part(own, *layer, _REVERB.get(domain, 45), leads=rank == 0))
    return [part for part in parts if part.notes][:15]  # MIDI has 15 channels with pitch


def plays_as_written(domain: str, notes: Sequence[Note]) -> bool:
    """Say whether a domain's plain registration needs no note moved into an instrument's range."""
    sounding = {(n.onset, n.pitch) for part in orchestrate(domain, notes) for n in part.notes}
    return sounding == {(note.onset, note.pitch) for note in notes}


def _layers(domain: str, role: str, notes: list[Note], draws: list[float]) -> list[tuple]:
    """Return (program, volume, octave) for every instrument on a line; the first one leads."""
    top, bass, inner = role == "top", role == "bass", role == "inner"
    if domain == "bach_organ":
        feet4, feet16 = draws[0] < 0.45, bass and draws[1] < 0.5
        return [(ORGAN, 100, 0)] + [(ORGAN, 62, 1)] * feet4 + [(ORGAN, 90, -1)] * feet16
    if domain == "bach_harpsichord":
        return [(HARPSICHORD, 100, 0)] + [(HARPSICHORD, 70, 1)] * (draws[0] < 0.35)
    if domain == "beethoven_piano":
        return [(PIANO, 100, 0)]
    if domain == "haydn_quartet":
        return [(_bowed(role, notes), 100, 0)]
    if domain == "bach_cantata":
        oboe, bassoon = top and draws[0] >= 0.4, bass and draws[1] >= 0.3
        strings = [(STRINGS, 62, 0)] * (bass or draws[2] >= 0.3)
        return [(CHOIR, 110, 0)] + strings + [(OBOE, 58, 0)] * oboe + [(BASSOON, 66, 0)] * bassoon
    if domain == "mozart_orchestra":
        wind = FLUTE if draws[0] < 0.33 else CLARINET if draws[0] < 0.55 else OBOE
        winds = [(wind, 72, 0)] * (top and draws[1] >= 0.25)
        horn = [(HORN, 58, 0)] * (inner and draws[2] >= 0.4)
        low = [(BASSOON, 70, 0)] * bass + [(BASS, 84, -1)] * (bass and draws[3] < 0.6)
        return [(STRINGS, 104, 0)] + winds + horn + low
    return [(UNSEEN[domain.removeprefix("unseen/")], 100, 0)]


def _bowed(role: str, notes: list[Note]) -> int:
    """Return the member of a quartet whose range holds a line, the usual one if it does."""
    low, high = min(n.pitch for n in notes), max(n.pitch for n in notes)
    if role == "bass":
        order = (CELLO, VIOLA, VIOLIN)
    elif role == "inner" and low + high < 2 * 62:
        order = (VIOLA, CELLO, VIOLIN)
    else:
        order = (VIOLIN, VIOLA, CELLO) if low + high > 2 * 58 else (CELLO, VIOLA, VIOLIN)
    fitting = [p for p in order if RANGES[p][0] <= low and high <= RANGES[p][1]]
    return (fitting or order)[0]


def _part(
    notes: list[Note], program: int, volume: int, octave: int, reverb: int, *, leads: bool
) -> Part:
    """Bring a line into the instrument's range: the leader folds by octaves, a doubling rests."""
    low, high = RANGES[program]
    played = []
    for note in notes:
        pitch = note.pitch + 12 * octave
        if leads:
            pitch += 12 * (max(0, -(-(low - pitch) // 12)) - max(0, -(-(pitch - high) // 12)))
        if low <= pitch <= high:
            velocity = 96 if program in _STEADY else note.velocity
            played.append(Note(note.line, note.onset, note.offset, pitch, velocity))
    return Part(program, volume, reverb, tuple(played))


def to_midi(parts: Sequence[Part], swell: Sequence[tuple[float, int]] = ()) -> bytes:
    """Return a MIDI file with one channel per part."""
    midi = pretty_midi.PrettyMIDI(resolution=960, initial_tempo=120)
    for part in parts:
        voice = pretty_midi.Instrument(part.program)
        controls = [(7, part.volume, 0.0), (91, part.reverb, 0.0)]
        if part.program not in _NO_SWELL:
            controls += [(11, value, time) for time, value in swell]
        voice.control_changes = [pretty_midi.ControlChange(*control) for control in controls]
        if part.program == CHOIR:
            voice.pitch_bends = [pretty_midi.PitchBend(_CHOIR_BEND, 0.0)]
        voice.notes = _apart(part.notes)
        midi.instruments.append(voice)
    file = io.BytesIO()
    midi.write(file)
    return file.getvalue()


def _apart(notes: Sequence[Note]) -> list[pretty_midi.Note]:
    """End a key before it is struck again: in MIDI the first note-off would silence both."""
    last: dict[int, pretty_midi.Note] = {}
    kept = []
    for note in notes:
        before = last.get(note.pitch)
        if before and note.onset - before.start < 0.05:
            before.end = max(before.end, note.offset)
            continue
        if before:
            before.end = min(before.end, note.onset - 0.01)
        last[note.pitch] = pretty_midi.Note(note.velocity, note.pitch, note.onset, note.offset)
        kept.append(last[note.pitch])
    return kept


def find_soundfont() -> Path:
    """Return the soundfont FluidR3; a CorpusError names the Debian package that is missing."""
    if shutil.which("fluidsynth") is None:
        raise CorpusError("fluidsynth is not installed: 'apt-get install fluidsynth' (Debian)")
    for place in map(Path, SOUNDFONTS):
        if place.is_file():
            return place
    raise CorpusError(f"no soundfont at {' or '.join(SOUNDFONTS)}: "
                      "'apt-get install fluid-soundfont-gm' (Debian)")  # fmt: skip


def render(midi: bytes, soundfont: Path) -> np.ndarray:
    """Play a MIDI file with fluidsynth; float64, mono, 16 kHz, shape (T,), not yet levelled.

    If fluidsynth fails it raises a CorpusError.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "a.mid"), Path(folder, "a.wav")
        score.write_bytes(midi)
        command = [*_FLUIDSYNTH, sound, soundfont, score]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not sound.is_file():
            raise CorpusError(f"fluidsynth failed with {soundfont}: {done.stderr.strip()[-300:]}")
        samples, _ = soundfile.read(sound, always_2d=True)
    return soxr.resample(samples.mean(axis=1), _RENDER_RATE, SAMPLE_RATE)


def finish(samples: np.ndarray, seconds: float, *, exact: bool = False) -> np.ndarray:
    """Trim a rendering (T,) to the music and bring it to the common level, as int16.

    After ``seconds``, the last note's end, half a second of reverberation stays; none if ``exact``.
    The root mean square becomes -20 dBFS, or less where a sample would pass -1 dBFS.
    Silence raises a CorpusError.
    """
    length = round((seconds if exact else seconds + _TAIL) * SAMPLE_RATE)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    fade = round((0.01 if exact else 0.1) * SAMPLE_RATE)
    samples[-fade:] *= np.linspace(1, 0, fade)
    power, peak = np.sqrt(np.mean(samples**2)), np.abs(samples).max()
    if peak < 1e-4:
        raise CorpusError("fluidsynth rendered silence; is the soundfont a General MIDI one?")
    gain = min(LEVEL / power, CEILING / peak)
    return np.rint(samples * gain * 32767).astype(np.int16)
