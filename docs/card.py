"""Write the card of the shipped model, and the README's "What to expect", from measurements.

::

    python docs/card.py publish RUN   # a run's newest checkpoint becomes the shipped model
    python docs/card.py refit MODEL   # then, always, the model that `umt refit` has made of it
    umt evaluate --model six-domains-small --data data/mini --out docs/report
    umt evaluate --model six-domains-small --data corpora/six-domains --out docs/report-all
    python docs/card.py

``publish`` keeps what the run's log says, in ``docs/training.json``, and ``refit`` the held-out
losses before and after. Every number in both texts comes from there and from the two reports;
``tests/test_card.py`` fails if they differ. Of the second report, for which `umt corpus
six-domains` comes first as it does for ``refit``, neither rows nor pictures are kept.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from umtlib import checkpoint, runs
from umtlib.config import preset
from umtlib.corpora.corpus import Corpus
from umtlib.evaluation.tables import MET, markdown

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "report" / "report.json"
WHOLE = ROOT / "docs" / "report-all" / "report.json"
TRAINING = ROOT / "docs" / "training.json"
MODEL = ROOT / "umtlib" / "pretrained" / "six-domains-small"
BEGIN, END = "<!-- from docs/card.py -->\n", "\n<!-- end -->"


def main() -> None:
    """Write the texts."""
    measured = [json.loads(path.read_text("utf-8")) for path in (REPORT, WHOLE, TRAINING)]
    (MODEL / "README.md").write_text(card(*measured), encoding="utf-8")
    readme, text = ROOT / "README.md", expectations(measured[1])
    readme.write_text(inserted(readme.read_text("utf-8"), text), encoding="utf-8")


def publish(run: Path) -> None:
    """Make the run's newest checkpoint the shipped model, and keep what its log says."""
    newest = checkpoint.newest(run)
    if MODEL.exists():
        shutil.rmtree(MODEL)
    checkpoint.save(checkpoint.load(newest), MODEL, torch.int8)  # for a small clone
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    progress = json.loads((newest / "progress.json").read_text("utf-8"))
    kept = [{k: line[k] for k in ("step", "nats", "nats_wrong_latent", "accuracy")}
            for line in lines if "nats" in line]  # fmt: skip
    summary = {"steps": progress["step"], "seconds": progress["seconds"], "validation": kept}
    TRAINING.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def refit(folder: Path) -> None:
    """Make a refitted model the shipped one, and keep the held-out losses before and after."""
    training = json.loads(TRAINING.read_text("utf-8"))
    kept = training.get("refit") or {"before": held_out()}
    model = checkpoint.load(folder)
    shutil.rmtree(MODEL)
    checkpoint.save(model, MODEL, torch.int8)
    training["refit"] = kept | {"after": held_out()}
    TRAINING.write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")


def held_out() -> dict:
    """Validate the shipped model as a run does, but in float32."""
    config = replace(preset("small").training, bf16=False)
    corpus = Corpus(ROOT / "corpora" / "six-domains")
    return runs.validate(checkpoint.load(MODEL).train(), corpus, config)


def inserted(readme: str, text: str) -> str:
    """Put a text between the README's two marks."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + text + END + rest.partition(END)[2]


def targets(report: dict, whole: dict) -> str:
    """Return what the project set itself to reach, as a table; met or not on all excerpts."""
    rows = [(a["target"], a["wanted"], b["reached"], a["reached"], a["truth"], MET[a["met"]])
            for a, b in zip(whole["results"]["targets"], report["results"]["targets"], strict=True)]  # fmt: skip
    few, many = (some["results"]["excerpts"] for some in (report, whole))
    columns = ("wanted", f"{few} that ship", f"all {many}", "the true rendering, all", "met, all")
    return markdown(("held-out paired excerpts", *columns), rows)


def expectations(report: dict) -> str:
    """Return the README's section."""
    systems, called = report["results"]["systems"], report["results"]["recogniser"]
    names = ("translation", "input", "wrong_excerpt", "truth")
    metrics = ("chroma", "note_f", "frame_f", "log_mel", "timbre")
    rows = [(metric, *(systems[name][metric] for name in names)) for metric in metrics]
    return f"""
The shipped model is small, learned from rendered scores and was trained on one processor core in an hour and a quarter. **It follows
the notes, chords included; the sound moves towards the target and does not always arrive**: an independent recogniser calls {called["translation"]["accuracy"]:.0%} of the translations their target (chance: 17 %, true renderings: {called["truth"]["accuracy"]:.0%}). On the
{report["results"]["excerpts"]} held-out test excerpts, averaged over all pairs of source and target, at temperature {report["temperature"]}:

{markdown(("", "our model", "untranslated", "another piece", "true rendering"), rows)}

`chroma`, `note_f` and `frame_f` ask for the notes (more is better), `log_mel` and `timbre` for the
distance to the true rendering (less is better). The report with the paper's tables is
[docs/report-all/report.md](docs/report-all/report.md), that on the excerpts that ship
[docs/report/report.md](docs/report/report.md); the targets that we set ourselves, with those that are missed, are in
the model's [card](umtlib/pretrained/six-domains-small/README.md)."""


def card(report: dict, whole: dict, training: dict) -> str:
    """Return the card of the model."""
    before, last = training["refit"]["before"], training["refit"]["after"]
    missed = 1 - whole["results"]["recogniser"]["translation"]["by_domain"]["beethoven_piano"]
    rows = [(name, before["nats"][name], last["nats"][name], last["nats_wrong_latent"][name])
            for name in last["nats"]]  # fmt: skip
    curve = [(line["step"], *line["nats"].values()) for line in training["validation"]]
    return f"""# six-domains-small

Translates any music into six domains by instrumentation: orchestra, string quartet, choir with
orchestra, organ, piano, harpsichord. Preset `small`: an encoder on a filter bank, six WaveNet decoders of 2 x 10
layers and 64 channels, each given a linear prediction by the spectrum that its domain would have (`umtlib/prediction.py`). The
weights are kept as 8-bit integers: {sum(p.stat().st_size for p in MODEL.glob("*.safetensors")) / 1e6:.1f} MB, and the held-out loss of each domain is within .004 of what it was before that.

**Made from:** the corpus `six-domains` (`umt corpus six-domains`): public scores played by sampled
instruments, 3 hours of training audio; see `data/README.md` for what was played and its terms.
No recordings, no parallel data, no scores in training. **Terms:** MIT, as the project.

**Trained:** from nothing on one core, {training["seconds"] / 60:.0f} minutes, products in bfloat16, 20 minutes of it the encoder (`umtlib/pretraining.py`):

```
OMP_NUM_THREADS=1 umt train --preset small --data corpora/six-domains --out runs/small --steps {training["steps"]}
```

The run was cut off once and went on from step 4,000. Its classifier, which nothing else depends on, was fitted to the finished encoder
afterwards (`pretraining.fit_classifier`, which a run now does itself). Then the maps from the latent to each domain's spectrum were
trained once more, beginning from the 8-bit weights, the decoders staying as they were: five by least squares on 24 minutes of each domain and as much
converted, drawn anew from the same half hour (the run had 12; 7 minutes on one core), the piano's before a judge (`umtlib/judging.py`, 12 minutes of audio, 6 on one
core; of two seeds the better one on validation excerpts):

```
umt refit --model runs/small --data corpora/six-domains --out runs/fitted --seed 7 --segments 7200 \\
    --fit mozart_orchestra --fit haydn_quartet --fit bach_cantata --fit bach_organ --fit bach_harpsichord
umt refit --model runs/fitted --data corpora/six-domains --out runs/refit --seed 9 --judge beethoven_piano
```

Why all this: `docs/experiments.md`. The commands of this card belong to version 504c071 of the code, whose modules it names: the training
by `umt train` and `umt refit` has been replaced by a recipe since (`umtlib/small/recipe.py`).

## Held-out losses at the end

Nats per sample; "before": before the maps were trained anew; "wrong latent": with the latent of another segment.

{markdown(("domain", "before", "nats", "wrong latent"), rows)}

Held-out nats by step of the run (in bfloat16; the table above in float32):

{markdown(("step", *last["nats"]), curve)}

## Targets

Measured as `umt evaluate --data corpora/six-domains --temperature {whole["temperature"]}` does, on all excerpts of the test set (35 minutes on two cores, half of them in each of two
processes), and by `--data data/mini`, ten minutes, on those that ship, which are others. Everything else that it found is in `docs/report-all` and `docs/report`.

{targets(report, whole)}

## Limits

The spectrum of a frame is what it translates best. What takes longer than a frame of 50 ms stays as it was: a piano made from an organ does not
fade, and {missed:.0%} of the pianos are taken for something else. All outputs have the noise of 8-bit mu-law. A filter on the untranslated input
that is given the same spectra keeps more of its notes (`docs/experiments.md`, "A filter, not only a gain"). It knows six
sounds of one soundfont; above 5 kHz the encoder hears nothing, and a bird's song comes out nearly silent; drums, speech and dense mixtures
are outside what it has seen. What holds it back, by our measurements (`docs/experiments.md`; mean squared error of a log power spectrum): read from
the latent of another domain's rendering, a spectrum is off by 4.6, from the domain's own by 2.4, and the best conceivable map by 1.6. So it is the latent, which does
not say all and still says something of the source (a classifier names it in {sum(last["accuracy"].values()) / len(last["accuracy"]):.0%} of the held-out segments, chance 17 %), and 50 ms frames with a
decoder that looks back 136 ms.
"""


if __name__ == "__main__":
    verbs = {"publish": publish, "refit": refit}
    verbs[sys.argv[1]](Path(sys.argv[2])) if sys.argv[1:] else main()
