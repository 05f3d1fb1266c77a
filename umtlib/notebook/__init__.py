"""What only the notebooks and the pictures need: plots, players, widgets, the set-up on Colab."""

from pathlib import Path

from umtlib.errors import CorpusError


def data(name: str) -> Path:
    """Return the path of data that comes with umtlib, from the repository or an installed wheel.

    Its name is that below ``data/``, as ``mini``, the small corpus, or ``examples/whistle.wav``.

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
