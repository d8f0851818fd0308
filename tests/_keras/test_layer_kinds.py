"""The table of layer kinds: subclasses count, and a kind that registers itself is known everywhere."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import initialize
from keras_rwinit._keras import layer_kinds
from keras_rwinit._keras.layer_kinds import (
    Effect,
    KernelKind,
    LayerKind,
    activates_kernel_output,
    contracted_axes,
    layer_kind,
    register_layer_kind,
)
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential, DenseStack

layers = keras.layers


class OwnConvolution(layers.Conv2D):
    """A subclass that changes nothing."""


class Residual(layers.Dense):
    """A subclass with its own `call`."""

    def call(self, inputs: Any) -> Any:
        return inputs + super().call(inputs)


class Reversed(layers.Layer):
    """A layer with a kernel of (outputs, inputs) under a name of its own."""

    def __init__(self, units: int, initializer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.initializer, self.activation = units, initializer, keras.activations.relu
        self.matrix = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.matrix = self.add_weight(shape=(self.units, input_shape[-1]), initializer=self.initializer)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs @ keras.ops.transpose(self.matrix))


def make_operation(operation: Any, *shapes: tuple[int, ...]) -> Any:
    """The operation that a function of `keras.ops` adds to a graph."""
    return operation(*(keras.KerasTensor(shape) for shape in shapes))._keras_history.operation


def test_subclasses_count() -> None:
    assert layer_kind(OwnConvolution(2, 3)) is layer_kind(layers.Conv2D(2, 3))
    assert activates_kernel_output(OwnConvolution(2, 3))
    assert layer_kind(Residual(3)) is layer_kind(layers.Dense(3))
    assert not activates_kernel_output(Residual(3))  # what comes after the kernel is not known
    assert layer_kind(layers.LSTM(3)) is layer_kind(layers.RNN(layers.LSTMCell(3)))
    assert "recurrent" in layer_kind(layers.Bidirectional(layers.LSTM(3))).skip_reason


def test_kernels() -> None:
    depthwise, pointwise = layer_kind(layers.SeparableConv2D(2, 3)).kernels
    assert (depthwise.activated, pointwise.activated) == (False, True)
    assert (depthwise.zero_padded, pointwise.zero_padded) == (True, False)
    (transposed,) = layer_kind(layers.Conv1DTranspose(2, 3)).kernels
    assert transposed.transposed
    assert not transposed.zero_padded
    (stacked,) = layer_kind(DenseStack(2)).kernels
    assert stacked.stacked == "depth"
    assert stacked.contracted(DenseStack(2), (0, 1)) == (0,)
    assert activates_kernel_output(DenseStack(2))
    assert not activates_kernel_output(layers.Dropout(0.5))
    assert not activates_kernel_output(layers.LSTMCell(3))
    assert [kernel.attribute for kernel in layer_kind(layers.LSTMCell(3)).kernels] == ["kernel"]
    assert contracted_axes(None, 4) == contracted_axes(layers.LSTM(3), 4) == (0, 1, 2)


def test_what_is_inside_a_layer() -> None:
    each = layer_kind(layers.TimeDistributed(layers.Dense(3)))
    assert (each.wrapped, each.wrapped_shape((None, 9, 60))) == ("layer", (None, 60))
    chain = DeepSequential([layers.Dense(3)], (2,))
    assert [layer.units for layer in getattr(chain, layer_kind(chain).chained)] == [3]
    assert layer_kind(layers.Lambda(keras.ops.tanh)).runs_user_code
    for layer in (layers.LSTM(3), layers.SpectralNormalization(layers.Dense(3))):
        assert layer_kind(layer).measured
    assert not layer_kind(layers.Embedding(3, 2)).measured


@pytest.mark.parametrize(
    ("operation", "effect"),
    [
        (layers.BatchNormalization(), Effect.NORMALIZATION),
        (layers.Embedding(3, 2), Effect.EMBEDDING),
        (layers.Add(), Effect.SUM),
        (layers.Multiply(), Effect.PRODUCT),
        (layers.Concatenate(), Effect.CONCATENATION),
        (layers.PReLU(), Effect.ACTIVATION),
        (layers.Dropout(0.5), None),
        (make_operation(keras.ops.add, (2, 3), (2, 3)), Effect.SUM),
        (make_operation(keras.ops.subtract, (2, 3), (2, 3)), Effect.SUM),
        (make_operation(keras.ops.multiply, (2, 3), (2, 3)), Effect.PRODUCT),
        (make_operation(lambda *x: keras.ops.concatenate(x), (2, 3), (2, 3)), Effect.CONCATENATION),
        (make_operation(keras.ops.relu, (2, 3)), Effect.ACTIVATION),
        (make_operation(keras.ops.erf, (2, 3)), Effect.ACTIVATION),
        (make_operation(keras.ops.transpose, (2, 3)), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Operation) else "",
)
def test_effects(operation: Any, effect: Effect | None) -> None:
    assert layer_kind(operation).effect is effect
    assert (layer_kind(operation).activation is not None) == (effect is Effect.ACTIVATION)


def test_activations_of_layers_and_operations() -> None:
    def activation(operation: Any) -> Any:
        find = layer_kind(operation).activation
        assert find is not None
        return find(operation)

    relu = layers.ReLU(max_value=3.0)
    prelu = layers.PReLU(keras.initializers.Constant(0.25))
    prelu.build((None, 3))
    assert activation(relu) is relu
    assert activation(layers.ReLU(6.0)) == "relu6"
    assert activation(layers.ReLU(negative_slope=0.25)) == "leaky_relu(0.25)"
    assert activation(layers.ReLU()) == "relu"
    assert activation(prelu) is prelu
    assert activation(make_operation(keras.ops.hard_silu, (2, 3))) == "hard_silu"
    assert activation(make_operation(lambda a: keras.ops.leaky_relu(a, 0.5), (2, 3))) == "leaky_relu(0.5)"


def test_a_kind_that_is_added_is_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fan-in to initializers, its kernel and activation to `initialize`."""
    monkeypatch.setattr(layer_kinds, "_KINDS", dict(layer_kinds._KINDS))
    register_layer_kind(Reversed, LayerKind((KernelKind("matrix", lambda layer, axes: axes[1:]),)))
    orthogonal = RandomWalk("relu", "orthogonal", gain=1.25, seed=1)
    first, second = Reversed(5, orthogonal), Reversed(4, "zeros")
    model = keras.Sequential([keras.Input((3,)), first, second])
    kernel = to_numpy(first.matrix)
    np.testing.assert_allclose(kernel.T @ kernel, 1.25**2 * 5 / 3 * np.eye(3), atol=1e-5)
    report = initialize(model, seed=0)
    assert [(row.fan_in, row.activation) for row in report.kernels] == [(3, "linear"), (5, "relu")]
    assert not any("guess" in row.why for row in report.kernels)
