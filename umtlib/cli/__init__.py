"""The command ``umt``: one file per verb, each a thin layer over the library.

Heavy imports are inside the functions, so that ``umt --help`` answers at once.
"""

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import typer

from umtlib import files
from umtlib.cli import corpus, doctor, evaluate, listening, official, train, translate
from umtlib.cli.printing import complain, one_line
from umtlib.errors import UmtError, UmtWarning

app = typer.Typer(
    help="Translate music between instruments and styles: whistle, and hear an orchestra.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (translate.translate, train.train, evaluate.evaluate, listening.ratings,
             official.import_official, doctor.doctor):  # fmt: skip
    app.command()(verb)
app.add_typer(corpus.app, name="corpus")
app.add_typer(listening.app, name="stimuli")

_UsageError = typer.BadParameter.__base__  # of click, which lies elsewhere in a newer typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``umt``; an error that was foreseen is one line on stderr and exit status 2.

    Without arguments it takes those of the process, and ends it.
    """
    streams = [one for one in (sys.stdout, sys.stderr) if one]  # None: it is closed
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # a terminal may not have every character of a name
            stream.reconfigure(errors="backslashreplace")
    status = _status(arguments)
    if arguments is None:
        for stream in streams:
            with contextlib.suppress(OSError):  # it has been told, if it can be
                stream.flush()
        os._exit(status)  # Python takes .2 s to take all of torch apart, and nothing is left to do
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch says the rest by exceptions
    if rank := os.environ.get("LOCAL_RANK"):  # two that fill one cache of numba's can damage it
        import pooch

        # Not below umtlib's own: numba would make that one such that others may write to it.
        folder = os.environ.get("NUMBA_CACHE_DIR") or pooch.os_cache("umtlib-numba")
        os.environ["NUMBA_CACHE_DIR"] = os.path.join(folder, rank)
    previous = signal.getsignal(signal.SIGTERM)
    files.stop_in_order()
    try:
        with warnings.catch_warnings():
            _warn_once()
            status = app(arguments, prog_name="umt", standalone_mode=False) or 0
            if sys.stdout:
                sys.stdout.flush()  # a full disk is told of like any other error
            return status
    except BrokenPipeError:  # nobody reads any more
        return 1
    except _UsageError as error:
        _correct(error)
        return 2
    except typer.Abort:
        return 130
    except (UmtError, OSError, MemoryError) as error:
        complain("error", str(error) or "there is not enough memory")
        return 2
    finally:
        signal.signal(signal.SIGTERM, previous)


def _warn_once() -> None:
    """Print each warning on one line, however often the same file is read."""
    once = functools.cache(functools.partial(complain, "warning"))
    warnings.showwarning = lambda message, *_, **__: once(one_line(message))
    warnings.simplefilter("always", UmtWarning)


def _correct(error: _UsageError) -> None:
    """Say what was wrong with the arguments, or show the help where there were none."""
    message = error.format_message()
    if error.ctx and message == error.ctx.get_help():
        error.show()
    else:
        command = error.ctx.command_path if error.ctx else "umt"
        complain("error", f"{message.rstrip('.')}; see {command} --help")
