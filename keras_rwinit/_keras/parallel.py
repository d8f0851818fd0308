"""Runs a NumPy computation in parts, in threads on all processors that end with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

__all__ = ["available_processors", "run_in_parts"]

# A part takes a fraction of a processor's cache, and long enough that starting it costs nothing.
_PART_BYTES = 2**19
# Most memory of all running parts; a QR decomposition needs several arrays of float64 for each.
_ARRAYS, _WORKING_BYTES = 5, 2**28


def available_processors() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_in_parts(function: Callable[[slice], None], count: int, entries: int) -> None:
    """Calls `function` for consecutive parts of `count` items, in several threads.

    There are at most as many threads as processors. The calls run in any order and at the same time. An
    exception in one of them, or Ctrl-C, ends the computation: parts that have not begun are left out, and
    the exception is raised when no thread is at work any more.

    Args:
        function: Computes the items of a slice. It is fast in threads where NumPy does most of its work.
        count: Number of items.
        entries: Numbers of float64 in an item, by which the parts are made small.
    """
    size = max(1, _PART_BYTES // (8 * entries))
    parts = list(_parts(count, size))
    memory = _ARRAYS * 8 * entries * size
    workers = min(len(parts), available_processors(), max(1, _WORKING_BYTES // memory))
    if workers <= 1:
        for part in parts:
            function(part)
        return
    # Threads of the call's own: none is left over for a forked process to miss.
    executor = ThreadPoolExecutor(workers, thread_name_prefix="keras_rwinit")
    try:
        for _ in executor.map(function, parts):
            pass
    finally:
        executor.shutdown(cancel_futures=True)


def _parts(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
