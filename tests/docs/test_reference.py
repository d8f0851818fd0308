"""The reference names every public name, once, and nothing that does not exist."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from functools import reduce
from pathlib import Path
from types import ModuleType

import pytest
from reference_helpers import MODULES

import keras_rwinit

DOCS = Path(__file__).resolve().parents[2] / "docs"
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(?:function|class|exception|data):: (\S+)$", re.MULTILINE)
DOCUMENTED = [
    path
    for page in sorted((DOCS / "reference").glob("*.md"))
    for path in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
]


def find(path: str) -> object:
    """Returns what a dotted path from `keras_rwinit` on leads to."""
    for module in ("keras_rwinit.data.timit", "keras_rwinit.diagnostics", "keras_rwinit.initialization"):
        if path.startswith(f"{module}."):
            return getattr(importlib.import_module(module), path.removeprefix(f"{module}."))
    return reduce(getattr, path.split(".")[1:], keras_rwinit)


@pytest.fixture(autouse=True)
def _optional_packages() -> None:
    pytest.importorskip("keras_tuner")
    pytest.importorskip("tensorflow_datasets")


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    known = {id(find(path)) for path in DOCUMENTED}
    missing = [
        public
        for public in module.__all__
        if public != "__version__"
        and not isinstance(getattr(module, public), ModuleType)
        and id(getattr(module, public)) not in known
    ]
    assert not missing, f"add these names of {name} to docs/reference/"


def test_every_public_module_is_checked() -> None:
    modules = {
        f"keras_rwinit.{name}"
        for name in keras_rwinit.__all__
        if isinstance(getattr(keras_rwinit, name), ModuleType)
    }
    assert modules - {"keras_rwinit.model_zoo"} <= set(MODULES)


def test_nothing_is_documented_twice() -> None:
    assert [path for path, count in Counter(DOCUMENTED).items() if count > 1] == []


def test_each_page_of_the_reference_has_a_place_in_its_index() -> None:
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    pages = {page.stem for page in (DOCS / "reference").glob("*.md")} - {"index"}
    assert pages <= set(index.split("```")[1].split())


def test_every_name_of_the_tables_is_on_a_page() -> None:
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    tables = re.findall(r"^   (keras_rwinit\.\S+)$", index, re.MULTILINE)
    assert sorted(tables) == sorted(path for path in DOCUMENTED if path not in LISTED_ON_PAGES)


LISTED_ON_PAGES = {
    "keras_rwinit.data.timit.FOLDED_PHONES",
    "keras_rwinit.data.timit.PHONES",
    "keras_rwinit.model_zoo.presets",
    "keras_rwinit.theory.ACTIVATIONS",
    "keras_rwinit.theory.DISTRIBUTIONS",
}
"""Data, for which a table of summaries would show those of their types."""


def test_citations_have_the_version_of_the_package() -> None:
    assert f"version: {keras_rwinit.__version__}\n" in (DOCS.parent / "CITATION.cff").read_text(
        encoding="utf-8"
    )
    assert f"version = {{{keras_rwinit.__version__}}}" in (DOCS / "citing.md").read_text(encoding="utf-8")
