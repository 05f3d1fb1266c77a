"""A training run: a folder that can be interrupted at any moment and goes on from there.

::

    RUN/
        log.jsonl           losses and speed, one line per report
        step-00012000/      a checkpoint: a model folder (see `umtlib.checkpoint`) and also
            training.json         the `TrainingConfig`, or what another preset has instead
            progress.json         steps done, seconds used; processes, threads, bfloat16
            training.safetensors  weights in training, optimizers

How a step is made is the matter of `umtlib.training.Training` or another class with its attributes
and methods; the loop and the folder are the same for all. What a step is shown is a function of
(seed, step), so a resumed run ends in the same weights as one that was never interrupted, bit for
bit on the same machine with the same number of threads. Notebook: ``05_training_six_domains``.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from umtlib import checkpoint, config, training
from umtlib.config import Preset
from umtlib.corpora.batches import Segments
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError
from umtlib.machine import devices
from umtlib.machine.team import Team, join
from umtlib.runs import watching
from umtlib.runs.folder import PROGRESS, TENSORS, TRAINING, Progress, restore, resume, save
from umtlib.runs.log import Log
from umtlib.small import training as small
from umtlib.small.recipe import SMALL
from umtlib.translator import MusicTranslator, build

__all__ = [
    "LOG", "PRESETS", "PROGRESS", "TENSORS", "TRAINING", "TRAININGS", "Pace", "Progress",
    "check", "keep_memory", "preset", "restore", "save", "train",
]  # fmt: skip

PRESETS = config.PRESETS | {"small": SMALL}
TRAININGS = {"paper": training, "small": small}  # modules, by the name of their configuration
Training = training.Training | small.Training
LOG = "log.jsonl"
BAD_STEPS = 5  # steps in a row without a finite gradient before a run stops itself


def preset(name: str, domains: Iterable[str] = config.SIX_DOMAINS) -> Preset:
    """Return a preset, ``"small"`` or one of `umtlib.config.preset`, or raise ConfigError."""
    return config.preset(name, domains, PRESETS)


def check(model: MusicTranslator, training: Any, device: torch.device, steps: int | None) -> None:
    """Raise TrainingError if a model cannot be trained so, before anything is prepared for it."""
    TRAININGS[training.name].check(model, Team(device=device), steps)


@dataclass(frozen=True)
class Pace:
    """How often a run reports, validates and saves, in steps."""

    report: int = 60
    validate: int = 3_000
    save: int = 1_000


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
    """Train a translator, or go on training it; return the newest checkpoint.

    Parameters
    ----------
    data, out : path
        A corpus that has every domain of the preset's model; the run's folder.
    steps : int, optional
        Steps in all, those before an interruption included. The recipe of ``small`` has a length
        of its own, and with another every stage is made longer or shorter.
    resume : bool
        Go on from the newest intact checkpoint in ``out``, if there is one.
    workers : int
        Processes that prepare batches; the result does not depend on it.
    initial : MusicTranslator, optional
        Weights to start a new run from; by default random ones, by the preset's seed.
    on_report : callable, optional
        Receives each line of the log as a dict.
    on_validate : callable, optional
        Receives, after each validation, the model with which one translates, and the step; returns
        warnings.

    Raises
    ------
    ConfigError
        If there is no such device, or not enough memory on it.
    TrainingError
        If the run exists and ``resume`` is false, belongs to another configuration, the corpus
        lacks a domain or has none of it held out, the training is not for this model or machine,
        or losses are no longer finite.
    CheckpointError
        If no intact checkpoint is left, or none can be written.
    """
    run = Path(out)
    keep_memory()
    with ExitStack() as stack:
        place = devices.device(device, gpu=getattr(preset.training, "on_gpu", False))
        wanted = getattr(preset.training, "precision", "float32")
        stack.enter_context(devices.tf32(devices.precision(wanted, place) == "tf32"))
        stack.enter_context(devices.told_of_memory())
        team, corpus = stack.enter_context(join(place)), Corpus(data)
        model = build(preset.model, preset.training.seed).to(team.device)
        if initial is not None:
            model.load_state_dict(initial.state_dict())
        made = TRAININGS[preset.training.name].Training
        training = made(model, corpus, preset.training, steps, team, workers)
        Segments(corpus, training.domains, "val")  # there must be some before hours are spent
        seconds = _begun(run, training, resume, new=initial is None)
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
            # Not between bad steps: a run that has gone wrong must not push out what was good.
            if stop or training.step == training.steps or (_due(training, pace.save) and not bad):
                save(run, training, log.seconds)
            # After the save, which it must not cost; before a reconstruction nothing can be heard.
            heard = "reconstruction" in report and team.rank == 0 and not stop
            if heard and _due(training, pace.validate):
                log.note(_validation(training, corpus, on_validate))
    return checkpoint.newest(run)


def keep_memory() -> None:
    """Let the C library keep freed memory; else a step takes 5 to 8 % longer."""
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
            f"rate or train in float32; the last checkpoint in {run} {kept}"
        )


def _validation(training: Training, corpus: Corpus, on_validate: Callable | None) -> dict:
    found = watching.validate(training.average, corpus, training.domains, training.segment)
    heard = on_validate(training.average.eval(), training.step) if on_validate else []
    training.average.train()
    return found | {"warnings": watching.complaints(found) + heard}


def _begun(run: Path, training: Training, go_on: bool, new: bool) -> float:
    """Bring a training to where it is to start; return the seconds that it took to get there."""
    if checkpoint.checkpoints(run):
        if go_on:
            return resume(run, training)
        raise TrainingError(f"{run} holds a run already; go on with --resume or choose another")
    began = time.monotonic()
    if new:
        training.begin()
    return time.monotonic() - began


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
