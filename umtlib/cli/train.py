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
    set_: options.Set = [],
    workers: Annotated[int, Option(help="Processes that prepare batches.", min=0, max=64)] = 1,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Train a model on every domain of a corpus; Ctrl-C saves and stops, --resume goes on."""
    from umtlib import runs, translator
    from umtlib.corpora import folders
    from umtlib.corpora.corpus import MANIFEST, Corpus
    from umtlib.machine import devices
    from umtlib.runs import log, watching

    chosen, initial = runs.preset(preset), None
    if add_domain:
        initial = translator.with_domain(umtlib.load(model), add_domain)
        chosen = config.Preset(initial.config, replace(chosen.training, only=add_domain))
    else:
        chosen = runs.preset(preset, _in_order(Corpus(data).domains))
    place = devices.device(device, gpu=getattr(chosen.training, "on_gpu", False))
    found = devices.precision(precision, place)
    asked = [] if precision == "auto" and place.type != "cuda" else [f"precision={found}"]
    chosen = config.changed(chosen, [*asked, *set_])
    if start_from:
        initial = umtlib.load(start_from)
        if initial.config != chosen.model:
            raise ConfigError(f"{start_from} has other sizes or domains; see its config.json")
    if add_domain:  # before recordings are prepared, which may take long
        runs.check(initial, chosen.training, place, steps)
        if not (data / MANIFEST).exists():
            folders.build({add_domain: data}, out / "corpus")
            data = out / "corpus"
    corpus = Corpus(data)
    board = log.tensorboard(out / "tensorboard")
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def report(line: dict) -> None:
            bar.total = line["steps"]
            bar.update(line["step"] - bar.n)
            bar.write("  ".join(f"{name} {value}" for name, value in line.items()))
            board(line)

        settings = {"resume": resume, "workers": workers, "device": device, "initial": initial}
        settings["on_validate"] = lambda now, at: watching.listen(now, corpus, out / "heard", at)
        folder = runs.train(corpus.folder, out, chosen, steps, on_report=report, **settings)
    say(f"{folder}: translate with it by --model {out}")


def _in_order(domains: Sequence[str]) -> Sequence[str]:
    """Return a corpus's domains, in the paper's order where they are the paper's."""
    return config.SIX_DOMAINS if set(domains) == set(config.SIX_DOMAINS) else domains
