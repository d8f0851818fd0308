"""`benchmarks/drawing.py` in its quick form."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_row_is_measured_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each ratio is to a time of the same run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    drawing = importlib.import_module("drawing")
    rows = drawing.main(["--quick", "--output", str(tmp_path / "drawing.json")])
    written = json.loads((tmp_path / "drawing.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in written] == [row.name for row in rows]
    assert all(row["seconds"] > 0.0 for row in written)
    by_name = {row.name: row for row in rows}
    compared = [row for row in rows if row.against in by_name]
    assert len(compared) == 4
    for row in compared:
        assert row.ratio == pytest.approx(row.seconds / by_name[row.against].seconds)


def test_a_reference_of_fewer_matrices_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    drawing = importlib.import_module("drawing")
    compared = drawing.compare(drawing.Row("drawn", 6.0, 1.0), drawing.Row("sample", 1.0, 1.0), 2.0)
    assert (compared.ratio, compared.against) == (3.0, "sample")
