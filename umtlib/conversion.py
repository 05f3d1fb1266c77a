"""One domain's audio, filtered to sound more like another's: a rough translation without a WaveNet.

Each domain's envelope (`umtlib.prediction.Envelope`) reads from a latent the spectrum that this
domain would have. The ratio of two of them is a filter from the one to the other. It can only weigh
partials that are there, and it adds no attack and no breath; but an encoder that hears such audio,
and a decoder that must restore the original from it, are prepared for music that was not played by
the domain's own instruments, which in training nobody ever plays to them. This is
back-translation (Sennrich et al. 2016, "Improving neural machine translation models with
monolingual data"). Not in the paper; preset ``small``. Notebook: ``03_training``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.prediction import SPAN
from umtlib.translator import MusicTranslator

HOP = 200  # samples between the filter's windows
LARGEST = 3.5  # of a filter's gain, natural logarithm of the amplitude: 30 dB


@torch.no_grad()
def convert(model: MusicTranslator, codes: Tensor, source: str, target: str) -> Tensor:
    """Filter a domain's audio to another domain's spectrum.

    Parameters
    ----------
    model : MusicTranslator
        Its decoders are given a prediction, and their envelopes are trained.
    codes : Tensor
        mu-law codes, integers, shape (B, T), T at least 1,024.
    source, target : str
        From which domain to which.

    Returns
    -------
    Tensor
        int64 codes, shape (B, T).
    """
    latent = model.encode(codes)
    before, after = (model.decoders[name].envelope(latent) for name in (source, target))
    gain = ((after - before).float() / 2).clamp(-LARGEST, LARGEST).transpose(1, 2)  # (B, BINS, F)
    window = torch.hann_window(SPAN, device=codes.device)
    spectrum = torch.stft(mulaw.decode(codes), SPAN, HOP, window=window, return_complex=True)
    gain = F.interpolate(gain, spectrum.shape[2], mode="linear").exp()
    length = codes.shape[1]
    return mulaw.encode(
        torch.istft(spectrum * gain, SPAN, HOP, window=window, length=length).clamp(-1, 1)
    )
