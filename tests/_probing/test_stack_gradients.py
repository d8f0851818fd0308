"""The gradients at the layers of a stack, written out on TensorFlow, are those of its tape."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit._probing import forward, norms
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's tape")


def gradients(activation: Any, shape: tuple[int, ...], by_hand: bool, patch: pytest.MonkeyPatch) -> list[Any]:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    h = tf.constant(rng.normal(size=shape).astype("float32"))
    kernels = tf.constant(rng.normal(size=(4, 6, 6)).astype("float32") / 6**0.5)
    biases = tf.constant(rng.normal(size=(4, *shape)).astype("float32"))
    if not by_hand:
        patch.setattr(forward, "_acts_unit_by_unit", lambda activation, units: False)
    with tf.GradientTape() as tape:
        tape.watch([h, kernels, biases])
        output, parts = forward.run_layers(h, kernels, biases, activation)
        result = tf.reduce_sum(tf.sin(output))
    return [output, tf.concat(parts, axis=0), *tape.gradient(result, [h, kernels, biases])]


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "linear", "softmax"])
@pytest.mark.parametrize("shape", [(5, 6), (3, 2, 6)])
@pytest.mark.parametrize("numbers", [2**20, 100, 1])  # all layers at once, two or three, and single ones
def test_gradients_are_those_of_the_tape(
    name: str, shape: tuple[int, ...], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_GROUP_SIZE", numbers)
    activation = keras.activations.get(name)
    assert forward._acts_unit_by_unit(activation, 6) == (name != "softmax")
    by_hand = gradients(activation, shape, True, monkeypatch)
    by_tape = gradients(activation, shape, False, monkeypatch)
    for one, other in zip(by_hand, by_tape, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def by_gradient(stack: keras.layers.Layer, x: Any, kind: str) -> Any:
    """Returns an output that has a gradient of the stack's own in it."""
    import tensorflow as tf

    with tf.GradientTape(persistent=kind == "persistent") as tape:
        tape.watch(x)
        y = stack(x)
        squares = y**2
    if kind == "persistent":
        return tape.gradient(y, x) + tape.gradient(squares, x)
    return tape.gradient(y, x) if kind == "gradient" else tf.concat([y, tape.gradient(y, x)], axis=-1)


class ModelOfGradients(keras.Model):
    """A model whose outputs are, or have, the gradient of a stack by its inputs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stack = DenseStack(3, "tanh", kernel_initializer=RandomWalk("tanh", seed=0))

    def call(self, inputs: Any) -> Any:
        """Returns the outputs."""
        return by_gradient(self.stack, inputs, self.kind)


@pytest.mark.parametrize("kind", ["gradient", "both", "persistent"])
def test_a_model_may_differentiate_its_stack(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle differentiates operation by operation."""
    model = ModelOfGradients(kind)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    model(x)
    walk = gradient_walk(model, x)
    monkeypatch.setattr(forward, "_acts_unit_by_unit", lambda activation, units: False)
    expected = gradient_walk(model, x)
    assert np.isfinite(expected.backward).all()
    np.testing.assert_allclose(walk.backward, expected.backward, rtol=1e-4, atol=1e-5)


def test_a_walk_in_parts_is_that_of_all_layers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_zoo.deep_mlp(8, 6, "relu", input_shape=(6,), distribution="orthogonal", seed=0)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    walk = gradient_walk(model, x)
    monkeypatch.setattr(forward, "_GROUP_SIZE", 60)
    monkeypatch.setattr(norms, "_CHUNK_SIZE", 12)
    in_parts = gradient_walk(model, x)
    for one, other in ((walk, in_parts), (walk.correlation, in_parts.correlation)):
        np.testing.assert_allclose(one.backward, other.backward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.forward, other.forward, rtol=1e-5, atol=1e-6)
