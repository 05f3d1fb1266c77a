"""Show that the arithmetic of `--dtype auto` cannot be told from float32 by any measure.

Paired excerpts are translated into every domain in float32 with two seeds, and in the arithmetic
that is the default here. Printed is, per measure, how far its mean moves from the one seed to the
other, how far with the arithmetic, and the standard error of that difference.

    python scripts/arithmetic.py data/mini --excerpts 12
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import umtlib
from umtlib import audio, generation
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation import pitch, recogniser, truth
from umtlib.evaluation.tables import markdown
from umtlib.evaluation.translations import choose


def main(
    data: Annotated[Path, typer.Argument(help="A corpus with paired excerpts.")],
    model: str = "six-domains-small",
    excerpts: int = 12,
    seconds: Annotated[float, typer.Option(help="Of each excerpt.")] = 5.0,
) -> None:
    """Print the table; exit status 1 if a measure moves more with the arithmetic."""
    loaded, judge = umtlib.load(model), recogniser.load()
    length = round(seconds * audio.SAMPLE_RATE)
    _, chosen = generation.resolve()
    ways = {"one": (torch.float32, 0), "seed": (torch.float32, 1), "auto": (chosen, 0)}
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for pair in choose(read_pairs(data), excerpts):
        source = pair.audio()[:length]
        names = [name for name in loaded.domains if name in pair.files]
        for way, (dtype, seed) in ways.items():
            how = {"to": names, "dtype": dtype, "seed": seed}
            made = umtlib.translate(loaded, source, audio.SAMPLE_RATE, **how)
            for name, sound in made.items():
                found = pitch.evaluate(source, sound)
                rows[way].append(found | truth.evaluate(pair.audio(name)[:length], sound, judge))
        print(pair.id, flush=True)
    print(f"{len(rows['one'])} translations; {chosen} against float32")
    cells, worst = [], 0.0
    for measure in rows["one"][0]:
        one, seed, auto = (np.array([row[measure] for row in rows[way]]) for way in ways)
        error = np.nanstd(auto - one) / len(one) ** 0.5
        moved = np.nanmean(seed - one), np.nanmean(auto - one)
        cells.append((measure, float(np.nanmean(one)), *map(float, moved), float(error)))
        worst = max(worst, abs(moved[1]) / (abs(moved[0]) + 2 * error + 1e-12))
    print(markdown(("measure", "float32", "other seed", "auto", "error"), cells))
    raise SystemExit(bool(worst > 1))  # NumPy's would be printed


if __name__ == "__main__":
    typer.run(main)
