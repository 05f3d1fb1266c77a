"""A gallery of 21 inputs to translate from, made of what ships: no file and no synthesiser.

Twelve are renderings of `data/mini`, six of the domains and six of timbres in none. Nine are
synthesised here, and not to be taken for recordings. Some are music and some are not: where a
translator fails should be heard too. Notebook: ``07_translation``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from umtlib import audio
from umtlib.audio import SAMPLE_RATE
from umtlib.config import SIX_DOMAINS
from umtlib.corpora.pairs import read_pairs

VOWELS = {  # the first three formants, Hz
    "a": (800, 1_150, 2_900), "e": (400, 2_000, 2_800), "i": (300, 2_300, 3_000),
    "o": (450, 800, 2_830), "u": (325, 700, 2_700),
}  # fmt: skip
HIGH = butter(2, 3_000, "high", fs=SAMPLE_RATE, output="sos")
PARTIALS = (0.5, 0.6), (1, 1), (1.19, 0.7), (1.56, 0.4), (2, 0.5), (2.66, 0.3)  # of a bell; weights
TUNE = (69, 71, 73, 76)  # MIDI pitches
Notes = Sequence[tuple[float, float, float]]  # onset and offset in seconds, MIDI pitch


def gallery(corpus: Path | str, seconds: float = 2.0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield 21 sounds of at most 5 seconds, with their names, from paired excerpts.

    They are float32 in [-1, 1] at 16 kHz, shape (16000 * seconds,), at the level of the training
    audio.

    Raises
    ------
    CorpusError
        If the corpus has no paired excerpts.
    """
    samples, rng = round(seconds * SAMPLE_RATE), np.random.default_rng(0)
    pairs = {pair.source: pair for pair in read_pairs(corpus)}
    for source in (*SIX_DOMAINS, *sorted(name for name in pairs if "/" in name)):
        recording = pairs[source].audio()[:samples] / np.float32(32_768)
        yield source.rpartition("/")[2], audio.level(recording)
    tutti, top = pairs[SIX_DOMAINS[0]], {}
    for note in tutti.notes:
        top[note[0]] = max(note, top.get(note[0], note), key=lambda one: one[2])
    score = [(i * seconds / 4, (i + 0.9) * seconds / 4, pitch) for i, pitch in enumerate(TUNE)]
    low = [(onset, offset, pitch - 24) for onset, offset, pitch in score]
    aria = audio.level(voice([*top.values()], samples, rng))
    for name, waveform in {
        "soprano": voice(score, samples, rng),
        "bass voice": voice(low, samples, rng),
        "opera": aria + audio.level(tutti.audio()[:samples] / 32_768),
        "plucked string": plucked(score, samples, rng),
        "metal riff": np.tanh(20 * plucked(low, samples, rng)),
        "bell": bell(score, samples),
        "drums": drums(samples, rng),
        "speech": speech(samples, rng),
        "bird": bird(samples),
    }.items():
        yield name, audio.level(waveform.astype(np.float32))


def voice(notes: Notes, samples: int, rng: np.random.Generator, vowels: str = "aoie") -> np.ndarray:
    """Sing notes, a vowel each: pulses of the vocal cords, with vibrato, through resonances."""
    time, sung = np.arange(samples) / SAMPLE_RATE, np.zeros(samples)
    for number, (onset, offset, pitch) in enumerate(notes):
        here = (onset <= time) & (time < offset)
        age = time[here] - onset
        vibrato = 0.3 * np.clip(age / 0.3, 0, 1) * np.sin(2 * np.pi * 5.5 * age)
        phase = np.cumsum(hertz(pitch + vibrato)) / SAMPLE_RATE
        shape = np.clip(age / 0.04, 0, 1) * np.clip((offset - time[here]) / 0.04, 0, 1)
        sung[here] += shape * resonate(pulses(phase), VOWELS[vowels[number % len(vowels)]])
    return sung + 0.002 * rng.standard_normal(samples)


def pulses(phase: np.ndarray) -> np.ndarray:
    """Return one pulse for each whole number that a phase, (T,), passes: what vocal cords do."""
    return np.diff(np.floor(phase), prepend=0.0)


def hertz(pitch: np.ndarray | float) -> np.ndarray | float:
    """Return the frequency of a MIDI pitch."""
    return 440 * 2 ** ((pitch - 69) / 12)


def resonate(source: np.ndarray, formants: Sequence[float], width: float = 90.0) -> np.ndarray:
    """Filter a source through resonances, Hz, one after another."""
    for formant in formants:
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * formant / SAMPLE_RATE), radius**2]
        source = lfilter([sum(poles)], poles, source)
    return source


def speech(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Babble: syllables of a hiss and a vowel whose pitch falls, as in a sentence."""
    said, start, length = np.zeros(samples), 0, 3_200
    while start < samples:
        vowel, time = rng.choice(list(VOWELS)), np.arange(length) / SAMPLE_RATE
        phase = np.cumsum(rng.uniform(100, 160) - 150 * time) / SAMPLE_RATE
        hiss = sosfilt(HIGH, rng.normal(size=length))
        sound = resonate(pulses(phase), VOWELS[vowel]) * np.hanning(length)
        sound = sound / np.abs(sound).max() + 0.1 * hiss * (time < 0.05)
        said[start : start + length] = sound[: samples - start]
        start += int(length * rng.uniform(1.0, 1.3))
    return said


def plucked(notes: Notes, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Pluck strings: noise that goes round and is smoothed each time (Karplus and Strong 1983)."""
    played = np.zeros(samples)
    for onset, _, pitch in notes:
        start, period = round(onset * SAMPLE_RATE), round(SAMPLE_RATE / hertz(pitch))
        burst = np.zeros(samples - start)
        burst[:period] = rng.uniform(-1, 1, min(period, len(burst)))
        loop = np.zeros(period + 2)
        loop[[0, period, period + 1]] = 1, -0.498, -0.498
        played[start:] += lfilter([1], loop, burst)
    return played


def bell(notes: Notes, samples: int) -> np.ndarray:
    """Ring bells, whose partials are not multiples of one frequency."""
    time, rung = np.arange(samples) / SAMPLE_RATE, np.zeros(samples)
    for onset, _, pitch in notes:
        age = np.maximum(time - onset, 0)
        for partial, weight in PARTIALS:
            tone = np.sin(2 * np.pi * partial * hertz(pitch) * age) * np.exp(-3 * partial * age)
            rung += (time >= onset) * weight * tone
    return rung


def drums(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Beat a bass drum and, between its beats, a snare."""
    time, beaten = np.arange(samples) / SAMPLE_RATE, np.zeros(samples)
    for beat in range(int(4 * samples / SAMPLE_RATE)):
        age = np.maximum(time - beat / 4, 0)
        if beat % 2:
            hit = rng.normal(size=samples) * np.exp(-25 * age)
        else:
            skin = np.sin(2 * np.pi * 8 * (1 - np.exp(-30 * age)) + 2 * np.pi * 55 * age)
            hit = skin * np.exp(-12 * age)
        beaten += (time >= beat / 4) * hit
    return beaten


def bird(samples: int) -> np.ndarray:
    """Chirp: short tones that sweep between 3 and 6 kHz, eight a second."""
    time = np.arange(samples) / SAMPLE_RATE
    turn = (8 * time) % 1
    sweep = 4_500 + 1_500 * np.sin(2 * np.pi * (turn + (8 * time) // 1 / 3))
    return np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE) * np.sin(np.pi * turn) ** 2
