"""The encoder's fast path: the paper's front end and layers by `encoder.cpp`, on the CPU."""

import ctypes
from ctypes import Structure, c_int32, c_int64, c_void_p

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib.encoder import Encoder
from umtlib.errors import GenerationError, NativeError
from umtlib.generation import thread_count
from umtlib.generation.cpu import FORMATS
from umtlib.machine import native
from umtlib.mulaw import SILENCE

ARRAYS = ("front", "front_bias", "taps", "taps_bias", "out", "out_bias", "dilations")


class _Stack(Structure):  # `Stack` in encoder.cpp
    _fields_ = [(name, c_void_p) for name in ARRAYS] + [
        (name, c_int32) for name in ("layers", "channels", "first_relu")
    ]


@torch.inference_mode()
def encode(encoder: Encoder, codes: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Encode audio: what the encoder itself makes of it, up to rounding, and sooner.

    Codes, integers in 0..255, (B, T), become a latent, (B, latent, F). The products are in float32,
    bfloat16 or int8, see `umtlib.generation.cpu.run`. An encoder with a filter bank costs thirty
    times less and computes in float32 always; and so does one on a GPU, or where there is no
    compiler. Raises GenerationError if the codes are no such thing, or there is not enough memory.
    """
    kept = encoder.project.weight.device
    codes = native.array("codes", codes, torch.uint8, (None, None), 0, 255, kept)
    config, pool = encoder.config, encoder.config.pool
    if not codes.numel():
        return torch.zeros(len(codes), config.latent, 0, device=kept)
    library = _library(encoder)
    if library is None:
        return encoder(codes.long())
    codes = F.pad(codes, (0, -codes.shape[1] % pool), value=SILENCE)
    arrays = _arrays(encoder)
    stack = _Stack(
        *(array.data_ptr() for array in arrays),
        *(len(encoder.layers), config.channels, config.first_relu),
    )
    means = torch.zeros(len(codes), codes.shape[1] // pool, config.channels)
    threads = thread_count()
    for row, mean in zip(codes, means, strict=True):
        arguments = (row.data_ptr(), len(row), pool, threads, FORMATS[dtype], mean.data_ptr())
        if library.umt_encode(stack, *arguments):
            raise GenerationError("not enough memory to encode")
    # The average and the projection may change places, as both are linear. In double precision,
    # so that what is rounded last does not depend on how many rows there are.
    weight, bias = encoder.project.weight[..., 0].double(), encoder.project.bias.double()
    return F.linear(means.double(), weight, bias).float().transpose(1, 2)


def _library(encoder: Encoder) -> ctypes.CDLL | None:
    """The compiled encoder, if it is for this one and can be had."""
    weight, waveform = encoder.project.weight, encoder.config.front_end == "waveform"
    if not (waveform and weight.device.type == "cpu" and weight.dtype == torch.float32):
        return None
    try:
        library = native.load("generation/encoder.cpp")
    except NativeError:
        return None
    types = (c_void_p, c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int, c_void_p)
    library.umt_encode.argtypes = [ctypes.POINTER(_Stack), *types]
    return library


def _arrays(encoder: Encoder) -> list[Tensor]:
    """The weights in the order of `ARRAYS`."""
    layers, front = list(encoder.layers), encoder.front_end.conv
    dilations = [layer.dilated.dilation[0] for layer in layers]
    made = (
        front.weight[:, 0].T,  # (C, 1, 3) -> (3, C)
        front.bias,
        torch.stack([layer.dilated.weight.permute(2, 0, 1) for layer in layers]),  # (L, 3, C, C)
        torch.stack([layer.dilated.bias for layer in layers]),
        torch.stack([layer.out.weight[..., 0] for layer in layers]),
        torch.stack([layer.out.bias for layer in layers]),
        torch.tensor(dilations, dtype=torch.int32),
    )
    return [array.contiguous() for array in made]
