"""The door to native code: what is compiled, for which processor, and what may be handed over.

The package's C++ files are compiled once, where they run, and called through `ctypes`: without
Python headers or setuptools, which many environments lack. Every array and number on its way to
them, or to a GPU, passes through `array` and `number`.
"""

import ctypes
import errno
import hashlib
import numbers
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
        macros = [f"-DUMT_LANES={self.lanes}", *(f"-DUMT_{macro}" for macro in self.macros)]
        return *self.flags, *macros


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
    """Return a compiled file of this package, such as ``"generation/kernel.cpp"``.

    It is compiled once: kept in the user's cache folder (``UMT_CACHE`` overrides it; see `cached`)
    under a name that depends on source, compiler and build, or else for this process alone.

    Raises
    ------
    NativeError
        If there is no C++ compiler (``CXX``, ``c++``, ``g++``, ``clang++``), or it fails.
    """
    try:
        (_, command, version), source = toolchain(), _source(name)
        key = hashlib.sha256(b"\0".join([source, version, *map(os.fsencode, command)]))
        file = f"{Path(name).stem}-{key.hexdigest()[:20]}.so"
        with _stoppable():
            library, content = cached(file, lambda: compiled(command, source))
            if library:
                with suppress(OSError):  # nothing can be executed there
                    return ctypes.CDLL(str(library))
            with tempfile.TemporaryDirectory(prefix="umtlib-") as folder:
                library = Path(folder, file)
                library.write_bytes(content)
                return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeError(f"the kernel cannot be built or loaded here: {error}") from error


def toolchain() -> tuple[Build, list[str], bytes]:
    """Return the best build that processor and compiler know, its command, and what identifies it.

    Raises
    ------
    NativeError
        If there is no C++ compiler, or it does not work.
    """
    compiler = _compiler()
    for build in builds():
        command = [*compiler, *FLAGS, *build.options]
        asked = subprocess.run(
            [*command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True
        )
        if asked.returncode == 0:
            return build, command, asked.stdout
    raise NativeError(f"{compiler[0]} does not work: {_complaint(asked.stderr)}; see CXX")


def compiled(command: Sequence[str], source: bytes) -> bytes:
    """Return what the compiler makes of a source.

    Raises
    ------
    NativeError
        If it refuses.
    """
    with tempfile.TemporaryDirectory(prefix="umtlib-") as folder:
        text, made = Path(folder, "source.cpp"), Path(folder, "source.so")
        text.write_bytes(source)
        process = subprocess.Popen(
            [*command, text, "-o", made], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=os.environ | {"TMPDIR": folder}, start_new_session=True,
        )  # fmt: skip
        try:
            complaint = process.communicate()[1]
        except BaseException:  # the driver's children too: they write into the folder
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode:
            raise NativeError(
                f"{command[0]} cannot compile the kernel on {sys.platform}: {_complaint(complaint)}"
            )
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


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM unwind what it meets, as Ctrl-C does, where nobody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        files.stop_in_order()
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ----------------------------------------------------------------------------------- the cache


def cache_folder() -> Path:
    """Return where compiled kernels lie: ``UMT_CACHE``, or umtlib's folder in the user's cache.

    Where others can write to that, it is a folder inside it to which they cannot.
    """
    folder = Path(os.environ.get("UMT_CACHE") or pooch.os_cache("umtlib"))
    private = not os.path.exists(folder) or _ours(folder.resolve(), stat.S_ISDIR)
    return folder if private else folder / f"user-{os.geteuid()}"


def cached(name: str, make: Callable[[], bytes]) -> tuple[Path | None, bytes]:
    """Return a file of the cache, made anew unless it is whole and nobody else could write it.

    Returns
    -------
    path : Path or None
        Where it lies; None, with a `RuntimeWarning`, if it cannot be kept.
    content : bytes
        What is in it.
    """
    path = cache_folder() / name
    digest = path.with_name(f"{name}.sha256")
    try:
        if _ours(path.parent, stat.S_ISDIR) and _ours(path) and _ours(digest):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == digest.read_text(encoding="latin-1"):
                return path, content
    except OSError:
        pass
    content = make()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _ours(path.parent, stat.S_ISDIR):
            raise PermissionError(errno.EACCES, "others can write to it")
        for file, data in (path, content), (digest, hashlib.sha256(content).hexdigest().encode()):
            with files.replacing(file) as part:
                part.touch(mode=0o600)
                part.write_bytes(data)
    except OSError as error:
        warnings.warn(
            f"{path.parent} cannot keep what is compiled ({error.strerror}), so every start takes "
            "seconds; set UMT_CACHE to a folder of your own", RuntimeWarning, stacklevel=3,
        )  # fmt: skip
        return None, content
    return path, content


def _ours(path: Path, kind: Callable[[int], bool] = stat.S_ISREG) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


# ------------------------------------------------------------------------- what is handed over


def array(
    name: str,
    value: Any,
    dtype: torch.dtype,
    shape: Sequence[int | None],
    low: float | None = None,
    high: float | None = None,
    *,
    device: torch.device | str = "cpu",
    mend: str = "",
    written: bool = False,
) -> Tensor:
    """Return an array as native code takes it, contiguous, or refuse it.

    Parameters
    ----------
    name, mend : str
        What it is, and what to do, for the message.
    value : Tensor or array
        Floating-point numbers if `dtype` is of them, else integers; of any width.
    dtype, device
        What it becomes, and where.
    shape : sequence of int or None
        None stands for any size.
    low, high : float, optional
        The least and the greatest value; NaN lies outside. By default none is looked at.
    written : bool
        It is written to, so it must be of that type, place and order already.

    Raises
    ------
    GenerationError
        If it is anything else.
    """
    finite = low is None or (low, high) == FINITE
    ranged = ", finite" * (low is not None) if finite else f", {low:g} to {high:g}"
    sizes = ", ".join("*" if size is None else str(size) for size in shape)
    wanted = mend or f"wanted {str(dtype)[6:]} of shape ({sizes}){ranged}"
    try:
        value = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenerationError(f"{name}: {type(value).__name__} is no array; {wanted}") from error
    kinds = [(t.is_floating_point, t.is_complex, t == torch.bool) for t in (value.dtype, dtype)]
    if kinds[0] != kinds[1] or value.is_quantized:
        raise GenerationError(f"{name} has type {str(value.dtype)[6:]}; {wanted}")
    fits = [size in (None, own) for size, own in zip(shape, value.shape, strict=False)]
    if value.ndim != len(shape) or not all(fits):
        raise GenerationError(f"{name} has shape {tuple(value.shape)}; {wanted}")
    if value.layout != torch.strided or value.is_meta:
        raise GenerationError(f"{name} is not held in memory as an array; {wanted}")
    if low is not None and value.numel():
        wide = torch.float64 if dtype.is_floating_point else torch.int64
        least, most = (bound.item() for bound in value.detach().to(wide).aminmax())
        if not (low <= least and most <= high):
            raise GenerationError(f"{name} has values from {least:g} to {most:g}; {wanted}")
    made = value.detach().to(device, dtype).contiguous()
    if written and made.data_ptr() != value.data_ptr():
        raise GenerationError(f"{name} cannot be written to as it is; {wanted}, contiguous")
    return made


def number(
    name: str, value: Any, low: float, high: float, kind: type[int] | type[float] = int
) -> Any:
    """Return a number as native code takes it.

    Raises
    ------
    GenerationError
        If it is no number of this kind, or not between `low` and `high`.
    """
    wanted = numbers.Integral if kind is int else numbers.Real
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise GenerationError(f"{name} is {type(value).__name__}; wanted {kind.__name__}")
    if not low <= value <= high:
        given = float(min(max(value, -1e99), 1e99))  # a whole number may be too long to print
        raise GenerationError(f"{name} {given:g} must be from {low:g} to {high:g}")
    return kind(value)
