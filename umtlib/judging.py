"""The envelope before a judge: a spectrum read from another domain's latent shall look like music.

Least squares makes an envelope (`umtlib.prediction.Envelope`) read the mean of all spectra that may
go with a latent. From its own domain's latent that is a spectrum; from a foreign one, which leaves
more open, it is a blur: soft onsets, little contrast, like nothing that the instrument ever played.
So a judge learns to tell the domain's music from what its envelope reads from foreign latents, and
the envelope learns to pass. What it reads from its own latents stays bound by least squares.

The idea is that of adversarial voice conversion without parallel data (Kameoka et al. 2018,
"StarGAN-VC"). Not in the paper; `umtlib.pretraining.refit` uses it where it is asked to.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from umtlib import mulaw, prediction

STEPS, WARMUP = 2_000, 50  # the last third cools down
ROWS = 24  # segments of each kind in a batch
WEIGHT = 0.12  # of the judge's verdict, beside the squared error
PENALTY = 1.0  # of the judge's steepness around real music (R1; Mescheder et al. 2018)
BANDS, CHANNELS = 40, 96
RATE, JUDGE_RATE, BETAS, DECAY = 5e-4, 1e-3, (0.5, 0.99), 1e-2  # of AdamW
NOISE = 0.1  # amplitude of the white noise that `periodograms` is taken of
_CORNER = 400.0  # Hz; below it bands are about equally wide, above it as wide as they are high
_SPREAD = 2.5  # of band energies, about: what the judge sees has a variance of one
_ROUGH, _FEW = 100, 50  # segments of roughness to draw from; segments that give the mean energies


def bands(log_power: Tensor) -> Tensor:
    """Return the log energies in bands as wide as the ear's, (B, BANDS, F), of (B, F, BINS)."""
    frequency = torch.linspace(0, 8_000, prediction.BINS)
    scale = (1 + frequency / _CORNER).log2()
    centre = torch.linspace(float(scale[2]), float(scale[-1]), BANDS)
    shape = (1 - (scale - centre[:, None]).abs() / (centre[1] - centre[0])).clamp(min=0)
    shape = (shape / shape.sum(dim=1, keepdim=True)).to(log_power.device)
    power = log_power.clamp(-17, 6).exp() @ shape.T  # from silence to clipping: none overflows
    return (power + prediction.POWER_FLOOR).log().transpose(1, 2)


def periodograms(frames: int, pool: int, order: torch.Generator) -> Tensor:
    """Return log power spectra of white noise of power 1, shape (frames, BINS).

    A measured spectrum is as rough as this where an envelope is smooth. With the roughness added,
    the judge has to look for other differences.
    """
    noise = NOISE * torch.randn(1, frames * pool, generator=order)
    return prediction.log_spectrum(mulaw.encode(noise), pool)[0] - 2 * np.log(NOISE)


class Judge(nn.Module):
    """Band energies to a verdict on every frame: more is more like the domain's music.

    Parameters
    ----------
    mean : Tensor
        Of the band energies of its music, shape (1, BANDS, 1).
    """

    def __init__(self, mean: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        stack: list[nn.Module] = []
        for width, dilation in ((BANDS, 1), (CHANNELS, 2), (CHANNELS, 4)):
            stack += [
                nn.Conv1d(width, CHANNELS, 3, dilation=dilation, padding=dilation),
                nn.LeakyReLU(0.2),
            ]
        self.convs = nn.Sequential(*stack, nn.Conv1d(CHANNELS, 1, 1))

    def forward(self, energies: Tensor) -> Tensor:
        """Return the verdicts, (B, F), on band energies, (B, BANDS, F)."""
        return self.convs((energies - self.mean) / _SPREAD)[:, 0]


def sharpen(
    envelope: prediction.Envelope,
    spectra: Tensor,
    latents: Sequence[Tensor],
    foreign: Sequence[Tensor],
    pool: int,
    seed: int,
) -> None:
    """Train a domain's envelope on what it reads from other domains' latents.

    Parameters
    ----------
    envelope : Envelope
        Changed in place.
    spectra : Tensor
        Log power spectra of the domain's segments, shape (N, F, BINS).
    latents : sequence of Tensor
        Latents of the same segments, shape (N, latent, F): as they are, and as heard after a
        conversion.
    foreign : sequence of Tensor
        Latents of each other domain's segments, shape (M, latent, F).
    pool : int
        Samples per latent frame.
    seed : int
        The same seed and segments give the same weights.
    """
    rng, order = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    frames, device = spectra.shape[1], spectra.device
    rough = periodograms(_ROUGH * frames, pool, order).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(bands(spectra[:_FEW]).mean(dim=(0, 2), keepdim=True)).to(device)
    reader = torch.optim.AdamW(envelope.parameters(), RATE, BETAS, weight_decay=DECAY)
    teacher = torch.optim.Adam(judge.parameters(), JUDGE_RATE, BETAS)
    for step in tqdm(range(STEPS), "before a judge", leave=False, disable=None):
        pace = min(1.0, (step + 1) / WARMUP, 3 * (1 - step / STEPS))
        reader.param_groups[0]["lr"], teacher.param_groups[0]["lr"] = pace * RATE, pace * JUDGE_RATE
        rows = rng.integers(len(spectra), size=ROWS)
        error = sum(F.mse_loss(envelope(z[rows]), spectra[rows]) for z in latents) / len(latents)
        some = rough.unfold(0, frames, 1)[rng.integers((_ROUGH - 1) * frames, size=ROWS)].transpose(
            1, 2
        )
        false = bands(envelope(_draw(foreign, rng)) + some)
        _teach(judge, teacher, bands(spectra[rows]), false.detach())
        reader.zero_grad()
        (error - WEIGHT * judge(false).mean()).backward()
        reader.step()


def _draw(foreign: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
    """Return latents of random domains, shape (ROWS, latent, F)."""
    drawn = (foreign[rng.integers(len(foreign))] for _ in range(ROWS))
    return torch.stack([some[rng.integers(len(some))] for some in drawn])


def _teach(judge: Judge, adam: torch.optim.Adam, real: Tensor, false: Tensor) -> None:
    """Do a step of the judge: hinge loss, and a penalty on its slope around real music."""
    real.requires_grad_(True)
    right, wrong = judge(real), judge(false)
    slope = torch.autograd.grad(right.mean(dim=1).sum(), real, create_graph=True)[0]
    steepness = slope.square().sum(dim=(1, 2)).mean()
    adam.zero_grad()
    (F.relu(1 - right).mean() + F.relu(1 + wrong).mean() + PENALTY * steepness).backward()
    adam.step()
