"""How a frame model learns to paint its domain, while the encoder stands still.

Domains follow one another, so that the audio of one is in memory.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.small.frames import FOLLOWING, FrameModel
from umtlib.small.hearing import converted, heard
from umtlib.small.spectra import BINS, above_past, band_levels, events, log_spectrum
from umtlib.small.state import AVERAGE, State

RATE, WARMUP = 2e-3, 50  # learning rate of frame models; steps in which any rate rises
ROWS = 24  # segments in a batch
TOGETHER = 10  # segments that are prepared at a time
FIRST, OWN, CONVERSIONS = 3, 2, 4  # versions of a segment: the first time; later, and converted
EVENT_WEIGHT, POSITIVE = 5.0, 3.0  # of the listener's error; in it, of where an event is
DROPPED, INVENTED, SHIFTED = 0.15, 0.003, 0.3  # what is done to true events that a player is told

HEARD = 60  # segments of a domain, and as many of others, that settle how sharp attacks are
EMPHASES = tuple(n / 20 for n in range(17))
SHARP = 1.0  # how sharp attacks of others' music are to be, in parts of the own music's
AUDIBLE = 50.0  # dB below a segment's loudest band that count

_FREQUENCY = torch.linspace(0, 8_000, BINS)
WEIGHTS = 1 / (1 + _FREQUENCY / 1_000)  # of a bin's error: about that of the ear
WEIGHTS = WEIGHTS / WEIGHTS.mean()


def step(state: State, stage: str, number: int, length: int) -> dict[str, float | str]:
    """Train one domain's frame model on a batch: step ``number`` of ``length`` in a stage.

    Returns ``spectra``, the weighted squared error of log power; ``events``, nats, of the listener;
    ``bad``, 1 if no step was made.
    """
    each = length // len(state.domains)
    place, number = divmod(number, each)
    name = state.domains[place]
    spectra, latents = state.once((stage, name), lambda: gather(state, name, stage == "again"))
    rng = state.rng(1, state.step)
    rows = torch.from_numpy(rng.integers(len(spectra), size=ROWS))
    version = torch.from_numpy(rng.integers(latents.shape[1], size=ROWS))
    latent, goal = latents[rows, version].float(), spectra[rows].float()
    error, missed = errors(state.frames(name), latent, goal, rng)
    rate = RATE * min(1.0, (number + 1) / WARMUP, 2 * (1 - number / each))
    loss = error.mean() + EVENT_WEIGHT * missed
    good = state.learn(loss, {f"{name}.frames": rate}, AVERAGE, number)
    report = {"domain": name, "samples": ROWS * state.segment, "bad": float(not good)}
    return report | {"spectra": error.mean().item(), "events": missed.item()}


@torch.no_grad()
def gather(state: State, name: str, again: bool) -> tuple[Tensor, Tensor]:
    """Return spectra, float16, (N, n, BINS), and latents of some versions, (N, V, L, F).

    They follow from the encoder and the other domains' frame models, which do not change while this
    domain's is trained.
    """
    rng = state.rng(2, int(again), state.model.domains.index(name))
    count = state.config.segments // (1 if again else 3)
    spectra, latents, encoder = [], [], state.average.encoder
    for first in range(0, count, TOGETHER):
        clean = state.draw(name, min(TOGETHER, count - first), state.segment, rng)
        spectra.append(log_spectrum(clean, state.hop).half())
        versions = [encoder(heard(clean, rng)) for _ in range(OWN if again else FIRST)]
        for _ in range(CONVERSIONS if again and len(state.model.domains) > 1 else 0):
            source = versions[int(rng.integers(OWN))]
            painters = state.others(name, len(clean), rng)
            rows = zip(painters, source.split(1), strict=True)
            painted = [state.frames(other, average=True)(one) for other, one in rows]
            codes = heard(converted(clean, torch.cat(painted), state.hop, rng), rng)
            versions.append(encoder(codes))
        latents.append(torch.stack(versions, dim=1).half())
    return torch.cat(spectra), torch.cat(latents)


@torch.no_grad()
def settle(state: State) -> None:
    """Let what each frame model paints of others' music have attacks as sharp as its own music's.

    What is less sure is painted with less contrast, and of others' music nothing is as sure as of
    the own. No piece is heard in two domains for this. Only means are matched: a simple case of
    "global variance" (Toda and Tokuda 2007).
    """
    for place, name in enumerate(state.domains):
        rng = state.rng(8, place)
        own = log_spectrum(state.draw(name, HEARD, state.segment, rng), state.hop)
        others = state.others(name, HEARD, rng)
        music = torch.cat([state.draw(other, 1, state.segment, rng) for other in others])
        latent = state.average.encoder(mulaw.encode(music))
        found = emphasis(own, state.frames(name, average=True)(latent))
        for model in (state.model, state.average):
            model.decoders[name].guide.emphasis.fill_(found)


def emphasis(own: Tensor, painted: Tensor) -> float:
    """Return the least of `EMPHASES` that makes attacks as sharp as wanted, or the greatest.

    Both are log power spectra, (B, N, BINS): of a domain's music, and what is painted of others'.
    """
    wanted, moves = SHARP * attack(own), above_past(painted)[0]
    sharp = (e for e in EMPHASES if attack(painted + e * moves) >= wanted)
    return next(sharp, EMPHASES[-1])


def attack(spectra: Tensor) -> float:
    """Return by how many dB the bands of log power spectra, (B, N, BINS), rise at onsets: a mean.

    An onset is where, in the mean over all bands, they rise most for 100 ms around, and by 1 dB.
    """
    levels = band_levels(spectra)
    levels = levels.clamp(min=levels.amax(dim=(1, 2), keepdim=True) - AUDIBLE)
    rise = (levels[:, 2:] - levels[:, :-2]).clamp(min=0).mean(dim=2)  # in 25 ms
    most = F.max_pool1d(rise[:, None], 9, 1, 4)[:, 0]
    onsets = rise[(rise == most) & (rise > 1)]
    return onsets.mean().item() if len(onsets) else 0.0


def errors(
    model: FrameModel, latent: Tensor, spectra: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a frame model's errors, with gradients.

    The latent is (B, L, F), what is to be painted (B, F * FINE, BINS), the error of the spectra
    (B,), that of the events a number. The player is told the true events, but not reliably: in use
    it is told the listener's.
    """
    true = events(spectra)
    edged = torch.cat([latent[:, :, :1], latent, latent[:, :, -1:]], dim=2)
    mixed, logits, _ = model.listen(edged)
    wide = F.max_pool1d(true.float().transpose(1, 2), 3, 1, 1).transpose(1, 2)
    missed = F.binary_cross_entropy_with_logits(logits, wide, pos_weight=torch.tensor(POSITIVE))
    painted, _ = model.play(mixed, F.pad(unreliable(true, rng), (0, 0, 0, FOLLOWING)))
    return ((painted - spectra).square() * WEIGHTS).mean(dim=(1, 2)), missed


def unreliable(true: Tensor, rng: np.random.Generator) -> Tensor:
    """Drop some events, (B, N, BANDS), invent others, and shift all by a fine frame at times."""
    told = true & torch.from_numpy(rng.random(true.shape) > DROPPED)
    told |= torch.from_numpy(rng.random(true.shape) < INVENTED)
    return told.roll(int(rng.choice([-1, 1])), 1) if rng.random() < SHIFTED else told
