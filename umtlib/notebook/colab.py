"""Set up Google Colab; the first cell of every notebook calls this there, and nowhere else.

That cell, and the address in it, are written by ``scripts/repository.py``.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Colab's own builds fit its GPU and each other; another version would also ask for a restart.
KEPT = ("torch", "torchaudio", "numpy", "ipywidgets")


def set_up(repository: str | os.PathLike = "..") -> Iterator[str]:
    """Install umtlib and what it needs, without replacing Colab's torch, numpy and widgets.

    It says what is being done, and with what. What is installed already is left as it is, so that
    it can be done again at no cost. The repository is the folder that was cloned.

    Raises
    ------
    subprocess.CalledProcessError
        If pip finds no versions that go together with the ones that are kept.
    """
    kept = installed(KEPT)
    if len(installed(("umtlib", "anywidget"))) < 2:
        yield f"Installing umtlib beside {', '.join(kept)}: about a minute."
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            pip = [sys.executable, "-m", "pip", "install", "--quiet"]
            pip += ["--constraint", constraints, "--editable", repository, "anywidget>=0.9"]
            subprocess.run(pip, check=True)
    import torch

    if torch.cuda.is_available():
        yield f"Ready, with the GPU {torch.cuda.get_device_name()}."
    else:
        yield "Ready, without a GPU: Runtime, Change runtime type, T4 GPU would give one."


def installed(names: tuple[str, ...]) -> list[str]:
    """Return ``name==version`` for each of the packages that is installed."""
    found = []
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name)}")
    return found
