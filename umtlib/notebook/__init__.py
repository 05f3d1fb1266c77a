"""What only the notebooks and the pictures need: plots, players, widgets, the set-up on Colab."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from umtlib.errors import CorpusError


def data(name: str) -> Path:
    """Return the path of data that comes with umtlib, from the repository or an installed wheel.

    Parameters
    ----------
    name : str
        Below ``data/``, as ``mini``, the small corpus, or ``examples/whistle.wav``.

    Raises
    ------
    CorpusError
        If there is no such file or folder.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "data", package.parent / "data"):
        if (folder / name).exists():
            return folder / name
    raise CorpusError(f"no data {name!r} came with umtlib; see the repository's data/README.md")


def root() -> Path:
    """Return the folder that has ``data/`` in it: the repository, or umtlib where it is installed.

    Above a notebook that lies in the repository it is ``..``, so that paths stay short when shown.
    """
    near = Path("..")
    return near if (near / "data/mini").exists() else data("mini").parents[1]


def device() -> str:
    """Return ``cuda`` if there is a GPU that torch can use, and else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show below the cell how far something is, and the time left, while it lasts.

    Gives a function of what is done and the whole, as `umtlib.translate` takes it::

        with notebook.progress("translating") as tell:
            made = umtlib.translate(model, whistle, 16_000, progress=tell)

    Parameters
    ----------
    title : str
        What is being done.
    """
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with tqdm(desc=title, bar_format=form, leave=False, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell
