"""Trains `umtlib.evaluation.transcriber`: training pieces, played by any instrument.

Every second example is one of the six domains without stops that double at the octave, every other
one has General MIDI programs drawn at random, for all lines or for each. Half of both are coloured
by a random impulse response, have noise added and pass through 8-bit mu-law, so that such faults of
a translation alone are no reason to miss a note. Of the cells without a note, few are taken, and
more of those that are easily mistaken: near the beginning of a note, or an octave, fifth or
semitone beside it. Needs what rendering the corpus needs (`umtlib.corpora.six_domains`).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from umtlib.corpora import instruments, six_domains
from umtlib.corpora.performing import perform
from umtlib.corpora.scores import Score
from umtlib.evaluation import nets, notes, transcriber
from umtlib.evaluation.features import Excerpt, excerpt
from umtlib.evaluation.transcriber import FRAMES_PER_SECOND, PITCHES, Note

SECONDS = 8.0  # of an example
EPOCHS = 10
# General MIDI programs with a pitch, and the MIDI pitches at which FluidR3 sounds all of them.
PROGRAMS = (
    *range(14), *range(15, 20), *range(21, 28), 29, 30, *range(40, 43), 45, 46, *range(48, 55),
    56, 57, *range(59, 65), 66, 68, *range(71, 76), *range(78, 83),
)  # fmt: skip
_RANGE = (36, 96)
_BESIDE = (-24, -19, -12, -7, -2, -1, 1, 2, 7, 12, 19, 24)  # semitones that are mistaken
_NOISE_DB = (-40.0, -15.0)
_ECHO = 800  # samples


def train(
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    examples: int = 360,
    tests: int = 48,
    seed: int = 0,
) -> dict:
    """Train a transcriber, and measure it on other pieces (five minutes on one core).

    Parameters
    ----------
    data : path
        A folder in which scores were parsed, or will be: that of the rendered corpus.
    out : path
        Folder to write ``transcriber.safetensors`` and ``card.json`` to.
    examples, tests : int
        How many training pieces to render, and how many validation pieces.
    seed : int
        Of everything that is drawn.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    CorpusError
        If fluidsynth, the soundfont or music21 is missing.
    """
    scores = six_domains.read_scores(Path(data), 1, lambda *_: None)[0]
    seen, wanted = [], []
    for sound, score, _ in render(scores, "train", examples, seed):
        rng = np.random.default_rng([seed, len(seen)])
        inputs, answers = _chosen(sound, score, rng)
        seen.append(inputs)
        wanted.append(answers)
    found = fit(np.concatenate(seen), np.concatenate(wanted), seed)
    card = {
        "what": "finds the notes in 16 kHz audio; see umtlib.evaluation.transcriber",
        "trained_on": {"pieces": examples, "cells": sum(map(len, seen))},
        "seed": seed,
        "note_f": _held_out(found, render(scores, "val", tests, seed)),
    }
    nets.keep(Path(out) / transcriber.WEIGHTS, found, card, np.float16)
    return card


def render(
    scores: Sequence[Score], split: str, number: int, seed: int
) -> Iterator[tuple[Excerpt, list[Note], str]]:
    """Yield sounds, the notes that sound in them, and the domain or ``"any"``."""
    rng, font = np.random.default_rng([seed, len(split)]), instruments.find_soundfont()
    shelves: dict[str, list[Score]] = {}
    for score in scores:
        if score.split == split:
            shelves.setdefault(score.collection, []).append(score)
    made = 0
    while made < number:
        shelf = shelves[str(rng.choice(sorted(shelves)))]
        played = perform(shelf[int(rng.integers(len(shelf)))], rng, SECONDS)
        kind = "any" if made % 2 else instruments.DOMAINS[made // 2 % len(instruments.DOMAINS)]
        parts = played and _parts(played.notes, kind, rng)
        if not parts:
            continue
        midi = instruments.to_midi(parts, played.swell)
        sound = excerpt(instruments.finish(instruments.render(midi, font), played.seconds))
        sounding = sorted({(n.onset, n.offset, n.pitch) for part in parts for n in part.notes})
        yield _spoilt(sound, rng) if rng.random() < 0.5 else sound, sounding, kind
        made += 1


def _parts(played, kind: str, rng: np.random.Generator) -> list[instruments.Part]:
    if kind != "any":
        return instruments.orchestrate(kind, played)
    lines, same = sorted({note.line for note in played}), rng.random() < 0.5
    programs = rng.choice(PROGRAMS, size=1 if same else len(lines))
    parts = []
    for line, program in zip(lines, np.resize(programs, len(lines)).tolist(), strict=True):
        own = (n for n in played if n.line == line and _RANGE[0] <= n.pitch <= _RANGE[1])
        volume, reverb = int(rng.integers(70, 127)), int(rng.integers(0, 90))
        parts.append(instruments.Part(program, volume, reverb, tuple(own)))
    return [part for part in parts if part.notes][:15]


def _spoilt(sound: Excerpt, rng: np.random.Generator) -> Excerpt:
    echo = rng.standard_normal(_ECHO) * np.exp(-np.arange(_ECHO) / rng.uniform(10, 200))
    echo *= rng.uniform(0, 0.5)
    echo[0] = 1
    wave = np.convolve(sound.waveform, echo)[: len(sound.waveform)]
    noise = wave.std() * 10 ** (rng.uniform(*_NOISE_DB) / 20) * rng.standard_normal(len(wave))
    return excerpt(wave + noise).coded


def _chosen(
    sound: Excerpt, score: Sequence[Note], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the net sees of some cells, float16, (n, D), and the answers, int8, (n, 2)."""
    frames = 1 + len(sound.waveform) // transcriber.HOP
    begins, sounds = np.zeros((2, len(PITCHES), frames), bool)
    chance = np.full((len(PITCHES), frames), 0.02)
    spans = [
        (int(pitch) - PITCHES[0], round(onset * FRAMES_PER_SECOND), round(end * FRAMES_PER_SECOND))
        for onset, end, pitch in score
        if PITCHES[0] <= pitch <= PITCHES[-1]
    ]

    def raise_chance(rows, first, last, least):
        part = chance[rows, max(first, 0) : last]
        np.maximum(part, least, out=part)

    for row, first, last in spans:
        sounds[row, first : max(last, first + 1)] = True
        begins[row, max(first - 1, 0) : first + 2] = True
        raise_chance(slice(None), first - 1, first + 3, 0.06)
        raise_chance(slice(row, row + 1), first, last, 0.25)
        raise_chance(slice(row, row + 1), first - 7, first + 9, 1.0)
        for other in (row + step for step in _BESIDE if 0 <= row + step < len(PITCHES)):
            raise_chance(slice(other, other + 1), first - 3, first + 5, 0.2)
            raise_chance(slice(other, other + 1), first, last, 0.06)
    taken = rng.random(chance.shape) < chance
    seen = [row[own].astype(np.float16) for row, own in zip(transcriber.cells(sound), taken)]  # noqa: B905
    answers = np.stack([begins[taken], sounds[taken]], axis=1).astype(np.int8)
    return np.concatenate(seen), answers


def fit(seen: np.ndarray, wanted: np.ndarray, seed: int = 0) -> transcriber.Transcriber:
    """Fit the net to cells, shape (n, D), and answers, shape (n, 2)."""
    from sklearn.neural_network import MLPClassifier

    some = seen[:: max(1, len(seen) // 100_000)].astype(np.float32)
    mean, scale = some.mean(axis=0), some.std(axis=0) + 0.1
    inputs = np.empty(seen.shape, np.float32)
    for first in range(0, len(seen), 65_536):
        part = slice(first, first + 65_536)
        inputs[part] = (seen[part] - mean) / scale
    net = MLPClassifier(
        (transcriber.HIDDEN,), alpha=1e-3, batch_size=1_024, max_iter=EPOCHS, random_state=seed
    )
    return transcriber.Transcriber(**nets.fitted(net, inputs, wanted, mean, scale))


def _held_out(judge: transcriber.Transcriber, rendered) -> dict[str, float]:
    found: dict[str, list] = {}
    for sound, score, kind in rendered:
        found.setdefault(kind, []).append(notes.note_f(score, judge.transcribe(sound)))
    return {kind: round(float(np.mean(values)), 3) for kind, values in sorted(found.items())}
