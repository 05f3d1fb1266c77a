"""NSynth's layout to a corpus: selection, domains, splits; and training on the result."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import umtlib
from conftest import assert_refused, tone
from umtlib.corpora import download, nsynth
from umtlib.corpora.corpus import SKIPPED, Corpus
from umtlib.corpora.nsynth import Selection
from umtlib.errors import CorpusError, UmtError

MINI = Path(__file__).parents[1] / "data" / "mini-nsynth"

# A note of the real nsynth-test/examples.json (CC BY 4.0), field by field.
REAL = {
    "reed_acoustic_023-097-127": {
        "qualities": [0, 0, 0, 1, 0, 1, 1, 1, 0, 0], "pitch": 97, "note": 71140,
        "instrument_source_str": "acoustic", "velocity": 127,
        "instrument_str": "reed_acoustic_023", "instrument": 224, "sample_rate": 16000,
        "qualities_str": ["fast_decay", "multiphonic", "nonlinear_env", "percussive"],
        "instrument_source": 0, "note_str": "reed_acoustic_023-097-127",
        "instrument_family": 7, "instrument_family_str": "reed",
    },
}  # fmt: skip


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
    return {name: REAL["reed_acoustic_023-097-127"] | {
        "note_str": name, "instrument_str": instrument, "pitch": pitch, "velocity": velocity,
        "instrument_family_str": family, "instrument_source_str": source,
    }}  # fmt: skip


def build(folder, out, **settings):
    nsynth.build(folder, out, workers=0, **settings)
    return Corpus(out)


def test_the_shipped_notes_have_the_layout():
    sizes = [path.stat().st_size for path in MINI.rglob("*") if path.is_file()]
    assert sum(sizes) <= 2_000_000
    owners = {}
    for part in nsynth.SPLITS:
        raw = json.loads((MINI / part / "examples.json").read_text())
        assert all(
            fields.keys() == REAL["reed_acoustic_023-097-127"].keys() for fields in raw.values()
        )
        notes = list(nsynth.read_examples(MINI / part / "examples.json"))
        files = {path.stem for path in (MINI / part / "audio").glob("*.wav")}
        assert files == {n["note_str"] for n in notes}
        owners[part] = {n["instrument_str"] for n in notes}
        for name in files:
            samples, rate = soundfile.read(MINI / part / "audio" / f"{name}.wav", dtype="int16")
            assert (rate, samples.shape) == (16_000, (16_000,)) and np.abs(samples).max() > 300
            f0 = 440 * 2 ** ((int(name.split("-")[1]) - 69) / 12)
            spectrum = np.abs(np.fft.rfft(samples[1_600:11_200], 160_000))
            peaks = [
                spectrum[int(10 * f0 * k * 0.985) : int(10 * f0 * k * 1.015)].max()
                for k in (1, 2, 3)
            ]
            assert max(peaks) > 0.5 * spectrum.max(), name  # it sounds at its pitch
    assert not owners["nsynth-train"] & (owners["nsynth-valid"] | owners["nsynth-test"])


def test_families_keep_the_official_splits(tmp_path):
    corpus = build(MINI, tmp_path / "out", selection=Selection(velocities=[50]))
    assert corpus.domains == ("flute", "guitar", "keyboard") and len(corpus.tracks) == 12
    for track in corpus.tracks:
        assert nsynth.SPLITS[track.source["nsynth"]] == track.split
        assert track.domain == track.source["instrument_family_str"]
    assert (tmp_path / "out" / SKIPPED).read_text() == ""


def test_an_instrument_is_divided_by_pitch(tmp_path):
    flutes = Selection(families=["flute"])
    corpus = build(MINI, tmp_path / "out", by="instrument", selection=flutes)
    assert len(corpus.domains) == 4
    by_pitch = {}
    for track in corpus.tracks:
        by_pitch.setdefault((track.domain, track.source["pitch"]), set()).add(track.split)
    assert all(len(splits) == 1 for splits in by_pitch.values())
    for domain in corpus.domains:
        assert corpus.select(domain, "train") and corpus.select(domain, "val")


@pytest.mark.parametrize("choice, names", [
    ({"families": ["flute"]}, 8), ({"sources": ["acoustic"]}, 8), ({"pitches": (61, 90)}, 3),
    ({"velocities": [25]}, 3), ({"instruments": ["reed_acoustic_001"]}, 4), ({}, 12),
    ({"families": ["flute"], "velocities": [25], "pitches": (60, 60)}, 2),
])  # fmt: skip
def test_selection(choice, names):
    notes = [
        note(f"{kind}_001", pitch, velocity)
        for kind in ("flute_acoustic", "flute_electronic", "reed_acoustic")
        for pitch, velocity in ((60, 25), (60, 100), (70, 100), (50, 127))
    ]
    assert sum(Selection(**choice).takes(n) for each in notes for n in each.values()) == names


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
    found = list(nsynth.read_examples(tmp_path / "nsynth-test/examples.json"))
    assert [n["note_str"] for n in found] == sorted(REAL)
    assert all(each.items() <= REAL[each["note_str"]].items() for each in found)
    with pytest.raises(CorpusError, match="no track for train"):
        build(tmp_path, tmp_path / "out")
    write(tmp_path, "nsynth-train", note(pitch=60) | note(pitch=61) | note(pitch=62))
    audio = tmp_path / "nsynth-train" / "audio"
    (audio / "flute_acoustic_001-061-100.wav").unlink()
    flutes = Selection(families=["flute"])
    build(tmp_path, tmp_path / "out", by="instrument", selection=flutes)
    [line] = map(json.loads, (tmp_path / "out" / SKIPPED).read_text().splitlines())
    assert line["file"] == "nsynth-train/audio/flute_acoustic_001-061-100.wav"
    assert "No such file" in line["reason"]


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


def test_what_is_not_nsynth(tmp_path):
    with pytest.raises(CorpusError, match="has no nsynth-train/examples.json"):
        build(tmp_path, tmp_path / "out")
    with pytest.raises(CorpusError, match="by 'colour'"):
        build(MINI, tmp_path / "out", by="colour")
    with pytest.raises(CorpusError, match="loosen"):
        build(MINI, tmp_path / "out", selection=Selection(families=["tuba"]))


def test_training_on_it_from_end_to_end(umt, tmp_path):
    command = ["corpus", "nsynth", MINI, "--family", "flute", "--family", "keyboard"]
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


def test_the_command_asks_the_network_for_nothing_that_is_there(umt, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_fetch", None)
    command = ["corpus", "nsynth", MINI, "--download", "--velocity", 50, "--workers", 1, "--out"]
    status, printed, complaint = umt(*command, tmp_path / "out")
    assert status == 0 and "12 tracks" in printed, complaint
    refused = umt("corpus", "nsynth", tmp_path, "--out", tmp_path / "three")
    assert_refused(refused, "nsynth-train/examples.json", out=tmp_path / "three")


def test_only_one_process_downloads(umt, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = umt("corpus", "nsynth", tmp_path, "--download", "--out", tmp_path / "out")
    assert refused[0] == 2 and "without torchrun" in refused[2] and not any(tmp_path.iterdir())
