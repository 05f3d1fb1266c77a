"""What several tests need: a model small enough to run in a blink, and the command line."""

import json
import os
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from umtlib import checkpoint, cli, config, translator
from umtlib.corpora.corpus import MANIFEST, SKIPPED, Track, sha256, write_manifest

# Models this small are slower on two threads than on one, and several times so on a busy machine.
torch.set_num_threads(1)
# A shell's background job begins deaf to Ctrl-C, and so would everything that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
DOMAINS = ("flute", "drum")


@pytest.fixture(scope="session")
def blink_model():
    """A translator with random weights and two domains that makes 5,000 samples a second."""
    model = config.preset("tiny", DOMAINS).model
    decoder = replace(model.decoder, layers=2)
    return translator.build(replace(model, decoder=decoder)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def blink_folder(blink_model, tmp_path_factory):
    """The same, saved."""
    folder = tmp_path_factory.mktemp("models") / "blink"
    checkpoint.save(blink_model, folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Two domains of a second each: tones, and bursts of noise."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    tracks, time_ = [], np.arange(16_000) / 16_000
    for split, domain, number in product(("train", "val", "test"), DOMAINS, range(2)):
        name = f"{split}-{domain}-{number}.wav"
        tone = np.sin(2 * np.pi * rng.uniform(200, 800) * time_)
        burst = rng.standard_normal(16_000) * np.exp(-20 * (time_ % 0.25))
        signal_ = 0.3 * (tone if domain == "flute" else burst.clip(-3, 3))
        soundfile.write(folder / name, signal_, 16_000, subtype="PCM_16")
        tracks.append(Track(domain, split, name, 1.0, sha256(folder / name)))
    write_manifest(folder / MANIFEST, tracks)
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the course's site, built."""
    sphinx = pytest.importorskip(
        "sphinx.cmd.build", reason="pip install '.[site]' to test the site"
    )
    folder = tmp_path_factory.mktemp("site")
    assert sphinx.main(["-q", "-c", str(ROOT / "docs"), str(ROOT), str(folder)]) == 0
    return folder


@pytest.fixture
def umt(capfd):
    """Run ``umt`` in this process: arguments to (exit status, stdout, stderr)."""

    def run(*arguments):
        capfd.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code or 0
        return status, *capfd.readouterr()

    return run


def tone(seconds=0.05, rate=16_000, hertz=440.0, amplitude=0.3):
    """A sine, float64, shape (T,)."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def skipped(out):
    """What a corpus says of files that were dropped or cut."""
    return [json.loads(line) for line in (out / SKIPPED).read_text().splitlines()]


def assert_refused(result, *words, out="out"):
    """Of what `umt` gave: exit status 2, one line on stderr with some words, nothing written."""
    status, printed, complaint = result
    assert status == 2
    assert complaint.count("\n") == 1 and complaint.startswith("umt: error: ")
    for word in words:
        assert word in complaint
    assert "Traceback" not in printed + complaint
    assert not os.path.exists(out), "something was written"
