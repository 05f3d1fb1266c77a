"""Any audio to the wanted domains: read, level, encode once, decode with each domain's decoder.

Notebook: ``01_quickstart``.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from umtlib import audio as sound
from umtlib.errors import ConfigError
from umtlib.generation import State, draw_uniforms, generate_many
from umtlib.translator import MusicTranslator

ALL = "all"
PIECE = 1 << 18  # samples at a time, 16 s; more takes more memory, not less time

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
        If temperature or backend make no sense.
    """
    names = domains(model, to)
    waveform = sound.level(sound.to_mono_16k(audio, sample_rate))
    sounds = decode(
        model, names, encode(model, waveform), len(waveform),
        temperature=temperature, seed=seed, backend=backend, progress=progress,
    )  # fmt: skip
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


@torch.inference_mode()
def encode(model: MusicTranslator, waveform: np.ndarray) -> Tensor:
    """Encode audio of any length in bounded memory.

    Pieces overlap by as much as the encoder can see, so the latent does not depend on the cuts.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    waveform : np.ndarray
        float32 in [-1, 1], 16 kHz, shape (T,).

    Returns
    -------
    Tensor
        Latent, shape (1, latent, ceil(T / pool)), on the model's device.
    """
    pool, device = model.config.encoder.pool, next(model.parameters()).device
    margin = -(-model.encoder.reach // pool)  # frames on either side
    size = max(1, PIECE // pool)
    pieces = []
    for first in range(0, -(-len(waveform) // pool), size):
        begin = max(0, first - margin)
        part = waveform[begin * pool : (first + size + margin) * pool]
        codes = model.to_codes(torch.from_numpy(part).to(device)[None])
        pieces.append(model.encode(codes)[:, :, first - begin : first - begin + size])
    return torch.cat(pieces, dim=2)


def decode(
    model: MusicTranslator,
    names: Sequence[str],
    latent: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Generate the audio of several domains together from one latent.

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
    temperature, seed, backend, progress
        As in `translate`.

    Returns
    -------
    dict
        By domain, float32 in [-1, 1] at 16 kHz, shape (length,); a domain's audio does not depend
        on which others are made with it.
    """
    pool = model.config.encoder.pool
    decoders = [model.decoders[name] for name in names]
    states = [_seeded(seed) for _ in names]
    sounds = {name: np.empty(length, np.float32) for name in names}
    for first, part in enumerate(latent.split(max(1, PIECE // pool), dim=2)):
        start = first * max(1, PIECE // pool) * pool
        codes = generate_many(
            decoders, part,
            temperature=temperature, backend=backend, states=states,
            progress=progress and partial(_tell, progress, start, length),
        )  # fmt: skip
        for name, found in zip(names, codes, strict=True):
            waveform = model.to_waveform(found[0, : length - start])
            sounds[name][start : start + len(waveform)] = waveform.numpy()
    return sounds


def _seeded(seed: int) -> State:
    state = State()
    draw_uniforms(1, 0, torch.Generator().manual_seed(seed), state)
    return state


def _tell(progress: Progress, start: int, length: int, done: int) -> None:
    progress(min(start + done, length), length)


def speed(
    model: MusicTranslator,
    names: Sequence[str],
    *,
    temperature: float = 1.0,
    backend: str = "auto",
    samples: int = 800,
) -> float:
    """Measure how fast these domains are generated together here.

    Returns
    -------
    float
        Seconds of audio per second, the domains added up. The measurement takes two times
        ``samples`` (rounded up to a latent frame) in every domain; the first lets the backend
        get ready and is not timed.
    """
    encoder = model.config.encoder
    latent = torch.zeros(1, encoder.latent, -(-samples // encoder.pool))
    latent = latent.to(next(model.parameters()).device)
    for _ in range(2):
        began = time.perf_counter()
        decode(model, names, latent, 1, temperature=temperature, backend=backend)
    seconds = latent.shape[2] * encoder.pool / sound.SAMPLE_RATE * len(names)
    return seconds / (time.perf_counter() - began)
