"""Models that symbolic tensors do not get through, followed by a run on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, to_numpy
from numpy.typing import NDArray
from state_helpers import assert_unchanged, snapshot

from keras_rwinit import gradient_walk, initialize
from keras_rwinit._tracing.recording import find_origin
from keras_rwinit._tracing.trace import trace

pytestmark = pytest.mark.backends

Array = NDArray[Any]
L = keras.layers


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(3, *shape)).astype("float32")


def foreign(x: Any) -> Any:
    """Does nothing, by a function of the back end, which refuses symbolic tensors."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.cast(x, tf.float32)
    if BACKEND == "jax":
        import jax

        return jax.lax.convert_element_type(x, "float32")
    import torch

    return torch.clone(x)


def foreign_relu(x: Any) -> Any:
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.nn.relu(x)
    if BACKEND == "jax":
        import jax

        return jax.nn.relu(x)
    import torch

    return torch.nn.functional.relu(x)


class Styled(keras.Model):
    """Applies its layers in another order than that of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.top = L.Dense(2, name="top")
        self.second = L.Dense(7, name="second")
        self.first = L.Dense(6, "tanh", name="first")

    def run(self, x: Any) -> Any:
        return self.top(keras.ops.relu(self.second(self.first(x))))


class NeedsTraining(Styled):
    def call(self, x: Any, training: bool) -> Any:
        del training
        return self.run(x)


class Casts(Styled):
    def call(self, x: Any) -> Any:
        return self.run(foreign(x))


class CastsBetween(Styled):
    def call(self, x: Any) -> Any:
        return self.top(foreign_relu(self.second(foreign(self.first(x)))))


class BuiltByHand(Styled):
    def __init__(self) -> None:
        super().__init__()
        self.first.build((None, 4))
        self.second.build((None, 6))
        self.top.build((None, 7))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.run(foreign(x))


@pytest.mark.parametrize("style", [NeedsTraining, Casts, CastsBetween, BuiltByHand])
@pytest.mark.parametrize("with_data", [True, False])
def test_order_and_activations_are_the_true_ones(style: Callable[[], Any], with_data: bool) -> None:
    keras.utils.set_random_seed(0)
    model = style()
    if style is not BuiltByHand:
        model(data(4), training=False)
    before = snapshot(model)
    graph = trace(model, data(4) if with_data or style is BuiltByHand else None)
    assert_unchanged(before, snapshot(model))
    layers = [step.operation for step in graph.steps if isinstance(step.operation, L.Dense)]
    assert layers == [model.first, model.second, model.top]
    assert not any(step.guessed for step in graph.steps)
    report = initialize(model, data(4) if style is BuiltByHand else None, seed=0)
    assert [kernel.activation for kernel in report.kernels] == ["linear", "tanh", "relu"]
    assert not any("guess" in kernel.why for kernel in report.kernels)
    assert gradient_walk(model, data(4)).layer_names == ("first", "second")


class Residual(L.Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.outer = L.Dense(6, "relu", name="inner"), L.Dense(4, name="outer")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.outer.build((None, 6))

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any) -> Any:
        return foreign(x) + self.outer(self.inner(x))


def test_sums_are_told_by_their_values() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(Residual()(Residual()(inputs))))
    report = initialize(model, seed=0)
    assert ["branch of one of 2 sums" in kernel.why for kernel in report.kernels] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert not any("guess" in kernel.why for kernel in report.kernels)


class Unknown(Styled):
    def call(self, x: Any) -> Any:
        return self.top(self.second(foreign(keras.ops.sin(3.0 * self.first(x)))))


def test_only_what_is_unknown_is_a_guess() -> None:
    model = Unknown()
    model(data(4))
    report = initialize(model, seed=0)
    assert ["guess" in kernel.why for kernel in report.kernels] == [False, True, False]


class Branches(L.Layer):
    """Applies its layer in a branch of `keras.ops.cond`, which symbolic tensors do not enter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = L.Dense(6, "tanh")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return keras.ops.cond(keras.ops.sum(x) > -1e9, lambda: self.inner(x), lambda: x)


@pytest.mark.parametrize("with_data", [True, False])
def test_kernels_in_a_branch_are_drawn(with_data: bool) -> None:
    """Equal to those of the same network without the condition."""
    plain = keras.Sequential([keras.Input((6,)), *[L.Dense(6, "tanh") for _ in range(3)], L.Dense(2)])
    model = keras.Sequential([keras.Input((6,)), *[Branches() for _ in range(3)], L.Dense(2)])
    x = data(6) if with_data else None
    drawn, wanted = (initialize(one, x, seed=0, distribution="orthogonal") for one in (model, plain))
    gains = [kernel.gain for kernel in wanted.kernels]
    assert [kernel.gain for kernel in drawn.kernels] == pytest.approx(gains, rel=1e-5)
    for weight, expected in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(to_numpy(weight), to_numpy(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="values, which are the same on all back ends")
def test_origins_of_values() -> None:
    a, b = data(5), data(5, seed=1)
    known = [(0, keras.ops.convert_to_tensor(a)), (1, keras.ops.convert_to_tensor(b))]

    def origin(values: Array) -> Any:
        found = find_origin(keras.ops.convert_to_tensor(values), known)
        return found and (found.sources, getattr(found.operation, "name", None))

    assert origin(a.reshape(5, 3)) == ((0,), None)
    assert origin(np.maximum(b, 0.0)) == ((1,), "relu")
    assert origin(a + b) == ((0, 1), "sum")
    assert origin(a * b) is None
    assert origin(np.zeros_like(a)) is None


def test_a_layer_without_weights_is_named() -> None:
    class Unbuilt(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = L.Dense(5, name="hidden")
            self.built = True

        def call(self, x: Any) -> Any:
            return self.hidden(x)

    model = Unbuilt()
    before = snapshot(model)
    with pytest.raises(ValueError, match="has no weights yet: call the model once on a batch.*hidden"):
        gradient_walk(model, data(4))
    assert_unchanged(before, snapshot(model))
