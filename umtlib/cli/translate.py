"""``umt translate``."""

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from typer import Argument, Option

import umtlib
from umtlib.cli import options
from umtlib.cli.printing import say
from umtlib.errors import AudioError, UmtWarning
from umtlib.names import fitting, readable

PICTURED = 5 * 60  # seconds of a long recording that its picture shows


def translate(
    inputs: Annotated[
        list[Path],
        Argument(metavar="IN", help="Recordings: WAV, FLAC, OGG, MP3...", show_default=False),
    ],
    to: Annotated[list[str], Option(help="A domain of the model, or 'all'. May be repeated.")] = [
        "all"
    ],
    out: options.Out = Path("outputs"),
    seed: options.Seed = 0,
    temperature: options.Temperature = 1.0,
    model: options.Model = "six-domains-small",
    backend: options.Backend = "auto",
    dtype: options.Dtype = "float32",
    chunked: Annotated[
        bool | None,
        Option(
            "--chunked/--no-chunked",
            help="Cut at quiet places and make the stretches side by side: faster, but not exact. "
            "By default where a recording is long enough for the processors here.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        bool, Option(help="Also draw OUT/<stem>.png: waveforms and spectrograms.")
    ] = True,
) -> None:
    """Translate recordings; writes OUT/<stem>.<domain>.wav, 16 kHz, as long as the input."""
    from umtlib import audio, generation, translation

    settings = {"temperature": temperature, "backend": backend}
    settings["dtype"] = generation.dtype_named(dtype)
    loaded = umtlib.load(model)
    names = translation.domains(loaded, to)
    jobs = [_plan(path, names, out, picture) for path in inputs]
    _check_names(jobs)
    with tempfile.TemporaryFile() as kept:
        with audio.silenced_decoder():  # all, so that a bad one is refused before any work
            recordings = [audio.Recording(job.input, kept) for job in jobs]
        cut = [
            translation.cuts_pay(loaded, len(names), one.samples) if chunked is None else chunked
            for one in recordings
        ]
        speeds = {  # refuses a backend that is not to be had
            way: translation.speed(loaded, names, chunked=way, **settings)
            for way in sorted(set(cut))
        }
        _check_writable(out)
        seconds = [len(names) * one.samples / audio.SAMPLE_RATE for one in recordings]
        _announce(sum(seconds), sum(s / speeds[way] for s, way in zip(seconds, cut, strict=True)))
        for job, recording, way in zip(jobs, recordings, cut, strict=True):
            _translate_one(loaded, job, recording, chunked=way, seed=seed, **settings)


@dataclass(frozen=True)
class Job:
    """One recording and the files to be made from it."""

    input: Path
    waves: dict[str, Path]  # by domain
    picture: Path | None


def _plan(path: Path, names: Sequence[str], out: Path, picture: bool) -> Job:
    waves = {name: out / fitting(path.stem, f".{name}.wav") for name in names}
    for name, wave in waves.items():
        if wave.name != f"{path.stem}.{name}.wav":
            warnings.warn(f"{path.name} has too long a name to add to; it becomes {wave.name}",
                          UmtWarning, stacklevel=2)  # fmt: skip
    return Job(path, waves, out / fitting(path.stem, ".png") if picture else None)


def _check_names(jobs: Sequence[Job]) -> None:
    inputs = {os.path.realpath(job.input) for job in jobs}  # never fails: links may be a loop
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in filter(None, (*job.waves.values(), job.picture)):
            if os.path.realpath(path) in inputs:
                raise AudioError(f"{path} would overwrite an input; choose another --out")
            if path in taken:
                raise AudioError(
                    f"{taken[path]} and {job.input} would both write {path}; rename one of them"
                )
            taken[path] = job.input


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise AudioError(
            f"cannot write to {out}: {error.strerror}; choose another --out"
        ) from error


def _announce(seconds: float, taken: float) -> None:
    if taken > 15:
        say(f"{seconds:.0f} s of audio to make at {seconds / taken:.2g} x real time: about "
            f"{_minutes(taken)}")  # fmt: skip


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _translate_one(
    model: "umtlib.MusicTranslator",
    job: Job,
    recording: "umtlib.audio.Recording",
    chunked: bool,
    **settings,
) -> None:
    """Translate a recording from file to files: its length does not matter to the memory."""
    from umtlib import audio, translation

    began, samples, number = time.perf_counter(), recording.samples, len(job.waves)
    heard = translation.hear(model, recording.blocks(), samples, settings["dtype"])
    if chunked and (stretches := translation.stretches(model, heard.levels)) > 1:
        say(f"{job.input.name}: cut into {stretches} stretches where it is quiet; --no-chunked "
            "makes it in one, exactly")  # fmt: skip
    shown = PICTURED * audio.SAMPLE_RATE if job.picture else 0
    with _progress(f"{job.input.name} to {number} domains", samples) as tell:
        made = translation.write(
            model, job.waves, heard, shown, chunked=chunked, progress=tell, **settings
        )
    taken, seconds = time.perf_counter() - began, samples / audio.SAMPLE_RATE
    if job.picture:
        _draw(job, recording, made)
    rate = f"{taken / number:.2f} s taken, {seconds / taken * number:.3g} x real time"
    for path in job.waves.values():
        say(f"{path}: {seconds:.2f} s of audio, {rate}")
    if number > 1:
        say(f"made together in {_minutes(taken)}; above, each domain has its share of the time")
    if job.picture:
        say(job.picture)


def _draw(job: Job, recording: "umtlib.audio.Recording", made: dict) -> None:
    """Draw the beginning of a recording, and what was made of it."""
    import numpy as np

    from umtlib.audio import SAMPLE_RATE
    from umtlib.notebook import plots

    beginning = np.concatenate([*recording.blocks(PICTURED * SAMPLE_RATE)])
    cut = recording.samples >= PICTURED * SAMPLE_RATE
    title = f"the first {PICTURED // 60} minutes" if cut else ""
    plots.save(plots.comparison({f"input: {job.input.name}": beginning} | made, title), job.picture)


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere; gives a function that moves it."""
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with tqdm(total=total, desc=readable(name), bar_format=form, leave=False, disable=None) as bar:
        yield lambda done, _total: bar.update(done - bar.n)
