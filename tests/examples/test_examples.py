"""The examples run, and so does every Python block of the README."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


SLOW = ("gain_landscape", "ten_thousand_layers")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else ()) for path in EXAMPLES],
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


CHECKS = {
    "gain_landscape": best_is_near_the_analytic_optimum,
    "ten_thousand_layers": learns,
    "thousand_layers": learns,
}


def test_the_readme_has_blocks_to_run() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
