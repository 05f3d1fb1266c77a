"""A folder of results that is there when it is complete, and not before."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from umtlib.errors import EvaluationError


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder to write to; rename it to ``folder`` at the end, or remove it.

    Enter it before long work, and what cannot be written is refused before the work is done.

    Raises
    ------
    EvaluationError
        If the folder exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise EvaluationError(f"{folder} exists already; choose another name or remove it")
    part = folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        reason = error.strerror or error
        raise EvaluationError(f"cannot write {folder}: {reason}; choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
