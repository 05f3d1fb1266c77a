"""The last step from codes to a waveform: nearer to the spectrum that the latent calls for.

A decoder that hears its own output drifts: tones come out too soft, and between their partials
noise gathers. But the spectrum that is read from the latent (`umtlib.prediction`) says how a frame
shall sound. So each frame of the output is filtered by a part of the way, in decibels, from the
spectrum that it has to the one that is called for; the decoder does not hear it. Both err, and not
in the same places: what lies between them errs less than either.

From a sound unlike those of the training, a whistle's for one, it is also read wrongly how loud all
of it shall be. All training audio has one level, and `umtlib.translate` brings its input to it. So
in the long run the output is made as loud as the input.

Postfilters made decoded speech cleaner first (Chen and Gersho 1995, "Adaptive postfiltering for
quality enhancement of coded speech"). Not in the paper; nothing is done where decoders have no
prediction. Notebook: ``02_the_network``.
"""

import math

import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import prediction
from umtlib.audio import LEVEL, SAMPLE_RATE
from umtlib.decoder import Decoder
from umtlib.generation.chunks import frame_levels
from umtlib.prediction import SPAN
from umtlib.translator import MusicTranslator

STRENGTH = 0.7  # of the way between the two spectra, in decibels
MOST = 20.0  # decibels, up or down, of the filter at any frequency; as much again of the level
COEFFICIENTS = 300  # of the filter's cepstrum, fading: detail of 107 Hz is halved, of 53 Hz lost
SHORTEST = 3 * SPAN // 4  # samples of a frame that is filtered: see `Postfilter`
FADE = 200  # samples in which a frame's filter and gain become the next one's: 12.5 ms
LONG_RUN = 10.0  # seconds after which what was heard and made counts for 1 / e
AT_FIRST = 0.05  # seconds at the training audio's level that count as heard and made before
ALWAYS = 0.005  # and that are added to both, so that a pause does not decide how loud it goes on


def filtered(model: MusicTranslator, domain: str, codes: Tensor, latent: Tensor) -> Tensor:
    """Filter all of an output; it is still to be made as loud as the input. See `Postfilter`."""
    return Postfilter(model, domain)(codes, latent)


class Postfilter:
    """Turns the codes of one output into a waveform, piece after piece, without delay.

    What a frame sounds like is measured when it ends, so the last samples of the window are taken
    for silence. Of a frame of 800 samples these are the 112 that count least (0.3 dB of a
    pure tone). Of a shorter one they are too many (at 400 samples 2 dB): frames under `SHORTEST`
    stay as they are.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    domain : str
        Whose decoder made the codes.
    """

    def __init__(self, model: MusicTranslator, domain: str):
        self.model, self.decoder = model, model.decoders[domain]
        pool, kind = self.decoder.pool, torch.float64
        self.past = torch.zeros((SPAN - pool) // 2, dtype=kind)  # the output, before filtering
        self.response: Tensor | None = None  # of the last frame's filter, shape (1, SPAN)
        self.ringing = torch.zeros(math.ceil(SPAN / pool), pool, dtype=kind)  # of earlier frames
        self.ramp = _ramp(pool)

    @torch.no_grad()
    def __call__(self, codes: Tensor, latent: Tensor) -> Tensor:
        """Return the waveform of the next latent frames.

        Parameters
        ----------
        codes : Tensor
            mu-law codes, shape (F * pool,), on the CPU.
        latent : Tensor
            What they were generated from, shape (1, latent, F).

        Returns
        -------
        Tensor
            float32, shape (F * pool,). Peaks may exceed 1 until `Level` has limited them.
        """
        waveform = self.model.to_waveform(codes)
        able = self.decoder.config.prediction and self.decoder.pool >= SHORTEST
        if not able or not len(codes):
            return waveform
        waveform = waveform.double()
        called = self.decoder.envelope.exactly(latent)[0].cpu()
        gain = 10 / math.log(10) * STRENGTH * (called - self._made(waveform))
        response = minimum_phase(gain.clamp(-MOST, MOST))
        return self._filter(waveform, response).float()

    def _made(self, waveform: Tensor) -> Tensor:
        """Return the log power spectrum of each frame, (F, BINS), as if silence followed it."""
        known = torch.cat([self.past, waveform])
        frames = known.unfold(0, len(self.past) + self.decoder.pool, self.decoder.pool)
        self.past = known[len(waveform) :]
        return prediction.log_periodogram(F.pad(frames, (0, SPAN - frames.shape[1])))

    def _filter(self, waveform: Tensor, response: Tensor) -> Tensor:
        """Convolve every frame with its response; its beginning fades from the last one's."""
        frames, pool = waveform.unflatten(0, (-1, self.decoder.pool)), self.decoder.pool
        before, self.response = _before(self.response, response)
        spread = torch.fft.irfft(
            torch.fft.rfft(frames * self.ramp, 2 * SPAN) * torch.fft.rfft(response, 2 * SPAN)
            + torch.fft.rfft(frames * (1 - self.ramp), 2 * SPAN) * torch.fft.rfft(before, 2 * SPAN)
        )
        rows = len(self.ringing) + 1  # that a frame sounds in, its own and later ones
        spread = F.pad(spread, (0, rows * pool - 2 * SPAN)).unflatten(1, (rows, pool))
        made = F.pad(self.ringing, (0, 0, 0, len(frames)))
        for row in reversed(range(rows)):  # what is older is added first, in pieces as in the whole
            made[row : row + len(frames)] += spread[:, row]
        made, self.ringing = made[: len(frames)], made[len(frames) :]
        return made.flatten()


class Level:
    """Makes one output as loud as its input in the long run, piece after piece.

    The gain follows the powers of all that was heard and made so far, so an output that comes much
    too softly swells in its first second.

    Parameters
    ----------
    decoder : Decoder
        What made the output.
    """

    def __init__(self, decoder: Decoder):
        self.decoder, self.ramp = decoder, _ramp(decoder.pool)
        self.gain: Tensor | None = None  # decibels, of the last frame, shape (1,)
        self.energies = np.full((2, 1), AT_FIRST * LEVEL**2)  # heard and made, fading

    def __call__(self, waveform: Tensor, levels: Tensor | None) -> Tensor:
        """Return the waveform of the next latent frames, as loud as it shall be.

        Parameters
        ----------
        waveform : Tensor
            float32, shape (F * pool,), on the CPU.
        levels : Tensor or None
            Power of the input in these frames, shape (F,), on the CPU. If it is not known, or the
            decoder has no prediction, peaks are limited and nothing else is done.

        Returns
        -------
        Tensor
            float32 in [-1, 1], shape (F * pool,).
        """
        if levels is None or not self.decoder.config.prediction or not len(waveform):
            return waveform.clamp(-1, 1)
        waveform, seconds = waveform.double(), self.decoder.pool / SAMPLE_RATE
        powers = torch.stack([levels.double(), frame_levels(waveform, self.decoder.pool)])
        energies, self.energies = scipy.signal.lfilter(
            [seconds], [1, -math.exp(-seconds / LONG_RUN)], powers.numpy(), zi=self.energies
        )
        heard, made = torch.from_numpy(energies) + ALWAYS * LEVEL**2
        gain = (10 * (heard / made).log10()).clamp(-MOST, MOST)
        before, self.gain = _before(self.gain, gain)
        decibels = torch.lerp(before[:, None], gain[:, None], self.ramp)
        return (waveform * 10 ** (decibels.flatten() / 20)).clamp(-1, 1).float()


def _ramp(pool: int) -> Tensor:
    """Return how far, in each sample of a frame, one frame's filter or gain is this one's."""
    return (torch.arange(1, pool + 1).double() / min(FADE, pool)).clamp(max=1)


def _before(last: Tensor | None, these: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows before each of these, the first one's being itself at first, and the last."""
    return torch.cat([these[:1] if last is None else last, these[:-1]]), these[-1:]


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
    fade = (torch.arange(COEFFICIENTS + 1).double() * math.pi / (COEFFICIENTS + 1)).cos()
    causal = cepstrum * (1 + fade)  # what belongs to negative time is added to positive
    causal[..., 0] /= 2
    return torch.fft.irfft(torch.fft.rfft(causal, 2 * SPAN).exp())[..., :SPAN]
