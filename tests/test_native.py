"""The cache of compiled libraries, and what may be handed to them."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_generation import needs_compiler

import umtlib
from umtlib import generation
from umtlib.errors import GenerationError, NativeError
from umtlib.generation import encoding
from umtlib.machine import native

MADE = b"what a compiler made"
ONE = b'extern "C" int one() { return 1; }'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, and an empty folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    native.load.cache_clear()
    yield tmp_path / "cache"
    native.load.cache_clear()


def test_what_is_made_is_made_once(folder):
    with native.cached("a.so", [b"source"], lambda: MADE) as path:
        assert path.read_bytes() == MADE and path.parent == folder
    assert folder.stat().st_mode & 0o077 == 0  # nobody else puts anything there
    with native.cached("a.so", [b"source"], lambda: pytest.fail("it is there")) as again:
        assert again == path
    with native.cached("a.so", [b"another source"], lambda: b"anew") as other:
        assert other != path and other.read_bytes() == b"anew"


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@needs_compiler
@pytest.mark.parametrize("why", ["full", "a file", "others can write", "executed"])
def test_without_a_cache_it_is_compiled_for_this_process(folder, monkeypatch, why):
    if why == "full":
        monkeypatch.setattr(os, "fsync", full_disk)
    elif why == "a file":
        folder.write_bytes(b"")
    elif why == "executed":
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=8))
        monkeypatch.setattr(os, "ST_NOEXEC", 8, raising=False)  # of Linux
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setattr(native, "_source", lambda name: ONE)
    with pytest.warns(RuntimeWarning, match="cannot keep what is compiled .*; set UMT_CACHE"):
        assert native.load("one.cpp").one() == 1
    assert not folder.is_dir() or list(folder.iterdir()) == []
    assert list((folder.parent / "temporary").iterdir()) == []
    monkeypatch.setattr(native, "compiled", full_disk)  # nowhere at all
    with pytest.warns(RuntimeWarning), pytest.raises(NativeError, match="No space left on device"):
        native.load("machine/fused.cpp")


@needs_compiler
def test_many_build_at_once(folder):
    _, command, _ = native.toolchain()

    def build(_):
        with native.cached("a.so", [ONE], lambda: native.compiled(command, ONE)) as path:
            return path

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(build, range(4)))
    assert {*folder.iterdir()} == made and len(made) == 1


@needs_compiler
def test_a_compiler_that_fails_is_quoted(folder, monkeypatch, tmp_path):
    _, command, _ = native.toolchain()
    with pytest.raises(NativeError, match="cannot compile .*this is not C"):
        native.compiled(command, b"#error this is not C++")
    assert list((folder.parent / "temporary").iterdir()) == []
    (tmp_path / "c++").write_bytes(b"")
    (tmp_path / "c++").chmod(0o700)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    with pytest.raises(NativeError, match="Exec format error"):
        native.load("machine/fused.cpp")


# ------------------------------------------------------------------------- what is handed over


@pytest.mark.parametrize("value, said", [
    (np.zeros(3, np.int16), "int16"), (np.zeros((3, 2), np.float32), r"shape \(3, 2\)"),
    (np.array([0, np.nan]), "values from nan to nan"), (np.array([0, 12_000.0]), "to 12000"),
    ("abc", "str"),
])  # fmt: skip
def test_blocks_that_are_no_audio_are_refused(blink_model, value, said):
    for blocks in ([value], [torch.zeros(20), value]):
        with pytest.raises(GenerationError, match=f"block.*{said}.*wanted float32 of shape"):
            list(umtlib.stream(blink_model, blocks, to="drum"))
    with pytest.raises(GenerationError, match="hop"):
        next(umtlib.stream(blink_model, [torch.zeros(9_000)], to="drum", hop=0))


@pytest.mark.parametrize("threads", ["0", "many", "1000000"])
def test_umt_threads_is_a_number_of_threads(threads, monkeypatch):
    monkeypatch.setenv("UMT_THREADS", threads)
    with pytest.raises(GenerationError, match=f"UMT_THREADS={threads}"):
        generation.thread_count()


def test_what_is_given_may_come_in_any_order_and_width():
    wide = np.arange(6, dtype=np.float64).reshape(2, 3)
    for value in (wide, torch.from_numpy(wide), wide.T.copy().T, wide[::-1][::-1], wide.tolist()):
        made = native.array("x", value, torch.float32, (2, None), 0, 5)
        assert made.is_contiguous() and torch.equal(made, torch.from_numpy(wide).float())


@pytest.mark.parametrize("codes", [torch.full((1, 50), 256), torch.full((1, 50), -1), [[0.5]], [1]])
def test_codes_that_are_none_are_not_encoded(blink_model, codes):
    with pytest.raises(GenerationError, match="codes"):
        encoding.encode(blink_model.encoder, codes)
