"""Linear prediction of the next sample, by the spectrum that the frame model paints.

A held tone is a sum of partials, and each sample of it nearly a fixed linear combination of the
samples before. A decoder that has to learn this from nothing spends most of its training on it, and
then heeds its own past more than the latent. Here both are given: each fine frame's spectrum is
turned into the linear predictor that goes with it, and the prediction is one more input of the
decoder, as a code. What is left to learn is how the next sample differs from it.

The idea is LPCNet's (Valin and Skoglund 2019, "LPCNet: Improving neural speech synthesis through
linear prediction"), which has the spectrum as input where we read it from the latent. Not in the
paper; preset ``small``.
"""

import torch
from torch import Tensor

# Relative power that is added before a fit: it bounds the predictor, and dampens it. A decoder that
# hears its own output again needs more of it than one that is shown the truth, or some tones grow
# until they are clipped.
WHITE_NOISE, WHITE_NOISE_IN_TRAINING = 3e-3, 1e-4


@torch.no_grad()
def fit(log_power: Tensor, order: int, white_noise: float = WHITE_NOISE) -> Tensor:
    """Return the linear predictor of a signal with a given spectrum (Levinson-Durbin recursion).

    The power's logarithm is natural, (..., BINS). The predictor, float64, (..., order), is oldest
    first: the prediction is the sum of its products with the last ``order`` amplitudes. Fed with
    its own output, it dies away.
    """
    shape = log_power.shape[:-1]
    if not log_power.numel():  # an FFT wants some
        return log_power.new_zeros(*shape, order, dtype=torch.float64)
    r = torch.fft.irfft(log_power.double().exp().flatten(0, -2))[:, : order + 1].T.contiguous()
    r[0] *= 1 + white_noise
    taps, error = torch.zeros_like(r[1:]), r[0].clone()  # tap i: of the sample i + 1 steps ago
    for n in range(order):
        reflection = (r[n + 1] - (taps[:n] * r[1 : n + 1].flip(0)).sum(dim=0)) / error
        taps[:n] -= reflection * taps[:n].flip(0)
        taps[n] = reflection
        error *= 1 - reflection.square()
    return taps.flip(0).T.reshape(*shape, order)
