"""Any audio to the wanted domains: read, level, encode once, decode with each domain's decoder.

Notebook: ``01_quickstart``.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umtlib import audio as sound
from umtlib.errors import AudioError, ConfigError
from umtlib.generation import State, chunks, draw_uniforms, generate_many, thread_count
from umtlib.generation.perform import PIECE, Heard, perform, perform_long
from umtlib.generation.stream import encode_blocks
from umtlib.translator import MusicTranslator

ALL = "all"

Progress = Callable[[int, int], None]


def translate(
    model: MusicTranslator,
    audio: np.ndarray,
    sample_rate: float,
    *,
    to: str | Sequence[str] = ALL,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    chunked: bool = False,
    progress: Progress | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Translate a recording into one or more musical domains.

    The recording is brought to the level of the training audio first (`umtlib.audio.level`), so a
    quiet one works as well as a loud one; the result has the level that the decoder gives it.
    Silence is translated like anything else: into what the decoder makes of it.

    Parameters
    ----------
    model : MusicTranslator
        The trained network; see `umtlib.load`.
    audio : np.ndarray
        Shape (frames,) or (frames, channels), any length; see `umtlib.audio.to_mono_16k`.
    sample_rate : float
        Of ``audio``, in Hz.
    to : str or sequence of str
        A domain of the model, several of them, or ``"all"``.
    temperature : float
        1 samples the model's own distribution, less sharpens it.
    seed : int
        The random numbers follow from it, the same ones in every domain.
    backend : str
        Which generator; see `umtlib.generation.generate`.
    dtype : torch.dtype
        In what the decoders compute, see there; and an encoder that starts from the waveform.
    chunked : bool
        Cut the recording at quiet places and generate the stretches side by side: an
        approximation, and faster for long recordings; see `umtlib.generation.chunks`.
    progress : callable, optional
        Called with the samples done in every domain, and the samples of one domain in all.

    Returns
    -------
    np.ndarray or dict
        float32 in [-1, 1] at 16 kHz, shape (T,), T = round(frames * 16000 / sample_rate); a dict
        of them by domain unless ``to`` is the name of one domain.

    Raises
    ------
    AudioError
        If the audio is empty, not finite, or of an impossible shape or rate.
    ConfigError
        If the model has no such domain.
    GenerationError
        If temperature, backend or dtype make no sense.
    """
    names = domains(model, to)
    waveform = sound.level(sound.to_mono_16k(audio, sample_rate))
    heard = hear(model, [waveform], len(waveform), dtype)
    sounds = _joined(names, pieces(
        model, names, heard, chunked=chunked, temperature=temperature, seed=seed, backend=backend,
        dtype=dtype, progress=progress,
    ))  # fmt: skip
    return sounds[to] if isinstance(to, str) and to != ALL else sounds


def domains(model: MusicTranslator, to: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names that ``to`` stands for, each once.

    Raises
    ------
    ConfigError
        If the model has no such domain, or none is named.
    """
    names = (to,) if isinstance(to, str) else tuple(dict.fromkeys(to))
    if names == (ALL,):
        return model.domains
    unknown = [name for name in names if name not in model.domains]
    if unknown or not names:
        known = ", ".join(model.domains)
        wrong = f"unknown domain {unknown[0]!r}" if unknown else "no domain is named"
        raise ConfigError(f"{wrong}; this model has {known}, or say all")
    return names


def hear(
    model: MusicTranslator,
    blocks: Iterable[np.ndarray],
    samples: int,
    dtype: torch.dtype = torch.float32,
) -> Heard:
    """Encode a recording of any length in bounded memory: 5 KB per second are kept.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    blocks : iterable of np.ndarray
        float32 in [-1, 1], 16 kHz, of any lengths.
    samples : int
        Their length in all, at least 1.
    dtype : torch.dtype
        In what an encoder computes that starts from the waveform, as in `translate`.

    Returns
    -------
    Heard

    Raises
    ------
    AudioError
        If the blocks hold more or fewer samples: a file was changed while it was read.
    """
    pool, frames = model.config.encoder.pool, -(-samples // model.config.encoder.pool)
    # Made at once: small arrays kept between large passing ones would let the heap grow for ever.
    device = next(model.parameters()).device
    latent = torch.empty(1, model.config.encoder.latent, frames, device=device)
    levels, start, found = torch.empty(1, frames), 0, 0
    small = (block[i : i + PIECE] for block in blocks for i in range(0, len(block), PIECE))
    for part in encode_blocks(model, small, max(1, PIECE // pool), dtype):
        found += part.samples
        if found > samples:
            break
        span = slice(start, start + part.latent.shape[2])
        latent[:, :, span], levels[:, span] = part.latent, part.levels
        start = span.stop
    if found != samples:
        raise AudioError(f"the recording has changed: it held {samples} samples; try again")
    return Heard(latent, samples, levels)


def encode(model: MusicTranslator, waveform: np.ndarray) -> Tensor:
    """Return the latent of a waveform (T,), shape (1, latent, ceil(T / pool)); see `hear`."""
    return hear(model, [waveform], len(waveform)).latent


def decode(
    model: MusicTranslator,
    names: Sequence[str],
    latent: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Generate the audio of several domains together from one latent.

    Its guides do not know how loud the input was: there need not be a recording of it.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    names : sequence of str
        Domains of the model.
    latent : Tensor
        Shape (1, latent, F).
    length : int
        Samples wanted, at most F * pool.
    temperature, seed, backend, dtype, progress
        As in `translate`.

    Returns
    -------
    dict
        By domain, float32 in [-1, 1] at 16 kHz, shape (length,); a domain's audio does not depend
        on which others are made with it.
    """
    made = pieces(
        model, names, Heard(latent, length),
        temperature=temperature, seed=seed, backend=backend, dtype=dtype, progress=progress,
    )  # fmt: skip
    return _joined(names, made)


def _joined(names: Sequence[str], made: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    sounds: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for name, piece in made:
        sounds[name].append(piece)
    return {name: np.concatenate(parts) for name, parts in sounds.items()}


def pieces(
    model: MusicTranslator,
    names: Sequence[str],
    heard: Heard,
    *,
    chunked: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Generate the audio of several domains piece by piece, in memory that does not grow.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    names : sequence of str
        Domains of the model.
    heard : Heard
        The recording. Without `levels` it cannot be cut.
    chunked, temperature, seed, backend, dtype, progress
        As in `translate`.

    Yields
    ------
    name : str
        A domain.
    piece : np.ndarray
        What follows in that domain, float32 in [-1, 1], shape (samples,). Exact generation goes
        through all domains together, chunked generation through one after the other.
    """
    options = {"temperature": temperature, "backend": backend, "dtype": dtype}
    if chunked:
        made = _one_by_one(model, names, heard, seed, progress, options)
    else:
        tell = progress and partial(_tell, progress, heard.samples, 1, 0)
        small, states = heard.split(model.config.encoder.pool), [seeded(seed) for _ in names]
        made = perform(model, names, small, states=states, progress=tell, **options)
    for name, piece in made:
        yield name, piece[0].numpy()


def _one_by_one(model, names, heard, seed, progress, options):
    whole = heard.latent.shape[2] * model.config.encoder.pool
    for number, name in enumerate(names):
        tell = progress and partial(_tell, progress, heard.samples, len(names), number * whole)
        rng = torch.Generator().manual_seed(seed)
        yield from perform_long(model, name, heard, generator=rng, progress=tell, **options)


def write(
    model: MusicTranslator, paths: Mapping[str, Path], heard: Heard, shown: int = 0, **settings
) -> dict[str, np.ndarray]:
    """Write what `pieces` makes to WAV files, one for each of its domains that has a path.

    Returns
    -------
    dict
        By domain, its first ``shown`` samples, or all if there are fewer; empty if that is 0.
    """
    begun: dict[str, list[np.ndarray]] = {name: [] for name in paths if shown}
    with contextlib.ExitStack() as stack:
        put = {name: stack.enter_context(sound.writing(path)) for name, path in paths.items()}
        for name, piece in pieces(model, [*paths], heard, **settings):
            put[name](piece)
            if (left := shown - sum(map(len, begun.get(name, [])))) > 0:
                begun[name].append(piece[:left])
    return {name: np.concatenate(parts) for name, parts in begun.items()}


def seeded(seed: int, rows: int = 1) -> State:
    """Return a state in which each row is given the random numbers of this seed's first."""
    states = [State() for _ in range(rows)]
    for state in states:
        draw_uniforms(1, 0, torch.Generator().manual_seed(seed), state)
    return State(streams=[state.streams[0] for state in states])


def _tell(progress: Progress, length: int, passes: int, before: int, done: int) -> None:
    progress(min((before + done) // passes, length), length)


def stretches(model: MusicTranslator, levels: Tensor) -> int:
    """Return into how many stretches `chunked` cuts a recording; `levels` are those `Heard`."""
    return len(chunks.plan(next(iter(model.decoders.values())), levels[0])) - 1


def cuts_pay(model: MusicTranslator, domains: int, samples: int) -> bool:
    """Tell whether a recording is long enough for `chunked` to be worth it, here."""
    silence = torch.zeros(1, -(-samples // model.config.encoder.pool))  # cut evenly
    return chunks.pays(stretches(model, silence), domains)


def speed(
    model: MusicTranslator,
    names: Sequence[str],
    *,
    chunked: bool = False,
    temperature: float = 1.0,
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    samples: int = 800,
) -> float:
    """Measure how fast these domains are generated here.

    Returns
    -------
    float
        Seconds of audio per second, the domains added up. The measurement takes two times
        ``samples`` in every domain, or with `chunked` in all stretches of one domain that are made
        at a time, each rounded up to a latent frame; the first lets the backend get ready and is
        not timed.
    """
    encoder = model.config.encoder
    decoders = [model.decoders[name] for name in (names[:1] if chunked else names)]
    streams = chunks.STREAMS * thread_count() if chunked else 1
    latent = torch.zeros(streams, encoder.latent, -(-samples // (encoder.pool * streams)))
    latent = latent.to(next(model.parameters()).device)
    for _ in range(2):
        began = time.perf_counter()
        generate_many(decoders, latent, temperature=temperature, backend=backend, dtype=dtype)
    seconds = latent.shape[2] * encoder.pool / sound.SAMPLE_RATE * len(decoders) * streams
    return seconds / (time.perf_counter() - began)
