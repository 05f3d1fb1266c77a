"""One performance for all: exact, in stretches, live and many at once, whatever the guide."""

from dataclasses import replace

import pytest
import torch
from test_generation_long import noise, rng

from umtlib import config, translator
from umtlib.generation import chunks, translation
from umtlib.generation.chunks import perform_long
from umtlib.generation.hearing import Heard, encode_blocks
from umtlib.generation.perform import perform
from umtlib.guide import GUIDES, Guide, Told

POOL = 800


class Late(Guide):
    """Tells a frame late, finishes 100 samples late and louder, and notes levels."""

    told, aims = 0, []

    def memory(self):
        return {"latent": None, "waveform": None, "levels": None}

    def tell(self, latent, levels=None, memory=None, last=True):
        told, memory["latent"] = self._kept(memory["latent"], latent, 1, last)
        aim, memory["levels"] = self._kept(memory["levels"], levels, 1, last)
        Late.told += told.shape[2]
        return Told(told, None, aim[..., None])

    def finish(self, waveform, told, memory=None, last=True):
        assert waveform.shape[1] == told.condition.shape[2] * self.hop
        Late.aims.append(told.aim[0, :, 0])
        made, memory["waveform"] = self._kept(memory["waveform"], waveform, 100, last)
        return 3 * made

    def _kept(self, before, new, late, last):
        known = new if before is None else torch.cat([before, new], dim=-1)
        end = known.shape[-1] - (0 if last else min(late, known.shape[-1]))
        return known[..., :end], known[..., end:]


GUIDES["late"] = "test_perform:Late"


@pytest.fixture(scope="module", params=["latent", "late", "frames"])
def model(request):
    tiny = config.preset("tiny", ("a", "b")).model
    decoder = replace(tiny.decoder, guide=request.param, layers=3)
    encoder = replace(tiny.encoder, pool=POOL)
    made = translator.build(replace(tiny, encoder=encoder, decoder=decoder), seed=1)
    for buffer in made.decoders.buffers():  # how sharp a frame model's attacks are
        buffer.fill_(0.4)
    return made.eval().requires_grad_(False)


def joined(pieces, name):
    return torch.cat([piece for domain, piece in pieces if domain == name], dim=1)


def test_pieces_are_the_whole_and_as_long_as_the_input(model):
    waveform = noise(12 * POOL - 345)
    whole = translation.hear(model, [waveform.numpy()], len(waveform))
    options = {"states": [translation.seeded(3), translation.seeded(3)]}
    once = list(perform(model, ["a", "b"], [whole], **options))
    for frames in (1, 5):
        pieces = encode_blocks(model, waveform.split(777), frames)
        made = joined(perform(model, ["b"], pieces, states=[translation.seeded(3)]), "b")
        assert made.shape == (1, len(waveform)) and made.abs().max() <= 1
        assert (made - joined(once, "b")).abs().max() < 1e-4


def test_nothing_that_a_guide_has_decided_waits(model):
    """A piece leaves as soon as the guide lets it; nothing, as soon as nothing has come."""
    assert list(perform(model, ["a"], [])) == []
    heard, late = [], max(model.decoders["a"].guide.late, POOL + 100)

    def pieces():
        for piece in encode_blocks(model, noise(20 * POOL).split(POOL), 1):
            heard.append(piece.samples)
            yield piece

    made = 0
    for _, piece in perform(model, ["a"], pieces()):
        made += piece.shape[1]
        assert sum(heard) - made <= late + POOL


def test_rows_are_each_as_alone(model):
    found = [translation.hear(model, [noise(4_000, n).numpy()], 4_000) for n in range(3)]
    latent, levels = (torch.cat([getattr(one, n) for one in found]) for n in ("latent", "levels"))
    rows = perform(model, ["a"], [Heard(latent, 4_000, levels)], states=[translation.seeded(3, 3)])
    rows = joined(rows, "a")
    for row, one in zip(rows, found, strict=True):
        alone = joined(perform(model, ["a"], [one], states=[translation.seeded(3)]), "a")[0]
        assert (row - alone).abs().max() < 1e-4


def test_one_stretch_is_exact_and_several_are_as_long(model, monkeypatch):
    monkeypatch.setattr(chunks, "STREAMS", 2)
    waveform = noise(40 * POOL - 5).numpy()
    heard = translation.hear(model, [waveform], len(waveform))
    exact = joined(perform(model, ["a"], heard.split(POOL), generator=rng(4)), "a")
    one = joined(perform_long(model, "a", heard, generator=rng(4)), "a")
    assert (one - exact).abs().max() < 1e-4
    made = joined(perform_long(model, "a", heard, seconds=0.3, threads=1, generator=rng(4)), "a")
    assert made.shape == exact.shape and made.abs().max() <= 1
    first = chunks.plan(model.decoders["a"], heard.levels[0], 0.3)[1] * POOL
    margin = 2_000  # that the end of the first stretch still changes, by its filter
    assert (made - exact)[:, : first - margin].abs().max() < 1e-4
    assert (made - exact)[:, first:].abs().max() > 1e-4


@pytest.mark.parametrize("model", ["late"], indirect=True)
def test_a_guide_is_told_of_each_frame_once_and_finishes_it_with_what_it_said(model, monkeypatch):
    monkeypatch.setattr("umtlib.generation.hearing.PIECE", 4 * POOL)
    monkeypatch.setattr(chunks, "STREAMS", 2)
    heard = Heard(torch.zeros(1, 8, 200), 200 * POOL, torch.rand(1, 200, generator=rng()))
    long = perform_long(model, "a", heard, seconds=0.5, threads=1, generator=rng())
    for way in (perform(model, ["a"], heard.split(POOL)), long):
        Late.told, Late.aims = 0, []
        seen, kept = [], []
        for _ in way:
            seen.append(Late.told)
            told = way.gi_frame.f_locals["told"]
            kept.append(told.condition.shape[2] if way is long else 0)
        assert Late.told == 200 and seen[0] < 40 and len(seen) > 15
        assert max(kept) < 50  # what is done is forgotten
        assert torch.equal(torch.cat(Late.aims), heard.levels[0])
