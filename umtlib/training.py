"""One training step, and all that it changes (section 3.4).

Domains take turns; a batch is of one domain. Each step first teaches the classifier to name the
domain of the latent, then teaches the encoder and that domain's decoder to restore the clean audio
while the encoder makes the classifier fail. The loop around it is in `umtlib.runs`. Notebook:
``03_training``.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import losses, prediction
from umtlib.batches import Batch
from umtlib.config import ModelConfig, TrainingConfig
from umtlib.conversion import convert
from umtlib.team import Team
from umtlib.translator import MusicTranslator, build


@dataclass
class State:
    """All that changes in training.

    Attributes
    ----------
    step : int
        Steps done.
    model : MusicTranslator
        The weights being trained.
    average : MusicTranslator
        What one translates with: the exponential average of the weights, or the model itself.
    optimizers : dict
        Adam for ``encoder``, ``classifier`` and each ``decoders.<name>``; if the decoders are given
        a prediction, also for each ``decoders.<name>.envelope``.
    team : Team
        The processes that train together.
    """

    step: int
    model: MusicTranslator
    average: MusicTranslator
    optimizers: dict[str, torch.optim.Adam]
    team: Team = Team()

    def domain_of(self, rank: int, step: int) -> str:
        """Return the domain that a rank trains at a step: they take turns."""
        return self.model.domains[(step * self.team.size + rank) % len(self.model.domains)]

    @property
    def one_decoder_per_rank(self) -> bool:
        """Whether each rank trains a domain of its own, as in the paper."""
        return self.team.size == len(self.model.domains) > 1


def start(model_config: ModelConfig, config: TrainingConfig, team: Team = Team()) -> State:
    """Return the state before the first step; its random weights depend on the seed alone."""
    device = team.device
    model = build(model_config, config.seed).to(device)
    average = copy.deepcopy(model).requires_grad_(False) if config.average else model
    names = ["encoder", "classifier", *(f"decoders.{name}" for name in model.domains)]
    if model_config.decoder.prediction:
        names += [f"decoders.{name}.envelope" for name in model.domains]
    parts = {name: _part(model, name) for name in names}
    optimizers = {name: torch.optim.Adam(part, foreach=True) for name, part in parts.items()}
    return State(0, model, average, optimizers, team)


def _part(model: MusicTranslator, name: str) -> list[nn.Parameter]:
    """Return what is trained under a name: a module's parameters, but a decoder's not its envelope.

    That reads the latent, as the classifier does, and is no part of the WaveNet.
    """
    found = model.get_submodule(name).named_parameters()
    return [parameter for key, parameter in found if not key.startswith("envelope.")]


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step in a run of ``steps`` steps."""
    rate = config.learning_rate * config.decay ** (step * config.batch // config.decay_every)
    if config.warmup_steps:
        rate *= min(1.0, (step + 1) / config.warmup_steps)
    if config.cooldown_steps:
        rate *= min(1.0, (steps - step) / config.cooldown_steps)
    return rate


def train_step(state: State, batch: Batch, config: TrainingConfig, steps: int) -> dict[str, float]:
    """Do one step: the classifier's update, then the encoder's and one decoder's.

    Parameters
    ----------
    state : State
        Changed in place. A part whose loss or gradient is not finite is left as it was.
    batch : Batch
        Segments of one domain.
    config : TrainingConfig
        Weights of the losses, schedule, clipping, averaging.
    steps : int
        Length of the whole run, for the schedule.

    Returns
    -------
    dict
        ``reconstruction`` (nats per sample), ``classifier`` (nats), ``accuracy`` (of the
        classifier, 0..1), ``envelope`` where it is trained; ``bad`` is 1 if an update was skipped.
    """
    if state.step == config.shared_steps > 0:
        unshare(state, config)
    rate = learning_rate(config, state.step, steps)
    learns, index = _learns(config), state.model.domains.index(batch.domain)
    heard = _converted(state, batch, config)
    with autocast(config, heard.device), torch.set_grad_enabled(learns):
        latent = state.model.encode(heard)
    with autocast(config, heard.device), torch.set_grad_enabled(learns):
        guess = state.model.classifier(latent.detach())
        known = losses.domain(guess, index)
    good = not learns or _update(state, known, "classifier", rate, config)
    with autocast(config, heard.device):
        parts = _reconstruction(state, batch, latent, config)
        if learns:
            # The classifier's weights get no gradient: `_update` asks for the other parts' only.
            confusion = losses.domain(state.model.classifier(latent), index)
            parts["confusion"] = (-config.confusion_weight, confusion)
    total = sum(weight * loss for weight, loss in parts.values())
    good &= _update(state, total, "autoencoder", rate, config)
    state.step += 1
    accuracy = (guess.argmax(1) == index).float().mean()
    report = {name: loss.item() for name, (_, loss) in parts.items() if name != "confusion"}
    report |= {"classifier": known.item(), "accuracy": accuracy.item()}
    return report | {"bad": float(not good)}


def _converted(state: State, batch: Batch, config: TrainingConfig) -> Tensor:
    """Return what the encoder hears: some segments as another domain would have them."""
    rng = np.random.default_rng([config.seed, state.step, state.team.rank])
    others = [name for name in state.model.domains if name != batch.domain]
    chosen = rng.random(len(batch.heard)) < config.conversion
    if not chosen.any() or not others:
        return batch.heard
    heard, rows = batch.heard.clone(), torch.from_numpy(chosen)
    other = others[rng.integers(len(others))]
    heard[rows] = convert(state.model, heard[rows], batch.domain, other)
    return heard


def _reconstruction(
    state: State, batch: Batch, latent: Tensor, config: TrainingConfig
) -> dict[str, tuple[float, Tensor]]:
    """Return the losses of restoring the clean audio, each with its weight."""
    parts = {}
    if _learns_envelope(state, config):
        spectrum = prediction.log_spectrum(batch.target, state.model.config.encoder.pool)
        read = state.model.decoders[batch.domain].envelope(latent.detach())
        # The latent is not asked to serve this: it shall tell the notes, not the instrument.
        parts["envelope"] = (config.envelope_weight, F.mse_loss(read.float(), spectrum))
    logits = decode(state, batch, latent, shared=state.step < config.shared_steps)
    parts["reconstruction"] = (1.0, losses.reconstruction(logits, batch.target))
    return parts


def _trained(state: State, kind: str, config: TrainingConfig, rank: int) -> list[str]:
    """Name the parts that a rank trains at this step by a kind of loss."""
    if kind == "classifier":
        return ["classifier"]
    domain = config.only or state.domain_of(rank, state.step)
    names = {f"decoders.{domain}"}
    if state.step < config.shared_steps:
        names.add(f"decoders.{state.model.domains[0]}")
    if _learns_envelope(state, config):
        names.add(f"decoders.{domain}.envelope")
    return ["encoder", *sorted(names)] if _learns(config) else sorted(names)


def _learns(config: TrainingConfig) -> bool:
    """Tell whether the encoder and the classifier are trained with the decoders."""
    return not config.only and not config.pretraining_steps


def _learns_envelope(state: State, config: TrainingConfig) -> bool:
    return state.model.config.decoder.prediction > 0 and not config.pretraining_steps


def _update(state: State, loss: Tensor, kind: str, rate: float, config: TrainingConfig) -> bool:
    """Step down the gradient of a loss, each part clipped alone; False, and no step, if it is bad.

    On several ranks the step is the one of the mean loss, and bad on all if it is bad on one.
    """
    by_rank = [_trained(state, kind, config, rank) for rank in range(state.team.size)]
    mine = by_rank[state.team.rank]
    _differentiate(state, loss, mine)
    users = Counter(name for names in by_rank for name in names)
    stepped = mine if state.one_decoder_per_rank else sorted(users)
    _mean_gradients(state, users)
    groups = {name: state.optimizers[name].param_groups[0] for name in stepped}
    largest = config.clip_norm or float("inf")
    norms = [nn.utils.clip_grad_norm_(group["params"], largest) for group in groups.values()]
    good = not state.team.any(not torch.stack([loss.detach(), *norms]).isfinite().all().item())
    for name, group in groups.items():
        group["lr"] = rate
        if good:
            state.optimizers[name].step()
            _average(state, name, config)
        state.optimizers[name].zero_grad()
    return good


def _differentiate(state: State, loss: Tensor, names: Sequence[str]) -> None:
    parameters = [p for name in names for p in state.optimizers[name].param_groups[0]["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _mean_gradients(state: State, users: Counter[str]) -> None:
    """Average each part's gradient over the ranks that use it at this step."""
    if state.team.size == 1:
        return
    for name, count in sorted(users.items()):
        if state.one_decoder_per_rank and count == 1:
            continue  # a decoder that lives on one rank
        for parameter in (parameters := state.optimizers[name].param_groups[0]["params"]):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        state.team.sum(gradients)
        torch._foreach_div_(gradients, count)


def _average(state: State, name: str, config: TrainingConfig) -> None:
    if not config.average:
        return
    # At first the average follows closely, so that it does not remember the random start.
    decay = min(config.average, (1 + state.step) / (10 + state.step))
    new, old = _part(state.model, name), _part(state.average, name)
    with torch.no_grad():
        torch._foreach_lerp_(old, new, 1 - decay)


def decode(state: State, batch: Batch, latent: Tensor, shared: bool) -> Tensor:
    """Return the logits, (B, 256, T), of the batch's domain.

    While the decoders share their weights, these are the first domain's; only the biases of the
    gates are each domain's own. They tell the shared weights which domain to play, so that the
    latent need not.
    """
    own = state.model.decoders[batch.domain]
    if not shared:
        return own(batch.given, latent)
    weights = dict(state.model.decoders[state.model.domains[0]].named_parameters())
    weights |= {name: value for name, value in own.named_parameters() if _is_own(name)}
    return torch.func.functional_call(own, weights, (batch.given, latent))


def _is_own(name: str) -> bool:
    """Tell whether a decoder's parameter is its own while the others are shared."""
    gate_bias = name.endswith(".taps.bias") and name.startswith("layers.")
    return gate_bias or name.startswith("envelope.")


def spread(state: State, config: TrainingConfig) -> None:
    """Copy the shared weights to every domain's decoder, while they are shared."""
    if not config.shared_steps or state.step > config.shared_steps:
        return
    for model in (state.model, state.average):
        first, *others = model.decoders.values()
        for decoder in others:
            for name, value in first.named_parameters():
                if not _is_own(name):
                    decoder.get_parameter(name).data.copy_(value.data)


def unshare(state: State, config: TrainingConfig) -> None:
    """End the sharing: every domain goes on from the shared weights and their optimizer's state."""
    spread(state, config)
    first, *others = state.model.domains
    shared = state.model.decoders[first]
    adam = state.optimizers[f"decoders.{first}"].state
    for domain in others:
        mine = state.optimizers[f"decoders.{domain}"].state
        for name, parameter in state.model.decoders[domain].named_parameters():
            if not _is_own(name):
                mine[parameter] = copy.deepcopy(adam[shared.get_parameter(name)])


def autocast(config: TrainingConfig, device: torch.device) -> AbstractContextManager:
    """Return the arithmetic of the network's products: bfloat16 where wanted and native.

    A processor without bfloat16 instructions would be tens of times slower with it, not faster.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=config.bf16 and native)


def collect(state: State) -> None:
    """Bring every decoder from the rank that trains it to all ranks, before a save."""
    if not state.one_decoder_per_rank:
        return
    own = state.model.domains[state.team.rank]
    parts = [name for name in state.optimizers if f"{name}.".startswith(f"decoders.{own}.")]
    cpu = torch.device("cpu")
    modules = [
        {key: value.to(cpu) for key, value in model.decoders[own].state_dict().items()}
        for model in (state.model, state.average)
    ]
    adams = {name: state.optimizers[name].state_dict() for name in parts}
    received = state.team.gather((modules, adams))
    for domain, (weights, adams) in zip(state.model.domains, received, strict=True):
        if domain != own:
            for model, values in zip((state.model, state.average), weights, strict=True):
                model.decoders[domain].load_state_dict(values)
            for name, adam in adams.items():
                state.optimizers[name].load_state_dict(adam)
