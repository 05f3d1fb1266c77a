"""Compiles the package's C++ files with the machine's own compiler, once, and keeps the results.

A wheel would have to choose between the processors of today and those of ten years ago; compiled
where it runs, the code uses what is there. One subprocess and `ctypes` do it: the files need no
Python headers, so setuptools (absent from many environments) and an extension module would add
nothing.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import pooch

from umtlib.errors import NativeError

FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
FLAGS += ("-fno-math-errno", "-fno-trapping-math")  # nobody asks for them, and they cost vectors
NATIVE = ("-march=native", "-mcpu=native", "")  # the first that the compiler takes


@cache
def load(name: str) -> ctypes.CDLL:
    """Return a compiled file of this package, compiling it if this machine has not done so before.

    The library lies in the user's cache folder (``UMT_CACHE`` overrides it), under a name that
    depends on the source, the compiler and the processor. It is written under another name and
    then renamed, so two processes may build at the same time.

    Parameters
    ----------
    name : str
        Its path in the package, such as ``"generation/kernel.cpp"``.

    Raises
    ------
    NativeError
        If there is no C++ compiler (``CXX``, ``c++``, ``g++``, ``clang++``), or it fails.
    """
    compiler = _compiler()
    source = _source(name)
    library = cache_folder() / f"{Path(name).stem}-{_key(source, compiler)}.so"
    if not library.exists():
        _compile(compiler, source, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeError(f"{library} cannot be loaded ({error}); delete it") from error


def _source(name: str) -> bytes:
    """Return a file's text with the headers beside it, those in double quotes, put in."""
    file = files("umtlib").joinpath(name)

    def header(match: re.Match[bytes]) -> bytes:
        return file.parent.joinpath(match[1].decode()).read_bytes()

    return re.sub(rb'(?m)^#include "(.+)"$', header, file.read_bytes())


def cache_folder() -> Path:
    """Return where compiled kernels lie: ``UMT_CACHE``, or umtlib's folder in the user's cache."""
    return Path(os.environ.get("UMT_CACHE") or pooch.os_cache("umtlib"))


def _compiler() -> list[str]:
    wanted = os.environ.get("CXX", "").split()
    for command in [wanted] if wanted else [["c++"], ["g++"], ["clang++"]]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise NativeError("no C++ compiler: install g++ or clang++, or name one in CXX")


def _key(source: bytes, compiler: list[str]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    parts = [source, version, " ".join([*compiler, *FLAGS]).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    """Name and abilities of the processor: a cache on a shared disk serves several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    found = sorted({line for line in lines if line.startswith(wanted)})
    return "\n".join([platform.machine(), platform.processor(), *found])


def _compile(compiler: list[str], source: bytes, library: Path) -> None:
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as folder:
            text = Path(folder, "source.cpp")
            text.write_bytes(source)
            made = text.with_suffix(".so")
            for native in NATIVE:
                flags = [*FLAGS, native] if native else FLAGS
                command = [*compiler, *flags, str(text), "-o", str(made)]
                result = subprocess.run(command, capture_output=True, text=True)
                if result.returncode == 0:
                    made.replace(library)
                    return
    except OSError as error:
        raise NativeError(f"the kernel cannot be built in {library.parent}: {error}") from error
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    raise NativeError(f"{compiler[0]} cannot compile the kernel on {sys.platform}: {last}")
