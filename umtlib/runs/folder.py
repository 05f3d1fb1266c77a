"""A run's checkpoints: a model folder (see `umtlib.checkpoint`) and what a resumed run needs."""

import dataclasses
import reprlib
import shutil
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from umtlib import checkpoint, files
from umtlib.config import Checked, Count, Range, Some, to_json
from umtlib.errors import TrainingError
from umtlib.machine import devices

TRAINING, PROGRESS, TENSORS = "training.json", "progress.json", "training.safetensors"
KEPT = 2  # checkpoints of a run: the newest, and one before it in case the newest is damaged


@dataclass(frozen=True)
class Progress(Checked):
    """How far a checkpoint is, and by what: a step is made of one batch for each process."""

    step: Count
    seconds: Annotated[float, Range(0, 10**9)]
    processes: Some
    threads: Some
    bfloat16: Literal["native", "none"]  # what the device has


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
        settings = files.to_json(_settings(training.config), indent=2) + "\n"
        content = {
            checkpoint.CONFIG: to_json(training.model.config).encode(),
            checkpoint.WEIGHTS: training.average.state_dict(),
            TRAINING: settings.encode(),
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


def _settings(config: Any) -> dict[str, Any]:
    return {"recipe": config.name} | dataclasses.asdict(config)


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

    Raises TrainingError if the run has another configuration or number of processes, and
    CheckpointError if no checkpoint is intact, or it is of another version.
    """
    folder, config = checkpoint.newest(run), training.model.config
    if checkpoint.read_as(type(config), folder / checkpoint.CONFIG) != config:
        raise TrainingError(f"{run} was started with another configuration; see {folder}")
    was, now = files.read_json(folder / TRAINING), _settings(training.config)
    for name in now | was:
        old, new = (values.get(name, "nothing") for values in (was, now))
        if old != new:
            raise TrainingError(
                f"{run} was started with another configuration: {folder / TRAINING} says that "
                f"{name} is {reprlib.repr(old)}, and not {new!r}; go on with the same options"
            )
    progress = _progress(run, training, folder)
    restore(training, checkpoint.read_tensors(folder / TENSORS), folder)
    training.step = progress.step
    return progress.seconds


def _progress(run: Path, training: Any, folder: Path) -> Progress:
    """Return how far a checkpoint is; warn if it was made in another way than now."""
    was, now = checkpoint.read_as(Progress, folder / PROGRESS), progress_of(training, 0)
    if was.processes != now.processes:
        raise TrainingError(
            f"{run} was trained by {was.processes} processes; continue it with as many, "
            f"not {now.processes}: a step is made of one batch for each"
        )
    for name, mend in (
        ("threads", "set OMP_NUM_THREADS"),
        ("bfloat16", "go on where it was begun"),
    ):
        old, new = getattr(was, name), getattr(now, name)
        if old != new:
            text = f"{run} was trained with {old} {name}, not {new}: from here on sums are rounded "
            text += f"otherwise, and the weights differ in their last bits; {mend}"
            warnings.warn(text, RuntimeWarning, stacklevel=5)
    return was


def restore(training: Any, saved: Mapping[str, Tensor], folder: Path) -> None:
    """Put the tensors of a checkpoint back into a training, or raise CheckpointError."""

    def below(start: str) -> dict[str, Tensor]:
        return {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}

    training.carried = below("carried.")
    average = checkpoint.read_tensors(folder / checkpoint.WEIGHTS)
    checkpoint.restore(training.average, average, folder)
    if training.model is not training.average:
        checkpoint.restore(training.model, below("model."), folder)
    for part, optimizer in training.optimizers.items():
        moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for place, value in below(f"adam.{part}/").items():
            index, name = place.split("/")
            moments[int(index)][name] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(moments)})
