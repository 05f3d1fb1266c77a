"""``umt translate``."""

import contextlib
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from typer import Argument, Option

import umtlib
from umtlib.cli import options
from umtlib.cli.printing import quick_imports, say
from umtlib.errors import AudioError, UmtWarning
from umtlib.files.names import fitting, readable

PICTURED = 5 * 60  # seconds of a long recording that its picture shows
LONG = 60  # seconds of audio to make of which it is worth the measuring how long that takes


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
        artist = stack.enter_context(_artist()) if picture else None
        with quick_imports():
            from umtlib import audio, generation
            from umtlib.generation import translation

            stack.enter_context(_kernel_threads())
            loaded = stack.enter_context(options.running(model, device, precision))
        backend, number = generation.resolve(backend, dtype)
        settings = {"temperature": temperature, "backend": backend, "dtype": number}
        names = translation.domains(loaded, to)
        jobs = [_plan(path, names, out, picture) for path in inputs]
        _check_names(jobs)
        kept = stack.enter_context(tempfile.TemporaryFile())
        try:
            # All, so that a bad one is refused before any work.
            recordings = [audio.Recording(job.input, kept) for job in jobs]
        except OSError as error:
            raise AudioError(
                f"no room to keep recordings decoded in {tempfile.gettempdir()}: {error.strerror}; "
                "set TMPDIR to a folder on a larger disk"
            ) from error
        cut = [
            translation.cuts_pay(loaded, len(names), r.samples) if chunked is None else chunked
            for r in recordings
        ]
        _check_writable(out)
        seconds = [len(names) * r.samples / audio.SAMPLE_RATE for r in recordings]
        if sum(seconds) > LONG:
            speeds = {
                way: translation.speed(loaded, names, chunked=way, **settings)
                for way in sorted(set(cut))
            }
            taken = sum(s / speeds[way] for s, way in zip(seconds, cut, strict=True))
            _announce(sum(seconds), taken)
        for job, recording, way in zip(jobs, recordings, cut, strict=True):
            _translate_one(loaded, job, recording, artist, chunked=way, seed=seed, **settings)


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
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _translate_one(
    model: "umtlib.MusicTranslator",
    job: Job,
    recording: "umtlib.audio.Recording",
    artist: Executor | None,
    chunked: bool,
    **settings,
) -> None:
    """Translate a recording from file to files: its length does not matter to the memory."""
    from umtlib.audio import SAMPLE_RATE
    from umtlib.generation import translation

    began, samples, number = time.perf_counter(), recording.samples, len(job.waves)
    seconds, shown, seen = samples / SAMPLE_RATE, 0, []
    if artist:
        shown = PICTURED * SAMPLE_RATE
        seen.append(artist.submit(_look, f"input: {job.input.name}", recording.beginning(shown)))
    heard = translation.hear(model, recording.blocks(), samples, settings["dtype"])
    if chunked and (stretches := translation.stretches(model, heard.levels)) > 1:
        say(f"{job.input.name}: cut into {stretches} stretches where it is quiet; --no-chunked "
            "makes it in one, exactly")  # fmt: skip
    with _progress(f"{job.input.name} to {number} domains", samples) as tell:
        made = translation.write(
            model, job.waves, heard, shown, chunked=chunked, progress=tell, **settings
        )
        for name, start in made:
            taken = time.perf_counter() - began
            say(f"{job.waves[name]}: {seconds:.2f} s of audio, there after {_minutes(taken)}")
            if artist:
                seen.append(artist.submit(_look, name, start))
    say(f"{number} domains made on {settings['backend']} in {str(settings['dtype'])[6:]} in "
        f"{_minutes(taken)}: {seconds / taken * number:.3g} x real time")  # fmt: skip
    if artist:
        title = f"the first {PICTURED // 60} minutes" if samples >= shown else ""
        for done in (*seen, artist.submit(_draw, title, job.picture)):
            done.result()
        say(job.picture)


@contextlib.contextmanager
def _kernel_threads() -> Iterator[None]:
    """Leave the processors to the kernel: torch's own threads would spin, and help little."""
    import torch

    from umtlib.generation import thread_count

    wish, own, kernels = os.environ.get("UMT_THREADS"), torch.get_num_threads(), thread_count()
    os.environ["UMT_THREADS"] = str(kernels)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(own)
        os.environ.pop("UMT_THREADS")
        os.environ.update({} if wish is None else {"UMT_THREADS": wish})


@contextlib.contextmanager
def _artist() -> Iterator[Executor]:
    """Give a process that draws: it imports what it needs while this one imports other things."""
    with ProcessPoolExecutor(1, get_context("spawn"), _sit_down) as pool:
        pool.submit(os.getpid)  # starts it
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _sit_down() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of which the other process tells
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy's would spin, where the kernel's have work to do
    with quick_imports():
        from umtlib.notebook import plots

        plots.kernels()


_rows = {}  # what the artist has looked at; the other process would import much to take it back


def _look(name, waveform) -> None:
    from umtlib.notebook import plots

    _rows[name] = plots.row(waveform)


def _draw(title: str, path: Path) -> None:
    from umtlib.notebook import plots

    plots.save(plots.drawn(_rows, title), path)
    _rows.clear()


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere; gives a function that moves it."""
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with tqdm(total=total, desc=readable(name), bar_format=form, leave=False, disable=None) as bar:
        yield lambda done, _total: bar.update(done - bar.n)
