"""The examples run, and so does every Python block of the README."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISONS = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


BY_HAND = ("gain_landscape", "ten_thousand_layers")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.exhaustive if path.stem in BY_HAND else ()) for path in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    if path.stem == "gain_landscape":
        pytest.importorskip("keras_tuner")
    picture = tmp_path / "walk.png"
    CHECKS[path.stem](load(path).main(["--quick", "--picture", str(picture)]))
    assert picture.read_bytes().startswith(b"\x89PNG")


def learns(accuracy: float) -> None:
    """A network that learns nothing stays at the largest class's share, about 10 %."""
    assert accuracy > 0.85


def best_is_near_the_analytic_optimum(best: dict[str, float]) -> None:
    """Of gains from 0.8 to 1.3 of the analytic one; the neighbors of 1 are 0.93 and 1.09."""
    assert best.keys() == {"tanh", "relu"}
    assert all(0.9 < ratio < 1.1 for ratio in best.values())


def fits(scores: dict[str, float]) -> None:
    """The linear part of the function explains about 75 % of the variance."""
    assert min(scores.values()) > 0.8


CHECKS = {
    "gain_landscape": best_is_near_the_analytic_optimum,
    "regression": fits,
    "ten_thousand_layers": learns,
    "thousand_layers": learns,
}


def test_the_readme_has_blocks_to_run() -> None:
    assert BLOCKS


def make_small(block: str) -> str:
    """Returns a block of the README with fewer layers and epochs."""
    return (
        block.replace("depth=1000", "depth=20")
        .replace("epochs=10", "epochs=1")
        .replace("range(60)", "range(6)")
    )


def run_block(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_block(make_small(block))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_network_of_the_readme_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (block for block in BLOCKS if "model_zoo.recipe" in block)
    assert "depth=1000" in block
    assert "epochs=10" in block
    monkeypatch.chdir(tmp_path)
    names = run_block(block)
    digits = names["digits"]
    assert names["model"].evaluate(digits.x_train, digits.y_train, verbose=0)[1] > 0.9


def test_the_page_counts_verdicts_as_the_table_does() -> None:
    table = ROOT / "benchmarks" / "results" / "verdicts_compared.csv"
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0"]  # on which the limits were set
    outcomes: dict[str, Counter[str]] = {"fine": Counter(), "failing": Counter()}
    for row in rows:
        word = re.split(r"[ ;]", row["verdict"])[0]
        kind = "failing" if word in ("vanishing", "exploding", "dead") else word
        outcomes.setdefault(kind, Counter())[row["outcome"]] += 1
    fine, failing = outcomes["fine"], outcomes["failing"]
    assert fine["chance"] == 0
    sentence = (
        f"Of {len(rows)} networks trained on digits (one seed; the limits were set on the same networks), "
        f"{fine['learned']} of the {fine.total()} called fine learned and none stayed at chance; "
        f"{failing['chance']} of the {failing.total()} called vanishing, exploding or dead stayed at chance"
    )
    assert sentence in " ".join(COMPARISONS.split())
