"""Numbers and files from outside: used, or refused by name, and nothing is left half-written.

The tables of strategies below make configurations, JSON, model folders and command lines of every
kind; whatever comes, the answer is a result or one of the package's errors.
"""

import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import socket
import subprocess
import sys
import typing
from datetime import timedelta
from pathlib import Path

import pytest
import safetensors.torch
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import assert_refused, tone
from umtlib import checkpoint, cli, config, files, runs, translator
from umtlib.cli import bench
from umtlib.config import DecoderConfig, EncoderConfig, ModelConfig, TrainingConfig
from umtlib.corpora.corpus import MANIFEST, Corpus, sha256
from umtlib.corpora.pairs import PAIRS, read_pairs
from umtlib.errors import (
    CheckpointError,
    ConfigError,
    CorpusError,
    EvaluationError,
    TrainingError,
    UmtError,
)
from umtlib.evaluation import recogniser
from umtlib.machine import team
from umtlib.runs import log
from umtlib.small.recipe import Recipe

EACH = settings(derandomize=True, deadline=None, max_examples=100)
NUMBERS = st.one_of(
    st.integers(-2, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([10**9, 2**31, 2**63 - 1, 2**63, 10**20, 10**400, 1e308]),
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
        if dataclasses.is_dataclass(item.type):
            pairs[item.name] = fields_of(item.type) | VALUES
        else:
            pairs[item.name] = VALUES | NUMBERS
            if item.default is not dataclasses.MISSING:
                pairs[item.name] |= st.just(item.default)
    return st.fixed_dictionaries({}, optional=pairs) | st.dictionaries(
        st.text(max_size=5), VALUES, max_size=2
    )


def text_of(values):
    """As JSON, or what passes for it: whole or torn, in several encodings."""
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
    whole = st.builds(lambda value, encoding: json.dumps(value).encode(encoding), values, encodings)
    torn = st.builds(lambda content, end: content[:end], whole, st.integers(0, 60))
    return whole | whole | torn | st.binary(max_size=20)


KINDS = [ModelConfig, TrainingConfig, Recipe, runs.Progress]


@EACH
@given(st.sampled_from(KINDS).flatmap(lambda k: st.tuples(st.just(k), text_of(fields_of(k)))))
def test_any_json_is_a_configuration_or_refused(pair):
    kind, text = pair
    with contextlib.suppress(ConfigError):
        made = config.from_json(kind, text)
        assert config.from_json(kind, config.to_json(made)) == made


@EACH
@given(fields_of(EncoderConfig), fields_of(DecoderConfig), st.lists(st.text(), max_size=3))
def test_any_values_make_a_configuration_or_are_refused(encoder, decoder, domains):
    with contextlib.suppress(ConfigError, TypeError):  # of an unknown name
        ModelConfig(tuple(domains), EncoderConfig(**encoder), DecoderConfig(**decoder))


@pytest.mark.parametrize("kind", [EncoderConfig, DecoderConfig, config.ClassifierConfig,
                                  ModelConfig, TrainingConfig, Recipe, runs.Progress])  # fmt: skip
def test_every_number_has_a_range(kind):
    for item in dataclasses.fields(kind):
        names = typing.get_args(item.type)
        if typing.get_origin(item.type) is tuple:
            names = typing.get_args(names[0])
        if int in names or float in names or item.type in (int, float, str):
            assert isinstance(names[1], config.Range), item.name


@pytest.mark.parametrize("change", [
    {"learning_rate": math.nan}, {"learning_rate": math.inf}, {"learning_rate": -1e-3},
    {"seed": 10**20}, {"seed": -1}, {"seed": True}, {"seed": 0.0}, {"crop": 0}, {"batch": 10**9},
    {"crop": 2**20, "batch": 2**20}, {"augment": 1}, {"only": "x" * 100}, {"decay": 1.1},
    {"decay_every": 0}, {"clip": None}, {"confusion_weight": "0.9"},
])  # fmt: skip
def test_a_training_out_of_range_is_refused_by_name(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainingConfig(**change)


@pytest.mark.parametrize("change", [
    {"encoder": {"layers": 10**9}}, {"encoder": {"blocks": 10**9}}, {"encoder": {"blocks": 1_000}},
    {"decoder": {"channels": 60_000}}, {"classifier": {"kernel": 60_000, "channels": 60_000}},
    {"domains": [f"d{number}" for number in range(1_000)]}, {"decoder": {"channels": 10**400}},
    {"encoder": {"front_end": "filterbank", "filters": 65_536, "filter_taps": 65_536}},
])  # fmt: skip
def test_a_model_that_is_too_large_is_refused_before_it_is_made(change, monkeypatch):
    monkeypatch.setattr(translator, "MusicTranslator", None)
    with pytest.raises(ConfigError, match=r"too large|must be an integer"):
        config.from_json(ModelConfig, json.dumps(change))


@pytest.mark.parametrize("name", runs.PRESETS)
def test_the_weights_are_counted_rightly(name, monkeypatch):
    model = runs.preset(name).model
    made = translator.build(model)
    true = sum(tensor.numel() for tensor in [*made.parameters(), *made.buffers()])
    monkeypatch.setattr(config, "MOST_WEIGHTS", int(0.7 * true))
    with pytest.raises(ConfigError, match="too large"):
        runs.preset(name)
    monkeypatch.setattr(config, "MOST_WEIGHTS", int(1.3 * true))
    assert runs.preset(name).model == model


@pytest.mark.parametrize("name", ["forward", "keys", "type", "items", "pop", "training", "float"])
def test_a_domain_named_as_a_method_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name!r}.*call it otherwise"):
        translator.build(config.preset("tiny", ("a", name)).model)


@pytest.mark.parametrize("text, words", [
    (b"[" * 100_000, "deeply"), (b"\xff\xfe\xfa", "decode"), (b'{"a": NaN}', "NaN"),
    (b'{"a": -Infinity}', "Infinity"), (b'{"a": 1, "a": 2}', "twice"), (b"9" * 5_000, "digits"),
    (b"1e999", "1e999"), (b"", "Expecting"), (b"{} {}", "Extra"),
])  # fmt: skip
def test_what_is_no_json(text, words):
    with pytest.raises(ValueError, match=words):
        files.parse_json(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_as_an_editor_saves_it(encoding):
    assert files.parse_json('{"é": [1, 1e3]}'.encode(encoding)) == {"é": [1, 1_000]}
    assert files.parse_json('\ufeff{"é": null}') == {"é": None}


def test_no_line_of_a_log_is_invalid(blink_model, tmp_path):
    run = type("", (), {"step": 3, "steps": 9, "team": type("", (), {"rank": 0})})
    log.Log(tmp_path / runs.LOG, run, 0.0, None).note(
        {"nats": {"a": math.nan, "b": [math.inf, 1.5]}}
    )
    line = files.parse_json((tmp_path / runs.LOG).read_bytes())
    assert line["nats"] == {"a": None, "b": [None, 1.5]} and line["step"] == 3
    (tmp_path / runs.LOG).write_bytes(b'{"step": 2}\n[3]\n\xff\n{"step": NaN}\n{"step": 4}\n{"ste')
    log.cut(tmp_path / runs.LOG, 3)
    assert (tmp_path / runs.LOG).read_bytes() == b'{"step": 2}\n'


# Model folders


def forged(folder, model, **changes):
    """A model folder that keeps its own word, with some files replaced; by name, bytes or None."""
    content = {checkpoint.CONFIG: config.to_json(model.config).encode()}
    content[checkpoint.WEIGHTS] = model.state_dict()
    checkpoint.write(folder, content | changes.pop("content", {}))
    for name, text in changes.items():
        (folder / f"{name}.json").write_bytes(text)
    return folder


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sums, words", [
    ({}, "no checksum of config.json"), ([], "must name files"), ("x", "must name files"),
    ({"config.json": None, "model.safetensors": 3}, "config.json is truncated or altered"),
    ({"../x": ""}, "must name files"), ({"/etc/passwd": ""}, "must name files"),
    ({"config.json": "", "model.safetensors": "", "..": ""}, r"truncated|cannot be read"),
    ({"config.json": "", "model.safetensors": "", "\0": ""}, r"truncated|cannot be read"),
])  # fmt: skip
def test_checksums_name_every_file_and_no_other(blink_model, tmp_path, sums, words):
    forged(tmp_path / "m", blink_model, checksums=json.dumps(sums).encode())
    refused(tmp_path / "m", words)


def test_a_file_that_came_later_is_not_believed(blink_model, tmp_path):
    forged(tmp_path / "m", blink_model, training=b"{}")
    refused(tmp_path / "m", "no checksum of training.json")
    (tmp_path / "m" / "training.json").rename(tmp_path / "m" / "._training.json")
    (tmp_path / "m" / "README.md").touch()
    assert checkpoint.load(tmp_path / "m").domains == blink_model.domains


@settings(EACH, max_examples=25)
@given(text_of(VALUES), text_of(fields_of(ModelConfig)))
def test_any_tables_of_a_model_folder(tmp_path_factory, blink_model, sums, text):
    folder = tmp_path_factory.mktemp("m") / "m"
    forged(folder, blink_model, checksums=sums)
    with contextlib.suppress(UmtError):
        checkpoint.load(folder)
    with contextlib.suppress(UmtError):
        checkpoint.load(forged(folder.with_name("n"), blink_model, content={"config.json": text}))


@pytest.mark.parametrize("change, words", [
    (lambda x: x * math.nan, "NaN"), (lambda x: x / 0, "infinity"), (lambda x: x.double() * 1e300,
     "infinity"), (lambda x: x * 1j, "complex"), (lambda x: x.long(), "int64"),
    (lambda x: x.to(torch.int8), "int8"), (lambda x: x > 0, "bool"),
    (lambda x: x.to(torch.float8_e4m3fn), "float8"), (lambda x: x[:1], "do not fit"),
])  # fmt: skip
def test_weights_are_finite_real_numbers(blink_model, tmp_path, change, words):
    name = "encoder.project.weight"
    weights = blink_model.state_dict()
    weights[name] = change(weights[name])
    refused(forged(tmp_path / "m", blink_model, content={checkpoint.WEIGHTS: weights}), words)


@pytest.mark.parametrize("unit", [
    torch.ones(3), torch.ones(()), torch.full((8,), math.nan), torch.ones(8, dtype=torch.int32),
])  # fmt: skip
def test_units_of_integers(blink_model, tmp_path, unit):
    name = "encoder.project.weight"
    weights = blink_model.state_dict()
    weights |= {name: weights[name].to(torch.int8), name + checkpoint.UNIT: unit}
    refused(forged(tmp_path / "m", blink_model, content={checkpoint.WEIGHTS: weights}), name)
    weights = blink_model.state_dict() | {name + checkpoint.UNIT: torch.ones(8)}
    refused(forged(tmp_path / "n", blink_model, content={checkpoint.WEIGHTS: weights}), "no unit")


@pytest.mark.parametrize("name", [checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.CHECKSUMS])
@pytest.mark.parametrize("make", [
    os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"),
    lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
], ids=["pipe", "folder", "device", "socket"])  # fmt: skip
def test_a_file_must_be_a_file(blink_model, tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    path = forged(tmp_path / "m", blink_model) / name
    path.unlink()
    make(path)
    refused(tmp_path / "m", name)


def test_other_files_must_be_files(tmp_path):
    os.mkfifo(tmp_path / MANIFEST)
    os.mkfifo(tmp_path / recogniser.CARD)
    with pytest.raises(CorpusError):
        Corpus(tmp_path)
    with pytest.raises(EvaluationError, match="regular file"):
        recogniser.load(tmp_path)
    os.mkfifo(tmp_path / runs.LOG)
    with pytest.raises(OSError, match="regular file"):
        log.cut(tmp_path / runs.LOG, 1)


@pytest.mark.parametrize("name, content, words", [
    (runs.PROGRESS, b'{"step": -1, "seconds": 1, "processes": 1}', "step = -1"),
    (runs.PROGRESS, b'{"step": 1, "processes": 1}', "lacks the field 'seconds'"),
    (runs.PROGRESS, b"[]", "JSON object"), (runs.TRAINING, b'{"crop": 1e9}', "recipe"),
    (runs.TRAINING, b"{", "cannot be read"),
    (runs.TENSORS, {"x": torch.ones(1)}, "'x'.*not fit"), (runs.TENSORS, {}, "no optimizer"),
    (runs.TENSORS, "encoder/0/exp_avg", "does not fit"),
])  # fmt: skip
def test_a_checkpoint_that_was_forged(corpus, tmp_path, name, content, words):
    preset = config.preset("tiny", ("drum", "flute"))
    run = tmp_path / "run"
    runs.train(corpus, run, preset, 1, workers=0)
    folder = checkpoint.newest(run)
    if isinstance(content, str):
        tensors = checkpoint.read_tensors(folder / name)
        content = tensors | {f"adam.{content}": torch.ones(3)}
    if isinstance(content, dict):
        content = safetensors.torch.save(content)
    (folder / name).write_bytes(content)
    sums = json.loads((folder / checkpoint.CHECKSUMS).read_text())
    sums[name] = sha256(folder / name)
    (folder / checkpoint.CHECKSUMS).write_text(json.dumps(sums))
    with pytest.raises((CheckpointError, TrainingError), match=words):
        runs.train(corpus, run, preset, 2, workers=0, resume=True)


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


# Command lines


@EACH
@given(st.sampled_from(["--streams", "--domains", "--threads", "--seconds"]),
       NUMBERS.map(str) | st.text(max_size=5))  # fmt: skip
def test_any_number_on_a_command_line(option, value):
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(bench, "_rate", lambda *_: 1.0)
        with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(io.StringIO()):
            cli.main(["bench", "generate", "--preset", "tiny", f"{option}={value}"])
    refused = caught.value.code == 2 and said.getvalue().startswith("umt: error: ")
    assert said.getvalue().count("\n") == refused
    assert refused or caught.value.code in (0, None)
    if refused:
        return
    assert 0 < float(value) <= 24 * 3_600


@EACH
@given(st.sampled_from([item.name for item in dataclasses.fields(TrainingConfig)]) | st.text(),
       VALUES.map(json.dumps) | st.text())  # fmt: skip
def test_any_setting(name, value):
    with contextlib.suppress(ConfigError):
        config.changed(config.preset("tiny"), [f"{name}={value}"])


@pytest.mark.parametrize("command, word", [
    (["bench", "generate", "--streams", 10**6], "--streams"),
    (["bench", "generate", "--streams", 999, "--domains", 9], "999"),
    (["bench", "encode", "--seconds", "nan"], "--seconds"),
    (["bench", "train", "--batch", 10**6, "--crop", 10**6], "batch"),
    (["translate", "x.wav", "--seed", 10**20], "--seed"),
    (["translate", "x.wav", "--temperature", "nan"], "--temperature"),
    (["stimuli", "opinion", "--data", ".", "--to", "all", "--out", "out"], "one target"),
    (["corpus", "nsynth", ".", "--out", "out", "--pitches", 0, 128], "--pitches"),
    (["ratings", "x.csv", "--level", "inf"], "--level"),
    (["ratings"], "umt ratings --help"),
    (["nonsense\n2"], "umt --help"),
])  # fmt: skip
def test_a_number_out_of_range_is_refused_in_one_line(umt, tmp_path, monkeypatch, command, word):
    monkeypatch.chdir(tmp_path)
    assert_refused(umt(*command), word)


@pytest.mark.parametrize("change, word", [
    (["--device", "tpu"], "tpu"), (["--device", "cuda:99"], "cuda:99"), (["--device", ""], "''"),
    (["--set", "learning_rate=NaN"], "learning_rate"), (["--set", "learning_rate=1e999"], "1e999"),
    (["--set", f"seed={10**20}"], "seed"), (["--set", "crop=[" + "[" * 10**5], "crop"),
    (["--steps", 10**10], "--steps"),
])  # fmt: skip
def test_a_training_out_of_range_is_refused_in_one_line(umt, corpus, tmp_path, change, word):
    command = ["train", "--data", corpus, "--out", tmp_path / "run", "--preset", "tiny"]
    refused = umt(*command, "--steps", 1, *change)
    assert_refused(refused, word, out=tmp_path / "run")


# Stopping


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt(), OSError(errno.EIO, "x")])
def test_what_stops_a_write_takes_its_beginning_along(blink_model, tmp_path, monkeypatch, stop):
    def fail(*_):
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError if isinstance(stop, OSError) else type(stop)):
        checkpoint.save(blink_model, tmp_path / "m")
    with pytest.raises(type(stop)):
        with files.replacing(tmp_path / "x") as part:
            part.touch()
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_sigterm_leaves_nothing(blink_folder, tmp_path):
    soundfile.write(tmp_path / "in.wav", tone(60), 16_000)
    running = subprocess.Popen(
        [sys.executable, "-u", "-m", "umtlib", "translate", "in.wav", "--model", blink_folder,
         "--backend", "reference"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )  # fmt: skip
    assert "x real time: about" in running.stdout.readline()  # it has begun
    while not os.listdir(tmp_path / "outputs"):
        assert running.poll() is None
    running.terminate()
    printed, complaint = running.communicate(timeout=60)
    assert running.returncode == 143 and "Traceback" not in printed + complaint
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
