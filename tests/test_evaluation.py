"""Each metric four times: perfect input, empty input, bad input, golden numbers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from umtlib import audio
from umtlib.corpora.pairs import read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    dynamics,
    features,
    frechet,
    latent,
    linear,
    listening,
    notes,
    nsynth,
    pitch,
    recogniser,
    standins,
    stimuli,
    tables,
    transcriber,
    transcriber_training,
    transcription,
    truth,
)
from umtlib.evaluation.folder import new_folder

_spec = importlib.util.spec_from_file_location(
    "make_evaluation", Path(__file__).parent / "golden" / "make_evaluation.py"
)
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

NOTHING = np.zeros(0)
MINI = Path(__file__).parents[1] / "data" / "mini"


@pytest.fixture(scope="module")
def judge():
    return recogniser.load()


@pytest.fixture(scope="module")
def melody():
    return features.excerpt(golden.play(golden.SCORE))


def test_golden_numbers():
    """Within 2 %: other versions of librosa and of the FFT may round differently."""

    def compare(found, wanted, where):
        if isinstance(wanted, dict):
            assert found.keys() == wanted.keys(), where
            for key in wanted:
                compare(found[key], wanted[key], f"{where}.{key}")
        elif wanted is not None:
            assert np.array(found) == pytest.approx(np.array(wanted), rel=0.02, abs=0.01), where

    compare(golden.compute(), json.loads(golden.PATH.read_text(encoding="utf-8")), "golden")


# Excerpts.


def test_gain_does_not_matter(melody):
    quiet = features.excerpt(melody.waveform * np.float32(0.05))
    np.testing.assert_allclose(quiet.log_mel, melody.log_mel, atol=1e-3)


def test_int16_is_understood():
    sound = golden.play(golden.SCORE)
    same = features.excerpt(np.rint(sound * 32_768).astype(np.int16))
    # 16-bit rounding: half a step, raised by the levelling.
    np.testing.assert_allclose(same.waveform, features.excerpt(sound).waveform, atol=2e-4)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 100)), np.array([0.0, np.nan]), np.zeros(9, int), np.array(["a"])]
)
def test_bad_waveform(bad):
    with pytest.raises(EvaluationError):
        features.excerpt(bad)


def test_lengths_must_agree(melody):
    with pytest.raises(EvaluationError, match="cut them alike"):
        pitch.evaluate(melody, melody.waveform[:-2_000])


# Pitch.


def test_pitch_of_a_copy(melody):
    found = pitch.evaluate(melody, melody.waveform, melody=True)
    assert found == pytest.approx(dict.fromkeys(pitch.METRICS, 1))


def test_pitch_of_silence_and_of_nothing(melody):
    silent = np.zeros(len(melody.waveform))
    assert set(pitch.evaluate(melody, silent, melody=True).values()) == {0.0}
    assert set(pitch.evaluate(silent, melody, melody=True).values()) == {0.0}
    assert set(pitch.evaluate(NOTHING, NOTHING, melody=True).values()) == {0.0}
    assert pitch.best_shift_correlation(NOTHING, NOTHING) == 0
    assert pitch.warped_correlation(NOTHING, np.ones(3)) == 0


def test_shift_is_found_up_to_its_limit():
    contour = np.random.default_rng(0).normal(size=60)
    assert pitch.best_shift_correlation(contour[10:], contour[:-10]) == pytest.approx(1)
    assert pitch.best_shift_correlation(contour[:-10], contour[10:]) == pytest.approx(1)
    assert pitch.best_shift_correlation(contour[11:], contour[:-11]) < 0.5


def test_warping_undoes_a_change_of_tempo():
    contour = np.repeat(np.random.default_rng(0).normal(size=20), 2)
    assert pitch.warped_correlation(contour, np.repeat(contour, 2)) == pytest.approx(1)


def test_uncentred_correlation_flatters_other_notes(melody):
    found = pitch.evaluate(melody, golden.play(golden.OTHER))
    assert found["ncc"] > 0.95 > 0.65 > found["ncc_centred"]
    assert found["chroma"] < 0.2


def test_an_octave_lower_is_the_same_tune(melody):
    """In semitones from the mean; in Hz it would have moves half as large."""
    lower = golden.play([(a, b, number - 12) for a, b, number in golden.SCORE])
    found = pitch.evaluate(melody, lower, melody=True)
    assert min(found["pyin_ncc"], found["pyin_dtw"]) > 0.95
    other = pitch.evaluate(melody, golden.play(golden.OTHER), melody=True)
    assert other["pyin_ncc"] < 0.6


def test_a_tune_is_measured_from_its_own_mean():
    found = pitch.tune(np.array([0.0, 220.0, 880.0, 0.0]))
    np.testing.assert_allclose(found, [0, -12, 12, 0])
    assert not pitch.tune(np.zeros(3)).any()
    assert pitch.tune(NOTHING).shape == (0,)


def test_bad_contours():
    with pytest.raises(EvaluationError):
        pitch.warped_correlation(np.ones((2, 2)), np.ones(2))
    with pytest.raises(EvaluationError):
        pitch.best_shift_correlation(np.array([np.inf]), np.ones(1))
    with pytest.raises(EvaluationError):
        pitch.chroma_correlation(np.ones((3, 4)), np.ones((3, 4)), np.ones(4, bool))


# Notes.


def test_notes_of_a_clean_rendering(melody):
    found = notes.evaluate(golden.SCORE, melody, melody=True)
    assert found["note_f"] == 1
    assert min(found["frame_f"], found["melody"], found["melody_chroma"]) > 0.85


def test_a_perfect_transcription():
    cells = notes.roll(golden.CHORDS, 125)
    assert notes.note_f(golden.CHORDS, golden.CHORDS) == 1
    assert notes.frame_f(cells, cells) == 1
    assert cells.sum() == sum(round(b * 62.5) - round(a * 62.5) for a, b, _ in golden.CHORDS)


def test_an_octave_off_is_right_for_chroma_only():
    hertz = np.zeros(125)
    for onset, offset, number in golden.SCORE:
        hertz[round(onset * 62.5) : round(offset * 62.5)] = 880 * 2 ** ((number - 69) / 12)
    assert notes.melody_accuracy(golden.SCORE, hertz) == (0, 1)
    assert notes.melody_accuracy(golden.SCORE, hertz / 2) == (1, 1)


def test_notes_of_nothing():
    assert notes.transcribe(NOTHING) == []
    assert notes.note_f([], []) == 1
    assert notes.note_f(golden.SCORE, []) == notes.note_f([], golden.SCORE) == 0
    assert notes.frame_f(np.zeros((128, 0), bool), np.zeros((128, 0), bool)) == 1
    assert notes.melody_accuracy([], np.ones(5)) == notes.melody_accuracy([], NOTHING) == (0, 0)
    assert set(notes.evaluate(golden.SCORE, NOTHING, melody=True).values()) == {0.0}


@pytest.mark.parametrize("note", [(1, 0.5, 60), (0, 1, 128), (0, 1), (-1, 1, 60)])
def test_bad_notes(note):
    with pytest.raises(EvaluationError):
        notes.evaluate([note], NOTHING)
    with pytest.raises(EvaluationError):
        notes.frame_f(np.zeros((128, 2)), np.zeros((128, 3)))


@pytest.mark.parametrize(("domain", "least"), [("beethoven_piano", 0.8), ("haydn_quartet", 0.65)])
def test_the_transcriber_finds_most_notes(domain, least):
    """The ceiling of `note_f` leaves room; another piece's notes are not found."""
    pairs = read_pairs(MINI)[::3]
    found = [notes.transcribe(pair.audio(domain)) for pair in pairs]
    right = [notes.note_f(pair.notes, heard) for pair, heard in zip(pairs, found, strict=True)]
    others = found[1:] + found[:1]
    wrong = [notes.note_f(pair.notes, heard) for pair, heard in zip(pairs, others, strict=True)]
    assert np.mean(right) > least
    assert np.mean(wrong) < 0.15


def test_a_transcriber_can_be_fitted():
    """Where the first input is positive a note begins, where the second is one sounds."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(20_000, 6)).astype(np.float16)
    found = transcriber_training.fit(seen, (seen[:, :2] > 0).astype(np.int8))
    answers = found._look(seen[:500].astype(np.float32)) > 0.5
    assert (answers == (seen[:500, :2] > 0).T).mean() > 0.95


def test_the_cells_of_a_note(melody):
    seen, answers = transcriber_training._chosen(melody, golden.SCORE, np.random.default_rng(0))
    assert len(seen) == len(answers)
    assert answers[:, 0].sum() == 3 * len(golden.SCORE)  # a beginning has three frames
    assert seen.shape[1] == transcriber.load().mean.size
    assert len(list(transcriber.cells(melody))) == len(transcriber.PITCHES)


def test_no_transcriber(tmp_path):
    with pytest.raises(EvaluationError, match="no transcriber"):
        transcriber.load(tmp_path)


# Truth.


def test_truth_of_a_copy(melody, judge):
    found = truth.evaluate(melody, melody.waveform, judge)
    assert found == pytest.approx({"log_mel": 0, "timbre": 0, "chroma_cosine": 1}, abs=1e-6)


def test_truth_of_nothing(judge):
    assert truth.spectral_distance(np.zeros((64, 0)), np.zeros((64, 0))) == 0
    assert truth.timbre_distance(np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert truth.timbre_distance(np.zeros((0, 3)), np.zeros((1, 3))) == np.inf
    assert truth.chroma_cosine(np.ones((12, 2)), np.ones((12, 2)), np.zeros(2, bool)) == 0
    assert truth.evaluate(NOTHING, NOTHING, judge)["log_mel"] == 0


def test_bad_truth():
    for a, b in [(np.ones(3), np.ones(3)), (np.ones((2, 3)), np.ones((2, 4)))]:
        with pytest.raises(EvaluationError):
            truth.spectral_distance(a, b)
    with pytest.raises(EvaluationError):
        truth.spectral_distance(np.array([[np.nan]]), np.ones((1, 1)))
    with pytest.raises(EvaluationError):
        truth.timbre_distance(np.ones((2, 3)), np.ones((2, 4)))


# Dynamics.


def test_time_of_a_copy(melody):
    found = dynamics.evaluate(melody, melody.waveform, golden.SCORE)
    best = {name: found[name] for name in ("onset_f", "onset_f_truth", "level_corr")}
    assert best == pytest.approx(dict.fromkeys(best, 1))
    assert found["onsets"] == len(golden.SCORE)
    assert found["attack"] > 4
    assert found["flutter"] < 0.5


@pytest.mark.parametrize("fade", [0.0, 1.0, 3.0])
def test_decay_is_the_slope_of_the_level(fade):
    """Amplitude exp(-fade * t) loses 8.7 dB a second for each unit of `fade`."""
    sound = features.excerpt(golden.play([(0.05, 1, 60), (1, 2, 64)], fade=fade))
    found = dynamics.evaluate(sound, sound, [(0.05, 1, 60), (1, 2, 64)])
    assert found["decay"] == pytest.approx(-20 / np.log(10) * fade, abs=0.7)


def test_flutter_is_that_of_the_level():
    held = features.excerpt(golden.play([(0.0, 2, 60)], fade=0))
    flutter = standins.fluttering(held)
    found = [dynamics.evaluate(held, sound, [(0, 2, 60)])["flutter"] for sound in (held, flutter)]
    assert found[0] < 0.1
    assert found[1] == pytest.approx(3 / np.sqrt(2), rel=0.15)  # a sine's rms


# What each stand-in of the true rendering must cost, and on which measure: (measure, sign, by).
SPOILT = {
    "fluttering": [("flutter", 1, 0.8), ("onset_f", -1, 0.1), ("level_corr", -1, 0.02)],
    "smeared": [("attack", -1, 2), ("onset_f", -1, 0.05)],
    "shuffled": [("level_corr", -1, 0.5), ("onset_f", -1, 0.3), ("decay", 1, 10)],
    "backwards": [("attack", -1, 2), ("onset_f_truth", -1, 0.3), ("decay", 1, 10)],
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("domain", ["beethoven_piano", "bach_harpsichord"])
def test_a_measure_of_time_notices_what_it_is_for(name, domain):
    pairs = read_pairs(MINI)[::4]
    found = {"truth": [], name: []}
    for pair in pairs:
        true = features.excerpt(pair.audio(domain))
        spoilt = getattr(standins, name)(true)
        assert len(spoilt.waveform) == len(true.waveform)
        for kind, sound in (("truth", true), (name, spoilt)):
            found[kind].append(dynamics.evaluate(true, sound, pair.notes))
    for measure, sign, least in SPOILT[name]:
        right, wrong = (np.mean([row[measure] for row in rows]) for rows in found.values())
        assert sign * (wrong - right) > least, (measure, right, wrong)


def test_time_of_nothing(melody):
    silent = dynamics.evaluate(melody, np.zeros(len(melody.waveform)), golden.SCORE)
    assert silent["attack"] is None
    assert (silent["onsets"], silent["onset_f"], silent["level_corr"]) == (0, 0, 0)
    nothing = dynamics.evaluate(NOTHING, NOTHING, [])
    assert (nothing["decay"], nothing["flutter"], nothing["onset_f"]) == (None, None, 1)


def test_a_chord_begins_once():
    chord = [(0.50, 1, 60), (0.53, 1, 64), (1.2, 2, 60)]
    assert dynamics.beginnings(chord).tolist() == [0.5, 1.2]
    assert dynamics.gaps(chord, 180) == [slice(55, 100), slice(125, 170)]


@pytest.mark.parametrize("level", [np.ones((2, 3)), np.array([np.nan])])
def test_bad_levels(level):
    with pytest.raises(EvaluationError):
        dynamics.level_corr(level, level)
    with pytest.raises(EvaluationError):
        dynamics.evaluate(NOTHING, NOTHING, [(1, 0.5, 60)])


# Recogniser and Frechet distance.


def test_shipped_recogniser_is_good_enough():
    card = json.loads((recogniser.SHIPPED / recogniser.CARD).read_text(encoding="utf-8"))
    assert card["held_out"]["test"]["by_window"]["accuracy"] >= 0.97
    assert card["held_out"]["test"]["by_track"]["accuracy"] >= 0.97
    certainty = card["certainty"]
    assert certainty["as it is"] > 0.8 > 0.25 > max(certainty["fluttering"], certainty["backwards"])


def test_probabilities_leave_room_for_none(melody, judge):
    found = judge.probabilities(melody)
    assert found.shape == (6,)
    assert found.min() >= 0
    assert found.sum() <= 1 + 1e-5


@pytest.mark.parametrize("change", ["fluttering", "shuffled", "backwards"])
def test_the_recogniser_hears_time(judge, change):
    """A true rendering that is spoilt in time is no longer taken for the domain's."""
    for place, domain in enumerate(judge.domains):
        true = [features.excerpt(pair.audio(domain)) for pair in read_pairs(MINI)[::4]]
        spoilt = [getattr(standins, change)(sound) for sound in true]
        chances = [
            np.mean([judge.probabilities(sound)[place] for sound in sounds])
            for sounds in (true, spoilt)
        ]
        assert chances[1] < 0.5 * chances[0], (domain, chances)


def test_confusion():
    found = recogniser.summary(recogniser.confusion("aab", "aba", "abc"), "abc")
    assert found["confusion"] == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert found["by_domain"] == {"a": 0.5, "b": 0.0}
    assert recogniser.summary(recogniser.confusion("ab", "ab", "ab"), "ab")["accuracy"] == 1
    with pytest.raises(EvaluationError):
        recogniser.confusion("aab", "aa", "ab")
    with pytest.raises(EvaluationError):
        recogniser.confusion("a", "z", "ab")


def test_recogniser_of_nothing(judge):
    assert recogniser.evaluate([], [], judge)["accuracy"] is None
    assert judge.embed(NOTHING).shape == (1, recogniser.HIDDEN)


def test_no_recogniser(tmp_path):
    with pytest.raises(EvaluationError, match="no recogniser"):
        recogniser.load(tmp_path)


def test_frechet_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 4))
    assert frechet.frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert frechet.frechet_distance(points, points + 2) == pytest.approx(16)  # 4 values, 2 squared
    scaled = frechet.frechet_distance(points, 3 * points - 2 * points.mean(axis=0))
    assert scaled == pytest.approx(4 * points.var(axis=0, ddof=1).sum())  # (3 - 1) squared
    assert frechet.evaluate(points, points[:0])["distance"] is None
    with pytest.raises(EvaluationError):
        frechet.frechet_distance(points, points[:, :2])
    with pytest.raises(EvaluationError):
        frechet.frechet_distance(points, points[0])


# Probes.


def test_probe_finds_what_is_there_and_only_that():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(400, 3, 4)), np.arange(400) % 4
    assert latent.probe(z[:200], labels[:200], z[200:], labels[200:]) < 0.4  # chance: .25
    z[:, 0] += 5 * labels[:, None]
    assert latent.probe(z[:200], labels[:200], z[200:], labels[200:]) > 0.99
    assert np.isnan(latent.probe(z, labels, z[:0], labels[:0]))
    with pytest.raises(EvaluationError):
        latent.probe(z, labels[:5], z, labels)
    with pytest.raises(EvaluationError):
        latent.probe(z * np.nan, labels, z, labels)
    with pytest.raises(EvaluationError):
        linear.fit(z[:0, 0], labels[:0])


def test_best_threshold():
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert transcription.best_threshold(scores, scores > 0.5) == 0.8
    assert transcription.best_threshold(scores, scores > 2) == np.inf
    with pytest.raises(EvaluationError):
        transcription.best_threshold(scores, scores[:1] > 0)
    with pytest.raises(EvaluationError):
        transcription.best_threshold(scores * np.nan, scores > 0)


def test_agreement_of_instruments():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(24, 8))
    assert nsynth.agreement(points, points)["diagonal"] == pytest.approx(1)
    shifted = nsynth.agreement(points + 20, rng.normal(size=(24, 8)) + 20)
    # Unrelated embeddings with a common part: the paper's number is high, the centred one is not.
    assert shifted["diagonal"] > 0.99 > 0.3 > abs(shifted["diagonal_centred"])
    assert shifted["nearest"] < 0.3
    assert np.isnan(nsynth.agreement(points[:0], points[:0])["diagonal"])
    with pytest.raises(EvaluationError):
        nsynth.agreement(points, points[:3])
    with pytest.raises(EvaluationError):
        nsynth.cosines(points * np.nan, points)


def test_notes_in_nsynth_format(blink_model, tmp_path):
    for name in ("flute_acoustic_001", "organ_electronic_002"):
        for number in (60, 64):
            for velocity in (25, 127):
                sound = golden.play([(0, 0.3, number)], 0.3) * np.float32(velocity / 127)
                audio.write(tmp_path / f"{name}-{number:03d}-{velocity:03d}.wav", sound)
    found = nsynth.find_notes(tmp_path)
    assert found["flute_acoustic_001"][60].name.endswith("-127.wav")  # nearer to 100 than 25
    report = nsynth.evaluate(blink_model, tmp_path)
    assert report["pitches"] == [60, 64]
    assert len(report["pairs"]) == 3
    assert report["pairs"][0]["diagonal"] == pytest.approx(1)
    pitches, embedded = nsynth.embeddings(blink_model, tmp_path)
    assert len(nsynth.plot(pitches, embedded).axes) == 5  # four matrices and the colour bar
    with pytest.raises(EvaluationError, match="no instrument"):
        nsynth.evaluate(blink_model, tmp_path, ["tuba"])
    with pytest.raises(EvaluationError, match="no notes"):
        nsynth.find_notes(tmp_path / "nowhere")


# Blending.


def test_blend_ramps_from_one_latent_to_the_other():
    one, two = torch.zeros(1, 2, 100), torch.ones(1, 2, 100)
    mixed = blending.blend(one, two, 30)
    assert mixed.shape == (1, 2, 170)
    assert mixed[0, 0, :70].abs().max() == 0
    assert mixed[0, 0, 100:].min() == 1
    assert torch.allclose(mixed[0, 0, 70:100].diff(), torch.tensor(1 / 30), atol=1e-5)
    assert torch.equal(blending.blend(one, one, 30), torch.zeros(1, 2, 170))
    with pytest.raises(EvaluationError):
        blending.blend(one, two, 101)
    with pytest.raises(EvaluationError):
        blending.blend(one, torch.ones(1, 3, 100), 5)


def test_a_seam_is_heard():
    held = golden.play([(0, 4, 60)], 4.0, fade=0.1)
    cut = held.copy()
    cut[32_000:] = golden.play([(0, 4, 66)], 4.0, partials=(0.3, 1, 1), fade=0.1)[32_000:]
    music = golden.play([(i * 0.25, i * 0.25 + 0.24, 60 + i % 5) for i in range(16)], 4.0)
    assert blending.evaluate(cut, 1.5, 2.5)["seam"] > 3
    assert blending.evaluate(music, 1.5, 2.5)["seam"] < 1.5
    assert blending.evaluate(np.zeros(32_000), 0.5, 1)["seam"] == 0
    assert blending.seam(np.zeros((64, 0)), 0, 0) == 0
    with pytest.raises(EvaluationError):
        blending.evaluate(held, 3, 5)


def test_creativity(melody):
    other = golden.play(golden.OTHER)
    assert blending.creativity(melody, [melody, melody]) == pytest.approx({"kept": 1, "agreed": 1})
    found = blending.creativity(melody, [other, other])
    assert found["agreed"] == pytest.approx(1)
    assert found["kept"] < 0.2
    with pytest.raises(EvaluationError):
        blending.creativity(melody, [other])


# Listening.


def test_unanimous_opinion():
    found = listening.opinion(golden.ratings(np.random.default_rng(0), sizes=(0, 0, 0)))
    assert (found["mean"], found["sd"], found["interval"]) == (3, 0, 0)


def test_variances_are_recovered():
    """Means of 40 simulations; 0.03 is about three standard errors."""
    rng = np.random.default_rng(0)
    found = [listening.opinion(golden.ratings(rng, 20, 20)[:-30]) for _ in range(40)]
    for name, wanted in (("rater", 0.09), ("clip", 0.16), ("noise", 0.25)):
        assert np.mean([f[name] for f in found]) == pytest.approx(wanted, abs=0.03)


# Raters, clips, standard deviations of the two and of the rest; the part of the ratings there is.
DESIGNS = {
    "a third is missing": ((12, 15, (0.3, 0.4, 0.5)), 0.67),
    "whole numbers, most missing": ((30, 20, (0.4, 0.4, 0.8)), 0.15),
    "few clips": ((20, 5, (0.3, 0.4, 0.5)), 1.0),
    "nobody differs": ((8, 8, (0.0, 0.0, 0.5)), 1.0),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_interval_covers_at_its_rate(design):
    """The truth (3) lies in a 95 % interval about 95 % of the time; in the naive one less often.

    Of 400 simulations; the standard error of a coverage of .95 is .011.
    """
    rng, (sizes, part) = np.random.default_rng(1), DESIGNS[design]
    crossed, naive = [], []
    for _ in range(400):
        ratings = golden.ratings(rng, *sizes)
        kept = [ratings[i] for i in rng.permutation(len(ratings))[: round(part * len(ratings))]]
        if design.startswith("whole"):
            kept = [rating | {"score": float(round(rating["score"]))} for rating in kept]
        found = listening.opinion(kept)
        crossed.append(abs(found["mean"] - 3) <= found["interval"])
        naive.append(abs(found["mean"] - 3) <= found["naive"])
    assert 0.92 <= np.mean(crossed) <= 0.99
    assert np.mean(naive) < 0.85 or design == "nobody differs"


def test_interval_covers_at_another_rate():
    rng, crossed = np.random.default_rng(2), 0
    for _ in range(400):
        found = listening.opinion(golden.ratings(rng, 12, 15), level=0.8)
        crossed += abs(found["mean"] - 3) <= found["interval"]
    assert 0.75 <= crossed / 400 <= 0.86


def test_interval_of_the_lineup_covers_at_least_at_its_rate():
    """Exact intervals may cover more often than they say, never less."""
    rng, inside = np.random.default_rng(0), 0
    for right in rng.binomial(24, 0.3, 300):
        answers = [{"domain": "a", "answer": "a" if i < right else "b"} for i in range(24)]
        low, high = listening.lineup(answers, "ab")["interval"]
        inside += low <= 0.3 <= high
    assert inside / 300 > 0.93


def test_screening_finds_those_who_do_not_listen():
    rng = np.random.default_rng(0)
    ratings = golden.ratings(rng, sizes=(0.2, 0.8, 0.3))
    reverse = [{**r, "rater": "contrary", "score": 6 - r["score"]} for r in ratings[:10]]
    bored = [{**r, "rater": "bored", "score": 3.0} for r in ratings[:10]]
    found = listening.evaluate(ratings + reverse + bored)
    assert found["screened"] == ["bored", "contrary"]
    assert found["systems"]["a"]["n"] == len(ratings)


def test_screening_keeps_who_cannot_be_judged():
    ratings = golden.ratings(np.random.default_rng(0), sizes=(0.2, 0.8, 0.3))
    hasty = [{**rating, "rater": "hasty", "score": 1.0} for rating in ratings[:2]]
    assert listening.screen(ratings + hasty) == []
    assert listening.screen([{**rating, "rater": "only one"} for rating in ratings]) == []
    assert listening.screen([{**rating, "score": 5.0} for rating in ratings]) == []  # unanimous


def test_groups_make_a_table_like_the_papers():
    ratings = golden.ratings(np.random.default_rng(0), sizes=(0.2, 0.8, 0.3))
    grouped = [{**rating, "group": f"g{rating['clip'][1:] < '5'}"} for rating in ratings]
    found = listening.evaluate(grouped)
    assert list(found["groups"]) == ["gFalse", "gTrue"]
    parts = [found["groups"][name]["a"] for name in found["groups"]]
    assert sum(part["n"] for part in parts) == found["systems"]["a"]["n"] == len(ratings)
    text = tables.opinion(found)
    cells = " | ".join(f"{part['mean']:.2f}±{part['sd']:.2f}" for part in parts)
    assert f"| a | {cells} |" in text
    assert "Left out: nobody." in text
    assert listening.evaluate(grouped[1:] + ratings[:1])["groups"] == {}  # one has none


def test_opinion_of_nobody_and_of_one():
    assert listening.opinion([]) == dict.fromkeys(
        ("mean", "sd", "naive", "interval", "rater", "clip", "noise")
    ) | {"n": 0}
    one = listening.opinion(golden.ratings(np.random.default_rng(0), raters=1))
    assert one["mean"] is not None
    assert one["interval"] is None
    assert listening.evaluate([]) == {"screened": [], "systems": {}, "groups": {}}


def test_bad_ratings(tmp_path):
    with pytest.raises(EvaluationError):
        listening.opinion([{"rater": "a", "clip": "b", "system": "c", "score": 6}])
    with pytest.raises(EvaluationError):
        listening.opinion([{"rater": "a", "clip": "b", "score": 3}])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rater,clip,system,score\na,b,c,4\na,b,c,good\n", "line 3: score 'good' is no number"),
        ("rater,clip,system,score\na,b,c,9\n", "line 2: score 9 is not in 1 to 5"),
        ("rater,clip,system,score\na,b,c,nan\n", "line 2: score nan is not in 1 to 5"),
        ("rater,clip,system,score\na,b\n", "line 2: no system"),
        ("rater,clip,system,score\n,b,c,4\n", "line 2: no rater"),
        ("rater,clip,score\na,b,4\n", "no column 'system'"),
        ("rater,clip,answer\na,b,4\n", "no column 'domain'"),
        ("", "no column 'rater'"),
        (b"\xff\xfe\x00", "is no table"),
    ],
)
def test_bad_tables(tmp_path, text, complaint):
    table = tmp_path / "ratings.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EvaluationError, match=complaint):
        listening.read(table)


def test_tables_of_spreadsheets_are_read(tmp_path):
    table = tmp_path / "ratings.csv"
    table.write_bytes("\ufeffrater,clip,system,score\r\na,b,c,4\r\n".encode())
    assert listening.read(table) == [{"rater": "a", "clip": "b", "system": "c", "score": 4.0}]


def test_lineup():
    answers = [{"domain": d, "answer": d} for d in "abcd"]
    found = listening.lineup(answers, "abcd")
    assert (found["diagonal"], found["right"], found["chance"]) == (1, 4, 0.25)
    assert found["p"] == pytest.approx(0.25**4)
    nobody = listening.lineup([], "abcd")
    assert (nobody["diagonal"], nobody["p"], nobody["interval"]) == (None, 1, [0, 1])
    assert found["interval"][1] == 1
    assert "| a | 1 | 0 | 0 | 0 |" in tables.lineup(found)
    with pytest.raises(EvaluationError):
        listening.lineup([{"domain": "a", "answer": "z"}], "abcd")
    with pytest.raises(EvaluationError, match="without 'domain'"):
        listening.lineup([{"answer": "a"}], "ab")
    with pytest.raises(EvaluationError, match="at least two"):
        listening.lineup([], "a")


def test_pack_is_blind_and_comes_back(tmp_path, melody):
    other = melody.waveform[::-1].copy()
    clips = {"x": {"source": other, "truth": melody.waveform, "ours": other}}
    stimuli.write_opinion(clips, tmp_path, {"x": "unseen"}, seed=1)
    names = {path.name for path in tmp_path.iterdir()}
    blind = {f"{i:03d}.wav" for i in range(5)}
    assert names == {"key.csv", "sheet.csv", "source-00.wav", *blind}
    sheet = tmp_path / "sheet.csv"
    lines = sheet.read_text().splitlines()
    assert {line.split(",")[2] for line in lines[1:]} == {"source-00.wav"}
    filled = [lines[0], *(f"me{line}3" for line in lines[1:])]
    sheet.write_text("\n".join(filled) + "\n")
    found = stimuli.unblind(tmp_path / "key.csv", [sheet])
    assert sorted(r["system"] for r in found) == ["low", "mulaw", "ours", "source", "truth"]
    expected = {"rater": "me", "score": 3.0, "clip": "x", "group": "unseen"}
    assert all(rating.items() >= expected.items() for rating in found)
    sheet.write_text("rater,stimulus,score\nme,999.wav,3\n")
    with pytest.raises(EvaluationError, match="not in"):
        stimuli.unblind(tmp_path / "key.csv", [sheet])


def test_lineup_is_blind_and_comes_back(tmp_path):
    """Whoever knows the sounds can answer; their names and places tell nothing."""
    tones = {name: golden.play([(0, 0.2, 60 + 4 * i)], 0.2) for i, name in enumerate("abc")}
    sources = {f"clip{i}": "abc"[i % 3] for i in range(12)}
    stimuli.write_lineup(dict.fromkeys(sources, tones), tmp_path, sources, seed=0)
    rows = listening.read(tmp_path / "key.csv", stimuli.LINEUP_KEY)
    assert len(rows) == 36 == len(list(tmp_path.glob("lineup-*.wav")))
    for row in rows:
        heard = audio.read(tmp_path / f"{row['lineup']}-{row['number']}.wav")
        own = features.excerpt(tones[row["heard"]]).waveform
        np.testing.assert_allclose(heard, own, atol=1e-4)
    right = [row for row in rows if row["heard"] == row["domain"]]
    orders = {"".join(r["heard"] for r in rows if r["lineup"] == row["lineup"]) for row in rows}
    assert len(orders) > 2
    answers = [f"me,{row['lineup']},{row['number']}" for row in right]
    answers += [f"you,{row['lineup']},1" for row in right]
    sheet = tmp_path / "sheet.csv"
    assert sheet.read_text().splitlines()[1] == ",lineup-00,"
    sheet.write_text("\n".join(["rater,lineup,answer", *answers]) + "\n")
    found = stimuli.unblind(tmp_path / "key.csv", [sheet])
    assert {answer["clip"] for answer in found} == set(sources)
    first = [row["heard"] for row in rows if row["number"] == "1"]
    assert [answer["answer"] for answer in found if answer["rater"] == "you"] == first
    assert stimuli.choices(tmp_path / "key.csv") == ["a", "b", "c"]
    mine = [answer for answer in found if answer["rater"] == "me"]
    assert listening.lineup(mine, "abc")["right"] == 12


def test_a_folder_is_complete_or_not_there(tmp_path):
    target = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), new_folder(target) as part:
        (part / "half").write_text("")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    (tmp_path / "deep" / "out.part").mkdir()
    (tmp_path / "deep" / "out.part" / "old").write_text("")
    with new_folder(target) as part:
        (part / "file").write_text("")
        assert not target.exists()
    assert [path.name for path in target.parent.rglob("*")] == ["out", "file"]
    with pytest.raises(EvaluationError, match="exists already"), new_folder(target):
        pass
    with pytest.raises(EvaluationError, match="cannot write"), new_folder(target / "file" / "x"):
        pass


def test_low_anchor_has_no_treble(tmp_path, melody):
    low = stimuli._with_anchors({"truth": melody.waveform})["low"]
    power = np.abs(np.fft.rfft(low)) ** 2
    hertz = np.fft.rfftfreq(len(low), 1 / 16_000)
    assert power[hertz > 1_500].sum() < 1e-4 * power.sum()
