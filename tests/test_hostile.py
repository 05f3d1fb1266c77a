"""Audio files that are odd, damaged or made to hurt: each is used, or refused by name.

All are made here. ``USED`` says how many samples at 16 kHz come out, ``REFUSED`` what the refusal
says. Nothing may crash, hang, or take memory for what a header merely promises.
"""

import os
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from conftest import skipped, tone
from umtlib import audio
from umtlib.corpora import folders
from umtlib.corpora.corpus import Corpus
from umtlib.errors import AudioError, UmtWarning

SECOND = tone(1, 16_000, 300)


def by_soundfile(samples=SECOND, rate=16_000, **settings):
    return lambda path: soundfile.write(path, samples, rate, **settings)


def raw(content):
    return lambda path: path.write_bytes(content)


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(data=None, *, code=1, channels=1, rate=16_000, size=None, extra=b""):
    """A WAV file, byte by byte; ``size`` is what the data chunk claims."""
    data = (SECOND * 32767).astype("<i2").tobytes() if data is None else data
    align = min(65_535, 2 * channels)
    form = struct.pack("<HHIIHH", code, channels, rate, (rate * align) % 2**32, align, 16)
    body = b"WAVE" + chunk(b"fmt ", form) + extra
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def damaged(suffix, change, **settings):
    """A good file of a format, changed by a function of its bytes."""

    def make(path):
        good = path.with_name(f"good{suffix}")
        soundfile.write(good, SECOND, 16_000, **settings)
        path.write_bytes(change(good.read_bytes()))
        good.unlink()

    return make


def at(place, new):
    return lambda data: data[:place] + new + data[place + len(new) :]


def cut_off(**settings):
    return damaged(".good", lambda d: d[: len(d) // 2], **settings)


NOISE = np.random.default_rng(0).bytes(20_000)
LOUD = 5 * SECOND

USED = {
    "64 channels.wav": (by_soundfile(np.stack([SECOND] * 64, 1)), 16_000),
    "768 kHz.wav": (by_soundfile(tone(0.6, 768_000, 300), 768_000), 9_600),
    "4 kHz.wav": (by_soundfile(tone(1, 4_000, 300), 4_000), 16_000),
    "float beyond 1.wav": (by_soundfile(LOUD, subtype="FLOAT"), 16_000),
    "double 1e30.wav": (by_soundfile(SECOND * 1e30, subtype="DOUBLE"), 16_000),
    "denormals.wav": (by_soundfile(np.full(16_000, 1e-40), subtype="FLOAT"), 16_000),
    "u-law.wav": (by_soundfile(subtype="ULAW"), 16_000),
    "opus.opus": (by_soundfile(format="OGG", subtype="OPUS"), 16_000),
    "caf.caf": (by_soundfile(format="CAF"), 16_000),
    "1 sample.wav": (by_soundfile(SECOND[:1]), 1),
    "constant.wav": (by_soundfile(np.full(16_000, 0.7)), 16_000),
    "silent.wav": (by_soundfile(np.zeros(16_000)), 16_000),
    "promises 2 GB.wav": (raw(wav(size=2**31)), 16_000),
    "size 0.wav": (raw(wav(size=0)), 16_000),
    "size 0 after a list.wav": (raw(wav(size=0, extra=chunk(b"LIST", b"INFO"))), 16_000),
    "size 0 of all.wav": (raw(at(4, bytes(4))(wav(size=0))), 16_000),
    "8 of 97000.wav": (raw(wav((SECOND[:8] * 32_767).astype("<i2").tobytes(), size=194_000)), 8),
    "cut.aiff": (cut_off(format="AIFF"), None),
    **{f"cut.{kind}": (cut_off(format=kind), None) for kind in ("wav", "rf64", "w64")},
    "junk before.wav": (raw(wav(extra=chunk(b"JUNK", NOISE))), 16_000),
    "cut in a frame.wav": (raw(wav()[:-1]), 15_999),
    "half.flac": (damaged(".flac", lambda d: d[: len(d) // 2]), None),
    "holes.mp3": (damaged(".mp3", at(2_000, b"\0" * 500)), None),
    "holes.ogg": (damaged(".ogg", at(5_000, b"\0" * 300)), None),
    "2**36 frames.flac": (damaged(".flac", at(21, b"\xff" * 5)), None),
    "wrong suffix.mp3": (by_soundfile(format="WAV"), 16_000),
}

# Hold less than their headers say, which is told.
SHORT = {"8 of 97000.wav", "cut.aiff", "cut.wav", "cut.rf64", "cut.w64", "half.flac",
         "2**36 frames.flac"}  # fmt: skip

REFUSED = {
    "empty.wav": (raw(b""), "cannot be decoded"),
    "only RIFF.wav": (raw(b"RIFF\xff\xff\xff\xffWAVE"), "cannot be decoded"),
    "aac.m4a": (raw(b"\0\0\0\x20ftypM4A " + NOISE), "convert it to WAV"),
    "noise.wav": (raw(NOISE), "cannot be decoded"),
    "no samples.wav": (raw(wav(b"")), "no audio"),
    "65535 channels.wav": (raw(wav(channels=65_535)), "cannot be decoded"),
    "0 Hz.wav": (raw(wav(rate=0)), "cannot be decoded|sample rate"),
    "1 Hz.wav": (raw(wav(rate=1)), "sample rate of 1 Hz"),
    "unknown codec.wav": (raw(wav(code=0x7777)), "cannot be decoded"),
    "nan.wav": (by_soundfile(np.full(16_000, np.nan), subtype="FLOAT"), "NaN"),
    "one nan.wav": (by_soundfile(np.append(SECOND, np.nan), subtype="DOUBLE"), "NaN"),
    "infinite.wav": (by_soundfile(np.append(SECOND, np.inf), subtype="FLOAT"), "NaN or inf"),
    "adpcm.wav": (by_soundfile(subtype="IMA_ADPCM"), "IMA_ADPCM, which is not read"),
    "gsm.wav": (by_soundfile(rate=8_000, subtype="GSM610"), "GSM610, which is not read"),
    "alac.caf": (by_soundfile(subtype="ALAC_16"), "ALAC_16, which is not read"),
    "cut header.flac": (damaged(".flac", lambda d: d[:30]), "cannot be decoded|no audio"),
    "lists.wav": (raw(wav(extra=chunk(b"LIST", b"INFOIART" + b"\xff" * 99))), "cannot be decoded"),
    "folder.wav": (os.mkdir, "not a regular file"),
    "pipe.wav": (os.mkfifo, "not a regular file"),
    "dangling.wav": (lambda path: os.symlink("nowhere", path), "No such file"),
    "device.wav": (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
}  # fmt: skip


@pytest.mark.parametrize("name", USED)
def test_it_is_used(tmp_path, recwarn, name):
    make, samples = USED[name]
    make(tmp_path / name)
    tracemalloc.start()
    found = audio.read(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = [str(warning.message) for warning in recwarn if warning.category is UmtWarning]
    assert len(told) == (name in SHORT)
    assert all(name in text and "as far as it goes" in text for text in told), told
    assert peak < 60e6
    assert found.dtype == np.float32 and np.isfinite(found).all() and np.abs(found).max() <= 1
    assert len(found) == samples if samples else 0 < len(found) <= 17_000
    levelled = audio.level(found)
    assert np.isfinite(levelled).all() and np.abs(levelled).max() <= 1


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(tmp_path, name):
    make, words = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(AudioError, match=words) as caught:
        audio.read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_umt_translates_them(umt, blink_folder, tmp_path):
    paths = {name: tmp_path / f"{number} {name}" for number, name in enumerate(sorted(SHORT))}
    for name, path in paths.items():
        USED[name][0](path)
    command = ["--model", blink_folder, "--to", "drum", "--no-picture", "--out", tmp_path / "out"]
    status, _, complaint = umt("translate", *paths.values(), *command)
    lines = complaint.splitlines()
    assert status == 0 and len(lines) == len(SHORT)
    assert all(line.startswith("umt: warning: ") for line in lines)
    for path in paths.values():
        found = soundfile.info(tmp_path / "out" / f"{path.stem}.drum.wav")
        assert found.frames == len(audio.read(path)), path


def test_a_folder_of_them_all_becomes_a_corpus(tmp_path):
    (tmp_path / "in").mkdir()
    for name, (make, _) in (USED | REFUSED).items():
        make(tmp_path / "in" / name)
    (tmp_path / "in/folder.wav/hidden.wav").symlink_to("/dev/urandom")
    folders.build({"d": tmp_path / "in"}, tmp_path / "out", workers=0)
    lines = {line["file"]: line for line in skipped(tmp_path / "out")}
    used = {track.source["source"] for track in Corpus(tmp_path / "out").tracks}
    every = {str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*")}
    assert used | lines.keys() == every - {"folder.wav"}  # nothing is dropped silently
    assert {name for name in used if name in REFUSED} == set()
    assert {"silent.wav", "constant.wav", "1 sample.wav", "denormals.wav"} <= lines.keys()
    assert all("as far as it goes" in lines[name]["reason"] for name in SHORT & used)
    assert all("kept_seconds" in lines[name] for name in used & lines.keys())
    for track in Corpus(tmp_path / "out").tracks:
        peak = np.abs(Corpus(tmp_path / "out").audio(track).astype(int)).max()
        assert 300 < peak <= 0.9 * 32_768, track.source
