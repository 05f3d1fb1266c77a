"""From latent to codes: one function, several generators behind it.

``reference`` is slow and obvious, the oracle of the others; ``cpu`` and ``cuda`` are compiled on
first use. All of them choose the same codes when given the same random numbers. Notebook:
``04_generation``.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import Empty, SimpleQueue

import torch
from torch import Tensor

from umtlib import native
from umtlib.decoder import Decoder
from umtlib.errors import ConfigError, GenerationError, NativeError
from umtlib.generation import cpu, cuda, reference
from umtlib.generation.sampling import State, choose, draw_uniforms
from umtlib.guide import Told

__all__ = [
    "BACKENDS", "DTYPES", "State", "choose", "draw_uniforms", "dtype_named", "fastest", "generate",
    "generate_many", "thread_count",
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
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    state: State | None = None,
    progress: Callable[[int], None] | None = None,
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
    generator : torch.Generator, optional
        A CPU generator; by default torch's own.
    temperature : float
        1 samples the model's distribution, less sharpens it, 0 takes the most probable code.
    backend : {"auto", "cuda", "cpu", "reference"}
        Which generator; ``"auto"`` takes the fastest one that runs here.
    dtype : torch.dtype, optional
        float32 (the default) chooses the codes of the reference; bfloat16 and int8, of the
        ``"cpu"`` backend only, round and are faster (see `umtlib.generation.cpu.run`).
    threads : int, optional
        Default: ``UMT_THREADS`` or else `torch.get_num_threads`.
    state : State, optional
        Carries on where the call that last had this state stopped. Updated in place. It keeps the
        weights with which it began, also if the decoder is trained further.
    progress : callable, optional
        Called with the samples done so far in each stream, about four times per second of audio.

    Returns
    -------
    Tensor
        mu-law codes, int64 in 0..255, shape (B, N * hop), on the CPU.

    Raises
    ------
    GenerationError
        If an argument is not as said above, or the state belongs to something else.
    """
    threads = thread_count(threads)
    state = State() if state is None else state
    job = _Job(decoder, told, uniforms, generator, temperature, backend, dtype, threads, state)
    for done in job.pieces():
        if progress is not None:
            progress(done)
    return job.codes


def generate_many(
    decoders: Sequence[Decoder],
    told: Sequence[Told] | Tensor,
    *,
    uniforms: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    states: Sequence[State] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Generate with several decoders: one input into several domains at once.

    The decoders advance together, each on one thread as long as there are enough of them.

    Parameters
    ----------
    decoders : sequence of Decoder
        One per domain.
    told : sequence of Told, or Tensor
        What each is told; or one latent for all, as in `generate`.
    uniforms : sequence of Tensor, optional
        As in `generate`, one per decoder. Drawn ones take their seeds in the decoders' order.
    states : sequence of State, optional
        One per decoder.
    progress : callable, optional
        Called with the samples done so far by the decoder that is furthest behind.
    generator, temperature, backend, dtype, threads
        As in `generate`.

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
    for name, given in (("told", told), ("uniforms", uniforms), ("states", states)):
        if given is not None and len(given) != count:
            raise GenerationError(f"{len(given)} {name} for {count} decoders; give one for each")
    each = max(1, threads // max(count, 1))
    jobs = [
        _Job(decoder, one, given, generator, temperature, backend, dtype, each, state)
        for decoder, one, given, state in zip(
            decoders,
            told,
            [None] * count if uniforms is None else uniforms,
            [State() for _ in decoders] if states is None else states,
            strict=True,
        )
    ]
    on_gpu = [job for job in jobs if job.run is cuda.run]  # there threads only wait
    _run_together(jobs, max(threads, len(on_gpu)), progress)
    return [job.codes for job in jobs]


def dtype_named(name: str) -> torch.dtype:
    """Return the number format of that name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


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
    """One call of `generate`, checked, and made piece by piece."""

    def __init__(
        self, decoder, told, uniforms, generator, temperature, backend, dtype, threads, state
    ):
        dtype = torch.float32 if dtype is None else dtype
        _check(decoder, backend, dtype, generator, state)
        backend = fastest(dtype) if backend == "auto" else backend
        temperature = native.number("temperature", temperature, 0, native.FINITE[1], float)
        guide, kind = decoder.guide, decoder.logits.weight.dtype
        if not isinstance(told, Told):
            told = guide.tell(_finite("latent", told, kind, (None, guide.latent, None)))
        condition = _finite("condition", told.condition, kind, (None, guide.channels, None))
        streams, _, frames = condition.shape
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
        self.decoder, self.uniforms = decoder, uniforms
        predictors = told.predictors
        if guide.order or predictors is not None:
            shape = streams, frames, guide.order
            predictors = _finite("predictors", predictors, torch.float64, shape)
        self.told = Told(condition, predictors)
        self.temperature, self.generator, self.state = temperature, generator, state
        self.run, self.options = reference.run, {}
        if backend == "cpu":
            self.run, self.options = cpu.run, {"dtype": dtype, "threads": threads}
        elif backend == "cuda":
            self.run = cuda.run
        self.done = 0
        self.codes = torch.empty(samples, dtype=torch.long)
        if uniforms is None:
            draw_uniforms(streams, 0, generator, state)  # take the seeds, in order

    def pieces(self) -> Iterator[int]:
        """Make a piece for each item; an item is the number of samples done."""
        hop, frames = self.decoder.guide.hop, self.told.condition.shape[2]
        step = max(1, PIECE // hop)
        for first in range(0, frames, step) if self.codes.numel() else ():
            told = self.told.between(first, min(first + step, frames))
            samples = told.condition.shape[2] * hop
            span = slice(self.done, self.done + samples)
            uniforms = (
                draw_uniforms(len(self.codes), samples, self.generator, self.state)
                if self.uniforms is None
                else self.uniforms[:, span]
            )
            self.codes[:, span] = self.run(
                self.decoder,
                told,
                uniforms,
                temperature=self.temperature,
                state=self.state,
                **self.options,
            )
            self.done += samples
            self.state.position += samples
            yield self.done


def _finite(name: str, array: Tensor, kind: torch.dtype, shape: Sequence[int | None]) -> Tensor:
    """Check what is told, where it lies."""
    device = getattr(array, "device", "cpu")
    return native.array(name, array, kind, shape, *native.FINITE, device=device)


def _run_together(jobs: list[_Job], threads: int, progress: Callable[[int], None] | None) -> None:
    """Let threads take turns at the jobs, one piece at a time, so that all advance alike."""
    waiting: SimpleQueue = SimpleQueue()
    for job in jobs:
        waiting.put(job.pieces())
    stop = threading.Event()

    def work() -> Iterator[None]:
        while not stop.is_set():
            try:
                pieces = waiting.get_nowait()
            except Empty:
                return
            if next(pieces, None) is not None:
                waiting.put(pieces)
            yield

    with ThreadPoolExecutor(max_workers=threads) as pool:
        others = [pool.submit(list, work()) for _ in range(min(threads, len(jobs)) - 1)]
        try:
            for _ in work():  # this thread too: it is the one that hears Ctrl-C
                if progress is not None:
                    progress(min(job.done for job in jobs))
            for other in others:
                other.result()
        finally:
            stop.set()
    if progress is not None and jobs:
        progress(min(job.done for job in jobs))


def _check(decoder, backend, dtype, generator, state) -> None:
    for value, kind in ((decoder, Decoder), (state, State), (generator, torch.Generator | None)):
        if not isinstance(value, kind):
            raise GenerationError(f"{type(value).__name__} is given where {kind} is wanted")
    if generator is not None and generator.device.type != "cpu":
        raise GenerationError(f"the generator is on {generator.device}; give one on the CPU")
    backend = backend if isinstance(backend, str) else type(backend).__name__
    dtype = dtype if isinstance(dtype, torch.dtype) else type(dtype).__name__
    if backend not in ("auto", *BACKENDS):
        raise GenerationError(f"unknown backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    if dtype not in DTYPES.values() or (
        backend in ("cuda", "reference") and dtype != torch.float32
    ):
        raise GenerationError(f"the {backend} backend does not compute in {dtype}")
