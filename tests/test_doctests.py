"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

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


def test_the_public_functions_have_examples() -> None:
    for name in keras_rwinit.__all__:
        thing = getattr(keras_rwinit, name)
        if callable(thing) and not isinstance(thing, type):
            assert ">>>" in (thing.__doc__ or ""), name
