"""What every generator shares: its state, its random numbers, and how one becomes a code.

A generator never draws: one uniform number per sample and stream comes in from outside, so two
generators can be compared sample by sample (an idea of nv-wavenet). Notebook: ``06_generation``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umtlib.mulaw import CODES


@dataclass
class State:
    """Where generation stopped. Make one empty, pass it to each call; every call updates it."""

    owner: tuple | None = None  # backend, dtype, streams, decoder: set by the first call
    memory: Any = None  # the backend's own past: queues of activations, and the last codes
    streams: list[torch.Generator] | None = None  # each stream's uniforms, if none are passed


def draw_uniforms(
    batch: int, samples: int, generator: torch.Generator | None, state: State
) -> Tensor:
    """Draw one uniform number per sample and stream: float32 in [0, 1), shape (B, T).

    The first call takes one 62-bit seed per stream from `generator` (``None``: torch's own), stream
    0 first, and keeps a generator per stream in `state`. So a stream's numbers depend on the
    seed and on its index alone: not on the batch size, the backend, or the pieces it comes in.
    """
    if state.streams is None:
        seeds = torch.randint(2**62, (batch,), generator=generator)
        state.streams = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.stack([torch.rand(samples, generator=stream) for stream in state.streams])


def choose(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Turn logits, (B, 256), into codes, int64, (B,), by the inverse of the distribution function.

    With a uniform u in [0, 1), (B,), the code is the smallest k with ``p[0] + ... + p[k] > u``,
    where ``p = softmax(logits / temperature)`` and sums are in float64; at temperature 0 it is the
    first of the largest logits. Two implementations whose logits differ by rounding agree unless u
    lies within that rounding of a step of the cumulative distribution.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    return (cumulative <= uniforms.double()[:, None]).sum(dim=-1).clamp(max=CODES - 1)
