"""The cache of compiled libraries, and what may be handed to them."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_generation import POOL, SMALL, make_decoder, needs_compiler

import umtlib
from umtlib import generation
from umtlib.errors import GenerationError, NativeError, UmtError
from umtlib.generation import State, encoding
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
    return tmp_path / "cache"


def flip(path):
    content = path.read_bytes()
    path.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])


def replaced(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGE = {
    "truncated": lambda path: os.truncate(path, 9),
    "empty": lambda path: os.truncate(path, 0),
    "a bit flipped": flip,
    "writable by others": lambda path: path.chmod(0o646),
    "no digest": lambda path: path.with_name("a.so.sha256").unlink(),
    "another digest": lambda path: flip(path.with_name("a.so.sha256")),
    "a pipe": replaced(os.mkfifo),
    "a link": lambda path: (path.rename(path.with_name("b")), path.symlink_to("b")),
    "a digest's link to nowhere": lambda path: replaced(lambda p: p.symlink_to("nowhere"))(
        path.with_name("a.so.sha256")
    ),
    "another's": lambda path: os.chown(path, 12_345, -1),
    "a folder that others write to": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_ours_and_whole_is_made_anew(damage, folder):
    path, content = native.cached("a.so", lambda: MADE)
    assert path == folder / "a.so" and content == MADE
    assert native.cached("a.so", lambda: pytest.fail("it is there")) == (path, MADE)
    assert folder.stat().st_mode & 0o077 == 0
    if damage == "another's" and os.geteuid():
        pytest.skip("only root can give files away")
    DAMAGE[damage](path)
    path, content = native.cached("a.so", lambda: b"anew")
    assert content == b"anew" and path.read_bytes() == b"anew"
    assert native.cached("a.so", lambda: pytest.fail("it is there")) == (path, b"anew")


def test_a_folder_of_ones_own_that_others_can_write_to_is_not_used(folder):
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    inner = native.cache_folder()
    assert inner != folder
    inner.mkdir()
    inner.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="others can write to it|cannot keep"):
        assert native.cached("a.so", lambda: MADE) == (None, MADE)


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["full", "read-only", "a file"])
def unusable(request, folder, monkeypatch):
    if request.param == "full":
        monkeypatch.setattr(os, "fsync", full_disk)
    elif request.param == "read-only":  # to root as well
        monkeypatch.setenv("UMT_CACHE", "/proc/umtlib")
    else:
        folder.write_bytes(b"")
    return folder


@needs_compiler
def test_without_a_cache_it_is_compiled_for_this_process(unusable, monkeypatch):
    monkeypatch.setattr(native, "_source", lambda name: ONE)
    native.load.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="cannot keep what is compiled .*; set UMT_CACHE"):
            assert native.load("one.cpp").one() == 1
    finally:
        native.load.cache_clear()
    assert not unusable.is_dir() or list(unusable.iterdir()) == []
    assert list((unusable.parent / "temporary").iterdir()) == []


@needs_compiler
def test_nowhere_at_all_is_said_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(native, "compiled", full_disk)
    with pytest.raises(NativeError, match="No space left on device") as caught:
        native.load("machine/fused.cpp")
    assert "\n" not in str(caught.value)


@needs_compiler
@pytest.mark.parametrize("change", [lambda c: c[:3_000], lambda c: c[:40] + b"\7" + c[41:]])
def test_a_damaged_library_is_not_loaded(folder, monkeypatch, change):
    monkeypatch.setattr(native, "_source", lambda name: ONE)
    native.load.cache_clear()
    native.load("one.cpp")
    (library,) = folder.glob("*.so")
    content = library.read_bytes()
    library.unlink()  # this process uses it
    library.write_bytes(change(content))
    native.load.cache_clear()
    assert native.load("one.cpp").one() == 1 and library.read_bytes() == content
    native.load.cache_clear()


@needs_compiler
def test_many_build_at_once(folder):
    _, command, _ = native.toolchain()
    found = []

    def build():
        found.append(native.cached("a.so", lambda: native.compiled(command, ONE))[0])

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder / "a.so"] * 4 and ctypes.CDLL(str(found[0])).one() == 1
    assert sorted(os.listdir(folder)) == ["a.so", "a.so.sha256"]


@needs_compiler
def test_a_compiler_that_fails_is_quoted(folder):
    _, command, _ = native.toolchain()
    with pytest.raises(NativeError, match="cannot compile .*this is not C"):
        native.compiled(command, b"#error this is not C++")
    assert list((folder.parent / "temporary").iterdir()) == []


@pytest.mark.slow
@needs_compiler
def test_sigterm_leaves_nothing(folder):
    temporary = folder.parent / "temporary"
    program = "from umtlib.machine import native; native.load('generation/kernel.cpp')"
    process = subprocess.Popen([sys.executable, "-c", program])
    until = time.monotonic() + 60
    while not any(temporary.glob("*/source.cpp")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert list(temporary.iterdir()) == [] and not folder.exists()


# ------------------------------------------------------------------------- what is handed over


@pytest.mark.parametrize(
    "value, said",
    [
        (np.zeros(3, np.int16), "int16"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.zeros((3, 2), np.float32), r"shape \(3, 2\)"),
        (np.zeros((1, 3), np.float32), r"shape \(1, 3\)"),
        (np.array([0, np.nan]), "values from nan to nan"),
        (np.array([0, -np.inf]), "values from -inf"),
        (np.array([0, 12_000.0]), "to 12000"),
        (torch.zeros(3, device="meta"), "not held in memory"),
        (torch.zeros(3).to_sparse(), "not held in memory"),
        (None, "NoneType"),
        ("abc", "str"),
        ([[1.0], [1.0, 2.0]], "list"),
    ],
)
def test_blocks_that_are_no_audio_are_refused(blink_model, value, said):
    for blocks in ([value], [torch.zeros(20), value]):
        with pytest.raises(GenerationError, match=f"block.*{said}.*convert to float32 in"):
            list(umtlib.stream(blink_model, blocks, to="drum"))


@pytest.mark.parametrize("hop", [0, -1, 1.5, "4", None, True])
def test_a_hop_is_a_whole_number_of_frames(blink_model, hop):
    with pytest.raises(GenerationError, match="hop"):
        next(umtlib.stream(blink_model, [torch.zeros(9_000)], to="drum", hop=hop))


@pytest.mark.parametrize("threads", ["0", "-1", "many", "1000000", "1.5"])
def test_umt_threads_is_a_number_of_threads(threads, monkeypatch):
    monkeypatch.setenv("UMT_THREADS", threads)
    with pytest.raises(GenerationError, match=f"UMT_THREADS={threads}"):
        generation.thread_count()


def test_what_is_given_may_come_in_any_order_and_width():
    wide = np.arange(6, dtype=np.float64).reshape(2, 3)
    for value in (wide, torch.from_numpy(wide), wide.T.copy().T, wide[::-1][::-1], wide.tolist()):
        made = native.array("x", value, torch.float32, (2, None), 0, 5)
        assert made.is_contiguous() and torch.equal(made, torch.from_numpy(wide).float())
    for value in (torch.zeros(4, 2).T, torch.zeros(2, 4).double()):
        with pytest.raises(GenerationError, match="written to as it is"):
            native.array("x", value, torch.float32, (2, 4), written=True)


@pytest.mark.parametrize("codes", [torch.full((1, 50), 256), torch.full((1, 50), -1), [[0.5]], [1]])
def test_codes_that_are_none_are_not_encoded(blink_model, codes):
    with pytest.raises(GenerationError, match="codes"):
        encoding.encode(blink_model.encoder, codes)


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=3), st.just(10**5000)
)
KINDS = st.one_of(arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.boolean_dtypes())


def any_array(side):
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=side)
    return st.one_of(
        arrays.arrays(KINDS, shapes),
        arrays.arrays(np.float32, shapes, elements=st.floats(-1, 1, width=32)),
    )


quick = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@quick
@given(blocks=st.lists(any_array(250), max_size=2), hop=st.one_of(st.integers(-1, 3), NUMBERS),
       temperature=NUMBERS)  # fmt: skip
def test_any_stream_is_made_or_refused(blink_model, blocks, hop, temperature):
    try:
        made = list(umtlib.stream(blink_model, blocks, "drum", hop=hop, temperature=temperature))
    except UmtError:
        return
    assert sum(map(len, made)) == sum(map(len, blocks))
    assert all(piece.isfinite().all() for piece in made)


@quick
@given(
    latent=st.one_of(
        any_array(6), arrays.arrays(np.float32, (1, 6, 2), elements=st.floats(-9, 9, width=32))
    ),
    uniforms=st.one_of(st.none(), any_array(2), st.just(np.zeros((1, 2 * POOL)))),
    temperature=st.one_of(st.just(1.0), NUMBERS), threads=st.one_of(st.integers(1, 3), NUMBERS),
    backend=st.one_of(st.sampled_from(["auto", "cpu", "reference"]), NUMBERS),
    dtype=st.one_of(st.sampled_from([*generation.DTYPES.values(), torch.int16]), NUMBERS),
    state=st.one_of(st.builds(State), NUMBERS), generator=st.one_of(st.none(), NUMBERS),
)  # fmt: skip
def test_any_generation_is_made_or_refused(latent, **arguments):
    try:
        codes = generation.generate(make_decoder(SMALL), latent, **arguments)
    except UmtError:
        return
    assert codes.shape == (len(latent), latent.shape[2] * POOL)
    assert codes.numel() == 0 or 0 <= codes.min() <= codes.max() <= 255
