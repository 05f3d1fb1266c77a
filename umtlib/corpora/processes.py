"""Work on many files in many processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from umtlib.errors import CorpusError

Given, Made = TypeVar("Given"), TypeVar("Made")


def shard() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as ``torchrun`` announces them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def each(
    work: Callable[[Given], Made], items: Sequence[Given], workers: int | None = None
) -> Iterator[Made]:
    """Yield what `work` makes of each item, in their order.

    It is done in so many processes, by default one per CPU, shared by the shards of one machine;
    with 0 or 1 in this one. A process that ends before its work raises a CorpusError.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if workers < 2:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        # A million files are handed over a hundred at a time, a thousand one by one.
        yield from pool.map(work, items, chunksize=1 + len(items) // 10_000)
    except BrokenProcessPool as error:
        raise CorpusError(
            "a process ended before its work: take fewer workers, which need less memory; a script "
            "must call this below 'if __name__ == \"__main__\":'"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
