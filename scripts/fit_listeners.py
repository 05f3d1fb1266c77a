"""Fit what `umt evaluate` listens with: a recogniser of domains, or the transcriber of notes.

::

    python scripts/fit_listeners.py recogniser CORPUS OUT   # of any corpus
    umt evaluate --recogniser OUT ...
    python scripts/fit_listeners.py transcriber CORPUS OUT  # of a rendered one

The shipped ones are ``OUT = umtlib/pretrained/domain-recogniser`` and ``note-transcriber``, of the
corpus of ``umt corpus six-domains``.

**Recogniser.** A net that learns domains only may ignore time, for spectra suffice; so it also
learns to answer *none* to the same recordings played backwards, shuffled or fluttering. Half of
what it hears has white noise added (10 to 40 dB below the music): hiss is not an instrument.

**Transcriber.** Every second example is one of the six domains without stops that double at the
octave, every other one has General MIDI programs drawn at random, for all lines or for each. Half
of both are coloured by a random impulse response, have noise added and pass through 8-bit mu-law,
so that such faults of a translation alone are no reason to miss a note. Of the cells without a
note, few are taken, and more of those that are easily mistaken: near the beginning of a note, or an
octave, fifth or semitone beside it. Needs fluidsynth, its soundfont and music21.
"""

import json
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from umtlib import files
from umtlib.corpora import instruments, six_domains
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.performing import perform
from umtlib.corpora.scores import Score
from umtlib.errors import EvaluationError
from umtlib.evaluation import notes, recogniser, standins, transcriber
from umtlib.evaluation.features import HOP, Excerpt, excerpt
from umtlib.evaluation.transcriber import FRAMES_PER_SECOND, PITCHES, Note


def weights(net: MLPClassifier, seen: np.ndarray, wanted, mean, scale) -> dict[str, np.ndarray]:
    """Fit a net of one hidden layer to what it sees, brought to mean 0 and scale 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(seen, wanted)
    (hidden, output), (hidden_bias, output_bias) = net.coefs_, net.intercepts_
    arrays = mean, scale, hidden.T, hidden_bias, output.T, output_bias
    return dict(zip(recogniser.NAMES, (a.astype(np.float32) for a in arrays), strict=True))


def keep(path: Path, net: recogniser.Net, card: dict, dtype: type = np.float32) -> dict:
    """Write the weights as numbers of a type, and the card beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(net, name), dtype) for name in recogniser.NAMES}
    with files.replacing(path) as part:
        save_file(tensors, part)
    with files.replacing(path.with_name(recogniser.CARD)) as part:
        part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


# --- the recogniser -------------------------------------------------------------------------------


def fit_recogniser(data: str | os.PathLike, out: str | os.PathLike, seed: int = 0) -> dict:
    """Fit a recogniser to the training tracks of a corpus, measure it on the others; its card."""
    corpus, rng = Corpus(data), np.random.default_rng(seed)
    heard, labels = [], []
    for label, domain in enumerate(corpus.domains):
        for number, track in enumerate(corpus.select(domain, "train")):
            for sound, right in versions(excerpt(corpus.audio(track)), number, rng):
                heard.append(recogniser.windows(sound, step=2.0))
                labels += [label if right else len(corpus.domains)] * len(heard[-1])
    if len({*labels}) < 3:
        known = max(0, len({*labels}) - 1)
        raise EvaluationError(f"{data} has training tracks of {known} domains; give two")
    heard = np.concatenate(heard)
    mean, scale = heard.mean(axis=0), heard.std(axis=0) + 1e-6
    net = MLPClassifier(
        (recogniser.HIDDEN,), activation="tanh", solver="lbfgs", alpha=2e-3 * len(heard),
        max_iter=300, random_state=seed,
    )  # fmt: skip
    judge = recogniser.Recogniser(
        **weights(net, (heard - mean) / scale, labels, mean, scale), domains=corpus.domains
    )
    tracks = [track for track in corpus.tracks if track.split == "train"]
    card = {
        "what": "names the domain of 2 s of music from cepstrum and course; see umtlib.evaluation",
        "domains": list(judge.domains),
        "trained_on": {
            "tracks": len(tracks),
            "windows": len(heard),
            "seconds": round(sum(track.seconds for track in tracks)),
        },
        "seed": seed,
        "limits": "knows these domains as this corpus renders them, and names the likeliest",
        "held_out": {split: held_out(corpus, judge, split) for split in ("val", "test")},
        "certainty": certainty(corpus, judge),
    }
    return keep(Path(out) / recogniser.WEIGHTS, judge, card)


def versions(clean: Excerpt, number: int, rng: np.random.Generator) -> list[tuple[Excerpt, bool]]:
    """Return a track as it is and with noise, and two counterfeits; and whether each is right."""
    noise = rng.standard_normal(len(clean.waveform), dtype=np.float32)
    gain = np.float32(clean.waveform.std() * 10 ** (rng.uniform(-40, -10) / 20))
    noisy = excerpt(clean.waveform + gain * noise)
    first, second = (clean, noisy) if number % 4 < 2 else (noisy, clean)
    if number % 2:
        other = standins.shuffled(second, rng.uniform(0.03, 0.1))
    else:
        other = standins.fluttering(second, rng.uniform(2, 6), rng.uniform(4, 12))
    return [(clean, True), (noisy, True), (standins.backwards(first), False), (other, False)]


def held_out(corpus: Corpus, judge: recogniser.Recogniser, split: str) -> dict:
    """Measure by window and by track; the tracks' pieces are in no training track."""
    named = {"by_window": [], "by_track": []}
    for domain in corpus.domains:
        for track in corpus.select(domain, split):
            chances = judge.by_window(corpus.audio(track))
            named["by_window"] += [(domain, judge.domains[i]) for i in chances.argmax(axis=1)]
            named["by_track"].append((domain, judge.domains[chances.mean(axis=0).argmax()]))
    return {
        name: recogniser.evaluate([w for w, _ in pairs], [c for _, c in pairs], judge.domains)
        for name, pairs in named.items()
    }


def certainty(corpus: Corpus, judge: recogniser.Recogniser) -> dict:
    """Return the mean probability of the true domain on test tracks as they are, and spoilt."""
    kinds = {"as it is": lambda sound: sound, **standins.IN_TIME, "backwards": standins.backwards}
    found = defaultdict(list)
    for row, domain in enumerate(corpus.domains):
        for track in corpus.select(domain, "test"):
            sound = excerpt(corpus.audio(track))
            for kind, change in kinds.items():
                found[kind].append(float(judge.probabilities(change(sound))[row]))
    return {kind: round(float(np.mean(values)), 3) for kind, values in found.items()}


# --- the transcriber ------------------------------------------------------------------------------

SECONDS = 8.0  # of an example
# General MIDI programs with a pitch, and the MIDI pitches at which FluidR3 sounds all of them.
PROGRAMS = (
    *range(14), *range(15, 20), *range(21, 28), 29, 30, *range(40, 43), 45, 46, *range(48, 55),
    56, 57, *range(59, 65), 66, 68, *range(71, 76), *range(78, 83),
)  # fmt: skip
RANGE = (36, 96)
BESIDE = (-24, -19, -12, -7, -2, -1, 1, 2, 7, 12, 19, 24)  # semitones that are mistaken


def fit_transcriber(
    data: str | os.PathLike, out: str | os.PathLike, *, examples: int = 360, tests: int = 48,
    seed: int = 0,
) -> dict:  # fmt: skip
    """Fit a transcriber to training pieces, measure it on validation pieces; return its card."""
    scores = six_domains.read_scores(Path(data), 1, lambda *_: None)[0]
    cells = [
        chosen(sound, score, np.random.default_rng([seed, number]))
        for number, (sound, score, _) in enumerate(render(scores, "train", examples, seed))
    ]
    net = fit(*(np.concatenate(part) for part in zip(*cells, strict=True)), seed)
    found = defaultdict(list)
    for sound, score, kind in render(scores, "val", tests, seed):
        found[kind].append(notes.note_f(score, net.transcribe(sound)))
    card = {
        "what": "finds the notes in 16 kHz audio; see umtlib.evaluation.transcriber",
        "trained_on": {"pieces": examples, "cells": sum(len(seen) for seen, _ in cells)},
        "seed": seed,
        "note_f": {kind: round(float(np.mean(f)), 3) for kind, f in sorted(found.items())},
    }
    return keep(Path(out) / transcriber.WEIGHTS, net, card, np.float16)


def render(
    scores: Sequence[Score], split: str, number: int, seed: int
) -> Iterator[tuple[Excerpt, list[Note], str]]:
    """Yield sounds, the notes that sound in them, and the domain or ``"any"``."""
    rng, font = np.random.default_rng([seed, len(split)]), instruments.find_soundfont()
    shelves, made = defaultdict(list), 0
    for score in scores:
        if score.split == split:
            shelves[score.collection].append(score)
    while made < number:
        shelf = shelves[str(rng.choice(sorted(shelves)))]
        played = perform(shelf[int(rng.integers(len(shelf)))], rng, SECONDS)
        kind = "any" if made % 2 else instruments.DOMAINS[made // 2 % len(instruments.DOMAINS)]
        if not (parts := played and orchestrated(played.notes, kind, rng)):
            continue
        midi = instruments.to_midi(parts, played.swell)
        sound = excerpt(instruments.finish(instruments.render(midi, font), played.seconds))
        sounding = sorted({(n.onset, n.offset, n.pitch) for part in parts for n in part.notes})
        yield spoilt(sound, rng) if rng.random() < 0.5 else sound, sounding, kind
        made += 1


def orchestrated(played, kind: str, rng: np.random.Generator) -> list[instruments.Part]:
    """Give the lines of a piece to a domain's instruments, or to any."""
    if kind != "any":
        return instruments.orchestrate(kind, played)
    lines, same = sorted({note.line for note in played}), rng.random() < 0.5
    programs = rng.choice(PROGRAMS, size=1 if same else len(lines))
    parts = []
    for line, program in zip(lines, np.resize(programs, len(lines)).tolist(), strict=True):
        own = (n for n in played if n.line == line and RANGE[0] <= n.pitch <= RANGE[1])
        volume, reverb = int(rng.integers(70, 127)), int(rng.integers(0, 90))
        parts.append(instruments.Part(program, volume, reverb, tuple(own)))
    return [part for part in parts if part.notes][:15]


def spoilt(sound: Excerpt, rng: np.random.Generator) -> Excerpt:
    """Colour a sound, add noise, and code it."""
    echo = rng.standard_normal(800) * np.exp(-np.arange(800) / rng.uniform(10, 200))
    echo *= rng.uniform(0, 0.5)
    echo[0] = 1
    wave = np.convolve(sound.waveform, echo)[: len(sound.waveform)]
    noise = wave.std() * 10 ** (rng.uniform(-40, -15) / 20) * rng.standard_normal(len(wave))
    return excerpt(wave + noise).coded


def chosen(
    sound: Excerpt, score: Sequence[Note], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the net sees of some cells, float16, (n, D), and the answers, int8, (n, 2)."""
    frames = 1 + len(sound.waveform) // HOP
    begins, sounds = np.zeros((2, len(PITCHES), frames), bool)
    chance = np.full((len(PITCHES), frames), 0.02)

    def likelier(row, first, last, least):
        part = chance[row, max(first, 0) : last]
        np.maximum(part, least, out=part)

    for onset, end, pitch in score:
        row = int(pitch) - PITCHES[0]
        first, last = (round(time * FRAMES_PER_SECOND) for time in (onset, end))
        if not 0 <= row < len(PITCHES):
            continue
        sounds[row, first : max(last, first + 1)] = True
        begins[row, max(first - 1, 0) : first + 2] = True
        likelier(slice(None), first - 1, first + 3, 0.06)
        likelier(row, first, last, 0.25)
        likelier(row, first - 7, first + 9, 1.0)
        for other in (row + step for step in BESIDE if 0 <= row + step < len(PITCHES)):
            likelier(other, first - 3, first + 5, 0.2)
            likelier(other, first, last, 0.06)
    taken = rng.random(chance.shape) < chance
    cells = zip(transcriber.cells(sound), taken, strict=True)
    seen = [row[own].astype(np.float16) for row, own in cells]
    return np.concatenate(seen), np.stack([begins[taken], sounds[taken]], axis=1).astype(np.int8)


def fit(seen: np.ndarray, wanted: np.ndarray, seed: int = 0) -> transcriber.Transcriber:
    """Fit the net to cells, shape (n, D), and answers, shape (n, 2)."""
    some = seen[:: max(1, len(seen) // 100_000)].astype(np.float32)
    mean, scale = some.mean(axis=0), some.std(axis=0) + 0.1
    inputs = np.empty(seen.shape, np.float32)
    for first in range(0, len(seen), 65_536):
        part = slice(first, first + 65_536)
        inputs[part] = (seen[part] - mean) / scale
    net = MLPClassifier((64,), alpha=1e-3, batch_size=1_024, max_iter=10, random_state=seed)
    return transcriber.Transcriber(**weights(net, inputs, wanted, mean, scale))


if __name__ == "__main__":
    verb, data, out = sys.argv[1:]
    {"recogniser": fit_recogniser, "transcriber": fit_transcriber}[verb](data, out)
