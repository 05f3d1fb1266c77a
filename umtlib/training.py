"""The paper's training, step by step (section 3.4), and nothing else.

Domains take turns; a batch is of one domain. The loop around a step, which reports, validates and
saves, is in `umtlib.runs`. Notebook: ``05_training_six_domains``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from umtlib import losses
from umtlib.config import TrainingConfig
from umtlib.corpora.batches import Batch, Crops, loader
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError
from umtlib.machine.devices import autocast
from umtlib.machine.team import Team
from umtlib.translator import MusicTranslator

SCALE = 12.0  # binary logarithm of what a float16 run's losses are multiplied by, at first
GROWTH = 1 / 2_000  # of it after a good step; a bad one takes 2 from it


def train_step(
    model: MusicTranslator,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Batch,
    config: TrainingConfig,
    step: int = 0,
    team: Team = Team(),
    scale: float = 1.0,
) -> dict[str, float]:
    """Do one step: the classifier's update, then the encoder's and one decoder's.

    The model changes in place. A network that has no optimizer (see `adam`) stands still, and one
    whose loss or gradient is not finite is left as it was. Each process of the team has a batch of
    its own. The schedule goes by `step`, the steps done before. Losses are multiplied by `scale`,
    so that float16 holds their gradients.

    Returns ``reconstruction`` (nats per sample), ``classifier`` (nats), ``accuracy`` (of the
    classifier, 0..1) and ``bad``, 1 if an update was skipped.
    """
    index, rate = model.domains.index(batch.domain), learning_rate(config, step)
    classifier = {name: rate for name in optimizers if name == "classifier"}
    others = {name: rate for name in optimizers if name != "classifier"}
    arithmetic = partial(autocast, config.precision, batch.target.device)
    parts, how = batch.split(config.micro_batches), (config.clip, team, scale)
    restored, good = [], True
    with arithmetic(), torch.set_grad_enabled(len(parts) == 1):
        latent = torch.cat([model.encode(part.heard) for part in parts])  # E(O(s)), s augmented
    with arithmetic():
        guess = model.classifier(latent.detach())  # C learns to name the domain ...
        known = losses.domain(guess, index)
    if classifier:
        good = descend(known, optimizers, classifier, *how)

    def loss(part: Batch) -> Tensor:
        with arithmetic():
            z = latent if len(parts) == 1 else model.encode(part.heard)
            logits = model.decoders[batch.domain](part.target, z)  # D_j restores the clean one
            restored.append(losses.reconstruction(logits, part.target))
            confused = losses.domain(model.classifier(z), index)  # ... and E to make it fail
            return (restored[-1] - config.confusion_weight * confused) / len(parts)

    # The gradient reaches the encoder and one decoder; the classifier is not among the others.
    whole = loss(batch) if len(parts) == 1 else map(loss, parts)
    good &= descend(whole, optimizers, others, *how)
    accuracy = (guess.argmax(1) == index).float().mean().item()
    report = {"reconstruction": sum(one.item() for one in restored) / len(parts)}
    return report | {"classifier": known.item(), "accuracy": accuracy, "bad": float(not good)}


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
    loss: Tensor | Iterable[Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    rates: Mapping[str, float],
    clip: float = 0.0,
    team: Team = Team(),
    scale: float = 1.0,
) -> bool:
    """Step down the gradient of a loss; return False, and do not step, if it is not finite.

    The loss is a number, or its summands, of which one at a time is in memory. What has a rate is
    trained at it; what the loss does not depend on stays. The norm of each one's gradient is at
    most `clip`, or any if that is 0. The step is that of the mean gradient of all ranks, and bad on
    all if bad on one. On its way through the network the loss is multiplied by `scale`.
    """
    parts = {name: optimizers[name].param_groups[0]["params"] for name in rates}
    parameters = [parameter for part in parts.values() for parameter in part]
    finite = []
    for one in [loss] if isinstance(loss, Tensor) else loss:
        gradients = torch.autograd.grad(one * scale, parameters, allow_unused=True)
        finite.append(one.detach())
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                gradient = gradient / scale if scale != 1 else gradient
                before = parameter.grad
                parameter.grad = gradient if before is None else before + gradient
    team.mean_gradients([*parts.values()])
    norms = [nn.utils.clip_grad_norm_(part, clip or math.inf) for part in parts.values()]
    finite += [norm.to(finite[0].device) for norm in norms]
    good = not team.any(not torch.stack(finite).isfinite().all().item())
    for name, rate in rates.items():
        optimizers[name].param_groups[0]["lr"] = rate
        if good:
            optimizers[name].step()
        optimizers[name].zero_grad()
    return good


class Training:
    """A model that is trained as in the paper, in place.

    At each step the domains whose turn is next have one process of the team each; ``workers``
    prepare the batches. Raises TrainingError if the decoders' guide has weights of its own, no
    number of steps is given, or the corpus lacks a domain.
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
        check(model, team, steps)
        if config.recompute:
            recompute(model)
        self.model = model  # in training
        self.average = model  # with which one translates
        self.config, self.steps, self.team, self.workers = config, steps, team, workers
        self.domains = (config.only,) if config.only else model.domains  # those that are trained
        self.segment, self.step = config.crop, 0  # samples to judge a decoder by; steps done
        self.carried: dict[str, Tensor] = {}  # what the next step needs besides
        self.optimizers = adam(model, config.only)
        stop = steps * team.size
        self._crops = Crops(corpus, self.domains, config, "train", stop, model.config.mulaw)
        self._batches: Iterator[Batch] | None = None

    def begin(self) -> None:
        """Give a new model its first weights: here they are just random."""

    def advance(self) -> dict[str, float | str]:
        """Do the next step; return its report, which also has ``samples`` of this ``domain``."""
        if self._batches is None:
            first = self.step * self.team.size + self.team.rank
            mine = range(first, len(self._crops), self.team.size)
            self._batches = iter(loader(self._crops, mine, self.workers))
        batch, half = next(self._batches).to(self.team.device), self.config.precision == "float16"
        power = self.carried.get("scale", torch.tensor(SCALE)).item() if half else 0.0
        settings = (self.config, self.step, self.team, 2.0 ** math.floor(power))
        report = train_step(self.model, self.optimizers, batch, *settings)
        if half:
            power += -2 if report["bad"] else GROWTH
            self.carried["scale"] = torch.tensor(power, dtype=torch.float64)
        self.step += 1
        return {"domain": batch.domain, "samples": batch.target.numel()} | report

    def close(self) -> None:
        """End the processes that prepare batches: they are deaf to signals."""
        self._batches = None


def check(model: MusicTranslator, team: Team, steps: int | None) -> None:
    """Raise TrainingError if a model cannot be trained so by these processes."""
    if steps is None:
        raise TrainingError("the paper's training has no end of its own; choose one by --steps")
    if any(True for one in model.decoders.values() for _ in one.guide.parameters()):
        guide = model.config.decoder.guide
        raise TrainingError(f"the paper's training cannot teach the guide {guide!r}; take --preset "
                            "small")  # fmt: skip


def recompute(model: MusicTranslator) -> None:
    """Let each layer keep what enters it, and compute what is inside again when it learns.

    Memory per sample and layer falls from five or six activations to one. The compiled passes of
    `umtlib.machine.fused`, on the CPU, keep all.
    """
    for stack in (model.encoder, *model.decoders.values()):
        for layer in stack.layers:
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
