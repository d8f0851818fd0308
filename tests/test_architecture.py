"""Imports between rooms point one way, form no circle and reach no private module of another room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "keras_rwinit"

# A room imports from its own modules and from the rows above its own.
ROWS = (
    ("_version", "_backend", "_checkout", "_checks", "_console", "_files", "_limits", "_summary", "plots"),
    ("theory", "data"),
    ("_keras",),
    ("_layer_updates",),
    ("_environment", "initializers", "optimizers", "sharding"),
    ("layers", "distribution"),
    ("_tracing", "models"),
    ("_probing",),
    ("diagnostics",),
    ("initialization", "training", "callbacks"),
    ("tuning",),
    ("commands",),
    ("cli",),
)
ROW_OF = {room: number for number, rooms in enumerate(ROWS) for room in rooms}


def find_modules() -> dict[str, Path]:
    """Returns the file of every module of the installed package, by its dotted name."""
    modules = {}
    for top in (PACKAGE, "models", "tuning"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            parts = parts if top == PACKAGE else [PACKAGE, *parts]
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


MODULES = find_modules()


def read_imports(module: str) -> Iterator[str]:
    """Yields the package's modules that `module` imports anywhere, for annotations too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                found = f"{source}.{alias.name}"
                if found in MODULES:
                    yield found
                elif source in MODULES:
                    yield source


IMPORTS = {module: set(read_imports(module)) - {module} for module in MODULES}


def room_of(module: str) -> str:
    """Returns the first name below the package; empty for the package's own `__init__`."""
    return module.split(".")[1] if "." in module else ""


def between_rooms() -> Iterator[tuple[str, str]]:
    """Yields every import of one room's module by another room's; the package's face may import all."""
    for module, imported in IMPORTS.items():
        if room_of(module) not in ("", "__main__"):
            yield from ((module, other) for other in imported if room_of(other) != room_of(module))


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 100
    assert sum(map(len, IMPORTS.values())) > 300
    assert f"{PACKAGE}.theory.gains" in IMPORTS[f"{PACKAGE}.theory"]


@pytest.mark.parametrize("room", sorted({room_of(module) for module in MODULES} - {"", "__main__"}))
def test_every_room_has_a_row(room: str) -> None:
    assert room in ROW_OF


def test_rooms_import_from_the_rows_above() -> None:
    wrong = [
        f"{module} -> {other}"
        for module, other in between_rooms()
        if not room_of(other) or ROW_OF[room_of(other)] >= ROW_OF[room_of(module)]
    ]
    assert wrong == []


def test_no_private_module_of_another_room_is_imported() -> None:
    private = [
        f"{module} -> {other}"
        for module, other in between_rooms()
        if any(name.startswith("_") for name in other.split(".")[2:])
    ]
    assert private == []


def test_private_rooms_are_underscored_once() -> None:
    twice = [module for module in MODULES if sum(name[0] == "_" for name in module.split(".")[1:]) > 1]
    assert [module for module in twice if not module.endswith(".__main__")] == []


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Returns the modules left when those that import none of the rest are taken away, again and again."""
    left = {module: set(imported) for module, imported in imports.items()}
    while True:
        ends = {module for module, imported in left.items() if not imported & left.keys()}
        if not ends:
            return [sorted(left)] if left else []
        left = {module: imported for module, imported in left.items() if module not in ends}


def test_no_import_circle() -> None:
    assert find_circles(IMPORTS) == []


def test_a_circle_would_be_found() -> None:
    assert find_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "d"]]


def test_theory_imports_no_framework() -> None:
    allowed = {"numpy", "scipy", "threadpoolctl", "ml_dtypes", PACKAGE}
    for module in MODULES:
        if room_of(module) == "theory":
            tree = ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
            names = {
                name.partition(".")[0]
                for node in tree
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or PACKAGE]
                    if isinstance(node, ast.ImportFrom) and not node.level
                    else []
                )
            }
            assert names <= allowed | sys.stdlib_module_names, module
