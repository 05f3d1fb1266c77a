"""A decoder's layers in training, with one compiled pass between two matrix products.

The network is that of `umtlib.decoder`, to the rounding of sums; only the work is arranged anew.
In plain PyTorch more than half of a training step goes into reading and writing arrays between the
products: shifting, joining, casting, adding, sigmoid, tanh. Here each gap between two products is
one pass of ``fused.cpp``, forwards and backwards. The products themselves stay PyTorch's. Notebook:
``03_training``.

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
from torch import Tensor
from torch.autograd.function import once_differentiable

from umtlib import native
from umtlib.errors import NativeError, TrainingError

GRAIN = 2**17  # numbers of an array that are worth a thread of their own
_SUFFIX = {torch.float32: "float", torch.bfloat16: "half"}


@cache
def available() -> bool:
    """Tell whether the passes can be compiled here.

    Warns
    -----
    RuntimeWarning
        Once, if they cannot: training is then plain PyTorch, and slower.
    """
    try:
        native.load("fused.cpp")
    except NativeError as error:
        warnings.warn(f"{error}. Training without it, slower.", RuntimeWarning, stacklevel=3)
        return False
    return True


def fits(x: Tensor) -> bool:
    """Tell whether these passes can take the place of PyTorch's for a training step on ``x``."""
    fast = x.device.type == "cpu" and x.dtype in _SUFFIX and torch.is_grad_enabled()
    return fast and available()


def stack(
    x: Tensor,
    skips: Tensor,
    conditions: Tensor,
    dilations: Sequence[int],
    taps: Sequence[Tensor],
    outs: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """Return the skip sums of a stack of gated layers.

    Parameters
    ----------
    x : Tensor
        What enters the first layer, float32, shape (B, T, C).
    skips : Tensor
        What the sums start from, the biases of all skips included, float32, shape (B, T, S).
    conditions : Tensor
        What is added before the gates, float32, shape (layers, B, F, 2C), T a multiple of F.
    dilations : sequence of int
        Per layer.
    taps, outs : sequence of Tensor
        Per layer, shapes (2C, 2C) and (C + S, C).
    biases : sequence of Tensor
        Per layer, of the residual, shape (C,).

    Returns
    -------
    Tensor
        float32, shape (B, T, S). The products are taken in bfloat16 under autocast to it, else
        in float32.
    """
    product = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    return _Stack.apply(product, dilations, x, skips, conditions, *taps, *outs, *biases)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of logits (N, K) with int64 targets (N,)."""
    return _CrossEntropy.apply(logits, target)


class _Shape(Structure):  # `Shape` in fused.cpp
    _fields_ = [(name, c_int64) for name in ("batch", "frames", "pool", "channels", "skip")]

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers in an array, by what it holds: see `_ARRAYS`."""
        B, F, P, C, S = self.batch, self.frames, self.pool, self.channels, self.skip
        rows = B * F * P
        widths = {"x": C, "h": 2 * C, "skips": S, "o": C + S}
        return {key: rows * width for key, width in widths.items()} | {
            "bias": C,
            "frames": 2 * B * F * C,
        }


# What each function of fused.cpp takes after the shape: arrays by what they hold, those of the
# product's type with a star; "dilation" is a number, and what ends with "?" may be None.
_ARRAYS = {
    "residual": ("*o?", "bias?", "x", "skips", "dilation", "*h?"),
    "gate": ("*h", "frames", "*x"),
    "ungate": ("*h", "frames", "*x", "frames"),
    "descend": ("*h?", "dilation", "x", "*skips", "*o?"),
}


def _call(name: str, dtype: torch.dtype, shape: _Shape, *given: Any) -> None:
    taken = [
        _taken(f"{name}: {kind}", kind, value, dtype, shape.sizes)
        for kind, value in zip(_ARRAYS[name], given, strict=True)
    ]
    _run(name, dtype, ctypes.byref(shape), *taken)


def _taken(name: str, kind: str, value: Any, dtype: torch.dtype, sizes: dict[str, int]) -> Any:
    if kind == "dilation":
        return native.number(name, value, 0, 2**24)
    if value is None and kind.endswith("?"):
        return None
    kind_of = dtype if kind.startswith("*") else torch.float32
    made = native.array(name, value, kind_of, getattr(value, "shape", ()), written=True)
    if made.numel() != (wanted := sizes[kind.strip("*?")]):
        raise TrainingError(f"{name} has shape {tuple(made.shape)}; wanted {wanted} numbers")
    return made


def _run(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a function with what `native.array` and `native.number` have let through."""
    function = getattr(native.load("fused.cpp"), f"umt_{name}_{_SUFFIX[dtype]}")
    function.restype = None
    largest = max(value.numel() for value in arguments if isinstance(value, Tensor))
    threads = min(torch.get_num_threads(), 1 + largest // GRAIN)
    function(*map(_to_c, arguments), threads)


def _to_c(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return c_int64(value) if isinstance(value, int) else value


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
        _call("residual", product, shape, None, None, x, skips, dilations[0], a)
        for i in range(layers):
            h = a @ taps[i].T
            g = torch.empty_like(h[:, :channels], memory_format=torch.contiguous_format)
            _call("gate", product, shape, h, conditions[i], g)
            kept += [a, h, g]
            o = g @ outs[i].T
            last = i + 1 == layers
            a = None if last else torch.empty_like(a)
            d = 0 if last else dilations[i + 1]
            _call("residual", product, shape, o, biases[i], x, skips, d, a)
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
        _call("descend", product, z, None, 0, dx, from_skips, do)
        dtaps, douts, dbiases = ([None] * layers for _ in range(3))
        for i in reversed(range(layers)):
            a, h, g = kept[3 * i : 3 * i + 3]
            dbiases[i] = dx.sum(dim=(0, 1))
            douts[i] = (do.T @ g).float()
            dh = h.clone()
            _call("ungate", product, z, dh, conditions[i], do @ outs[i], dconditions[i])
            dtaps[i] = (dh.T @ a).float()
            da = dh @ taps[i]
            out = do if i else None
            _call("descend", product, z, da, ctx.dilations[i], dx, from_skips, out)
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
