"""``umt train``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from typer import Option

import umtlib
from umtlib import config
from umtlib.cli import options
from umtlib.cli.printing import say
from umtlib.errors import ConfigError


def train(
    data: Annotated[
        Path, Option(help="A corpus folder; for --add-domain also any folder of recordings.")
    ],
    out: Annotated[Path, Option(help="Folder of the run.")],
    steps: Annotated[
        int | None,
        Option(
            help="Steps in all. The preset small has a number of its own, and with another one "
            "each of its stages is longer or shorter; the other presets need it.",
            min=1,
            max=10**9,
            show_default=False,
        ),
    ] = None,
    preset: options.Preset = "small",
    resume: Annotated[bool, Option("--resume", help="Go on from the last checkpoint.")] = False,
    add_domain: Annotated[
        str, Option(metavar="NAME", help="Give --model one more decoder; the rest is kept.")
    ] = "",
    model: Annotated[
        str, Option(help="With --add-domain: the model that gets the decoder.")
    ] = "six-domains-small",
    start_from: Annotated[
        str, Option(metavar="MODEL", help="A new run begins with its weights.")
    ] = "",
    set_: Annotated[
        list[str],
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the preset's training, as learning_rate=1e-3. May be repeated.",
            show_default=False,
        ),
    ] = [],
    workers: Annotated[int, Option(help="Processes that prepare batches.", min=0, max=64)] = 1,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a model on every domain of a corpus; Ctrl-C saves and stops, --resume goes on."""
    from umtlib import log, runs, watching
    from umtlib.corpora.corpus import Corpus

    chosen, initial = None, None
    if add_domain:
        data = _as_corpus(data, add_domain, out)
        chosen, initial = _with_domain(model, add_domain, preset)
    corpus = Corpus(data)
    chosen = config.changed(chosen or _preset_for(preset, corpus.domains), set_)
    if start_from:
        initial = _like(start_from, chosen.model)
    board = log.tensorboard(out / "tensorboard")
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def report(line: dict) -> None:
            bar.total = line["steps"]
            bar.update(line["step"] - bar.n)
            bar.write("  ".join(f"{name} {value}" for name, value in line.items()))
            board(line)

        settings = {"resume": resume, "workers": workers, "device": device, "initial": initial}
        settings["on_validate"] = lambda now, at: watching.listen(now, corpus, out / "heard", at)
        folder = runs.train(data, out, chosen, steps, on_report=report, **settings)
    say(f"{folder}: translate with it by --model {out}")


def _preset_for(name: str, domains: Sequence[str]) -> config.Preset:
    known = set(domains) == set(config.SIX_DOMAINS)  # the paper's order, where it is the paper's
    return config.preset(name, config.SIX_DOMAINS if known else tuple(domains))


def _like(model: str, wanted: config.ModelConfig) -> "umtlib.MusicTranslator":
    """Load a model that must have a given configuration."""
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


def _with_domain(
    model: str, name: str, preset: str
) -> tuple[config.Preset, "umtlib.MusicTranslator"]:
    """Return the preset that trains one more decoder alone, and the weights to start from."""
    from umtlib import translator

    grown = translator.with_domain(umtlib.load(model), name)
    alone = replace(config.preset(preset).training, only=name)
    return config.Preset(grown.config, alone), grown
