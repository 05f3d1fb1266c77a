"""Any audio to the wanted domains: read, level, encode once, decode with each domain's decoder.

Notebook: ``01_quickstart``.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umtlib import audio as sound
from umtlib.errors import ConfigError
from umtlib.generation import State, chunks, draw_uniforms, generate_many, resolve, thread_count
from umtlib.generation.hearing import Heard, hear
from umtlib.generation.perform import perform
from umtlib.translator import MusicTranslator

ALL = "all"
TIMED = 800  # samples of a measurement
MOST_GAIN = 10 ** (12 / 20)  # of a result; what needs more is no music but the decoder's murmur

Progress = Callable[[int, int], None]


def translate(
    model: MusicTranslator,
    audio: np.ndarray,
    sample_rate: float,
    *,
    to: str | Sequence[str] = ALL,
    dtype: str | torch.dtype = "auto",
    **settings,
) -> np.ndarray | dict[str, np.ndarray]:
    """Translate a recording into one or more musical domains.

    The recording is brought to the level of the training audio first (`umtlib.audio.level`), so a
    quiet one works as well as a loud one. So are the results, so that domains sound equally loud,
    but none is raised by more than 12 dB: silence becomes what the decoder makes of it.

    Parameters
    ----------
    audio : np.ndarray
        Shape (frames,) or (frames, channels), any length; see `umtlib.audio.to_mono_16k`.
    sample_rate : float
        Of ``audio``, in Hz.
    to : str or sequence of str
        A domain of the model, several of them, or ``"all"``.
    dtype : str or torch.dtype
        In what the decoders compute, and an encoder that starts from the waveform. ``"auto"`` is
        the fastest whose sound cannot be told from float32's; see `umtlib.generation.resolve`.
    **settings
        Of `pieces`: chunked, temperature, seed, backend, progress.

    Returns
    -------
    np.ndarray or dict
        float32 in [-1, 1] at 16 kHz, shape (T,), T = round(frames * 16000 / sample_rate); a dict
        of them by domain unless ``to`` is the name of one domain.

    Raises
    ------
    AudioError, ConfigError, GenerationError
        If the audio is empty, not finite, or of an impossible shape or rate; if the model has no
        such domain, or there is no such dtype; if there is no such temperature or backend.
    """
    names = domains(model, to)
    _, dtype = resolve(settings.get("backend", "auto"), dtype)
    waveform = sound.level(sound.to_mono_16k(audio, sample_rate))
    heard = hear(model, [waveform], len(waveform), dtype)
    made = joined(pieces(model, names, heard, dtype=dtype, **settings))
    sounds = {name: sound.level(waveform, MOST_GAIN) for name, waveform in made.items()}
    return sounds[to] if isinstance(to, str) and to != ALL else sounds


def domains(model: MusicTranslator, to: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names that ``to`` stands for, each once, or raise ConfigError if one is none."""
    names = (to,) if isinstance(to, str) else tuple(dict.fromkeys(to))
    if names == (ALL,):
        return model.domains
    unknown = [name for name in names if name not in model.domains]
    if unknown or not names:
        known = ", ".join(model.domains)
        wrong = f"unknown domain {unknown[0]!r}" if unknown else "no domain is named"
        raise ConfigError(f"{wrong}; this model has {known}, or say all")
    return names


def encode(model: MusicTranslator, waveform: np.ndarray) -> Tensor:
    """Return the latent of a waveform (T,), shape (1, latent, ceil(T / pool)), on the CPU."""
    return hear(model, [waveform], len(waveform)).latent.cpu()


def decode(
    model: MusicTranslator, names: Sequence[str], latent: Tensor, length: int, **settings
) -> dict[str, np.ndarray]:
    """Generate ``length`` samples of several domains from a latent, (1, latent, F), as `pieces`.

    Its guides do not know how loud the input was: there need not be a recording of it.
    """
    heard = Heard(latent.to(next(model.parameters()).device), length)
    return joined(pieces(model, names, heard, **settings))


def joined(made: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return what `pieces` yields, as one sound for each domain."""
    sounds: dict[str, list[np.ndarray]] = {}
    for name, piece in made:
        sounds.setdefault(name, []).append(piece)
    return {name: np.concatenate(parts) for name, parts in sounds.items()}


def pieces(
    model: MusicTranslator,
    names: Sequence[str],
    heard: Heard,
    *,
    chunked: bool = False,
    seed: int = 0,
    backend: str = "auto",
    dtype: str | torch.dtype | None = None,
    progress: Progress | None = None,
    **options,
) -> Iterator[tuple[str, np.ndarray]]:
    """Generate several domains, in bounded memory; yield each piece with its domain's name.

    A piece is float32 in [-1, 1], shape (samples,). A domain's audio does not depend on the others.
    Those that threads make at the same time are finished before the next begin.

    Parameters
    ----------
    heard : Heard
        The recording. Without `levels` it cannot be cut.
    chunked : bool
        Cut the recording at quiet places and generate the stretches side by side: an
        approximation, and faster for long recordings; see `umtlib.generation.chunks`.
    seed : int
        The random numbers follow from it, the same ones in every domain.
    backend, dtype
        See `umtlib.generation.resolve`; by default float32.
    progress : callable, optional
        Called with the samples done, on average over the domains, and those of one domain in all.
    **options
        Of `umtlib.generation.generate_many`: temperature, threads.
    """
    backend, dtype = resolve(backend, dtype)
    options |= {"backend": backend, "dtype": dtype}
    at_once = thread_count(options.get("threads")) if backend == "cpu" else len(names)
    at_once = 1 if chunked else at_once
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]

        def tell(done: int, before: int = first, now: int = len(some)) -> None:
            done = before * heard.samples + now * min(done, heard.samples)
            progress(done // len(names), heard.samples)

        options |= {"progress": progress and tell}
        if chunked:
            rng = torch.Generator().manual_seed(seed)
            made = chunks.perform_long(model, *some, heard, generator=rng, **options)
        else:
            small, states = heard.split(model.config.encoder.pool), [seeded(seed) for _ in some]
            made = perform(model, some, small, states=states, **options)
        for name, piece in made:
            yield name, piece[0].numpy()


def write(
    model: MusicTranslator, paths: Mapping[str, Path], heard: Heard, shown: int = 0, **settings
) -> Iterator[tuple[str, np.ndarray]]:
    """Do what `translate` does with what was heard, from the disk to a WAV file for each domain.

    Yields a domain's name when its file is there, and the first ``shown`` samples of it.
    """
    with contextlib.ExitStack() as outer:
        each = {name: outer.enter_context(contextlib.ExitStack()) for name in paths}
        # A file that cannot be written is told of before the work.
        put = {name: each[name].enter_context(sound.writing(path)) for name, path in paths.items()}
        kept = {name: each[name].enter_context(tempfile.TemporaryFile()) for name in paths}
        for name, piece in pieces(model, [*paths], heard, **settings):
            kept[name].write(piece.tobytes())
            if kept[name].tell() < heard.samples * piece.itemsize:
                continue
            kept[name].flush()
            waveform = np.memmap(kept[name], np.float32, "r")
            loudness = sound.measure(waveform, MOST_GAIN)
            for block in sound.levelled(waveform, loudness):
                put[name](block)
            start = [*sound.levelled(waveform[:shown], loudness), np.zeros(0, np.float32)]
            each[name].close()  # the file appears
            yield name, np.concatenate(start)


def seeded(seed: int, rows: int = 1) -> State:
    """Return a state in which each row is given the random numbers of this seed's first."""
    states = [State() for _ in range(rows)]
    for state in states:
        draw_uniforms(1, 0, torch.Generator().manual_seed(seed), state)
    return State(streams=[state.streams[0] for state in states])


def stretches(model: MusicTranslator, levels: Tensor) -> int:
    """Return into how many stretches `chunked` cuts a recording; `levels` are those `Heard`."""
    return len(chunks.plan(next(iter(model.decoders.values())), levels[0])) - 1


def cuts_pay(model: MusicTranslator, domains: int, samples: int) -> bool:
    """Tell whether a recording is long enough for `chunked` to be worth its approximation, here.

    Exact generation has one stream per domain, and gives each a thread as long as there are enough.
    Stretches fill all threads, and share the weights that a thread reads: six of them are made 2.0
    (``small``) to 2.8 times (``paper``) as fast as one; see ``docs/generation.md``.
    """
    silence = torch.zeros(1, -(-samples // model.config.encoder.pool))  # cut evenly
    return stretches(model, silence) >= chunks.FEWEST * min(domains, thread_count())


def speed(model: MusicTranslator, names: Sequence[str]) -> float:
    """Measure how many seconds of audio are made here per second, the domains added up.

    Two times 50 ms are made in every domain; the first lets the backend get ready and is not timed.
    """
    encoder, decoders = model.config.encoder, [model.decoders[name] for name in names]
    latent = torch.zeros(1, encoder.latent, -(-TIMED // encoder.pool))
    latent = latent.to(next(model.parameters()).device)
    for _ in range(2):
        began = time.perf_counter()
        generate_many(decoders, latent, dtype="auto")
    seconds = latent.shape[2] * encoder.pool / sound.SAMPLE_RATE * len(decoders)
    return seconds / (time.perf_counter() - began)
