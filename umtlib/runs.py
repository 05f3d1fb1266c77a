"""A training run: a folder that can be interrupted at any moment and goes on from there.

::

    RUN/
        log.jsonl           losses and speed, one line per report
        step-00012000/      a checkpoint: a model folder (see `umtlib.checkpoint`) and also
            training.json         the `TrainingConfig`, or what another preset has instead
            progress.json         steps done, seconds used, processes and threads
            training.safetensors  weights in training, optimizers

How a step is made is the matter of a `Training`; the loop and the folder are the same for all. What
a step is shown is a function of (seed, step), so a resumed run ends in the same weights as one that
was never interrupted, bit for bit on the same machine with the same number of threads. Notebook:
``03_training``.
"""

import ctypes
import dataclasses
import os
import pkgutil
import reprlib
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from umtlib import checkpoint, files, watching
from umtlib.config import Count, Preset, Range, check, to_json
from umtlib.corpora.corpus import Corpus
from umtlib.errors import CheckpointError, TrainingError
from umtlib.log import Log
from umtlib.team import Team, join
from umtlib.translator import MusicTranslator, build

TRAININGS = {  # by the name of a preset's training; imported when a run asks for it
    "paper": "umtlib.training:Training",
    "small": "umtlib.small.training:Training",
}
TRAINING, PROGRESS, TENSORS = "training.json", "progress.json", "training.safetensors"
LOG = "log.jsonl"
KEPT = 2  # checkpoints of a run: the newest, and one before it in case the newest is damaged
BAD_STEPS = 5  # steps in a row without a finite gradient before a run stops itself


@dataclass(frozen=True)
class Pace:
    """How often a run reports, validates and saves, in steps."""

    report: int = 60
    validate: int = 3_000
    save: int = 1_000


@dataclass(frozen=True)
class Progress:
    """How far a checkpoint is, and by what: a step is made of one batch for each process."""

    step: Count
    seconds: Annotated[float, Range(0, 10**9)]
    processes: Annotated[int, Range(1, 10**6)]
    threads: Annotated[int, Range(0, 10**6)] = 0  # 0: of an older run, not known

    def __post_init__(self):
        check(self)


class Training(Protocol):
    """A model in training, step by step; `umtlib.training.Training` is one.

    Attributes
    ----------
    config : dataclass
        With a ``name`` in `TRAININGS`.
    team : Team
        The processes that train together.
    step, steps : int
        Steps done, and in all.
    segment : int
        Samples that a decoder has to be shown to be judged.
    domains : tuple of str
        Those that are trained.
    model, average : MusicTranslator
        The weights in training, and those with which one translates: averages, or the same.
    optimizers : dict of str to Optimizer
        For the parts of the model.
    carried : dict of str to Tensor
        What the next step needs besides.
    """

    config: Any
    team: Team
    step: int
    steps: int
    segment: int
    domains: tuple[str, ...]
    model: MusicTranslator
    average: MusicTranslator
    optimizers: dict[str, torch.optim.Optimizer]
    carried: dict[str, Tensor]

    def begin(self) -> None:
        """Give a new model its first weights, where they are not just random."""

    def advance(self) -> dict[str, float | str]:
        """Do the next step and return its report.

        ``samples`` of audio in the step, ``bad`` is 1 if it was skipped; losses, of which
        ``reconstruction`` is that of ``domain``; perhaps a ``stage``.
        """

    def close(self) -> None:
        """End the processes that prepare batches."""


def train(
    data: str | os.PathLike,
    out: str | os.PathLike,
    preset: Preset,
    steps: int | None = None,
    *,
    resume: bool = False,
    workers: int = 1,
    device: str = "cpu",
    pace: Pace = Pace(),
    initial: MusicTranslator | None = None,
    on_report: Callable[[dict], None] | None = None,
    on_validate: Callable[[MusicTranslator, int], list[str]] | None = None,
) -> Path:
    """Train a translator, or go on training it.

    Parameters
    ----------
    data : path
        A corpus folder that has every domain of the preset's model.
    out : path
        The run's folder.
    preset : Preset
        Model and training configuration.
    steps : int, optional
        Steps in all, those before an interruption included. The recipe of ``small`` has a length
        of its own, and with another every stage is made longer or shorter.
    resume : bool
        Go on from the newest intact checkpoint in ``out``, if there is one.
    workers : int
        Processes that prepare batches; the result does not depend on it.
    device : str
        Where to train: ``"cpu"``, ``"cuda"``.
    pace : Pace
        How often to report, validate and save.
    initial : MusicTranslator, optional
        Weights to start a new run from; by default random ones, by the preset's seed.
    on_report : callable, optional
        Receives each line of the log as a dict.
    on_validate : callable, optional
        Receives the averaged model and the step after each validation, and returns warnings; see
        `umtlib.watching`.

    Returns
    -------
    Path
        The newest checkpoint: a folder for `umtlib.load`.

    Raises
    ------
    TrainingError
        If the run exists and ``resume`` is false, belongs to another configuration, the corpus
        lacks a domain, the training is not for this model or machine, or losses are no longer
        finite.
    CheckpointError
        If no intact checkpoint is left, or none can be written.
    """
    run = Path(out)
    keep_memory()
    with ExitStack() as stack:
        team, corpus = stack.enter_context(join(device)), Corpus(data)
        training, seconds = _open(run, preset, steps, resume, team, workers, initial, corpus)
        stack.callback(training.close)
        stopped = stack.enter_context(_stop_signal())  # before that there is nothing to save
        log, bad, stop = Log(run / LOG, training, seconds, on_report), 0, False
        while training.step < training.steps and not stop:
            report = training.advance()
            log.add(report)
            bad = bad + 1 if report["bad"] else 0
            _check_finite(run, bad, training.step)
            stop = team.any(stopped())
            if stop or _due(training, pace.report):
                log.write()
            # Before that there is nothing to be heard.
            if _due(training, pace.validate) and "reconstruction" in report and team.rank == 0:
                log.note(_validation(training, corpus, on_validate))
            # Not between bad steps: a run that has gone wrong must not push out what was good.
            if stop or training.step == training.steps or (_due(training, pace.save) and not bad):
                save(run, training, log.seconds)
    return checkpoint.newest(run)


def keep_memory() -> None:
    """Let the C library keep freed memory.

    To give it back and fault it in again costs a step of ``tiny`` a third more, of ``small`` and
    ``paper`` 5 to 8 %.
    """
    with suppress(OSError, AttributeError):  # another C library than GNU's
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):
            mallopt(option, value)  # no mmap; trim late; grow in steps of 64 MiB


def _due(training: Training, every: int) -> bool:
    return training.step % every == 0 or training.step == training.steps


def _check_finite(run: Path, bad: int, step: int) -> None:
    if bad == BAD_STEPS:
        kept = "is from before that" if checkpoint.checkpoints(run) else "was not made yet"
        raise TrainingError(
            f"{bad} steps in a row had no finite gradient, up to step {step}; lower the learning "
            f"rate or turn bf16 off; the last checkpoint in {run} {kept}"
        )


def _validation(
    training: Training,
    corpus: Corpus,
    on_validate: Callable[[MusicTranslator, int], list[str]] | None,
) -> dict:
    found = watching.validate(training.average, corpus, training.domains, training.segment)
    heard = on_validate(training.average.eval(), training.step) if on_validate else []
    training.average.train()
    return found | {"warnings": watching.complaints(found) + heard}


def _open(
    run: Path,
    preset: Preset,
    steps: int | None,
    resume: bool,
    team: Team,
    workers: int,
    initial: MusicTranslator | None,
    corpus: Corpus,
) -> tuple[Training, float]:
    """Return the training where it is to start, and the seconds that it took to get there."""
    model = build(preset.model, preset.training.seed).to(team.device)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    kind = pkgutil.resolve_name(TRAININGS[preset.training.name])
    training = kind(model, corpus, preset.training, steps, team, workers)
    if not checkpoint.checkpoints(run):
        began = time.monotonic()
        if initial is None:
            training.begin()
        return training, time.monotonic() - began
    if not resume:
        raise TrainingError(
            f"{run} holds a run already; continue it with --resume or choose another"
        )
    folder = checkpoint.newest(run)
    if checkpoint.read_config(folder) != preset.model:
        raise TrainingError(f"{run} was started with another configuration; see {folder}")
    _check_settings(folder / TRAINING, training.config)
    progress = checkpoint.read_as(Progress, folder / PROGRESS)
    _check_machine(run, progress, team)
    training.step = progress.step
    restore(training, checkpoint.read_tensors(folder / TENSORS), folder)
    return training, progress.seconds


def settings(config: Any) -> dict[str, Any]:
    """Return what a checkpoint says of its training's configuration: the name, and all fields."""
    return {"recipe": config.name} | dataclasses.asdict(config)


def _check_settings(path: Path, config: Any) -> None:
    """Refuse to go on with other settings than those of a checkpoint."""
    try:
        before, now = files.read_json(path), settings(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    before = before if isinstance(before, dict) else {}
    for name in now | before:
        was, wanted = (values.get(name, "nothing") for values in (before, now))
        if was != wanted or isinstance(was, bool) != isinstance(wanted, bool):
            raise TrainingError(
                f"{path.parent.parent} was started with another configuration: {path} says that "
                f"{name} is {reprlib.repr(was)}, and not {wanted!r}; go on with the same options"
            )


def _check_machine(run: Path, progress: "Progress", team: Team) -> None:
    if progress.processes != team.size:
        raise TrainingError(
            f"{run} was trained by {progress.processes} processes; continue it with as many, "
            f"not {team.size}: a step is made of one batch for each"
        )
    threads = torch.get_num_threads()
    if progress.threads not in (0, threads):
        warnings.warn(
            f"{run} was trained with {progress.threads} threads, not {threads}: sums are taken "
            "in another order, and the weights will differ in their last bits; set OMP_NUM_THREADS",
            RuntimeWarning,
            stacklevel=4,
        )


def save(run: Path, training: Training, seconds: float) -> None:
    """Write a checkpoint, then remove all but the last two. All ranks must call this."""
    team = training.team
    if team.rank == 0:
        progress = Progress(training.step, round(seconds, 1), team.size, torch.get_num_threads())
        folder = run / checkpoint.STEP.format(training.step)
        if folder.exists():  # damaged, or the run would have gone on from it
            shutil.rmtree(folder)
        content = {
            checkpoint.CONFIG: to_json(training.model.config).encode(),
            checkpoint.WEIGHTS: training.average.state_dict(),
            TRAINING: (files.to_json(settings(training.config), indent=2) + "\n").encode(),
            PROGRESS: to_json(progress).encode(),
            TENSORS: tensors(training),
        }
        checkpoint.write(folder, content)
        _tidy(run, folder)
    team.any(False)  # nobody goes on before the checkpoint is there


def _tidy(run: Path, last: Path) -> None:
    """Keep the last checkpoint and the one before it.

    Newer ones are damaged, or the run would have gone on from them, and a ``.part`` is what a kill
    has left of a save.
    """
    kept = [path for path in checkpoint.checkpoints(run) if path <= last][-KEPT:]
    for path in checkpoint.checkpoints(run) + [*run.glob("step-*.part")]:
        if path not in kept:
            shutil.rmtree(path)


def tensors(training: Training) -> dict[str, Tensor]:
    """Return, by name, all tensors of a training that the average does not hold."""
    found = {f"carried.{name}": value for name, value in training.carried.items()}
    if training.model is not training.average:
        found |= {f"model.{name}": value for name, value in training.model.state_dict().items()}
    for part, optimizer in training.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            found |= {f"adam.{part}/{index}/{name}": value for name, value in values.items()}
    return found


def restore(training: Training, saved: Mapping[str, Tensor], folder: Path) -> None:
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
    sizes = [parameter.shape for parameter in optimizer.param_groups[0]["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for index, size in enumerate(sizes):
        shapes = {"step": torch.Size(), "exp_avg": size, "exp_avg_sq": size}
        values = {name: saved.get(f"{part}/{index}/{name}") for name in shapes}
        if all(value is None for value in values.values()):
            continue  # not trained yet
        for name, value in values.items():
            if value is None or value.shape != shapes[name] or not value.is_floating_point():
                raise CheckpointError(f"{name} of {part}/{index} in {path} does not fit the model")
        moments[index] = values
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and the first Ctrl-C into a wish to stop after the current step."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
