"""Files from outside, read only if they are what they should be; own files, written whole or not.

What is refused here is an `OSError` or a `ValueError`; who asked for the file says what it was for.
"""

import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from umtlib.errors import UmtError


def open_regular(path: str | os.PathLike) -> IO[bytes]:
    """Open a file for reading; what is not there, or no regular file, raises OSError.

    A pipe would be waited for, a device be read without end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is not a regular file")
    return open(path, "rb")


def read_json(path: str | os.PathLike) -> Any:
    """Return what a file of JSON holds; errors are those of `open_regular` and `parse_json`."""
    with open_regular(path) as file:
        return parse_json(file.read())


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says: UTF-8, 16 or 32, with or without a byte order mark.

    What is not JSON, or has the words NaN or Infinity, raises ValueError.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def to_json(values: Any, **settings: Any) -> str:
    """Return JSON that every reader takes: a number that is none is written as ``null``.

    Settings are those of `json.dumps`.
    """
    return json.dumps(_numbers(values), allow_nan=False, **settings)


def _numbers(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _numbers(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_numbers(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside a file to write to; rename it at the end, or remove it."""
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, error: type[UmtError]) -> Iterator[Path]:
    """Give a temporary folder to write to; rename it at the end, or remove it.

    If the folder exists already, or cannot be written, it raises the UmtError that is given.
    """
    path = Path(path)
    if path.exists():
        raise error(f"{path} exists already; choose another name or remove it")
    part = path.with_name(f"{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        part.mkdir(parents=True)
        yield part
        part.rename(path)
        flush(path.parent)
    except OSError as reason:
        said = reason.strerror or reason
        raise error(f"cannot write {path}: {said}; choose another folder") from reason
    finally:
        shutil.rmtree(part, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stop_in_order() -> None:
    """Let SIGTERM end this process as an exception does, which takes half-written files with it."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one shall not interrupt the cleaning up
    sys.exit(128 + number)
