"""Layers of the user's with a kernel, and kernels that other layers use: what their calls compute is seen."""

from __future__ import annotations

import math
from pathlib import Path
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


class OfTheGuides(L.Layer):
    """A layer as Keras's guides write it: the kernel is `w`, the bias `b`."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.w = self.add_weight(shape=(input_shape[-1], 16), initializer="glorot_uniform")
        self.b = self.add_weight(shape=(16,), initializer="zeros")

    def call(self, x: Any) -> Any:
        return ops.tanh(ops.matmul(x, self.w) + self.b)


class Positions(L.Layer):
    """A table that is added, once with as many rows as the inputs have features."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=input_shape[-2:], initializer="random_normal")

    def call(self, x: Any) -> Any:
        return x + self.table


class TwoMatrices(L.Layer):
    """A gate, of which either matrix may be meant."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.w = self.add_weight(shape=(input_shape[-1], 16), initializer="glorot_uniform")
        self.v = self.add_weight(shape=(input_shape[-1], 16), initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.w) * ops.sigmoid(ops.matmul(x, self.v))


@backends
def test_a_kernel_may_have_any_name() -> None:
    """The oracle is the same network of Dense layers: equal walks and, with the same seed, equal kernels."""
    x = data(16)
    own = keras.Sequential([keras.Input((16,)), *(OfTheGuides() for _ in range(6)), L.Dense(3)])
    dense = keras.Sequential([keras.Input((16,)), *(L.Dense(16, "tanh") for _ in range(6)), L.Dense(3)])
    dense.set_weights(own.get_weights())
    walk, expected = gradient_walk(own, x), gradient_walk(dense, x)
    assert len(walk.layer_names) == 6
    # At the outputs, where Dense is measured at its pre-activations
    np.testing.assert_allclose(walk.forward, expected.forward, atol=1e-5)
    gains = [row.gain for row in initialize(own, seed=0).kernels]
    np.testing.assert_allclose(gains, [row.gain for row in initialize(dense, seed=0).kernels], rtol=1e-6)
    np.testing.assert_allclose(own.get_weights()[2], dense.get_weights()[2], rtol=1e-6)


@backends
def test_a_kernel_of_any_name_is_found_in_a_loaded_model(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((16,)), *(OfTheGuides() for _ in range(3)), L.Dense(3)])
    names = gradient_walk(model, data(16)).layer_names
    model.save(tmp_path / "model.keras")
    custom = {"OfTheGuides": OfTheGuides}
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom)
    assert gradient_walk(loaded, data(16)).layer_names == names
    assert len(initialize(loaded, seed=0).kernels) == 4


@backends
def test_tables_are_no_kernels_and_two_matrices_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(4, 16, 16)).astype("float32")
    model = keras.Sequential([keras.Input((16, 16)), Positions(), OfTheGuides(), OfTheGuides(), L.Dense(3)])
    assert gradient_walk(model, x).layer_names == tuple(layer.name for layer in model.layers[1:3])
    model = keras.Sequential([keras.Input((16,)), OfTheGuides(), TwoMatrices(), OfTheGuides(), L.Dense(3)])
    with pytest.warns(UserWarning, match="two_matrices .has several matrices: call .* `self.kernel`"):
        gradient_walk(model, data(16))
