"""Spectra 80 times a second: what a domain's frame model paints, and what an output is held to.

A latent frame of 50 ms is too long for an attack, so each is divided into `FINE` fine frames of
12.5 ms. Every fine frame has a log power spectrum, taken of the `SPAN` samples around it, and in
each of `BANDS` bands of the ear's width an *event* where a note begins. None of this is in the
paper; preset ``small``.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SPAN = 1_024  # samples that a spectrum is taken of: 64 ms
BINS = SPAN // 2 + 1
FINE = 4  # fine frames to a latent frame
POWER_FLOOR = 1e-7  # of a spectrum: about that of silence in mu-law
BANDS = 20  # in which events are told apart
RISE, REACH = 8.0, 2  # an event: so many dB from so many fine frames before it to as many after
APART = 4  # fine frames between two events of a band, at least
AUDIBLE = -70.0  # dB that a band must reach after an event
BANDS_TOLD = 24  # in which a decoder is told the levels
FOLLOWED = 4.0  # fine frames until the running mean of a course has mostly followed it: 50 ms


@cache
def _bands(number: int) -> Tensor:
    """Return bands as wide as the ear's (mel): weights of the bins, shape (BINS, number)."""
    mel = torch.linspace(0, 2_595 * torch.tensor(1 + 8_000 / 700).log10(), number + 2)
    edges = 700 * (10 ** (mel / 2_595) - 1)
    hertz = torch.linspace(0, 8_000, BINS)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def log_spectrum(waveform: Tensor, hop: int) -> Tensor:
    """Return the log power spectra, (B, T / hop, BINS), of a waveform in [-1, 1], (B, T).

    The logarithm is natural; each Hann window is centred on its frame of ``hop`` samples.
    """
    around = SPAN - hop
    padded = F.pad(waveform, (around // 2, around - around // 2))
    return _log_power(torch.fft.rfft(padded.unfold(1, SPAN, hop) * _window(padded)))


def _window(like: Tensor) -> Tensor:
    return torch.hann_window(SPAN, dtype=like.dtype, device=like.device)


def _log_power(spectrum: Tensor) -> Tensor:
    power = spectrum.abs().square()
    return (power / _window(power).square().sum() + POWER_FLOOR).log()


def band_levels(log_power: Tensor, number: int = BANDS) -> Tensor:
    """Return the levels in dB, (..., number), of bands of log power spectra, (..., BINS)."""
    power = log_power.exp() @ _bands(number).to(log_power)
    return 10 * (power + POWER_FLOOR).log10()


def events(log_power: Tensor) -> Tensor:
    """Find in spectra, (B, N, BINS), where notes begin: bool, (B, N, BANDS).

    A band's level rises by `RISE` dB, more than anywhere around.
    """
    levels = F.pad(band_levels(log_power).transpose(1, 2), (REACH, REACH), mode="replicate")
    before, after = levels[..., : -2 * REACH], levels[..., 2 * REACH :]
    rise = after - before
    peak = rise == F.max_pool1d(rise, 2 * APART + 1, 1, APART)
    return (peak & (rise > RISE) & (after > AUDIBLE)).transpose(1, 2)


def above_past(log_power: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return how far each moment is above the running mean of its past: a course's attacks, sharp.

    The course is (B, N > 0, BINS). The mean has a time constant of `FOLLOWED` fine frames; its last
    value, (B, 1, BINS), is returned too, and is ``past`` for the next.
    """
    kept = math.exp(-1 / FOLLOWED)
    past, before = log_power[:, :1] if past is None else past, []
    for now in log_power.split(1, dim=1):
        before.append(past)
        past = kept * past + (1 - kept) * now
    return log_power - torch.cat(before, dim=1), past


class Filter:
    """Filters a waveform towards given spectra, piece after piece, at most `SPAN` samples late.

    It goes a part of the way in decibels (``strength``), and at the most so many down and up.
    """

    def __init__(self, strength: float = 1.0, most: tuple[float, float] = (-60.0, 40.0)):
        self.strength, self.most = strength, most
        self.past: Tensor | None = None  # samples of frames that are not whole yet
        self.made: Tensor | None = None  # samples that later frames still add to
        self.spectra: Tensor | None = None  # of frames that are not whole yet
        self.early = 0  # samples to leave out: they stand for what was before the first

    def __call__(self, waveform: Tensor, spectra: Tensor, hop: int, last: bool = True) -> Tensor:
        """Return what is finished of the samples so far: of the last ones, all.

        The next are (B, T), and their spectra, on which the filter is centred, (B, T / hop, BINS).
        """
        if self.past is None and not spectra.shape[1]:
            return waveform  # nothing has come yet
        edge = math.ceil((SPAN - hop) / 2)
        more = math.ceil(edge / hop)  # frames on either side of the first and the last
        outside = edge + more * hop
        if self.past is None:
            waveform = F.pad(waveform, (outside, 0))
            spectra = torch.cat([spectra[:, :1].expand(-1, more, -1), spectra], dim=1)
            self.past, self.spectra = waveform[:, :0], spectra[:, :0]
            self.made = waveform.new_zeros(len(waveform), SPAN - hop)
            self.early = outside
        if last:
            known = spectra if spectra.shape[1] else self.spectra
            waveform = F.pad(waveform, (0, outside))
            spectra = torch.cat([spectra, known[:, -1:].expand(-1, more, -1)], dim=1)
        past = torch.cat([self.past, waveform], dim=1)
        spectra = torch.cat([self.spectra, spectra], dim=1)
        count = max(0, (past.shape[1] - SPAN) // hop + 1)
        self.past, self.spectra = past[:, count * hop :], spectra[:, count:]
        whole = past[:, : count * hop + SPAN - hop]
        out = F.pad(self.made, (0, count * hop))
        if count:
            out = out + self._filtered(whole, spectra[:, :count], hop)
        finished, self.made = out[:, : count * hop], out[:, count * hop :]
        if last:
            finished = finished[:, : finished.shape[1] + edge - more * hop]
        skipped = min(self.early, finished.shape[1])
        self.early -= skipped
        return finished[:, skipped:]

    def _filtered(self, waveform: Tensor, spectra: Tensor, hop: int) -> Tensor:
        """Filter overlapping frames, (B, (N - 1) * hop + SPAN), towards (B, N, BINS), and add."""
        window = _window(waveform)
        found = torch.fft.rfft(waveform.unfold(1, SPAN, hop) * window)
        further = spectra - _log_power(found)
        decibels = (10 / math.log(10) * self.strength * further).clamp(*self.most)
        frames = torch.fft.irfft(found * 10 ** (decibels / 20), SPAN) * window
        steady = F.pad(window.square(), (0, -SPAN % hop)).unflatten(0, (-1, hop)).sum(dim=0)
        frames = frames / steady.repeat(-(-SPAN // hop))[:SPAN]
        size = (1, waveform.shape[1])
        return F.fold(frames.transpose(1, 2), size, (1, SPAN), stride=(1, hop))[:, 0, 0]
