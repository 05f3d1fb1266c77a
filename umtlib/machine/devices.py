"""Where a network runs, and in which numbers: what ``--device`` and ``--precision`` mean."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from umtlib.errors import ConfigError

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
MEMORY = (
    "out of memory: --set recompute=true and --set micro_batches=4 need less of it for the same "
    "training, a smaller --set batch or crop changes it; see docs/gpu.md"
)


def device(name: str = "auto", gpu: bool = True) -> torch.device:
    """Return the device of that name; a process of ``torchrun`` has the GPU of its local rank.

    ``"auto"`` is an NVIDIA GPU if there is one and `gpu` allows it, else the CPU. Raises
    ConfigError if there is no such device.
    """
    gpus, apple = torch.cuda.device_count(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if gpu and gpus else "cpu"
    if name == "cpu" or (name == "mps" and apple):
        return torch.device(name)
    kind, _, number = name.partition(":")
    number = number or os.environ.get("LOCAL_RANK", "0")
    if kind == "cuda" and number.isdecimal() and int(number) < gpus:
        torch.cuda.set_device(int(number))
        return torch.device("cuda", int(number))
    raise ConfigError(
        f"there is no device {name!r}: torch sees {gpus} NVIDIA GPUs{' and mps' * apple}; choose "
        "auto, cpu, cuda, cuda:1 or mps"
    )


def precision(name: str, device: torch.device) -> str:
    """Return in what the products of a network are to be computed on a device.

    ``"auto"`` is on an NVIDIA GPU bfloat16 where it has it, else float16, and elsewhere float32.
    Raises ConfigError if the device does not have it.
    """
    if name == "auto":
        half = "bfloat16" if native(device) else "float16"
        return half if device.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision {name!r}; choose auto or {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type != "cuda":
        raise ConfigError(f"precision 'tf32' is for NVIDIA GPUs, not {device.type}; take float32")
    return name


def native(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16; else it is tens of times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the arithmetic of a network's products; bfloat16 is float32 where it is not native."""
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    wanted = half == torch.float16 or (half == torch.bfloat16 and native(device))
    return torch.autocast(device.type, half, enabled=wanted)


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Let GPUs round the factors of float32 products to 10 bits, or not."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = wanted
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before


@contextmanager
def told_of_memory(mend: str = MEMORY) -> Iterator[None]:
    """Raise ConfigError, which says what to do, where a device's memory is not enough."""
    try:
        yield
    except RuntimeError as error:
        # Of a GPU, of the CPU, and of a process that prepares batches and was killed.
        known = "out of memory", "you tried to allocate", "DataLoader worker"
        if not any(words in str(error) for words in known):
            raise
        raise ConfigError(mend) from error
