"""Every public name has an example, and every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable

import pytest
from reference_helpers import MODULES as PUBLIC_MODULES

import keras_rwinit
import keras_rwinit.models

_LEFT_OUT = {
    "keras_rwinit.layers._loops.jax",
    "keras_rwinit.layers._loops.torch",
    "keras_rwinit.__main__",
    "keras_rwinit.distribution",  # warns
}
MODULES = sorted(
    {
        module.name
        for package in (keras_rwinit, keras_rwinit.models, keras_rwinit.tuning)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    - _LEFT_OUT
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def _parameters(thing: Callable[..., object]) -> set[str]:
    """Returns the names of the parameters of a function, or of the constructor of a class."""
    # An exception takes a message, as every exception does.
    if isinstance(thing, type) and issubclass(thing, Exception):
        return set()
    return set(inspect.signature(thing).parameters)


def _described(docstring: str) -> set[str]:
    """Returns the names that stand in the section `Args` of a docstring."""
    section = re.search(r"^Args:\n((?: .*\n|\n)*)", f"{docstring}\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\S[^:]*):", section[1], re.MULTILINE) if section else []
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_public_name_has_an_example_and_describes_its_arguments(name: str) -> None:
    module = importlib.import_module(name)
    missing = []
    # Constants and modules are not callable.
    for public in filter(lambda public: callable(getattr(module, public)), module.__all__):
        thing = getattr(module, public)
        docstring = inspect.cleandoc(thing.__doc__ or "")
        if "\nExample:\n" not in docstring or ">>>" not in docstring:
            missing.append(f"{public}: an example")
        missing += [f"{public}: {argument}" for argument in _parameters(thing) - _described(docstring)]
    assert not missing, "add these to the docstrings"
