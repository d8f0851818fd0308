"""Lets BLAS compute on the thread that calls it, in any number of threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from types import TracebackType
from typing import Protocol

from threadpoolctl import ThreadpoolController

__all__ = ["SINGLE_BLAS_THREAD", "SingleBlasThread"]


class _Library(Protocol):
    """A BLAS as threadpoolctl knows it."""

    num_threads: int

    def set_num_threads(self, num_threads: int) -> object: ...


@lru_cache(maxsize=1)
def _find_libraries() -> Sequence[_Library]:
    # Made once: it looks through all libraries of the process, which takes milliseconds.
    libraries: Sequence[_Library] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


class SingleBlasThread:
    """A context in which BLAS computes on the thread that calls it.

    Most builds of BLAS have one number of threads for the whole process. So the first thread that enters
    sets it, and the last one that leaves gives it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._shared: list[tuple[_Library, int]] = []
        self._own = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._shared = [
                    (library, library.num_threads)
                    for library in _find_libraries()
                    if not _is_set_by_thread(library)
                ]
                _set_threads([(library, 1) for library, _ in self._shared])
            self._inside += 1
        own = [(library, library.num_threads) for library in _find_libraries() if _is_set_by_thread(library)]
        _set_threads([(library, 1) for library, _ in own])
        # A stack, for a thread that enters twice.
        vars(self._own).setdefault("numbers", []).append(own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set_threads(self._own.numbers.pop())
        with self._lock:
            self._inside = max(self._inside - 1, 0)  # 0 if the process was forked meanwhile
            if self._inside == 0:
                _set_threads(self._shared)

    def forget_other_threads(self) -> None:
        """Gives back what threads have set that a forked process does not have."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            _set_threads(self._shared)


def _is_set_by_thread(library: _Library) -> bool:
    """Returns whether each thread has a number of its own, as threadpoolctl 3.8 sets it for OpenMP."""
    return hasattr(library, "clear_controlling_thread") and (
        getattr(library, "threading_layer", None) == "openmp"
    )


def _set_threads(numbers: Sequence[tuple[_Library, int]]) -> None:
    for library, number in numbers:
        # threadpoolctl 3.8 ignores all threads but the one that was the first to set OpenBLAS's number.
        release = getattr(library, "clear_controlling_thread", None)
        if release is not None:
            release(force=True)
        library.set_num_threads(number)
        if release is not None:
            release(force=True)


SINGLE_BLAS_THREAD = SingleBlasThread()
"""For small factorizations. The number of threads changes the last bits, and threads that wait for a busy
machine take a hundred times as long."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SINGLE_BLAS_THREAD.forget_other_threads)
