"""``umt translate``."""

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import umtlib
from umtlib.cli import options
from umtlib.cli.printing import bars, quick_imports, say
from umtlib.errors import AudioError
from umtlib.notebook import artist

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
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
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
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(artist.hired()) if picture else None
        with quick_imports():
            from umtlib import audio, generation
            from umtlib.generation import translation

            stack.enter_context(_kernel_threads())
            loaded = stack.enter_context(options.running(model, device, precision))
        backend, number = generation.resolve(backend, dtype)
        settings = {"temperature": temperature, "backend": backend, "dtype": number}
        names = translation.domains(loaded, to)
        jobs = [
            Job(path, {name: out / f"{path.stem}.{name}.wav" for name in names},
                out / f"{path.stem}.png" if picture else None)
            for path in inputs
        ]  # fmt: skip
        _check_names(jobs)
        kept = stack.enter_context(tempfile.TemporaryFile())  # in TMPDIR
        # All, so that a bad one is refused before any work.
        recordings = [audio.Recording(job.input, kept) for job in jobs]
        out.mkdir(parents=True, exist_ok=True)
        for job, recording in zip(jobs, recordings, strict=True):
            cut = translation.cuts_pay(loaded, len(names), recording.samples)
            settings["chunked"] = cut if chunked is None else chunked
            _translate_one(loaded, job, recording, pool, seed=seed, **settings)


@dataclass(frozen=True)
class Job:
    """One recording and the files to be made from it."""

    input: Path
    waves: dict[str, Path]  # by domain
    picture: Path | None


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


def _translate_one(
    model: "umtlib.MusicTranslator",
    job: Job,
    recording: "umtlib.audio.Recording",
    pool: Executor | None,
    chunked: bool,
    **settings,
) -> None:
    """Translate a recording from file to files: its length does not matter to the memory."""
    from umtlib.audio import SAMPLE_RATE
    from umtlib.generation import translation

    began, samples, number = time.perf_counter(), recording.samples, len(job.waves)
    domains = f"{number} domain{'s' * (number > 1)}"
    seconds, shown, seen = samples / SAMPLE_RATE, 0, []
    if pool:
        shown, name = PICTURED * SAMPLE_RATE, f"input: {job.input.name}"
        seen.append(pool.submit(artist.look, name, recording.beginning(shown)))
    heard = translation.hear(model, recording.blocks(), samples, settings["dtype"])
    if chunked and (stretches := translation.stretches(model, heard.levels)) > 1:
        say(f"{job.input.name}: cut into {stretches} stretches where it is quiet; --no-chunked "
            "makes it in one, exactly")  # fmt: skip
    with bars() as progress:
        settings["progress"] = functools.partial(progress, f"{job.input.name} to {domains}")
        made = translation.write(model, job.waves, heard, shown, chunked=chunked, **settings)
        for name, start in made:
            taken = time.perf_counter() - began
            say(f"{job.waves[name]}: {seconds:.2f} s of audio, there after {taken:.3g} s")
            if pool:
                seen.append(pool.submit(artist.look, name, start))
    say(f"{domains} made on {settings['backend']} in {str(settings['dtype'])[6:]} in "
        f"{taken:.3g} s: {seconds / taken * number:.3g} x real time")  # fmt: skip
    if pool:
        title = f"the first {PICTURED // 60} minutes" if samples >= shown else ""
        for done in (*seen, pool.submit(artist.draw, title, job.picture)):
            done.result()
        say(job.picture)


@contextlib.contextmanager
def _kernel_threads() -> Iterator[None]:
    """Leave the processors to the kernel: torch's own threads would spin, and help little."""
    import torch

    from umtlib.generation import thread_count

    before, own = os.environ.copy(), torch.get_num_threads()
    os.environ["UMT_THREADS"] = str(thread_count())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)
        del os.environ["UMT_THREADS"]
        os.environ.update(before)
