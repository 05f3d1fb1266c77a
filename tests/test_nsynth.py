"""NSynth's layout to a corpus: selection, domains, splits; and training on the result."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import umtlib
from conftest import assert_refused, skipped, tone
from umtlib.corpora import download, nsynth
from umtlib.corpora.corpus import Corpus
from umtlib.errors import CorpusError, UmtError

MINI = Path(__file__).parents[1] / "data" / "mini-nsynth"

# A note of the real nsynth-test/examples.json (CC BY 4.0), field by field.
REAL_NOTE = {
    "qualities": [0, 0, 0, 1, 0, 1, 1, 1, 0, 0], "pitch": 97, "note": 71140,
    "instrument_source_str": "acoustic", "velocity": 127,
    "instrument_str": "reed_acoustic_023", "instrument": 224, "sample_rate": 16000,
    "qualities_str": ["fast_decay", "multiphonic", "nonlinear_env", "percussive"],
    "instrument_source": 0, "note_str": "reed_acoustic_023-097-127",
    "instrument_family": 7, "instrument_family_str": "reed",
}  # fmt: skip
REAL = {"reed_acoustic_023-097-127": REAL_NOTE}


def write(folder, part, notes):
    (folder / part / "audio").mkdir(parents=True)
    (folder / part / "examples.json").write_text(json.dumps(notes, indent=4))
    for number, name in enumerate(notes):
        path = folder / part / "audio" / f"{Path(name).name}.wav"
        soundfile.write(path, tone(0.6, hertz=200 + 7 * number + sum(map(ord, part))), 16_000)
    return folder


def note(instrument="flute_acoustic_001", pitch=60, velocity=100):
    family, source, _ = instrument.rsplit("_", 2)
    name = f"{instrument}-{pitch:03d}-{velocity:03d}"
    return {name: REAL_NOTE | {
        "note_str": name, "instrument_str": instrument, "pitch": pitch, "velocity": velocity,
        "instrument_family_str": family, "instrument_source_str": source,
    }}  # fmt: skip


def build(folder, out, **settings):
    nsynth.build(folder, out, workers=0, **settings)
    return Corpus(out)


def test_the_shipped_notes_have_the_layout():
    assert sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file()) <= 2_000_000
    owners = {}
    for part in nsynth.SPLITS:
        raw = json.loads((MINI / part / "examples.json").read_text())
        assert all(fields.keys() == REAL_NOTE.keys() for fields in raw.values())
        notes = nsynth.read_examples(MINI / part / "examples.json")
        assert {path.stem for path in (MINI / part / "audio").glob("*.wav")} == raw.keys()
        owners[part] = {n["instrument_str"] for n in notes}
        for note in notes:
            path = MINI / part / "audio" / f"{note['note_str']}.wav"
            samples, rate = soundfile.read(path, dtype="int16")
            assert (rate, samples.shape) == (16_000, (16_000,)) and np.abs(samples).max() > 300
            spectrum = np.abs(np.fft.rfft(samples[1_600:11_200], 160_000))  # 10 bins per Hz
            partials = 4_400 * 2 ** ((note["pitch"] - 69) / 12) * np.arange(1, 4)
            peaks = [spectrum[int(0.985 * p) : int(1.015 * p)].max() for p in partials]
            assert max(peaks) > 0.5 * spectrum.max(), path  # it sounds at its pitch
    assert not owners["nsynth-train"] & (owners["nsynth-valid"] | owners["nsynth-test"])


def test_families_keep_the_official_splits(tmp_path):
    corpus = build(MINI, tmp_path / "out", velocities=[50])
    assert corpus.domains == ("flute", "guitar", "keyboard") and len(corpus.tracks) == 12
    for track in corpus.tracks:
        assert nsynth.SPLITS[track.source["nsynth"]] == track.split
        assert track.domain == track.source["instrument_family_str"]
    assert skipped(tmp_path / "out") == []


def test_an_instrument_is_divided_by_pitch(tmp_path):
    corpus = build(MINI, tmp_path / "out", by="instrument", families=["flute"])
    assert len(corpus.domains) == 4
    splits = {(t.domain, t.source["pitch"], t.split) for t in corpus.tracks}
    assert len(splits) == len({of[:2] for of in splits})
    for domain in corpus.domains:
        assert corpus.select(domain, "train") and corpus.select(domain, "val")


@pytest.mark.parametrize("choice, names", [
    ({"families": ["flute"]}, 8), ({"sources": ["acoustic"]}, 8), ({"pitches": (61, 90)}, 3),
    ({"velocities": [25]}, 3), ({"instruments": ["reed_acoustic_001"]}, 4), ({}, 12),
    ({"families": ["flute"], "velocities": [25], "pitches": (60, 60)}, 2),
])  # fmt: skip
def test_selection(tmp_path, monkeypatch, choice, names):
    notes = {}
    for kind in ("flute_acoustic", "flute_electronic", "reed_acoustic"):
        for pitch, velocity in ((60, 25), (60, 100), (70, 100), (50, 127)):
            notes |= note(f"{kind}_001", pitch, velocity)
    write(tmp_path, "nsynth-train", notes)
    monkeypatch.setattr(nsynth, "prepare", lambda items, out: items)
    assert len(nsynth.build(tmp_path, None, **choice)) == names


def test_a_family_without_official_validation(tmp_path):
    train = note("flute_acoustic_001") | note("flute_acoustic_002")
    train |= {k: v for n in range(4) for k, v in note(f"synth_lead_synthetic_00{n}").items()}
    write(tmp_path, "nsynth-train", train)
    write(tmp_path, "nsynth-valid", note("flute_acoustic_003"))
    corpus = build(tmp_path, tmp_path / "out")
    assert len(corpus.select("flute", "val")) == 1 and len(corpus.select("flute", "train")) == 2
    assert corpus.select("synth_lead", "val") and corpus.select("synth_lead", "train")


def test_real_and_missing_notes(tmp_path):
    write(tmp_path, "nsynth-test", REAL)
    [found] = nsynth.read_examples(tmp_path / "nsynth-test/examples.json")
    assert found["note_str"] in REAL and found.items() <= REAL_NOTE.items()
    with pytest.raises(CorpusError, match="no track for train"):
        build(tmp_path, tmp_path / "out")
    write(tmp_path, "nsynth-train", note(pitch=60) | note(pitch=61) | note(pitch=62))
    missing = "nsynth-train/audio/flute_acoustic_001-061-100.wav"
    (tmp_path / missing).unlink()
    build(tmp_path, tmp_path / "out", by="instrument", families=["flute"])
    [line] = skipped(tmp_path / "out")
    assert line["file"] == missing and "No such file" in line["reason"]


def changed(**fields):
    [(name, whole)] = note().items()
    return json.dumps({str(fields.get("note_str", name)): whole | fields})


@pytest.mark.parametrize("text", [
    "", "[1]", "{", '{"a": 1}', '{"a": {}}', "\xff", changed(pitch=None),
    changed(instrument_family_str=".."), changed(instrument_family_str="a/b"),
])  # fmt: skip
def test_a_damaged_or_hostile_list_is_refused(tmp_path, text):
    write(tmp_path, "nsynth-train", note())
    (tmp_path / "nsynth-train" / "examples.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UmtError, match="examples.json|letters"):
        build(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("folder, settings, words", [
    ("nowhere", {}, "has no nsynth-train/examples.json"), (MINI, {"by": "colour"}, "by 'colour'"),
    (MINI, {"families": ["tuba"]}, "loosen"),
])  # fmt: skip
def test_what_is_not_nsynth(tmp_path, folder, settings, words):
    with pytest.raises(CorpusError, match=words):
        build(tmp_path / folder, tmp_path / "out", **settings)


def test_training_on_it_from_end_to_end(umt, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_fetch", None)  # what is there is not fetched
    command = ["corpus", "nsynth", MINI, "--family", "flute", "--family", "keyboard", "--download"]
    command += ["--pitches", 50, 70, "--workers", 1]
    status, printed, complaint = umt(*command, "--out", tmp_path / "notes")
    assert status == 0 and "28 tracks" in printed, complaint
    command = ["train", "--preset", "tiny", "--data", tmp_path / "notes", "--workers", 0]
    command += ["--set", "crop=1600", "--set", "batch=1", "--steps", 2]
    status, printed, complaint = umt(*command, "--out", tmp_path / "run")
    assert status == 0 and "step 2" in printed, complaint
    assert umtlib.load(tmp_path / "run").domains == ("flute", "keyboard")
    unprepared = umt("train", "--data", MINI, "--out", tmp_path / "x", "--steps", 1)
    assert_refused(unprepared, "umt corpus folder', 'nsynth'", out=tmp_path / "x")


def test_only_one_process_downloads(umt, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = umt("corpus", "nsynth", tmp_path, "--download", "--out", tmp_path / "out")
    assert refused[0] == 2 and "without torchrun" in refused[2] and not any(tmp_path.iterdir())
