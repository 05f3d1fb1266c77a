"""Folders of recordings to a corpus: what happens to each file, and that nothing is done twice."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from conftest import assert_refused, skipped, tone
from umtlib import audio
from umtlib.audio import opening
from umtlib.corpora import folders, prepare, processes
from umtlib.corpora.corpus import MANIFEST, SKIPPED, Corpus, open_audio, sha256
from umtlib.errors import AudioError, CorpusError, UmtError


def song(path, seconds=0.6, hertz=440.0, rate=16_000, channels=1, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.stack([tone(seconds, rate, hertz)] * channels, axis=1)
    soundfile.write(path, samples, rate, **settings)
    return path


def songs(folder, count=8, **settings):
    for number in range(count):
        song(folder / f"song ({number:02d}).wav", hertz=200 + 10 * number, **settings)
    return folder


def test_any_tree_becomes_a_corpus(tmp_path):
    root = tmp_path / "in"
    song(root / "a/deep/er/x.flac", rate=44_100, channels=2)
    song(root / "Ünïcode ♫/y.ogg", hertz=500, rate=22_050)
    song(root / "z.WAV", hertz=600, channels=8)
    song(root / "z.mp3", hertz=650)
    songs(root / "more")
    out, told = tmp_path / "out", []
    summary = folders.build({"flute": root}, out, workers=0, progress=lambda *s: told.append(s))
    assert summary == prepare.Summary(12, 0, 0, pytest.approx(12 * 0.6, abs=0.2))
    assert told[0] == ("files", 0, 12) and told[-1] == ("files", 12, 12)
    corpus = Corpus(out)
    assert corpus.domains == ("flute",) and skipped(out) == []
    for track in corpus.tracks:
        assert sha256(out / track.file) == track.sha256
        assert corpus.audio(track).dtype == np.int16
        assert len(corpus.audio(track)) == round(track.seconds * 16_000)
        original = root / track.source["source"]
        wanted = audio.level(audio.read(original)) * 32768
        assert np.abs(corpus.audio(track) - wanted).max() <= 0.5 + 1e-3  # it is only rounded
    assert {t.split for t in corpus.tracks} == {"train", "val", "test"}


def test_the_splits_keep_formats_together_and_do_not_move(tmp_path):
    songs(tmp_path / "in", 20)
    folders.build({"d": tmp_path / "in"}, tmp_path / "one", workers=0)
    for number in range(20):
        song(tmp_path / "in" / f"Song ({number:02d}).flac", hertz=200.5 + 10 * number)
    songs(tmp_path / "in/new", 5)  # the same audio as five others
    folders.build({"d": tmp_path / "in"}, tmp_path / "two", workers=0)
    before, after = (
        {t.source["source"]: t.split for t in Corpus(tmp_path / out).tracks}
        for out in ("one", "two")
    )
    assert len(before) == 20 and before.items() <= after.items()
    for name, split in before.items():
        assert after[name.capitalize().replace(".wav", ".flac")] == split
    lines = skipped(tmp_path / "two")
    assert len(lines) == 5 and all("the same audio as" in line["reason"] for line in lines)


def test_what_programs_keep_is_no_part_of_a_corpus(tmp_path):
    songs(tmp_path / ".in", 3)  # the folder that is named may have any name
    for place in ("", ".git/", ".Trash-1000/files/", "sub/.cache/", "__MACOSX/deep/", "@eaDir/"):
        song(tmp_path / ".in" / place / "._x.wav", hertz=900)
        song(tmp_path / ".in" / place / ("x.wav" if place else ".y.wav"), hertz=950)
    assert folders.build({"d": tmp_path / ".in"}, tmp_path / "out", workers=0).used == 3
    lines = skipped(tmp_path / "out")
    assert all(line["reason"].startswith("hidden") for line in lines)
    names = ".Trash-1000 ._x.wav .git .y.wav @eaDir __MACOSX sub/.cache"
    assert [line["file"] for line in lines] == names.split()


@pytest.mark.parametrize("count, splits", [(2, "train val"), (3, "test train val"), (40, None)])
def test_a_split_is_not_left_empty(count, splits):
    for attempt in range(20):
        items = [prepare.Item("", "", "d", f"{attempt} {n}") for n in range(count)]
        found = prepare.assign_splits(items)
        assert " ".join(sorted(set(found))) == (splits or "test train val")
    assert found.count("train") > 0.6 * count or count < 4


@pytest.fixture
def done(monkeypatch):
    """Names of the files that are converted."""
    names, convert = [], prepare.convert
    monkeypatch.setattr(
        prepare, "convert", lambda out, item: names.append(item.name) or convert(out, item)
    )
    return names


def test_nothing_is_done_twice(tmp_path, done):
    root, out = songs(tmp_path / "in", 4), tmp_path / "out"
    (root / "broken.wav").write_bytes(b"RIFF")

    def build():
        done.clear()
        folders.build({"d": root}, out, workers=0)
        return done

    assert len(build()) == 5
    made = [(out / name).read_bytes() for name in (MANIFEST, SKIPPED)]
    assert len(skipped(out)) == 1 and build() == ["broken.wav"]
    assert made == [(out / name).read_bytes() for name in (MANIFEST, SKIPPED)]
    # one track is gone, one recording is new, one has changed, one has been mended
    tracks = {t.source["source"]: out / t.file for t in Corpus(out).tracks}
    tracks["song (01).wav"].unlink()
    for name in ("new.wav", "song (02).wav", "broken.wav"):
        song(root / name, 0.7, hertz=900 + len(name))
    with (out / prepare.WORK / "0-of-1.jsonl").open("ab") as journal:
        journal.write(b'{"key": "to')  # torn by a crash
    assert build() == ["broken.wav", "new.wav", "song (01).wav", "song (02).wav"]
    assert skipped(out) == [] and build() == [] and len(Corpus(out).tracks) == 6
    for track in Corpus(out).tracks:
        assert sha256(out / track.file) == track.sha256


def test_a_build_that_was_killed_goes_on(tmp_path, done):
    def stop(_stage, count, _total):
        if count == 3:
            sys.exit(143)

    songs(tmp_path / "in", 6)
    with pytest.raises(SystemExit):
        folders.build({"d": tmp_path / "in"}, tmp_path / "out", workers=0, progress=stop)
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert folders.build({"d": tmp_path / "in"}, tmp_path / "out", workers=0).used == 6
    assert done == [f"song ({number:02d}).wav" for number in range(6)]


def test_what_is_dropped_or_cut_is_listed(tmp_path):
    root = songs(tmp_path / "in", 3)
    (root / "notes.txt").write_text("x")
    (root / "word.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    for name, samples in {"silent": np.zeros(16_000), "constant": np.full(16_000, 0.5),
                          "short": tone(0.4)}.items():  # fmt: skip
        soundfile.write(root / f"{name}.wav", samples, 16_000)
    for name, seconds in {"truncated.wav": 2, "truncated.flac": 3}.items():
        whole = song(root / name, seconds, 330 + seconds).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    os.symlink(root, root / "loop")
    summary = folders.build({"d": root}, tmp_path / "out", workers=0)
    lines = {line["file"]: line for line in skipped(tmp_path / "out")}
    for name, words in {
        "notes.txt": "no audio file by its name ('.txt')", "silent.wav": "silent", "loop": "link",
        "constant.wav": "silent", "short.wav": "too short: 0.4 s", "word.m4a": "convert it to WAV",
        "truncated.wav": "as far as it goes", "truncated.flac": "of the 3 s",
    }.items():  # fmt: skip
        assert words in lines[name]["reason"], name
    cut = {name for name, line in lines.items() if "kept_seconds" in line}
    assert cut == {"truncated.wav", "truncated.flac"} and summary.cut == 2
    assert (summary.used, summary.dropped, len(lines)) == (5, 6, 8)


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    root = songs(tmp_path / "in", 3)
    song(root / "shut/x.wav", hertz=700)

    def scandir(path, given=os.scandir):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return given(path)

    monkeypatch.setattr(os, "scandir", scandir)  # a test may be run by root, whom nothing stops
    assert folders.build({"d": root}, tmp_path / "out", workers=0).dropped == 1
    (line,) = skipped(tmp_path / "out")
    assert line["file"] == "shut" and "cannot be read" in line["reason"]


@pytest.mark.parametrize("domains, words", [
    ({"a b": "in"}, "letters, digits"), ({"a": "nowhere"}, "is no folder"),
    ({"a": "in", "b": "in"}, "inside"), ({"a": "in", "b": "in/sub"}, "inside"),
    ({"a": "."}, "inside"), ({"a": "out/sub"}, "inside"), ({"a": "empty"}, "with audio files"),
    ({"a": "single"}, "two usable recordings"), ({"a": "in", "b": "bad"}, "'b' has no track"),
])  # fmt: skip
def test_what_cannot_be_prepared(tmp_path, domains, words):
    for name in ("in", "in/sub", "out/sub"):
        songs(tmp_path / name, 3)
    song(tmp_path / "single/x.wav")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.wav").write_bytes(b"x")
    given = {name: tmp_path / folder for name, folder in domains.items()}
    with pytest.raises(UmtError, match=words):
        folders.build(given, tmp_path / "out", workers=0)
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize("domains, out, words", [
    (["in"], "out", "write NAME=..."), (["=in"], "out", "write NAME=..."),
    (["a=in", "a=in/sub"], "out", "each name"), (["a=in/x.wav"], "out", "is no folder"),
    (["a=in"], "loop", "symbolic links"),
])  # fmt: skip
def test_a_wrong_command(umt, tmp_path, monkeypatch, domains, out, words):
    monkeypatch.chdir(tmp_path)
    song(tmp_path / "in/x.wav")
    os.symlink("loop", "loop")
    options = [option for domain in domains for option in ("--domain", domain)]
    assert_refused(umt("corpus", "folder", *options, "--out", out), words, out=out)


@pytest.mark.parametrize("name, rate, channels", [
    ("x.wav", 44_100, 1), ("x.wav", 16_000, 2), ("x.flac", 8_000, 1), ("x.flac", 16_000, 2),
])  # fmt: skip
def test_a_track_of_another_kind_is_refused(tmp_path, name, rate, channels):
    path = song(tmp_path / name, rate=rate, channels=channels)
    with pytest.raises(CorpusError, match="is not 16 kHz, mono, 16 bit"):
        open_audio(path)


def test_a_disk_that_is_full_stops_the_run_and_drops_nothing(tmp_path, monkeypatch):
    songs(tmp_path / "in", 3)

    class Full(soundfile.SoundFile):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", Full)
        patch.setattr(opening, "_Sequential", type("S", (opening._Sequential,), {}))
        with pytest.raises(AudioError, match="No space left"):
            folders.build({"d": tmp_path / "in"}, tmp_path / "out", workers=0)
    assert folders.build({"d": tmp_path / "in"}, tmp_path / "out", workers=0).used == 3


def test_a_process_that_ends_is_not_blamed_on_the_files(tmp_path):
    with pytest.raises(CorpusError, match="a process ended"):
        list(processes.each(os._exit, [9, 9], 2))


@pytest.mark.slow
def test_two_processes_share_the_work_through_the_file_system(tmp_path):
    given = {"a": songs(tmp_path / "a", 7), "b": songs(tmp_path / "b", 4, rate=8_000)}
    (tmp_path / "b/bad.wav").write_bytes(b"bad")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    domains = [word for name, root in given.items() for word in ("--domain", f"{name}={root}")]
    command = ["-m", "umtlib", "corpus", "folder", *domains, "--out", tmp_path / "out"]
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "11 tracks" in done.stdout, done.stderr
    journals = {path.name: path.read_text() for path in (tmp_path / "out/.work").glob("*.jsonl")}
    assert journals.keys() == {"0-of-2.jsonl", "1-of-2.jsonl"}
    assert all(text.count('"key"') == 6 for text in journals.values())  # none did it all
    folders.build(given, tmp_path / "alone", workers=0)
    for name in (MANIFEST, SKIPPED):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "alone" / name).read_text()


def test_a_shard_alone_makes_no_manifest(tmp_path):
    given, out = {"a": songs(tmp_path / "a", 5)}, tmp_path / "out"
    assert folders.build(given, out, workers=0, shard=(0, 2)) is None
    assert not (out / MANIFEST).exists()
    assert folders.build(given, out, workers=0, shard=(1, 2)).used == 5
    assert len(Corpus(out).tracks) == 5


def test_as_a_command(umt, tmp_path):
    folder, out, alone = songs(tmp_path / "in", 6), tmp_path / "out", tmp_path / "alone"
    status, printed, _ = umt(
        "corpus", "folder", "--domain", f"d={folder}", "--workers", 2, "--out", out
    )
    assert status == 0 and "6 tracks" in printed and "0 files dropped, 0 cut" in printed
    folders.build({"d": folder}, alone, workers=0)
    assert (out / MANIFEST).read_text() == (alone / MANIFEST).read_text()


HUNGRY = """
import contextlib, resource, sys
from umtlib.corpora import folders
from umtlib.corpora.corpus import Corpus

if __name__ == "__main__":
    taken, more = int(open("/proc/self/statm").read().split()[5]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_DATA, [taken * resource.getpagesize() + more] * 2)
    with contextlib.suppress(MemoryError):
        bytearray(more + 2**20)
        sys.exit("the limit does not hold")
    folders.build({"d": sys.argv[1]}, sys.argv[2], workers=0)
    corpus = Corpus(sys.argv[2])
    for track in corpus.tracks:
        assert corpus.audio(track).max() > 1000
"""


@pytest.mark.skipif(sys.platform != "linux", reason="this limit of memory is Linux's")
def test_a_corpus_ten_times_the_memory_limit(tmp_path):
    # 8 files of 675 s: 173 MB in the corpus, and one alone is 43 MB as float32; the limit allows
    # 16 MiB above what the imports take.
    noise = np.random.default_rng(0).integers(-9000, 9000, 16_000 * 675).astype(np.int16)
    (tmp_path / "in").mkdir()
    for number in range(8):
        noise[number] = 0  # each is another file
        soundfile.write(tmp_path / f"in/{number}.wav", noise, 16_000)
    limit = 16 << 20
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, tmp_path / "in", tmp_path / "out", str(limit)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.wav")) > 10 * limit
