"""Every equation of the theory page is named by the function that computes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "theory.md"
# `models` and `tuning` are folders of their own and parts of the package.
FOLDERS = ("keras_rwinit", "models", "tuning")
LABEL = re.compile(r"^\$\$ \((\w+)\)$", re.MULTILINE)
NAMED = re.compile(r"equation \((\w+)\) of the theory page")
WITH_DOCSTRING = ast.FunctionDef | ast.ClassDef | ast.Module


def read_labels() -> list[str]:
    return LABEL.findall(PAGE.read_text(encoding="utf-8"))


def read_docstrings() -> Iterator[tuple[str, ast.AST, str]]:
    """Yields the file, the node and the docstring, in one line, of all that has one."""
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, WITH_DOCSTRING):
                    docstring = ast.get_docstring(node) or ""
                    yield path.relative_to(REPOSITORY).as_posix(), node, " ".join(docstring.split())


def test_every_equation_has_a_label_of_its_own() -> None:
    labels = read_labels()
    assert len(labels) == len(set(labels))
    # An equation without a label has a second `$$` alone on its line.
    assert PAGE.read_text(encoding="utf-8").count("\n$$\n") == len(labels)


def test_a_function_names_each_equation() -> None:
    named = {
        label
        for _, node, docstring in read_docstrings()
        if isinstance(node, ast.FunctionDef)
        for label in NAMED.findall(docstring)
    }
    missing = [label for label in read_labels() if label not in named]
    assert not missing, "write 'equation (label) of the theory page' in the docstring of what computes it"


def test_docstrings_name_equations_of_the_page_only() -> None:
    labels = read_labels()
    unknown = [
        (path, label)
        for path, _, docstring in read_docstrings()
        for label in NAMED.findall(docstring)
        if label not in labels
    ]
    assert not unknown
