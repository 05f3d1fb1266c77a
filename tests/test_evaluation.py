"""Each measure four times (perfect, empty, bad, golden), and what it must tell apart."""

import json
from pathlib import Path

import fit_listeners as fit
import make_evaluation as golden
import numpy as np
import pytest
import torch

from umtlib import files
from umtlib.corpora.pairs import read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    dynamics,
    features,
    frechet,
    latent,
    listening,
    notes,
    nsynth,
    pitch,
    recogniser,
    report,
    standins,
    stimuli,
    tables,
    transcriber,
    translations,
    truth,
)

ROOT = Path(__file__).parents[1]
PAIRS = read_pairs(ROOT / "data" / "mini")

RNG = np.random.default_rng(0)
NOTHING, CONTOUR, POINTS = np.zeros(0), RNG.normal(size=60), RNG.normal(size=(50, 4))
LATENTS, LABELS = RNG.normal(size=(400, 3, 4)), np.arange(400) % 4
TOLD = LATENTS + 5 * LABELS[:, None, None] * np.array([1, 0, 0])[:, None]  # the label is in it
SCORE = golden.SCORE
MELODY = features.excerpt(golden.play(SCORE))
SILENT, PAUSED = np.zeros(len(MELODY.waveform)), np.pad(MELODY.waveform, (0, 9_999))
JUDGE = recogniser.load()
CELLS = notes.roll(golden.CHORDS, 125)
ONE_SCORE = golden.ratings(np.random.default_rng(0), sizes=(0, 0, 0))
ORGAN, PIANO = (PAIRS[0].audio(name)[:32_000] for name in ("bach_organ", "beethoven_piano"))
HERTZ = np.zeros(125)
for _onset, _offset, _number in SCORE:
    HERTZ[round(_onset * 62.5) : round(_offset * 62.5)] = 440 * 2 ** ((_number - 69) / 12)


def answers(right, given):
    return [{"domain": a, "answer": b} for a, b in zip(right, given, strict=True)]


def test_golden_numbers():
    """Within 2 %: other versions of librosa and of the FFT may round differently."""
    found, wanted = golden.compute(), json.loads(golden.PATH.read_text(encoding="utf-8"))
    assert found.keys() == wanted.keys()
    wrong = {k: v for k, v in wanted.items() if found[k] != pytest.approx(v, rel=0.02, abs=0.01)}
    assert wrong == {}
    measured = {name.rpartition("/")[2] for name in wanted}
    for module in (pitch, notes, truth, dynamics, nsynth):
        assert measured >= {*module.METRICS}


PERFECT = {
    "pitch": (lambda: pitch.evaluate(MELODY, MELODY.waveform, True),
              dict.fromkeys(pitch.METRICS, 1)),
    "pitch, shifted": (lambda: pitch.best_shift_correlation(CONTOUR[10:], CONTOUR[:-10]), 1),
    "pitch, shifted back": (lambda: pitch.best_shift_correlation(CONTOUR[:-10], CONTOUR[10:]), 1),
    "pitch, slower": (lambda: pitch.warped_correlation(CONTOUR, CONTOUR.repeat(2)), 1),
    "note_f": (lambda: notes.note_f(golden.CHORDS, golden.CHORDS), 1),
    "frame_f": (lambda: notes.frame_f(CELLS, CELLS), 1),
    "roll": (lambda: np.argwhere(notes.roll([(0.016, 0.048, 60)], 9)),
             np.array([[60, 1], [60, 2]])),
    "melody": (lambda: notes.melody_accuracy(SCORE, HERTZ), (1, 1)),
    "melody, an octave up": (lambda: notes.melody_accuracy(SCORE, 2 * HERTZ), (0, 1)),
    "truth": (lambda: truth.evaluate(MELODY, MELODY.waveform, JUDGE),
              {"log_mel": 0, "timbre": 0, "chroma_cosine": 1}),
    "a pause": (lambda: truth.evaluate(PAUSED, PAUSED, None)["chroma_cosine"], 1),
    # A row for each of what was made, in the order of the truths.
    "timbre table": (lambda: truth.timbre_table(
        {"organ": ORGAN, "piano": PIANO}, {"piano": PIANO, "organ": ORGAN}, JUDGE) > 1,
        np.array([[False, True], [True, False]])),
    "timbre table, the piano twice": (lambda: truth.timbre_table(
        {"organ": ORGAN, "piano": PIANO}, {"organ": PIANO, "piano": PIANO}, JUDGE) > 1,
        np.array([[True, False], [True, False]])),
    "onset_f": (lambda: dynamics.onset_f(*[dynamics.beginnings(SCORE)] * 2), 1),
    "level_corr": (lambda: dynamics.evaluate(MELODY, MELODY, None)["level_corr"], 1),
    "confusion": (lambda: recogniser.confusion("aab", "abb", "abc"),
                  np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])),
    "frechet": (lambda: frechet.frechet_distance(POINTS, POINTS), 0),
    "frechet, shifted": (lambda: frechet.frechet_distance(POINTS, POINTS + 2), 16),  # 4 x 2 squared
    "frechet, scaled": (lambda: frechet.frechet_distance(POINTS, 3 * POINTS - 2 * POINTS.mean(0)),
                        4 * POINTS.var(axis=0, ddof=1).sum()),  # (3 - 1) squared
    "tune": (lambda: pitch.tune(np.array([0.0, 220, 880, 0])), np.array([0, -12, 12, 0])),
    "probe": (lambda: latent.probe(TOLD[:200], LABELS[:200], TOLD[200:], LABELS[200:]), 1),
    "spread": (lambda: latent.spread(range(5), 2), [0, 2]),
    "spread, few": (lambda: latent.spread(range(5), 9), [0, 1, 2, 3, 4]),
    "threshold": (lambda: latent.best_threshold(np.arange(6)[None], np.arange(6)[None] > 2), 3),
    "nsynth": (lambda: nsynth.agreement(POINTS, 3 * POINTS)["nearest"], 1),
    "creativity": (lambda: blending.creativity(*[MELODY] * 3), {"kept": 1, "agreed": 1}),
    "opinion": (lambda: [listening.opinion(ONE_SCORE)[k] for k in ("mean", "sd", "interval")],
                [3, 0, 0]),
    "lineup": (lambda: [listening.lineup(answers("abcd", "abcd"), "abcd")[k]
                        for k in ("diagonal", "right", "chance", "p")], [1, 4, 0.25, 0.25**4]),
}  # fmt: skip

EMPTY = {
    "pitch of silence": (lambda: {*pitch.evaluate(MELODY, SILENT, True).values()}, {0.0}),
    "pitch against silence": (lambda: {*pitch.evaluate(SILENT, MELODY, True).values()}, {0.0}),
    "notes of silence": (lambda: {*notes.evaluate(SCORE, SILENT, True).values()}, {0.0}),
    "note_f": (lambda: [notes.note_f([], []), notes.note_f(SCORE, []), notes.note_f([], SCORE)],
               [1, 0, 0]),
    "chroma_cosine": (lambda: truth.evaluate(SILENT, MELODY, None)["chroma_cosine"], 0),
    "truth of nothing": (lambda: truth.evaluate(NOTHING, NOTHING, JUDGE)["log_mel"], 0),
    "time of silence": (lambda: [dynamics.evaluate(MELODY, SILENT, SCORE)[k] for k in
                                 ("attack", "onsets", "onset_f", "level_corr")], [None, 0, 0, 0]),
    "time, unknown": (lambda: [dynamics.evaluate(None, MELODY, None)[k] for k in
                               ("onset_f", "onset_f_truth", "decay", "level_corr")], [None] * 4),
    "time of one breath": (lambda: [dynamics.evaluate(None, MELODY, [(1.99, 2, 60)])[k] for k in
                                    ("decay", "flutter")], [None, None]),
    "recogniser": (lambda: recogniser.evaluate([], [], "ab")["accuracy"], None),
    "embedding": (lambda: JUDGE.embed(NOTHING).shape, (1, recogniser.HIDDEN)),
    "frechet": (lambda: frechet.evaluate(POINTS, POINTS[:1])["distance"], None),
    "seam": (lambda: blending.evaluate(SILENT, 0.5, 1)["seam"], 0),
    "opinion of one": (lambda: listening.opinion(ONE_SCORE[:10])["interval"], None),
}  # fmt: skip

HELD = features.excerpt(golden.play([(0.0, 2, 60)], fade=0))
TWO = [(0.05, 1, 60), (1, 2, 64)]
LONG = golden.play([(0, 4, 60)], 4.0, fade=0.1)
CUT = np.concatenate([LONG[:32_000], golden.play([(0, 4, 66)], 4.0, (0.3, 1, 1), 0.1)[32_000:]])
SCALE = golden.play([(i * 0.25, i * 0.25 + 0.24, 60 + i % 5) for i in range(16)], 4.0)
LOWER = golden.play([(a, b, number - 12) for a, b, number in SCORE])
OTHER = golden.play(golden.OTHER)
UNRELATED = nsynth.agreement(*(20 + np.random.default_rng(0).normal(size=(2, 24, 8))))


def treble(sound):
    """Return the share of the power above 1.5 kHz."""
    power, hertz = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(len(sound), 1 / 16_000)
    return power[hertz > 1_500].sum() / power.sum()


WITHIN = {  # what a measure tells of, and the least and the most that it says
    "gain": (lambda: truth.evaluate(MELODY, MELODY.waveform / 20, None)["log_mel"], 0, 1e-3),
    "a few samples less": (lambda: pitch.evaluate(MELODY, MELODY.waveform[:-500])["ncc"], 0.99, 1),
    "int16": (lambda: truth.evaluate(MELODY, np.rint(golden.play(SCORE) * 32_768).astype(np.int16),
                                     None)["log_mel"], 0, 0.05),
    "a shift beyond the limit": (lambda: pitch.best_shift_correlation(CONTOUR[11:], CONTOUR[:-11]),
                                 -1, 0.5),
    # In semitones from the mean; in Hz it would have moves half as large.
    "pyin_ncc, an octave lower": (lambda: pitch.evaluate(MELODY, LOWER, True)["pyin_ncc"], 0.95, 1),
    # Amplitude exp(-fade * t) loses 8.7 dB a second for each unit of `fade`.
    **{f"decay, fade {fade}": (
        lambda fade=fade: dynamics.evaluate(None, golden.play(TWO, fade=fade), TWO)["decay"],
        -20 / np.log(10) * fade - 0.7, -20 / np.log(10) * fade + 0.7) for fade in (0, 1, 3)},
    "attack": (lambda: dynamics.evaluate(None, golden.play(TWO), TWO)["attack"], 4, 20),
    "flutter of none": (lambda: dynamics.evaluate(None, HELD, [(0, 2, 60)])["flutter"], 0, 0.1),
    "flutter of 3 dB": (lambda: dynamics.evaluate(None, standins.fluttering(HELD), [(0, 2, 60)])[
        "flutter"] * np.sqrt(2), 2.55, 3.45),  # a sine's rms
    "a probe for nothing": (lambda: latent.probe(LATENTS[:200], LABELS[:200], LATENTS[200:],
                                                 LABELS[200:]), 0, 0.4),  # chance: .25
    "labels": (lambda: ((latent.linear(POINTS, POINTS[:, :2] > 0).predict_proba(POINTS) > 0.5)
                        == (POINTS[:, :2] > 0)).mean(), 0.95, 1),
    # Of unrelated embeddings with a common part the paper's number is high, the centred one not.
    "diagonal": (lambda: UNRELATED["diagonal"], 0.99, 1),
    "diagonal_centred": (lambda: UNRELATED["diagonal_centred"], -0.3, 0.3),
    "seam of a cut": (lambda: blending.evaluate(CUT, 1.5, 2.5)["seam"], 3, np.inf),
    "seam of music": (lambda: blending.evaluate(SCALE, 1.5, 2.5)["seam"], 0, 1.5),
    "kept": (lambda: blending.creativity(MELODY, OTHER, OTHER)["kept"], -1, 0.2),
    "agreed": (lambda: blending.creativity(MELODY, OTHER, OTHER)["agreed"], 0.999, 1),
    "low anchor": (lambda: treble(stimuli.low(MELODY.waveform)), 0, 1e-4),
    "certainty of the recogniser": (lambda: JUDGE.probabilities(MELODY).sum(), 0, 1 + 1e-5),
}  # fmt: skip

BAD = {
    "two channels": lambda: features.excerpt(np.zeros((2, 100))),
    "waveform of NaN": lambda: features.excerpt(np.array([0.0, np.nan])),
    "waveform of integers": lambda: features.excerpt(np.zeros(9, int)),
    "lengths": lambda: pitch.evaluate(MELODY, MELODY.waveform[:-2_000]),
    "long blend": lambda: blending.blend(torch.zeros(1, 2, 9), torch.ones(1, 2, 9), 10),
    "no translation": lambda: report.measure(PAIRS[:1], ("bach_organ",), {}, None, JUDGE),
    "no excerpts": lambda: translations.choose([], None),
}


@pytest.mark.parametrize("name", PERFECT)
def test_perfect_input(name):
    measure, wanted = PERFECT[name]
    assert measure() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", EMPTY)
def test_empty_input_is_defined(name):
    measure, wanted = EMPTY[name]
    assert measure() == wanted


@pytest.mark.parametrize("name", WITHIN)
def test_a_measure_tells_what_it_is_for(name):
    measure, least, most = WITHIN[name]
    assert least <= measure() <= most


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    with pytest.raises(EvaluationError):
        BAD[name]()


@pytest.mark.parametrize(("domain", "least"), [("beethoven_piano", 0.8), ("haydn_quartet", 0.65)])
def test_the_transcriber_finds_most_notes(domain, least):
    """The ceiling of `note_f` leaves room; another piece's notes are not found."""
    pairs = PAIRS[::3]
    found = [notes.transcribe(pair.audio(domain)) for pair in pairs]
    for turn, fits in ((0, lambda f: f > least), (1, lambda f: f < 0.15)):
        heard = found[turn:] + found[:turn]
        assert fits(np.mean([notes.note_f(p.notes, h) for p, h in zip(pairs, heard, strict=True)]))


def test_a_chord_begins_once():
    chord = [(0.50, 1, 60), (0.53, 1, 64), (1.2, 2, 60)]
    assert dynamics.beginnings(chord).tolist() == [0.5, 1.2]
    assert dynamics.gaps(chord, 180) == [slice(55, 100), slice(125, 170)]


@pytest.mark.parametrize("domain", JUDGE.domains)
def test_the_recogniser_hears_time(domain):
    """A true rendering that is spoilt in time is no longer taken for the domain's."""

    def certainty(sounds):
        return np.mean([JUDGE.probabilities(x)[JUDGE.domains.index(domain)] for x in sounds])

    true = [features.excerpt(pair.audio(domain)) for pair in PAIRS[::4]]
    clear = certainty(true)
    for spoilt in (standins.fluttering, standins.shuffled, standins.backwards):
        assert certainty(map(spoilt, true)) < 0.5 * clear, spoilt


def test_of_velocities_the_nearest_to_100_is_taken(tmp_path):
    for velocity in (25, 90, 127):
        (tmp_path / f"flute_acoustic_001-060-{velocity:03d}.wav").touch()
    [notes_of_one] = nsynth.find_notes(tmp_path).values()
    assert notes_of_one[60].name.endswith("-090.wav")


def test_matrices_stand_beside_their_names():
    first, second = POINTS[:3], POINTS[3:6]
    axes = nsynth.plot([60, 62, 64], {"one": first, "two": second}).axes[1]
    assert axes.get_title() == "two"
    assert np.allclose(axes.images[0].get_array(), nsynth.cosines(first, second))


def test_blend_ramps_from_one_latent_to_the_other():
    one, two = torch.full((1, 2, 100), 4.0), torch.ones(1, 2, 100)
    mixed = blending.blend(one, two, 30)
    assert mixed.shape == (1, 2, 170)
    assert mixed[0, 0, :70].min() == 4 and mixed[0, 0, 100:].max() == 1
    assert torch.allclose(mixed[0, 0, 70:100].diff(), torch.tensor(-3 / 30), atol=1e-5)


# --- fitting those who listen ---------------------------------------------------------------------


def test_a_transcriber_can_be_fitted():
    """Where the first input is positive a note begins, where the second is one sounds."""
    seen = np.random.default_rng(0).normal(size=(20_000, 6)).astype(np.float16)
    found = fit.fit(seen, (seen[:, :2] > 0).astype(np.int8))
    told = found.answers(seen[:500].astype(np.float32)) > 0.5
    assert (told == (seen[:500, :2] > 0).T).mean() > 0.95


def test_the_cells_of_a_note():
    seen, told = fit.chosen(MELODY, SCORE, np.random.default_rng(0))
    assert len(seen) == len(told)
    assert told[:, 0].sum() == 3 * len(SCORE)  # a beginning has three frames
    assert seen.shape[1] == transcriber.load().mean.size
    assert len(list(transcriber.cells(MELODY))) == len(transcriber.PITCHES)


# --- listening tests ------------------------------------------------------------------------------


# Raters, clips, standard deviations of the two and of the rest; the part of the ratings there is;
# the least and the most that the interval may cover, the most that the naive one may.
DESIGNS = {
    "a third is missing": ((12, 15, (0.3, 0.4, 0.5)), 0.67, 0.92, 0.99, 0.85),
    "whole numbers, most missing": ((30, 20, (0.4, 0.4, 0.8)), 0.15, 0.92, 0.99, 0.85),
    "few clips": ((20, 5, (0.3, 0.4, 0.5)), 1.0, 0.92, 0.99, 0.85),
    "nobody differs": ((8, 8, (0.0, 0.0, 0.5)), 1.0, 0.92, 0.99, 1),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_interval_covers_at_its_rate(design):
    """Of 400 simulations of a test whose truth is 3; the standard error of .95 is .011."""
    rng, (sizes, part, least, most, naive) = np.random.default_rng(1), DESIGNS[design]
    inside = []
    for _ in range(400):
        ratings = golden.ratings(rng, *sizes)
        kept = [ratings[i] for i in rng.permutation(len(ratings))[: round(part * len(ratings))]]
        if design.startswith("whole"):
            kept = [rating | {"score": float(round(rating["score"]))} for rating in kept]
        found = listening.opinion(kept)
        inside.append([abs(found["mean"] - 3) <= found[name] for name in ("interval", "naive")])
    crossed, plain = np.mean(inside, axis=0)
    assert least <= crossed <= most and plain <= naive


def test_screening_finds_those_who_do_not_listen():
    ratings = golden.ratings(np.random.default_rng(0), sizes=(0.2, 0.8, 0.3))
    reverse = [{**r, "rater": "contrary", "score": 6 - r["score"]} for r in ratings[:10]]
    reverse.append(reverse[0] | {"clip": "of nobody else"})
    bored = [{**r, "rater": "bored", "score": 3.0} for r in ratings[:10]]
    found = listening.evaluate(ratings + reverse + bored)
    assert found["screened"] == ["bored", "contrary"]
    assert found["systems"]["a"]["n"] == len(ratings)
    hasty = [{**rating, "rater": "hasty", "score": 1.0} for rating in ratings[:2]]
    unanimous = [{**rating, "score": 5.0} for rating in ratings]
    alone = [{**rating, "rater": "only one"} for rating in ratings]
    for kept in (ratings + hasty, unanimous, alone):  # cannot be judged
        assert listening.screen(kept) == []


def test_groups_make_a_table_like_the_papers():
    ratings = golden.ratings(np.random.default_rng(0), sizes=(0.2, 0.8, 0.3))
    grouped = [{**rating, "group": f"g{rating['clip'][1:] < '5'}"} for rating in ratings]
    found = listening.evaluate(grouped)
    parts = [found["groups"][name]["a"] for name in ("gFalse", "gTrue")]
    assert sum(part["n"] for part in parts) == found["systems"]["a"]["n"] == len(ratings)
    cells = " | ".join(f"{part['mean']:.2f}±{part['sd']:.2f}" for part in parts)
    assert f"| a | {cells} |" in tables.opinion(found)
    assert tables.markdown(["a|b"], [[0.12345], [None]]).split("\n")[::3] == [r"| a\|b |", "| - |"]
    assert listening.evaluate(grouped[1:] + ratings[:1])["groups"] == {}  # one has none


def test_a_folder_that_a_killed_run_began_is_made_anew(tmp_path):
    (tmp_path / "out.part" / "of a run that was killed").mkdir(parents=True)
    with files.new_folder(tmp_path / "out", EvaluationError) as part:
        (part / "file").touch()
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]
    below = files.new_folder(tmp_path / "out" / "file" / "x", EvaluationError)
    with pytest.raises(EvaluationError, match="cannot write"), below:
        pass
