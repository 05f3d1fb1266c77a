"""Write the card of the shipped model, and the README's "What to expect", from measurements.

::

    python docs/card.py publish RUN   # a run's newest checkpoint becomes the shipped model
    umt evaluate --model six-domains-small --data data/mini --out report
    python docs/card.py keep report   # what is small of it goes to docs/report
    python docs/card.py

``publish`` keeps what the run's log says at last in ``docs/training.json``. Every number in both
texts comes from there and from ``docs/report``; ``tests/test_card.py`` fails if they differ. How the
weights were made is told in words, which a new model needs anew.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import torch
from PIL import Image

from umtlib import checkpoint
from umtlib.config import SIX_DOMAINS
from umtlib.evaluation.tables import markdown

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "report"
TRAINING = ROOT / "docs" / "training.json"
MODEL = ROOT / "umtlib" / "pretrained" / "six-domains-small"
BEGIN, END = "<!-- from docs/card.py -->\n", "\n<!-- end -->"
ALL = "all"  # the targets together
WHISTLE = "unseen/whistle"
COLOURS = 128
FADING = ("beethoven_piano", "bach_harpsichord")


def main() -> None:
    """Write the texts."""
    about, table, training = measured()
    (MODEL / "README.md").write_text(card(about, table, training), encoding="utf-8")
    readme, text = ROOT / "README.md", expectations(about, table)
    readme.write_text(inserted(readme.read_text("utf-8"), text), encoding="utf-8")


def measured() -> tuple[dict, pandas.DataFrame, dict]:
    """Read what a report is of, its averages by system and target, and what a run's log says."""
    about, training = (json.loads(p.read_text("utf-8")) for p in (REPORT / "report.json", TRAINING))
    return about, pandas.read_csv(REPORT / "summary.csv", index_col=["system", "target"]), training


def publish(run: Path) -> None:
    """Make the run's newest checkpoint the shipped model, and keep what its log says at last."""
    newest = checkpoint.newest(run)
    if MODEL.exists():
        shutil.rmtree(MODEL)
    checkpoint.save(checkpoint.load(newest), MODEL, torch.int8)  # for a small clone
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    progress = json.loads((newest / "progress.json").read_text("utf-8"))
    last = [line for line in lines if "nats" in line][-1]
    kept = {name: last[name] for name in ("nats", "nats_wrong_latent", "accuracy")}
    summary = {"steps": progress["step"], "seconds": progress["seconds"]} | kept
    TRAINING.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def keep(report: Path) -> None:
    """Keep of a report its text, two pictures, and averages in place of rows."""
    REPORT.mkdir(exist_ok=True)
    shutil.copy(report / "report.md", REPORT)
    for name in ("recogniser.png", "truth.png"):
        picture = Image.open(report / name).convert("RGB").quantize(COLOURS)
        picture.save(REPORT / name, optimize=True)
    about = json.loads((report / "report.json").read_text("utf-8"))
    about["excerpts"] = about["results"]["excerpts"]
    kept = {name: about[name] for name in ("model", "umtlib", "temperature", "seed", "excerpts")}
    (REPORT / "report.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    averages = summary(pandas.read_csv(report / "rows.csv"))
    averages.to_csv(REPORT / "summary.csv", float_format="%.4g")


def summary(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Average the rows of other sources than the target, by system and target and over them all."""
    away = rows[rows.source != rows.target]
    away = away.assign(
        recognised=(away.called == away.target).astype(float),
        whistle=away.melody.where(away.source == WHISTLE),
    )
    both = pandas.concat([away.assign(target=ALL), away])
    groups = both.groupby(["system", "target"], sort=False)
    averages = groups.mean(numeric_only=True)
    averages.insert(0, "n", groups.size())
    return averages


def inserted(readme: str, text: str) -> str:
    """Put a text between the README's two marks."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + text + END + rest.partition(END)[2]


def near(share: float) -> Callable[..., bool]:
    """Ask for a value that differs from the true rendering's by at most this share of it."""
    return lambda ours, true, *_: abs(ours - true) <= share * abs(true)


def part(share: float) -> Callable[..., bool]:
    """Ask for at least this share of what the true rendering has."""
    return lambda ours, true, *_: ours >= share * true


def decays(ours: float, true: float, _: float, target: str) -> bool | None:
    """Ask for the decay of strings that are struck or plucked, and for none of the others."""
    if target == ALL:
        return None
    return near(0.4)(ours, true) if target in FADING else ours >= -2


GOALS = {  # by measure: in words; met or not, by our value, the truth's, the input's, the target
    "attack": ("within 25 % of the truth's", near(0.25)),
    "decay": ("within 40 % for piano and harpsichord; others lose at most 2 dB/s", decays),
    "onsets": ("within 20 % of the truth's", near(0.2)),
    "onset_f": ("at least .85 of the truth's", part(0.85)),
    "onset_f_truth": ("at least .85 of the truth's", part(0.85)),
    "level_corr": ("above the input's", lambda ours, _, input, *__: ours > input),
    "note_f": ("at least .86 of the truth's", part(0.86)),
    "log_mel": ("at most 4.6 dB", lambda ours, *_: ours <= 4.6),
    "recognised": (
        "at least .95, worst domain .92",
        lambda ours, *rest: ours >= (0.95 if rest[-1] == ALL else 0.92),
    ),
    "whistle": ("its melody, at least .7", lambda ours, *_: ours >= 0.7),
}


def goals(table: pandas.DataFrame) -> tuple[str, dict[str, tuple[int, int]]]:
    """Return what the project set itself to reach, as a table, and how much of it is reached.

    Returns
    -------
    tuple of (str, dict)
        The second has the numbers of goals reached and set, for the mean and for single targets.
    """
    targets = [ALL, *SIX_DOMAINS]
    found = {
        (metric, target): (values, met(*values, target))
        for metric, (_, met) in GOALS.items()
        for target in targets
        for values in [[table.loc[(s, target), metric] for s in ("translation", "truth", "input")]]
    }
    rows = [
        (metric, words, *(_cell(*found[metric, target]) for target in targets))
        for metric, (words, _) in GOALS.items()
    ]
    counts = {
        name: (sum(answers), len(answers))
        for name, wanted in {"mean": [ALL], "single": SIX_DOMAINS}.items()
        for answers in [[m for (_, t), (_, m) in found.items() if t in wanted and m is not None]]
    }
    return markdown(("measure", "wanted", *targets), rows), counts


def _cell(values: list[float], met: bool | None) -> str:
    ours, true, _ = values
    return f"{ours:.3g} ({true:.3g})" + (" met" if met else "")


def expectations(about: dict, table: pandas.DataFrame) -> str:
    """Return the README's section."""
    names = ("translation", "input", "wrong_excerpt", "truth")
    metrics = ("chroma", "note_f", "log_mel", "timbre", "attack", "flutter", "level_corr")
    rows = [(m, *(float(table.loc[(name, ALL), m]) for name in names)) for m in metrics]
    named = {name: table.loc[(name, ALL), "recognised"] for name in names}
    return f"""
The shipped model is small, learned from rendered scores and was trained on one processor core in an hour and a quarter. **It follows
the notes, chords included. It does not play in time, and its sound does not always arrive**: attacks are dull, levels flutter, a piano hardly
fades, and an independent recogniser calls {named["translation"]:.0%} of the translations their target (chance: 17 %, true renderings: {named["truth"]:.0%}). A new
model, trained by the recipe above, will take its place. On the {about["excerpts"]} held-out excerpts of `data/mini`, averaged over all pairs of source and target, at
temperature {about["temperature"]}:

{markdown(("", "our model", "untranslated", "another piece", "true rendering"), rows)}

`chroma` and `note_f` ask for the notes (more is better), `log_mel` and `timbre` for the distance to the true rendering (less is
better), the last three for time: what matters is how near they are to the true rendering's. The report with the paper's tables is
[docs/report/report.md](docs/report/report.md); the goals that we set ourselves, most of them missed, are in the model's
[card](umtlib/pretrained/six-domains-small/README.md). Earlier reports used other judges and are not comparable."""


def card(about: dict, table: pandas.DataFrame, training: dict) -> str:
    """Return the card of the model."""
    wanted, reached = goals(table)
    missed = 1 - table.loc[("translation", "beethoven_piano"), "recognised"]
    rows = [(name, nats, training["nats_wrong_latent"][name])
            for name, nats in training["nats"].items()]  # fmt: skip
    return f"""# six-domains-small

Translates any music into six domains by instrumentation: orchestra, string quartet, choir with
orchestra, organ, piano, harpsichord. Preset `small`: an encoder on a filter bank, six WaveNet decoders of 2 x 10
layers and 64 channels, each given a linear prediction by the spectrum that its domain would have. The weights are kept as 8-bit
integers: {sum(p.stat().st_size for p in MODEL.glob("*.safetensors")) / 1e6:.1f} MB, and the held-out loss of each domain is within .004 of what it was before that.

**Made from:** the corpus `six-domains` (`umt corpus six-domains`): public scores played by sampled
instruments, 3 hours of training audio; see `data/README.md` for what was played and its terms.
No recordings, no parallel data, no scores in training. **Terms:** MIT, as the project.

**Trained:** from nothing on one core, {training["steps"]:,} steps in {training["seconds"] / 60:.0f} minutes, 20 of them the encoder; then the maps from the latent to each domain's
spectrum once more, 13 minutes: five by least squares, the piano's before a judge. The code that did it is version 504c071; it has been replaced
by the recipe in `umtlib/small`, and these weights will be replaced by the model that the recipe trains. Why: `docs/experiments.md`.

## Held-out losses at the end

Nats per sample, in float32; "wrong latent": with the latent of another segment.

{markdown(("domain", "nats", "wrong latent"), rows)}

## Goals

**Nearly all are missed.** Of {reached["mean"][1]} for the mean over all targets the model reaches {reached["mean"][0]}, the melody of the whistle, and of {reached["single"][1]} for single targets {reached["single"][0]}, none
of them in the time of piano and harpsichord. In brackets: what the true rendering has. Measured on the {about["excerpts"]} held-out paired excerpts of
`data/mini`, by `umt evaluate --data data/mini --temperature {about["temperature"]}`; the rest of it is in `docs/report`.

{wanted}

`docs/evaluation.md` says what each measure is. Onsets that are found at random get an `onset_f` of .5, so that of orchestra, quartet and choir is reached
with ease. The goal of `note_f` was .50 by an earlier detector, by which the truth had .58: .86 of it. Not measured here: whether the whistle flutters.

## Limits

What takes longer than a frame of 50 ms stays as it was, and what is shorter is smeared: attacks are dull, levels flutter, a piano made from an
organ does not fade, and {missed:.0%} of the pianos are taken for something else. All outputs have the noise of 8-bit mu-law. A filter on the
untranslated input that is given the same spectra keeps more of its notes (`docs/experiments.md`). It knows six
sounds of one soundfont; above 5 kHz the encoder hears nothing, and a bird's song comes out nearly silent; drums, speech and dense mixtures
are outside what it has seen. The latent does not say all of the notes and still says something of the source: the model's classifier names it in
{sum(training["accuracy"].values()) / len(training["accuracy"]):.0%} of the held-out segments, chance 17 %.
"""


if __name__ == "__main__":
    verbs = {"publish": publish, "keep": keep}
    verbs[sys.argv[1]](Path(sys.argv[2])) if sys.argv[1:] else main()
