"""The game of encoder and classifier, played over spectra: the paper's step without a WaveNet.

What the encoder must keep, which notes sound, and what it must forget, on which instruments, can be
learnt from frame models in place of decoders. Half of a batch is the audio of the step before,
converted. The classifier sees the domains' own audio only: what it would learn from conversions is
what betrays a conversion.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umtlib.errors import TrainingError
from umtlib.machine.devices import autocast
from umtlib.small import painting
from umtlib.small.hearing import converted, heard
from umtlib.small.painting import EVENT_WEIGHT, WARMUP
from umtlib.small.spectra import log_spectrum
from umtlib.small.state import AVERAGE, State, whole

SHORT = 25_600  # samples of a segment: half of `state.SEGMENT`, variety counts more than memory
EACH = 3  # segments of each domain in a batch, and as many conversions
# With twice the weight, or twice the encoder's rate, the classifier is left behind: it loses its
# way, and the frame models with it.
ENCODER_RATE, CLASSIFIER_RATE = 4e-4, 3e-3
CONFUSION_WEIGHT = 0.5
ENCODER_WARMUP = 200  # steps


def step(state: State, stage: str, number: int, length: int) -> dict[str, float | str]:
    """Train encoder, classifier and all frame models on a batch; see `painting.step`.

    ``spectra``, ``events`` and ``bad`` are as there, ``classifier`` is its loss in nats.
    """
    rng = state.rng(3, state.step)
    more = conversions(state) if number else None
    clean, spectra = audio(state, state.step, rng)
    codes, goal, own = heard(clean, rng), spectra, len(clean)
    if more:
        before, was, painted = more
        codes = torch.cat([codes, heard(converted(before, painted, state.hop, rng), rng)])
        goal = torch.cat([spectra, was])
    latent = encoded(state, codes)
    rate = min(1.0, (number + 1) / WARMUP, 3 * (1 - number / length))
    classifier = state.model.classifier
    domains = torch.arange(len(state.domains)).repeat_interleave(EACH)
    known = F.cross_entropy(classifier(latent[:own].detach()), domains)
    good = state.learn(known, {"classifier": CLASSIFIER_RATE * rate}, AVERAGE, number)
    error, missed = errors(state, latent, goal, rng)
    loss = error + EVENT_WEIGHT * missed + CONFUSION_WEIGHT * confusion(classifier(latent[:own]))
    parts = {"encoder": ENCODER_RATE * rate * min(1.0, (number + 1) / ENCODER_WARMUP)}
    parts |= {f"{name}.frames": painting.RATE / 2 * rate for name in state.domains}
    good &= state.learn(loss, parts, AVERAGE, number)
    state.carried = {"latent": latent[:own].detach()}
    report = {"samples": codes.numel(), "bad": float(not good), "classifier": known.item()}
    return report | {"spectra": error.item(), "events": missed.item()}


def audio(state: State, number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a step's segments of all domains, (K * EACH, T), and their spectra."""

    def make() -> tuple[Tensor, Tensor]:
        samples = whole(SHORT, state.model.config.encoder.pool)
        clean = torch.cat([state.draw(name, EACH, samples, rng) for name in state.domains])
        return clean, log_spectrum(clean, state.hop)

    return state.once(("game", number), make)


@torch.no_grad()
def conversions(state: State) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last step's segments, their spectra, and those that other domains paint of them.

    Raises TrainingError if a checkpoint lacks the latent of the last step, or has another.
    """
    last = state.step - 1
    clean, spectra = audio(state, last, state.rng(3, last))
    frames = clean.shape[1] // state.model.config.encoder.pool
    latent = state.carried.get("latent")
    if latent is None or latent.shape != (len(clean), state.model.config.encoder.latent, frames):
        raise TrainingError("the checkpoint has not the latent of the last step; use another")
    rng, painted = state.rng(4, state.step), torch.empty_like(spectra)
    names = [name for name in state.domains for _ in range(EACH)]
    others = [state.others(name, 1, rng)[0] for name in names]
    for other in dict.fromkeys(others):
        rows = [i for i, name in enumerate(others) if name == other]
        painted[rows] = state.frames(other)(latent[rows])
    return clean, spectra, painted


def encoded(state: State, codes: Tensor) -> Tensor:
    """Return the latent, float32; the filter bank's energies are computed in full precision."""
    encoder = state.model.encoder
    with torch.no_grad():
        energies = encoder.front_end.energies(codes)
    with autocast("bfloat16", codes.device):
        return encoder.above(encoder.front_end.mix(energies)).float()


def errors(
    state: State, latent: Tensor, spectra: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the mean errors of all frame models: of spectra and of events."""
    half, found = EACH * len(state.domains), []
    for place, name in enumerate(state.domains):
        own = torch.arange(place * EACH, (place + 1) * EACH)
        rows = torch.cat([own + start for start in range(0, len(latent), half)])
        found.append(painting.errors(state.frames(name), latent[rows], spectra[rows], rng))
    error, missed = zip(*found, strict=True)
    return torch.cat(error).mean(), torch.stack(missed).mean()


def confusion(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy of the classifier's logits, (B, K), with no domain at all.

    Least, ln K, where every domain is as likely as another. Unlike the classifier's own loss, of
    which an encoder can have ever more, it pays for ignorance and not for error.
    """
    return -F.log_softmax(logits.float(), dim=1).mean()
