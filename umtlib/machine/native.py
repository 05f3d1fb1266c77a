"""The door to native code: what is compiled, for which processor, and what may be handed over.

The package's C++ files are compiled once, where they run, and called through `ctypes`: without
Python headers or setuptools, which many environments lack. What callers give passes through `array`
and `number` once, before any generator has it.
"""

import ctypes
import errno
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from torch import Tensor

from umtlib import files
from umtlib.errors import GenerationError, NativeError

FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
FLAGS += ("-fno-math-errno", "-fno-trapping-math")  # nobody asks for them, and they cost vectors
THREADS = 1024  # at most
FINITE = (-torch.finfo(torch.float32).max, torch.finfo(torch.float32).max)
UNIFORM = (0, 1 - 2**-24)  # less than 1, in float32

# --------------------------------------------------------------------------------- processors


@dataclass(frozen=True)
class Build:
    """One way to compile the C++ files."""

    name: str
    needs: str  # what the processor must have, by its names in /proc/cpuinfo
    flags: tuple[str, ...]  # of the compiler
    lanes: int  # numbers of 32 bits in a vector
    macros: tuple[str, ...] = ()  # instructions that `products.h` may use

    @property
    def options(self) -> tuple[str, ...]:
        """What the compiler is told."""
        macros = (f"-DUMT_{macro}" for macro in self.macros)
        return *self.flags, f"-DUMT_LANES={self.lanes}", *macros


V3 = "sse2 avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
# 256: what compilers choose for these processors where vectors are not written out, in fused.cpp.
V4_FLAGS = ("-march=x86-64-v4", "-mprefer-vector-width=256")
BUILDS = (  # the best first
    Build("AVX-512, VNNI, bfloat16", f"{V4} avx512_vnni avx512_bf16",
          (*V4_FLAGS, "-mavx512vnni", "-mavx512bf16"), 16, ("VNNI", "BF16")),
    Build("AVX-512, VNNI", f"{V4} avx512_vnni", (*V4_FLAGS, "-mavx512vnni"), 16, ("VNNI",)),
    Build("AVX-512", V4, V4_FLAGS, 16, ("MADD",)),
    Build("AVX2, VNNI", f"{V3} avx_vnni", ("-march=x86-64-v3", "-mavxvnni"), 8, ("VNNI",)),
    Build("AVX2", V3, ("-march=x86-64-v3",), 8, ("SIGN",)),
    Build("SSE2", "sse2", ("-march=x86-64",), 4, ("MADD",)),
    Build("NEON, dot product", "asimd asimddp", ("-march=armv8.2-a+dotprod",), 4, ("DOTPROD",)),
    Build("NEON", "asimd", ("-march=armv8-a",), 4),
    Build("generic", "", (), 4),
)  # fmt: skip


@cache
def features() -> frozenset[str]:
    """Return what every core of this processor has, by its names in Linux's /proc/cpuinfo."""
    try:
        lines = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    except OSError:  # not Linux: torch knows x86, and all of Apple's own processors have these
        if platform.machine() == "arm64":
            return frozenset({"asimd", "asimddp"})
        known = {"AVX2": V3, "AVX512": V4}
        return frozenset(known.get(torch.backends.cpu.get_cpu_capability(), "").split())
    cores = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return frozenset.intersection(*(frozenset(core.split()) for core in cores or [""]))


def builds() -> list[Build]:
    """Return the builds that this processor can run, the best first."""
    return [build for build in BUILDS if features().issuperset(build.needs.split())]


# -------------------------------------------------------------------------------- the compiler


@cache
def load(name: str) -> ctypes.CDLL:
    """Return a file of this package, such as ``"generation/kernel.cpp"``, compiled once and kept.

    Raises NativeError if there is no C++ compiler (``CXX``, ``c++``, ``g++``, ``clang++``), or it
    fails.
    """
    try:
        (_, command, version), source = toolchain(), _source(name)
        parts = [source, version, *map(os.fsencode, command)]
        with cached(f"{Path(name).stem}.so", parts, lambda: compiled(command, source)) as library:
            return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeError(f"the kernel cannot be built or loaded here: {error}") from error


def toolchain() -> tuple[Build, list[str], bytes]:
    """Return the best build that processor and compiler know, its command, and what identifies it.

    Raises NativeError if there is no C++ compiler, or it does not work.
    """
    compiler = _compiler()
    for build in builds():
        command = [*compiler, *FLAGS, *build.options]
        question = [*command, "-dM", "-E", "-x", "c++", os.devnull]
        asked = subprocess.run(question, capture_output=True)
        if asked.returncode == 0:
            return build, command, asked.stdout
    raise NativeError(f"{compiler[0]} does not work: {_complaint(asked.stderr)}; see CXX")


def compiled(command: Sequence[str], source: bytes) -> bytes:
    """Return what the compiler makes of a source; raises NativeError if it refuses."""
    with tempfile.TemporaryDirectory(prefix="umtlib-") as folder:
        made = Path(folder, "made.so")
        command = [*command, "-x", "c++", "-", "-o", str(made)]
        done = subprocess.run(command, input=source, capture_output=True)
        if done.returncode:
            said = _complaint(done.stderr)
            raise NativeError(f"{command[0]} cannot compile the kernel on {sys.platform}: {said}")
        return made.read_bytes()


def _complaint(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").split("\n")
    return next((line.strip() for line in lines if "rror:" in line), "no message")


def _compiler() -> list[str]:
    wanted = os.environ.get("CXX", "").split()
    for command in [wanted] if wanted else [["c++"], ["g++"], ["clang++"]]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise NativeError("no C++ compiler: install g++ or clang++, or name one in CXX")


def _source(name: str) -> bytes:
    """Return a file's text with the headers beside it, those in double quotes, put in."""
    file = resources.files("umtlib").joinpath(name)

    def header(match: re.Match[bytes]) -> bytes:
        return file.parent.joinpath(match[1].decode()).read_bytes()

    return re.sub(rb'(?m)^#include "(.+)"$', header, file.read_bytes())


# ----------------------------------------------------------------------------------- the cache


@contextmanager
def cached(name: str, parts: Sequence[bytes], make: Callable[[], bytes]) -> Iterator[Path]:
    """Give a file of the cache, made if none was made of the same parts before.

    It lies in ``UMT_CACHE``, or in umtlib's folder of the user's cache. Where others can write to
    that, it is not trusted: then, as where nothing can be written or executed, a `RuntimeWarning`
    says so and the file is made for this once.
    """
    stem, _, suffix = name.partition(".")
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    folder = Path(os.environ.get("UMT_CACHE") or pooch.os_cache("umtlib"))
    name = f"{stem}-{key}.{suffix}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EACCES, "others can write to it")
        if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
            raise PermissionError(errno.EACCES, "nothing in it can be executed")
        if not (folder / name).is_file():
            with files.replacing(folder / name) as part:
                part.write_bytes(make())
    except OSError as error:
        warnings.warn(
            f"{folder} cannot keep what is compiled ({error.strerror}), so every start takes "
            "seconds; set UMT_CACHE to a folder of your own", RuntimeWarning, stacklevel=4,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="umtlib-") as own:  # `umt` ends without `atexit`
            Path(own, name).write_bytes(make())
            yield Path(own, name)
    else:
        yield folder / name


# ------------------------------------------------------------------------- what is handed over


def array(
    name: str,
    value: Any,
    dtype: torch.dtype,
    shape: Sequence[int | None],
    low: float,
    high: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return an array as native code takes it: contiguous, of this type and on this device.

    It may hold floating-point numbers of any width if the type is of such, else integers of any
    width. None in the shape stands for any size. Raises GenerationError if it holds something else,
    has another shape, or has values that are not from `low` to `high`: NaN never is.
    """
    sizes = ", ".join("*" if size is None else str(size) for size in shape)
    ranged = "finite" if (low, high) == FINITE else f"{low:g} to {high:g}"
    wanted = f"wanted {str(dtype)[6:]} of shape ({sizes}), {ranged}"
    try:
        value = torch.from_numpy(np.array(value)) if not isinstance(value, Tensor) else value
    except (TypeError, ValueError) as error:
        raise GenerationError(f"{name}: {type(value).__name__} is no array; {wanted}") from error
    kinds = [(t.is_floating_point, t.is_complex, t == torch.bool) for t in (value.dtype, dtype)]
    if kinds[0] != kinds[1]:
        raise GenerationError(f"{name} has type {str(value.dtype)[6:]}; {wanted}")
    fits = [size in (None, own) for size, own in zip(shape, value.shape, strict=False)]
    if value.ndim != len(shape) or not all(fits):
        raise GenerationError(f"{name} has shape {tuple(value.shape)}; {wanted}")
    value = value.detach()
    if value.numel():
        wide = torch.float64 if dtype.is_floating_point else torch.int64
        least, most = (bound.item() for bound in value.to(wide).aminmax())
        if not (low <= least and most <= high):
            raise GenerationError(f"{name} has values from {least:g} to {most:g}; {wanted}")
    return value.to(device, dtype).contiguous()


def number(name: str, value: float, low: float, high: float) -> Any:
    """Return a number that is in its range; raises GenerationError if it is not."""
    if not low <= value <= high:
        raise GenerationError(f"{name} {value:g} must be from {low:g} to {high:g}")
    return value
