"""The refusal of what cannot fit."""

from __future__ import annotations

import os

import pytest

from keras_rwinit import _limits, model_zoo
from keras_rwinit._limits import check_fits, format_bytes, physical_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (40.1 * 2**20, "40.1 MiB"),
        (1010 * 2**20, "1,010 MiB"),
        (23.5 * GIB, "23.5 GiB"),
        (2**40, "1 TiB"),
        (3 * 2**50, "3 PiB"),
        (5000 * 2**50, "5,000 PiB"),
    ],
)
def test_binary_units(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_this_machine_has_memory() -> None:
    memory = physical_memory()
    assert memory is None or GIB // 4 < memory < 2**50


def test_pages_times_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert physical_memory() is not None
    assert physical_memory() <= 4_096_000  # type: ignore[operator]


@pytest.mark.parametrize("error", [AttributeError, OSError, ValueError])
def test_a_system_that_does_not_say(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def sysconf(name: str) -> int:
        raise error(name)

    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert physical_memory() is None
    check_fits(2**80, "Anything")


def test_refused_with_both_sizes_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "physical_memory", lambda: 2 * GIB)
    check_fits(2 * GIB, "This")
    with pytest.raises(
        ValueError, match=r"^This takes 3 GiB, and this machine has 2 GiB of memory\. Use a sma"
    ):
        check_fits(3 * GIB, "This")


@pytest.mark.parametrize(
    ("dtype", "item"), [(None, 4), ("float64", 8), ("float16", 2), ("mixed_bfloat16", 4)]
)
def test_the_zoo_refuses_before_it_draws(dtype: str | None, item: int) -> None:
    count = model_zoo.count_parameters(10**4, 10**4, 1, 10)
    message = rf"{count:,} parameters.*takes {format_bytes(item * count)}.*Use a smaller width or depth"
    with pytest.raises(ValueError, match=message):
        model_zoo.deep_mlp(depth=10**4, width=10**4, input_shape=(1,), dtype=dtype)
