"""The paper's training, step by step (section 3.4), and nothing else.

Domains take turns; a batch is of one domain. The loop around a step, which reports, validates and
saves, is in `umtlib.runs`. Notebook: ``03_training``.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from umtlib import losses
from umtlib.batches import Batch, Crops, loader
from umtlib.config import TrainingConfig
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError
from umtlib.team import Team
from umtlib.translator import MusicTranslator


def train_step(
    model: MusicTranslator,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Batch,
    config: TrainingConfig,
    step: int = 0,
    team: Team = Team(),
) -> dict[str, float]:
    """Do one step: the classifier's update, then the encoder's and one decoder's.

    Parameters
    ----------
    model : MusicTranslator
        Changed in place. A network whose loss or gradient is not finite is left as it was.
    optimizers : mapping of str to Optimizer
        From `adam`. A network that has none stands still.
    batch : Batch
        Segments of one domain.
    config : TrainingConfig
        Weight of the confusion, schedule, clipping.
    step : int
        Steps done before, for the schedule.
    team : Team
        The processes that train together, each with a batch of its own.

    Returns
    -------
    dict
        ``reconstruction`` (nats per sample), ``classifier`` (nats), ``accuracy`` (of the
        classifier, 0..1); ``bad`` is 1 if an update was skipped.
    """
    index, rate = model.domains.index(batch.domain), learning_rate(config, step)
    classifier = {name: rate for name in optimizers if name == "classifier"}
    others = {name: rate for name in optimizers if name != "classifier"}
    good = True
    with autocast(config.bf16, batch.target.device):
        latent = model.encode(batch.heard)  # E(O(s)): what was heard is the augmented segment
        guess = model.classifier(latent.detach())  # C learns to name the domain ...
        known = losses.domain(guess, index)
    if classifier:
        good = descend(known, optimizers, classifier, config.clip, team)
    with autocast(config.bf16, batch.target.device):
        logits = model.decoders[batch.domain](batch.target, latent)  # D_j restores the clean one
        restored = losses.reconstruction(logits, batch.target)
        confused = losses.domain(model.classifier(latent), index)  # ... and E to make it fail
        loss = restored - config.confusion_weight * confused
    # The gradient reaches the encoder and one decoder; the classifier is not among the others.
    good &= descend(loss, optimizers, others, config.clip, team)
    accuracy = (guess.argmax(1) == index).float().mean().item()
    report = {"reconstruction": restored.item(), "classifier": known.item(), "accuracy": accuracy}
    return report | {"bad": float(not good)}


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step: it falls by a factor after every so many segments."""
    return config.learning_rate * config.decay ** (step * config.batch // config.decay_every)


def adam(model: MusicTranslator, only: str = "") -> dict[str, torch.optim.Optimizer]:
    """Return an optimizer for each network: ``encoder``, ``classifier``, ``decoders.NAME``.

    With ``only`` there is one for this domain's decoder alone, and the others are frozen.
    """
    names = ["encoder", "classifier", *(f"decoders.{name}" for name in model.domains)]
    names = [f"decoders.{only}"] if only else names
    model.requires_grad_(False)
    parts = {name: model.get_submodule(name).requires_grad_(True) for name in names}
    return {name: torch.optim.Adam(part.parameters(), foreach=True) for name, part in parts.items()}


def descend(
    loss: Tensor,
    optimizers: Mapping[str, torch.optim.Optimizer],
    rates: Mapping[str, float],
    clip: float = 0.0,
    team: Team = Team(),
) -> bool:
    """Step down the gradient of a loss; return False, and do not step, if it is not finite.

    Parameters
    ----------
    loss : Tensor
        A number.
    optimizers : mapping of str to Optimizer
        By the name of what they train.
    rates : mapping of str to float
        What is to be trained, at which learning rate; what the loss does not depend on stays.
    clip : float
        Largest norm of the gradient of each; 0: any.
    team : Team
        The step is the one of the mean gradient of all ranks, and bad on all if bad on one.
    """
    parts = {name: optimizers[name].param_groups[0]["params"] for name in rates}
    parameters = [parameter for part in parts.values() for parameter in part]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    team.mean_gradients([*parts.values()])
    norms = [nn.utils.clip_grad_norm_(part, clip or math.inf) for part in parts.values()]
    finite = torch.stack([loss.detach(), *(norm.to(loss.device) for norm in norms)]).isfinite()
    good = not team.any(not finite.all().item())
    for name, rate in rates.items():
        optimizers[name].param_groups[0]["lr"] = rate
        if good:
            optimizers[name].step()
        optimizers[name].zero_grad()
    return good


def autocast(wanted: bool, device: torch.device) -> AbstractContextManager:
    """Return the arithmetic of the network's products: bfloat16 where wanted and native.

    A processor without bfloat16 instructions would be tens of times slower with it, not faster.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and native)


class Training:
    """A model that is trained as in the paper; see `umtlib.runs.Training`.

    Parameters
    ----------
    model : MusicTranslator
        Changed in place.
    corpus : Corpus
        With every domain that is trained.
    config : TrainingConfig
        How.
    steps : int
        Steps in all.
    team : Team
        The processes that train together: at each step the domains whose turn is next have one.
    workers : int
        Processes that prepare batches.

    Raises
    ------
    TrainingError
        If the decoders' guide has weights of its own, the number of steps is not said, or the
        corpus lacks a domain.
    """

    def __init__(
        self,
        model: MusicTranslator,
        corpus: Corpus,
        config: TrainingConfig,
        steps: int | None,
        team: Team = Team(),
        workers: int = 0,
    ):
        if any(True for one in model.decoders.values() for _ in one.guide.parameters()):
            guide = model.config.decoder.guide
            raise TrainingError(
                f"the paper's training cannot teach the guide {guide!r}; take --preset small"
            )
        if steps is None:
            raise TrainingError("the paper's training has no end of its own; choose one by --steps")
        self.model = self.average = model
        self.config, self.steps, self.team, self.workers = config, steps, team, workers
        self.domains = (config.only,) if config.only else model.domains
        self.segment, self.step = config.crop, 0
        self.carried: dict[str, Tensor] = {}
        self.optimizers = adam(model, config.only)
        stop = steps * team.size
        self._crops = Crops(corpus, self.domains, config, "train", stop, model.config.mulaw)
        self._batches: Iterator[Batch] | None = None

    def begin(self) -> None:
        """Leave the random weights as they are."""

    def advance(self) -> dict[str, float | str]:
        """Do the next step and return its report."""
        if self._batches is None:
            first = self.step * self.team.size + self.team.rank
            mine = range(first, len(self._crops), self.team.size)
            self._batches = iter(loader(self._crops, mine, self.workers))
        batch = next(self._batches).to(self.team.device)
        settings = (self.config, self.step, self.team)
        report = train_step(self.model, self.optimizers, batch, *settings)
        self.step += 1
        return {"domain": batch.domain, "samples": batch.target.numel()} | report

    def close(self) -> None:
        """End the processes that prepare batches: they are deaf to signals."""
        self._batches = None
