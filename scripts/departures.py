"""What each departure of `small` from the paper is worth: short trainings of equal length, a table.

    python scripts/departures.py corpora/six-domains --steps 2500
    python scripts/departures.py data/mini --steps 300 --only small --only paper

A row is a variant: the paper's recipe at the size of `small`, with the paper's ablations, or the
recipe of `small` with one thing taken back. All make as many steps; on two cores one of the paper's
takes about as long as one of the recipe's, and the table has the seconds. Measured by notes, time
and colour on paired excerpts. ``docs/departures.csv`` and the table in ``docs/experiments.md`` are
written after every row; after an interruption, also within a row, the same command goes on.
Notebook: ``05_training_six_domains``.
"""

import copy
import csv
import itertools
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer

import umtlib
from umtlib import config, decoder, files, runs, training
from umtlib.config import SIX_DOMAINS, EncoderConfig, Preset, TrainingConfig
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation import dynamics, latent, notes, pitch, recogniser, truth
from umtlib.evaluation.features import excerpt
from umtlib.evaluation.report import means
from umtlib.evaluation.tables import markdown
from umtlib.evaluation.translations import choose, translate_pairs
from umtlib.guide import Guide

BEGIN, END = "<!-- from scripts/departures.py -->\n", "\n<!-- end -->"
NOTES, TIME = ("chroma", "note_f"), ("attack", "decay", "onset_f_truth", "level_corr")
MEASURES = (*NOTES, *TIME, "log_mel", "timbre", "recognised")
COLUMNS = ("seconds", "nats", "wrong_latent", "source_found", *MEASURES)


def labelled(settings, size, pool, *, _made=itertools.count()) -> decoder.Decoder:
    """Make a decoder that is told its domain's number, which follows from the order of making."""
    made = decoder.Decoder(settings, size + len(SIX_DOMAINS), pool)
    label, tell = torch.eye(len(SIX_DOMAINS))[next(_made) % len(SIX_DOMAINS)], made.guide.tell

    def told(z, *rest):
        return tell(torch.cat([z, label[None, :, None].expand(len(z), -1, z.shape[2])], 1), *rest)

    made.guide.tell = told
    return made


def one_for_all(model, optimizers, batch, *rest, step=training.train_step) -> dict:
    """Do a step, then give all decoders what the batch's has learnt: as if there were only one."""
    report, own = step(model, optimizers, batch, *rest), f"decoders.{batch.domain}"
    for name in (f"decoders.{domain}" for domain in model.domains if domain != batch.domain):
        model.get_submodule(name).load_state_dict(model.get_submodule(own).state_dict())
        optimizers[name].load_state_dict(copy.deepcopy(optimizers[own].state_dict()))
    return report


def nothing(*_) -> None:
    """Stand in for what is taken back."""


SMALL, MORE = umtlib.preset("small"), {"blocks": 2, "layers": 8, "channels": 64}
PLAIN = replace(SMALL.model.decoder, guide="latent", input="scalar", input_kernel=1)
MODEL = replace(SMALL.model, encoder=EncoderConfig(**MORE), decoder=PLAIN)
# Windows as short as those of the recipe's WaveNets, so that there are as many steps.
PAPER = Preset(MODEL, TrainingConfig(crop=6_400, batch=1, precision="bfloat16"))
TAKEN_BACK = {  # of the recipe; by the names in the package that do it, and what they are then
    "linear prediction": {"guide.FrameGuide.order": 0, "prediction.fit": nothing},
    "conversions": {
        "game.conversions": nothing, "painting.CONVERSIONS": 0, "wavenets.CONVERTED": 0},
    "gains and rooms": {"hearing.ROOMS": 0, "hearing.wandering_gain": lambda samples, rng: 1},
    "equalising": {"hearing.equalise": lambda waveform, rng: waveform},
    "fit of the encoder": {"regression.fit": nothing},
    "confusion": {"game.CONFUSION_WEIGHT": 0},
    "noise on the past": {"wavenets.NOISE": (0,), "wavenets.SILENT": 0},
    "filter of the output": {"guide.FrameGuide.finish": Guide.finish},
}  # fmt: skip
SAME_WEIGHTS = {"small, no filter of the output": "small"}
LABEL = {"umtlib.translator.Decoder": labelled, "umtlib.training.train_step": one_for_all}
ABLATIONS = "augment=false", "confusion_weight=0", "confusion_weight=0.1"
VARIANTS = {  # a preset, and names in the package that have another value
    "paper": (PAPER, {}),
    **{f"paper, {setting}": (config.changed(PAPER, [setting]), {}) for setting in ABLATIONS},
    "paper, one decoder with a label": (PAPER, LABEL),
    "paper, filter bank": (replace(PAPER, model=replace(MODEL, encoder=SMALL.model.encoder)), {}),
    "small": (SMALL, {}),
    **{f"small, no {what}": (SMALL, {f"umtlib.small.{name}": now for name, now in names.items()})
       for what, names in TAKEN_BACK.items()},
}  # fmt: skip


def measured(name: str, data: Path, steps: int, excerpts: int, out: Path) -> dict:
    """Train a variant, or go on, and return what the table says of it."""
    preset, changed = VARIANTS[name]
    corpus, pairs = Corpus(data), choose(read_pairs(data), excerpts)
    with ExitStack() as stack:
        for place, value in changed.items():
            stack.enter_context(mock.patch(place, value))
        pace = runs.Pace(report=50, validate=10**9, save=200)
        run = out / SAME_WEIGHTS.get(name, name).replace(", ", "-").replace(" ", "-")
        run = runs.train(data, run, preset, steps, resume=True, pace=pace)
        model, made = umtlib.load(run), translate_pairs(umtlib.load(run), pairs)
        held_out = runs.watching.validate(model, corpus, model.domains, 12_800, batches=1)
        found = {"source_found": latent.evaluate(model, corpus, seconds=12)["probe"]}
    found["seconds"] = files.read_json(run / runs.PROGRESS)["seconds"]
    for key in ("nats", "nats_wrong_latent"):
        found[key.removeprefix("nats_")] = sum(held_out[key].values()) / len(model.domains)
    return found | averages(pairs, lambda pair, target: made[pair.id, target])


def averages(pairs, sound) -> dict:
    """Average the measures of ``sound(pair, target)`` over the targets other than the source."""
    judge, rows = recogniser.load(), []
    for pair, target in itertools.product(pairs, SIX_DOMAINS):
        true, heard = excerpt(pair.audio(target)), excerpt(sound(pair, target))
        row = pitch.evaluate(pair.audio(), heard) | notes.evaluate(pair.notes, heard)
        row |= dynamics.evaluate(true, heard, pair.notes) | truth.evaluate(true, heard, judge)
        row["recognised"] = judge.domains[judge.probabilities(heard).argmax()] == target
        rows += [row] if target != pair.source else []
    return {name: value for name, value in means(rows, MEASURES).items() if name in MEASURES}


def keep(rows: dict[str, dict], docs: Path) -> None:
    """Write the table, as CSV and as Markdown."""
    with files.replacing(docs / "departures.csv") as part, part.open("w", newline="") as file:
        table = csv.DictWriter(file, ("variant", "setting", *COLUMNS))
        table.writeheader()
        table.writerows(rows.values())
    cells = [[name, *(row[c] and float(row[c]) for c in COLUMNS)] for name, row in rows.items()]
    before, _, rest = (docs / "experiments.md").read_text("utf-8").partition(BEGIN)
    text = before + BEGIN + markdown(("", *COLUMNS), cells) + END + rest.partition(END)[2]
    with files.replacing(docs / "experiments.md") as part:
        part.write_text(text, encoding="utf-8")


def main(
    data: Annotated[Path, typer.Argument(help="A corpus of the six domains, with pairs.")],
    steps: Annotated[int, typer.Option(help="Of every training, all stages together.")] = 2_500,
    excerpts: Annotated[int, typer.Option(help="Paired excerpts that are translated.")] = 12,
    only: Annotated[list[str], typer.Option(help="A row; all, if none is named.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/departures"),
    docs: Annotated[Path, typer.Option(help="Of the table.")] = Path(__file__).parents[1] / "docs",
) -> None:
    """Make the rows of the table that it lacks."""
    setting, path = f"{data.name}, {steps} steps, {excerpts} excerpts", docs / "departures.csv"
    old = csv.DictReader(path.read_text("utf-8").splitlines()) if path.exists() else []
    rows = {row["variant"]: row for row in old if row["setting"] == setting}
    known = {
        "untranslated input": lambda pair, target: pair.audio(),
        "true rendering": lambda pair, target: pair.audio(target),
    }
    for name in (name for name in [*known, *(only or VARIANTS)] if name not in rows):
        if name in known:
            pairs = choose(read_pairs(data), excerpts)
            found = dict.fromkeys(COLUMNS) | averages(pairs, known[name])
        else:
            found = measured(name, data, steps, excerpts, out)
        rows[name] = {"variant": name, "setting": setting} | found
        keep(rows, docs)


if __name__ == "__main__":
    typer.run(main)
