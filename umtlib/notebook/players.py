"""Hear sounds in a notebook, and bring one's own. Notebook: ``01_quickstart``."""

import html
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from IPython.display import HTML, Audio

from umtlib.audio import SAMPLE_RATE


def play(sounds: Mapping[str, np.ndarray]) -> HTML:
    """Return a player with a title for each sound, to be the last line of a notebook's cell.

    Parameters
    ----------
    sounds : mapping
        Sounds by title, each of shape (T,), in [-1, 1], 16 kHz. They keep their levels: nothing
        is normalised, and what exceeds 1 is clipped.
    """
    rows = "".join(_row(title, waveform) for title, waveform in sounds.items())
    return HTML(f"<table>{rows}</table>")


def _row(title: str, waveform: np.ndarray) -> str:
    samples = np.clip(np.asarray(waveform, dtype=np.float32), -1, 1)
    player = Audio(samples, rate=SAMPLE_RATE, normalize=False)._repr_html_()
    return f"<tr><th style='text-align: left'>{html.escape(title)}</th><td>{player}</td></tr>"


def uploaded(widget) -> Path | None:
    """Return the file that was put into an upload button, or None if there is none yet.

    Parameters
    ----------
    widget : ipywidgets.FileUpload
        Of ipywidgets 7 (Colab), whose value is a dict by file name, or 8 (JupyterLab), whose value
        is a tuple.

    Returns
    -------
    Path or None
        A copy of the last file, in a temporary folder, for `umtlib.read`.
    """
    files = widget.value
    if not files:
        return None
    if isinstance(files, Mapping):
        name, content = [(name, file["content"]) for name, file in files.items()][-1]
    else:
        name, content = files[-1]["name"], files[-1]["content"]
    path = Path(tempfile.mkdtemp(prefix="umt-upload-")) / Path(name).name
    path.write_bytes(content)
    return path
