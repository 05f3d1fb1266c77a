"""Compiles `kernel.cu` with NVRTC, once per GPU and size of decoder, and keeps the result.

NVRTC comes with torch's CUDA wheels, and so does `cuda.bindings`, the Python face of NVRTC and of
the driver. Neither needs a GPU, nvcc or a C++ compiler.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from types import ModuleType

from umtlib.errors import GenerationError
from umtlib.machine import native

SOURCE = files("umtlib.generation").joinpath("kernel.cu")


def bindings(name: str) -> ModuleType:
    """Return ``cuda.bindings.driver`` or ``cuda.bindings.nvrtc``, or raise GenerationError."""
    try:
        return import_module(f"cuda.bindings.{name}")
    except ImportError as error:
        raise GenerationError(
            f"cuda.bindings cannot be imported ({error}); torch 2.10 and newer for CUDA bring it, "
            "or install cuda-bindings of the CUDA version in torch.version.cuda"
        ) from error


@cache
def cubin(options: Sequence[str], capability: int) -> bytes:
    """Return the kernel, compiled by ``-DNAME=value`` for a GPU: 75 for a T4, 90 for an H100.

    Raises GenerationError if NVRTC is missing or cannot compile for this GPU.
    """
    nvrtc, source = bindings("nvrtc"), SOURCE.read_bytes()
    command = [f"--gpu-architecture=sm_{capability}", "--std=c++17", "--prec-div=false", *options]
    try:
        _, *version = _checked(nvrtc, nvrtc.nvrtcVersion())
    except RuntimeError as error:  # the library itself is not there
        raise GenerationError(f"NVRTC cannot be loaded: {error}") from error
    parts = [source, *(str(part).encode() for part in (*command, *version))]
    with native.cached("kernel.cubin", parts, lambda: _compile(nvrtc, source, command)) as made:
        return made.read_bytes()


def _compile(nvrtc: ModuleType, source: bytes, command: Sequence[str]) -> bytes:
    options = [option.encode() for option in command]
    _, program = _checked(nvrtc, nvrtc.nvrtcCreateProgram(source, b"kernel.cu", 0, [], []))
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), options)[0]:
            log = b" " * _checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program))[1]
            _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
            message = log.rstrip(b"\0 \n").decode(errors="replace").splitlines() or ["no message"]
            raise GenerationError(f"NVRTC cannot compile the kernel, {command[0]}: {message[0]}")
        made = b" " * _checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program))[1]
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, made))
        return made
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(nvrtc: ModuleType, results: tuple) -> tuple:
    if results[0]:
        text = nvrtc.nvrtcGetErrorString(results[0])[1].decode()
        raise GenerationError(f"NVRTC failed: {text}")
    return results
