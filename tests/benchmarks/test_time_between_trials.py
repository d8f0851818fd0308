"""The benchmark of the time between trials, in its quick form, and what its recorded table says."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest

pytest.importorskip("keras_tuner")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECORDED = BENCHMARKS / "results" / "time_between_trials.csv"


@pytest.mark.slow
def test_the_quick_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It fails by itself where the two ways give different scores."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module("time_between_trials")
    rows = benchmark.main(["--quick", "--output", str(tmp_path / "rows.csv")])
    assert [row["models"] for row in rows] == ["new", "kept"]
    lines = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# python benchmarks/time_between_trials.py --quick --output {tmp_path / 'rows.csv'}"
    assert list(csv.DictReader(lines[2:])) == [
        {key: str(value) for key, value in row.items()} for row in rows
    ]


def test_the_recorded_time_is_less_than_half() -> None:
    lines = RECORDED.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    between = {(row["backend"], row["models"]): float(row["between_s"]) for row in rows}
    assert {backend for backend, _ in between} == {"tensorflow", "jax"}
    for backend in ("tensorflow", "jax"):
        assert between[backend, "kept"] < 0.5 * between[backend, "new"]
