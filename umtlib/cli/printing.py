"""What several verbs print: lines, whatever names are in them, and bars."""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

from umtlib.files.names import readable


def one_line(text: object) -> str:
    """Return a text as one line."""
    return readable(" ".join(str(text).split()))


def complain(kind: str, text: object) -> None:
    """Print an error or a warning on one line of stderr."""
    print(f"umt: {kind}:", one_line(text), file=sys.stderr)


def say(text: object) -> None:
    """Print one line, with its spaces as they are."""
    print(readable(str(text)), flush=True)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Let nobody look for garbage while modules are imported: there is none, and it takes long."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage; gives a function of stage, done and total."""
    with contextlib.ExitStack() as stack:
        shown: dict[str, tqdm] = {}
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                settings = {"desc": readable(stage), "bar_format": form, "leave": False}
                bar = tqdm(total=total, disable=None, **settings)
                shown[stage] = stack.enter_context(bar)
            shown[stage].update(done - shown[stage].n)

        yield progress
