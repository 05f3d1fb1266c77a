"""The command ``umt``: one function per verb, each a thin layer over the library.

Heavy imports are inside the functions, so that ``umt --help`` answers at once.
"""

import contextlib
import math
import os
import signal
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

from umtlib import files
from umtlib.errors import AudioError, CorpusError, UmtError

app = typer.Typer(
    help="Translate music between instruments and styles: whistle, and hear an orchestra.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
corpus_app = typer.Typer(help="Make a corpus to train on.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
stimuli_app = typer.Typer(help="Make a blinded listening test.", no_args_is_help=True)
app.add_typer(stimuli_app, name="stimuli")
bench_app = typer.Typer(help="Measure the speed of this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


def _real(text: str, least: float, most: float):
    """Return an option that is a number in a range; typer's own ranges let NaN pass."""

    def check(value: float | None) -> float | None:
        if value is not None and math.isnan(value):
            raise typer.BadParameter("nan is not a number.")
        return value

    return typer.Option(help=text, min=least, max=most, callback=check)


Out = Annotated[Path, typer.Option(help="Folder to write to; made if it is not there.")]
Seed = Annotated[int, typer.Option(help="Random numbers follow from it.", min=0, max=2**63 - 1)]
Backend = Annotated[str, typer.Option(help="Which generator: auto, cuda, cpu or reference.")]
Temperature = Annotated[float, _real("1: as the model says; less: tamer.", 0, 10)]
Model = Annotated[
    str, typer.Option(help="Name of a shipped model, a model folder or a training run.")
]
Paired = Annotated[Path, typer.Option(help="A corpus with paired excerpts, such as data/mini.")]
NewFolder = Annotated[Path, typer.Option(help="Folder to write to; must not exist yet.")]
Excerpts = Annotated[
    int | None,
    typer.Option(help="Use so many, spread over the sources. Default: all.", min=1, max=10**6),
]
Preset = Annotated[str, typer.Option(help="tiny, small, paper or official.")]
Dtype = Annotated[str, typer.Option(help="float32 (exact), bfloat16 or int8 (faster).")]
Float = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Duration = Annotated[float, _real("Seconds: how long to measure.", 0.01, 24 * 3600)]
Workers = Annotated[
    int | None, typer.Option(help="Processes; by default one per CPU.", min=1, max=1_024)
]
Download = Annotated[bool, typer.Option("--download", help="First fetch what DIR lacks.")]
Names = Annotated[list[str], typer.Option(help="Only these. May be repeated.")]
Pitches = Annotated[
    tuple[int, int], typer.Option(help="Lowest and highest MIDI pitch.", min=0, max=127)
]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON.")]

PICTURED = 5 * 60  # seconds of a long recording that its picture shows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``umt``; an error that was foreseen is one line on stderr and exit status 2."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch says the rest by exceptions
    previous = signal.getsignal(signal.SIGTERM)
    files.stop_in_order()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            sys.exit(app(arguments, prog_name="umt", standalone_mode=False))
    except _UsageError as error:
        message = error.format_message()
        if error.ctx and message == error.ctx.get_help():  # nothing was asked for
            error.show()
        else:
            command = error.ctx.command_path if error.ctx else "umt"
            _complain(f"{message.rstrip('.')}; see {command} --help")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except (UmtError, OSError, MemoryError) as error:
        _complain(str(error) or "there is not enough memory")
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, previous)


_UsageError = typer.BadParameter.__base__  # of click, which lies elsewhere in a newer typer


def _complain(text: str) -> None:
    print("umt: error:", " ".join(text.split()), file=sys.stderr)


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
    temperature: Temperature = 1.0,
    model: Model = "six-domains-small",
    backend: Backend = "auto",
    dtype: Dtype = "float32",
    chunked: Annotated[
        bool | None,
        typer.Option(
            "--chunked/--no-chunked",
            help="Cut at quiet places and make the stretches side by side: faster, but not exact. "
            "By default where a recording is long enough for the processors here.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option(help="Also draw OUT/<stem>.png: waveforms and spectrograms.")
    ] = True,
) -> None:
    """Translate recordings; writes OUT/<stem>.<domain>.wav, 16 kHz, as long as the input."""
    import umtlib
    from umtlib import audio, generation, translation

    settings = {"temperature": temperature, "backend": backend}
    settings["dtype"] = generation.dtype_named(dtype)
    loaded = umtlib.load(model)
    names = translation.domains(loaded, to)
    jobs = [_plan(path, names, out, picture) for path in inputs]
    _check_names(jobs)
    with tempfile.TemporaryFile() as kept:
        with _silenced_stderr():  # all of them, so that a bad one is refused before any work
            recordings = [audio.Recording(job.input, kept) for job in jobs]
        sizes = [recording.samples for recording in recordings]
        cut = [
            translation.cuts_pay(loaded, len(names), samples) if chunked is None else chunked
            for samples in sizes
        ]
        speeds = {  # refuses a backend that is not to be had
            way: translation.speed(loaded, names, chunked=way, **settings)
            for way in sorted(set(cut))
        }
        _check_writable(out)
        _announce([samples * len(names) for samples in sizes], [speeds[way] for way in cut])
        for job, recording, way in zip(jobs, recordings, cut, strict=True):
            _translate_one(loaded, job, recording, chunked=way, seed=seed, **settings)


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
    inputs = {os.path.realpath(job.input) for job in jobs}  # never fails: links may be a loop
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs:
            if os.path.realpath(path) in inputs:
                raise AudioError(f"{path} would overwrite an input; choose another --out")
            if path in taken:
                raise AudioError(
                    f"{taken[path]} and {job.input} would both write {path}; rename one of them"
                )
            taken[path] = job.input


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


def _announce(samples: Sequence[int], speeds: Sequence[float]) -> None:
    """Say how long it will take to make so many samples of each file, at its speed."""
    from umtlib.audio import SAMPLE_RATE

    seconds = sum(samples) / SAMPLE_RATE
    taken = sum(n / SAMPLE_RATE / speed for n, speed in zip(samples, speeds, strict=True))
    if taken > 15:
        print(f"{seconds:.0f} s of audio to make at {seconds / taken:.2g} x real time: about "
              f"{_minutes(taken)}", flush=True)  # fmt: skip


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _translate_one(model, job: Job, recording, chunked: bool, **settings) -> None:
    """Translate a recording from file to files: its length does not matter to the memory."""
    from umtlib import audio, translation

    began, samples = time.perf_counter(), recording.samples
    shown = {name: [] for name in job.waves}  # pieces of the beginning
    heard = translation.hear(model, recording.blocks(), samples, settings["dtype"])
    if chunked and (stretches := translation.stretches(model, heard.levels)) > 1:
        print(f"{job.input.name}: cut into {stretches} stretches where it is quiet; --no-chunked "
              "makes it in one, exactly", flush=True)  # fmt: skip
    with contextlib.ExitStack() as stack:
        tell = stack.enter_context(
            _progress(f"{job.input.name} to {len(job.waves)} domains", samples)
        )
        put = {name: stack.enter_context(audio.writing(path)) for name, path in job.waves.items()}
        for name, piece in translation.pieces(
            model, [*job.waves], heard, chunked=chunked, progress=tell, **settings
        ):
            put[name](piece)
            left = PICTURED * audio.SAMPLE_RATE - sum(map(len, shown[name]))
            if job.picture and left > 0:
                shown[name].append(piece[:left])
    taken, seconds = time.perf_counter() - began, samples / audio.SAMPLE_RATE
    for path in job.waves.values():
        print(path, _rate(seconds, taken / len(put)), sep=": ")
    if len(put) > 1:
        print(f"made together in {_minutes(taken)}; above, each domain has its share of the time")
    if job.picture:
        beginning = recording.blocks(PICTURED * audio.SAMPLE_RATE)
        _draw(job.picture, {f"input: {job.input.name}": beginning} | shown)
        print(job.picture, flush=True)


def _draw(path: Path, shown: dict) -> None:
    """Draw the beginnings of recordings, each given in blocks."""
    import numpy as np

    from umtlib.audio import SAMPLE_RATE
    from umtlib.notebook import plots

    shown = {name: np.concatenate([*blocks]) for name, blocks in shown.items()}
    cut = len(next(iter(shown.values()))) == PICTURED * SAMPLE_RATE
    title = f"the first {PICTURED // 60} minutes" if cut else ""
    plots.save(plots.comparison(shown, title), path)


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
    data: Annotated[
        Path, typer.Option(help="A corpus folder; for --add-domain also any folder of recordings.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps in all. The preset small has a number of its own, and with another one "
            "each of its stages is longer or shorter; the other presets need it.",
            min=1,
            max=10**9,
            show_default=False,
        ),
    ] = None,
    preset: Preset = "small",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    add_domain: Annotated[
        str, typer.Option(metavar="NAME", help="Give --model one more decoder; the rest is kept.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="With --add-domain: the model that gets the decoder.")
    ] = "six-domains-small",
    start_from: Annotated[
        str, typer.Option(metavar="MODEL", help="A new run begins with its weights.")
    ] = "",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the preset's training, as learning_rate=1e-3. May be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 (typer copies it)
    workers: Annotated[
        int, typer.Option(help="Processes that prepare batches.", min=0, max=64)
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a model on every domain of a corpus; Ctrl-C saves and stops, --resume goes on."""
    from umtlib import runs, watching
    from umtlib.corpora.corpus import Corpus

    _keep_memory()
    chosen, initial = None, None
    if add_domain:
        data = _as_corpus(data, add_domain, out)
        chosen, initial = _with_domain(model, add_domain, preset)
    corpus = Corpus(data)
    chosen = _changed(chosen or _preset_for(preset, corpus.domains), set_)
    if start_from:
        initial = _like(start_from, chosen.model)
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def report(line: dict) -> None:
            bar.total = line["steps"]
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
            initial=initial,
            on_report=_also_to_tensorboard(report, out),
            on_validate=lambda now, step: watching.listen(now, corpus, out / "heard", step),
        )
    print(f"{folder}: translate with it by --model {out}")


def _preset_for(name: str, domains: Sequence[str]):
    from umtlib import config

    known = set(domains) == set(config.SIX_DOMAINS)  # the paper's order, where it is the paper's
    return config.preset(name, config.SIX_DOMAINS if known else tuple(domains))


def _changed(preset, settings: Sequence[str]):
    """Return a preset with some fields of its training replaced, each by NAME=VALUE."""
    from dataclasses import asdict, replace

    from umtlib import config
    from umtlib.errors import ConfigError

    values = asdict(preset.training)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} must be NAME=VALUE, as learning_rate=1e-3")
        try:
            values[name] = files.parse_json(value)
        except ValueError:
            values[name] = value
    training = config.from_values(type(preset.training), values)
    return replace(preset, training=training)


def _like(model: str, wanted):
    """Load a model that must have a given configuration."""
    import umtlib
    from umtlib.errors import ConfigError

    found = umtlib.load(model)
    if found.config != wanted:
        raise ConfigError(f"{model} has other sizes or domains than this run; see its config.json")
    return found


def _as_corpus(data: Path, domain: str, out: Path) -> Path:
    """Return a corpus folder; recordings are prepared into ``OUT/corpus`` first."""
    from umtlib.corpora import folders
    from umtlib.corpora.corpus import MANIFEST

    if (data / MANIFEST).exists():
        return data
    folders.build({domain: data}, out / "corpus")
    return out / "corpus"


def _with_domain(model: str, name: str, preset: str):
    """Return the preset that trains one more decoder alone, and the weights to start from."""
    from dataclasses import replace

    import umtlib
    from umtlib import config, translator

    grown = translator.with_domain(umtlib.load(model), name)
    alone = replace(config.preset(preset).training, only=name)
    return config.Preset(grown.config, alone), grown


def _keep_memory() -> None:
    """Let the C library keep freed memory: giving it back and faulting it in halves the speed."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):
            mallopt(option, value)  # no mmap; trim late; grow in steps of 64 MiB


def _also_to_tensorboard(report, out: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return report
    writer = SummaryWriter(out / "tensorboard")

    def both(line: dict) -> None:
        report(line)
        for name, value in line.items():
            values = value if isinstance(value, dict) else {"": value}
            for domain, number in values.items():
                if isinstance(number, int | float):
                    writer.add_scalar(f"{name}/{domain}".rstrip("/"), number, line["step"])
        writer.flush()

    return both


@app.command()
def evaluate(
    data: Paired,
    out: NewFolder,
    model: Model = "six-domains-small",
    excerpts: Excerpts = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    backend: Backend = "auto",
    compare: Annotated[
        str, typer.Option(help="Another model, whose latent and freedom are measured beside.")
    ] = "",
    notes: Annotated[
        Path | None, typer.Option(help="NSynth, or a folder from 'umt corpus notes'.")
    ] = None,
) -> None:
    """Translate paired excerpts, and measure everything: OUT/report.md, .json, pictures."""
    import umtlib
    from umtlib.evaluation import report

    loaded = umtlib.load(model)
    other = umtlib.load(compare) if compare else None
    with _bars() as progress:
        found = report.evaluate(
            loaded,
            data,
            out,
            excerpts=excerpts,
            temperature=temperature,
            seed=seed,
            backend=backend,
            name=Path(model).name,
            compare=other,
            single_notes=notes,
            progress=progress,
        )
    excerpts = found["results"]["excerpts"]
    print(f"{out / 'report.md'}: {excerpts} excerpts in {len(loaded.domains)} domains")


@stimuli_app.command("opinion")
def stimuli_opinion(
    data: Paired,
    out: NewFolder,
    to: Annotated[str, typer.Option(help="The domain that the excerpts are translated to.")],
    model: Model = "six-domains-small",
    excerpts: Excerpts = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Write sounds to be rated from 1 to 5, with hidden references and anchors."""
    from umtlib.evaluation import stimuli

    settings = {"temperature": temperature, "seed": seed, "backend": backend}
    _write_pack(stimuli.opinion, model, data, to, out, excerpts=excerpts, **settings)


@stimuli_app.command("lineup")
def stimuli_lineup(
    data: Paired,
    out: NewFolder,
    model: Model = "six-domains-small",
    excerpts: Excerpts = None,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Write lineups, of which a rater picks the source from among its translations."""
    from umtlib.evaluation import stimuli

    settings = {"temperature": temperature, "seed": seed, "backend": backend}
    _write_pack(stimuli.lineup, model, data, out, excerpts=excerpts, **settings)


def _write_pack(write, model: str, *arguments, **settings) -> None:
    """Let one of the tests write its pack, and say what to do with it."""
    import umtlib
    from umtlib.evaluation.stimuli import KEY, SHEET

    loaded = umtlib.load(model)
    with _bars() as progress:
        out = write(loaded, *arguments, progress=progress, **settings)
    print(f"{out}: give raters the sounds and a copy of {SHEET}, and keep {KEY}; then "
          f"umt ratings SHEETS... --key {out / KEY}")  # fmt: skip


@app.command()
def ratings(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="CSV", help="Ratings, or with --key filled-in sheets."),
    ],
    key: Annotated[Path | None, typer.Option(help="The key of the pack of stimuli.")] = None,
    domain: Annotated[
        list[str],
        typer.Option(help="All domains of a lineup. Default: those of the key, or that occur."),
    ] = [],  # noqa: B006
    level: Annotated[float, _real("Of the intervals.", 0.5, 0.999)] = 0.95,
    json: Json = False,
) -> None:
    """Analyse a listening test: opinion scores or a lineup, told apart by their columns."""
    from umtlib.evaluation import listening, stimuli
    from umtlib.evaluation import tables as markdown

    if key:
        rows = stimuli.unblind(key, tables)
        domain = domain or stimuli.choices(key)
    else:
        rows = [row for table in tables for row in listening.read(table)]
    if rows and "answer" in rows[0]:
        domain = domain or sorted({row[name] for row in rows for name in ("domain", "answer")})
        found, show = listening.lineup(rows, domain, level), markdown.lineup
    else:
        found, show = listening.evaluate(rows, level), markdown.opinion
    if json:
        _show(found, json)
    else:
        print(show(found))


@corpus_app.command("six-domains")
def six_domains(
    out: Out,
    seed: Seed = 0,
    workers: Workers = None,
    mini: Annotated[
        bool, typer.Option("--mini", help="Minutes in FLAC, not hours in WAV.")
    ] = False,
) -> None:
    """Render public scores with sampled instruments in six domains; needs fluidsynth."""
    from umtlib.corpora.six_domains import build

    with _bars() as progress:
        made = build(out, seed=seed, workers=workers, mini=mini, progress=progress)
    print(made)


@corpus_app.command("folder")
def corpus_folder(
    domain: Annotated[
        list[str], typer.Option(metavar="NAME=DIR", help="A domain's recordings. Repeat it.")
    ],
    out: Out,
    longest: Annotated[float, _real("Seconds; a longer file is cut there.", 0.5, 12 * 3600)] = 6
    * 3600,
    workers: Workers = None,
) -> None:
    """Make a corpus of your own recordings: any tree of audio files for each domain."""
    from umtlib.corpora import folders

    _prepare(folders.build, _pairs(domain), out=out, longest=longest, workers=workers)


@corpus_app.command("nsynth")
def corpus_nsynth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Has nsynth-train/ and so on.")],
    out: Out,
    by: Annotated[str, typer.Option(help="Domains are: family, source or instrument.")] = "family",
    family: Names = [],  # noqa: B006
    source: Names = [],  # noqa: B006
    instrument: Names = [],  # noqa: B006
    pitches: Pitches = (0, 127),
    velocity: Annotated[
        list[int], typer.Option(help="Only these, such as 100.", min=0, max=127)
    ] = [],  # noqa: B006
    download: Download = False,
    workers: Workers = None,
) -> None:
    """Make a corpus of NSynth, or of data/mini-nsynth."""
    from umtlib.corpora import nsynth

    if download:
        _obtain(list(nsynth.SPLITS), folder)
    chosen = nsynth.Selection(family, source, instrument, pitches, velocity)
    _prepare(nsynth.build, folder, out=out, by=by, selection=chosen, workers=workers)


@corpus_app.command("musicnet")
def corpus_musicnet(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Has musicnet_metadata.csv.")],
    out: Out,
    domain: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=EXPR",
            help="Such as \"fugues=composer == 'Bach' and 'Fugue' in movement\". May be repeated. "
            "Default: the six domains of the authors' weights.",
        ),
    ] = [],  # noqa: B006
    download: Download = False,
    workers: Workers = None,
) -> None:
    """Make a corpus of MusicNet."""
    from umtlib.corpora import musicnet

    if download:
        _obtain(["musicnet-metadata", "musicnet"], folder)
    chosen = {"domains": _pairs(domain)} if domain else {}
    _prepare(musicnet.build, folder, out=out, workers=workers, **chosen)


@corpus_app.command("notes")
def corpus_notes(out: Out) -> None:
    """Render notes of four instruments in NSynth's format, for 'umt evaluate --notes'."""
    from umtlib.evaluation import nsynth

    print(nsynth.render_notes(out))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value or name in pairs:
            raise CorpusError(f"{text!r}: write NAME=..., each name once")
        pairs[name] = value
    return pairs


@contextlib.contextmanager
def _bars() -> Iterator:
    """Show a bar for each stage; gives a function of stage, done and total."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, tqdm] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = stack.enter_context(tqdm(total=total, desc=stage, disable=None))
            bars[stage].update(done - bars[stage].n)

        yield progress


def _prepare(build, *arguments, out: Path, **settings) -> None:
    from umtlib.corpora.prepare import shard

    with _bars() as progress:
        made = build(*arguments, out, shard=shard(), progress=progress, **settings)
    if not made.complete:
        print("this shard is done; the last one to finish writes the manifest")
        return
    print(f"{out}: {made.used} tracks, {made.seconds / 3600:.2f} h; {made.dropped} files dropped, "
          f"{made.cut} cut: see {out / 'skipped.jsonl'}")  # fmt: skip


def _obtain(names: Sequence[str], folder: Path) -> None:
    from umtlib.corpora import download, prepare

    if prepare.shard()[1] > 1:  # the others would not know when it is there
        raise CorpusError("--download is for one process; run it once without torchrun first")
    with _bars() as progress:
        download.obtain(names, folder, progress)


@app.command("import-official")
def import_official(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Has args.pth, lastmodel_0.pth...")],
    out: Annotated[Path, typer.Option(help="Folder of the model; must not exist yet.")],
    domain: Annotated[
        list[str], typer.Option(help="Names of the decoders, in order. Default: from args.pth.")
    ] = [],  # noqa: B006
    weights: Annotated[str, typer.Option(help="last or best.")] = "last",
) -> None:
    """Import the weights that the authors released, or that their code has trained."""
    from umtlib import checkpoint
    from umtlib.official import load_official

    model = load_official(folder, domain or None, weights)
    checkpoint.save(model, out)
    print(f"{out}: {', '.join(model.domains)}; translate with it by --model {out}")


@bench_app.command("generate")
def bench_generate(
    preset: Preset = "small",
    streams: Annotated[int, typer.Option(help="Inputs at once.", min=1, max=1_024)] = 1,
    domains: Annotated[int, typer.Option(help="Decoders at once.", min=1, max=64)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="By default one per core.", min=1, max=1_024)
    ] = None,
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


@bench_app.command("train")
def bench_train(
    preset: Preset = "small",
    seconds: Duration = 10,
    batch: Annotated[int, typer.Option(help="Segments.", min=1, max=2**24)] = 1,
    crop: Annotated[int, typer.Option(help="Samples per segment.", min=1, max=2**24)] = 16_000,
    dtype: Float = "float32",
    json: Json = False,
) -> None:
    """Measure how many samples per second a training step processes."""
    from umtlib import bench

    _keep_memory()
    _show(bench.train(preset, seconds=seconds, batch=batch, crop=crop, dtype=dtype), json)


def _show(values: dict, json: bool) -> None:
    if json:
        print(files.to_json(values))
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
