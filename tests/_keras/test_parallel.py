"""Parts of a computation in threads: every item once, errors, Ctrl-C, and how many at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from keras_rwinit._keras import parallel
from keras_rwinit._keras.parallel import run_in_parts

ENTRIES = parallel._PART_BYTES // 8  # an item a part


@pytest.mark.parametrize("processors", [1, 3])
@pytest.mark.parametrize(("count", "entries"), [(0, 4), (1, 4), (7, ENTRIES), (100, ENTRIES // 8)])
def test_every_item_is_computed_once(
    processors: int, count: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "available_processors", lambda: processors)
    calls = np.zeros(count, int)

    def function(part: slice) -> None:
        calls[part] += 1

    run_in_parts(function, count, entries)
    assert (calls == 1).all()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_ends_the_computation(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 parts, those that have begun are finished, and no thread is left."""
    monkeypatch.setattr(parallel, "available_processors", lambda: 2)
    before, begun = threading.active_count(), []

    def function(part: slice) -> None:
        begun.append(part)
        if part.start == 3:
            raise error
        threading.Event().wait(0.001)

    with pytest.raises(error):
        run_in_parts(function, 1000, ENTRIES)
    assert 4 <= len(begun) < 1000
    assert threading.active_count() == before


def test_large_items_are_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each thread would take the memory of several kernels; small ones have threads."""
    monkeypatch.setattr(parallel, "available_processors", lambda: 8)
    threads: set[int] = set()
    run_in_parts(lambda part: threads.add(threading.get_ident()), 4, parallel._WORKING_BYTES // 8)
    assert threads == {threading.get_ident()}
    run_in_parts(lambda part: threads.add(threading.get_ident()), 4, ENTRIES)
    assert len(threads) > 1
