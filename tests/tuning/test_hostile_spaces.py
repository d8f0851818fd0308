"""Hostile search spaces: a trial that can be described and built, or a ValueError that names an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from hostile import Target, draw_calls, find_fault, mostly

keras_tuner = pytest.importorskip("keras_tuner")

from keras_rwinit import tuning  # noqa: E402

_BUILT = 10**4
"""Parameters up to which a network is built, too."""

RATIOS = mostly(((0.8, 1.25), 1.0, [1.0, 1.1]), (1.1, 1.2), (0, 1), [], (1e-300, 1e300), 2.0, [None, 1.0])
BUDGETS = mostly((None, None, 10**3, 10**4), 1, 10**15, 10**400)


def first_trial(**arguments: Any) -> tuple[Any, Any]:
    """Returns the description of a space's first trial, and its network if it is small and trainable."""
    space = tuning.DeepMLPHyperModel(**arguments)
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    described = space.describe(hp.values)
    model = None
    if described["reason"] is None and described["parameters"] <= _BUILT:
        model = space.build(hp)
    assert tuning.DeepMLPHyperModel(**space.get_config()).describe(hp.values) == described
    return described, model


def sound(result: tuple[Any, Any], arguments: Mapping[str, Any]) -> str | None:
    described, model = result
    if described["reason"] is None and not np.isfinite([described["gain"], described["spread"]]).all():
        return f"returns {described}"
    for weight in () if model is None else model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            return f"{weight.path} is not finite"
    return None


TARGET = Target(
    first_trial,
    {
        "input_shape": mostly(((3,), (2, 2), [4]), (), (10**9,), (None,), "3"),
        "classes": mostly((1, 3), 10**9),
        "gain_ratio": RATIOS,
        "width": mostly((4, (4, 8), [6, 3], (8, 8)), (8, 4), (1, 10**12), [], (1.5, 2), [10**9], (2, 3, 4)),
        "depth": mostly((1, 3, (2, 5), [3, 4]), (1, 10**12), 10**5, [0]),
        "activation": mostly(
            ("relu", "tanh", "gelu", ["relu", "elu"]), "softmax", ("tanh", "relu"), "erf(1)"
        ),
        "distribution": mostly(
            (None, None, "normal", "orthogonal", "looks_linear", ["uniform", "normal"]), [None], "gauss"
        ),
        "input_gain_ratio": RATIOS,
        "output_gain_ratio": RATIOS,
        "learning_rate": mostly((None, None, 1e-3, (1e-4, 1e-2), [1e-3]), 1e300, (1e-300, 1e-2), [None], -1),
        "optimizer": mostly(("adam", ["adam", "sgd"]), "admm", "loss_scale_optimizer"),
        "max_parameters": BUDGETS,
        "same_parameters_as": mostly((None,) * 5, (2, 4), (0, 4), keras.Sequential(), 7),
        "loss": mostly((None, None, "mse"), "mes", len),
        "dtype": mostly((None, None, "float64", "mixed_bfloat16", "float16"), "int8", "string"),
        "seed": mostly((None, 0), -3, 10**30),
        "name": mostly((None, "space"), 3),
    },
    sound,
    0.01,
    may_warn=True,
)


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        (4, 0),
        *(pytest.param(60, seed, marks=pytest.mark.slow) for seed in range(1, 3)),
        *(
            pytest.param(1000, seed, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for seed in range(100, 103)
        ),
    ],
)
def test_hostile_spaces(count: int, seed: int) -> None:
    faults = [fault for call in draw_calls([TARGET], count, seed) if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)
