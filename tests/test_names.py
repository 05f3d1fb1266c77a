"""Any name that the file system holds works: in pictures, lines, tables, manifests and files."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from conftest import skipped, tone
from umtlib.corpora.corpus import Corpus
from umtlib.evaluation import tables
from umtlib.files import names
from umtlib.notebook import plots

ODD = [
    "$x^{$", "$\\frac$", "a_b^c\\d", "two\nlines\r\t", "\x1b[31mred\x07", "-dash", "--out", "-",
    "dots..", ".", " ", "a|b<c>`*", "%s{}%(x)d", "\u202egpj.exe", "שלום", "日本\u3000語", "e\u0301",
    "🎻", "\u2028line", "nul\x01", "'quoted\" & more'", os.fsdecode(b"bad\xff\xfe"), "x" * 245,
    "♫" * 81, os.fsdecode(b"\xe9" * 245),
]  # fmt: skip
ODDEST = [ODD[0], ODD[3], "-dash", "-", "日本\u3000語", *ODD[-4:]]


def odd_folder(folder, chosen, seconds):
    folder.mkdir()
    for number, name in enumerate(chosen):
        samples = (tone(seconds, hertz=200 + 10 * number) * 32_767).astype(np.int16)
        raw = io.BytesIO()
        soundfile.write(raw, samples, 16_000, format="WAV")
        (folder / f"{name}.wav").write_bytes(raw.getvalue())
    return folder


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_shown_in_one_line(name):
    shown = names.readable(name)
    assert shown.isprintable() or "\u3000" in shown
    assert shown.encode() and len(shown.splitlines()) == 1
    row = tables.markdown(("", name), [(name, 1.0)])
    assert len(row.splitlines()) == 3
    assert row.replace(r"\\", "").replace(r"\|", "").count("|") == 9


def test_any_name_is_a_title(tmp_path, recwarn):
    shown = {name: tone(0.05) for name in ODDEST[::3]}
    plots.save(plots.comparison(shown, "$^{"), tmp_path / f"{'x' * 251}.png")
    assert len(os.listdir(tmp_path)) == 1 and not list(recwarn)


@pytest.mark.slow
def test_they_are_all_translated_on_a_terminal_of_ascii(blink_folder, tmp_path):
    """Also a file that is called as the standard input is, and with a picture of each."""
    folder = odd_folder(tmp_path / "in", ODDEST, 0.01)
    inputs = sorted(os.listdir(folder))
    command = ["-m", "umtlib", "translate", "--model", blink_folder, "--to", "drum", "--out"]
    done = subprocess.run(
        [sys.executable, *command, tmp_path / "out", "--", *inputs], cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(tmp_path / "out")) == 2 * len(inputs)
    assert (done.stdout + done.stderr).isascii()
    assert not done.stderr and len(done.stdout.splitlines()) == 3 * len(inputs)  # two for a sound


def test_they_are_all_in_a_corpus(tmp_path, umt):
    folder = odd_folder(tmp_path / os.fsdecode(b"in\xff\n"), ODD, 0.5)
    status, printed, complaint = umt(
        "corpus", "folder", "--domain", f"d={folder}", "--workers", 1, "--out", tmp_path / "out\n"
    )
    assert (status, len(printed.splitlines())) == (0, 1), complaint
    left_out = {line["file"]: line["reason"] for line in skipped(tmp_path / "out\n")}
    found = [track.source["source"] for track in Corpus(tmp_path / "out\n").tracks]
    assert sorted([*found, *left_out]) == sorted(names.readable(f"{name}.wav") for name in ODD)
    assert all("hidden" in reason for reason in left_out.values())
