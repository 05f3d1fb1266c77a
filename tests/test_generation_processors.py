"""Every build of the kernel: those that this processor can run are run, the others compiled.

For what this processor lacks something is put in its place: vectors that the compiler cuts into
smaller ones, and plain C++ for VNNI's one instruction. In int8 the sums are whole numbers and in
float32 of a fixed order, so with the compiler's contractions off all of them agree to the last bit.
"""

import ctypes
import platform
import shutil

import pytest
import torch
from test_generation import VARIANTS, make_decoder, make_input, needs_compiler, run

from umtlib.errors import NativeError
from umtlib.generation import DTYPES, cpu
from umtlib.machine import native
from umtlib.machine.native import BUILDS, V3, V4, Build

pytestmark = [pytest.mark.slow, needs_compiler]

EMULATED = b"""
template <class Sum, class Bytes>
inline Sum emulated(Sum sum, Bytes x, Bytes w) {  // as VNNI: x unsigned, w signed
  unsigned char u[sizeof x];
  signed char s[sizeof w];
  __builtin_memcpy(u, &x, sizeof u);
  __builtin_memcpy(s, &w, sizeof s);
  for (unsigned i = 0; i < sizeof u; ++i) sum[i / 4] += int(u[i]) * int(s[i]);
  return sum;
}
#define UMT_EMULATED emulated
"""
GENERIC = BUILDS[-1]
HERE = [build for build in native.builds() if build is not GENERIC]
REST = [build for build in BUILDS if build not in native.builds()]
PUT_IN_PLACE = {  # by width and by whether VNNI is used
    (lanes := build.lanes, vnni := "VNNI" in build.macros): Build(
        f"in place of {build.name}", "", (), lanes, build.macros[:1] * vnni
    )
    for build in REST
}.values()


def compiled(build, *flags, compiler=None):
    """The kernel as a build, without contractions and little optimised."""
    text = native._source("generation/kernel.cpp")
    if build in PUT_IN_PLACE:
        text = EMULATED + text
    command = [*(compiler or native._compiler()), *native.FLAGS, *build.options]
    command += ["-O1", "-Wno-psabi", "-ffp-contract=off", *flags]
    try:
        return native.compiled(command, text)
    except NativeError as error:
        if any(word in str(error) for word in ("unrecognized", "bad value", "unknown")):
            pytest.skip(f"this compiler does not know it: {error}")
        raise


def logits_of(library, monkeypatch):
    """Of three decoders in every number format, each given the same past."""
    monkeypatch.setattr(cpu, "library", lambda: library)
    found = {}
    for name in ("uneven", "wide", "prediction"):
        decoder = make_decoder(VARIANTS[name])
        latent, uniforms = make_input(decoder, batch=7, frames=2)
        forced = (256 * uniforms).to(torch.uint8)
        for dtype in DTYPES.values():
            options = {"dtype": dtype, "threads": 2, "forced": forced}
            found[name, dtype] = run(cpu, decoder, latent, uniforms, **options)[1]
    return found


def opened(content, folder):
    path = folder / "kernel.so"
    path.write_bytes(content)
    return cpu.declared(ctypes.CDLL(str(path)))


@pytest.fixture(scope="module")
def generic(tmp_path_factory):
    library = opened(compiled(GENERIC), tmp_path_factory.mktemp("generic"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        return logits_of(library, monkeypatch)


@pytest.mark.parametrize("build", [*HERE, *PUT_IN_PLACE], ids=lambda build: build.name)
def test_every_build_has_the_same_sums(build, generic, tmp_path, monkeypatch):
    library = opened(compiled(build), tmp_path)
    for (name, dtype), logits in logits_of(library, monkeypatch).items():
        wanted = generic[name, dtype]
        if "BF16" in build.macros and dtype == torch.bfloat16:  # its own order, and no denormals
            assert (logits - wanted).abs().max() < 0.05 * wanted.std(dim=-1).mean()
        else:
            assert torch.equal(logits, wanted), (name, dtype)


@pytest.mark.parametrize("build", REST, ids=lambda build: build.name)
def test_the_rest_compile(build):
    on_arm = "asimd" in build.needs
    compiler = shutil.which("aarch64-linux-gnu-g++" if on_arm else "x86_64-linux-gnu-g++")
    if compiler is None and on_arm != (platform.machine() in ("aarch64", "arm64")):
        pytest.skip("no compiler for it here")
    assert len(compiled(build, "-O0", compiler=compiler and [compiler])) > 10_000


PROCESSORS = {  # what /proc/cpuinfo says of some
    "": "generic",
    "fpu sse sse2 ssse3 avx": "SSE2",
    V3: "AVX2",
    f"{V3} avx_vnni": "AVX2, VNNI",
    V4: "AVX-512",
    f"{V4} avx512_vnni": "AVX-512, VNNI",
    f"{V4} avx512_vnni avx512_bf16": "AVX-512, VNNI, bfloat16",
    "fp asimd evtstrm crc32": "NEON",
    "fp asimd asimddp sve i8mm bf16": "NEON, dot product",
}


@pytest.mark.parametrize("has", PROCESSORS)
def test_the_best_build_is_chosen(has, monkeypatch):
    monkeypatch.setattr(native, "features", lambda: frozenset(has.split()))
    assert native.builds()[0].name == PROCESSORS[has]
    assert native.builds()[-1] is GENERIC


def test_what_the_compiler_does_not_know_is_passed_over(monkeypatch):
    unknown = Build("unknown", "", ("-march=of-tomorrow",), 64)
    monkeypatch.setattr(native, "BUILDS", (unknown, GENERIC))
    build, command, _ = native.toolchain()
    assert build is GENERIC and "-DUMT_LANES=4" in command
    monkeypatch.setattr(native, "BUILDS", (unknown,))
    with pytest.raises(NativeError, match="does not work: .*of-tomorrow"):
        native.toolchain()
