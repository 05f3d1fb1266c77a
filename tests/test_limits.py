"""Numbers and files from outside: used, or refused by name, and nothing is left half-written.

The strategies below make configurations, JSON and settings of every kind; whatever comes, the
answer is a result or one of the package's errors.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import assert_refused, tone
from umtlib import checkpoint, cli, config, files, runs, translator
from umtlib.config import ModelConfig, TrainingConfig
from umtlib.corpora.corpus import MANIFEST, Corpus
from umtlib.corpora.pairs import PAIRS, read_pairs
from umtlib.errors import CheckpointError, ConfigError, CorpusError
from umtlib.machine import team
from umtlib.runs import log
from umtlib.small.recipe import Recipe

EACH = settings(derandomize=True, deadline=None, max_examples=60)
NUMBERS = st.one_of(
    st.integers(-2, 3), st.floats(), st.sampled_from([10**9, 2**63 - 1, 2**63, 10**400, 1e308])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def fields_of(kind):
    """Objects of a dataclass's field names, each with a good value, or any."""
    pairs = {}
    for item in dataclasses.fields(kind):
        inner = fields_of(item.type) if dataclasses.is_dataclass(item.type) else NUMBERS
        good = [] if item.default is dataclasses.MISSING else [st.just(item.default)]
        pairs[item.name] = st.one_of(inner, VALUES, *good)
    return st.fixed_dictionaries({}, optional=pairs) | VALUES


def text_of(values):
    """As JSON, or what passes for it: whole or torn, in several encodings."""
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
    whole = st.builds(lambda value, encoding: json.dumps(value).encode(encoding), values, encodings)
    torn = st.builds(lambda content, end: content[:end], whole, st.integers(0, 60))
    return whole | whole | torn | st.binary(max_size=20)


KINDS = [ModelConfig, TrainingConfig, Recipe, runs.Progress]


@EACH
@given(st.sampled_from(KINDS).flatmap(lambda k: st.tuples(st.just(k), text_of(fields_of(k)))))
def test_any_json_is_a_configuration_or_refused(tmp_path_factory, pair):
    kind, text = pair
    path = tmp_path_factory.mktemp("c") / "config.json"
    path.write_bytes(text)
    with contextlib.suppress(CheckpointError):
        made = checkpoint.read_as(kind, path)
        path.write_text(config.to_json(made))
        assert checkpoint.read_as(kind, path) == made


@EACH
@given(text_of(VALUES | st.fixed_dictionaries(
    {"domain": VALUES, "split": st.just("train"), "file": VALUES, "seconds": VALUES,
     "sha256": st.just("x"), "id": st.just("x"), "notes": VALUES})))  # fmt: skip
def test_any_line_of_a_corpus(tmp_path_factory, line):
    folder = tmp_path_factory.mktemp("c")
    (folder / PAIRS).parent.mkdir()
    (folder / PAIRS).write_bytes(line)
    (folder / MANIFEST).write_bytes(line)
    for read in (Corpus, read_pairs):
        with contextlib.suppress(CorpusError):
            read(folder)


@pytest.mark.parametrize("change", [
    {"learning_rate": math.nan}, {"learning_rate": math.inf}, {"learning_rate": -1e-3},
    {"seed": 10**20}, {"seed": True}, {"seed": 0.0}, {"crop": 0}, {"augment": 1},
    {"only": "x" * 100}, {"clip": None}, {"confusion_weight": "0.9"}, {"micro_batches": 3},
])  # fmt: skip
def test_a_training_out_of_range_is_refused_by_name(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainingConfig(**change)


@pytest.mark.parametrize("name", ["forward", "keys", "pop"])
def test_a_domain_named_as_a_method_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name!r}.*call it otherwise"):
        translator.build(config.preset("tiny", ("a", name)).model)


@pytest.mark.parametrize("text, words", [
    (b"[" * 100_000, "deeply"), (b"\xff\xfe\xfa", "decode"), (b'{"a": NaN}', "NaN"),
    (b'{"a": -Infinity}', "Infinity"), (b"", "Expecting"), (b"{} {}", "Extra"),
])  # fmt: skip
def test_what_is_no_json(text, words):
    with pytest.raises(ValueError, match=words):
        files.parse_json(text)


def test_no_line_of_a_log_is_invalid(tmp_path):
    path, team = tmp_path / runs.LOG, type("", (), {"rank": 0})
    run = type("", (), {"step": 3, "steps": 9, "team": team})
    log.Log(path, run, 0.0, None).note({"nats": {"a": math.nan, "b": [math.inf, 1.5]}})
    line = files.parse_json(path.read_bytes())
    assert line["nats"] == {"a": None, "b": [None, 1.5]} and line["step"] == 3
    path.write_bytes(b'{"step": 2}\n\xff\n{"step": NaN}\n{"step": 4}\n{"step": 1}')
    log.Log(path, run, 0.0, None)
    assert path.read_bytes() == b'{"step": 2}\n'


# Command lines


TRAIN = ["train", "--data", "{corpus}", "--out", "out", "--preset", "tiny", "--steps", 1]


@pytest.mark.parametrize("command, word", [
    (["translate", "x.wav", "--seed", 10**20], "--seed"),
    (["translate", "x.wav", "--temperature", 11], "--temperature"),
    (["stimuli", "opinion", "--data", ".", "--to", "all", "--out", "out"], "one target"),
    (["corpus", "nsynth", ".", "--out", "out", "--pitches", 0, 128], "--pitches"),
    (["ratings"], "umt ratings --help"), (["nonsense\n2"], "umt --help"),
    ([*TRAIN, "--device", "tpu"], "tpu"), ([*TRAIN, "--device", "cuda:99"], "cuda:99"),
    ([*TRAIN, "--set", "learning_rate=NaN"], "learning_rate"),
    ([*TRAIN, "--set", "learning_rate=1e999"], "inf"), ([*TRAIN, "--steps", 10**10], "--steps"),
])  # fmt: skip
def test_a_number_out_of_range_is_refused_in_one_line(
    umt, corpus, tmp_path, monkeypatch, command, word
):
    monkeypatch.chdir(tmp_path)
    assert_refused(umt(*(corpus if one == "{corpus}" else one for one in command)), word)


# Stopping


@pytest.mark.parametrize("stop", [SystemExit(143), OSError(errno.EIO, "x")])
def test_what_stops_a_write_takes_its_beginning_along(blink_model, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=stop))
    with pytest.raises(CheckpointError if isinstance(stop, OSError) else type(stop)):
        checkpoint.save(blink_model, tmp_path / "m")
    with pytest.raises(type(stop)):
        with files.replacing(tmp_path / "x") as part:
            part.touch()
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("stop, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_who_is_stopped_leaves_nothing(blink_folder, tmp_path, stop, status):
    soundfile.write(tmp_path / "in.wav", tone(60), 16_000)
    running = subprocess.Popen(
        [sys.executable, "-u", "-m", "umtlib", "translate", "in.wav", "--model", blink_folder,
         "--backend", "reference"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )  # fmt: skip
    while not list(tmp_path.glob("outputs/.*.part")):  # it has begun
        assert running.poll() is None
    running.send_signal(stop)
    printed, complaint = running.communicate(timeout=60)
    assert running.returncode == status and "Traceback" not in printed + complaint
    assert os.listdir(tmp_path / "outputs") == []


@pytest.mark.parametrize("changes, word", [
    ({"WORLD_SIZE": "2"}, "RANK"), ({"WORLD_SIZE": "many", "RANK": "0"}, "torchrun"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}, "1/2"),
])  # fmt: skip
def test_a_team_that_does_not_come_together(umt, corpus, tmp_path, monkeypatch, changes, word):
    monkeypatch.setattr(team, "JOINING", timedelta(seconds=1))
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    command = ["train", "--data", corpus, "--out", tmp_path / "run", "--steps", 1]
    assert_refused(umt(*command, "--preset", "tiny"), word, out=tmp_path / "run")
