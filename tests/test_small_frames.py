"""Frame models: what they paint, when notes begin, and the filter that an output goes through."""

import math

import pytest
import torch

from umtlib.small.frames import APART, FrameModel, Memory, pick
from umtlib.small.spectra import BANDS, BINS, FINE, SPAN, Filter, above_past, events, log_spectrum

HOP, LATENT = 200, 6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    """Weights so large that events come and go."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FrameModel(LATENT)
    model.logits.weight.data.mul_(16)
    return model.requires_grad_(False)


@pytest.mark.parametrize("sizes", [[1] * 9, [2, 3, 4], [0, 9, 0], [8, 1]])
def test_pieces_are_painted_like_the_whole(model, sizes):
    """Also if the last piece is empty, as in a stream whose end nobody foresees."""
    latent, memory = random(2, LATENT, 9), Memory()
    parts = [model.paint(piece, memory, last=False) for piece in latent.split(sizes, dim=2)]
    done = sum(part.shape[1] for part in parts)
    assert done == 7 * FINE  # two latent frames late
    parts.append(model.paint(latent[:, :, :0], memory, last=True))
    whole = model(latent)
    assert whole.shape == (2, 9 * FINE, BINS)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    assert 0.01 < pick(model.listen(latent)[1].sigmoid(), Memory(), True).float().mean() < 0.2


def test_a_frame_is_painted_from_two_latent_frames_ahead_and_all_before(model):
    """Events are decisions, through which no gradient flows: so by changing a latent frame."""
    latent = random(1, LATENT, 12)
    whole, reached = model(latent)[0], []
    for frame in range(12):
        changed = latent.clone()
        changed[:, :, frame] += 3 * random(LATENT, seed=1)
        reached.append((model(changed)[0] - whole).abs().amax(dim=1).nonzero()[0].item() // FINE)
    assert all(frame - 2 <= first <= frame for frame, first in enumerate(reached))
    gradient_of = latent.clone().requires_grad_(True)
    model(gradient_of)[0, 5 * FINE].sum().backward()
    seen = gradient_of.grad[0].abs().sum(dim=0).nonzero()[:, 0]
    assert seen.min() == 0 and seen.max() == 6  # beside them, its right neighbour


def test_events_are_peaks_apart_from_one_another():
    chance = torch.zeros(1, 40, BANDS)
    chance[0, [3, 5, 20, 21, 33], 0] = torch.tensor([0.9, 0.8, 0.5, 0.6, 0.39])
    assert pick(chance, Memory(), True)[0, :, 0].nonzero()[:, 0].tolist() == [3, 21]
    chance, memory = torch.rand(2, 40, BANDS, generator=torch.Generator().manual_seed(0)), Memory()
    whole = pick(chance, Memory(), True)
    gaps = [row.nonzero()[:, 0].diff() for row in whole[0].T]
    assert min(gap.min() for gap in gaps) == APART
    parts = [pick(piece, memory, False) for piece in chance.split(7, dim=1)]
    assert torch.equal(torch.cat([*parts, pick(chance[:, :0], memory, True)], dim=1), whole)


def test_an_attack_is_an_event_where_it_is():
    waveform = 1e-4 * random(1, 60 * HOP)
    waveform[:, 30 * HOP :] += 0.1 * random(1, 30 * HOP, seed=1)
    found = events(log_spectrum(waveform, HOP))[0].nonzero()[:, 0]
    assert len(found) > BANDS / 2 and (found - 30).abs().max() <= 4


# --- the filter -----------------------------------------------------------------------------------


def in_pieces(sizes, strength, waveform, spectra):
    filters, start, parts = Filter(strength), 0, []
    for size in sizes:
        span = slice(start * HOP, (start + size) * HOP)
        parts.append(filters(waveform[:, span], spectra[:, start : start + size], HOP, last=False))
        start += size
        made = sum(part.shape[1] for part in parts)
        assert start * HOP - made <= SPAN
    parts.append(filters(waveform[:, :0], spectra[:, :0], HOP, last=True))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("frames, hop", [(1, HOP), (3, HOP), (40, 25)])
def test_the_filter_goes_as_far_as_its_strength(frames, hop):
    waveform, spectra = random(2, frames * hop), random(2, frames, BINS, seed=1)
    made = Filter(0.0)(waveform, spectra, hop)
    torch.testing.assert_close(made, waveform, atol=1e-5, rtol=0)
    tone = 0.05 * torch.sin(2 * torch.pi * 1_000 * torch.arange(60 * HOP) / 16_000)[None]
    made = Filter(1.0)(tone, log_spectrum(2 * tone, HOP), HOP)[:, 10 * HOP : -10 * HOP]
    assert (made.std() / tone.std()).item() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("sizes", [[1] * 40, [7, 0, 13, 20], [40]])
def test_pieces_are_filtered_like_the_whole(sizes):
    waveform, spectra = random(2, 40 * HOP), random(2, 40, BINS, seed=1)
    whole = Filter()(waveform, spectra, HOP)
    made = in_pieces(sizes, Filter().strength, waveform, spectra)
    assert whole.shape == waveform.shape
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)


def test_a_second_pass_sharpens_what_the_first_smeared():
    waveform = 0.1 * random(8, 80 * HOP)
    goal = 1e-3 * random(8, 80 * HOP, seed=1)
    goal[:, 40 * HOP :] *= 100
    wanted = log_spectrum(goal, HOP)
    once = Filter()(waveform, wanted, HOP)
    twice = Filter()(once, wanted, HOP)
    before = slice(38 * HOP, 39 * HOP)  # what leaks out before the attack
    assert twice[:, before].std() < 0.9 * once[:, before].std()


def test_a_rise_is_above_its_past_until_the_past_has_followed():
    course = torch.zeros(1, 80, 1)
    course[:, 20:] = 1.0
    above, past = above_past(course)
    assert above[0, :20].abs().max() == 0 and above[0, 20] == 1
    assert above[0, 24, 0].item() == pytest.approx(math.exp(-1), abs=1e-5)  # 50 ms later
    pieces, known = [], None
    for piece in course.split(7, dim=1):
        found, known = above_past(piece, known)
        pieces.append(found)
    torch.testing.assert_close(torch.cat(pieces, dim=1), above)
    torch.testing.assert_close(known, past)
