"""`benchmarks/theory.py`: its table, and how near to the walked values the theory is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module("theory")
    output = tmp_path / "theory.json"
    benchmark.main(["--repeats", "1", "--rows", "1", "--walked", "300", "--output", str(output)])
    report = json.loads(output.read_text(encoding="utf-8"))
    (row,) = report["calls"].values()
    assert row["first_call"] > 0.0
    assert row["another_width"] > 0.0
    assert report["error_in_nats"] < 1e-6
