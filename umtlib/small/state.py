"""What the stages of a training of ``small`` have in common: weights, optimizers, audio."""

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from umtlib.corpora.batches import Segments
from umtlib.corpora.corpus import Corpus
from umtlib.small.frames import FrameModel
from umtlib.small.recipe import Recipe
from umtlib.small.spectra import FINE
from umtlib.training import descend
from umtlib.translator import MusicTranslator

SEGMENT = 51_200  # samples that a frame model hears at a time: 3.2 s
AVERAGE, WAVENET_AVERAGE = 0.99, 0.999  # decay of the exponential averages that are kept
GAME_BETAS = 0.5, 0.99  # of Adam, where two play against each other
CLIP = 1.0  # largest norm of the gradient of each part

Made = TypeVar("Made")


class State:
    """All that changes in a training, and what it follows from; see `umtlib.training.Training`."""

    def __init__(self, model: MusicTranslator, corpus: Corpus, config: Recipe):
        self.config, self.step = config, 0
        self.model = model.requires_grad_(True)
        self.average = copy.deepcopy(model).requires_grad_(False)  # an exponential one
        self.domains = (config.only,) if config.only else model.domains
        self.segment = whole(SEGMENT, model.config.encoder.pool)
        self.hop = model.config.encoder.pool // FINE
        parts = [f"{name}.{kind}" for name in self.domains for kind in ("frames", "wavenet")]
        parts = parts if config.only else ["encoder", "classifier", *parts]
        self.optimizers = {part: optimizer(model, part) for part in parts}
        self.carried: dict[str, Tensor] = {}
        self._draw = Segments(corpus, self.domains)
        self._known: tuple = (None, None)

    def draw(self, domain: str, count: int, samples: int, rng: np.random.Generator) -> Tensor:
        """Return waveforms in [-1, 1], shape (count, samples)."""
        rows = [torch.from_numpy(self._draw(domain, samples, rng)) for _ in range(count)]
        return torch.stack(rows)

    def rng(self, *words: int) -> np.random.Generator:
        """Return the random numbers of an occasion."""
        return np.random.default_rng([self.config.seed, *words])

    def frames(self, domain: str, average: bool = False) -> FrameModel:
        """Return the frame model of a domain."""
        return (self.average if average else self.model).decoders[domain].guide.frames

    def others(self, domain: str, count: int, rng: np.random.Generator) -> list[str]:
        """Draw so many other domains; a domain that is alone has itself."""
        names = [name for name in self.model.domains if name != domain] or [domain]
        return [names[i] for i in rng.integers(len(names), size=count)]

    def once(self, key: tuple, make: Callable[[], Made]) -> Made:
        """Return what some steps in a row have in common: made when the key is new, or resumed."""
        if self._known[0] != key:
            self._known = (key, make())
        return self._known[1]

    def learn(self, loss: Tensor, rates: Mapping[str, float], decay: float, number: int) -> bool:
        """Step down the gradient of some parts, each clipped alone; their averages follow.

        At first they follow closely, so that they forget the random start. Returns False, and
        changes nothing, if a number is not finite.
        """
        if not descend(loss, self.optimizers, rates, CLIP):
            return False
        with torch.no_grad():
            for part in rates:
                new, old = (parameters(model, part) for model in (self.model, self.average))
                torch._foreach_lerp_(old, new, 1 - min(decay, (1 + number) / (10 + number)))
        return True

    def share(self, model: MusicTranslator) -> None:
        """Give every domain a copy of the first one's WaveNet."""
        first, *others = self.domains
        for name in others:
            pairs = (parameters(model, f"{one}.wavenet") for one in (name, first))
            for mine, shared in zip(*pairs, strict=True):
                mine.data.copy_(shared.data)

    def unshare(self) -> None:
        """Let every domain go on from the shared WaveNet and its optimizer's state."""
        for model in (self.model, self.average):
            self.share(model)
        first, *others = self.domains
        state = self.optimizers[f"{first}.wavenet"].state_dict()
        for name in others:
            self.optimizers[f"{name}.wavenet"].load_state_dict(copy.deepcopy(state))


def whole(samples: int, pool: int) -> int:
    """Return the largest number of samples that latent frames fill, but one frame at least."""
    return max(1, samples // pool) * pool


def optimizer(model: MusicTranslator, part: str) -> torch.optim.Optimizer:
    """Return what trains a part of a model; see `parameters`."""
    own = parameters(model, part)
    if part.endswith(".frames"):
        return torch.optim.AdamW(own, betas=(0.9, 0.99), weight_decay=1e-2, foreach=True)
    betas = (0.9, 0.999) if part.endswith(".wavenet") else GAME_BETAS
    return torch.optim.Adam(own, betas=betas, foreach=True)


def parameters(model: MusicTranslator, part: str) -> list[nn.Parameter]:
    """Return the parameters of ``encoder``, ``classifier``, ``NAME.frames`` or ``NAME.wavenet``."""
    name, _, kind = part.rpartition(".")
    if not name:
        return [*model.get_submodule(part).parameters()]
    own = model.decoders[name].named_parameters()
    return [p for where, p in own if where.startswith("guide.") == (kind == "frames")]
