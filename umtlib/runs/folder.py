"""A run's checkpoints: a model folder (see `umtlib.checkpoint`) and what a resumed run needs."""

import dataclasses
import reprlib
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from umtlib import checkpoint, files
from umtlib.config import Count, Range, check, from_values, to_json
from umtlib.errors import CheckpointError, ConfigError, TrainingError
from umtlib.machine import devices

TRAINING, PROGRESS, TENSORS = "training.json", "progress.json", "training.safetensors"
KEPT = 2  # checkpoints of a run: the newest, and one before it in case the newest is damaged


@dataclass(frozen=True)
class Progress:
    """How far a checkpoint is, and by what: a step is made of one batch for each process."""

    step: Count
    seconds: Annotated[float, Range(0, 10**9)]
    processes: Annotated[int, Range(1, 10**6)]
    threads: Annotated[int, Range(0, 10**6)] = 0  # 0: of an older run, not known
    bfloat16: Literal["", "native", "none"] = ""  # what the device has; "": not known

    def __post_init__(self):
        check(self)


def progress_of(training: Any, seconds: float) -> Progress:
    """Return how far a training is, and what its last bits depend on here."""
    team, native = training.team, devices.native(training.team.device)
    threads, found = torch.get_num_threads(), "native" if native else "none"
    return Progress(training.step, round(seconds, 1), team.size, threads, found)


def save(run: Path, training: Any, seconds: float) -> None:
    """Write a checkpoint, then remove all but the last two. All ranks must call this."""
    if training.team.rank == 0:
        folder = run / checkpoint.STEP.format(training.step)
        if folder.exists():  # damaged, or the run would have gone on from it
            shutil.rmtree(folder)
        settings = {"recipe": training.config.name} | dataclasses.asdict(training.config)
        content = {
            checkpoint.CONFIG: to_json(training.model.config).encode(),
            checkpoint.WEIGHTS: training.average.state_dict(),
            TRAINING: (files.to_json(settings, indent=2) + "\n").encode(),
            PROGRESS: to_json(progress_of(training, seconds)).encode(),
            TENSORS: tensors(training),
        }
        checkpoint.write(folder, content)
        # Newer ones are damaged too, and a ``.part`` is what a kill has left of a save.
        kept = [path for path in checkpoint.checkpoints(run) if path <= folder][-KEPT:]
        for path in checkpoint.checkpoints(run) + [*run.glob("step-*.part")]:
            if path not in kept:
                shutil.rmtree(path)
    training.team.any(False)  # nobody goes on before the checkpoint is there


def tensors(training: Any) -> dict[str, Tensor]:
    """Return, by name, all tensors of a training that the average does not hold."""
    found = {f"carried.{name}": value for name, value in training.carried.items()}
    if training.model is not training.average:
        found |= {f"model.{name}": value for name, value in training.model.state_dict().items()}
    for part, optimizer in training.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            found |= {f"adam.{part}/{index}/{name}": value for name, value in values.items()}
    return found


def resume(run: Path, training: Any) -> float:
    """Put the newest checkpoint of a run back into a training; return the seconds it took so far.

    Raises
    ------
    TrainingError
        If the run has another configuration or number of processes.
    CheckpointError
        If no checkpoint is intact, or a tensor is missing or not of this model.
    """
    folder, team = checkpoint.newest(run), training.team
    config = training.model.config
    if checkpoint.read_as(type(config), folder / checkpoint.CONFIG) != config:
        raise TrainingError(f"{run} was started with another configuration; see {folder}")
    _check_settings(folder / TRAINING, training.config)
    progress = checkpoint.read_as(Progress, folder / PROGRESS)
    now = progress_of(training, 0)
    if progress.processes != team.size:
        raise TrainingError(
            f"{run} was trained by {progress.processes} processes; continue it with as many, "
            f"not {team.size}: a step is made of one batch for each"
        )
    if progress.threads not in (0, now.threads):
        _warn(
            f"{run} was trained with {progress.threads} threads, not {now.threads}: sums are taken "
            "in another order, and the weights will differ in their last bits; set OMP_NUM_THREADS"
        )
    if progress.bfloat16 not in ("", now.bfloat16):
        _warn(
            f"{run} was trained where bfloat16 is {progress.bfloat16}, and here it is "
            f"{now.bfloat16}: what is computed in it is rounded otherwise from here on"
        )
    training.step = progress.step
    restore(training, checkpoint.read_tensors(folder / TENSORS), folder)
    return progress.seconds


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=5)


def _check_settings(path: Path, config: Any) -> None:
    """Refuse to go on with other settings than those of a checkpoint."""
    try:
        before = files.read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    now = {"recipe": config.name} | dataclasses.asdict(config)
    before = before if isinstance(before, dict) else {}
    try:  # a field that came later had its default
        made = from_values(type(config), {k: v for k, v in before.items() if k != "recipe"})
        before = {"recipe": before.get("recipe", "nothing")} | dataclasses.asdict(made)
    except ConfigError:
        pass
    for name in now | before:
        was, wanted = (values.get(name, "nothing") for values in (before, now))
        if was != wanted or isinstance(was, bool) != isinstance(wanted, bool):
            raise TrainingError(
                f"{path.parent.parent} was started with another configuration: {path} says that "
                f"{name} is {reprlib.repr(was)}, and not {wanted!r}; go on with the same options"
            )


def restore(training: Any, saved: Mapping[str, Tensor], folder: Path) -> None:
    """Put the tensors of a checkpoint back into a training.

    Raises
    ------
    CheckpointError
        If one is missing, or not of this model.
    """
    groups: dict[str, dict[str, Tensor]] = {"carried": {}, "model": {}, "adam": {}}
    for name, value in saved.items():
        kind, _, rest = name.partition(".")
        if kind not in groups:
            raise CheckpointError(f"{name!r} in {folder / TENSORS} does not fit the model")
        groups[kind][rest] = value
    if training.step and not groups["adam"]:
        raise CheckpointError(f"{folder / TENSORS} does not fit the model: no optimizer is in it")
    training.carried = groups["carried"]
    average = checkpoint.read_tensors(folder / checkpoint.WEIGHTS)
    checkpoint.restore(training.average, average, folder)
    if training.model is not training.average:
        checkpoint.restore(training.model, groups["model"], folder)
    for part, optimizer in training.optimizers.items():
        _restore_moments(optimizer, part, groups["adam"], folder / TENSORS)


def _restore_moments(
    optimizer: torch.optim.Optimizer, part: str, saved: Mapping[str, Tensor], path: Path
) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        size = parameter.shape
        shapes = {"step": torch.Size(), "exp_avg": size, "exp_avg_sq": size}
        values = {name: saved.get(f"{part}/{index}/{name}") for name in shapes}
        if all(value is None for value in values.values()):
            continue  # not trained yet
        for name, value in values.items():
            if value is None or value.shape != shapes[name] or not value.is_floating_point():
                raise CheckpointError(f"{name} of {part}/{index} in {path} does not fit the model")
        moments[index] = values
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
