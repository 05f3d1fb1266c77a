"""Run notebooks as whoever has installed umtlib does: by its wheel, away from the repository.

::

    python scripts/outside.py                # all of them
    python scripts/outside.py 06_generation  # some
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from notebooks import FOLDER, client


def install(folder: Path) -> Path:
    """Build the wheel, install it alone into a folder, and return that."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=FOLDER.parent, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    there = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", there, wheel], check=True)
    return there


def run(name: str, site: Path, folder: Path) -> None:
    """Run a notebook in a folder of its own; an error in a cell is raised."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    first = f"import umtlib; assert umtlib.__file__.startswith({str(site)!r}), umtlib.__file__"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    place = folder / name / "notebooks"
    place.mkdir(parents=True)
    client(notebook, place).execute(env=os.environ | {"PYTHONPATH": str(site)})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        site = install(folder)
        for name in sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]:
            run(name, site, folder)
            print(f"{name}: runs")
