"""From what a decoder is told to codes: one function, several generators behind it.

``reference`` is slow and obvious, the oracle of the others; ``cpu`` and ``cuda`` are compiled on
first use. All of them choose the same codes when given the same random numbers. Notebook:
``06_generation``.
"""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from torch import Tensor

from umtlib.decoder import Decoder
from umtlib.errors import ConfigError, GenerationError, NativeError
from umtlib.generation import cpu, cuda, reference
from umtlib.generation.sampling import State, choose, draw_uniforms
from umtlib.guide import Told
from umtlib.machine import native

__all__ = [
    "BACKENDS", "DTYPES", "State", "choose", "draw_uniforms", "fastest", "generate",
    "generate_many", "resolve", "thread_count",
]  # fmt: skip

BACKENDS = ("cuda", "cpu", "reference")  # fastest first
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
PIECE = 4_000  # samples per call of a backend: how often progress is told and Ctrl-C is heard


def generate(
    decoder: Decoder,
    told: Told | Tensor,
    *,
    uniforms: Tensor | None = None,
    state: State | None = None,
    **options,
) -> Tensor:
    """Generate codes from what a decoder is told, sample by sample (section 3.2).

    Parameters
    ----------
    told : Told or Tensor
        What the decoder's guide has told of B streams, N frames of `Guide.hop` samples. A latent,
        (B, latent, F), is told at once; if it is a piece only, its guide may need what is around.
    uniforms : Tensor, optional
        In [0, 1), shape (B, N * hop): the random number of every sample. By default drawn from
        `generator`; see `draw_uniforms` for the order.
    state : State, optional
        Carries on where the call that last had this state stopped. Updated in place. It keeps the
        weights with which it began, also if the decoder is trained further.
    **options
        Of `generate_many`: generator, temperature, backend, dtype, threads, progress.

    Returns
    -------
    Tensor
        mu-law codes, int64 in 0..255, shape (B, N * hop), on the CPU.

    Raises
    ------
    GenerationError
        If an array is not as said above, or the state belongs to something else.
    """
    uniforms, state = (None if one is None else [one] for one in (uniforms, state))
    return generate_many([decoder], [told], uniforms=uniforms, states=state, **options)[0]


def generate_many(
    decoders: Sequence[Decoder],
    told: Sequence[Told | Tensor] | Tensor,
    *,
    uniforms: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    backend: str = "auto",
    dtype: str | torch.dtype | None = None,
    threads: int | None = None,
    states: Sequence[State] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Return per decoder what `generate` does, as many at a time as there are threads.

    Told, uniforms and states are as there, one of each for each decoder; a latent may be one for
    all. Drawn uniforms take their seeds in the decoders' order.

    Parameters
    ----------
    generator : torch.Generator, optional
        A CPU generator; by default torch's own.
    temperature : float
        1 samples the model's distribution, less sharpens it, 0 takes the most probable code.
    backend : {"auto", "cuda", "cpu", "reference"}
        Which generator; ``"auto"`` takes the fastest one that runs here.
    dtype : str or torch.dtype, optional
        float32 (the default) chooses the codes of the reference; bfloat16 and int8, of the
        ``"cpu"`` backend only, round and are faster; ``"auto"``: see `resolve`.
    threads : int, optional
        Default: ``UMT_THREADS`` or else `torch.get_num_threads`.
    progress : callable, optional
        Called with the samples done so far in each stream, on average over the decoders, about
        four times per second of audio; from any thread, one at a time.

    Raises
    ------
    GenerationError
        As `generate`; or if there are more or fewer of something than decoders.
    """
    threads, count = thread_count(threads), len(decoders)
    told = [told] * count if isinstance(told, Tensor) else told
    uniforms = [None] * count if uniforms is None else uniforms
    states = [State() for _ in decoders] if states is None else states
    for name, given in (("told", told), ("uniforms", uniforms), ("states", states)):
        if len(given) != count:
            raise GenerationError(f"{len(given)} {name} for {count} decoders; give one for each")
    backend, dtype = kind = resolve(backend, dtype)
    run = {"cpu": cpu.run, "cuda": cuda.run, "reference": reference.run}[backend]
    run = partial(run, temperature=native.number("temperature", temperature, 0, 1e9))
    if backend == "cpu":
        run = partial(run, dtype=dtype, threads=max(1, threads // count))
    each = zip(decoders, told, uniforms, states, strict=True)
    begun = [_begun(*one, generator, kind) for one in each]
    codes = [torch.empty(numbers.shape, dtype=torch.long) for _, numbers in begun]
    done, telling, stop = [0] * count, threading.Lock(), threading.Event()

    def make(n: int) -> None:
        (known, numbers), hop = begun[n], decoders[n].guide.hop
        frames, step = known.condition.shape[2], max(1, PIECE // hop)
        for first in range(0, frames, step):
            if stop.is_set():
                return
            piece = known.between(first, min(first + step, frames))
            span = slice(first * hop, (first + piece.condition.shape[2]) * hop)
            codes[n][:, span] = run(decoders[n], piece, numbers[:, span], state=states[n])
            with telling:
                done[n] = span.stop
                if progress is not None:
                    progress(sum(done) // count)

    _run_all(make, count, count if backend == "cuda" else threads, stop)  # on a GPU they only wait
    return codes


def resolve(
    backend: str = "auto", dtype: str | torch.dtype | None = "auto"
) -> tuple[str, torch.dtype]:
    """Return the backend and the number format that are meant, here.

    The backend is one of `BACKENDS`, or ``"auto"``: the fastest that runs here in this format. The
    format is one of `DTYPES`, by name or itself; None is float32. ``"auto"`` is the fastest whose
    sound cannot be told from float32's: int8 on processors with AVX2 or better, or with NEON's dot
    product, and float32 on others. Raises ConfigError if there is no format of that name, and
    GenerationError if there is no such backend, or it does not compute in the format.
    """
    if backend not in ("auto", *BACKENDS):
        raise GenerationError(f"unknown backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    number = torch.float32 if dtype in ("auto", None) else DTYPES.get(dtype, dtype)
    if number not in DTYPES.values():
        known = ", ".join(DTYPES)
        raise ConfigError(f"unknown dtype {dtype!r}; choose one of {known}, or auto")
    if backend in ("cuda", "reference") and number != torch.float32:
        raise GenerationError(f"the {backend} backend does not compute in {number}")
    backend, build = fastest(number) if backend == "auto" else backend, native.builds()[0]
    {"cpu": cpu.library, "cuda": cuda.find, "reference": bool}[backend]()  # to be had here?
    if (dtype, backend) == ("auto", "cpu") and (build.lanes >= 8 or "DOTPROD" in build.macros):
        number = torch.int8
    return backend, number


def thread_count(threads: int | None = None) -> int:
    """Return how many threads to use: the argument, else ``UMT_THREADS``, else torch's number.

    Raises GenerationError if that is no whole number from 1 to 1024.
    """
    name, wish = "threads", os.environ.get("UMT_THREADS")
    if threads is None and wish:
        name, threads = f"UMT_THREADS={wish}: threads", int(wish) if wish.isdecimal() else 0
    if threads is None:
        threads = min(torch.get_num_threads(), native.THREADS)
    return native.number(name, threads, 1, native.THREADS)


@cache
def fastest(dtype: torch.dtype = torch.float32) -> str:
    """Return the name of the fastest backend that runs here and computes in a number format.

    A RuntimeWarning says once if there is a GPU that cannot be used, or if the kernel for the CPU
    cannot be compiled and PyTorch has to do.
    """
    if dtype == torch.float32 and torch.cuda.is_available():
        try:
            cuda.check(cuda.find())
            return "cuda"
        except GenerationError as error:
            text = f"{error}. Generating on the CPU instead."
            warnings.warn(text, RuntimeWarning, stacklevel=3)
    try:
        cpu.library()
    except NativeError as error:
        text = f"{error}. Generating with PyTorch instead: hundreds of times slower."
        warnings.warn(text, RuntimeWarning, stacklevel=3)
        return "reference"
    return "cpu"


def _begun(
    decoder: Decoder,
    told: Told | Tensor,
    uniforms: Tensor | None,
    state: State,
    generator: torch.Generator | None,
    kind: tuple,
) -> tuple[Told, Tensor]:
    """Return what one decoder is told, and its uniforms, if all of it goes together."""
    guide, number = decoder.guide, decoder.logits.weight.dtype
    if not isinstance(told, Told):
        told = guide.tell(_finite("latent", told, number, None, guide.latent, None))
    condition = _finite("condition", told.condition, number, None, guide.channels, None)
    (streams, _, frames), predictors = condition.shape, None
    if guide.order:
        shape = streams, frames, guide.order
        predictors = _finite("predictors", told.predictors, torch.float64, *shape)
    told = Told(condition, predictors)
    owner, shape = (*kind, streams, id(decoder)), (streams, frames * guide.hop)
    if state.owner not in (None, owner):
        raise GenerationError(
            f"the state belongs to another decoder, backend, dtype or number of streams: "
            f"{state.owner[:3]}, not {owner[:3]}"
        )
    state.owner = owner
    if uniforms is None:
        return told, draw_uniforms(*shape, generator, state)
    return told, native.array("uniforms", uniforms, torch.float32, shape, *native.UNIFORM)


def _finite(name: str, array: Tensor, kind: torch.dtype, *shape: int | None) -> Tensor:
    device = getattr(array, "device", "cpu")
    return native.array(name, array, kind, shape, *native.FINITE, device)


def _run_all(make: Callable, count: int, threads: int, stop: threading.Event) -> None:
    """Let each thread make one part after another; stop them all at the first error, or Ctrl-C."""
    if min(threads, count) <= 1:
        for n in range(count):
            make(n)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            for made in [pool.submit(make, n) for n in range(count)]:
                made.result()
        finally:
            stop.set()
