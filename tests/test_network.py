"""The network is the paper's: receptive field, causality, sizes, frame counts."""

from dataclasses import replace

import pytest
import torch

from umtlib import layers, mulaw
from umtlib.config import EncoderConfig, ModelConfig, from_values
from umtlib.decoder import Decoder
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError
from umtlib.runs import PRESETS, preset
from umtlib.translator import build


def codes(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))


def randomise(module, seed=0):
    """Give every parameter a size at which a wrong tap, gate or bias shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


# --- mu-law ---------------------------------------------------------------------------------------


def test_mulaw_is_a_bijection_on_codes_and_within_half_a_step_of_the_companded_scale():
    every = torch.arange(256)
    assert torch.equal(mulaw.encode(mulaw.decode(every)), every)
    signal = torch.tensor([-1.0, 0.0, 1.0, -7.0, 7.0])
    assert mulaw.encode(signal).tolist() == [0, mulaw.SILENCE, 255, 0, 255]
    signal = torch.linspace(-1, 1, 10_001)
    error = (mulaw.decode(mulaw.encode(signal)) - signal).abs()
    # One step is 2/255 on the companded scale; expanding stretches it by ln(256)(1/255 + |x|).
    bound = (2 / 255) / 2 * torch.log(torch.tensor(256.0)) * (1 / 255 + signal.abs()) * 1.03
    assert (error <= bound + 1e-7).all()


# --- receptive field and causality ----------------------------------------------------------------


def build_decoder(name, **sizes):
    config = preset(name).model
    settings = replace(config.decoder, **sizes)
    decoder = randomise(Decoder(settings, config.encoder.latent, config.encoder.pool))
    for parameter in decoder.guide.parameters():  # spectra are logarithms: they would be infinite
        parameter.data.mul_(0.1)
    return decoder


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_receptive_field_by_gradient(name):
    decoder = build_decoder(name, channels=8, skip_channels=8).double()
    with torch.no_grad():  # small weights, so that no gate saturates along thousands of samples
        for parameter in decoder.parameters():
            parameter.mul_(0.3)
    field, pool = decoder.receptive_field, decoder.guide.pool
    assert name != "paper" or (field, 20 * pool) == (4_093, 16_000)
    frames = field // pool + 2
    signal = torch.zeros(1, frames * pool, dtype=torch.double, requires_grad=True)
    latent = torch.zeros(1, decoder.guide.channels, frames, dtype=torch.double)
    time = frames * pool - 1
    logits = decoder.body(decoder.input.from_signal(signal), latent)
    (gradient,) = torch.autograd.grad(logits[0, time].square().sum(), signal)
    reached = gradient[0].nonzero()[:, 0]
    # The oldest and the newest input of sample t; the newest is t - 1: never t itself.
    assert (reached.min().item(), reached.max().item()) == (time - field, time - 1)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_decoder_never_sees_the_present_or_the_future(name):
    decoder = build_decoder(name)
    length = 2 * decoder.guide.pool
    latent, before, moment = torch.randn(1, decoder.guide.latent, 2), codes(1, length), length // 2
    after = torch.cat([before[:, :moment], 255 - before[:, moment:]], dim=1)
    first, second = decoder(before, latent), decoder(after, latent)
    assert torch.equal(first[:, :, : moment + 1], second[:, :, : moment + 1])
    assert not torch.allclose(first[:, :, moment + 1], second[:, :, moment + 1])


def test_latent_frame_moves_only_its_own_samples_and_those_after():
    decoder = build_decoder("tiny")
    latent = torch.randn(1, 8, 4)
    changed = latent.clone()
    changed[:, :, 2] += 1
    start = 2 * decoder.guide.pool
    first, second = (decoder(codes(1, 4 * decoder.guide.pool), z) for z in (latent, changed))
    assert torch.equal(first[..., :start], second[..., :start])
    assert not torch.allclose(first[..., start], second[..., start])


@pytest.mark.parametrize("front_end", ["waveform", "filterbank"])
def test_encoder_reaches_as_far_as_it_says_both_ways(front_end):
    config = EncoderConfig(
        front_end, blocks=1, layers=3, channels=16, latent=4, pool=200, filter_taps=256, filters=8
    )
    encoder = randomise(Encoder(config))
    audio = codes(1, 200 * 21)
    outside, near = 255 - audio, slice(2_000 - encoder.reach, 2_200 + encoder.reach)
    outside[:, near] = audio[:, near]
    assert torch.allclose(encoder(audio)[..., 10], encoder(outside)[..., 10], atol=1e-6)
    for edge in (2_000 - 3, 2_200 + 3):  # and it does look both ways
        inside = audio.clone()
        inside[:, edge] = 255 - audio[:, edge]
        assert not torch.equal(encoder(audio)[..., 10], encoder(inside)[..., 10])


def test_filters_have_unit_gain_at_their_centre_and_reject_others():
    bank = layers.constant_q_bank(3, 2_048, 200.0, 3_200.0)  # 200, 800, 3,200 Hz
    tone = torch.sin(2 * torch.pi * 800 * torch.arange(16_000) / 16_000)[None]
    levels = 4 * (layers.log_energies(tone, bank, 400)[0, :, 20] - 2)  # back to log energy
    assert levels[1].item() == pytest.approx(0.0, abs=0.02)
    assert levels[0].item() < -11 and levels[2].item() < -11


# --- gates, taps and shapes against the plain formulas --------------------------------------------


def test_gated_layer_equals_the_formula():
    layer = build_decoder("tiny").layers[2]
    x, latent = torch.randn(1, 40, 16), torch.randn(1, 2, 8)
    out, skip = layer(x, latent)
    old, new = layer.taps.weight[:, :16], layer.taps.weight[:, 16:]
    for t in (0, 3, 4, 19, 20, 39):
        past = x[0, t - 4] if t >= 4 else torch.zeros(16)
        h = old @ past + new @ x[0, t] + layer.taps.bias
        h = h + layer.condition.weight @ latent[0, t // 20]
        z = torch.sigmoid(h[:16]) * torch.tanh(h[16:])
        both = layer.out.weight @ z + layer.out.bias
        torch.testing.assert_close(out[0, t], x[0, t] + both[:16], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(skip[0, t], both[16:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first_relu", [True, False])
def test_encoder_layer_equals_the_formula(first_relu):
    config = EncoderConfig(blocks=1, layers=1, channels=4, latent=3, pool=5, first_relu=first_relu)
    encoder = randomise(Encoder(config))
    x = torch.randn(1, 4, 10)
    layer = encoder.layers[0]
    h = x.relu() if first_relu else x
    expected = x[0, :, 5] + layer.out.bias
    w = layer.dilated.weight
    inner = layer.dilated.bias + sum(w[:, :, k] @ h[0, :, 4 + k] for k in range(3))
    expected = expected + layer.out.weight[:, :, 0] @ inner.relu()
    torch.testing.assert_close(layer(x)[0, :, 5], expected)


def test_code_input_is_a_causal_convolution_of_one_hot_codes():
    decoder = build_decoder("small")
    past = codes(1, 30)
    padded = torch.cat([torch.full((1, 2), mulaw.SILENCE), past], dim=1)
    older, newer = decoder.input.tables
    expected = older[padded[:, 0:30]] + newer[padded[:, 1:31]]
    torch.testing.assert_close(decoder.input(past), expected)


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_and_latent_frames(name):
    model = build(preset(name, ("one", "two")).model)
    pool, channels = model.config.encoder.pool, model.config.encoder.latent
    for length in (1, pool, pool + 1):
        latent = model.encode(codes(2, length))
        assert latent.shape == (2, channels, -(-length // pool))
        assert model.classifier(latent).shape == (2, 2)
    assert model.decoders["two"](codes(2, length), latent).shape == (2, 256, length)


@pytest.mark.parametrize(("name", "expected"), [
    # 30 layers of (128*128*3 + 128) + (128*128 + 128), first (3 + 1)*128, last 128*64 + 64.
    ("paper", {"encoder": 1_982_528, "decoder": 4_674_304, "classifier": 51_206}),
    ("official", {"encoder": 1_982_528, "decoder": 6_525_824, "classifier": 27_306}),
])  # fmt: skip
def test_parameter_counts(name, expected):
    assert build(preset(name).model).parameter_counts() == expected


def test_weights_depend_on_the_seed_alone():
    first, second, other = (build(preset("tiny").model, seed) for seed in (1, 1, 2))
    torch.randn(3)  # the global generator plays no part
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "message"), [
    ([], "JSON object"), ({"encoder": {"chanels": 3}}, "chanels"),
    ({"encoder": {"channels": "3"}}, "channels"), ({"encoder": {"channels": 0}}, "channels"),
    ({"encoder": {"channels": True}}, "channels"), ({"encoder": {"layers": 10**9}}, "layers"),
    ({"encoder": {"front_end": "mel"}}, "front_end"), ({"decoder": {"guide": "x" * 65}}, "guide"),
    ({"domains": []}, "domains"), ({"domains": "ab"}, "domains"), ({"domains": [1]}, "domains"),
    ({"domains": ["a", "a"]}, "domains"), ({"domains": ["../a"]}, "../a"),
    ({"domains": ["all"]}, "'all'"),
    ({"encoder": {"pool": 801, "front_end": "filterbank"}}, "multiple"),
])  # fmt: skip
def test_bad_config_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        from_values(ModelConfig, values)
    with pytest.raises(ConfigError, match="huge.*tiny"):
        preset("huge")
