"""The table of `benchmarks/expansion_region.py`, and what the docstring of `gain` says of it."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest

from keras_rwinit import gain

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 networks at the gain of the expansion, of which a check keeps no other at this width."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    expansion_region = importlib.import_module("expansion_region")
    row = expansion_region.measure("tanh", "orthogonal", 32, 5, networks=200, seed=0)
    assert row["gain"] == f"{gain('tanh', 32, 5, distribution='orthogonal'):.4f}"
    assert abs(float(row["drift"])) < 4.0 * float(row["standard_error"])
    assert expansion_region.measure("tanh", "normal", 4, 50, networks=200, seed=0) is None


def test_wide_networks_drift_by_less_than_a_quarter_of_the_spread() -> None:
    """From width 64 up, within 3 standard errors; relu6 is the exception, and narrow networks are others."""
    lines = (BENCHMARKS / "results" / "expansion_region.csv").read_text(encoding="utf-8").splitlines()
    off = set()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        allowed = 0.25 * float(row["spread"]) + 3.0 * float(row["standard_error"])
        if abs(float(row["drift"])) > allowed:
            off.add((row["activation"], int(row["width"]) >= 64))
    assert {name for name, wide in off if wide} <= {"relu6"}
    assert {("elu", False), ("relu6", False), ("hard_sigmoid", False)} <= off
