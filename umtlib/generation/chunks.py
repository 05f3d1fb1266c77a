"""Long inputs: many stretches of one input at once.

One stream is bound by reading the weights; many streams share each weight that is read. So a long
input is cut, where it is quietest, into stretches that are generated side by side. Each starts a
receptive field early, so that nothing of its silent beginning is left when it counts, and fades
into its neighbour with constant power, because two samplings of the same music do not agree in
phase. What a guide does at last (`umtlib.guide`) it does to all of it. The cuts are an
approximation, the only one in this package. Notebook: ``06_generation``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from umtlib.audio import SAMPLE_RATE
from umtlib.decoder import Decoder
from umtlib.generation import generate, thread_count
from umtlib.generation.hearing import Heard
from umtlib.generation.perform import Part, to_the_end
from umtlib.guide import Told
from umtlib.translator import MusicTranslator

FADE = 400  # samples of cross-fade: 25 ms
SLACK = 0.15  # how far from its even place a cut may move, in lengths of a stretch
STREAMS = 6  # per thread: as many as share a weight while it is in a register
FEWEST = 4  # times as many streams as exact generation has: then cutting is worth it


def plan(decoder: Decoder, levels: Tensor, seconds: float | None = None) -> list[int]:
    """Choose where to cut: the quietest frame within 15 % of every multiple of a length.

    That is so many seconds, by default 5 s or 8 receptive fields if that is more, and at least a
    receptive field. Levels are the power of the input in every frame, (F,). Returns the first frame
    of every stretch, starting with 0, and F at the end.
    """
    seconds = seconds or max(5.0, 8 * decoder.receptive_field / SAMPLE_RATE)
    length = max(math.ceil(seconds * SAMPLE_RATE / decoder.guide.pool), _reach(decoder))
    slack, cuts = int(SLACK * length), [0]
    for even in range(length, len(levels) - length // 2, length):
        near = levels[even - slack : even + slack + 1]
        cuts.append(even - slack + int(near.argmin()))
    return [*cuts, len(levels)]


def _reach(decoder: Decoder) -> int:
    """Return the frames that a receptive field spans."""
    return math.ceil(decoder.receptive_field / decoder.guide.pool)


def perform_long(
    model: MusicTranslator,
    name: str,
    heard: Heard,
    *,
    seconds: float | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    **options,
) -> Iterator[tuple[str, Tensor]]:
    """Do what `umtlib.generation.perform.perform` does, in stretches that are played side by side.

    It does so in one domain, of a whole recording with its levels, B = 1. The `seconds` are those
    of `plan`, the options those of `umtlib.generation.generate_many`. A stretch's random numbers
    depend on its index, not on how many are made at a time.
    """
    threads, part, levels = thread_count(threads), Part(model, name), heard.levels[0]
    decoder, pool, each = part.decoder, part.guide.pool, part.guide.pool // part.guide.hop
    stretches = list(pairwise(plan(decoder, levels, seconds)))
    fade, tail, done = min(FADE, pool), None, 0
    pieces = to_the_end(heard.split(pool))
    told, origin = part.tell(*next(pieces)), 0  # from this latent frame on
    for some in torch.arange(len(stretches)).split(STREAMS * threads):
        batch = [stretches[i] for i in some]
        starts = [max(0, first - _reach(decoder)) for first, _ in batch]
        longest = max(last + 1 - start for start, (_, last) in zip(starts, batch, strict=True))
        needed = (min(batch[-1][1] + 1, len(levels)) - origin) * each
        while told.condition.shape[2] < needed:
            told = told.then(part.tell(*next(pieces)))
        begin, origin = (starts[0] - origin) * each, starts[0]
        told = told.between(begin, told.condition.shape[2])  # what was before is forgotten
        share = (batch[-1][1] - batch[0][0]) / longest  # of what is made, warm-up left out

        def report(made: int, before: int = done, share: float = share) -> None:
            progress(before + round(share * made))

        rows = _rows(told, [(start - origin) * each for start in starts], longest * each)
        codes = generate(decoder, rows, threads=threads, progress=progress and report, **options)
        for row, start, (first, last) in zip(codes, starts, batch, strict=True):
            audio = model.to_waveform(row)[(first - start) * pool : (last - start) * pool + fade]
            own = told.between((first - origin) * each, (last - origin) * each)
            yield from part.finish(_joined(tail, audio[:-fade])[None], own, last=False)
            tail, done = audio[-fade:], done + (last - first) * pool
    yield from part.finish(audio[None, :0], told.between(0, 0), last=True)


def _rows(told: Told, starts: list[int], length: int) -> Told:
    """Return so many frames from each start on, one row each; after the last frame it repeats."""
    frames = torch.arange(length) + torch.tensor(starts)[:, None]  # (B, length)
    frames = frames.clamp(max=told.condition.shape[2] - 1).to(told.condition.device)
    rows = replace(told, aim=None)  # whose samples are finished later, in order
    return rows.map(lambda axis, x: x[0].movedim(axis - 1, 0)[frames].movedim(1, axis))


def _joined(tail: Tensor | None, audio: Tensor) -> Tensor:
    """Fade from the end of one stretch into the beginning of the next, with constant power."""
    if tail is None:
        return audio
    angle = (torch.arange(len(tail)) + 0.5) / len(tail) * (math.pi / 2)
    mixed = tail * angle.cos() + audio[: len(tail)] * angle.sin()
    return torch.cat([mixed, audio[len(tail) :]])
