"""Any audio to the wanted domains: read, level, encode once, decode with each domain's decoder.

Notebook: ``01_quickstart``.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from umtlib import audio as sound
from umtlib.errors import ConfigError
from umtlib.generation import generate
from umtlib.translator import MusicTranslator

ALL = "all"
PIECE = 1 << 18  # samples encoded at a time: 16 s; more takes more memory, not less time


def translate(
    model: MusicTranslator,
    audio: np.ndarray,
    sample_rate: float,
    *,
    to: str | Sequence[str] = ALL,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
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
        Called with a domain, the samples done and the samples in all.

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
    latent = encode(model, waveform)
    results = {}
    for name in names:
        tell = (lambda done, n=name: progress(n, done, len(waveform))) if progress else None
        results[name] = decode(
            model, name, latent, len(waveform),
            temperature=temperature, seed=seed, backend=backend, progress=tell,
        )  # fmt: skip
    return results[to] if isinstance(to, str) and to != ALL else results


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
    domain: str,
    latent: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Generate one domain's audio from a latent.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    domain : str
        One of its domains.
    latent : Tensor
        Shape (1, latent, F).
    length : int
        Samples wanted, at most F * pool.
    temperature, seed, backend
        As in `translate`.
    progress : callable, optional
        Called with the samples done.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1] at 16 kHz, shape (length,).
    """
    codes = generate(
        model.decoders[domain],
        latent,
        generator=torch.Generator().manual_seed(seed),
        temperature=temperature,
        backend=backend,
        progress=(lambda done: progress(min(done, length))) if progress else None,
    )
    return model.to_waveform(codes[0, :length]).numpy()


def speed(
    model: MusicTranslator, *, temperature: float = 1.0, backend: str = "auto", samples: int = 200
) -> float:
    """Measure how fast audio is generated here, in seconds of audio per second.

    Rounds up to whole latent frames. A first run, not timed, lets the backend get ready.
    """
    pool = model.config.encoder.pool
    device = next(model.parameters()).device
    latent = torch.zeros(1, model.config.encoder.latent, -(-samples // pool), device=device)
    began = time.perf_counter()
    for _ in range(2):
        began = time.perf_counter()
        decode(model, model.domains[0], latent, 1, temperature=temperature, backend=backend)
    return latent.shape[2] * pool / sound.SAMPLE_RATE / (time.perf_counter() - began)
