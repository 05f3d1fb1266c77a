"""The compiled passes of a training step against PyTorch's own, forwards and backwards."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from umtlib import config
from umtlib.decoder import Decoder
from umtlib.errors import NativeError, UmtError
from umtlib.machine import fused, native

CHANNELS, SKIP, LATENT, POOL, FRAMES, BATCH = 8, 12, 5, 20, 3, 2


@pytest.fixture(autouse=True)
def compiled():
    assert fused.available()  # where the tests run there is a compiler


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    settings = replace(
        config.preset("tiny").model.decoder, blocks=2, layers=5, channels=CHANNELS,
        skip_channels=SKIP,
    )  # fmt: skip
    return Decoder(settings, LATENT, POOL)


def step(decoder, x, latent, *, plain, monkeypatch):
    """Return the skip sums, and the gradients by the input, the latent and the layers' weights."""
    monkeypatch.setattr(fused, "available", lambda: not plain)
    skips = decoder._skips(x, latent.transpose(1, 2))
    torch.manual_seed(1)
    total = (skips * torch.randn(skips.shape)).sum()
    return skips, *torch.autograd.grad(total, [x, latent, *decoder.layers.parameters()])


def both(decoder, monkeypatch, dtype):
    """Return the step in compiled passes and in plain ones.

    Dilations 1 to 16 in 20 samples a frame reach within, across and beyond frames, in two rows.
    """
    x = torch.randn(BATCH, FRAMES * POOL, CHANNELS, requires_grad=True)
    latent = torch.randn(BATCH, LATENT, FRAMES, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return [
            step(decoder, x, latent, plain=plain, monkeypatch=monkeypatch)
            for plain in (False, True)
        ]


def test_a_step_is_that_of_the_plain_layers(decoder, monkeypatch):
    for ours, plain in zip(*both(decoder, monkeypatch, torch.float32), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)  # the rounding of sums


def test_in_bfloat16_it_is_as_near_to_the_truth_as_the_plain_layers(decoder, monkeypatch):
    torch.manual_seed(2)
    _, truth = both(decoder, monkeypatch, torch.float32)
    torch.manual_seed(2)
    for true, ours, plain in zip(truth, *both(decoder, monkeypatch, torch.bfloat16), strict=True):
        errors = [(found - true).norm().item() for found in (ours, plain)]
        assert errors[0] <= 1.5 * errors[1] + 1e-6  # rounded at other places, not more often


def test_threads_do_not_change_a_bit(monkeypatch):
    shape = fused._Shape(BATCH, FRAMES, POOL, CHANNELS, SKIP)
    h = torch.randn(BATCH * FRAMES * POOL, 2 * CHANNELS)
    condition, sums = torch.randn(BATCH, FRAMES, 2 * CHANNELS), []
    monkeypatch.setattr(fused, "GRAIN", 1)
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        gradient, total = h.clone(), torch.empty_like(condition)
        given = torch.ones(len(h), CHANNELS)
        fused._run("ungate", torch.float32, shape, gradient, condition, given, total)
        sums.append(torch.cat([gradient.flatten(), total.flatten()]))
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy(dtype):
    for target in (torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.zeros(3).long()):
        with pytest.raises(UmtError, match="target has"):
            fused.cross_entropy(torch.zeros(2, 4), target)
    torch.manual_seed(0)
    logits = (5 * torch.randn(50, 256)).to(dtype).requires_grad_()
    target = torch.randint(256, (50,))
    ours, theirs = fused.cross_entropy(logits, target), F.cross_entropy(logits.float(), target)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    gradients = [torch.autograd.grad(3 * loss, logits)[0] for loss in (ours, theirs)]
    # bfloat16: the gradient itself is rounded to it, and then the product with 3
    rtol = 0.02 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=rtol)


def test_nan_is_passed_on(decoder):
    x = torch.randn(1, POOL, CHANNELS)
    x[0, 7, 3] = float("nan")
    logits = decoder.body(x, torch.randn(1, LATENT, 1))
    assert logits[0, :7].isfinite().all()
    assert logits[0, 7].isnan().all()
    rows = torch.zeros(2, 4)
    rows[1, 0] = float("nan")
    assert fused.cross_entropy(rows, torch.tensor([1, 0])).isnan()


def test_without_a_compiler_training_is_plain_and_says_so(monkeypatch):
    def none(_name):
        raise NativeError("no C++ compiler")

    monkeypatch.setattr(native, "load", none)
    fused.available.cache_clear()
    with pytest.warns(RuntimeWarning, match="no C.. compiler. Training without it, slower"):
        assert not fused.fits(torch.zeros(1))
    fused.available.cache_clear()
