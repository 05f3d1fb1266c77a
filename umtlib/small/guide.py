"""What the decoders of ``small`` are told: the frame model's spectra, and a linear prediction.

A frame model paints from the latent how its domain would sound, 80 times a second. The decoder is
conditioned on the latent and on the spectrum's levels in 24 bands, and is given the linear
prediction that goes with the spectrum. At last its output is filtered towards the spectrum: a
decoder that hears its own output drifts. Not in the paper.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from umtlib.errors import ConfigError
from umtlib.guide import Guide, Told
from umtlib.small import frames as frame_models
from umtlib.small import prediction
from umtlib.small.spectra import BANDS_TOLD, FINE, SPAN, Filter, above_past, band_levels

# One filter smears an attack over its window. The second mends a third of what the first left.
PASSES = 2


@dataclass
class Memory:
    """Of a performance: what comes later than it was heard or made."""

    frames: frame_models.Memory = field(default_factory=frame_models.Memory)
    latent: Tensor | None = None  # frames that are not painted yet
    past: Tensor | None = None  # the running mean of what was painted
    filters: list[Filter] = field(default_factory=lambda: [Filter() for _ in range(PASSES)])


class FrameGuide(Guide):
    """Told by a frame model; see the module.

    Raises ConfigError if a latent frame cannot be divided, or the filter's windows would not
    overlap enough.
    """

    order = 128

    def __init__(self, latent: int, pool: int):
        super().__init__(latent, pool)
        if pool % FINE or 2 * (pool // FINE) > SPAN:
            raise ConfigError(
                f"pool = {pool} must be a multiple of {FINE}, and at most {FINE * SPAN // 2}, for "
                "the guide 'frames'"
            )
        self.channels, self.hop = latent + BANDS_TOLD, pool // FINE
        self.late = 2 * pool + PASSES * SPAN
        self.frames = frame_models.FrameModel(latent)
        # By so much more than the frame model says the spectra move; see `painting.settle`.
        self.register_buffer("emphasis", torch.zeros(1))

    def memory(self) -> Memory:
        """Return what comes later than it was heard or made."""
        return Memory()

    @torch.no_grad()
    def tell(self, latent, levels=None, memory=None, last=True) -> Told:
        """Tell of the frames that are painted: the levels of the input do not matter."""
        memory = memory or Memory()
        spectra = self.frames.paint(latent, memory.frames, last)
        if spectra.shape[1]:
            moves, memory.past = above_past(spectra, memory.past)
            spectra = spectra + self.emphasis * moves
        waiting = latent if memory.latent is None else torch.cat([memory.latent, latent], dim=2)
        count = spectra.shape[1] // FINE
        memory.latent = waiting[:, :, count:]
        bands = band_levels(spectra, BANDS_TOLD).transpose(1, 2) / 20 + 2  # of order one
        told = waiting[:, :, :count].repeat_interleave(FINE, dim=2)
        noise = prediction.WHITE_NOISE_IN_TRAINING if self.training else prediction.WHITE_NOISE
        predictors = prediction.fit(spectra, self.order, noise)
        return Told(torch.cat([told, bands], dim=1), predictors, aim=spectra)

    @torch.no_grad()
    def finish(self, waveform, told, memory=None, last=True):
        """Filter towards the spectra."""
        memory = memory or Memory()
        for one in memory.filters:
            waveform = one(waveform, told.aim.to(waveform), self.hop, last)
        return waveform
