"""Run one function over many items in several processes, so that Ctrl-C ends it soon and quietly."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from kvseg_monai.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def as_done(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> Iterator[tuple[int, Result]]:
    """Yield (index of the item, result) as the results come in; in this process if one worker is enough.

    An exception of ``function`` is raised here. Then, as after Ctrl-C, the items in work are finished, and no other is
    begun.

    Raises:
        InputError: when a process was ended from outside, as the system does where memory is short.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    with ProcessPoolExecutor(workers, initializer=_leave_signals_to_the_parent) as pool:
        futures = {pool.submit(function, item): index for index, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                "a process was ended from outside, most likely for lack of memory; run again with --workers 1"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def in_order(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, chunk: int) -> list[Result]:
    """Return the results in the order of the items; ``chunk`` items at a time go to a process, for small tasks."""
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    done = dict(as_done(partial(_each, function), chunks, workers=workers))
    return [result for index in range(len(chunks)) for result in done[index]]


def _leave_signals_to_the_parent() -> None:
    """Ignore Ctrl-C, which the terminal sends to every process and only the first is to answer; end at SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
