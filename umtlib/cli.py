"""The command ``umt``: one function per verb, each a thin layer over the library.

Heavy imports are inside the functions, so that ``umt --help`` answers at once.
"""

import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from umtlib.errors import AudioError, UmtError

app = typer.Typer(
    help="Translate music between instruments and styles: whistle, and hear an orchestra.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
corpus_app = typer.Typer(help="Make a corpus to train on.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
bench_app = typer.Typer(help="Measure the speed of this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

Out = Annotated[Path, typer.Option(help="Folder to write to; made if it is not there.")]
Seed = Annotated[int, typer.Option(help="Random numbers follow from it.", min=0)]
Backend = Annotated[str, typer.Option(help="Which generator: auto, cpu or reference.")]
Preset = Annotated[str, typer.Option(help="tiny, small, paper or official.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Duration = Annotated[float, typer.Option(help="How long to measure.", min=0.01)]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``umt``; an error that was foreseen is one line on stderr and exit status 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(arguments, prog_name="umt")
    except (UmtError, OSError) as error:
        print("umt: error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _show_warning(message, *_arguments, **_settings) -> None:
    print("umt: warning:", message, file=sys.stderr)


@app.command()
def translate(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN", help="Recordings: WAV, FLAC, OGG, MP3...", show_default=False),
    ],
    to: Annotated[
        list[str], typer.Option(help="A domain of the model, or 'all'. May be repeated.")
    ] = ["all"],  # noqa: B006 (typer copies it)
    out: Out = Path("outputs"),
    seed: Seed = 0,
    temperature: Annotated[
        float, typer.Option(help="1: as the model says; less: tamer.", min=0, max=10)
    ] = 1.0,
    model: Annotated[
        str, typer.Option(help="Name of a shipped model, a model folder or a training run.")
    ] = "six-domains-small",
    backend: Backend = "auto",
    picture: Annotated[
        bool, typer.Option(help="Also draw OUT/<stem>.png: waveforms and spectrograms.")
    ] = True,
) -> None:
    """Translate recordings; writes OUT/<stem>.<domain>.wav, 16 kHz, as long as the input."""
    import umtlib
    from umtlib import translation

    loaded = umtlib.load(model)
    names = translation.domains(loaded, to)
    jobs = [_plan(path, names, out, picture) for path in inputs]
    _check_names(jobs)
    seconds = sum(_duration(job.input) for job in jobs)
    settings = {"temperature": temperature, "backend": backend}
    speed = translation.speed(loaded, names, **settings)  # refuses a backend that is not to be had
    _check_writable(out)
    _announce(seconds * len(names), speed)
    for job in jobs:
        _translate_one(loaded, job, seed=seed, **settings)


@dataclass(frozen=True)
class Job:
    """One recording and the files to be made from it."""

    input: Path
    waves: dict[str, Path]  # by domain
    picture: Path | None

    @property
    def outputs(self) -> list[Path]:
        """All files to be written."""
        return [*self.waves.values()] + ([self.picture] if self.picture else [])


def _plan(path: Path, names: Sequence[str], out: Path, picture: bool) -> Job:
    waves = {name: out / f"{path.stem}.{name}.wav" for name in names}
    return Job(path, waves, out / f"{path.stem}.png" if picture else None)


def _check_names(jobs: list[Job]) -> None:
    inputs = {job.input.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs:
            if path.resolve() in inputs:
                raise AudioError(f"{path} would overwrite an input; choose another --out")
            if path in taken:
                raise AudioError(
                    f"{taken[path]} and {job.input} would both write {path}; rename one of them"
                )
            taken[path] = job.input


def _duration(path: Path) -> float:
    """Read all of a file, so that a bad one is refused before any work; return its seconds."""
    from umtlib.audio import SAMPLE_RATE

    return len(_read(path)) / SAMPLE_RATE


def _read(path: Path):
    from umtlib import audio

    with _silenced_stderr():
        return audio.read(path)


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Hide what the MP3 decoder writes to stderr about damaged files; errors still arrive."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise AudioError(
            f"cannot write to {out}: {error.strerror}; choose another --out"
        ) from error


def _announce(seconds: float, speed: float) -> None:
    if seconds / speed > 15:
        print(f"{seconds:.0f} s of audio to make at {speed:.2g} x real time: about "
              f"{_minutes(seconds / speed)}", flush=True)  # fmt: skip


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _translate_one(model, job: Job, **settings) -> None:
    from umtlib import audio, translation

    waveform = audio.level(_read(job.input))
    began = time.perf_counter()
    with _progress(f"{job.input.name} to {len(job.waves)} domains", len(waveform)) as tell:
        latent = translation.encode(model, waveform)
        sounds = translation.decode(
            model, [*job.waves], latent, len(waveform), progress=tell, **settings
        )
    taken = time.perf_counter() - began
    for name, path in job.waves.items():
        audio.write(path, sounds[name])
        print(path, _rate(len(waveform) / audio.SAMPLE_RATE, taken / len(sounds)), sep=": ")
    if len(sounds) > 1:
        print(f"made together in {_minutes(taken)}; above, each domain has its share of the time")
    if job.picture:
        from umtlib.notebook import plots

        plots.save(plots.comparison({f"input: {job.input.name}": waveform} | sounds), job.picture)
        print(job.picture, flush=True)


def _rate(seconds: float, taken: float) -> str:
    return f"{seconds:.2f} s of audio, {taken:.2f} s taken, {seconds / taken:.3g} x real time"


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator:
    """Show a bar on a terminal, and nothing elsewhere; gives a function that moves it."""
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with tqdm(total=total, desc=name, bar_format=form, leave=False, disable=None) as bar:
        yield lambda done, _total: bar.update(done - bar.n)


@app.command()
def train(
    preset: Preset,
    data: Annotated[Path, typer.Option(help="A corpus folder; see 'umt corpus'.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    steps: Annotated[int, typer.Option(help="Steps in all.", min=1)],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a model on every domain of a corpus; Ctrl-C saves and stops, --resume goes on."""
    from umtlib import config, runs
    from umtlib.corpora.corpus import Corpus

    found = Corpus(data).domains
    names = config.SIX_DOMAINS if set(found) == set(config.SIX_DOMAINS) else found
    chosen = config.preset(preset, names)
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def report(line: dict) -> None:
            bar.update(line["step"] - bar.n)
            bar.write("  ".join(f"{name} {value}" for name, value in line.items()))

        folder = runs.train(
            data,
            out,
            chosen,
            steps,
            resume=resume,
            workers=workers,
            device=device,
            on_report=report,
        )
    print(f"{folder}: translate with it by --model {out}")


@corpus_app.command("six-domains")
def six_domains(
    out: Out,
    seed: Seed = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per CPU.", min=1)
    ] = None,
    mini: Annotated[
        bool, typer.Option("--mini", help="Minutes in FLAC, not hours in WAV.")
    ] = False,
) -> None:
    """Render public scores with sampled instruments in six domains; needs fluidsynth."""
    from umtlib.corpora.six_domains import build

    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        bar = bars.setdefault(stage, tqdm(total=total, desc=stage, disable=None))
        bar.update(done - bar.n)

    print(build(out, seed=seed, workers=workers, mini=mini, progress=progress))


@bench_app.command("generate")
def bench_generate(
    preset: Preset = "small",
    streams: Annotated[int, typer.Option(help="Inputs at once.", min=1)] = 1,
    domains: Annotated[int, typer.Option(help="Decoders at once.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="By default one per core.", min=1)] = None,
    seconds: Duration = 5,
    backend: Backend = "auto",
    dtype: Dtype = "float32",
    json: Json = False,
) -> None:
    """Measure how many samples per second are generated."""
    from umtlib import bench

    settings = {"streams": streams, "domains": domains, "threads": threads}
    _show(bench.generate(preset, **settings, seconds=seconds, backend=backend, dtype=dtype), json)


@bench_app.command("encode")
def bench_encode(
    preset: Preset = "small", seconds: Duration = 5, dtype: Dtype = "float32", json: Json = False
) -> None:
    """Measure how long encoding one second of audio takes."""
    from umtlib import bench

    _show(bench.encode(preset, seconds=seconds, dtype=dtype), json)


def _show(values: dict, json: bool) -> None:
    if json:
        from json import dumps

        print(dumps(values))
        return
    for name, value in values.items():
        print(f"{name:<20}{value}")


@app.command()
def doctor() -> None:
    """Say what this machine has, and what each thing means for speed."""
    from umtlib.doctor import examine

    for finding in examine():
        print(f"{finding.name:<14}{finding.value}")
        if finding.meaning:
            print(f"{'':<14}  {finding.meaning}")


if __name__ == "__main__":
    main()
