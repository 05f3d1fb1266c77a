"""What a decoder is told besides its own past: the seam between the paper's decoder and presets.

In the paper that is the latent and nothing else (`Guide`). A preset may tell its decoders more, and
do more with what they made, by a class of its own in `GUIDES`: nobody else asks what kind it is.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw


@dataclass(frozen=True)
class Told:
    """What a decoder is told of some latent frames.

    Attributes
    ----------
    condition : Tensor
        What its layers are conditioned on, shape (B, C, N): N frames of `Guide.hop` samples.
    predictors : Tensor, optional
        float64, shape (B, N, order), oldest sample first: a linear predictor for each frame. The
        code of what it predicts is looked up like one more previous code.
    """

    condition: Tensor
    predictors: Tensor | None = None


class Guide(nn.Module):
    """The paper's: a decoder is told the latent, frame by frame.

    Parameters
    ----------
    latent : int
        Channels of the latent.
    pool : int
        Samples per latent frame.
    """

    order = 0  # of the linear prediction; 0: there is none

    def __init__(self, latent: int, pool: int):
        super().__init__()
        self.channels, self.hop = latent, pool

    def memory(self) -> Any:
        """Return what `tell` and `finish` carry from one piece of a performance to the next."""
        return None

    def tell(self, latent: Tensor, memory: Any = None, last: bool = True) -> Told:
        """Tell of the next latent frames, (B, latent, F); what is decided later comes later."""
        return Told(latent)

    def finish(self, waveform: Tensor, told: Told, memory: Any = None, last: bool = True) -> Tensor:
        """Return what is to be heard of the next samples made, (B, T); it may come later."""
        return waveform


def predict(codes: Tensor, predictors: Tensor) -> Tensor:
    """Predict every sample linearly from those before it.

    Parameters
    ----------
    codes : Tensor
        mu-law codes, integers, shape (B, T). Before them is an amplitude of 0.
    predictors : Tensor
        One for each frame, float64, shape (B, N, order), T a multiple of N. Sums are in float64: two
        implementations that differ by rounding must arrive at the same code.

    Returns
    -------
    Tensor
        int64 codes, shape (B, T); the one at t depends on the ``order`` samples before t.
    """
    order, hop = predictors.shape[2], codes.shape[1] // predictors.shape[1]
    known = F.pad(mulaw.amplitudes().to(codes.device)[codes], (order, -1))
    frames = known.unfold(1, order + hop - 1, hop)  # (B, N, order + hop - 1)
    predicted = frames.unfold(2, order, 1) @ predictors[..., None]  # (B, N, hop, 1)
    return mulaw.nearest(predicted.flatten(1))


GUIDES: dict[str, type[Guide]] = {"latent": Guide}  # by `DecoderConfig.guide`
