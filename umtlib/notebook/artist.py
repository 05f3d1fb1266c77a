"""A process that draws, while another makes what is to be drawn: ``umt translate`` has one.

What is sent to it, by ``submit``, are `look` and `draw`.
"""

import gc
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from umtlib.errors import GenerationError

_rows = {}  # what was looked at; the other process would import much to take it back


@contextmanager
def hired() -> Iterator[Executor]:
    """Give the process: it imports what it needs while this one imports other things.

    Raises
    ------
    GenerationError
        If it ends before its work.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _sit_down) as pool:
        pool.submit(os.getpid)  # starts it
        try:
            yield pool
        except BrokenProcessPool as error:
            raise GenerationError(
                "the process that draws has ended before its work, perhaps for want of memory; "
                "--no-picture does without it"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _sit_down() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of which the other process tells
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy's would spin, where the kernel's have work to do
    gc.disable()  # while modules are imported there is no garbage, and to look for it takes long
    from umtlib.notebook import plots

    plots.kernels()
    gc.enable()


def look(name: str, waveform: Any) -> None:
    """Analyse a sound, in [-1, 1] at 16 kHz, shape (T,), for the next picture."""
    from umtlib.notebook import plots

    _rows[name] = plots.row(waveform)


def draw(title: str, path: Path) -> None:
    """Save a picture of all that was looked at since the last one."""
    from umtlib.notebook import plots

    plots.save(plots.drawn(_rows, title), path)
    _rows.clear()
