"""Set up Google Colab; the first cell of every notebook calls this there, and nowhere else."""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Colab's own builds fit its GPU and each other; another version would also ask for a restart.
KEPT = ("torch", "torchaudio", "numpy")


def set_up(repository: str | os.PathLike = "..") -> None:
    """Install umtlib and what it needs, without replacing Colab's torch and numpy.

    Parameters
    ----------
    repository : path
        The folder that was cloned.

    Raises
    ------
    subprocess.CalledProcessError
        If pip finds no versions that go together with the ones that are kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in installed(KEPT)), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--constraint", constraints, "--editable", repository], check=True)


def installed(names: tuple[str, ...]) -> list[str]:
    """Return ``name==version`` for each of the packages that is installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found
