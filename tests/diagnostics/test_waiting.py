"""Layers without a gradient: dead, or waiting for weights that start at zero."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import SLOW_ON_JAX, slow_on_jax, weights_of

from keras_rwinit import gradient_walk, model_zoo

pytestmark = pytest.mark.backends

L = keras.layers
WIDTH, EXAMPLES, CLASSES = 6, 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(EXAMPLES, WIDTH)).astype("float32")
Y = RNG.integers(0, CLASSES, EXAMPLES)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Factor(L.Layer):  # type: ignore[misc]
    """A trainable factor that starts at zero, as in ReZero, or at another value."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.value))

    def call(self, inputs: Any) -> Any:
        return self.factor * inputs


def residual(end: Any) -> keras.Model:
    """Three blocks of two Dense layers that end with a layer of `end`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((WIDTH,))
    h = L.Dense(WIDTH)(inputs)
    for _ in range(3):
        branch = L.Dense(WIDTH, "tanh")(h)
        h = L.Add()([h, end()(L.Dense(WIDTH)(branch))])
    return keras.Model(inputs, L.Dense(CLASSES)(h))


class LayerScale(Factor):
    """A trainable factor for each unit."""

    def build(self, input_shape: Any) -> None:
        initializer = keras.initializers.Constant(self.value)
        self.factor = self.add_weight(shape=input_shape[-1:], initializer=initializer)


@pytest.mark.parametrize("value", [1e-20, 1e-6, 1e-4])
@pytest.mark.parametrize("scale", [pytest.param(Factor, marks=SLOW_ON_JAX), LayerScale])
def test_a_branch_that_begins_near_zero_is_judged_as_one_that_begins_at_zero(
    scale: Any, value: float
) -> None:
    """A step of training makes both the same; the gradient of the first layer was called exploding."""
    model = residual(lambda: scale(value))
    before = weights_of(model)
    walk = gradient_walk(model, X, Y, LOSS)
    at_zero = gradient_walk(residual(lambda: scale(0.0)), X, Y, LOSS)
    assert walk.verdict == "fine; 6 of 7 layers wait for weights that start at or near zero"
    # The step is 0.001 long, and made by each unit's factor from the value up or down. Biases behind a factor
    # have a gradient only if it is not zero.
    tolerance = 3.0 * value / 1e-3 + 0.05
    found, wanted = (one.first_backward.mean(axis=0) for one in (walk, at_zero))
    np.testing.assert_allclose(found, wanted, atol=tolerance)
    for weight, was in zip(weights_of(model), before, strict=True):
        np.testing.assert_array_equal(weight, was)


@pytest.mark.parametrize("value", [0.01, 0.3])
def test_a_branch_of_a_small_share_does_not_wait(value: float) -> None:
    """A step of 0.001 changes the share little."""
    walk = gradient_walk(residual(lambda: LayerScale(value)), X, Y, LOSS)
    np.testing.assert_array_equal(walk.waits, 0.0)


def network(depth: int = 4, activation: str = "tanh", **options: Any) -> keras.Model:
    options = options or {"gain": 1.0}
    return model_zoo.deep_mlp(
        depth, WIDTH, activation, input_shape=(WIDTH,), classes=CLASSES, seed=0, **options
    )


def zero_head(activation: str = "tanh", **options: Any) -> keras.Model:
    model = network(4, activation, **options)
    model.layers[-1].kernel.assign(np.zeros((WIDTH, CLASSES)))
    return model


def zero_gamma() -> Any:
    return L.BatchNormalization(gamma_initializer="zeros")


@pytest.mark.parametrize(
    ("end", "target"),
    [
        pytest.param(zero_gamma, Y, marks=SLOW_ON_JAX),
        pytest.param(Factor, Y, marks=SLOW_ON_JAX),
        (Factor, None),
    ],
)
def test_a_residual_network_of_zero_branches_is_not_dead(end: Any, target: Any) -> None:
    model = residual(end)
    before = weights_of(model)
    walk = gradient_walk(model, X, target, None if target is None else LOSS)
    np.testing.assert_array_equal(walk.waits, [0.0, *[1.0] * 6])
    unused = "; BatchNormalization layers without data: 3 (measure with training=True)"
    waiting = "fine; 6 of 7 layers wait for weights that start at or near zero"
    assert walk.verdict == waiting + (unused if end is zero_gamma else "")
    assert np.isfinite(walk.drift)
    # As measured they have none.
    assert (walk.backward[:, 1:] == -np.inf).all()
    assert np.isfinite(walk.backward[:, 0]).all()
    for one, other in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(one, other)


@slow_on_jax
def test_behind_an_output_layer_of_zeros_the_walk_is_that_of_the_network() -> None:
    walk = gradient_walk(zero_head(), X, Y, LOSS)
    assert walk.verdict == "fine; 4 of 4 layers wait for weights that start at or near zero"
    # Relative to the last layer, the walk of an example hardly depends on the output layer's entries.
    model = zero_head()
    model.layers[-1].kernel.assign(RNG.normal(size=(WIDTH, CLASSES)))
    np.testing.assert_allclose(walk.drift, gradient_walk(model, X, Y, LOSS).drift, atol=0.5)


def test_a_network_that_vanishes_is_not_fine_for_its_output_layer_of_zeros() -> None:
    walk = gradient_walk(zero_head("sigmoid", kernel_initializer="glorot_uniform"), X)
    assert walk.verdict.startswith("shrinking from")


@slow_on_jax
def test_two_zeros_behind_each_other_are_reached_one_after_the_other() -> None:
    model = residual(Factor)
    model.layers[-1].kernel.assign(np.zeros((WIDTH, CLASSES)))
    walk = gradient_walk(model, X, Y, LOSS)
    np.testing.assert_array_equal(walk.waits, [1.0, *[2.0] * 6])


def test_dead_networks_are_dead() -> None:
    relu = network(4, "relu")
    relu.layers[-2].bias.assign(np.full((3, WIDTH), -100.0))
    walk = gradient_walk(relu, X, Y, LOSS)
    assert walk.verdict.startswith("dead from hidden_stack[2] (layer 4 of 4) on")
    assert np.isinf(walk.waits).all()
    # With kernels of zero throughout, no layer's output and no layer's gradient ever leaves zero.
    tanh = zero_head()
    tanh.layers[-2].kernel.assign(np.zeros((3, WIDTH, WIDTH)))
    assert gradient_walk(tanh, X, Y, LOSS).verdict.startswith("dead from")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="takes a minute there, and tests no back end")
def test_a_long_row_of_zeros_is_not_followed_to_its_end() -> None:
    """Layers of biases alone wake up one a step; the measurement stops after 16."""
    model = network(20)
    stack = model.layers[-2]
    stack.kernel.assign(np.zeros((19, WIDTH, WIDTH)))
    stack.bias.assign(RNG.normal(size=(19, WIDTH)))
    walk = gradient_walk(model, X, Y, LOSS)
    np.testing.assert_array_equal(walk.waits, [*[17.0] * 3, *range(16, 0, -1), 0.0])
    assert walk.verdict == "fine; 19 of 20 layers wait for weights that start at or near zero"
