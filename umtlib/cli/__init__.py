"""The command ``umt``: one file per verb, each a thin layer over the library.

Heavy imports are inside the functions, so that ``umt --help`` answers at once.
"""

import functools
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import typer

from umtlib import files
from umtlib.cli import bench, corpus, doctor, evaluate, listening, official, train, translate
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
app.add_typer(bench.app, name="bench")

_UsageError = typer.BadParameter.__base__  # of click, which lies elsewhere in a newer typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``umt``; an error that was foreseen is one line on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not have every character of a name
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch says the rest by exceptions
    previous = signal.getsignal(signal.SIGTERM)
    files.stop_in_order()
    try:
        with warnings.catch_warnings():
            _warn_once()
            sys.exit(app(arguments, prog_name="umt", standalone_mode=False))
    except _UsageError as error:
        _correct(error)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except (UmtError, OSError, MemoryError) as error:
        complain("error", str(error) or "there is not enough memory")
        sys.exit(2)
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
