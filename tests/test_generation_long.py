"""Long inputs in stretches, and live ones as they arrive."""

import math
from dataclasses import replace

import pytest
import torch

from umtlib import config, translator
from umtlib.errors import ConfigError
from umtlib.generation import chunks, generate
from umtlib.generation.stream import _Line, encode_frames, latency, stream

POOL = 200


@pytest.fixture(scope="module", params=["waveform", "filterbank"])
def model(request):
    preset = config.preset("tiny", ("a", "b")).model
    encoder = preset.encoder
    if request.param == "filterbank":
        encoder = replace(encoder, front_end="filterbank", layers=3, filters=8, filter_taps=128)
    return translator.build(replace(preset, encoder=encoder)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def decoder():
    preset = config.preset("tiny", ("a",)).model
    return translator.build(preset, seed=3).decoders["a"].eval().requires_grad_(False)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(samples, seed=0):
    return torch.rand(samples, generator=rng(seed)) - 0.5


# ---------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("block", [64, 977, 10**6])
def test_streaming_is_translating_the_whole(model, block, temperature):
    audio = noise(5_123)
    options = {"temperature": temperature}
    made = torch.cat(
        list(stream(model, audio.split(block), "b", generator=rng(7), hop=3, **options))
    )
    latent = model.encode(model.to_codes(audio)[None])
    whole = model.to_waveform(
        generate(model.decoders["b"], latent, generator=rng(7), **options)[0, : len(audio)]
    )
    assert made.shape == audio.shape
    # The encoder's sums may round differently in a window, so a code may move at the edge of its
    # step, and from there on another sampling follows: rare enough not to happen here.
    torch.testing.assert_close(made, whole, atol=0, rtol=0)


def test_a_window_encodes_like_the_whole(model):
    codes = model.to_codes(noise(7_000))
    whole = model.encode(codes[None])[0]
    for first, last in ((0, 3), (5, 6), (20, 35)):
        part = encode_frames(model.encoder, codes, first, last)
        torch.testing.assert_close(part, whole[:, first:last], atol=1e-5, rtol=0)


def test_audio_leaves_as_soon_as_the_latency_says(model):
    hop, heard = 2, []
    wait = round(latency(model.encoder, hop) * 16_000)

    def blocks():
        for _ in range(wait + 3 * hop * POOL):
            heard.append(None)
            yield torch.zeros(1)

    made = stream(model, blocks(), "a", hop=hop, generator=rng())
    for step in range(3):
        assert len(next(made)) == hop * POOL
        assert len(heard) == wait + step * hop * POOL


def test_a_live_line_forgets(model):
    line = _Line(model.encoder)
    for _ in range(50):
        line.put(torch.zeros(4 * POOL, dtype=torch.uint8))
        while line.ready() >= 4:
            line.take(4)
    assert len(line.codes) <= 2 * model.encoder.reach + 10 * POOL


def test_silence_from_no_blocks_and_no_such_domain(model):
    assert list(stream(model, [], "a")) == []
    with pytest.raises(ConfigError, match="unknown domain 'c'"):
        next(stream(model, [torch.zeros(10)], "c"))


# ---------------------------------------------------------------------------------- stretches


def test_cuts_are_made_where_it_is_quiet():
    levels = torch.ones(100)
    levels[[22, 37, 63]] = torch.tensor([0.1, 0.0, 0.2])
    # Even places are 20, 40, 60, 80; a cut moves by at most 3 frames.
    assert chunks.quiet_cuts(levels, 20) == [0, 22, 37, 63, 77, 100]
    assert chunks.quiet_cuts(torch.ones(29), 20) == [0, 29]
    assert chunks.frame_levels(torch.ones(5), 4).tolist() == [1.0, 0.25]


def test_one_stretch_is_exact(decoder):
    latent = torch.randn(8, 30, generator=rng())
    made = list(chunks.generate_long(decoder, latent, torch.ones(30), generator=rng(4)))
    padded = torch.cat([latent, latent[:, -1:]], dim=1)
    codes = generate(decoder, padded[None], generator=rng(4))[0, : 30 * POOL]
    assert len(made) == 1
    assert torch.equal(made[0], chunks.mulaw.decode(codes))


def test_stretches_do_not_depend_on_how_many_are_made_at_a_time(decoder):
    latent, heard = torch.randn(8, 400, generator=rng()), []
    made = [
        torch.cat(
            list(
                chunks.generate_long(
                    decoder, latent, torch.ones(400), seconds=0.5, streams=streams,
                    generator=rng(4), progress=heard.append,
                )
            )
        )
        for streams in (1, 3, 100)
    ]  # fmt: skip
    assert len(made[0]) == 400 * POOL and heard[-1] == 400 * POOL
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def spectra(audio, at, size=256):
    """Magnitudes before and after some places, (places, bins) each."""
    window = torch.hann_window(size)
    cut = [torch.stack([audio[i + o : i + o + size] for i in at]) for o in (-size, 0)]
    return [torch.fft.rfft(part * window).abs() for part in cut]


def test_seams_sound_like_the_rest(decoder):
    """Level and spectral flux at the seams against exact generation away from them."""
    latent = torch.randn(8, 1, generator=rng()).expand(8, 1_600)
    made = torch.cat(
        list(chunks.generate_long(decoder, latent, torch.ones(1_600), seconds=0.25,
                                  generator=rng(4)))
    )  # fmt: skip
    exact = chunks.mulaw.decode(generate(decoder, latent[None], generator=rng(5))[0])
    cuts = torch.tensor(chunks.quiet_cuts(torch.ones(1_600), 20)[1:-1]) * POOL
    fade = min(chunks.FADE, POOL)
    seams = torch.stack([made[cut : cut + fade] for cut in cuts])
    level = 10 * math.log10(seams.square().mean() / exact.square().mean())
    assert abs(level) < 0.5  # dB; a fade of constant amplitude would lose 1.8 in the mean
    flux = [
        (after - before).abs().mean()
        for before, after in (spectra(made, cuts + fade // 2), spectra(exact, cuts + fade // 2))
    ]
    assert flux[0] / flux[1] == pytest.approx(1, abs=0.1)
