"""Write stand-ins.md: what `umt evaluate` says of translators that are none, on data/mini.

Run ``python docs/stand_ins.py`` in the repository (ten minutes on one core) after a change of a
metric or of the data. No model is involved: the "translation" of these tables is silence.
"""

from pathlib import Path

import numpy as np

from umtlib import config
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import read_pairs
from umtlib.evaluation import recogniser, report, tables

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "mini"
HEAD = """# Stand-ins for a translator, measured

Written by `stand_ins.py` from `data/mini`; do not edit. No model is involved: in these tables
`translation` is **silence**. How to read them: [evaluation.md](evaluation.md).
"""


def main() -> None:
    """Measure, and write the tables."""
    pairs = read_pairs(DATA)
    made = report.apply(lambda sound, _: np.zeros_like(sound), pairs, config.SIX_DOMAINS)
    _, results = report.measure(pairs, config.SIX_DOMAINS, made, Corpus(DATA), recogniser.load())
    text = "\n\n".join([HEAD.strip(), *tables.measured(results)])
    (HERE / "stand-ins.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
