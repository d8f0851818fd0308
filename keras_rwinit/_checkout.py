"""Makes a checkout work as an installed package does: it finds `models` and `tuning` beside the package.

A Python that is started in a checkout imports the package from there, whatever is installed. A wheel holds
the two directories inside the package.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["find_siblings"]

_ROOT = Path(__file__).parent.parent
_SIBLINGS = {f"keras_rwinit.{name}": _ROOT / name for name in ("models", "tuning")}


class _SiblingFinder(MetaPathFinder):
    """Finds the packages that lie beside `keras_rwinit`; those inside were found before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        directory = _SIBLINGS.get(fullname)
        if directory is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, directory / "__init__.py", submodule_search_locations=[str(directory)]
        )


def find_siblings() -> None:
    """Lets Python find the two directories, if this is a checkout."""
    # Other projects may have directories of these names beside an installed package.
    if (_ROOT / "models" / "model_zoo.py").is_file() and (_ROOT / "tuning" / "hypermodel.py").is_file():
        sys.meta_path.append(_SiblingFinder())
