"""`benchmarks/compare.py`: the recorded results have ratios, and one that has grown is marked."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("compare")


def test_every_recorded_result_has_ratios(benchmark: ModuleType) -> None:
    for one in benchmark.BENCHMARKS.values():
        assert (BENCHMARKS / one.script).exists()
        ratios = one.read(benchmark.RESULTS / one.recorded)
        assert ratios, one.recorded
        assert all(math.isfinite(ratio) and ratio > 0.0 for ratio in ratios.values()), one.recorded


@pytest.mark.parametrize(("now", "code", "mark"), [(2.9, 0, ""), (3.1, 1, "1.55 !")])
def test_a_ratio_that_has_grown_is_marked(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    now: float,
    code: int,
    mark: str,
) -> None:
    recorded = benchmark.Benchmark("theory.py", (), "theory.json", lambda path: {"a": 2.0, "b": 1.0})
    monkeypatch.setattr(benchmark, "BENCHMARKS", {"one": recorded})
    monkeypatch.setattr(benchmark, "run", lambda one: {"a": now, "new": 9.0})
    assert benchmark.main([]) == code
    shown = capsys.readouterr().out
    assert mark in shown
    assert "new" not in shown
