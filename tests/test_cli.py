"""``umt``: the main job on a tiny model, and every bad input one by one.

Each input is translated correctly, or refused with one line on stderr, exit status 2, no traceback
and no output.
"""

import io
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tqdm import tqdm

import umtlib
from conftest import DOMAINS, assert_refused, tone
from umtlib import audio, cli
from umtlib.cli import printing, train
from umtlib.config import SIX_DOMAINS
from umtlib.errors import GenerationError
from umtlib.generation import hearing, translation
from umtlib.notebook import artist


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def translate(umt, blink_folder, work):
    """Run ``umt translate``, without pictures for speed."""

    def run(*arguments):
        return umt("translate", "--model", blink_folder, "--out", "out", "--no-picture", *arguments)

    return run


# What is translated


def test_one_file_into_all_domains_with_a_picture(umt, work, blink_folder, monkeypatch):
    """It is decoded once, and what was made is not read."""
    decoded, stream = [], audio.stream
    monkeypatch.setattr(audio, "stream", lambda path: decoded.append(str(path)) or stream(path))
    soundfile.write("in.wav", tone(0.1), 16_000)
    status, printed, _ = umt("translate", "in.wav", "--model", blink_folder, "--out", "a/b")
    assert status == 0 and decoded == ["in.wav"]
    names = ["in.drum.wav", "in.flute.wav", "in.png"]
    assert sorted(os.listdir("a/b")) == names
    assert Path("a/b/in.png").read_bytes().startswith(b"\x89PNG")
    for name in names[:2]:
        assert f"a/b/{name}: 0.10 s of audio, there after " in printed
    assert re.search(r"2 domains made on \w+ in (int8|float32) in .* x real time", printed)


def test_what_is_written_is_what_the_library_returns(translate, blink_model):
    soundfile.write("in.wav", tone(0.1, 44_100), 44_100)
    status, printed, _ = translate("in.wav", "--to", "drum", "--seed", 7, "--temperature", 0.8)
    assert status == 0 and "\n1 domain made on " in printed
    assert os.listdir("out") == ["in.drum.wav"]
    info = soundfile.info("out/in.drum.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    samples, rate = soundfile.read("in.wav")
    found = umtlib.translate(blink_model, samples, rate, to="drum", seed=7, temperature=0.8)
    assert np.allclose(audio.read("out/in.drum.wav"), found, atol=1 / 2**15)
    other = umtlib.translate(blink_model, samples, rate, to="drum", seed=8, temperature=0.8)
    assert not np.allclose(found, other)


def test_a_domain_does_not_depend_on_the_others(blink_model):
    both = translation.translate(blink_model, tone(), 16_000, to=["drum", "flute", "drum"])
    assert list(both) == ["drum", "flute"]
    alone = translation.translate(blink_model, tone(), 16_000, to="flute")
    assert np.array_equal(both["flute"], alone)
    assert list(translation.translate(blink_model, tone(), 16_000)) == list(DOMAINS)


def test_loudness_does_not_matter(blink_model):
    loud = translation.translate(blink_model, tone(amplitude=0.5), 16_000, to="drum")
    quiet = translation.translate(blink_model, tone(amplitude=0.005), 16_000, to="drum")
    assert np.array_equal(loud, quiet)


def test_results_are_equally_loud_but_a_murmur_stays_one(blink_model, monkeypatch):
    made = {"drum": tone(amplitude=0.9), "flute": tone(amplitude=0.001)}
    monkeypatch.setattr(translation, "pieces", lambda *_, **__: iter(made.items()))
    found = translation.translate(blink_model, tone(), 16_000)
    assert np.allclose(np.sqrt(np.mean(found["drum"] ** 2)), audio.LEVEL, rtol=0.01)
    assert np.allclose(found["flute"], made["flute"] * 10 ** (12 / 20), rtol=0.01)


def test_long_audio_is_encoded_in_pieces_that_do_not_show(blink_model, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, 5_001).astype(np.float32)
    whole = translation.encode(blink_model, noise)
    monkeypatch.setattr(hearing, "PIECE", 400)
    # Only the order of additions may differ.
    assert np.allclose(translation.encode(blink_model, noise), whole, atol=1e-5)


def test_a_long_recording_is_cut_unless_told_otherwise(translate, blink_model, monkeypatch):
    monkeypatch.setenv("UMT_THREADS", "1")  # 4 stretches of 5 s pay
    for seconds, more, cut in ((24, (), True), (24, ("--no-chunked",), False), (8, (), False),
                               (8, ("--chunked",), True)):  # fmt: skip
        soundfile.write("in.wav", tone(seconds), 16_000)
        status, printed, _ = translate("in.wav", "--to", "drum", *more)
        assert status == 0 and ("in.wav: cut into" in printed) == cut
        found = umtlib.translate(blink_model, audio.read("in.wav"), 16_000, to="drum", chunked=cut)
        assert np.allclose(audio.read("out/in.drum.wav"), found, atol=1 / 2**15)


def test_the_picture_of_a_long_recording_shows_its_beginning(umt, work, blink_folder, monkeypatch):
    lengths, titles = [], []
    monkeypatch.setattr(cli.translate, "PICTURED", 60)
    monkeypatch.setattr(artist, "hired", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(artist, "look", lambda _name, wave: lengths.append(len(wave)))
    monkeypatch.setattr(artist, "draw", lambda title, _path: titles.append(title))
    for seconds in (59, 61):
        soundfile.write("in.wav", tone(seconds), 16_000)
        assert umt("translate", "in.wav", "--model", blink_folder, "--to", "drum")[0] == 0
    assert lengths == [59 * 16_000] * 2 + [60 * 16_000] * 2
    assert titles == ["", "the first 1 minutes"]


def test_the_death_of_who_draws_is_told():
    with pytest.raises(GenerationError, match="process that draws .*; --no-picture does without"):
        with artist.hired() as pool:
            pool.submit(os._exit, 1).result()


# What is refused


def good(*names):
    for name in names or ["in.wav"]:
        soundfile.write(name, tone(), 16_000)


REFUSED = {  # what is made, what is then asked for, what the complaint says
    "no file": (lambda: None, ["nothing.wav"], ["nothing.wav", "No such file"]),
    "text": (lambda: Path("in.wav").write_text("This is no audio.\n" * 500), ["in.wav"],
             ["in.wav", "convert"]),
    "a device": (lambda: None, [os.devnull], ["regular file"]),
    "output below a file": (good, ["in.wav", "--out", "in.wav/out"], ["in.wav/out"]),
    "output in place of a file": (good, ["in.wav", "--out", "in.wav"], ["in.wav", "File exists"]),
    "unknown domain": (good, ["in.wav", "--to", "kazoo"], ["kazoo", "flute, drum"]),
    "unknown model": (good, ["in.wav", "--model", "missing"], ["missing"]),
    "unknown backend": (good, ["in.wav", "--backend", "abacus"], ["abacus"]),
    "two inputs for one output": (lambda: good("in.wav", "in.flac"), ["in.wav", "in.flac"],
                                  ["in.wav", "in.flac", "rename"]),
    "bad after good": (good, ["in.wav", "nothing.wav"], ["nothing.wav"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_translated_is_refused(translate, name):
    make, arguments, words = REFUSED[name]
    make()
    assert_refused(translate(*arguments), *words)


def test_a_full_disk_leaves_no_half_file(translate, monkeypatch):
    good()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, complaint = translate("in.wav")
    assert (status, complaint.count("\n")) == (2, 1) and "No space left" in complaint
    assert os.listdir("out") == []


def test_output_equal_to_an_input(translate):
    os.mkdir("sub")
    good("in.wav", "in.flute.wav")
    before = Path("in.flute.wav").read_bytes()
    result = translate("in.wav", "in.flute.wav", "--out", "sub/..")
    assert_refused(result, "in.flute.wav", "--out")
    assert Path("in.flute.wav").read_bytes() == before


def test_train_with_settings_resume_and_translate(umt, work, corpus):
    command = ["train", "--preset", "tiny", "--data", corpus, "--out", "run", "--workers", 0]
    wrong = {"--data=nowhere": "nowhere", "--set=crop": "'crop' must be NAME=VALUE",
             "--set=crops=400": "'crops'", "--set=crop=many": "'many'"}  # fmt: skip
    for change, words in wrong.items():
        assert_refused(umt(*command, "--steps", 1, change), words, out="run")
    command += ["--set", "crop=400", "--set", "clip=1.5", "--set", "augment=false", "--steps"]
    status, printed, _ = umt(*command, 2)
    assert status == 0 and "step 2" in printed
    saved = json.loads(Path("run/step-00000002/training.json").read_text())
    assert (saved["crop"], saved["clip"], saved["augment"]) == (400, 1.5, False)
    assert_refused(umt(*command, 3), "--resume")
    assert_refused(umt(*command, 3, "--resume", "--set", "clip=2"), "another configuration")
    status, printed, _ = umt(*command, 3, "--resume")
    assert status == 0 and "step-00000003" in printed and "step 2" not in printed
    soundfile.write("in.wav", tone(0.01), 16_000)
    assert umt("translate", "in.wav", "--model", "run", "--no-picture", "--to", "drum")[0] == 0
    assert os.listdir("outputs") == ["in.drum.wav"]


def test_recordings_become_one_more_domain(umt, work, blink_folder):
    os.mkdir("mine")
    for number in range(4):
        soundfile.write(f"mine/{number}.wav", tone(1, hertz=200 + 50 * number), 16_000)
    command = ["train", "--data", "mine", "--out", "more", "--add-domain", "kazoo", "--workers", 0]
    command += ["--preset", "tiny", "--model", blink_folder, "--steps", 1]
    status, _, complaint = umt(*command)
    assert status == 0, complaint
    assert umtlib.load("more").domains == (*DOMAINS, "kazoo")


def test_a_bar_shows_what_is_done(monkeypatch):
    shown = []

    def bar(**settings):
        shown.append(tqdm(**settings | {"disable": False, "file": io.StringIO()}))
        return shown[-1]

    monkeypatch.setattr(printing, "tqdm", bar)
    with printing.bars() as progress:
        for stage, done in (("a\nb", 1), ("a\nb", 3), ("last", 4)):
            progress(stage, done, 4)
    assert [(one.desc, one.n, one.total) for one in shown] == [(r"a\nb", 3, 4), ("last", 4, 4)]


# As a process of its own


def test_doctor(umt):
    status, printed, _ = umt("doctor")
    assert status == 0
    for name in ("umtlib", "torch", "processor", "compiler", "GPU", "model"):
        assert name in printed


@pytest.fixture
def buffered():
    """Start ``umt`` as one process, which keeps what it prints until it ends."""
    there = {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONUNBUFFERED": ""}

    def start(command, stdout):
        return subprocess.run(
            [sys.executable, "-m", "umtlib", command], stdout=stdout, stderr=subprocess.PIPE,
            text=True, env=os.environ | there,
        )  # fmt: skip

    return start


@pytest.mark.parametrize("command, status, said", [
    ("--help", 0, "Usage: umt"), ("nonsense", 2, "No such command 'nonsense'; see umt --help\n"),
])  # fmt: skip
def test_the_process_ends_when_all_is_said(buffered, command, status, said):
    process = buffered(command, subprocess.PIPE)
    assert process.returncode == status and said in process.stdout + process.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_what_cannot_be_printed_is_an_error(buffered):
    with open("/dev/full", "w") as full:
        process = buffered("--help", full)
    assert process.returncode == 2
    assert process.stderr.startswith("umt: error: ") and "No space left" in process.stderr


def test_nobody_reads_what_is_printed(buffered):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody:
        process = buffered("--help", nobody)
    assert (process.returncode, process.stderr) == (1, "")


def test_training_keeps_the_papers_order_of_its_domains():
    assert train._in_order(sorted(SIX_DOMAINS)) == SIX_DOMAINS
    assert train._in_order(["b", "a"]) == ["b", "a"]
