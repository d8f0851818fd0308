"""The gradients at the layers of a stack, written out on TensorFlow, are those of its tape."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit._probing import forward

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
    monkeypatch.setattr(forward, "_NUMBERS", numbers)
    activation = keras.activations.get(name)
    assert forward._acts_unit_by_unit(activation, 6) == (name != "softmax")
    by_hand = gradients(activation, shape, True, monkeypatch)
    by_tape = gradients(activation, shape, False, monkeypatch)
    for one, other in zip(by_hand, by_tape, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
