"""The whole report, and that bad translators rank as a musician would rank them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umtlib import checkpoint, config, translation, translator
from umtlib.corpora.corpus import Corpus, Track, sha256, write_manifest
from umtlib.corpora.pairs import read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import recogniser, report

MINI = Path(__file__).parents[1] / "data" / "mini"
TARGETS = ("beethoven_piano", "bach_organ")


@pytest.fixture(scope="module")
def ranked():
    """Averages per system on a cantata and a harpsichord piece; the "translation" is silence."""
    pairs = [p for p in read_pairs(MINI) if p.id in ("bach_cantata-00", "bach_harpsichord-00")]
    made = report.apply(lambda sound, domain: np.zeros_like(sound), pairs, TARGETS)
    return report.measure(pairs, TARGETS, made, Corpus(MINI), recogniser.load())[1]


def order(ranked, metric, *systems):
    values = [ranked["systems"]["translation" if s == "silence" else s][metric] for s in systems]
    return all(better > worse for better, worse in zip(values, values[1:], strict=False))


@pytest.mark.parametrize("bad", ["wrong_excerpt", "noise", "silence"])
def test_no_substitute_has_the_notes(ranked, bad):
    for metric in ("chroma", "frame_f", "note_f", "chroma_cosine"):
        assert order(ranked, metric, "truth", bad), metric


def test_wrong_instruments_have_the_notes_all_the_same(ranked):
    assert order(ranked, "chroma", "input", "wrong_domain", "wrong_excerpt")
    assert order(ranked, "frame_f", "wrong_domain", "noise")


def test_nearest_to_the_truth(ranked):
    """Distances: less is better, so the order is turned round."""
    for worse in ("input", "wrong_excerpt", "noise", "silence"):
        assert order(ranked, "log_mel", worse, "wrong_domain", "truth") or worse == "input"
        assert order(ranked, "log_mel", worse, "truth")
    # The right instruments with another piece are nearer in timbre than the wrong ones with this.
    assert order(ranked, "timbre", "wrong_domain", "wrong_excerpt", "truth")
    assert order(ranked, "timbre", "noise", "wrong_excerpt")
    assert order(ranked, "timbre", "silence", "wrong_excerpt")


def test_the_papers_measure_cannot_tell(ranked):
    """Why the report leads with others: another piece is within .15 of the truth."""
    systems = ranked["systems"]
    assert abs(systems["truth"]["ncc"] - systems["wrong_excerpt"]["ncc"]) < 0.15
    assert systems["truth"]["chroma"] - systems["wrong_excerpt"]["chroma"] > 0.5


def test_recogniser_and_frechet_distance_go_by_the_sound(ranked):
    assert ranked["recogniser"]["truth"]["accuracy"] == 1
    for found in ranked["frechet"].values():
        distance = {system: value["distance"] for system, value in found.items()}
        others = ("wrong_domain", "input", "noise", "translation")
        assert all(distance["truth"] < distance[other] for other in others)


def test_a_silent_translator_reaches_no_target_but_the_papers(ranked):
    assert not any(target["met"] for target in ranked["targets"])


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """A corpus of a corner of the mini corpus: half a second of everything."""
    folder = tmp_path_factory.mktemp("corner")
    whole, tracks = Corpus(MINI), []
    for domain in config.SIX_DOMAINS:
        for split in ("train", "val", "test"):
            track = whole.select(domain, split)[0]
            file = f"{split}-{domain}.wav"
            _cut(whole.folder / track.file, folder / file, 2.5)
            digest = sha256(folder / file)
            tracks.append(Track(domain, split, file, 2.5, digest))
    write_manifest(folder / "manifest.jsonl", tracks)
    (folder / "paired").mkdir()
    lines = []
    for line in (MINI / "paired" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[::5]:
        pair = json.loads(line)
        for name, file in pair["files"].items():
            pair["files"][name] = f"paired/{Path(file).parent.name}-{name.replace('/', '-')}.wav"
            _cut(MINI / file, folder / pair["files"][name], 0.5)
        pair["notes"] = [[a, min(b, 0.5), p] for a, b, p in pair["notes"] if a < 0.45]
        lines.append(json.dumps(pair | {"seconds": 0.5}))
    (folder / "paired" / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _cut(source, target, seconds):
    from umtlib import audio

    audio.write(target, audio.read(source)[: round(seconds * 16_000)])


@pytest.fixture(scope="module")
def model():
    """Untrained, and fast; it knows the six domains."""
    settings = config.preset("tiny").model
    settings = replace(settings, decoder=replace(settings.decoder, layers=2))
    return translator.build(settings).eval().requires_grad_(False)


def test_report_of_a_model(model, corner, tmp_path):
    found = report.evaluate(model, corner, tmp_path / "report", excerpts=2, name="untrained")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    pictures = {"truth.png", "recogniser.png", "systems.png"}
    assert names == {"report.json", "report.md", "rows.csv", *pictures}
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == found
    assert found["results"]["excerpts"] == 2
    assert 0 <= found["latent"]["probe"] <= 1
    assert 0 <= found["transcription"]["frame_f"] <= 1
    text = (tmp_path / "report" / "report.md").read_text()
    assert "# Evaluation of untrained" in text
    assert "nan" not in text


def test_streams_together_are_what_translate_gives(model, corner):
    pairs = read_pairs(corner)[:2]
    together = report.translate_pairs(model, pairs, seed=3)
    alone = translation.translate(model, pairs[1].audio(), 16_000, to="bach_organ", seed=3)
    same = (together[pairs[1].id, "bach_organ"] == alone).mean()
    assert same > 0.99  # sums are rounded otherwise when there are more streams


def test_excerpts_are_taken_from_all_sources_in_turn():
    pairs = read_pairs(MINI)
    few = report.choose(pairs, 7)
    assert len({pair.source.split("/")[0] for pair in few}) == 7
    assert report.choose(pairs, None) == pairs
    with pytest.raises(EvaluationError):
        report.choose(pairs, 0)
    with pytest.raises(EvaluationError):
        report.choose([], None)


def test_a_missing_translation_and_an_unknown_domain():
    pairs, judge = read_pairs(MINI)[:1], recogniser.load()
    with pytest.raises(EvaluationError, match="no translation of"):
        report.measure(pairs, TARGETS, {}, None, judge)
    with pytest.raises(EvaluationError, match="does not know 'kazoo'"):
        report.measure(pairs, ("kazoo",), {}, None, judge)


def test_stimuli(model, corner, tmp_path):
    report.stimuli(model, corner, "bach_organ", tmp_path, excerpts=2)
    rows = (tmp_path / "key.csv").read_text().splitlines()[1:]
    systems = {row.split(",")[2] for row in rows}
    assert systems == {"source", "translation", "truth", "mulaw", "low"}
    assert len(rows) == 10


def test_a_recogniser_can_be_trained(corner, tmp_path):
    card = recogniser.train(corner, tmp_path / "one", seed=1)
    recogniser.train(corner, tmp_path / "two", seed=1)
    assert card["trained_on"]["tracks"] == 6
    one, two = recogniser.load(tmp_path / "one"), recogniser.load(tmp_path / "two")
    track = Corpus(corner).tracks[0]
    sound = Corpus(corner).audio(track)
    assert (one.probabilities(sound) == two.probabilities(sound)).all()
    assert one.domains[one.probabilities(sound).argmax()] == track.domain


def test_command(model, corner, tmp_path, umt):
    checkpoint.save(model, tmp_path / "model")
    status, stdout, stderr = umt(
        "evaluate", "--model", tmp_path / "model", "--data", corner, "--out", tmp_path / "out",
        "--excerpts", 1,
    )  # fmt: skip
    assert status == 0, stderr
    assert (tmp_path / "out" / "report.md").is_file()
