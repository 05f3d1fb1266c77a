"""As loud as the latent calls for: the last step from codes to a waveform.

What keeps a decoder from feeding on its own output, the white noise in its linear prediction
(`umtlib.prediction`), makes many tones too soft, and some still grow. But the spectrum that is read
from the latent also says how loud a frame shall be. So each frame of the output gets a gain, which
the decoder does not hear. Not in the paper; nothing is done where decoders have no prediction.
Notebook: ``02_the_network``.
"""

import torch
from torch import Tensor

from umtlib import prediction
from umtlib.generation.chunks import frame_levels
from umtlib.translator import MusicTranslator

MOST = 10.0  # decibels of gain, up or down
FADE = 200  # samples in which one frame's gain becomes the next one's: 12.5 ms
FLOOR = 1e-6  # of both powers: what is as soft as the noise of mu-law stays as it is


def levelled(model: MusicTranslator, domain: str, codes: Tensor, latent: Tensor) -> Tensor:
    """Turn the codes of a whole output, or of one that begins here, into a waveform."""
    return Loudness(model, domain)(codes, latent)


class Loudness:
    """Turns the codes of one output into a waveform, piece after piece.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    domain : str
        Whose decoder made the codes.
    """

    def __init__(self, model: MusicTranslator, domain: str):
        self.model, self.decoder = model, model.decoders[domain]
        self.gain: Tensor | None = None  # decibels, of the last frame; shape (1,)

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
            float32 in [-1, 1], shape (F * pool,).
        """
        waveform = self.model.to_waveform(codes)
        if not self.decoder.config.prediction or not len(codes):
            return waveform
        waveform, pool = waveform.double(), self.decoder.pool
        wanted = prediction.power(self.decoder.envelope.exactly(latent))[0].cpu()
        ratio = (wanted + FLOOR) / (frame_levels(waveform, pool) + FLOOR)
        gain = (10 * ratio.log10()).clamp(-MOST, MOST)
        before = torch.cat([gain[:1] if self.gain is None else self.gain, gain[:-1]])
        self.gain = gain[-1:]
        ramp = (torch.arange(1, pool + 1).double() / min(FADE, pool)).clamp(max=1)
        decibels = torch.lerp(before[:, None], gain[:, None], ramp)
        return (waveform * 10 ** (decibels.flatten() / 20)).clamp(-1, 1).float()
