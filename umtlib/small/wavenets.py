"""How the WaveNets learn, all else standing still: first one for all domains, then each its own.

Domains take turns, a segment each; of a segment some windows are shown, one a step.
"""

import numpy as np
import torch
from torch import Tensor

from umtlib import losses, mulaw
from umtlib.guide import Told
from umtlib.machine.devices import autocast
from umtlib.small import painting
from umtlib.small.hearing import converted, heard
from umtlib.small.state import WAVENET_AVERAGE, State, whole

RATE, WARMUP = 2e-3, 200  # learning rate; steps in which it rises
WINDOW = 6_400  # samples that a WaveNet is shown at a time
TAKEN = 4  # windows taken of a segment
CONVERTED = 0.5  # share of the segments whose conversion the encoder hears
NOISE = 0.0, 0.0, 0.0, 1.0, 2.0, 4.0  # codes; a window's past gets one of these
SILENT = 0.05  # share of windows whose past is silent up to a random sample


def step(state: State, stage: str, number: int, length: int) -> dict[str, float | str]:
    """Train one WaveNet on a window; see `painting.step`.

    In the stage ``"shared"`` that is the first domain's, in ``"own"`` that of the domain whose turn
    it is. The report's ``reconstruction`` is in nats per sample.
    """
    if number == 0 and stage == ("shared" if state.config.shared else "own"):
        painting.settle(state)
    if number == 0 and stage == "own" and state.config.shared:
        state.unshare()
    turn, window = divmod(number, TAKEN)
    name = state.domains[turn % len(state.domains)]
    own = state.domains[0] if stage == "shared" else name
    words = (6, int(stage == "own"), turn)
    told, target, order = state.once((stage, turn), lambda: visit(state, name, state.rng(*words)))
    samples = whole(WINDOW, state.model.config.encoder.pool)
    first = int(order[window % len(order)]) * samples
    goal = target[:, first : first + samples]
    with autocast("bfloat16", goal.device):
        now = told.between(first // state.hop, (first + samples) // state.hop)
        given = corrupted(goal, state.rng(5, state.step))
        logits = state.model.decoders[own].predict(given, now)
    loss, (rate, done) = losses.reconstruction(logits, goal), pace(state, stage, number, length)
    good = state.learn(loss, {f"{own}.wavenet": RATE * rate}, WAVENET_AVERAGE, done)
    if stage == "shared" and window == TAKEN - 1:
        state.share(state.average)  # so that all domains can be heard and measured
    report = {"domain": name, "samples": goal.numel(), "bad": float(not good)}
    return report | {"reconstruction": loss.item()}


def pace(state: State, stage: str, number: int, length: int) -> tuple[float, int]:
    """Return the part of the learning rate, and how many steps a step's WaveNet has had."""
    lengths = state.config.lengths(len(state.model.domains))
    done = number + (lengths.get("shared", 0) if stage == "own" else 0)
    left = (length - number) + (lengths["own"] if stage == "shared" else 0)
    return min(1.0, (done + 1) / WARMUP, left / lengths["own"]), done


@torch.no_grad()
def visit(state: State, name: str, rng: np.random.Generator) -> tuple[Told, Tensor, np.ndarray]:
    """Return what a domain's decoder is told of a segment, the segment, and its windows' order."""
    clean, encoder = state.draw(name, 1, state.segment, rng), state.average.encoder
    codes = heard(clean, rng)
    if rng.random() < CONVERTED:
        other = state.others(name, 1, rng)[0]
        painted = state.frames(other, average=True)(encoder(codes))
        codes = heard(converted(clean, painted, state.hop, rng), rng)
    guide = state.average.decoders[name].guide.train()
    windows = state.segment // whole(WINDOW, state.model.config.encoder.pool)
    return guide.tell(encoder(codes)), mulaw.encode(clean), rng.permutation(windows)


def corrupted(codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the past that a WaveNet is shown: noisy, as its own output will be, or silent."""
    noise = rng.choice(NOISE) * rng.standard_normal(codes.shape)
    given = (codes + torch.from_numpy(noise).round().long()).clamp(0, mulaw.CODES - 1)
    if rng.random() < SILENT:
        given[:, : rng.integers(codes.shape[1])] = mulaw.SILENCE
    return given
