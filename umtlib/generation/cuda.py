"""The generator for NVIDIA GPUs: hands weights, latents and uniforms to `kernel.cu`.

It goes through CUDA's driver, with memory and streams of torch. Memory per stream: as for the
`cpu` backend, about ``receptive field * channels`` numbers in float32, 2.1 MB for the paper's
decoder. What was proved about it without a GPU, and how: ``docs/cuda.md``.
"""

import ctypes
from ctypes import Structure, c_float, c_int32, c_void_p
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.config import DecoderConfig
from umtlib.decoder import Decoder
from umtlib.errors import GenerationError
from umtlib.generation import nvrtc, reference
from umtlib.generation.sampling import State
from umtlib.generation.weights import Weights, gather
from umtlib.guide import Told
from umtlib.mulaw import CODES

SAMPLES = 200  # per launch: well under a second, so that no watchdog and no Ctrl-C waits long
STREAMS = (1, 2, 4, 8, 16)  # per block
SHARED_MEMORY = 47 * 1024  # bytes that every GPU gives to a block without being asked, less 1 KiB
TOLERANCE = 1e-4  # on logits: other orders of sums, other exponentials


@dataclass(frozen=True)
class Gpu:
    """A GPU: where torch keeps its tensors, what the compiler must know, and its driver."""

    device: torch.device
    capability: int  # 75 for sm_75
    processors: int
    driver: Any  # the module cuda.bindings.driver

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what a function of the driver gives, or raise GenerationError."""
        status, *values = getattr(self.driver, name)(*arguments)
        if status:
            text = self.driver.cuGetErrorString(status)[1]
            text = text.decode() if text else f"error {int(status)}"
            raise GenerationError(f"{name} failed on {self.device}: {text}")
        return values[0] if values else None

    def enter(self) -> None:
        """Let this thread's calls of the driver go to this GPU, and share memory with torch."""
        self.call("cuCtxSetCurrent", _context(self))


@cache
def _context(gpu: Gpu) -> Any:
    gpu.call("cuInit", 0)
    return gpu.call("cuDevicePrimaryCtxRetain", gpu.call("cuDeviceGet", gpu.device.index))


def find(device: torch.device = torch.device("cpu")) -> Gpu:
    """Return that GPU, or torch's current one if the device is none.

    Raises GenerationError if torch or `cuda.bindings` cannot use a GPU.
    """
    if not torch.cuda.is_available():
        raise GenerationError("the cuda backend needs an NVIDIA GPU that torch can use")
    if device.type != "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    found = torch.cuda.get_device_properties(device)
    capability = 10 * found.major + found.minor
    return Gpu(device, capability, found.multi_processor_count, nvrtc.bindings("driver"))


@dataclass(frozen=True)
class Sizes:
    """What the kernel is compiled for. Channels and skip channels are padded to fours."""

    channels: int
    skip: int
    latent: int
    kernel: int
    order: int  # of the prediction
    layers: int
    streams: int  # per block

    @property
    def tile(self) -> tuple[int, int]:
        """Outputs and streams that a thread sums up: more reuse where there are many streams."""
        return 4 if self.streams >= 8 else 2, min(self.streams, 4)

    @property
    def ahead(self) -> int:
        """Samples for which the dilated tap is taken at once."""
        return max(1, 8 // self.streams) if self.streams <= 2 else 1

    @property
    def threads(self) -> int:
        """Threads of a block: a tile each in the larger products, in whole warps."""
        outputs, (rows, columns) = self.channels + max(self.channels, self.skip), self.tile
        tiles = outputs // rows * (self.streams // columns)
        return min(256, (tiles + 31) // 32 * 32)

    @property
    def shared_memory(self) -> int:
        """Bytes of the kernel's shared arrays."""
        scratch = max((1 + self.ahead) * self.channels, CODES)
        floats = scratch + max(self.channels, self.skip) + self.skip
        return self.streams * (4 * floats + 16 * (8 + 4)) + 4 * self.layers

    def options(self) -> tuple[str, ...]:
        """Return the definitions that the kernel's text asks for."""
        rows, columns = self.tile
        derived = {"rows": rows, "columns": columns, "ahead": self.ahead, "threads": self.threads}
        return tuple(f"-D{name.upper()}={n}" for name, n in (vars(self) | derived).items())


def fit(decoder: Decoder, streams: int, processors: int) -> Sizes:
    """Choose how many streams a block makes: the fewest with which every block has a processor.

    But not fewer than four, if there are four: up to there, reading the weights takes the time.
    Raises GenerationError if not even one stream has room in a processor's shared memory.
    """
    config, guide = decoder.config, decoder.guide
    channels, skip = (-(-n // 4) * 4 for n in (config.channels, config.skip_channels))
    inputs, layers = (config.input_kernel, guide.order), len(decoder.layers)
    choices = [Sizes(channels, skip, guide.channels, *inputs, layers, n) for n in STREAMS]
    enough = (n for n in STREAMS if n >= min(streams, 4) and n * processors >= streams)
    most = next(enough, STREAMS[-1])
    fitting = [z for z in choices if z.streams <= most and z.shared_memory <= SHARED_MEMORY]
    if not fitting:
        raise GenerationError(
            f"a decoder of {config.channels} channels and {config.skip_channels} skip channels is "
            "too wide for the cuda backend; use cpu"
        )
    return fitting[-1]


def pack(weights: Weights, sizes: Sizes) -> dict[str, Tensor]:
    """Bring the weights into the layout that `kernel.cu` describes, under the names used there."""
    layers, channels, skip = sizes.layers, sizes.channels, sizes.skip
    true_channels, true_skip = weights.residual_bias.shape[1], len(weights.head)

    def pad(x: Tensor, dim: int, size: int) -> Tensor:
        return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, size - x.shape[dim]))

    def gates(x: Tensor) -> Tensor:  # (layers, 2C, ...) -> the same, gate and value alternating
        x = pad(x.unflatten(1, (2, true_channels)), 2, channels)
        return x.transpose(1, 2).flatten(1, 2)

    def out(x: Tensor, dim: int) -> Tensor:  # residual and skip
        residual, skips = x.split([true_channels, true_skip], dim)
        return torch.cat([pad(residual, dim, channels), pad(skips, dim, skip)], dim)

    def conditions(x: Tensor) -> Tensor:  # the layers', then the head's
        stack, head = x.split([layers * 2 * true_channels, true_skip])
        stack = gates(stack.unflatten(0, (layers, 2 * true_channels))).flatten(0, 1)
        return torch.cat([stack, pad(head, 0, skip)])

    return {
        "table": out(weights.table, 2),
        "condition": conditions(weights.condition).T,
        "condition_bias": conditions(weights.condition_bias),
        "previous": pad(gates(weights.previous), 2, channels).mT,
        "current": pad(gates(weights.current), 2, channels).mT,
        "out": pad(out(weights.out, 1), 2, channels).mT,
        "residual_bias": pad(weights.residual_bias, 1, channels),
        "head": pad(pad(weights.head, 0, skip), 1, skip).T,
        "logits": pad(weights.logits, 1, skip).T,
        "logits_bias": weights.logits_bias,
    }


class _Call(Structure):  # `Call` in kernel.cu
    _fields_ = (
        [(item.name, c_void_p) for item in fields(Weights)]
        + [(name, c_void_p) for name in ("begins", "rings", "slots", "early", "conditions", "past")]
        + [(name, c_void_p) for name in ("recent", "amplitudes", "thresholds")]
        + [(name, c_void_p) for name in ("latent", "predictors", "uniforms", "codes", "scores")]
        + [(name, c_int32) for name in ("streams", "frames", "pool", "first", "last")]
        + [("temperature", c_float)]
    )


@cache
def _kernel(gpu: Gpu, sizes: Sizes) -> Any:
    gpu.enter()
    module = gpu.call("cuModuleLoadData", nvrtc.cubin(sizes.options(), gpu.capability))
    return gpu.call("cuModuleGetFunction", module, b"umt_generate")


class Memory:
    """A decoder on a GPU, and what its next sample depends on. Freed with the object."""

    def __init__(self, gpu: Gpu, decoder: Decoder, sizes: Sizes, streams: int):
        self.gpu, self.sizes = gpu, sizes
        self.blocks, self.kernel = -(-streams // sizes.streams), _kernel(gpu, sizes)
        inputs = sizes.kernel + (sizes.order > 0)  # codes that are looked up for a sample
        conditions = 2 * sizes.layers * sizes.channels + sizes.skip  # what a frame adds
        begins = torch.tensor([0] + [layer.dilation for layer in decoder.layers]).cumsum(0)
        # A stream of its own: several decoders work at once, where each fills a part of the GPU.
        self.stream = torch.cuda.Stream(gpu.device)
        with torch.cuda.stream(self.stream):
            packed = pack(gather(decoder), sizes)
            self.tensors = {
                name: value.to(gpu.device).contiguous() for name, value in packed.items()
            } | {
                "begins": begins.to(gpu.device, torch.int32),
                "rings": self._zeros(int(begins[-1]), sizes.channels, sizes.streams),
                "slots": self._zeros(sizes.layers + 1, dtype=torch.int32),
                "early": self._zeros(sizes.layers, sizes.ahead, 2 * sizes.channels, sizes.streams),
                "conditions": self._zeros(conditions, sizes.streams),
                "past": self._zeros(inputs, sizes.streams, dtype=torch.int32),
                "recent": self._zeros(sizes.order, sizes.streams, dtype=torch.float64),
                "amplitudes": mulaw.amplitudes().to(gpu.device),
                "thresholds": mulaw.thresholds().to(gpu.device),
            }

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.blocks, *shape, dtype=dtype, device=self.gpu.device)

    def launch(self, call: _Call) -> None:
        """Make the samples that the call describes, and wait for them."""
        arguments = (c_void_p * 1)(ctypes.addressof(call))
        self.gpu.enter()
        self.gpu.call(
            "cuLaunchKernel", self.kernel, self.blocks, 1, 1, self.sizes.threads, 1, 1,
            0, self.stream.cuda_stream, ctypes.addressof(arguments), 0,
        )  # fmt: skip
        self.gpu.call("cuStreamSynchronize", self.stream.cuda_stream)


def run(
    decoder: Decoder,
    told: Told,
    uniforms: Tensor,
    *,
    temperature: float,
    state: State,
    logits: Tensor | None = None,
) -> Tensor:
    """Generate: the arguments of `reference.run`, except `forced`.

    Raises GenerationError if there is no GPU, it has no room, refuses the kernel or does not pass
    `check`.
    """
    streams, samples = uniforms.shape
    pool = decoder.guide.hop
    try:
        if state.memory is None:
            gpu = find(told.condition.device)
            check(gpu)
            state.memory = Memory(gpu, decoder, fit(decoder, streams, gpu.processors), streams)
        memory, device = state.memory, state.memory.gpu.device
        memory.stream.wait_stream(torch.cuda.current_stream(device))  # it may still tell
        with torch.cuda.stream(memory.stream):
            made = {
                "latent": told.condition.mT.to(device, torch.float32).contiguous(),
                "uniforms": uniforms.to(device).contiguous(),
                "codes": torch.empty(streams, samples, dtype=torch.uint8, device=device),
            }
            if told.predictors is not None:
                made["predictors"] = told.predictors.to(device).contiguous()
            if logits is not None:
                made["scores"] = torch.empty(streams, samples, CODES, device=device)
            call = _Call(
                **{name: x.data_ptr() for name, x in (memory.tensors | made).items()},
                streams=streams, frames=samples // pool, pool=pool, temperature=temperature,
            )  # fmt: skip
            for begin in range(0, samples, pool):
                for first in range(begin, begin + pool, SAMPLES):
                    call.first, call.last = first, min(first + SAMPLES, begin + pool)
                    memory.launch(call)
            if logits is not None:
                logits.copy_(made["scores"])
            return made["codes"].cpu()
    except torch.OutOfMemoryError as error:
        text = f"the GPU has no memory for {streams} streams at once; make fewer"
        raise GenerationError(text) from error


@cache
def check(gpu: Gpu) -> None:
    """Let a GPU make a few samples with a tiny decoder, and compare them with the reference.

    Once per process, before the first use. It takes both ways through the kernel: one stream per
    block, and many of which some are idle. Raises GenerationError if logits or codes disagree: the
    backend is not to be trusted on this GPU.
    """
    config = DecoderConfig(
        input="codes", input_kernel=2, blocks=2, layers=5, channels=18, skip_channels=10,
        condition_head=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(config, latent=5, pool=60)
        decoder.guide.order, decoder.predicted = 24, torch.nn.Embedding(CODES, config.channels)
        told = Told(torch.randn(3, 5, 2), torch.randn(3, 2, 24, dtype=torch.float64) / 5)
        uniforms = torch.rand(3, 120)
    for streams in (STREAMS[0], STREAMS[-1]):
        sizes = replace(fit(decoder, 1, gpu.processors), streams=streams)
        logits, truth = torch.empty(2, *uniforms.shape, CODES)
        memory = Memory(gpu, decoder, sizes, len(uniforms))
        how = {"told": told, "uniforms": uniforms, "temperature": 1.0}
        codes = run(decoder, state=State(memory=memory), logits=logits, **how).long()
        wanted = reference.run(decoder, state=State(), forced=codes, logits=truth, **how)
        error, same = (logits - truth).abs().max().item(), (codes == wanted).float().mean().item()
        if not (error <= TOLERANCE and same >= 0.99):
            raise GenerationError(
                f"the CUDA kernel disagrees with the reference on {gpu.device} (logits by "
                f"{error:.1g}, {same:.0%} of the codes equal); use another backend and report this"
            )
