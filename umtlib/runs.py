"""A training run: a folder that can be interrupted at any moment and goes on from there.

::

    RUN/
        log.jsonl           losses and speed, one line per report
        step-00012000/      a checkpoint: a model folder (see `umtlib.checkpoint`) and also
            training.json         the `TrainingConfig`
            progress.json         steps done, seconds used, processes and threads
            training.safetensors  weights in training, optimizers

Batches are a function of (seed, step), so a resumed run ends in the same weights as one that was
never interrupted, bit for bit on the same machine with the same number of threads. Notebook:
``03_training``.
"""

import os
import shutil
import signal
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from umtlib import checkpoint, files, losses, pretraining
from umtlib.batches import Crops, loader
from umtlib.config import Count, Preset, Range, TrainingConfig, check, to_json
from umtlib.corpora.corpus import Corpus
from umtlib.errors import CheckpointError, TrainingError
from umtlib.team import Team, join
from umtlib.training import State, autocast, collect, spread, start, train_step
from umtlib.translator import MusicTranslator

TRAINING, PROGRESS, TENSORS, LOG = (
    "training.json",
    "progress.json",
    "training.safetensors",
    "log.jsonl",
)
KEPT = 2  # checkpoints of a run: the newest, and one before it in case the newest is damaged
UNUSED = 0.01  # nats per sample that the right latent must be better than a wrong one
FOOLED_NEVER = 0.95  # accuracy of the classifier above which the encoder hides nothing
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


def train(
    data: str | os.PathLike,
    out: str | os.PathLike,
    preset: Preset,
    steps: int,
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
    steps : int
        Steps in all, those before an interruption included.
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
        lacks a domain, or losses are no longer finite.
    CheckpointError
        If no intact checkpoint is left, or none can be written.
    """
    run = Path(out)
    config = preset.training
    with ExitStack() as stack:
        team, corpus = stack.enter_context(join(device)), Corpus(data)
        state, seconds = _open(run, preset, resume, team, initial, corpus)
        stopped = stack.enter_context(_stop_signal())  # before that there is nothing to save
        names = (config.only,) if config.only else state.model.domains
        crops = Crops(corpus, names, config, "train", steps * team.size, preset.model.mulaw)
        mine = range(state.step * team.size + team.rank, len(crops), team.size)
        log = _Log(run, state, seconds, config.crop * config.batch * team.size, on_report)
        bad = 0
        for batch in loader(crops, mine, workers):
            report = train_step(state, batch.to(team.device), config, steps)
            log.add(batch.domain, report)
            bad = bad + 1 if report["bad"] else 0
            if bad == BAD_STEPS:
                kept = "is from before that" if checkpoint.checkpoints(run) else "was not made yet"
                raise TrainingError(
                    f"{bad} steps in a row had no finite gradient, up to step {state.step}; lower "
                    f"the learning rate or turn bf16 off; the last checkpoint in {run} {kept}"
                )
            stop = team.any(stopped())
            if stop or _due(state.step, pace.report, steps):
                log.write()
            if _due(state.step, pace.validate, steps):
                _gather(state, config)
                if team.rank == 0:
                    found = validate(state.average, corpus, config)
                    heard = on_validate(state.average.eval(), state.step) if on_validate else []
                    state.average.train()
                    log.note(found | {"warnings": complaints(found) + heard})
            # Not between bad steps: a run that has gone wrong must not push out what was good.
            if stop or state.step == steps or (state.step % pace.save == 0 and not bad):
                save(run, state, config, log.seconds)
            if stop:
                break
    return checkpoint.newest(run)


def _due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _begin(state: State, config: TrainingConfig, corpus: Corpus, initial: MusicTranslator | None):
    """Give a new run its first weights, where they are not just random."""
    model = state.model
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    if config.pretraining_steps and (config.only or initial is None):
        fit = pretraining.add_domain if config.only else pretraining.pretrain
        names = (config.only,) if config.only else model.domains
        fit(model, pretraining.read(corpus, model, names, config), config)
    state.average.load_state_dict(model.state_dict())


def _open(
    run: Path,
    preset: Preset,
    resume: bool,
    team: Team,
    initial: MusicTranslator | None,
    corpus: Corpus,
) -> tuple[State, float]:
    """Return the state to start from, and the seconds that it took to get there."""
    state = start(preset.model, preset.training, team)
    if not checkpoint.checkpoints(run):
        began = time.monotonic()
        _begin(state, preset.training, corpus, initial)
        seconds = time.monotonic() - began
        if preset.training.pretraining_steps:
            save(run, state, preset.training, seconds)
        return state, seconds
    if not resume:
        raise TrainingError(
            f"{run} holds a run already; continue it with --resume or choose another"
        )
    folder = checkpoint.newest(run)
    training = checkpoint.read_as(TrainingConfig, folder / TRAINING)
    progress = checkpoint.read_as(Progress, folder / PROGRESS)
    if (checkpoint.read_config(folder), training) != (preset.model, preset.training):
        raise TrainingError(f"{run} was started with another configuration; see {folder}")
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
            stacklevel=3,
        )
    state.step = progress.step
    restore(state, checkpoint.read_tensors(folder / TENSORS), folder)
    return state, progress.seconds


def _gather(state: State, config: TrainingConfig) -> None:
    """Make the state whole: decoders of other ranks, and copies of shared weights."""
    collect(state)
    spread(state, config)


def save(run: Path, state: State, config: TrainingConfig, seconds: float) -> None:
    """Write a checkpoint, then remove all but the last two. All ranks must call this."""
    _gather(state, config)
    if state.team.rank == 0:
        progress = Progress(state.step, round(seconds, 1), state.team.size, torch.get_num_threads())
        folder = run / checkpoint.STEP.format(state.step)
        if folder.exists():  # damaged, or the run would have gone on from it
            shutil.rmtree(folder)
        content = {
            checkpoint.CONFIG: to_json(state.model.config).encode(),
            checkpoint.WEIGHTS: state.average.state_dict(),
            TRAINING: to_json(config).encode(),
            PROGRESS: to_json(progress).encode(),
            TENSORS: tensors(state),
        }
        checkpoint.write(folder, content)
        _tidy(run, folder)
    state.team.any(False)  # nobody goes on before the checkpoint is there


def _tidy(run: Path, last: Path) -> None:
    """Keep the last checkpoint and the one before it.

    Newer ones are damaged, or the run would have gone on from them, and a ``.part`` is what a kill
    has left of a save.
    """
    kept = [path for path in checkpoint.checkpoints(run) if path <= last][-KEPT:]
    for path in checkpoint.checkpoints(run) + [*run.glob("step-*.part")]:
        if path not in kept:
            shutil.rmtree(path)


def tensors(state: State) -> dict[str, Tensor]:
    """Return, by name, all tensors of a state that the average does not hold."""
    found = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for part, optimizer in state.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            found |= {f"adam.{part}/{index}/{name}": value for name, value in values.items()}
    return found


def restore(state: State, saved: Mapping[str, Tensor], folder: Path) -> None:
    """Put the tensors of a checkpoint back into a state.

    Raises
    ------
    CheckpointError
        If one is missing, or not of this model.
    """
    groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in saved.items():
        kind, _, rest = name.partition(".")
        groups[kind][rest] = value
    average = checkpoint.read_tensors(folder / checkpoint.WEIGHTS)
    checkpoint.restore(state.average, average, folder)
    checkpoint.restore(state.model, groups["model"], folder)
    for part, optimizer in state.optimizers.items():
        known = optimizer.state_dict()
        sizes = [parameter.shape for parameter in optimizer.param_groups[0]["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for index, size in enumerate(sizes):
            shapes = {"step": torch.Size(), "exp_avg": size, "exp_avg_sq": size}
            values = {name: groups["adam"].get(f"{part}/{index}/{name}") for name in shapes}
            if all(value is None for value in values.values()):
                continue  # not trained yet
            for name, value in values.items():
                if value is None or value.shape != shapes[name] or not value.is_floating_point():
                    raise CheckpointError(
                        f"{name} of {part}/{index} in {folder / TENSORS} does not fit the model"
                    )
            moments[index] = values
        optimizer.load_state_dict(known | {"state": moments})


@torch.no_grad()
def validate(
    model: MusicTranslator, corpus: Corpus, config: TrainingConfig, batches: int = 2
) -> dict[str, dict[str, float]]:
    """Measure a translator on held-out segments, always the same ones.

    Parameters
    ----------
    model : MusicTranslator
        What to measure.
    corpus : Corpus
        Must have tracks in its ``val`` split.
    config : TrainingConfig
        Segment length and arithmetic.
    batches : int
        Per domain, of 8 segments.

    Returns
    -------
    dict
        ``nats``: per domain, mean cross-entropy per sample; ``nats_wrong_latent``: the same with
        the latent of another segment (as good: the decoder ignores the latent); ``accuracy``: of
        the classifier.
    """
    names = (config.only,) if config.only else model.domains
    settings, number = replace(config, batch=8), batches * len(names)
    crops = Crops(corpus, names, settings, "val", number, model.config.mulaw)
    sums: dict[str, list[list[float]]] = defaultdict(list)
    for batch in loader(crops, range(len(crops)), workers=0):
        batch = batch.to(next(model.parameters()).device)
        decoder = model.decoders[batch.domain]
        with autocast(config, batch.target.device):
            latent = model.encode(batch.heard)
            right, wrong = (decoder(batch.given, z) for z in (latent, latent.roll(1, dims=0)))
            guess = model.classifier(latent).argmax(1)
        hits = guess == model.domains.index(batch.domain)
        found = [losses.reconstruction(x, batch.target).item() for x in (right, wrong)]
        sums[batch.domain].append([*found, hits.float().mean().item()])
    means = {name: torch.tensor(rows).mean(0).tolist() for name, rows in sums.items()}
    keys = ("nats", "nats_wrong_latent", "accuracy")
    return {
        key: {name: round(row[i], 4) for name, row in means.items()} for i, key in enumerate(keys)
    }


def complaints(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say in plain words what a validation shows to be going wrong."""
    said = [
        f"the decoder of {name} does not use the latent: another segment's is as good"
        for name, nats in found["nats"].items()
        if found["nats_wrong_latent"][name] - nats < UNUSED
    ]
    accuracy = sum(found["accuracy"].values()) / len(found["accuracy"])
    if len(found["accuracy"]) == 1:
        return said
    if accuracy > FOOLED_NEVER:
        said.append(
            f"the classifier is right for {accuracy:.0%} of the segments: the latent still tells "
            "the domain; a larger confusion_weight would hide it"
        )
    elif accuracy <= 1 / len(found["accuracy"]):
        said.append(
            f"the classifier is right for {accuracy:.0%} of the segments, no more than by chance: "
            "either the latent hides the domain, or the classifier has learned nothing; if it was "
            "never better, lower the confusion_weight"
        )
    return said


class _Log:
    """``log.jsonl``: means since the last line; those after a resumed step are removed."""

    def __init__(self, run: Path, state: State, seconds: float, samples: int, on_report):
        self.path, self.state, self.samples = run / LOG, state, samples
        self.on_report = on_report
        self.began = time.monotonic() - seconds
        self.since, self.sums = self.began + seconds, defaultdict(list)
        if state.team.rank == 0:
            run.mkdir(parents=True, exist_ok=True)
            _cut_log(self.path, state.step)

    @property
    def seconds(self) -> float:
        """Seconds of training since step 0, interruptions not counted."""
        return time.monotonic() - self.began

    def add(self, domain: str, report: dict[str, float]) -> None:
        for name, value in report.items():
            self.sums[name].append(value)
        if "reconstruction" in report:
            self.sums[domain].append(report["reconstruction"])

    def write(self) -> None:
        """Write the means over all ranks."""
        now = time.monotonic()
        rate = len(self.sums["bad"]) * self.samples / (now - self.since)
        together = defaultdict(list)
        for sums in self.state.team.gather(dict(self.sums)):
            for name, values in sums.items():
                together[name] += values
        means = {name: round(sum(values) / len(values), 4) for name, values in together.items()}
        means["bad"] = sum(together["bad"]) / self.state.team.size  # all ranks skip a step together
        self.since, self.sums = now, defaultdict(list)
        if self.state.team.rank == 0:
            self.note({"samples_per_second": round(rate)} | means)

    def note(self, values: dict) -> None:
        line = {"step": self.state.step, "seconds": round(self.seconds, 1)} | values
        with self.path.open("a", encoding="utf-8") as out:
            out.write(files.to_json(line) + "\n")
        if self.on_report:
            self.on_report(line)


def _cut_log(path: Path, step: int) -> None:
    """Remove the lines after a step, and one that a full disk has torn, from a log."""
    if not path.exists():
        return
    with files.open_regular(path) as log, files.replacing(path) as part:
        part.write_bytes(b"".join(line.strip() + b"\n" for line in log if _step_of(line) <= step))


def _step_of(line: bytes) -> float:
    """Return the step of a line of the log; infinity, if it is none."""
    try:
        return float(files.parse_json(line)["step"])
    except (ValueError, TypeError, LookupError, OverflowError):
        return float("inf")


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
