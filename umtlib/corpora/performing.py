"""From a score to what a player would do with it: which lines, when, how loud.

Everything random comes from the generator that the caller passes in.
"""

import math
from dataclasses import dataclass

import numpy as np

from umtlib.corpora.scores import Score

TEXTURES = {"full": 0.52, "two": 0.2, "solo": 0.18, "octave": 0.1}
_LEAD_IN = 0.05  # seconds before the first note
_LONGEST_REST = 0.6  # seconds; longer silences teach nothing


@dataclass(frozen=True)
class Note:
    """A played note: its line (0 is the highest), seconds, MIDI pitch and velocity."""

    line: int
    onset: float
    offset: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Performance:
    """A stretch of a score as played, the same for whatever instruments will sound it."""

    notes: tuple[Note, ...]  # by onset
    texture: str  # a key of `TEXTURES`
    tempo: float  # quarter notes a minute
    transposition: int  # semitones
    swell: tuple[tuple[float, int], ...]  # seconds, and MIDI expression of what swells on a note

    @property
    def seconds(self) -> float:
        """Time of the last note's end."""
        return max(note.offset for note in self.notes)


def perform(
    score: Score,
    rng: np.random.Generator,
    seconds: float,
    *,
    texture: str | None = None,
    centre: float | None = None,
) -> Performance | None:
    """Play a stretch of a score, of so many seconds at most; None if its lines hardly play there.

    Then it is to be drawn again. The texture, a key of `TEXTURES`, is drawn unless it is given. A
    solo line is brought to ``centre``, a MIDI pitch, by octaves and up to 6 semitones.
    """
    drawn = str(rng.choice(list(TEXTURES), p=list(TEXTURES.values())))
    texture = texture or drawn
    lines = _choose_lines(score.lines, texture, rng)
    texture = "solo" if len(lines) == 1 and texture in ("full", "two") else texture
    start, bpm = _choose_stretch(score, lines, seconds, rng)
    notes = _close_rests(_in_seconds(lines, start, bpm))
    notes = [n for n in notes if n[1] < seconds - 0.1]
    if len(notes) < max(4, 0.6 * min(seconds, notes[-1][2] if notes else 0)):
        return None
    shift = _transposition(notes, texture, centre, rng)
    played, swell = _humanise(notes, shift, len(lines), seconds, rng)
    return Performance(played, texture, round(bpm, 1), shift, swell)


def _choose_lines(lines: list, texture: str, rng: np.random.Generator) -> list:
    if texture == "full" or (texture == "two" and len(lines) < 2):
        return lines
    if texture == "two":
        return [_single(lines[0], max), _single(lines[-1], min)]
    inner = rng.random() < 0.4
    return [_single(lines[int(rng.integers(len(lines))) if inner else 0], max)]


def _single(line: list, pick) -> list:
    """Return one note at a time of a line that may hold chords."""
    chords: dict[float, list] = {}
    for note in line:
        chords.setdefault(note[0], []).append(note)
    chosen = [pick(chord, key=lambda note: note[2]) for chord in chords.values()]
    ends = [note[0] for note in chosen[1:]] + [math.inf]
    return [[n[0], min(n[1], end - n[0]), *n[2:]] for n, end in zip(chosen, ends, strict=True)]


def _choose_stretch(
    score: Score, lines: list, seconds: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Return where to start, in quarter notes, and how many quarter notes a minute to play."""
    end = max(note[0] + note[1] for line in lines for note in line)
    place, factor = rng.random(), rng.uniform(0.82, 1.2)
    start = place * max(0.0, end - seconds * score.tempi[0][1] / 60)
    bpm = [tempo for at, tempo in score.tempi if at <= start][-1] * factor
    shortest = np.quantile([note[1] for line in lines for note in line], 0.1)
    bpm = float(np.clip(min(bpm, 60 * shortest / 0.09), 44, 160))
    start = min(start, max(0.0, end - seconds * bpm / 60))
    onsets = [note[0] for note in lines[0] if note[0] >= start]
    return (onsets[0] if onsets and start > 0 else 0.0), bpm


def _in_seconds(lines: list, start: float, bpm: float) -> list:
    """Return (line, onset, offset, pitch, dynamic, on the beat) from `start` on."""
    beat, notes = 60 / bpm, []
    for number, line in enumerate(lines):
        for onset, duration, pitch, dynamic in line:
            if onset + duration > start + 1e-6:
                begin, end = max(onset, start) - start, onset + duration - start
                notes.append((number, begin * beat, end * beat, pitch, dynamic, onset % 1 == 0))
    return sorted(notes, key=lambda note: (note[1], note[0], note[3]))


def _close_rests(notes: list) -> list:
    end, cut, closed = 0.0, 0.0, []
    for line, onset, offset, *rest in notes:
        allowed = _LONGEST_REST if closed else 0.0
        cut += max(0.0, onset - cut - end - allowed)
        closed.append((line, onset - cut, offset - cut, *rest))
        end = max(end, offset - cut)
    return closed


def _transposition(
    notes: list, texture: str, centre: float | None, rng: np.random.Generator
) -> int:
    shift, target = int(rng.integers(-5, 7)), rng.uniform(52, 88)
    mean = float(np.mean([note[3] for note in notes])) + shift
    if centre is not None:
        return shift + 12 * round((centre - mean) / 12)
    if texture != "octave":
        return shift
    octaves = round((target - mean) / 12) or (1 if mean < 70 else -1)
    return shift + 12 * octaves


def _humanise(
    notes: list, shift: int, lines: int, seconds: float, rng: np.random.Generator
) -> tuple[tuple[Note, ...], tuple]:
    """Bend time, spread chords, shape dynamics, as people do; all within small bounds."""
    depth, period, phase = rng.uniform(0, 0.06), rng.uniform(6, 14), rng.uniform(0, 6.28)
    loud, range_, wave = rng.uniform(55, 92), rng.uniform(4, 16), rng.uniform(3, 9)
    legato = rng.uniform(0.82, 1.0, size=lines)
    weight = np.where(np.arange(lines) == 0, 6, -4)

    def bend(t: float) -> float:
        sway = math.sin(6.283 * t / period + phase) - math.sin(phase)
        return _LEAD_IN + t + depth * period / 6.283 * sway

    def level(t: float) -> float:
        return math.sin(6.283 * t / wave + phase) + 0.5 * math.sin(6.283 * t / (2.7 * wave))

    played = []
    for line, onset, offset, pitch, dynamic, on_beat in notes:
        late = float(np.clip(rng.normal(0, 0.008), -0.02, 0.02))
        held = (offset - onset) * legato[line] * float(np.clip(rng.normal(1, 0.03), 0.9, 1.05))
        begin = max(0.0, bend(onset) + late)
        end = min(max(begin + 0.07, bend(onset + held)), seconds)
        velocity = loud + range_ * level(onset) + dynamic + weight[line] + 4 * on_beat
        velocity = int(np.clip(velocity + rng.normal(0, 4), 28, 120))
        if end - begin > 0.06:
            played.append(Note(line, round(begin, 4), round(end, 4), pitch + shift, velocity))
    swell = tuple(
        (round(0.1 * k, 1), int(np.clip(100 + range_ * level(0.1 * k), 60, 127)))
        for k in range(int(seconds * 10))
    )
    return tuple(sorted(played, key=lambda n: (n.onset, n.line, n.pitch))), swell
