"""The kernel on processors that this machine is not: other vectors, other instructions.

What a processor lacks is put in its place: a width of vectors that the compiler cuts into smaller
ones, and VNNI's one instruction in plain C++. In int8 the sums are whole numbers and in float32 of
a fixed order, so with the compiler's contractions off all of them agree to the last bit.
"""

import ctypes
import platform
import shutil
import subprocess

import pytest
import torch
from test_generation import VARIANTS, make_decoder, make_input, needs_compiler, run

from umtlib import native
from umtlib.errors import NativeError
from umtlib.generation import cpu

pytestmark = pytest.mark.slow

X86 = platform.machine() in ("x86_64", "AMD64")
EMULATED = """
template <class Sum, class Bytes>
inline Sum emulated(Sum sum, Bytes x, Bytes w) {  // as VNNI: x unsigned, w signed
  unsigned char u[sizeof x];
  signed char s[sizeof w];
  __builtin_memcpy(u, &x, sizeof u);
  __builtin_memcpy(s, &w, sizeof s);
  for (unsigned i = 0; i < sizeof u; ++i) sum[i / 4] += int(u[i]) * int(s[i]);
  return sum;
}
#define UMT_DPBUSD emulated
"""
OTHERS = {
    "VNNI, 512 bits": (EMULATED, "-DUMT_LANES=16"),
    "VNNI, 256 bits": (EMULATED, "-DUMT_LANES=8"),
    "plain, 512 bits": ("", "-DUMT_LANES=16"),
    "plain, 128 bits": ("", "-DUMT_LANES=4"),
    "SSE2": ("", "-march=x86-64"),
}
PROCESSORS = {
    "x86-64": "g++", "x86-64-v3": "g++", "x86-64-v4": "g++", "skylake-avx512": "g++",
    "sapphirerapids": "g++", "alderlake": "g++", "znver4": "g++",
    "armv8-a": "aarch64-linux-gnu-g++", "armv8.2-a+dotprod": "aarch64-linux-gnu-g++",
}  # fmt: skip


def build(folder, before="", *flags, compiler=None):
    """Compile the kernel, some text in front of it, and return the file."""
    source, made = folder / "kernel.cpp", folder / "kernel.so"
    source.write_bytes(before.encode() + native._source("generation/kernel.cpp"))
    command = [*(compiler or native._compiler()), *native.FLAGS, "-O2", "-Wno-psabi", *flags]
    result = subprocess.run([*command, source, "-o", made], capture_output=True, text=True)
    if "bad value" in result.stderr or "unknown target" in result.stderr:
        pytest.skip("this compiler does not know that processor")
    assert result.returncode == 0, result.stderr
    return made


def kernel(folder, *options):
    return cpu.declared(ctypes.CDLL(str(build(folder, *options, "-ffp-contract=off"))))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    try:
        return kernel(tmp_path_factory.mktemp("here"), "", "-march=native")
    except NativeError:
        pytest.skip("no C++ compiler here")


@pytest.mark.skipif(not X86, reason="these flags are for x86")
@pytest.mark.parametrize("other", OTHERS)
def test_other_processors_have_the_same_sums(other, here, tmp_path, monkeypatch):
    text, flag = OTHERS[other]
    march = () if "march" in flag else ("-march=native",)
    there = kernel(tmp_path, text, *march, flag)
    if "LANES" in flag:
        assert there.umt_lanes() == int(flag.split("=")[1])
    for name in ("uneven", "wide", "prediction"):
        decoder = make_decoder(VARIANTS[name])
        latent, uniforms = make_input(decoder, batch=7, frames=2)
        for dtype in (torch.int8, torch.float32):
            made = []
            for library in (here, there):
                monkeypatch.setattr(cpu, "library", lambda library=library: library)
                made.append(run(cpu, decoder, latent, uniforms, dtype=dtype, threads=2))
            assert torch.equal(made[0][1], made[1][1]) and torch.equal(made[0][0], made[1][0])


@needs_compiler
@pytest.mark.parametrize("processor", PROCESSORS)
def test_it_compiles_for(processor, tmp_path):
    compiler = shutil.which(PROCESSORS[processor])
    if compiler is None or (compiler.endswith("/g++") and not X86):
        pytest.skip("no compiler for it here")
    made = build(tmp_path, "", f"-march={processor}", "-O0", compiler=[compiler])
    assert made.stat().st_size > 10_000
