"""BLAS on one thread: while anyone is inside, whoever leaves last, and kernels that do not change by it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from keras_rwinit.theory import DISTRIBUTIONS, _blas_threads
from keras_rwinit.theory._blas_threads import SINGLE_BLAS_THREAD, SingleBlasThread
from keras_rwinit.theory.distributions import draw_kernel, draw_kernels


class Library:
    """A BLAS with a number of threads for the process, or for each thread."""

    def __init__(self, by_thread: bool) -> None:
        self.threading_layer = "openmp" if by_thread else "pthreads"
        self._numbers: Any = threading.local() if by_thread else type("Shared", (), {})()

    @property
    def num_threads(self) -> int:
        return getattr(self._numbers, "number", 8)

    def set_num_threads(self, num_threads: int) -> None:
        self._numbers.number = num_threads

    def clear_controlling_thread(self, force: bool = False) -> None:
        pass


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Gives BLAS two threads, of which the tests' configuration leaves one."""
    before = [(library, library.num_threads) for library in _blas_threads._find_libraries()]
    assert before
    _blas_threads._set_threads([(library, 2) for library, _ in before])
    yield
    _blas_threads._set_threads(before)


def in_a_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def enter(context: SingleBlasThread) -> None:
    context.__enter__()


@pytest.mark.parametrize("by_thread", [False, True])
def test_threads_that_overlap(by_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is inside for as long as another enters and leaves."""
    library, context = Library(by_thread), SingleBlasThread()
    monkeypatch.setattr(_blas_threads, "_find_libraries", lambda: [library])

    def overlap() -> tuple[int, int]:
        with context:
            inside = library.num_threads
        return inside, library.num_threads

    with context:
        assert library.num_threads == 1
        assert in_a_thread(overlap) == (1, 8 if by_thread else 1)
        assert library.num_threads == 1
    assert library.num_threads == 8


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library, context = Library(by_thread=False), SingleBlasThread()
    monkeypatch.setattr(_blas_threads, "_find_libraries", lambda: [library])
    in_a_thread(lambda: enter(context))
    assert library.num_threads == 1
    context.forget_other_threads()
    assert library.num_threads == 8
    with context:
        assert library.num_threads == 1
    assert library.num_threads == 8


def test_the_limit_holds_in_any_thread_and_ends_in_any(two_threads: None) -> None:
    """threadpoolctl alone ignores a second thread that sets it."""
    numbers = [library.num_threads for library in _blas_threads._find_libraries()]
    assert set(numbers) == {2}

    def inside() -> list[int]:
        with SINGLE_BLAS_THREAD:
            return [library.num_threads for library in _blas_threads._find_libraries()]

    for _ in range(2):
        assert set(inside()) <= {1}
        assert set(in_a_thread(inside)) <= {1}
        assert [library.num_threads for library in _blas_threads._find_libraries()] == numbers


@pytest.mark.parametrize("width", [64, 257])
@pytest.mark.parametrize("name", ["orthogonal", "looks_linear", "truncated_normal"])
def test_kernels_are_the_same_together_alone_and_in_threads(name: str, width: int, two_threads: None) -> None:
    """To the bit. Blocked QR, as of width 257, has other last bits on two threads of BLAS."""
    distribution = DISTRIBUTIONS[name]

    def draw(seed: int) -> np.ndarray:
        return draw_kernel(distribution, np.random.default_rng(seed), width, width)

    alone = np.stack([draw(seed) for seed in range(6)])
    together = draw_kernels(distribution, [np.random.default_rng(seed) for seed in range(6)], width, width)
    np.testing.assert_array_equal(together, alone)
    with ThreadPoolExecutor(3) as executor:
        np.testing.assert_array_equal(list(executor.map(draw, range(6))), alone)
