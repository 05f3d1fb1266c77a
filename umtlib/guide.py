"""What a decoder is told besides its own past: the seam between the paper's decoder and presets.

In the paper that is the latent and nothing else (`Guide`). A preset may tell its decoders more, and
do more with what they made, by a class of its own in `GUIDES`: nobody else asks what kind it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw


@dataclass(frozen=True)
class Told:
    """What a decoder is told, in N frames of `Guide.hop` samples.

    A predictor is linear, for one frame, float64, oldest sample first. The code of what it predicts
    is looked up like one more previous code.
    """

    condition: Tensor  # (B, C, N): what the layers are conditioned on
    predictors: Tensor | None = None  # (B, N, order)
    aim: Tensor | None = None  # (B, N, any): what `Guide.finish` has to know

    def map(self, change: Callable[..., Tensor], *others: "Told") -> "Told":
        """Change each tensor; `change` is given the axis of its frames, it, and others' like it."""
        names = ("condition", 2), ("predictors", 1), ("aim", 1)
        rows = [(axis, *(getattr(one, name) for one in (self, *others))) for name, axis in names]
        return Told(*(None if row[1] is None else change(*row) for row in rows))

    def between(self, first: int, last: int) -> "Told":
        """Return frames first .. last - 1."""
        return self.map(lambda axis, x: x.narrow(axis, first, last - first))

    def then(self, more: "Told") -> "Told":
        """Return these frames and, after them, more."""
        return self.map(lambda axis, *both: torch.cat(both, axis), more)


class Guide(nn.Module):
    """The paper's: a decoder is told the latent, of so many channels and samples per frame."""

    order = 0  # of the linear prediction; 0: there is none
    late = 0  # samples, at most, by which what is to be heard comes later than its latent

    def __init__(self, latent: int, pool: int):
        super().__init__()
        self.latent, self.pool = latent, pool
        self.channels, self.hop = latent, pool  # of what is told

    def memory(self) -> Any:
        """Return what `tell` and `finish` carry from one piece of a performance to the next."""
        return None

    def tell(
        self, latent: Tensor, levels: Tensor | None = None, memory: Any = None, last: bool = True
    ) -> Told:
        """Tell of the next F >= 0 latent frames, (B, latent, F); some of it may come later.

        `levels` is the power of the input in each, (B, F), if it is known.
        """
        return Told(latent)

    def finish(self, waveform: Tensor, told: Told, memory: Any = None, last: bool = True) -> Tensor:
        """Return what is to be heard of the next samples made, (B, T); it may come later."""
        return waveform


def predict(codes: Tensor, predictors: Tensor) -> Tensor:
    """Predict codes, (B, T), from those before; predictors (B, N, order), T a multiple of N.

    Sums are in float64: two implementations that round differently must arrive at the same code.
    """
    order, hop = predictors.shape[2], codes.shape[1] // predictors.shape[1]
    known = F.pad(mulaw.amplitudes().to(codes.device)[codes], (order, -1))
    frames = known.unfold(1, order + hop - 1, hop)  # (B, N, order + hop - 1)
    return mulaw.nearest((frames.unfold(2, order, 1) @ predictors[..., None]).flatten(1))


GUIDES = {  # by `DecoderConfig.guide`; imported when a decoder asks for it
    "latent": "umtlib.guide:Guide",
    "frames": "umtlib.small.guide:FrameGuide",
}
