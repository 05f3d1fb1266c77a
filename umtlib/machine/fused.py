"""A decoder's layers in training, with one compiled pass between two matrix products.

The network is that of `umtlib.decoder`, to the rounding of sums; only the work is arranged anew.
In plain PyTorch more than half of a training step goes into reading and writing arrays between the
products: shifting, joining, casting, adding, sigmoid, tanh. Here each gap between two products is
one pass of ``fused.cpp``, forwards and backwards. The products themselves stay PyTorch's. Notebook:
``05_training_six_domains``.

Forwards, for each layer with dilation d, time before channels::

    a = [x[t - d], x[t]]    h = a W'    g = sigmoid(h1 + c1) tanh(h2 + c2)    o = g U'
    x += o1 + bias          skips += o2

Backwards, with D for a derivative and DS that of the skips, the same for every layer::

    Do = [Dx, DS]    DU = Do' g    Dg = Do U    Dh = (by the gate) Dg    Dc = frame sums of Dh
    DW = Dh' a       Da = Dh W     Dx[t] += Da2[t] + Da1[t + d]
"""

import ctypes
import warnings
from collections.abc import Sequence
from ctypes import Structure, c_int64
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from umtlib.errors import NativeError
from umtlib.machine import native

GRAIN = 2**17  # numbers of an array that are worth a thread of their own
_SUFFIX = {torch.float32: "float", torch.bfloat16: "half"}


@cache
def available() -> bool:
    """Tell whether the passes can be compiled here; if not, say once that training is slower."""
    try:
        native.load("machine/fused.cpp")
    except NativeError as error:
        warnings.warn(f"{error}. Training without it, slower.", RuntimeWarning, stacklevel=3)
        return False
    return True


def fits(x: Tensor) -> bool:
    """Tell whether these passes can take the place of PyTorch's for a training step on ``x``."""
    fast = x.device.type == "cpu" and x.dtype in _SUFFIX and _product() in _SUFFIX
    return fast and torch.is_grad_enabled() and available()


def stack(layers: Sequence[nn.Module], x: Tensor, skips: Tensor, condition: Tensor) -> Tensor:
    """Return the skip sums of `umtlib.decoder.GatedLayer`s, float32, (B, T, S).

    They start from `skips`; `x`, (B, T, C), enters the first; all are conditioned on (B, F, L), T
    a multiple of F. The products are taken in bfloat16 under autocast to it, else in float32.
    """
    biases, channels = [layer.out.bias for layer in layers], x.shape[2]
    skips = skips.float() + sum(bias[channels:] for bias in biases)
    conditions = torch.stack([layer.condition(condition) + layer.taps.bias for layer in layers])
    weights = [layer.taps.weight for layer in layers] + [layer.out.weight for layer in layers]
    weights += [bias[:channels] for bias in biases]
    dilations = [layer.dilation for layer in layers]
    return _Stack.apply(_product(), dilations, x.float(), skips, conditions.float(), *weights)


def _product() -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of logits (N, K) with int64 targets (N,)."""
    return _CrossEntropy.apply(logits, target)


class _Shape(Structure):  # `Shape` in fused.cpp
    _fields_ = [(name, c_int64) for name in ("batch", "frames", "pool", "channels", "skip")]


def _run(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a function of fused.cpp with contiguous arrays, numbers or None, as `stack` made them.

    ========  ============================================  of the product's type: *
    residual  *o, bias, x, skips, dilation, *h              o, bias, h may be None
    gate      *h, frames, *x
    ungate    *h, frames, *x, frames
    descend   *h, dilation, x, *skips, *o                   h, o may be None
    ========  ============================================
    """
    function = getattr(native.load("machine/fused.cpp"), f"umt_{name}_{_SUFFIX[dtype]}")
    function.restype = None
    largest = max(value.numel() for value in arguments if isinstance(value, Tensor))
    threads = min(torch.get_num_threads(), 1 + largest // GRAIN)
    function(*map(_to_c, arguments), threads)


def _to_c(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    return c_int64(value) if isinstance(value, int) else value and ctypes.byref(value)


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, product, dilations, x, skips, conditions, *weights):
        layers, (batch, samples, channels) = len(dilations), x.shape
        frames = conditions.shape[2]
        shape = _Shape(batch, frames, samples // frames, channels, skips.shape[2])
        taps, outs, biases = weights[:layers], weights[layers : 2 * layers], weights[2 * layers :]
        taps, outs = ([w.to(product) for w in group] for group in (taps, outs))
        x, skips, conditions = x.clone(), skips.clone(), conditions.contiguous()
        kept = []
        a = x.new_empty(batch * samples, 2 * channels, dtype=product)
        _run("residual", product, shape, None, None, x, skips, dilations[0], a)
        for i in range(layers):
            h = a @ taps[i].T
            g = torch.empty_like(h[:, :channels], memory_format=torch.contiguous_format)
            _run("gate", product, shape, h, conditions[i], g)
            kept += [a, h, g]
            o = g @ outs[i].T
            last = i + 1 == layers
            a = None if last else torch.empty_like(a)
            d = 0 if last else dilations[i + 1]
            _run("residual", product, shape, o, biases[i], x, skips, d, a)
        ctx.save_for_backward(conditions, *taps, *outs, *kept)
        ctx.shape, ctx.product, ctx.dilations = shape, product, dilations
        return skips

    @staticmethod
    @once_differentiable
    def backward(ctx, dskips):
        product, z, layers = ctx.product, ctx.shape, len(ctx.dilations)
        conditions, *saved = ctx.saved_tensors
        taps, outs, kept = saved[:layers], saved[layers : 2 * layers], saved[2 * layers :]
        batch, samples, _ = dskips.shape
        channels = ctx.shape.channels
        dx = dskips.new_zeros(batch, samples, channels)
        dskips = dskips.contiguous()
        from_skips = dskips.to(product)
        dconditions = torch.empty_like(conditions)
        do = dskips.new_empty(batch * samples, outs[0].shape[0], dtype=product)
        _run("descend", product, z, None, 0, dx, from_skips, do)
        dtaps, douts, dbiases = ([None] * layers for _ in range(3))
        for i in reversed(range(layers)):
            a, h, g = kept[3 * i : 3 * i + 3]
            dbiases[i] = dx.sum(dim=(0, 1))
            douts[i] = (do.T @ g).float()
            dh = h.clone()
            _run("ungate", product, z, dh, conditions[i], do @ outs[i], dconditions[i])
            dtaps[i] = (dh.T @ a).float()
            da = dh @ taps[i]
            out = do if i else None
            _run("descend", product, z, da, ctx.dilations[i], dx, from_skips, out)
        return None, None, dx, dskips, dconditions, *dtaps, *douts, *dbiases


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        gradient = logits.detach().clone(memory_format=torch.contiguous_format)
        rows, classes = logits.shape
        target = native.array("target", target, torch.int64, (rows,), 0, classes - 1)
        loss = torch.empty(rows)
        _run("cross_entropy", logits.dtype, gradient, target, loss, rows, classes)
        ctx.save_for_backward(gradient)
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        (gradient,) = ctx.saved_tensors
        return gradient * scale.to(gradient.dtype), None
