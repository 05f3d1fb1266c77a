"""A decoder's weights as plain matrices, the form in which every fast generator takes them.

Two things are settled here once. The first layer and its skip are linear in one-hot codes, so both
become one table, for either kind of input; where the decoder is given a linear prediction, its code
is looked up like one more previous sample. And what does not depend on the past (the biases before
the gates and in the head) joins the conditioning, which changes once per frame only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from umtlib.decoder import CodeInput, Decoder
from umtlib.mulaw import CODES, SILENCE


@dataclass(frozen=True)
class Weights:
    """float32, on the CPU, row-major (outputs, inputs). C: channels, S: skip channels."""

    table: Tensor  # (inputs, 257, C + S): row 0 before the first sample, row 1 + c for code c
    condition: Tensor  # (layers * 2C + S, latent), the head's rows last
    condition_bias: Tensor  # (layers * 2C + S)
    previous: Tensor  # (layers, 2C, C): the tap on x[t - d]; gates first, then values
    current: Tensor  # (layers, 2C, C): the tap on x[t]
    out: Tensor  # (layers, C + S, C): residual first, then skip
    residual_bias: Tensor  # (layers, C); the skips' biases are in the table
    head: Tensor  # (S, S)
    logits: Tensor  # (256, S)
    logits_bias: Tensor  # (256)


@torch.no_grad()
def gather(decoder: Decoder) -> Weights:
    """Copy the weights out of a decoder; later changes of the decoder do not reach the copy."""
    channels, layers = decoder.config.channels, decoder.layers
    taps = torch.stack([layer.taps.weight for layer in layers])
    out_bias = torch.stack([layer.out.bias for layer in layers]).double()
    skip_bias = decoder.input_skip.bias.double() + out_bias[:, channels:].sum(dim=0)
    conditions, head = [layer.condition.weight for layer in layers], decoder.head_condition
    nothing = conditions[0].new_zeros(len(skip_bias), conditions[0].shape[1])
    conditions.append(nothing if head is None else head.weight)
    made = {
        "table": _table(decoder, skip_bias),
        "condition": torch.cat(conditions),
        "condition_bias": torch.cat([layer.taps.bias for layer in layers] + [decoder.head.bias]),
        "previous": taps[:, :, :channels],
        "current": taps[:, :, channels:],
        "out": torch.stack([layer.out.weight for layer in layers]),
        "residual_bias": out_bias[:, :channels],
        "head": decoder.head.weight,
        "logits": decoder.logits.weight,
        "logits_bias": decoder.logits.bias,
    }
    return Weights(
        **{name: x.to("cpu", torch.float32, copy=True).contiguous() for name, x in made.items()}
    )


def _table(decoder: Decoder, skip_bias: Tensor) -> Tensor:
    """Every code through the first layer, and through its skip: (inputs, 257, C + S)."""
    first, skip = decoder.input, decoder.input_skip.weight.double()
    if isinstance(first, CodeInput):
        rows = _with_silence(first.tables)
    else:
        codes = torch.arange(CODES, device=skip.device).double()
        signal = torch.cat([codes.new_zeros(1), codes / (CODES - 1) - 0.5])
        rows = signal[:, None] * first.taps.weight.double().T[:, None]  # (kernel, 257, C)
        rows[0] += first.taps.bias.double()
    if decoder.guide.order:
        rows = torch.cat([rows, _with_silence(decoder.predicted.weight[None])])
    skips = rows @ skip.T
    skips[0] += skip_bias
    return torch.cat([rows, skips], dim=-1)


def _with_silence(tables: Tensor) -> Tensor:  # (n, 256, C) -> (n, 257, C)
    return torch.cat([tables[:, SILENCE, None], tables], dim=1).double()
