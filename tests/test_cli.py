"""``umt``: the main job on a tiny model, and every bad input one by one.

Each input is translated correctly, or refused with one line on stderr, exit status 2, no traceback
and no output.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import DOMAINS, assert_refused, tone

import umtlib
from umtlib import audio, cli, translation
from umtlib.corpora import corpus
from umtlib.notebook import plots


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


def assert_translated(result, stem, samples):
    assert result[0] == 0, result[2]
    assert sorted(os.listdir("out")) == sorted(f"{stem}.{name}.wav" for name in DOMAINS)
    for name in DOMAINS:
        info = soundfile.info(f"out/{stem}.{name}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert info.frames == samples


# What is translated


def test_one_file_into_all_domains_with_a_picture(umt, work, blink_folder):
    soundfile.write("in.wav", tone(0.1), 16_000)
    status, printed, _ = umt("translate", "in.wav", "--model", blink_folder, "--out", "a/b")
    assert status == 0
    names = ["in.drum.wav", "in.flute.wav", "in.png"]
    assert sorted(os.listdir("a/b")) == names
    assert Path("a/b/in.png").read_bytes().startswith(b"\x89PNG")
    for name in names[:2]:
        assert f"a/b/{name}: 0.10 s of audio, " in printed
    assert printed.count("x real time") == 2


def test_what_is_written_is_what_the_library_returns(translate, blink_model):
    soundfile.write("in.wav", tone(0.1, 44_100), 44_100)
    assert translate("in.wav", "--to", "drum", "--seed", 7, "--temperature", 0.8)[0] == 0
    assert os.listdir("out") == ["in.drum.wav"]
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


def test_progress_ends_at_the_length(blink_model):
    calls = []
    translation.translate(
        blink_model, tone(0.06), 16_000, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (960, 960) and calls == sorted(calls)


def test_loudness_does_not_matter(blink_model):
    loud = translation.translate(blink_model, tone(amplitude=0.5), 16_000, to="drum")
    quiet = translation.translate(blink_model, tone(amplitude=0.005), 16_000, to="drum")
    assert np.array_equal(loud, quiet)


def test_long_audio_is_encoded_in_pieces_that_do_not_show(blink_model, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, 5_001).astype(np.float32)
    whole = translation.encode(blink_model, noise)
    monkeypatch.setattr(translation, "PIECE", 400)
    # Only the order of additions may differ.
    assert np.allclose(translation.encode(blink_model, noise), whole, atol=1e-5)


def test_long_audio_is_decoded_in_pieces_that_do_not_show(blink_model, monkeypatch):
    latent = translation.encode(blink_model, tone(0.1).astype(np.float32))
    whole = translation.decode(blink_model, DOMAINS, latent, 1_555)
    monkeypatch.setattr(translation, "PIECE", 400)
    calls = []
    pieces = translation.decode(
        blink_model, DOMAINS, latent, 1_555, progress=lambda *call: calls.append(call)
    )
    assert all(np.array_equal(whole[name], pieces[name]) for name in DOMAINS)
    assert calls[-1] == (1_555, 1_555) and calls == sorted(calls)


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
    shown = []
    monkeypatch.setattr(cli.translate, "PICTURED", 60)
    monkeypatch.setattr(plots, "comparison", lambda sounds, title: shown.append((sounds, title)))
    monkeypatch.setattr(plots, "save", lambda *_: None)
    for seconds in (59, 61):
        soundfile.write("in.wav", tone(seconds), 16_000)
        assert umt("translate", "in.wav", "--model", blink_folder, "--to", "drum")[0] == 0
    lengths = [[len(sound) for sound in sounds.values()] for sounds, _ in shown]
    assert lengths == [[59 * 16_000] * 2, [60 * 16_000] * 2]
    assert [title for _, title in shown] == ["", "the first 1 minutes"]


def test_a_recording_is_decoded_once_and_what_was_made_is_not_read(
    umt, work, blink_folder, monkeypatch
):
    decoded, stream = [], audio.stream
    monkeypatch.setattr(audio, "stream", lambda path: decoded.append(str(path)) or stream(path))
    soundfile.write("in.wav", tone(0.1), 16_000)
    assert umt("translate", "in.wav", "--model", blink_folder)[0] == 0
    assert decoded == ["in.wav"] and os.path.exists("outputs/in.png")


def test_several_files(translate):
    for name in ("a.wav", "b.flac"):
        soundfile.write(name, tone(), 16_000)
    assert translate("a.wav", "b.flac", "--to", "flute", "--to", "drum")[0] == 0
    assert len(os.listdir("out")) == 4


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_rate(translate, rate):
    soundfile.write("in.wav", tone(0.05, rate), rate)
    frames = soundfile.info("in.wav").frames
    assert_translated(translate("in.wav"), "in", round(frames * 16_000 / rate))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT"])
def test_any_sample_format(translate, subtype):
    soundfile.write("in.wav", tone(), 16_000, subtype=subtype)
    assert_translated(translate("in.wav"), "in", 800)


@pytest.mark.parametrize("name", ["in.flac", "in.ogg", "in.mp3"])
def test_any_file_format(translate, name):
    soundfile.write(name, tone(0.1), 16_000)
    assert_translated(translate(name), "in", soundfile.info(name).frames)


def test_three_channels(translate):
    soundfile.write("in.wav", np.stack([tone()] * 3, axis=1), 16_000)
    assert_translated(translate("in.wav"), "in", 800)


def test_one_sample(translate):
    soundfile.write("in.wav", [0.5], 16_000)
    assert_translated(translate("in.wav"), "in", 1)


def test_silence(translate):
    soundfile.write("in.wav", np.zeros(800), 16_000)
    assert_translated(translate("in.wav"), "in", 800)


def test_a_truncated_mp3(translate):
    soundfile.write("whole.mp3", tone(1), 16_000)
    Path("in.mp3").write_bytes(Path("whole.mp3").read_bytes()[:1_200])
    _, _, complaint = result = translate("in.mp3")
    assert complaint.startswith("umt: warning: in.mp3 holds ") and complaint.count("\n") == 1
    assert_translated(result, "in", len(audio.read("in.mp3")))
    assert 0 < len(audio.read("in.mp3")) < 12_000


# What is refused


def test_no_file(translate):
    assert_refused(translate("nothing.wav"), "nothing.wav", "No such file")


def test_empty(translate):
    Path("in.wav").touch()
    assert_refused(translate("in.wav"), "in.wav", "empty")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_header_only(translate, suffix):
    soundfile.write(f"whole.{suffix}", tone(1), 16_000)
    Path(f"in.{suffix}").write_bytes(Path(f"whole.{suffix}").read_bytes()[:44])
    assert_refused(translate(f"in.{suffix}"), f"in.{suffix}")


def test_nan(translate):
    soundfile.write("in.wav", np.r_[tone(), np.nan], 16_000, subtype="FLOAT")
    assert_refused(translate("in.wav"), "in.wav", "NaN")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "raw"])
def test_text(translate, suffix):
    Path(f"in.{suffix}").write_text("This is no audio.\n" * 500)
    assert_refused(translate(f"in.{suffix}"), f"in.{suffix}", "convert")


def test_a_folder(translate):
    os.mkdir("in.wav")
    assert_refused(translate("in.wav"), "in.wav", "folder")


def test_a_device(translate):
    assert_refused(translate(os.devnull), "regular file")


def test_unreadable(translate, monkeypatch):
    # Root may read everything, so the refusal comes from a stand-in for the system.
    soundfile.write("in.wav", tone(), 16_000)
    system_open = Path.open

    def refuse(path, *arguments, **settings):
        if path.name == "in.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return system_open(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refuse)
    assert_refused(translate("in.wav"), "in.wav", "Permission denied", "permissions")


@pytest.fixture
def nobody(translate, monkeypatch):
    """A folder to work in, and a function that takes root's rights away, until the end."""
    folder = Path(tempfile.mkdtemp())  # pytest's own are below one that only its owner may enter
    folder.chmod(0o777)
    monkeypatch.chdir(folder)
    soundfile.write("in.wav", tone(), 16_000)
    assert translate("in.wav")[0] == 0  # what is imported and compiled at first use is there now
    shutil.rmtree("out")

    def become():
        if os.getuid() == 0:
            os.seteuid(65_534)

    yield become
    os.seteuid(os.getuid())
    shutil.rmtree(folder)


def test_permissions_for_real(nobody, umt, blink_folder):
    shutil.copytree(blink_folder, "model")
    os.chmod("in.wav", 0)
    soundfile.write("good.wav", tone(), 16_000)
    os.mkdir("locked", 0o555)
    nobody()
    arguments = ["--model", "model", "--no-picture", "--out"]
    assert_refused(umt("translate", "in.wav", *arguments, "out"), "Permission denied", "in.wav")
    refused = umt("translate", "good.wav", *arguments, "locked/out")
    assert_refused(refused, "Permission denied", "locked/out", out="locked/out")


def test_output_below_a_file(translate):
    soundfile.write("in.wav", tone(), 16_000)
    assert_refused(translate("in.wav", "--out", "in.wav/out"), "in.wav/out", "--out")
    assert_refused(translate("in.wav", "--out", "in.wav"), "in.wav", "--out")


def test_output_not_permitted(translate, monkeypatch):
    soundfile.write("in.wav", tone(), 16_000)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_refused(translate("in.wav"), "cannot write to out: Permission denied")


def test_a_full_disk_leaves_no_half_file(translate, monkeypatch):
    soundfile.write("in.wav", tone(), 16_000)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, complaint = translate("in.wav")
    assert (status, complaint.count("\n")) == (2, 1) and "No space left" in complaint
    assert os.listdir("out") == []


def test_unknown_domain(translate):
    soundfile.write("in.wav", tone(), 16_000)
    assert_refused(translate("in.wav", "--to", "kazoo"), "kazoo", "flute, drum")


def test_unknown_model(translate):
    soundfile.write("in.wav", tone(), 16_000)
    assert_refused(translate("in.wav", "--model", "missing"), "missing")


def test_unknown_backend(translate):
    soundfile.write("in.wav", tone(), 16_000)
    assert_refused(translate("in.wav", "--backend", "abacus"), "abacus")


def test_output_equal_to_an_input(translate):
    os.mkdir("sub")
    for name in ("in.wav", "in.flute.wav"):
        soundfile.write(name, tone(), 16_000)
    before = Path("in.flute.wav").read_bytes()
    result = translate("in.wav", "in.flute.wav", "--out", "sub/..")
    assert_refused(result, "in.flute.wav", "--out")
    assert Path("in.flute.wav").read_bytes() == before


def test_two_inputs_for_one_output(translate):
    soundfile.write("in.wav", tone(), 16_000)
    soundfile.write("in.flac", tone(), 16_000)
    assert_refused(translate("in.wav", "in.flac"), "in.wav", "in.flac", "rename")


def test_a_bad_input_after_a_good_one(translate):
    soundfile.write("in.wav", tone(), 16_000)
    assert_refused(translate("in.wav", "nothing.wav"), "nothing.wav")


@pytest.mark.parametrize("arguments", [
    ["translate"], ["nonsense"], ["translate", "in.wav", "--nonsense"],
    ["translate", "in.wav", "--seed", "x"], ["translate", "in.wav", "--temperature", "-1"],
    ["train", "--preset", "tiny"],
])  # fmt: skip
def test_wrong_usage(umt, work, arguments):
    status, printed, complaint = umt(*arguments)
    assert status == 2 and "Traceback" not in printed + complaint
    assert "--help" in complaint and os.listdir() == []


@pytest.fixture
def small_corpus(work):
    """A corpus of noise in two domains, ``corpus``."""
    tracks, rng = [], np.random.default_rng(0)
    for domain in DOMAINS:
        for split in corpus.SPLITS:
            file = f"corpus/{domain}-{split}.wav"
            Path(file).parent.mkdir(exist_ok=True)
            audio.write(file, rng.normal(0, 0.1, 16_000))
            tracks.append(corpus.Track(domain, split, Path(file).name, 1.0, corpus.sha256(file)))
    corpus.write_manifest(Path("corpus/manifest.jsonl"), tracks)


def test_train_resume_and_translate(umt, small_corpus):
    command = ["train", "--preset", "tiny", "--data", "corpus", "--out", "run", "--workers", 0]
    status, printed, _ = umt(*command, "--steps", 2)
    assert status == 0 and "step 2" in printed
    assert_refused(umt(*command, "--steps", 3), "--resume")
    status, printed, _ = umt(*command, "--steps", 3, "--resume")
    assert status == 0 and "step-00000003" in printed and "step 2" not in printed
    soundfile.write("in.wav", tone(0.01), 16_000)
    assert umt("translate", "in.wav", "--model", "run", "--no-picture", "--to", "drum")[0] == 0
    assert os.listdir("outputs") == ["in.drum.wav"]


def test_train_with_changed_settings(umt, small_corpus):
    command = ["train", "--preset", "tiny", "--data", "corpus", "--out", "run", "--steps", 1]
    command += ["--workers", 0]
    assert_refused(umt(*command, "--set", "crop"), "'crop'", "NAME=VALUE", out="run")
    assert_refused(umt(*command, "--set", "crops=400"), "'crops'", out="run")
    assert_refused(umt(*command, "--set", "crop=many"), "crop", "'many'", out="run")
    changes = ["--set", "crop=400", "--set", "clip=1.5", "--set", "augment=false"]
    assert umt(*command, *changes)[0] == 0
    saved = json.loads(Path("run/step-00000001/training.json").read_text())
    assert (saved["crop"], saved["clip"], saved["augment"]) == (400, 1.5, False)
    assert_refused(umt(*command, "--resume"), "another configuration")


def test_train_without_a_corpus(umt, work):
    arguments = ["--preset", "tiny", "--data", "nowhere", "--out", "run", "--steps", 1]
    assert_refused(umt("train", *arguments), "nowhere", out="run")


def test_interrupt(translate, monkeypatch):
    soundfile.write("in.wav", tone(), 16_000)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(translation, "pieces", interrupt)
    status, printed, complaint = translate("in.wav")
    assert status == 130 and "Traceback" not in printed + complaint


# As a process of its own


@pytest.fixture
def process(work, blink_folder, monkeypatch):
    """Start ``umt translate`` as a process."""
    monkeypatch.setenv("PYTHONPATH", str(Path(umtlib.__file__).parents[1]))

    def start(*arguments):
        command = [sys.executable, "-u", "-m", "umtlib", "translate", "--no-picture"]
        return subprocess.Popen(
            [*command, "--model", blink_folder, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


@pytest.mark.slow
def test_as_a_command(process):
    soundfile.write("in.wav", tone(), 16_000)
    good = process("in.wav", "--to", "drum")
    assert good.communicate(timeout=60)[1] == "" and good.returncode == 0
    assert os.listdir("outputs") == ["in.drum.wav"]
    bad = process("no.wav")
    printed, complaint = bad.communicate(timeout=60)
    assert (bad.returncode, printed, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith("umt: error: ")


@pytest.mark.slow
def test_ctrl_c(process):
    soundfile.write("in.wav", tone(60), 16_000)
    running = process("in.wav", "--backend", "reference")
    assert "x real time: about" in running.stdout.readline()  # it has begun
    running.send_signal(signal.SIGINT)
    printed, complaint = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in printed + complaint
    assert os.listdir("outputs") == []


def test_doctor(umt):
    status, printed, _ = umt("doctor")
    assert status == 0
    for name in ("umtlib", "torch", "processor", "compiler", "GPU", "model"):
        assert name in printed


@pytest.mark.parametrize("command, result", [
    (["generate", "--streams", 2, "--domains", 2], "samples_per_second"),
    (["encode"], "seconds_per_second"),
])  # fmt: skip
def test_bench(umt, command, result):
    arguments = ["bench", *command, "--preset", "tiny", "--seconds", 0.1]
    status, printed, _ = umt(*arguments)
    assert status == 0 and result in printed
    assert json.loads(umt(*arguments, "--json")[1])[result] > 0
    assert_refused(umt("bench", command[0], "--preset", "giant"), "giant")


def test_minutes():
    assert [cli.translate._minutes(s) for s in (20, 300, 20_000)] == [
        "20 s", "5 min", "5.6 h",
    ]  # fmt: skip
