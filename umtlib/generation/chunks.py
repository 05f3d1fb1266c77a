"""Long inputs: many stretches of one input at once.

One stream is bound by reading the weights; many streams share each weight that is read. So a long
input is cut, where it is quietest, into stretches that are generated side by side. Each starts a
receptive field early, so that nothing of its silent beginning is left when it counts, and fades
into its neighbour with constant power, because two samplings of the same music do not agree in
phase. The cuts are an approximation, the only one in this package. Notebook: ``04_generation``.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.decoder import Decoder
from umtlib.generation import generate, thread_count

RATE = 16_000
FADE = 400  # samples of cross-fade: 25 ms
SLACK = 0.15  # how far from its even place a cut may move, in lengths of a stretch


def frame_levels(waveform: Tensor, pool: int) -> Tensor:
    """Return the mean power of every latent frame of a waveform (T,), shape (ceil(T / pool),)."""
    whole = F.pad(waveform, (0, -len(waveform) % pool))
    return whole.unflatten(0, (-1, pool)).square().mean(dim=1)


def quiet_cuts(levels: Tensor, length: int) -> list[int]:
    """Choose where to cut: the quietest frame near every multiple of a length.

    Parameters
    ----------
    levels : Tensor
        Power of every frame, shape (F,).
    length : int
        Frames of a stretch; a cut moves by at most 15 % of it.

    Returns
    -------
    list of int
        First frame of every stretch, starting with 0, and F at the end.
    """
    slack, cuts = int(SLACK * length), [0]
    for even in range(length, len(levels) - length // 2, length):
        near = levels[even - slack : even + slack + 1]
        cuts.append(even - slack + int(near.argmin()))
    return [*cuts, len(levels)]


def generate_long(
    decoder: Decoder,
    latent: Tensor,
    levels: Tensor,
    *,
    decode: Callable[[Tensor], Tensor] = mulaw.decode,
    seconds: float | None = None,
    streams: int | None = None,
    generator: torch.Generator | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    **options,
) -> Iterator[Tensor]:
    """Generate a long input as many streams, in order, some stretches at a time.

    Parameters
    ----------
    decoder : Decoder
        The decoder of the wanted domain.
    latent : Tensor
        Shape (latent, F).
    levels : Tensor
        Power of the input in every frame, shape (F,); see `frame_levels`.
    decode : callable
        mu-law codes to a waveform.
    seconds : float, optional
        Length of a stretch. Default: 5 s, or 8 receptive fields if that is more.
    streams : int, optional
        Stretches at a time; default 6 per thread.
    generator : torch.Generator, optional
        As in `generate`. A stretch's numbers depend on its index, not on `streams`.
    progress : callable, optional
        Called with the samples done so far.
    threads, **options
        As in `generate`.

    Yields
    ------
    Tensor
        float32 waveform in [-1, 1], shape (samples,); together F * pool samples.
    """
    threads = thread_count(threads)
    pool, reach = decoder.pool, math.ceil(decoder.receptive_field / decoder.pool)
    length = math.ceil((seconds or max(5.0, 8 * decoder.receptive_field / RATE)) * RATE / pool)
    cuts = quiet_cuts(levels, max(length, reach))
    stretches = list(zip(cuts, cuts[1:], strict=False))
    fade, tail, done = min(FADE, pool), None, 0
    for some in torch.arange(len(stretches)).split(streams or 6 * threads):
        batch = [stretches[i] for i in some]
        starts = [max(0, first - reach) for first, _ in batch]
        longest = max(last + 1 - start for start, (_, last) in zip(starts, batch, strict=True))
        frames = torch.arange(longest) + torch.tensor(starts)[:, None]  # (B, frames)
        parts = latent[:, frames.clamp(max=latent.shape[1] - 1)].transpose(0, 1)
        codes = generate(decoder, parts, generator=generator, threads=threads, **options)
        for row, start, (first, last) in zip(codes, starts, batch, strict=True):
            audio = decode(row[(first - start) * pool : (last - start) * pool + fade])
            yield _joined(tail, audio[:-fade])
            tail, done = audio[-fade:], done + (last - first) * pool
        if progress is not None:
            progress(done)


def _joined(tail: Tensor | None, audio: Tensor) -> Tensor:
    """Fade from the end of one stretch into the beginning of the next, with constant power."""
    if tail is None:
        return audio
    angle = (torch.arange(len(tail)) + 0.5) / len(tail) * (math.pi / 2)
    mixed = tail * angle.cos() + audio[: len(tail)] * angle.sin()
    return torch.cat([mixed, audio[len(tail) :]])
