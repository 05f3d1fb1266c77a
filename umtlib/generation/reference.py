"""The oracle: the decoder one sample at a time, in plain PyTorch, with one queue per layer.

Slow and obvious. Every layer keeps its last ``dilation`` inputs in a queue, so that a sample costs
one step through the network instead of a whole receptive field (Paine et al. 2016, "Fast Wavenet
Generation Algorithm"). The fast generators must choose the same codes. Notebook: ``06_generation``.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib import mulaw
from umtlib.decoder import Decoder
from umtlib.generation.sampling import State, choose
from umtlib.guide import Told


class Memory:
    """What the next sample of so many streams depends on: at first, silence."""

    def __init__(self, decoder: Decoder, streams: int):
        weight, order, layers = decoder.logits.weight, decoder.guide.order, decoder.layers
        zeros = weight.new_zeros(streams, decoder.config.channels)
        silence = torch.zeros(streams, dtype=torch.float64, device=weight.device)
        self.past = torch.empty(streams, 0, dtype=torch.long, device=weight.device)  # codes
        self.queues = [deque([zeros] * one.dilation, maxlen=one.dilation) for one in layers]
        self.recent = deque([silence] * order, maxlen=order)  # amplitudes that a prediction sees


@torch.inference_mode()
def run(
    decoder: Decoder,
    told: Told,
    uniforms: Tensor,
    *,
    temperature: float,
    state: State,
    forced: Tensor | None = None,
    logits: Tensor | None = None,
) -> Tensor:
    """Return the chosen codes, shape (B, T); see `umtlib.generation.generate`, which checks.

    Codes that are `forced`, (B, T), take the place of the chosen ones in the past of the next
    sample; `logits`, float32, (B, T, 256), are filled with those of every sample.
    """
    memory = state.memory = state.memory or Memory(decoder, len(uniforms))
    frames = told.condition.transpose(1, 2)  # (B, N, L)
    conditions = [layer.condition(frames) for layer in decoder.layers]  # per layer (B, N, 2C)
    head = frames.new_zeros(1, frames.shape[1], 1)  # nothing, where the head is not conditioned
    if decoder.head_condition is not None:
        head = decoder.head_condition(frames)  # (B, N, S)
    codes = torch.empty(uniforms.shape, dtype=torch.long, device=frames.device)
    for t in range(codes.shape[1]):
        frame = t // decoder.guide.hop
        now = [condition[:, frame] for condition in conditions]
        x = decoder.input(F.pad(memory.past, (0, 1)))[:, -1]  # what follows on the last codes
        if told.predictors is not None:
            recent = torch.stack(list(memory.recent), dim=-1)
            predicted = (recent * told.predictors[:, frame]).sum(dim=-1)
            x = x + decoder.predicted(mulaw.nearest(predicted))
        scores = _step(decoder, memory, x, now, head[:, frame])
        codes[:, t] = choose(scores, uniforms[:, t], temperature)
        known = (codes if forced is None else forced)[:, t].long()
        memory.past = torch.cat([memory.past, known[:, None]], 1)[:, -decoder.config.input_kernel :]
        memory.recent.append(mulaw.amplitudes().to(known.device)[known])
        if logits is not None:
            logits[:, t] = scores
    return codes


def _step(
    decoder: Decoder, memory: Memory, x: Tensor, conditions: list[Tensor], head: Tensor
) -> Tensor:
    """Return the logits of the next sample, shape (B, 256), and move the queues on."""
    skips = decoder.input_skip(x)
    for layer, queue, condition in zip(decoder.layers, memory.queues, conditions, strict=True):
        h = layer.taps(torch.cat([queue[0], x], dim=-1)) + condition
        queue.append(x)  # the oldest falls out at the other end
        gate, value = h.chunk(2, dim=-1)
        out = layer.out(gate.sigmoid() * value.tanh())
        x = x + out[:, : layer.channels]
        skips = skips + out[:, layer.channels :]
    return decoder.logits(F.relu(decoder.head(F.relu(skips)) + head))
