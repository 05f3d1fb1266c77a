"""From what a decoder is told to codes: one function, several generators behind it.

``reference`` is slow and obvious, the oracle of the others; ``cpu`` and ``cuda`` are compiled on
first use. All of them choose the same codes when given the same random numbers. Notebook:
``06_generation``.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

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
UNDER_1 = 1 - 2**-53  # the largest float64 below 1
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
    decoder : Decoder
        The decoder of the wanted domain.
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
        If an argument is not as said above, or the state belongs to something else.
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
    """Generate with several decoders, as many at a time as there are threads.

    Parameters
    ----------
    decoders : sequence of Decoder
        One per domain.
    told : sequence of Told or Tensor, or Tensor
        What each is told, as in `generate`; or one latent for all.
    uniforms : sequence of Tensor, optional
        As in `generate`, one per decoder. Drawn ones take their seeds in the decoders' order.
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
    states : sequence of State, optional
        As in `generate`, one per decoder.
    progress : callable, optional
        Called with the samples done so far in each stream, on average over the decoders, about
        four times per second of audio; from any thread, one at a time.

    Returns
    -------
    list of Tensor
        Per decoder what `generate` returns.

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
    each = max(1, threads // max(count, 1))
    jobs = [
        _Job(*one, generator, temperature, backend, dtype, each)
        for one in zip(decoders, told, uniforms, states, strict=True)
    ]
    on_gpu = [job for job in jobs if job.run is cuda.run]  # there threads only wait
    _run_all(jobs, max(threads, len(on_gpu)), progress)
    return [job.codes for job in jobs]


def resolve(
    backend: str = "auto", dtype: str | torch.dtype | None = "auto"
) -> tuple[str, torch.dtype]:
    """Return the backend and the number format that are meant, here.

    Parameters
    ----------
    backend : str
        One of `BACKENDS`, or ``"auto"``: the fastest that runs here in this format.
    dtype : str or torch.dtype, optional
        One of `DTYPES`, by name or itself; None is float32. ``"auto"`` is the fastest whose sound
        cannot be told from float32's: int8 on processors with AVX2 or better, or with NEON's dot
        product, and float32 on others.

    Raises
    ------
    ConfigError
        If there is no format of that name.
    GenerationError
        If there is no such backend, or it does not compute in the format.
    """
    if not (isinstance(backend, str) and isinstance(dtype, str | torch.dtype | None)):
        kinds = type(backend).__name__, type(dtype).__name__
        raise GenerationError("backend and dtype are names, here {} and {}".format(*kinds))
    if backend not in ("auto", *BACKENDS):
        raise GenerationError(f"unknown backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    fixed = dtype != "auto"
    if isinstance(dtype, str) and fixed:
        if dtype not in DTYPES:
            raise ConfigError(
                f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}, or auto"
            )
        dtype = DTYPES[dtype]
    dtype = dtype if fixed and dtype is not None else torch.float32
    if dtype not in DTYPES.values() or (
        backend in ("cuda", "reference") and dtype != torch.float32
    ):
        raise GenerationError(f"the {backend} backend does not compute in {dtype}")
    backend, build = fastest(dtype) if backend == "auto" else backend, native.builds()[0]
    {"cpu": cpu.library, "cuda": cuda.find, "reference": bool}[backend]()  # to be had here?
    if not fixed and backend == "cpu" and (build.lanes >= 8 or "DOTPROD" in build.macros):
        dtype = torch.int8
    return backend, dtype


def thread_count(threads: int | None = None) -> int:
    """Return how many threads to use: the argument, else ``UMT_THREADS``, else torch's number.

    Raises
    ------
    GenerationError
        If that is no whole number from 1 to 1024.
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

    Warns
    -----
    RuntimeWarning
        Once, if there is a GPU that cannot be used, or if the kernel for the CPU cannot be
        compiled and PyTorch has to do.
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


class _Job:
    """One decoder's part of a call, checked, and made piece by piece."""

    def __init__(
        self, decoder, told, uniforms, state, generator, temperature, backend, dtype, threads
    ):
        for value, kind in (
            (decoder, Decoder),
            (state, State),
            (generator, torch.Generator | None),
        ):
            if not isinstance(value, kind):
                raise GenerationError(f"{type(value).__name__} is given where {kind} is wanted")
        if generator is not None and generator.device.type != "cpu":
            raise GenerationError(f"the generator is on {generator.device}; give one on the CPU")
        backend, dtype = resolve(backend, dtype)
        temperature = native.number("temperature", temperature, 0, native.FINITE[1], float)
        guide, kind = decoder.guide, decoder.logits.weight.dtype
        if not isinstance(told, Told):
            told = guide.tell(_finite("latent", told, kind, (None, guide.latent, None)))
        condition = _finite("condition", told.condition, kind, (None, guide.channels, None))
        streams, _, frames = condition.shape
        predictors = told.predictors
        if guide.order or predictors is not None:
            shape = streams, frames, guide.order
            predictors = _finite("predictors", predictors, torch.float64, shape)
        samples = streams, frames * guide.hop
        if uniforms is not None:
            uniforms = native.array("uniforms", uniforms, torch.float32, samples, 0, UNDER_1)
            uniforms = uniforms.clamp(max=native.UNIFORM[1])  # what float32 rounds up to 1
        owner = (backend, dtype, streams, id(decoder))
        if state.owner not in (None, owner):
            raise GenerationError(
                f"the state belongs to another decoder, backend, dtype or number of streams: "
                f"{state.owner[:3]}, not {owner[:3]}"
            )
        state.owner = owner
        self.decoder, self.uniforms, self.told = decoder, uniforms, Told(condition, predictors)
        self.generator, self.state, self.options = generator, state, {"temperature": temperature}
        self.run = {"cpu": cpu.run, "cuda": cuda.run, "reference": reference.run}[backend]
        if backend == "cpu":
            self.options |= {"dtype": dtype, "threads": threads}
        self.done = 0
        self.codes = torch.empty(samples, dtype=torch.long)
        if uniforms is None:
            draw_uniforms(streams, 0, generator, state)  # take the seeds, in order

    def pieces(self) -> Iterator[None]:
        """Make a piece for each item."""
        hop, frames = self.decoder.guide.hop, self.told.condition.shape[2]
        step = max(1, PIECE // hop)
        for first in range(0, frames, step) if self.codes.numel() else ():
            told = self.told.between(first, min(first + step, frames))
            samples = told.condition.shape[2] * hop
            span = slice(self.done, self.done + samples)
            if self.uniforms is None:
                uniforms = draw_uniforms(len(self.codes), samples, self.generator, self.state)
            else:
                uniforms = self.uniforms[:, span]
            made = self.run(self.decoder, told, uniforms, state=self.state, **self.options)
            self.codes[:, span] = made
            self.done += samples
            self.state.position += samples
            yield


def _finite(name: str, array: Tensor, kind: torch.dtype, shape: Sequence[int | None]) -> Tensor:
    """Check what is told, where it lies."""
    device = getattr(array, "device", "cpu")
    return native.array(name, array, kind, shape, *native.FINITE, device=device)


def _run_all(jobs: list[_Job], threads: int, progress: Callable[[int], None] | None) -> None:
    """Let each thread make one job after another; stop them all at the first error, or Ctrl-C."""
    stop, one_at_a_time = threading.Event(), threading.Lock()

    def finish(job: _Job) -> None:
        for _ in job.pieces():
            if stop.is_set():
                return
            if progress is not None:
                with one_at_a_time:
                    progress(sum(job.done for job in jobs) // len(jobs))

    if min(threads, len(jobs)) <= 1:
        for job in jobs:
            finish(job)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            for made in [pool.submit(finish, job) for job in jobs]:
                made.result()
        finally:
            stop.set()
