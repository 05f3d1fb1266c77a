"""Linear prediction of the next sample, by the spectrum that the latent calls for.

A held tone is a sum of partials, and each sample of it nearly a fixed linear combination of the
samples before. A decoder that has to learn this from nothing spends most of its training on it, and
then heeds its own past more than the latent. Here both are given: a small network, one per domain,
reads from the latent of a frame the log power spectrum that this domain's audio would have; the
spectrum is turned into the linear predictor that goes with it (its autocorrelation, then the normal
equations); and the prediction is one more input of the decoder, as a code. What is left to learn is
how the next sample differs from it.

The idea is LPCNet's (Valin and Skoglund 2019, "LPCNet: Improving neural speech synthesis through
linear prediction"), which has the spectrum as input where we read it from the latent. Not in the
paper; preset ``small``. Notebook: ``02_the_network``.

All sums are in float64: a prediction becomes a code, and two implementations that differ by
rounding must arrive at the same one.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import mulaw

SPAN = 1_024  # samples that a spectrum is taken of: 64 ms
BINS = SPAN // 2 + 1
POWER_FLOOR = 1e-7  # of a spectrum: about that of silence in mu-law
# Relative power that is added before a fit: it bounds the predictor, and dampens it. A decoder that
# hears its own output again needs more of it than one that is shown the truth, or some tones grow
# until they are clipped.
WHITE_NOISE, WHITE_NOISE_IN_TRAINING = 3e-3, 1e-4
HIDDEN = 256  # channels between the latent and a spectrum


@cache
def amplitudes() -> Tensor:
    """Return the amplitude of every code: float64, shape (256,)."""
    return mulaw.decode(torch.arange(mulaw.CODES, dtype=torch.float64))


@cache
def thresholds() -> Tensor:
    """Return the amplitudes between neighbouring codes: float64, ascending, shape (255,).

    The code of a prediction is the number of thresholds below it.
    """
    return mulaw.decode(torch.arange(1, mulaw.CODES, dtype=torch.float64) - 0.5)


def log_spectrum(codes: Tensor, pool: int) -> Tensor:
    """Return the log power spectrum of every latent frame of some audio.

    Parameters
    ----------
    codes : Tensor
        mu-law codes, integers, shape (B, T), T a multiple of the pool.
    pool : int
        Samples per latent frame, at most SPAN. The Hann window is centred on the frame.

    Returns
    -------
    Tensor
        float32, natural logarithm, shape (B, T / pool, BINS).
    """
    around = SPAN - pool
    padded = F.pad(mulaw.decode(codes), (around // 2, around - around // 2))
    return log_periodogram(padded.unfold(1, SPAN, pool))


def log_periodogram(segments: Tensor) -> Tensor:
    """Return the log power spectra, (..., BINS), of segments of a waveform, (..., SPAN)."""
    window = torch.hann_window(SPAN, dtype=segments.dtype, device=segments.device)
    spectrum = torch.fft.rfft(segments * window)
    return (spectrum.abs().square() / window.square().sum() + POWER_FLOOR).log()


class Envelope(nn.Module):
    """What a domain sounds like, frame by frame: latent to log power spectrum.

    Parameters
    ----------
    latent : int
        Channels of the latent.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.hidden, self.out = nn.Linear(latent, HIDDEN), nn.Linear(HIDDEN, BINS)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the log power spectra, (B, F, BINS), of a latent, (B, L, F)."""
        return self.out(F.elu(self.hidden(latent.transpose(1, 2))))

    def exactly(self, latent: Tensor) -> Tensor:
        """Return the same in float64, whatever the weights are kept in."""
        weights = {name: value.double() for name, value in self.named_parameters()}
        return torch.func.functional_call(self, weights, latent.double())


def fit(log_power: Tensor, order: int, white_noise: float = WHITE_NOISE) -> Tensor:
    """Return the linear predictor of a signal with a given spectrum.

    Parameters
    ----------
    log_power : Tensor
        float64, as from `log_spectrum`, shape (..., BINS).
    order : int
        How many samples the predictor sees, at most BINS - 1.
    white_noise : float
        Relative power that is added.

    Returns
    -------
    Tensor
        float64, shape (..., order), oldest first: the prediction is the sum of its products with
        the last ``order`` amplitudes. Fed with its own output, it dies away.
    """
    correlation = torch.fft.irfft(log_power.exp())[..., : order + 1]
    wanted, row = correlation[..., 1:], correlation[..., :-1].clone()
    row[..., 0] *= 1 + white_noise
    diagonals = torch.cat([row.flip(-1), row[..., 1:]], dim=-1)  # of a symmetric Toeplitz matrix
    factor = torch.linalg.cholesky(diagonals.unfold(-1, order, 1).flip(-2))
    return torch.cholesky_solve(wanted[..., None], factor)[..., 0].flip(-1)


def to_code(prediction: Tensor) -> Tensor:
    """Return the nearest code of a predicted amplitude, int64."""
    return torch.bucketize(prediction, thresholds().to(prediction.device))


@torch.no_grad()
def predict(codes: Tensor, predictors: Tensor) -> Tensor:
    """Predict every sample from those before it.

    Parameters
    ----------
    codes : Tensor
        mu-law codes, integers, shape (B, T). Before them is an amplitude of 0.
    predictors : Tensor
        One for each latent frame, float64, shape (B, F, order), T a multiple of F.

    Returns
    -------
    Tensor
        int64 codes, shape (B, T); the one at t depends on the ``order`` samples before t.
    """
    order, pool = predictors.shape[2], codes.shape[1] // predictors.shape[1]
    known = F.pad(amplitudes().to(codes.device)[codes], (order, -1))
    frames = known.unfold(1, order + pool - 1, pool)  # (B, F, order + pool - 1)
    predicted = frames.unfold(2, order, 1) @ predictors[..., None]  # (B, F, pool, 1)
    return to_code(predicted.flatten(1))
