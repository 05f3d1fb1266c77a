"""The CUDA generator, without a GPU.

`kernel.cu` is compiled as plain C++ (`kernel_on_cpu.cpp`) and launched by the very code that talks
to a GPU, through a stand-in for CUDA's driver. So what is compared with the reference is the whole
backend, but for the GPU. That NVRTC makes of the same text what a GPU can load is tested below.
"""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from test_generation import (
    LATENT,
    POOL,
    SMALL,
    VARIANTS,
    assert_agrees,
    decoder_of,
    make_decoder,
    make_input,
    middle_of_the_step,
    needs_compiler,
    run,
)

from umtlib import generation
from umtlib.cli import doctor
from umtlib.errors import GenerationError
from umtlib.generation import State, cuda, nvrtc, reference
from umtlib.guide import Told
from umtlib.machine import native

HERE = Path(__file__).parent
FLAGS = ["-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]
FORWARDS, BACKWARDS, SHUFFLED = range(3)
CUBIN = nvrtc.cubin  # before anything stands in for it


@cache
def compile_for_cpu(source, options, folder, numbers=count()):
    """`kernel.cu`, or a changed copy of it, as a library of this machine."""
    path = folder / f"{next(numbers)}.so"
    command = [*native._compiler(), *FLAGS, *options.split(), f'-DSOURCE="{source}"']
    subprocess.run([*command, HERE / "kernel_on_cpu.cpp", "-o", path], check=True)
    return ctypes.CDLL(str(path))


class StandIn:
    """Does what CUDA's driver would, on the CPU, and writes down what it was asked."""

    def __init__(self, folder, source=nvrtc.SOURCE):
        self.folder, self.source, self.order = folder, source, FORWARDS
        self.calls, self.fails = [], {}

    def __getattr__(self, name):  # whatever is not below succeeds
        return lambda *arguments: self.note(name, arguments, 7)

    def note(self, name, arguments, *results):
        self.calls.append((name, *arguments))
        return self.fails.get(name, 0), *results

    def cuGetErrorString(self, status):
        return 0, b"out of order" if status == 42 else None

    def cuModuleLoadData(self, image):  # instead of a cubin, the compiler's options
        module = compile_for_cpu(self.source, image.decode(), self.folder)
        return self.note("cuModuleLoadData", (image,), module)

    def cuModuleGetFunction(self, module, name):
        return self.note("cuModuleGetFunction", (module, name), module)

    def cuLaunchKernel(self, function, *arguments):
        (blocks, _, _), address = arguments[:3], arguments[8]
        call = cuda._Call.from_address(ctypes.c_void_p.from_address(address).value)
        copy = cuda._Call.from_buffer_copy(call)
        results = self.note("cuLaunchKernel", (function, *arguments[:8], copy))
        if not results[0]:
            function.umt_order(self.order)
            function.umt_launch(ctypes.byref(call), blocks)
        return results

    def named(self, name):
        return [arguments for called, *arguments in self.calls if called == name]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


def pretend(monkeypatch, driver):
    """Make of the CPU a GPU with 40 processors. Returns that."""
    stream = SimpleNamespace(cuda_stream=1234, wait_stream=lambda other: None)
    monkeypatch.setattr(nvrtc, "cubin", lambda options, capability: " ".join(options).encode())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    gpu = cuda.Gpu(torch.device("cpu", 0), 75, 40, driver)
    monkeypatch.setattr(cuda, "find", lambda device=None: gpu)
    return gpu


@pytest.fixture
def gpu(monkeypatch, folder):
    monkeypatch.setattr(cuda, "check", lambda gpu: None)
    yield pretend(monkeypatch, StandIn(folder))
    cuda._kernel.cache_clear()
    cuda._context.cache_clear()


def start(gpu, decoder, streams, per_block):
    """A state whose blocks make so many streams each, whatever `fit` would choose."""
    sizes = replace(cuda.fit(decoder, 1, 1), streams=per_block)
    return State(memory=cuda.Memory(gpu, decoder, sizes, streams))


# ------------------------------------------------------------------------- against the reference


@needs_compiler
@pytest.mark.parametrize(
    "name, per_block", list(zip(VARIANTS, [1, 2, 4, 8, 16, 1, 16, 4, 1, 4], strict=True))
)
def test_the_kernel_chooses_the_codes_of_the_reference(gpu, name, per_block):
    decoder = make_decoder(VARIANTS[name])
    latent, uniforms = make_input(decoder, batch=5, frames=2)
    for temperature in (1.0, 0.6, 0.0):
        codes, logits = run(reference, decoder, latent, uniforms, temperature)
        middle = middle_of_the_step(codes, logits, temperature)
        state = start(gpu, decoder, 5, per_block)
        fast, fast_logits = run(cuda, decoder, latent, middle, temperature, state=state)
        torch.testing.assert_close(fast_logits, logits, atol=1e-4, rtol=0)
        assert torch.equal(fast, codes)


@needs_compiler
@pytest.mark.parametrize(
    "name, per_block, pool",
    [("tiny", 1, 200), ("small", 16, 20), ("paper", 1, 40), ("official", 4, 20),
     ("deep", 1, 8_500)],
)  # fmt: skip
def test_the_kernel_agrees_with_every_preset(gpu, name, per_block, pool):
    """As for the `cpu` backend, with shorter frames: this kernel was not made for a CPU."""
    decoder = decoder_of(name, pool)
    latent, uniforms = make_input(decoder, 1, 2)
    if pool >= 200:  # every ring goes round
        assert 2 * pool > max(layer.dilation for layer in decoder.layers)
    codes, logits = run(cuda, decoder, latent, uniforms, state=start(gpu, decoder, 1, per_block))
    assert_agrees(decoder, latent, uniforms, codes, logits)


@needs_compiler
def test_company_and_pieces_change_nothing(gpu):
    """To the last bit, whatever a block holds and wherever a launch ends."""
    decoder = make_decoder(replace(VARIANTS["uneven"], input_kernel=2), pool=45)
    latent, uniforms = make_input(decoder, batch=7, frames=5)
    codes, logits = run(cuda, decoder, latent, uniforms, state=start(gpu, decoder, 7, 8))
    truth = decoder(codes, latent).transpose(1, 2)
    torch.testing.assert_close(logits, truth, atol=1e-4, rtol=0)
    for per_block in cuda.STREAMS:
        for n in (1, 7):
            state = start(gpu, decoder, n, per_block)
            some = run(cuda, decoder, latent[:n], uniforms[:n], state=state)
            assert torch.equal(some[0], codes[:n]) and torch.equal(some[1], logits[:n])
        state, done = start(gpu, decoder, 7, per_block), []
        for frames, span in ((slice(0, 2), slice(0, 90)), (slice(2, 5), slice(90, 225))):
            done += [run(cuda, decoder, latent[:, :, frames], uniforms[:, span], state=state)[1]]
        assert torch.equal(torch.cat(done, dim=1), logits)


# ------------------------------------------------------------------------ barriers and addresses


@needs_compiler
@pytest.mark.parametrize("per_block", [1, 16])
def test_the_order_of_the_threads_does_not_matter(gpu, per_block):
    """Where a barrier between two phases is missing, it does."""
    decoder = make_decoder(replace(VARIANTS["prediction"], blocks=1, layers=4))
    latent, uniforms = make_input(decoder, batch=2, frames=1)
    made = []
    for gpu.driver.order in (FORWARDS, BACKWARDS, SHUFFLED):
        state = start(gpu, decoder, 2, per_block)
        made.append(run(cuda, decoder, latent, uniforms, state=state)[1])
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("per_block, right, wrong, said", [
    (1, "", "", ""), (4, "", "", ""),
    (4, "past[(k + 1) * STREAMS", "past[(k + 99) * STREAMS", "heap-buffer-overflow"),
])  # fmt: skip
def test_every_address_is_inside(gpu, folder, tmp_path, per_block, right, wrong, said):
    """Under the sanitizers of addresses and of undefined behaviour; and they do look."""
    settings = replace(VARIANTS["uneven"], input_kernel=3, guide="predicting 19")
    decoder = make_decoder(settings, pool=30)
    latent, uniforms = make_input(decoder, batch=3, frames=1)
    memory = start(gpu, decoder, 3, per_block).memory
    run(cuda, decoder, latent, uniforms, state=State(memory=memory))
    call = gpu.driver.named("cuLaunchKernel")[-1][-1]
    made = memory.tensors | {
        "latent": latent, "uniforms": uniforms,
        "predictors": decoder.guide.tell(latent).predictors.contiguous(),
        "codes": torch.empty(3, 30, dtype=torch.uint8), "scores": torch.empty(3, 30, 256),
    }  # fmt: skip
    given = memory.blocks.to_bytes(4, sys.byteorder) + bytes(call)
    for name, _ in call._fields_[: len(made)]:
        content = made[name].numpy().tobytes()
        given += len(content).to_bytes(8, sys.byteorder) + content

    changed, program = tmp_path / "kernel.cu", tmp_path / "program"
    changed.write_text(nvrtc.SOURCE.read_text().replace(right, wrong))
    options = [flag for flag in FLAGS if flag != "-shared"] + SANITIZERS
    options += [*memory.sizes.options(), f'-DSOURCE="{changed}"']
    command = [*native._compiler(), *options, HERE / "kernel_on_cpu.cpp", "-o", program]
    subprocess.run(command, check=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], input=given, env=environment, capture_output=True)
    text = (done.stdout + done.stderr).decode()
    assert said in text and ("clean" in text) == (not said)


# -------------------------------------------------------------------------------- what NVRTC makes


# NVIDIA's tool that reads cubins comes with Triton; and that, as NVRTC, with torch for CUDA.
TRITON = importlib.util.find_spec("triton")
CUOBJDUMP = TRITON and Path(TRITON.origin).parent / "backends/nvidia/bin/cuobjdump"
needs_nvrtc = pytest.mark.skipif(
    not (TRITON and CUOBJDUMP.exists()), reason="this torch is without CUDA"
)
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "cache"))
    yield
    CUBIN.cache_clear()


def sizes_of(name, per_block):
    return replace(cuda.fit(decoder_of(name, 4), 1, 1), streams=per_block)


@needs_nvrtc
@pytest.mark.parametrize("capability, name, per_block", [
    *((capability, "paper", 16) for capability in (75, 80, 86, 89, 90)),
    *((75, "official", 1), (90, "official", 1), (75, "paper", 8), (75, "tiny", 2)),
])  # fmt: skip
def test_a_cubin_fits_its_gpu(tmp_path, capability, name, per_block):
    """No spilled register, and one block has room wherever it may run."""
    sizes, path = sizes_of(name, per_block), tmp_path / "kernel.cubin"
    path.write_bytes(nvrtc.cubin(sizes.options(), capability))
    said = subprocess.check_output([CUOBJDUMP, "-res-usage", path], text=True)
    ((registers, stack, shared, local),) = (map(int, found) for found in RESOURCES.findall(said))
    assert (stack, local) == (0, 0)
    assert registers * sizes.threads <= 65_536
    reserved = 1024 if capability >= 90 else 0  # of every block; NVRTC counts it there
    assert sizes.shared_memory <= shared - reserved < sizes.shared_memory + 64
    assert shared <= 48 * 1024 and sizes.shared_memory <= cuda.SHARED_MEMORY


@needs_nvrtc
def test_a_cubin_is_made_once(monkeypatch):
    options = sizes_of("tiny", 1).options()
    made = nvrtc.cubin(options, 75)
    assert made.startswith(b"\x7fELF")
    nvrtc.cubin.cache_clear()
    compile_ = nvrtc._compile
    monkeypatch.setattr(nvrtc, "_compile", lambda *arguments: b"compiled again")
    assert nvrtc.cubin(options, 75) == made
    assert nvrtc.cubin(options, 80) == nvrtc.cubin((*options, "-DX=1"), 75) == b"compiled again"
    monkeypatch.setattr(nvrtc, "_compile", compile_)
    with pytest.raises(GenerationError, match="gpu-architecture"):  # quoted
        nvrtc.cubin(options, 12)


def test_without_the_bindings_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.delitem(sys.modules, "cuda.bindings.nvrtc", raising=False)
    with pytest.raises(GenerationError, match="install cuda-bindings"):
        nvrtc.cubin((), 75)


# ------------------------------------------------------------------------------------- the launches


@needs_compiler
def test_the_launch_is_what_the_kernel_expects(gpu):
    decoder = make_decoder(SMALL, pool=450)
    latent, uniforms = make_input(decoder, batch=19, frames=2)
    state = start(gpu, decoder, 19, 8)
    cuda.run(decoder, Told(latent), uniforms, temperature=0.5, state=state)
    launches, tensors = gpu.driver.named("cuLaunchKernel"), state.memory.tensors
    assert [launch[-1].first for launch in launches] == [0, 200, 400, 450, 650, 850]
    assert [launch[-1].last for launch in launches] == [200, 400, 450, 650, 850, 900]
    for _, *grid_and_block, shared, stream, call in launches:
        assert grid_and_block == [3, 1, 1, state.memory.sizes.threads, 1, 1]
        assert (shared, stream, call.scores) == (0, 1234, None)
        for name, tensor in tensors.items():
            assert (getattr(call, name) or 0) == tensor.data_ptr()
    assert gpu.driver.named("cuStreamSynchronize") == [[1234]] * 6
    assert [name for name, *_ in gpu.driver.calls[:4]] == [
        "cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
    ]  # fmt: skip
    assert gpu.driver.named("cuCtxSetCurrent") == [[7]] * 7  # each thread must


@needs_compiler
@pytest.mark.parametrize("name", ["cuInit", "cuModuleLoadData", "cuLaunchKernel"])
@pytest.mark.parametrize("status, said", [(42, "out of order"), (43, "error 43")])
def test_what_the_driver_refuses_is_quoted(gpu, name, status, said):
    decoder = make_decoder(SMALL)
    gpu.driver.fails[name] = status
    with pytest.raises(GenerationError, match=f"{name} failed on cpu:0: {said}"):
        generation.generate(decoder, make_input(decoder, 1, 1)[0], backend="cuda")


def test_without_room_or_gpu_the_backend_is_refused(monkeypatch, gpu):
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(cuda, "Memory", full)
    decoder = make_decoder(SMALL)
    with pytest.raises(GenerationError, match="no memory for 5 streams"):
        generation.generate(decoder, make_input(decoder, 5, 1)[0], backend="cuda")
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GenerationError, match="needs an NVIDIA GPU"):
        generation.generate(decoder, make_input(decoder, 1, 1)[0], backend="cuda")


def test_how_many_streams_a_block_makes():
    def per_block(streams, processors, **changes):
        decoder = make_decoder(replace(SMALL, **changes))
        return cuda.fit(decoder, streams, processors).streams

    t4 = [per_block(streams, 40) for streams in (1, 2, 3, 4, 160, 161, 320, 321, 10_000)]
    assert t4 == [1, 2, 4, 4, 4, 8, 8, 16, 16]
    assert per_block(528, 132) == 4 and per_block(529, 132) == 8
    assert per_block(10_000, 40, channels=256, skip_channels=256) == 8  # 16 have no room
    with pytest.raises(GenerationError, match="2048 channels .* too wide"):
        per_block(1, 40, channels=2048, blocks=1, layers=1)


# ------------------------------------------------------------------------- the self-test, one door


@pytest.fixture
def fresh(monkeypatch, folder):
    """A stand-in on which nothing is checked yet; torch says that there is a GPU."""
    gpu = pretend(monkeypatch, StandIn(folder))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    caches = cuda._kernel, cuda._context, cuda.check, generation.fastest
    for cached in caches:  # other tests have asked before, on a machine without a GPU
        cached.cache_clear()
    yield gpu
    for cached in caches:
        cached.cache_clear()


@needs_compiler
def test_a_gpu_that_agrees_is_the_fastest(fresh):
    assert generation.fastest() == "cuda" and generation.fastest(torch.bfloat16) == "cpu"
    checked = len(fresh.driver.calls)
    assert checked > 4 and generation.fastest() == "cuda"
    assert len(fresh.driver.calls) == checked  # once
    decoders = [make_decoder(SMALL, seed=seed) for seed in range(3)]
    latent, uniforms = make_input(decoders[0], 2, 3)
    codes = [run(reference, decoder, latent, uniforms)[0] for decoder in decoders]
    state = State()
    for frame in range(3):
        span = slice(frame * POOL, (frame + 1) * POOL)
        made = generation.generate(
            decoders[0], latent[:, :, frame : frame + 1], uniforms=uniforms[:, span], state=state
        )
        assert torch.equal(made, codes[0][:, span])
    assert state.owner[0] == "cuda"
    together = generation.generate_many(decoders, latent, uniforms=[uniforms] * 3, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(together, codes, strict=True))
    with pytest.raises(GenerationError, match="cuda backend does not compute in torch.bfloat16"):
        generation.generate(decoders[0], latent, backend="cuda", dtype=torch.bfloat16)


BROKEN = {  # as a GPU or its compiler might break it
    "a tap": ("call.current + l", "call.previous + l"),
    "the head's condition": ("LAYERS * HIDDEN * STREAMS + at", "at"),
    "the sampling": ("sums[part * STREAMS + n] <= left", "sums[part * STREAMS + n] < 0"),
}


@needs_compiler
@pytest.mark.parametrize("what", BROKEN)
def test_a_gpu_that_disagrees_is_not_used(monkeypatch, fresh, folder, what):
    text = nvrtc.SOURCE.read_text()
    right, wrong = BROKEN[what]
    assert text.count(right) >= 1
    fresh.driver.source = folder / f"broken {what}.cu"
    fresh.driver.source.write_text(text.replace(right, wrong))
    with pytest.warns(RuntimeWarning, match="disagrees with the reference .* on the CPU instead"):
        assert generation.fastest() == "cpu"
    with pytest.raises(GenerationError, match="disagrees with the reference"):
        generation.generate(make_decoder(SMALL), torch.zeros(1, LATENT, 1), backend="cuda")
    found = SimpleNamespace(name="T4", major=7, minor=5, total_memory=16 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    assert "disagrees with the reference" in doctor._gpu()[1]
