"""Work on many files in many processes, of which any may be ended by the file that it reads."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from umtlib import files
from umtlib.errors import CorpusError

Given, Made = TypeVar("Given"), TypeVar("Made")


def shard() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as ``torchrun`` announces them.

    Raises
    ------
    CorpusError
        If the environment's ``RANK`` and ``WORLD_SIZE`` make no sense.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise CorpusError(f"RANK {rank!r} must be a number from 0 to below WORLD_SIZE, {world!r}")
    return int(rank), int(world)


def in_parallel(
    work: Callable[[Given], Made], items: list[Given], workers: int | None = None
) -> Iterator[tuple[Given, Made | None]]:
    """Yield items and what `work` makes of them, in any order; None of what ends its process.

    All that is in flight ends with a process that crashes or has no memory left. Each of these
    items is tried once more, alone, so that nothing is lost but the culprit.

    Parameters
    ----------
    work : callable
        It, the items and its results are pickled.
    items : list
        What to work on.
    workers : int, optional
        Processes; by default one per CPU, shared by the shards of one machine. With 0 the work is
        done in this process.

    Raises
    ------
    CorpusError
        If no process can be started.
    """
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if not workers:
        yield from ((item, work(item)) for item in items)
        return
    waiting, suspects = deque(items), []
    while waiting:
        running: dict[Future, Given] = {}
        with _pool(workers) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 4 * workers:
                        future = pool.submit(_orderly, work, waiting[0])  # may find it broken
                        running[future] = waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        made = future.result()
                        yield running.pop(future), made
            except BrokenProcessPool:
                suspects += running.values()
            finally:
                pool.shutdown(cancel_futures=True)
    for item in suspects:
        with _pool(1) as pool:
            try:
                made = pool.submit(_orderly, work, item).result()
            except BrokenProcessPool:
                made = None
        yield item, made


def _pool(workers: int) -> ProcessPoolExecutor:
    """Start processes; where they cannot even start, no item is to blame."""
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=files.stop_in_order
    )
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise CorpusError(
            "no process can be started to work in; in a script, call this below "
            "'if __name__ == \"__main__\":', or give workers=0"
        ) from error
    return pool


def _orderly(work: Callable[[Given], Made], item: Given) -> Made:
    """Work; on SIGTERM end this process when its files are cleaned up, or the pool keeps it."""
    try:
        return work(item)
    except SystemExit as end:
        os._exit(end.code)
