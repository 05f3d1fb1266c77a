"""How the model that ships today guides its decoders; it goes when the next one ships.

A network of one hidden layer, per domain, reads from the latent of a frame the log power spectrum
that this domain's audio would have. The decoder is given the linear prediction that goes with it
(`umtlib.small.prediction`). At last each frame of the output is filtered by a part of the way, in
decibels, from the spectrum that it has to the one that is called for, without delay. And in the
long run the output is made as loud as the input: all training audio has one level, but from a sound
unlike that of the training, such as a whistle, the loudness is read wrongly. Not in the paper.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib.audio import LEVEL, SAMPLE_RATE
from umtlib.errors import ConfigError
from umtlib.guide import Guide, Told
from umtlib.small import prediction
from umtlib.small.spectra import BINS, SPAN, log_periodogram

HIDDEN = 256  # channels between the latent and a spectrum
STRENGTH = 0.7  # of the way between the two spectra, in decibels
MOST = 20.0  # decibels, up or down, of the filter at any frequency; as much again of the level
COEFFICIENTS = 300  # of the filter's cepstrum, fading: detail of 107 Hz is halved, of 53 Hz lost
# Samples of a frame that is filtered. A frame's spectrum is measured when it ends, so the last
# samples of the window are taken for silence: of 800 the 112 that count least, of fewer too many.
SHORTEST = 3 * SPAN // 4
FADE = 200  # samples in which a frame's filter and gain become the next one's: 12.5 ms
LONG_RUN = 10.0  # seconds after which what was heard and made counts for 1 / e
AT_FIRST = 0.05  # seconds at the training audio's level that count as heard and made before
ALWAYS = 0.005  # and that are added to both, so that a pause does not decide how loud it goes on


@dataclass
class Memory:
    """Of a performance, all float64: what earlier frames do to later ones."""

    past: Tensor | None = None  # the output, before filtering, (B, (SPAN - pool) / 2)
    response: Tensor | None = None  # of the last frame's filter, (B, 1, SPAN)
    ringing: Tensor | None = None  # of earlier frames, (B, rows, pool)
    gain: Tensor | None = None  # decibels, of the last frame, (B, 1)
    energies: np.ndarray | None = None  # heard and made, fading, (2, B, 1)


class EnvelopeGuide(Guide):
    """Told by a spectrum for each latent frame; see the module.

    Raises
    ------
    ConfigError
        If a latent frame is longer than a spectrum's samples.
    """

    order = 128

    def __init__(self, latent: int, pool: int):
        super().__init__(latent, pool)
        if pool > SPAN:
            raise ConfigError(f"pool = {pool} must be at most {SPAN} for the guide 'envelope'")
        self.hidden, self.out = nn.Linear(latent, HIDDEN), nn.Linear(HIDDEN, BINS)
        ramp = (torch.arange(1, pool + 1).double() / min(FADE, pool)).clamp(max=1)
        self.register_buffer("ramp", ramp, persistent=False)  # how far a frame's values are its own

    def memory(self) -> Memory:
        """Return what earlier frames do to later ones."""
        return Memory()

    def spectra(self, latent: Tensor) -> Tensor:
        """Return log power spectra, (B, F, BINS), in float64 whatever the weights are kept in."""
        weights = {name: value.double() for name, value in self.state_dict().items()}
        hidden = F.linear(latent.mT.double(), weights["hidden.weight"], weights["hidden.bias"])
        return F.linear(F.elu(hidden), weights["out.weight"], weights["out.bias"])

    @torch.no_grad()
    def tell(self, latent, levels=None, memory=None, last=True) -> Told:
        """Tell of all these frames."""
        aim = spectra = self.spectra(latent)
        noise = prediction.WHITE_NOISE_IN_TRAINING if self.training else prediction.WHITE_NOISE
        if levels is not None:
            aim = torch.cat([spectra, levels[..., None].to(spectra)], dim=2)
        return Told(latent, prediction.fit(spectra, self.order, noise), aim)

    @torch.no_grad()
    def finish(self, waveform, told, memory=None, last=True):
        """Filter these frames, and change their level if that of the input is known."""
        memory = memory or Memory()
        if not waveform.numel():
            return waveform
        made, aim = waveform.double(), told.aim.to(waveform.device)
        if self.pool >= SHORTEST:
            made = self._filtered(made, aim[..., :BINS], memory)
        if aim.shape[2] > BINS:
            made = self._levelled(made, aim[..., BINS], memory)
        return made.to(waveform)

    def _filtered(self, waveform: Tensor, called: Tensor, memory: Memory) -> Tensor:
        """Convolve every frame with its response; its beginning fades from the last one's."""
        count, pool = called.shape[1], self.pool
        if memory.past is None:
            memory.past = waveform.new_zeros(len(waveform), (SPAN - pool) // 2)
            memory.ringing = waveform.new_zeros(len(waveform), math.ceil(SPAN / pool), pool)
        known = torch.cat([memory.past, waveform], dim=1)
        segments = known.unfold(1, memory.past.shape[1] + pool, pool)
        memory.past = known[:, waveform.shape[1] :]
        has = log_periodogram(F.pad(segments, (0, SPAN - segments.shape[2])))
        response = minimum_phase((_DECIBELS * STRENGTH * (called - has)).clamp(-MOST, MOST))
        before, memory.response = _before(memory.response, response)
        frames, ramp = waveform.unflatten(1, (-1, pool)), self.ramp.to(waveform)
        parts = (frames * ramp, response), (frames * (1 - ramp), before)
        both = (torch.fft.rfft(x, 2 * SPAN) * torch.fft.rfft(h, 2 * SPAN) for x, h in parts)
        rows = memory.ringing.shape[1] + 1  # that a frame sounds in, its own and later ones
        spread = F.pad(torch.fft.irfft(sum(both)), (0, rows * pool - 2 * SPAN))
        spread = spread.unflatten(2, (rows, pool))
        made = F.pad(memory.ringing, (0, 0, 0, count))
        for row in reversed(range(rows)):  # what is older is added first, in pieces as in the whole
            made[:, row : row + count] += spread[:, :, row]
        made, memory.ringing = made[:, :count], made[:, count:]
        return made.flatten(1)

    def _levelled(self, waveform: Tensor, heard: Tensor, memory: Memory) -> Tensor:
        """Let the gain follow the powers of all that was heard and made so far."""
        frames, seconds = waveform.unflatten(1, (-1, self.pool)), self.pool / SAMPLE_RATE
        powers = torch.stack([heard, frames.square().mean(dim=2)]).cpu().numpy()
        if memory.energies is None:
            memory.energies = np.full((*powers.shape[:2], 1), AT_FIRST * LEVEL**2)
        fading = [1, -math.exp(-seconds / LONG_RUN)]
        energies, memory.energies = scipy.signal.lfilter(
            [seconds], fading, powers, zi=memory.energies
        )
        heard, made = torch.from_numpy(energies).to(waveform) + ALWAYS * LEVEL**2
        gain = (10 * (heard / made).log10()).clamp(-MOST, MOST)
        before, memory.gain = _before(memory.gain, gain)
        decibels = torch.lerp(before[..., None], gain[..., None], self.ramp.to(waveform))
        return (frames * 10 ** (decibels / 20)).flatten(1)


_DECIBELS = 10 / math.log(10)  # of a natural logarithm of power


def _before(last: Tensor | None, these: Tensor) -> tuple[Tensor, Tensor]:
    """Return what was in the frame before each, in the first itself at first; and the last."""
    first = these[:, :1] if last is None else last
    return torch.cat([first, these[:, :-1]], dim=1), these[:, -1:]


def minimum_phase(gain: Tensor) -> Tensor:
    """Return the filters with given gains that delay least.

    Parameters
    ----------
    gain : Tensor
        Decibels, float64, shape (..., BINS). The finest detail is lost; see `COEFFICIENTS`.

    Returns
    -------
    Tensor
        Impulse responses, float64, shape (..., SPAN).
    """
    cepstrum = torch.fft.irfft(gain * math.log(10) / 20)[..., : COEFFICIENTS + 1]
    fade = (torch.arange(COEFFICIENTS + 1).to(gain) * math.pi / (COEFFICIENTS + 1)).cos()
    causal = cepstrum * (1 + fade)  # what belongs to negative time is added to positive
    causal[..., 0] /= 2
    return torch.fft.irfft(torch.fft.rfft(causal, 2 * SPAN).exp())[..., :SPAN]
