"""Layers of the user's with a kernel, and kernels that other layers use: what their calls compute is seen."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import initialize_normal as initialize
from numpy.typing import NDArray

from keras_rwinit import gain, gradient_walk

backends = pytest.mark.backends

L = keras.layers
ops = keras.ops


def data(units: int) -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=(8, units)).astype("float32")


class Own(L.Layer):
    """A layer with a kernel and whatever `compute` makes of it."""

    def __init__(self, compute: Any, shape: tuple[int, int], initializer: str = "he_normal") -> None:
        super().__init__()
        self.compute, self.shape, self.initializer = compute, shape, initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=self.shape, initializer=self.initializer, name="kernel")
        self.bias = self.add_weight(shape=(16,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return self.compute(self, x)


RELU_GAIN, LINEAR_GAIN = gain("relu", 16), gain("linear", 16)
CALLS: dict[str, Any] = {
    "relu inside": (lambda self, x: ops.relu(ops.matmul(x, self.kernel) + self.bias), "relu", RELU_GAIN),
    "relu before": (lambda self, x: ops.matmul(ops.relu(x), self.kernel), "relu", RELU_GAIN),
    "operator": (lambda self, x: ops.leaky_relu(x @ self.kernel, 1.0), "leaky_relu(1)", LINEAR_GAIN),
    "einsum": (lambda self, x: ops.relu(ops.einsum("bi,io->bo", x, self.kernel)), "relu", RELU_GAIN),
    "transposed": (lambda self, x: ops.relu(x @ ops.transpose(self.kernel)), "relu", RELU_GAIN),
    "shortcut": (lambda self, x: x + ops.matmul(x, self.kernel), "linear", LINEAR_GAIN),
}


@backends
@pytest.mark.parametrize("case", CALLS)
def test_what_a_layer_of_the_users_computes_is_seen(case: str) -> None:
    compute, activation, expected = CALLS[case]
    model = keras.Sequential([keras.Input((16,)), *(Own(compute, (16, 16)) for _ in range(3)), L.Dense(3)])
    model(data(16))
    rows = initialize(model, seed=0).kernels
    assert not any("guess" in row.why for row in rows)
    assert rows[2].activation == activation
    # Three branches beside a shortcut share the variance.
    expected *= 3.0**-0.5 if case == "shortcut" else 1.0
    assert rows[2].gain == pytest.approx(expected)
    assert len(gradient_walk(model, data(16)).layer_names) == 3
    initialize(model, data(16), seed=0)


UNSEEN: dict[str, Any] = {
    "twice": lambda self, x: ops.matmul(ops.relu(ops.matmul(x, self.kernel)), self.kernel),
    "a function of it": lambda self, x: ops.matmul(x, ops.relu(self.kernel)),
    "unused": lambda self, x: x,
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_is_not_seen_stays_a_guess(case: str) -> None:
    model = keras.Sequential([keras.Input((16,)), Own(UNSEEN[case], (16, 16)), L.Dense(3)])
    assert all("guess" in row.why for row in initialize(model, seed=0).kernels)


class Tied(L.Layer):
    """Applies the kernel of another layer the other way round."""

    def __init__(self, other: L.Dense) -> None:
        super().__init__()
        self.other = other

    def call(self, x: Any) -> Any:
        return ops.relu(ops.matmul(x, ops.transpose(self.other.kernel)))


def autoencoder(own_layer: bool) -> tuple[keras.Model, L.Dense]:
    inputs, shared = keras.Input((40,)), L.Dense(10, "relu", name="shared")
    h = shared(L.Dense(40, "relu", name="first")(inputs))
    h = Tied(shared)(h) if own_layer else ops.relu(ops.matmul(h, ops.transpose(shared.kernel)))
    return keras.Model(inputs, L.Dense(3, name="top")(h)), shared


@backends
def test_a_tied_decoder_is_seen_and_has_the_right_gain() -> None:
    """Entries as large as the mean of both uses asks for: 40 inputs one way and 10 the other."""
    rows = {row.path.split("/")[0]: row for row in initialize(autoencoder(True)[0], seed=0).kernels}
    row = rows["shared"]
    assert row.why == "fed by relu; applied 2 times, also used transposed"
    entry = math.sqrt(gain("relu", 40) / math.sqrt(40) * gain("relu", 10) / math.sqrt(10))
    assert row.gain / math.sqrt(40) == pytest.approx(entry)
    assert rows["top"].gain == pytest.approx(gain("relu", 40))
    assert "guess" not in rows["top"].why


def test_a_copy_in_a_functional_model_is_no_tie() -> None:
    """Keras computes the transpose once, when the model is made."""
    model, _ = autoencoder(False)
    rows = {row.path.split("/")[0]: row for row in initialize(model, seed=0).kernels}
    assert rows["shared"].gain == pytest.approx(gain("relu", 40))
    assert "holds a copy, which stays as it was" in rows["shared"].why
    assert rows["top"].activation == "relu"


def test_an_autoencoder_that_only_ties() -> None:
    """Its one kernel reads the data and gives the outputs: the first use decides."""
    inputs, shared = keras.Input((40,)), L.Dense(10)
    model = keras.Model(inputs, Tied(shared)(shared(inputs)))
    (row,) = initialize(model, data(40), seed=0).kernels
    assert row.gain == pytest.approx(gain("linear", 40))
    assert "also used transposed" in row.why


def test_zero_kernels_tell_nothing() -> None:
    inputs, shared = keras.Input((40,)), L.Dense(40, kernel_initializer="zeros")
    model = keras.Model(inputs, L.Dense(3)(Tied(shared)(shared(inputs))))
    assert len(initialize(model, seed=0).kernels) == 2
