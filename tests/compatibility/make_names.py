"""Makes `names.json`: every public name of a version, with the names of its arguments and attributes."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import keras_rwinit

NAMES = Path(__file__).parent / "names.json"

# By their names in the version that wrote the table; a later name follows where there is one.
MODULES = {
    "keras_rwinit": "keras_rwinit",
    "callbacks": "keras_rwinit.callbacks",
    "data": "keras_rwinit.data",
    "diagnostics": "keras_rwinit.diagnostics",
    "initialization": "keras_rwinit.initialization",
    "initializers": "keras_rwinit.initializers",
    "layers": "keras_rwinit.layers",
    "model_zoo": "keras_rwinit.models.model_zoo",
    "optimizers": "keras_rwinit.optimizers",
    "plots": "keras_rwinit.plots",
    "sharding": "keras_rwinit.sharding",
    "theory": "keras_rwinit.theory",
    "tuning": "keras_rwinit.tuning",
}


def list_names() -> dict[str, list[str]]:
    """Returns the arguments, and for classes the attributes too, of every public name."""
    names: dict[str, list[str]] = {}
    for short, full in MODULES.items():
        module = _import(full)
        for name in module.__all__:
            names[f"{short}.{name}"] = _describe(getattr(module, name))
    return names


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return importlib.import_module(name.replace("sharding", "distribution"))


def _describe(thing: Any) -> list[str]:
    if isinstance(thing, type):
        own = [base for base in thing.__mro__ if base.__module__.startswith("keras_rwinit")]
        attributes = {name for base in own for name in vars(base) if not name.startswith("_")}
        return sorted({*_arguments(thing), *(f".{name}" for name in attributes)})
    return _arguments(thing) if callable(thing) else []


def _arguments(thing: Any) -> list[str]:
    try:
        return list(inspect.signature(thing).parameters)
    except ValueError:  # of a type of the standard library
        return []


if __name__ == "__main__":
    if NAMES.exists():
        raise SystemExit(f"{NAMES.name} exists; delete it to record another version.")
    content = {"version": keras_rwinit.__version__, "names": list_names()}
    NAMES.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
