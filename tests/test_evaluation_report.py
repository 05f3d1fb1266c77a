"""The whole report, and that bad translators rank as a musician would rank them."""

import csv
import itertools
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fit_listeners import fit_recogniser

from conftest import assert_refused, tone
from umtlib import audio, checkpoint, config, translator
from umtlib.corpora.corpus import Corpus, Track, sha256, write_manifest
from umtlib.corpora.pairs import read_pairs
from umtlib.errors import EvaluationError
from umtlib.evaluation import (
    blending,
    features,
    listening,
    pitch,
    recogniser,
    report,
    stimuli,
    tables,
    translations,
)
from umtlib.generation import translation
from umtlib.machine.team import Team

ROOT = Path(__file__).parents[1]
MINI, NOTES = ROOT / "data" / "mini", ROOT / "data" / "mini-nsynth"
TARGETS = ("beethoven_piano", "haydn_quartet")
RANKED = ("bach_cantata-00", "bach_harpsichord-00", "unseen-guitar-01")  # the last is a melody


@pytest.fixture(scope="module")
def ranked():
    """Averages per system on three excerpts; the "translation" is silence."""
    pairs = [pair for pair in read_pairs(MINI) if pair.id in RANKED]
    made = report.apply(lambda sound, domain: np.zeros_like(sound), pairs, TARGETS)
    results = report.measure(pairs, TARGETS, made, Corpus(MINI), recogniser.load())[1]
    results["systems"]["silence"] = results["systems"].pop("translation")
    return results


# From best to worst, as a musician would have it, and as a measure of this question must. What
# a measure cannot tell apart is not in its chains: see docs/evaluation.md.
CHAINS = {
    **dict.fromkeys(("ncc", "dtw"), ["input truth silence", "input noise", "input wrong_excerpt"]),
    "ncc_centred": ["input truth silence", "input wrong_excerpt", "truth noise"],
    "dtw_centred": ["input truth silence", "input wrong_excerpt", "input noise"],
    "chroma": [
        "input wrong_domain wrong_excerpt", "input truth wrong_excerpt",
        "truth noise", "truth silence",
    ],
    "pyin_ncc": ["input truth wrong_excerpt", "truth noise", "truth silence"],
    "pyin_dtw": ["input truth wrong_excerpt noise", "truth silence"],
    "frame_f": ["truth wrong_excerpt", "wrong_domain noise", "truth silence"],
    **dict.fromkeys(("note_f", "melody", "melody_chroma"),
                    ["truth wrong_excerpt", "truth noise", "truth silence"]),
    "chroma_cosine": ["truth wrong_domain wrong_excerpt silence", "truth input noise"],
    # Less is better. The right instruments with another piece are nearer in timbre than the wrong
    # ones with this; frame by frame it is the other way round.
    "log_mel": ["noise wrong_excerpt wrong_domain truth", "noise input truth", "silence input"],
    # In time: each stand-in is spoilt in one respect. Neither more nor less is better in `attack`,
    # `onsets`, `decay` and `flutter`: these chains hold for piano and quartet together.
    "attack": ["truth smeared", "truth fluttering"],
    "onsets": ["fluttering truth smeared", "shuffled truth"],
    "onset_f": ["truth fluttering", "truth smeared silence", "truth shuffled"],
    "onset_f_truth": ["truth smeared silence", "truth fluttering", "truth shuffled"],
    "decay": ["shuffled truth"],
    "flutter": ["fluttering truth smeared", "shuffled truth"],
    "level_corr": ["truth smeared fluttering wrong_domain shuffled", "truth wrong_excerpt"],
    "certainty": ["truth wrong_domain", "truth fluttering", "truth shuffled", "truth silence"],
    "timbre": ["wrong_domain wrong_excerpt truth", "silence wrong_excerpt", "noise wrong_excerpt"],
}  # fmt: skip


@pytest.mark.parametrize("metric", report.METRICS)
def test_substitutes_rank_as_a_musician_would_rank_them(ranked, metric):
    for chain in CHAINS[metric]:
        values = [ranked["systems"][system][metric] for system in chain.split()]
        assert values == sorted(values, reverse=True), chain
        assert len(set(values)) == len(values), chain


def test_each_measure_has_its_best_value(ranked):
    """A copy of the input has the input's pitch, also through mu-law; the truth is the truth."""
    copy, coded, true = (ranked["systems"][name] for name in ("input", "input_mulaw", "truth"))
    for metric in pitch.METRICS:
        assert copy[metric] == pytest.approx(1), metric
        assert coded[metric] == pytest.approx(1, abs=0.05), metric
    assert (true["log_mel"], true["timbre"]) == pytest.approx((0, 0), abs=0.2)  # mu-law's noise
    assert true["chroma_cosine"] == pytest.approx(1, abs=0.01)
    assert ranked["left_out"] == {}


def test_recogniser_and_frechet_distance_go_by_the_sound(ranked):
    assert ranked["recogniser"]["truth"]["accuracy"] == 1
    for found in ranked["frechet"].values():
        distance = {system: value["distance"] for system, value in found.items()}
        others = ("wrong_domain", "input", "noise", "translation")
        assert all(distance["truth"] < distance[other] for other in others)


def test_a_stand_in_that_a_target_lacks_is_a_gap():
    one = {"distance": 1.0, "reference_windows": 9, "windows": 8}
    found = {"a": {"translation": one, "truth": one}}
    found["b"] = {"translation": one, "wrong_excerpt": one, "truth": one}
    assert "\n| a | 9 | 8 | 1 | - | 1 |\n" in tables._frechet(found)[1]


def test_the_papers_table_is_there_only_if_its_domains_are(ranked):
    """And it leaves out the stand-ins whose pitch is not asked for."""
    _, table = tables._to_piano(ranked["pairs"])
    assert "paper: network" in table and "truth, centred" in table
    assert "shuffled" not in table
    strange = [{"system": "input", "excerpt": "a", "source": "unseen/x", "target": "y"}]
    assert tables._to_piano(report.summarise(strange, ["y"])["pairs"]) == []


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """A corpus of a corner of the mini corpus: half a second of everything."""
    folder, whole, tracks, lines = tmp_path_factory.mktemp("corner"), Corpus(MINI), [], []
    (folder / "paired").mkdir()

    def cut(source, target, seconds):
        audio.write(folder / target, audio.read(MINI / source)[: round(seconds * 16_000)])
        return target

    for domain, split in itertools.product(config.SIX_DOMAINS, ("train", "val", "test")):
        file = cut(whole.select(domain, split)[0].file, f"{split}-{domain}.wav", 2.5)
        tracks.append(Track(domain, split, file, 2.5, sha256(folder / file)))
    write_manifest(folder / "manifest.jsonl", tracks)
    for line in (MINI / "paired" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[::5]:
        pair = json.loads(line) | {"seconds": 0.5}
        for name, file in pair["files"].items():
            target = f"paired/{Path(file).parent.name}-{name.replace('/', '-')}.wav"
            pair["files"][name] = cut(file, target, 0.5)
        pair["notes"] = [[a, min(b, 0.5), p] for a, b, p in pair["notes"] if a < 0.45]
        lines.append(json.dumps(pair) + "\n")
    (folder / "paired" / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def untrained(domains=config.SIX_DOMAINS):
    settings = config.preset("tiny", domains).model
    settings = replace(settings, decoder=replace(settings.decoder, layers=2))
    return translator.build(settings).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    """Untrained, and fast; it knows the six domains."""
    return untrained()


@pytest.fixture
def here(model, corner, tmp_path, monkeypatch):
    """A folder with the model and the corpus, in which commands run."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(model, "model")
    Path("corner").symlink_to(corner)


def test_report_of_a_model(here, umt):
    checkpoint.save(untrained(TARGETS), "two")
    status, stdout, stderr = umt(
        "evaluate", "--model", "two", "--data", "corner", "--out", "out", "--excerpts", 2,
        "--compare", "two", "--notes", NOTES / "nsynth-train",
    )  # fmt: skip
    assert status == 0, stderr
    assert "out/report.md: 2 excerpts in 2 domains" in stdout
    assert {path.stem for path in Path("out").iterdir()} == {"report", "rows", "systems", "nsynth"}
    found = json.loads(Path("out/report.json").read_text())
    assert found["model"] == "two"  # its name, not where it lies
    assert found["results"]["excerpts"] == 2
    assert {*found["left_out"]} == {"blending"}  # two excerpts of one domain there are not
    assert 0 <= found["latent"]["probe"] <= 1 and found["latent"] == found["latent_compared"]
    assert 0 <= found["transcription"]["frame_f"] <= 1
    assert found["creativity"] == found["creativity_compared"]
    assert len(found["nsynth"]["pairs"]) == 10  # four instruments, each also with itself
    assert found["nsynth"]["pairs"][0]["diagonal"] == pytest.approx(1)
    rows = csv.DictReader(Path("out/rows.csv").read_text(encoding="utf-8").splitlines())
    levels = [row["log_mel"] for row in rows]
    assert levels == [f"{float(level):.5g}" for level in levels] and len({*levels}) > 10
    text = Path("out/report.md").read_text()
    assert "# Evaluation of two" in text and "| the model compared |" in text
    assert "nan" not in text


def test_two_processes_share_the_excerpts(model, corner, tmp_path, monkeypatch):
    """One after the other here, and what is measured is simple."""

    def rows(place, pairs, domains, made, *_):
        pair, heard = pairs[place], {"embedding": [[0.0] * recogniser.HIDDEN]}
        row = {"system": "translation", "excerpt": pair.id, "source": pair.source} | heard
        for name in domains:
            yield row | {"target": name, "called": name, "chroma": made[pair.id, name].sum()}

    class Process(Team):
        def gather(self, value):
            measured.setdefault(self.rank, value)
            said.append((self.rank, value is None))
            return [measured[rank] for rank in sorted(measured)]

    measured, said, written = {}, [], []
    monkeypatch.setattr(report, "_rows", rows)
    monkeypatch.setattr(report, "write", lambda *given: written.append(given[:2]))
    monkeypatch.setattr(report, "_ask", lambda *_: None)
    report.evaluate(model, corner, tmp_path / "alone", excerpts=3)
    for rank in (1, 0):
        monkeypatch.setattr(report, "join", lambda *_, rank=rank: nullcontext(Process(rank, 2)))
        found = report.evaluate(model, corner, tmp_path / "shared", excerpts=3)
        assert bool(found) == (tmp_path / "shared").exists() == (rank == 0)
    assert {rank: [*places] for rank, places in measured.items()} == {0: [0, 2], 1: [1]}
    assert said == [(1, False), (1, True), (0, False), (0, True)]  # nobody ends before the others
    alone, shared = written
    assert alone == shared


def test_a_model_of_own_domains(blink_folder, corpus, tmp_path, umt):
    """No score, no true rendering, no recogniser: the rest is measured, and that is said."""
    out = tmp_path / "out"
    given = ("--model", blink_folder, "--data", corpus, "--out", out, "--excerpts", 2)
    status, _, stderr = umt("evaluate", *given)
    assert status == 0, stderr
    found, text = json.loads((out / "report.json").read_text()), (out / "report.md").read_text()
    assert "left out: recognised, certainty, timbre, Frechet distance: the recogniser" in text
    assert [*found["left_out"]][3:] == ["transcription", "blending"]
    assert {*found["results"]["systems"]} == {"translation", "input", "input_mulaw", "noise",
                                              "wrong_excerpt"}  # fmt: skip
    averages = found["results"]["systems"]["translation"]
    measured = {name for name, value in averages.items() if value is not None}
    assert measured == {*pitch.METRICS, "attack", "onsets", "n"} - {"pyin_ncc", "pyin_dtw"}
    assert 0 <= found["latent"]["probe"] <= 1 and found["creativity"]["n"] == 2


def test_a_recogniser_of_own_domains(corpus, tmp_path):
    """Fitted twice it is the same one; it knows the domains, and what it needs is not left out."""
    for name in "ab":
        card = fit_recogniser(corpus, tmp_path / name, seed=1)
    assert card["trained_on"]["tracks"] == 4 and card["domains"] == ["drum", "flute"]
    one, two = (recogniser.load(tmp_path / name) for name in "ab")
    pairs = translations.excerpts_of(corpus)
    assert [one.probabilities(p.audio()).tolist() for p in pairs] == [
        two.probabilities(p.audio()).tolist() for p in pairs
    ]
    made = report.apply(lambda sound, domain: sound, pairs[:4:3], one.domains)
    rows, results = report.measure(pairs[:4:3], one.domains, made, Corpus(corpus), one)
    assert {row["called"] for row in rows if row["system"] == "input"} == {*one.domains}
    assert results["recogniser"]["translation"]["accuracy"] == 0  # what was not translated
    assert len(results["left_out"]) == 2 and {*results["frechet"]} == {*one.domains}
    assert results["frechet"]["drum"]["input"]["windows"] == 1  # the flute's, and not its own
    unknown = report.measure(pairs[:1], one.domains, made, None, recogniser.load())[1]
    assert len(unknown["left_out"]) == 3 and "recogniser" not in unknown
    with pytest.raises(EvaluationError, match="domains; give two"):
        (tmp_path / "empty").mkdir()
        write_manifest(tmp_path / "empty" / "manifest.jsonl", [])
        fit_recogniser(tmp_path / "empty", tmp_path / "c")


def test_own_domains_on_paired_excerpts():
    """The notes are known, and how a third domain plays them; the true renderings are not."""
    pairs = [pair for pair in read_pairs(MINI) if pair.id == RANKED[-1]]
    made = report.apply(lambda sound, domain: sound, pairs, ("kazoo",))
    [row, *_], results = report.measure(pairs, ("kazoo",), made, None, recogniser.load())
    assert row["note_f"] > 0.3 and row["onset_f"] > 0.3 and "log_mel" not in row
    assert len(results["left_out"]) == 2 and "wrong_domain" in results["systems"]


def test_streams_together_are_what_translate_gives(model, corner):
    """And decoders that are not trained are free: they make another noise of each seed."""
    pairs = read_pairs(corner)[:2]
    together = translations.translate_pairs(model, pairs, seed=3)
    settings = {"to": "bach_organ", "seed": 3, "dtype": "float32"}
    alone = translation.translate(model, pairs[1].audio(), 16_000, **settings)
    levelled = audio.level(together[pairs[1].id, "bach_organ"], translation.MOST_GAIN)
    same = (levelled == alone).mean()
    assert same > 0.99  # sums are rounded otherwise when there are more streams
    found = blending.freedom(model, pairs, together, seed=3)
    assert found == blending.freedom(model, pairs, seed=3)
    assert found["n"] == sum(pair.source != name for pair in pairs for name in model.domains)
    assert found["agreed"] < 0.9


def test_other_pieces_and_other_domains_stand_in():
    """None of them is the translation that is wanted, nor the input; few are of all sources."""
    pairs = read_pairs(MINI)
    assert len({pair.source.split("/")[0] for pair in translations.choose(pairs, 7)}) == 7
    for place, pair in enumerate(pairs):
        for target in config.SIX_DOMAINS:
            found = report.wrong(place, pairs, target, lambda *which: which)
            assert {*found} == {"wrong_excerpt", "wrong_domain"}
            other, name = found["wrong_excerpt"]
            assert pairs[other].piece != pair.piece and name == target
            assert found["wrong_domain"][1] not in (pair.source, target)
    same = [replace(pair, piece="the same") for pair in pairs]
    assert "wrong_excerpt" not in report.wrong(0, same, "bach_organ", lambda *_: None)


def test_blends_are_made_of_two_excerpts_of_a_domain(model, monkeypatch):
    pairs = [replace(pair, source="bach_organ") for pair in read_pairs(MINI)[:2]]
    heard, blended = [features.excerpt(pair.audio()).waveform for pair in pairs], {}

    def decode(model, domain, *sounds, **_):
        blended[domain] = sounds
        return np.concatenate(sounds)[: -int(blending.BLEND * 16_000)]

    monkeypatch.setattr(blending, "decode", decode)
    [found] = blending.blends(model, pairs)
    assert found["blend"] > 0 and found["hard_cut"] == pytest.approx(2.17, abs=0.05)
    assert all((a == b).all() for a, b in zip(blended["bach_organ"], heard, strict=True))


@pytest.fixture
def pack(here, umt, monkeypatch):
    """Make a pack of two excerpts, in which each domain's translations are a tone of its own."""
    tones = {name: tone(0.5, hertz=300.0 + 60 * n) for n, name in enumerate(config.SIX_DOMAINS)}

    def translated(model, pairs, domains=config.SIX_DOMAINS, **settings):
        return {(pair.id, name): tones[name] for pair in pairs for name in domains}

    def make(*arguments):
        given = ("--out", "pack", "--data", "corner", "--model", "model", "--excerpts", 2)
        status, said, complaint = umt("stimuli", *arguments, *given)
        assert status == 0, complaint
        assert said.strip().endswith("umt ratings SHEETS... --key pack/key.csv")
        head, *lines = Path("pack/sheet.csv").read_text().splitlines()
        return listening.read("pack/key.csv", ("clip",)), head, lines

    monkeypatch.setattr(stimuli, "translate_pairs", translated)
    make.tones = tones
    return make


def test_stimuli_and_ratings(pack, umt):
    """A blind test from the pack to the table, by a listener who knows the key."""
    keys, head, lines = pack("opinion", "--to", "bach_organ")
    blind = {f"{number:03d}.wav" for number in range(10)}
    names = {"key.csv", "sheet.csv", "source-00.wav", "source-01.wav", *blind}
    assert {path.name for path in Path("pack").iterdir()} == names
    assert {row["stimulus"] for row in keys} == blind == {line.split(",")[1] for line in lines}
    assert {row["system"] for row in keys} == {"source", "translation", "truth", "mulaw", "low"}
    low = {row["stimulus"] for row in keys if row["system"] == "low"}
    heard = {(row["clip"], row["system"]): audio.read(f"pack/{row['stimulus']}") for row in keys}
    for clip in {row["clip"] for row in keys}:
        true, coded, dull = (heard[clip, name] for name in ("truth", "mulaw", "low"))
        assert 0 < np.std(coded - true) < np.std(dull - true) / 2
    for rater in "abc":
        filled = [f"{rater}{line}{5 - 4 * (line.split(',')[1] in low)}" for line in lines]
        Path(f"{rater}.csv").write_text("\n".join([head, *filled]) + "\n")
    status, said, _ = umt("ratings", "a.csv", "b.csv", "c.csv", "--key", "pack/key.csv")
    assert status == 0
    assert "| low | 6 | 1.00±0.00 | 0 | 0 |" in said and "Left out: nobody." in said
    Path("a.csv").write_text("rater,stimulus,score\nme,999.wav,3\n")
    assert "'999.wav' is not in pack/key.csv" in umt("ratings", "a.csv", "--key", "pack/key.csv")[2]


def test_lineup_and_ratings(pack, umt):
    """Whoever knows the sounds can answer; their names and places tell nothing."""
    keys, head, lines = pack("lineup")
    assert (head, lines) == ("rater,lineup,answer", [",lineup-00,", ",lineup-01,"])
    for row in keys:
        heard = audio.read(f"pack/{row['lineup']}-{row['number']}.wav")
        own = features.excerpt(pack.tones[row["heard"]]).waveform
        np.testing.assert_allclose(heard, own, atol=1e-4)
    orders = {"".join(r["heard"] for r in keys if r["lineup"] == f"lineup-0{n}") for n in (0, 1)}
    assert len(keys) == 12 and len(orders) == 2
    right = [f"a,{row['lineup']},{row['number']}" for row in keys if row["heard"] == row["domain"]]
    Path("a.csv").write_text("\n".join([head, *right]) + "\n")
    status, said, complaint = umt("ratings", "a.csv", "--key", "pack/key.csv", "--json")
    assert status == 0, complaint
    found = json.loads(said)
    assert (found["right"], found["n"], found["chance"]) == (2, 2, pytest.approx(1 / 6))
    assert found["domains"] == sorted(config.SIX_DOMAINS)
    wrong = [f"b,{row['lineup']},{row['number']}" for row in keys if row["heard"] != row["domain"]]
    Path("b.csv").write_text("\n".join([head, wrong[0]]) + "\n")
    said = umt("ratings", "a.csv", "a.csv", "b.csv", "--key", "pack/key.csv")[1]
    assert "2 of 3 right" in said


REFUSED = {
    ("--compare", "nowhere"): "no model 'nowhere'",
    ("--notes", "nowhere"): "holds no notes",
    ("--recogniser", "nowhere"): "no recogniser can be read from nowhere",
    ("--out", "model"): "exists already",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_evaluated_is_refused(here, umt, arguments):
    """In one line, and nothing is left behind."""
    before = sorted(Path().iterdir())
    given = ("--data", "corner", "--model", "model", "--out", "out", "--excerpts", 1, *arguments)
    assert_refused(umt("evaluate", *given), REFUSED[arguments])
    assert sorted(Path().iterdir()) == before


def test_ratings_from_elsewhere(tmp_path, umt):
    table = tmp_path / "lineup.csv"
    table.write_text("rater,clip,domain,answer\na,b,one,two\n")
    assert "by chance 0.500" in umt("ratings", table)[1]
    scores = tmp_path / "scores.csv"
    scores.write_text("rater,clip,system,score,comment\na,b,x,3,\na,b,x,5,I was too strict\n")
    status, said, _ = umt("ratings", scores, "--json")
    assert json.loads(said)["systems"]["x"]["mean"] == 5  # the last answer counts
    for wrong, words in {
        (tmp_path / "no.csv",): "is no table", (table, scores): "each kind by itself",
        (scores, "--key", scores): "has no column 'stimulus'",
    }.items():  # fmt: skip
        assert_refused(umt("ratings", *wrong), words)
