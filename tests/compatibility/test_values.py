"""Weights, gains, walks and data are those of the version that `values.json` was recorded with."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import keras
import pytest

from .make_values import PATH, Value, environment, relative_tolerance, theory_values, weight_values

RECORDED: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
ELSEWHERE = 1e-6
"""Difference that another processor, back end or version of a package may make in a number."""

theory, weights = lru_cache(theory_values), lru_cache(weight_values)
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="recorded on the TensorFlow back end"
)


def compare(name: str, found: Value, expected: Value) -> None:
    """Fails unless a value is the recorded one, as closely as this machine can tell."""
    if found == expected:
        return
    if environment() == RECORDED["made_with"]:
        assert relative_tolerance(name) > 0.0, (found, expected)
        assert found == pytest.approx(expected, rel=relative_tolerance(name), abs=0.0)
    elif isinstance(expected, str):
        pytest.skip("arrays are the same to the bit with the packages and the processor they were made with")
    else:
        assert found == pytest.approx(expected, rel=ELSEWHERE, abs=ELSEWHERE)


@pytest.mark.parametrize("name", RECORDED["theory"])
def test_theory_and_data(name: str) -> None:
    compare(name, theory()[name], RECORDED["theory"][name])


@on_tensorflow
@pytest.mark.parametrize("name", RECORDED["weights"])
def test_weights_and_measured_walks(name: str) -> None:
    compare(name, weights()[name], RECORDED["weights"][name])


@on_tensorflow
def test_every_value_is_recorded() -> None:
    assert {**theory(), **weights()}.keys() == RECORDED["theory"].keys() | RECORDED["weights"].keys()
