"""How large the outputs of a calibrated model are at first."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import initialize
from keras_rwinit.initialization._output_scale import output_rms

backends = pytest.mark.backends
L, ops = keras.layers, keras.ops


def refuse(y_true: Any, y_pred: Any) -> Any:
    raise TypeError("takes graphs")


DISTANCES = {
    "name": "mse",
    "class": keras.losses.Huber(),
    "function": keras.losses.mean_absolute_error,
    "of one's own": lambda y, outputs: ops.mean((y - outputs) ** 2, axis=-1),
    "with a sum": keras.losses.MeanSquaredError(reduction="sum"),
    "list": ["mae", "log_cosh"],
    "dictionary": {"a": "mse", "b": None},
}
OTHERS = {
    "no loss": None,
    "labels": "sparse_categorical_crossentropy",
    "classes": keras.losses.CategoricalCrossentropy(from_logits=True),
    "yes or no": keras.losses.BinaryCrossentropy(from_logits=True),
    "hinge": "hinge",
    "counts": "poisson",
    "one of two": ["mse", "binary_crossentropy"],
    "one that fails": refuse,
}


class Compiled(L.Layer):
    """Stands for a model: only the losses matter."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss


@backends
@pytest.mark.parametrize("name", DISTANCES)
def test_what_a_regression_begins_with_is_small(name: str) -> None:
    assert output_rms(Compiled(DISTANCES[name])) == 0.3


@backends
@pytest.mark.parametrize("name", OTHERS)
def test_other_outputs_begin_at_one(name: str) -> None:
    assert output_rms(Compiled(OTHERS[name])) == 1.0


@backends
def test_a_compiled_regression_is_scaled() -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(32, "tanh"), L.Dense(4, "tanh")])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
    initialize(model, x, seed=0)
    a = np.arctanh(to_numpy(model(x)).astype(np.float64))
    assert np.sqrt(np.mean(a**2)) == pytest.approx(0.3, rel=1e-4)
