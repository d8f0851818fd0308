"""The site's notebooks are text without outputs; their cells are linted, formatted and run as code is."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
NOTEBOOKS = [
    page for page in PAGES if page.read_text(encoding="utf-8").startswith("---\nfile_format: mystnb\n")
]
GUIDES = sorted((DOCS / "guides").glob("*.md"))
CELL = re.compile(r"^```\{code-cell\} ipython3\n(?:(?::[^\n]*\n)+\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def run_ruff(folder: Path, *arguments: str) -> None:
    command = [Path(sys.executable).with_name("ruff"), *arguments, "--no-cache", "."]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def read_cells(page: Path) -> list[str]:
    return CELL.findall(page.read_text(encoding="utf-8"))


def test_there_are_ten_guides_and_all_are_notebooks() -> None:
    assert [guide.name[:3] for guide in GUIDES] == [f"{number:02}_" for number in range(1, 11)]
    assert set(GUIDES) <= set(NOTEBOOKS)


def test_no_notebook_is_kept_with_outputs() -> None:
    assert [path for path in DOCS.rglob("*.ipynb") if "_build" not in path.parts] == []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert "{output}" not in text, name_of(page)
        assert "data:image" not in text, name_of(page)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_cells_compile_and_are_complete(page: Path) -> None:
    cells = read_cells(page)
    assert len(cells) == page.read_text(encoding="utf-8").count("{code-cell}")
    compile("\n".join(cells), name_of(page), "exec")


@pytest.mark.parametrize("guide", [*GUIDES, DOCS / "start" / "first_network.md"], ids=name_of)
def test_a_guide_installs_the_package_asks_first_and_concludes(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    first = read_cells(guide)[0]
    assert 'find_spec("keras_rwinit") is None' in first
    assert '"pip", "install"' in first
    assert "## What to take away" in text
    assert f"<{guide.stem}.ipynb>" in text, "the notebook can be downloaded"
    if guide in GUIDES:
        question = text.split("\n\n")[2]
        assert question.startswith("**"), "the question stands first"
        assert question.split("**")[1].endswith("?")
        # A picture: a figure of a cell.
        assert "plt.subplots(" in text


def test_the_first_cell_is_the_same_but_for_the_extras() -> None:
    firsts = {re.sub(r"\[[a-z,]+\]", "[]", read_cells(guide)[0]) for guide in GUIDES}
    assert len(firsts) == 1


@pytest.mark.parametrize("guide", GUIDES, ids=name_of)
def test_every_name_that_a_guide_imports_from_the_package_is_public(guide: Path) -> None:
    for node in ast.walk(ast.parse("\n".join(read_cells(guide)))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_rwinit"):
            assert "._" not in (node.module or "")
            assert not any(alias.name.startswith("_") for alias in node.names)


@pytest.mark.skipif(not Path(sys.executable).with_name("ruff").exists(), reason="needs ruff")
def test_cells_are_linted_and_formatted(tmp_path: Path) -> None:
    """The cells of a page are linted together, in which imports may follow code, and formatted one by one."""
    for folder in ("cells", "pages"):
        (tmp_path / folder).mkdir()
    shutil.copy(DOCS.parent / "pyproject.toml", tmp_path)
    for page in NOTEBOOKS:
        stem = name_of(page).replace("/", "_").removesuffix(".md")
        # A semicolon at the end of a cell hides what its last line returns; the formatter would remove it.
        cells = [cell.removesuffix(";\n").rstrip() + "\n" for cell in read_cells(page)]
        for number, cell in enumerate(cells):
            (tmp_path / "cells" / f"{stem}_{number}.py").write_text(cell, encoding="utf-8")
        (tmp_path / "pages" / f"{stem}.py").write_text("\n\n".join(cells), encoding="utf-8")
    # Not for notebooks: imports at the top and in order, and an expression alone, whose value is shown.
    run_ruff(tmp_path / "pages", "check", "--ignore", "E402,B018,I001")
    run_ruff(tmp_path / "cells", "format", "--diff")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("back_end", "number"), [("jax", 0), ("torch", 1)])
def test_the_loops_of_the_other_back_ends_train(back_end: str, number: int, tmp_path: Path) -> None:
    """The blocks of guide 10 that the build of the site does not execute, with fewer layers and epochs."""
    pytest.importorskip(back_end)
    block = BLOCK.findall((DOCS / "guides" / "10_training_loops.md").read_text(encoding="utf-8"))[number]
    for long, short in (("depth=50", "depth=5"), ("range(4)", "range(2)")):
        assert long in block
        block = block.replace(long, short)
    script = tmp_path / "loop.py"
    script.write_text(f"{block}\nassert losses[1] < 0.5 * losses[0], losses\n", encoding="utf-8")
    environment = {**os.environ, "KERAS_BACKEND": back_end, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
