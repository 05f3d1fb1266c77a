"""The rendered corpus: what ships under data/mini, and the way it is made."""

import json
import runpy
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from umtlib.audio import SAMPLE_RATE
from umtlib.corpora import instruments, performing, scores, six_domains
from umtlib.corpora.corpus import SKIPPED, SPLITS, Corpus, sha256
from umtlib.corpora.instruments import DOMAINS, UNSEEN
from umtlib.corpora.pairs import read_pairs
from umtlib.corpora.performing import Note
from umtlib.corpora.planning import plan_pairs
from umtlib.corpora.scores import Score, assign_splits
from umtlib.corpora.whistle import whistle
from umtlib.errors import CorpusError

DATA = Path(__file__).parent.parent / "data"
MINI = DATA / "mini"
needs_fluidsynth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None
    or not any(Path(p).is_file() for p in instruments.SOUNDFONTS),
    reason="fluidsynth or FluidR3 is not installed",
)


def chorale(number: int) -> Score:
    """Return two lines of 48 quarter notes; the number makes it a tune of its own."""
    rng = np.random.default_rng(number)
    top, bass = rng.integers(60, 80, 48), rng.integers(48, 60, 48)
    lines = [[[float(k), 1.0, int(p), 0] for k, p in enumerate(line)] for line in (top, bass)]
    return Score(f"made/{number}", "chorales", "", "", "CC0", lines, [(0.0, 90.0)])


def chorales() -> list[Score]:
    return assign_splits([chorale(number) for number in range(12)])


def cents_off(samples: np.ndarray, hertz: float) -> int:
    """Return by how many cents (of +-90) the best comb of five partials is off `hertz`."""
    spectrum = np.sqrt(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17)))
    cents = np.arange(-90, 91, 2)
    comb = np.outer(np.arange(1, 6), hertz * 2 ** (cents / 1200)) * (1 << 17) / SAMPLE_RATE
    comb = np.where(comb < len(spectrum), spectrum[comb.round().astype(int) % len(spectrum)], 0)
    return int(cents[np.argmax(comb.sum(axis=0))])


# --- what ships


def test_mini_is_whole_and_small():
    corpus = Corpus(MINI)
    assert corpus.domains == tuple(sorted(DOMAINS)) and (MINI / SKIPPED).is_file()
    for track in corpus.tracks:
        info = soundfile.info(MINI / track.file)
        assert sha256(MINI / track.file) == track.sha256
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert track.seconds == info.frames / SAMPLE_RATE
        assert track.source["licence"] and track.source["piece"] and track.source["instruments"]
    assert sum(f.stat().st_size for f in MINI.rglob("*") if f.is_file()) < 12.5e6
    for domain, (split, least) in product(DOMAINS, {"train": 30, "val": 15, "test": 15}.items()):
        assert sum(track.seconds for track in corpus.select(domain, split)) >= least


def test_no_piece_is_in_two_splits():
    found = {(track.source["piece"], track.split) for track in Corpus(MINI).tracks}
    found |= {(pair.piece, "test") for pair in read_pairs(MINI)}
    assert len(found) == len(dict(found))


def test_mini_pairs_are_aligned_and_as_loud():
    pairs = read_pairs(MINI)
    assert {p.source for p in pairs} >= set(DOMAINS) | {"unseen/whistle", "unseen/guitar"}
    for pair in pairs:
        assert set(pair.files) == set(DOMAINS) | {pair.source}
        for name, file in pair.files.items():
            samples = pair.audio(name)
            assert samples.shape == (80_000,) and samples.dtype == np.int16
            assert sha256(MINI / file) == pair.sha256[name]
            assert -27 < 20 * np.log10(np.std(samples / 32768)) < -19
        assert all(0 <= on < off <= pair.seconds for on, off, _ in pair.notes)


def test_mini_melodies_sound_at_their_notes():
    """The longest note of every melody, in every rendering: within half a semitone."""
    melodies = [pair for pair in read_pairs(MINI) if pair.melody]
    assert len(melodies) >= 4
    for pair in melodies:
        onset, offset, pitch = max(pair.notes, key=lambda note: note[1] - note[0])
        for name in pair.files:
            inside = slice(round(onset * SAMPLE_RATE) + 800, round(offset * SAMPLE_RATE))
            cents = cents_off(pair.audio(name)[inside] / 32768, 440 * 2 ** ((pitch - 69) / 12))
            assert abs(cents) < 50, (pair.id, name, cents)


# --- how it is planned


def test_a_score_is_parsed_once_or_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "_parse", Mock(side_effect=[ValueError("no"), chorale(1)]))
    entry = ("chorales", "made/1.xml")
    line, parsed, kept = (scores.read_score(tmp_path, tmp_path, entry) for _ in range(3))
    assert line == {"piece": "made/1.xml", "files": 1, "reason": "music21 cannot read it: no"}
    assert parsed.lines == kept.lines == chorale(1).lines


def test_splits_keep_a_tune_together():
    tunes = [replace(chorale(number % 24), piece=f"made/{number}") for number in range(48)]
    splits = [score.split for score in assign_splits(tunes)]
    assert splits[:24] == splits[24:] and [splits.count(s) for s in SPLITS] == [40, 4, 4]


def test_a_performance_follows_from_its_generator():
    one, same, other = (
        performing.perform(chorale(1), np.random.default_rng(seed), 10.0) for seed in (5, 5, 6)
    )
    assert one == same != other


@pytest.mark.parametrize("texture, lines", [
    ("full", {0, 1}), ("two", {0, 1}), ("solo", {0}), ("octave", {0})
])  # fmt: skip
def test_textures(texture, lines):
    played = performing.perform(chorale(2), np.random.default_rng(0), 10.0, texture=texture)
    assert {note.line for note in played.notes} == lines and 8 < played.seconds <= 10


def test_long_rests_are_closed():
    score = replace(chorale(3), lines=[[[20.0 * k, 1.0, 60 + k, 0] for k in range(30)]])
    played = performing.perform(score, np.random.default_rng(0), 20.0)
    gaps = [b.onset - a.offset for a, b in zip(played.notes, played.notes[1:], strict=False)]
    assert max(gaps) < 1.0


@pytest.mark.parametrize("domain", [*DOMAINS, *(f"unseen/{name}" for name in UNSEEN)])
def test_instruments_stay_in_their_ranges(domain):
    notes = [Note(line, 0.0, 1.0, pitch, 80) for line, pitch in enumerate((112, 67, 50, 10))]
    for part in instruments.orchestrate(domain, notes, np.random.default_rng(1)):
        low, high = instruments.RANGES[part.program]
        assert all(low <= note.pitch <= high for note in part.notes)
    assert not instruments.plays_as_written(domain, notes)
    assert instruments.plays_as_written(domain, notes[1:2])


def test_pairs_are_played_as_written_in_every_domain():
    size = six_domains.Size({}, {}, pairs=5, unseen=7, suffix="")
    takes = plan_pairs(chorales(), size, 0)
    assert len(takes) == 37 and len({take.id for take in takes}) == 37
    for take, domain in product(takes, DOMAINS):
        assert instruments.plays_as_written(domain, take.performance.notes), (take.id, domain)


# --- how it sounds


@needs_fluidsynth
@pytest.mark.parametrize("domain", DOMAINS)
def test_a4_is_440_hertz(domain):
    """Within 20 cents: vibrato, and a section or choir that is not quite in tune, are inside."""
    parts = instruments.orchestrate(domain, [Note(0, 0.05, 2.0, 69, 80)])
    samples = instruments.render(instruments.to_midi(parts), instruments.find_soundfont())
    assert abs(cents_off(samples[6000:30000], 440)) < 20


@pytest.mark.slow
@needs_fluidsynth
def test_same_corpus_with_one_worker_or_two(tmp_path, monkeypatch):
    plan = six_domains.plan_tracks  # two domains are enough here
    monkeypatch.setattr(
        six_domains, "plan_tracks", lambda *args: plan(*args) if args[1] in DOMAINS[1:3] else []
    )
    short, length = dict.fromkeys(SPLITS, 1), dict.fromkeys(SPLITS, (4, 5))
    size = six_domains.Size(short, length, pairs=0, unseen=1, suffix=".flac")
    monkeypatch.setattr(six_domains, "MINI", size)
    monkeypatch.setattr(six_domains, "read_scores", lambda *_: (chorales(), []))
    seen = []
    for workers in (1, 2):
        six_domains.build(
            tmp_path / str(workers), mini=True, workers=workers, progress=lambda *s: seen.append(s)
        )
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "1", tmp_path / "2")
    )
    assert one == two and not [name for name in one if name.suffix == ".part"]
    corpus = Corpus(tmp_path / "1")
    assert len({(t.domain, t.split) for t in corpus.tracks}) == 6
    assert ("tracks", len(corpus.tracks), len(corpus.tracks)) in seen
    for track in corpus.tracks:  # low bits are clear in FLAC
        assert np.gcd.reduce(corpus.audio(track)[4_096:8_192].astype(int)) > 1


@pytest.mark.parametrize("program, package", [
    (None, "fluidsynth"), ("/usr/bin/fluidsynth", "fluid-soundfont-gm")
])  # fmt: skip
def test_what_is_missing_is_named_by_its_package(monkeypatch, tmp_path, program, package):
    monkeypatch.setattr(shutil, "which", lambda name: program)
    monkeypatch.setattr(instruments, "SOUNDFONTS", (str(tmp_path / "none.sf2"),))
    with pytest.raises(CorpusError, match=f"apt-get install {package}'"):
        six_domains.build(tmp_path)


def test_finish_keeps_level_and_ceiling():
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    steady = instruments.finish(0.01 * np.sin(2764.6 * t), 0.4) / 32768
    assert np.std(steady) == pytest.approx(0.1, rel=0.02)
    click = np.where(t < 0.001, 1.0, 1e-3)
    assert np.abs(instruments.finish(click, 1.0, exact=True)).max() == round(0.891251 * 32767)
    with pytest.raises(CorpusError, match="silence"):
        instruments.finish(np.zeros(100), 0.1)


# --- the whistle


def test_whistle_follows_its_notes():
    song = [(0.1, 0.9, 81), (0.9, 1.8, 84), (2.0, 2.9, 77)]
    samples = whistle(song, 3.0, np.random.default_rng(3))
    assert samples.shape == (48_000,)
    for onset, offset, pitch in song:
        held = samples[round((onset + 0.1) * SAMPLE_RATE) : round(offset * SAMPLE_RATE)]
        assert abs(cents_off(held, 440 * 2 ** ((pitch - 69) / 12))) < 30


def test_whistle_example_is_what_its_script_writes(tmp_path):
    """To one unit of 16 bits: sines may differ in the last place from one CPU to another."""
    runpy.run_path(str(DATA / "examples/render.py"))["write_example"](tmp_path)
    shipped, _ = soundfile.read(DATA / "examples/whistle.wav", dtype="int16")
    made, rate = soundfile.read(tmp_path / "whistle.wav", dtype="int16")
    assert rate == SAMPLE_RATE and 5 < len(made) / rate < 7
    assert np.abs(shipped.astype(int) - made).max() <= 1
    notes = json.loads((DATA / "examples/whistle.json").read_text())["notes"]
    assert all(690 < 440 * 2 ** ((pitch - 69) / 12) < 1200 for _, _, pitch in notes)
