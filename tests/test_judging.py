"""The envelope before a judge."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector as weights

from umtlib import judging, prediction
from umtlib.prediction import BINS, Envelope

POOL, FRAMES, SEGMENTS, LATENT = 800, 12, 40, 4


def played(seed):
    """Latents of segments that get louder and softer, and their periodograms."""
    order = torch.Generator().manual_seed(seed)
    level = 2 * torch.randn(SEGMENTS, FRAMES, generator=order).sign()
    rough = judging.periodograms(SEGMENTS * FRAMES, POOL, order).view(SEGMENTS, FRAMES, BINS)
    latent = torch.zeros(SEGMENTS, LATENT, FRAMES)
    latent[:, 0] = level / 2
    return latent, level[..., None] + rough - 2


@pytest.fixture
def world():
    """A domain; its latents as if after a conversion, and those of another domain: these two have
    a mark each, of which its envelope reads too much."""
    torch.manual_seed(0)
    envelope, (latent, spectra), (foreign, _) = Envelope(LATENT), played(1), played(2)
    with torch.no_grad():
        envelope.hidden.weight[:, 1:3] = 0.0  # the marks
        envelope.out.weight.zero_()
        envelope.out.bias.copy_(spectra.mean(dim=(0, 1)))
    adam = torch.optim.Adam(envelope.parameters(), 3e-3)
    for step in range(100):
        some = slice(step % 4, None, 4)
        loss = (envelope(latent[some]) - spectra[some]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        envelope.hidden.weight[0] = torch.tensor([0.0, 10.0, 0.0, 0.0])
        envelope.hidden.bias[0], envelope.out.weight[:, 0] = 0.0, 0.2
        envelope.hidden.weight[1] = torch.tensor([0.0, 0.0, 10.0, 0.0])
        envelope.hidden.bias[1], envelope.out.weight[:, 1] = 0.0, 0.1
    foreign[:, 1] = 1.0
    converted = latent.clone()
    converted[:, 2] = 1.0
    return envelope, spectra, [latent, converted], foreign


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(judging, "ROWS", 6)


def sharpen(envelope, spectra, latents, foreign, seed=0):
    judging.sharpen(envelope, spectra, latents, [foreign], POOL, seed)


def off(envelope, foreign, spectra):
    """How far the energies read from foreign latents are from the domain's, on average."""
    read, true = (judging.bands(some).mean(dim=(0, 2)) for some in (envelope(foreign), spectra))
    return (read - true).abs().mean().item()


def test_what_is_read_from_a_foreign_latent_becomes_like_the_domain(world, monkeypatch):
    """And what is read from its own, converted or not, stays or comes near the least squares."""
    monkeypatch.setattr(judging, "STEPS", 200)
    envelope, spectra, latents, foreign = world
    assert off(envelope, foreign, spectra) > 1.5
    sharpen(*world)
    assert off(envelope, foreign, spectra) < 0.5
    for latent in latents:
        error = (envelope(latent) - spectra).square().mean()
        assert error < math.pi**2 / 6 + 0.1  # the first is the roughness of a periodogram


def test_it_follows_from_the_seed(world, monkeypatch):
    monkeypatch.setattr(judging, "STEPS", 3)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(made))
        envelope = copy.deepcopy(world[0])
        sharpen(envelope, *world[1:], seed=seed)
        made.append(weights(envelope.parameters()))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.random.initial_seed() == 2  # the caller's random numbers are untouched


def test_foreign_latents_are_of_all_other_domains():
    marked = [torch.full((5, LATENT, FRAMES), float(mark)) for mark in (1, 2, 3)]
    rng = np.random.default_rng(0)
    drawn = torch.stack([judging._draw(marked, rng) for _ in range(10)])
    assert drawn.shape == (10, judging.ROWS, LATENT, FRAMES)
    assert set(drawn.unique().tolist()) == {1.0, 2.0, 3.0}


def test_bands_are_averages_of_power():
    flat = torch.full((2, FRAMES, BINS), 1.5)
    expected = math.log(math.exp(1.5) + prediction.POWER_FLOOR)
    torch.testing.assert_close(judging.bands(flat), torch.full((2, 40, FRAMES), expected))
    line = torch.full((1, 1, BINS), -12.0)
    line[..., 256] = 0.0  # 4 kHz
    # log2(1 + 4000 / 400) = 3.46 of 0.06 to 4.39, in 39 steps: between the bands 30 and 31.
    assert judging.bands(line).argmax().item() in (30, 31)


def test_periodograms_have_power_one_and_the_known_roughness():
    rough = judging.periodograms(400, POOL, torch.Generator().manual_seed(0))
    assert rough.exp().mean().item() == pytest.approx(1.0, abs=0.03)
    # The logarithm of an exponential variable has a variance of pi^2 / 6.
    assert rough[:, 1:-1].var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
