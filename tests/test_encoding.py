"""The encoder's fast path against the encoder itself."""

from dataclasses import replace

import pytest
import torch
from test_generation import needs_compiler

import umtlib
from umtlib import config, generation
from umtlib.encoder import Encoder
from umtlib.errors import NativeError
from umtlib.generation.encoding import encode
from umtlib.machine import native

SMALL = replace(
    config.preset("tiny").model.encoder, blocks=2, layers=4, channels=17, latent=5, pool=50
)
VARIANTS = {"relu": SMALL, "first ReLU left out": replace(SMALL, first_relu=not SMALL.first_relu)}
BOUNDS = {  # of the latent, in its spread: mean and worst
    torch.float32: (1e-6, 1e-5), torch.bfloat16: (0.01, 0.06), torch.int8: (0.02, 0.1),
}  # fmt: skip
pytestmark = needs_compiler


def make(settings, seed=0):
    """Weights larger than the usual start, so that what comes from afar counts."""
    torch.manual_seed(seed)
    encoder = Encoder(settings)
    for parameter in encoder.layers.parameters():
        parameter.data.mul_(2).add_(torch.randn_like(parameter) * 0.02)
    return encoder.requires_grad_(False)


def codes_of(samples, batch=1):
    return torch.randint(256, (batch, samples), generator=torch.Generator().manual_seed(1))


def assert_near(latent, truth, dtype):
    error, spread = (latent - truth).abs(), truth.std()
    mean, worst = BOUNDS[dtype]
    assert error.mean() < mean * spread and error.max() < worst * spread
    if dtype != torch.float32:
        assert error.max() > 1e-4 * spread  # it is another number format


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("samples", [1, 49, 50, 1_333])
def test_it_is_the_encoder(name, samples, dtype, monkeypatch):
    encoder, codes = make(VARIANTS[name]), codes_of(samples, batch=2)
    truth, latent = encoder(codes), encode(encoder, codes, dtype=dtype)
    assert latent.shape == truth.shape
    assert_near(latent, truth, dtype)
    for threads in "123":  # to the last bit, also a row alone
        monkeypatch.setenv("UMT_THREADS", threads)
        assert torch.equal(encode(encoder, codes[:1], dtype=dtype), latent[:1])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("preset", ["paper", "official", "tiny"])
def test_it_is_the_encoder_of_every_preset(preset, dtype):
    encoder, codes = make(config.preset(preset).model.encoder), codes_of(4_000)
    assert_near(encode(encoder, codes, dtype=dtype), encoder(codes), dtype)


@pytest.mark.parametrize("dtype", generation.DTYPES.values())
def test_a_filter_bank_is_left_to_the_encoder(dtype):
    encoder, codes = Encoder(umtlib.preset("small").model.encoder), codes_of(1_600)
    with torch.no_grad():
        assert torch.equal(encode(encoder, codes, dtype=dtype), encoder(codes))


def test_without_a_compiler_the_encoder_does_it(monkeypatch):
    def load(name):
        raise NativeError("no compiler")

    encoder, codes = make(SMALL), codes_of(100)
    monkeypatch.setattr(native, "load", load)
    assert torch.equal(encode(encoder, codes, dtype=torch.int8), encoder(codes))
