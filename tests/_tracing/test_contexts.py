"""What is known of the signal between two kernels, by the operations that lie there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import initialize
from keras_rwinit._tracing.contexts import trace_contexts
from keras_rwinit._tracing.signals import Signal
from keras_rwinit._tracing.trace import trace
from keras_rwinit.theory import resolve_activation

backends = pytest.mark.backends
L, ops = keras.layers, keras.ops


def last_signal(model: keras.Model) -> Signal:
    return trace_contexts(trace(model))[0][-1].signal


def signal_behind(function: Callable[[Any], Any], shape: tuple[int, ...] = (6,)) -> Signal:
    """The signal that a kernel reads behind another kernel and a function."""
    inputs = keras.Input(shape)
    return last_signal(keras.Model(inputs, L.Dense(2)(function(L.Dense(8)(inputs)))))


class Clipped(L.Layer):
    def call(self, x: Any) -> Any:
        return ops.clip(x, 0.0, 6.0)


# An operation with its constants, and the name of the same function in the theory's table
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "maximum": (lambda h: ops.maximum(h, 0.0), "relu"),
    "clip": (lambda h: ops.clip(h, 0, 6), "relu6"),
    "where": (lambda h: ops.where(h > 0, h, 0.1 * h), "leaky_relu(0.1)"),
    "maximum of two": (lambda h: ops.maximum(h, 0.25 * h), "leaky_relu(0.25)"),
    "exp": (ops.exp, "exponential"),
    "a layer of one's own": (Clipped(), "relu6"),
    "Lambda": (L.Lambda(lambda h: ops.maximum(0.0, h)), "relu"),
    "softsign by hand": (lambda h: h / (1.0 + ops.abs(h)), "softsign"),
    "relu by hand": (lambda h: 0.5 * (h + ops.abs(h)), "relu"),
    "silu by hand": (lambda h: h * ops.sigmoid(h), "silu"),
    "elu": (lambda h: ops.elu(h, alpha=0.3), "elu(0.3)"),
    "celu": (lambda h: ops.celu(h, 0.3), "celu(0.3)"),
    "squareplus": (lambda h: ops.squareplus(h, 1.0), "squareplus(1)"),
    "leaky_relu": (lambda h: ops.leaky_relu(h, 0.5), "leaky_relu(0.5)"),
    "gelu": (ops.gelu, "gelu_tanh"),
    "exact gelu": (lambda h: ops.gelu(h, approximate=False), "gelu"),
    "relu6": (ops.relu6, "relu6"),
}


@backends
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_known_by_their_values(name: str) -> None:
    function, expected = FUNCTIONS[name]
    signal = signal_behind(function)
    assert signal.unknown == ""
    known, a = resolve_activation(expected), np.linspace(-5.1, 5.2, 40)
    np.testing.assert_allclose(signal.scale * signal.activation.function(a), known.function(a), atol=1e-6)
    np.testing.assert_allclose(signal.scale * signal.activation.slope_at(a), known.slope_at(a), atol=1e-5)


class Scaled(L.Layer):
    def build(self, shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.25))

    def call(self, x: Any) -> Any:
        return x * self.scale


@backends
def test_a_trained_number_scales_the_signal() -> None:
    assert signal_behind(Scaled()).scale == 0.25


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda h: ops.soft_shrink(h, 0.1), lambda a: 1.0 * (abs(a) > 0.1)),
        (ops.arctan, lambda a: 1 / (1 + a * a)),
    ],
    ids=["soft_shrink", "arctan"],
)
def test_functions_that_the_table_lacks(function: Any, slope: Any) -> None:
    a = np.linspace(-5.1, 5.2, 40)
    np.testing.assert_allclose(signal_behind(function).activation.slope_at(a), slope(a), atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: ops.maximum(h, L.Dense(8)(h)),
        lambda h: 1.0 / h,
        lambda h: h / ops.norm(h, axis=-1, keepdims=True),
        lambda h: ops.cumprod(h, axis=-1),
        ops.log,
    ],
    ids=["maximum of two kernels", "an inverse", "a quotient", "cumprod", "log"],
)
def test_what_cannot_be_known_is_said_to_be_a_guess(function: Any) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(2)(function(L.Dense(8)(inputs))))
    assert "which is a guess" in initialize(model, seed=0).kernels[-1].why


@pytest.mark.parametrize(
    "function",
    [lambda h: ops.mean(h, axis=1), lambda h: ops.average(h, axis=1), lambda h: ops.transpose(h, (0, 2, 1))],
    ids=["mean", "average", "transpose"],
)
def test_what_moves_or_averages_passes_the_activation_on(function: Any) -> None:
    signal = signal_behind(lambda h: function(ops.relu(h)), (5, 6))
    assert (signal.activation.name, signal.unknown) == ("relu", "")


@pytest.mark.parametrize("function", [ops.sign, lambda h: h - h], ids=["sign", "zero"])
def test_what_no_gradient_passes_is_said(function: Any) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(2)(function(L.Dense(8)(inputs))))
    row = initialize(model, seed=0).kernels[-1]
    assert row.gain == 1.0
    assert row.why.endswith("through which no gradient passes")


def test_data_stay_data_whatever_is_computed_of_them() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(2)(ops.log1p(ops.abs(inputs))))
    assert last_signal(model).activation.name == "linear"


def test_halves_of_one_kernel_are_two_signals() -> None:
    """The half that gates is no function of the half that carries the signal."""

    def gated(h: Any) -> Any:
        value, gate = ops.split(h, 2, axis=-1)
        return value * ops.sigmoid(gate)

    signal = signal_behind(gated)
    assert signal.activation.name == "linear"
    assert [gate.activation.name for gate in signal.gates] == ["sigmoid"]
    assert signal.gates[0].normalized


def test_unit_length_is_no_unit_variance() -> None:
    signal = signal_behind(L.UnitNormalization())
    assert (signal.normalized, signal.scale) == (True, pytest.approx(8**-0.5))


def test_an_embedding_has_the_scale_of_its_table() -> None:
    tokens, positions = keras.Input((4,), dtype="int32"), keras.Input((4,), dtype="int32")
    tables = [L.Embedding(9, 5), L.Embedding(9, 5)]
    sizes = [0.03, 0.04]
    h = tables[0](tokens) + tables[1](positions)
    model = keras.Model([tokens, positions], L.Dense(2)(2.0 * h))
    for table, size in zip(tables, sizes, strict=True):
        table.embeddings.assign(np.full((9, 5), size))
    assert last_signal(model).scale == pytest.approx(2.0 * 0.05)


class Doubled(keras.Model):
    """A graph of layers with a call of its own, which applies it twice."""

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        return super().call(ops.tanh(super().call(x, training=training)), training=training)


@backends
def test_a_call_of_ones_own_comes_before_the_graph() -> None:
    inputs = keras.Input((6,))
    model = Doubled(inputs, L.Dense(6)(inputs))
    contexts, _ = trace_contexts(trace(model))
    assert [context.signal.activation.name for context in contexts] == ["linear", "tanh"]


class Unfit(keras.Model):
    """Its inputs have more elements than any memory, and symbols do not pass its call."""

    def __init__(self) -> None:
        super().__init__()
        self.top = L.Dense(2)
        self.top.build((None, 3))

    def build(self, shape: Any) -> None:
        self.built = True

    def call(self, x: Any) -> Any:
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return self.top(x)


def test_an_example_that_no_memory_holds_makes_a_guess() -> None:
    model = Unfit()
    model._build_shapes_dict = {"input_shape": (None, 10**7, 10**7, 10**7)}
    model.built = True
    assert "guess" in initialize(model, seed=0).kernels[0].why


def test_a_table_of_zeros_has_no_scale() -> None:
    tokens = keras.Input((4,), dtype="int32")
    table = L.Embedding(9, 5, embeddings_initializer="zeros")
    model = keras.Model(tokens, L.Dense(2)(table(tokens)))
    assert last_signal(model).scale == 1.0
    assert to_numpy(table.embeddings).max() == 0.0
