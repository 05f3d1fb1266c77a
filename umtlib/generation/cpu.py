"""The compiled generator: hands weights, latents and uniforms to `kernel.cpp`.

Memory per stream: one ring of ``dilation`` activations per layer, so about ``receptive field *
channels`` numbers: 2.1 MB for the paper's decoder in float32, half in bfloat16, a quarter in int8.
"""

import ctypes
import weakref
from ctypes import POINTER, Structure, c_float, c_int32, c_size_t, c_void_p
from dataclasses import fields

import torch
from torch import Tensor

from umtlib import mulaw
from umtlib.decoder import Decoder
from umtlib.errors import GenerationError
from umtlib.generation.sampling import State
from umtlib.generation.weights import Weights, gather
from umtlib.guide import Told
from umtlib.machine import native

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # by the kernel's numbers


class _Source(Structure):  # `Source` in kernel.cpp
    _fields_ = (
        [(item.name, c_void_p) for item in fields(Weights)]
        + [(name, c_void_p) for name in ("dilations", "amplitudes", "thresholds")]
        + [(name, c_int32) for name in ("kernel", "order", "layers", "channels", "skip", "latent")]
    )


class _Call(Structure):  # `Call` in kernel.cpp
    _fields_ = (
        [(name, c_void_p) for name in ("states", "latent", "predictors", "uniforms")]
        + [(name, c_void_p) for name in ("forced", "codes", "logits")]
        + [(name, c_int32) for name in ("streams", "frames", "pool", "threads")]
        + [("temperature", c_float)]
    )


def library() -> ctypes.CDLL:
    """Return the compiled kernel; see `umtlib.machine.native.load`."""
    return declared(native.load("generation/kernel.cpp"))


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Return a compiled kernel with the types of its functions set."""
    library.umt_pack.argtypes = [POINTER(_Source), ctypes.c_int]
    library.umt_pack.restype = c_void_p
    library.umt_free.argtypes = library.umt_state_words.argtypes = [c_void_p]
    library.umt_free.restype = None
    library.umt_state_words.restype = c_size_t
    library.umt_generate.argtypes = [c_void_p, POINTER(_Call)]
    return library


class Memory:
    """A decoder's weights, cut to the kernel's panels, and what the next sample depends on.

    Freed with the object. Raises GenerationError if there is no memory for the weights.
    """

    def __init__(self, decoder: Decoder, dtype: torch.dtype, streams: int):
        self.library = library()
        weights, config, guide = gather(decoder), decoder.config, decoder.guide
        dilations = torch.tensor([layer.dilation for layer in decoder.layers], dtype=torch.int32)
        arrays = (*vars(weights).values(), dilations, mulaw.amplitudes(), mulaw.thresholds())
        source = _Source(
            *(array.data_ptr() for array in arrays),
            *(config.input_kernel, guide.order, len(decoder.layers)),
            *(config.channels, config.skip_channels, guide.channels),
        )
        self.pointer = self.library.umt_pack(source, FORMATS[dtype])
        if not self.pointer:
            raise GenerationError("not enough memory for the decoder's weights")
        weakref.finalize(self, self.library.umt_free, self.pointer)
        words = self.library.umt_state_words(self.pointer)
        self.rings = torch.zeros(streams, words, dtype=torch.int32)


def run(
    decoder: Decoder,
    told: Told,
    uniforms: Tensor,
    *,
    temperature: float,
    state: State,
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
    forced: Tensor | None = None,
    logits: Tensor | None = None,
) -> Tensor:
    """Generate: the arguments of `reference.run`, and two more.

    The format is float32; or bfloat16: weights and activations rounded to 8 bits of mantissa where
    they enter a product, sums in float32; or int8: weights scaled per row and activations per
    product to integers of up to 127, their sums exact. Threads share streams two by two, or share
    them out, whichever turns out to be faster. Raises GenerationError if the kernel cannot have the
    memory or the threads.
    """
    memory = state.memory = state.memory or Memory(decoder, dtype, len(uniforms))
    B, T = uniforms.shape
    codes = torch.empty(B, T, dtype=torch.uint8)
    arrays = (  # named, so that they outlive the call
        memory.rings,
        told.condition.mT.to("cpu", torch.float32).contiguous(),
        None if told.predictors is None else told.predictors.to("cpu").contiguous(),
        uniforms.contiguous(),
        None if forced is None else forced.to(torch.uint8).contiguous(),
        codes,
        logits,
    )
    call = _Call(
        *(None if array is None else array.data_ptr() for array in arrays),
        *(B, told.condition.shape[2], decoder.guide.hop, threads, temperature),
    )
    if memory.library.umt_generate(memory.pointer, call):
        raise GenerationError("the kernel ran out of memory or threads")
    return codes
