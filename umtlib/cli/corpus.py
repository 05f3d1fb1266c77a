"""``umt corpus``: a verb for each kind of corpus."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from umtlib.cli import options
from umtlib.cli.printing import bars, say
from umtlib.errors import CorpusError

app = Typer(help="Make a corpus to train on.", no_args_is_help=True)

Workers = Annotated[int | None, Option(help="Processes; by default one per CPU.", min=1, max=1_024)]
Download = Annotated[bool, Option("--download", help="First fetch what DIR lacks.")]
Names = Annotated[list[str], Option(help="Only these. May be repeated.")]


@app.command()
def six_domains(
    out: options.Out,
    seed: options.Seed = 0,
    workers: Workers = None,
    mini: Annotated[bool, Option("--mini", help="Minutes in FLAC, not hours in WAV.")] = False,
) -> None:
    """Render public scores with sampled instruments in six domains; needs fluidsynth."""
    from umtlib.corpora.six_domains import build

    with bars() as progress:
        made = build(out, seed=seed, workers=workers, mini=mini, progress=progress)
    say(made)


@app.command()
def folder(
    domain: Annotated[
        list[str], Option(metavar="NAME=DIR", help="A domain's recordings. Repeat it.")
    ],
    out: options.Out,
    workers: Workers = None,
) -> None:
    """Make a corpus of your own recordings: any tree of audio files for each domain."""
    from umtlib.corpora import folders

    _prepare(folders.build, _pairs(domain), out=out, workers=workers)


@app.command()
def nsynth(
    folder: Annotated[Path, Argument(metavar="DIR", help="Has nsynth-train/ and so on.")],
    out: options.Out,
    by: Annotated[str, Option(help="Domains are: family, source or instrument.")] = "family",
    family: Names = [],
    source: Names = [],
    instrument: Names = [],
    pitches: Annotated[
        tuple[int, int], Option(help="Lowest and highest MIDI pitch.", min=0, max=127)
    ] = (0, 127),
    velocity: Annotated[list[int], Option(help="Only these, such as 100.", min=0, max=127)] = [],
    download: Download = False,
    workers: Workers = None,
) -> None:
    """Make a corpus of NSynth, or of data/mini-nsynth."""
    from umtlib.corpora import nsynth

    if download:
        _obtain(list(nsynth.SPLITS), folder)
    chosen = {"families": family, "sources": source, "instruments": instrument}
    chosen |= {"pitches": pitches, "velocities": velocity}
    _prepare(nsynth.build, folder, out=out, by=by, workers=workers, **chosen)


@app.command()
def musicnet(
    folder: Annotated[Path, Argument(metavar="DIR", help="Has musicnet_metadata.csv.")],
    out: options.Out,
    domain: Annotated[
        list[str],
        Option(
            metavar="NAME=EXPR",
            help="Such as \"fugues=composer == 'Bach' and 'Fugue' in movement\". May be repeated. "
            "Default: the six domains of the authors' weights.",
        ),
    ] = [],
    download: Download = False,
    workers: Workers = None,
) -> None:
    """Make a corpus of MusicNet."""
    from umtlib.corpora import musicnet

    if download:
        _obtain(["musicnet-metadata", "musicnet"], folder)
    chosen = {"domains": _pairs(domain)} if domain else {}
    _prepare(musicnet.build, folder, out=out, workers=workers, **chosen)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value or name in pairs:
            raise CorpusError(f"{text!r}: write NAME=..., each name once")
        pairs[name] = value
    return pairs


def _prepare(build: Callable, *arguments, out: Path, **settings) -> None:
    from umtlib.corpora.processes import shard

    with bars() as progress:
        made = build(*arguments, out, shard=shard(), progress=progress, **settings)
    if made is None:
        print("this shard is done; the last one to finish writes the manifest")
        return
    say(f"{out}: {made.used} tracks, {made.seconds / 3600:.2f} h; {made.dropped} files dropped, "
        f"{made.cut} cut or mended: see {out / 'skipped.jsonl'}")  # fmt: skip


def _obtain(names: Sequence[str], folder: Path) -> None:
    from umtlib.corpora import download, processes

    if processes.shard()[1] > 1:  # the others would not know when it is there
        raise CorpusError("--download is for one process; run it once without torchrun first")
    with bars() as progress:
        download.obtain(names, folder, progress)
