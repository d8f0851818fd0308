"""`initialize` treats a `DenseStack` as the Dense layers that it stands for, wherever it is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy
from numpy.typing import NDArray

from keras_rwinit import gain, gradient_walk, initialize, model_zoo
from keras_rwinit.layers import DenseStack

backends = pytest.mark.backends

L = keras.layers
DEPTH, UNITS = 5, 16
X = np.random.default_rng(0).normal(size=(8, UNITS)).astype("float32")


def body(h: Any, activation: str, stacked: bool) -> Any:
    if stacked:
        return DenseStack(DEPTH, activation)(h)
    for _ in range(DEPTH):
        h = L.Dense(UNITS, activation)(h)
    return h


def in_time(h: Any, activation: str, stacked: bool) -> Any:
    h = L.Reshape((1, UNITS))(h)
    if stacked:
        return L.Flatten()(L.TimeDistributed(DenseStack(DEPTH, activation))(h))
    for _ in range(DEPTH):
        h = L.TimeDistributed(L.Dense(UNITS, activation))(h)
    return L.Flatten()(h)


def residual(h: Any, activation: str, stacked: bool) -> Any:
    h = L.Dense(UNITS)(h)
    for _ in range(2):
        h = L.Add()([h, body(h, activation, stacked)])
    return h


PLACES: dict[str, Any] = {
    "data": body,
    "normalization": lambda h, f, stacked: body(L.LayerNormalization()(L.Dense(UNITS)(h)), f, stacked),
    "linear": lambda h, f, stacked: body(L.Dense(UNITS)(h), f, stacked),
    "another activation": lambda h, f, stacked: body(L.Dense(UNITS, "elu")(h), f, stacked),
    "before a normalization": lambda h, f, stacked: L.LayerNormalization()(body(h, f, stacked)),
    "time": in_time,
    "branch": residual,
}


def model(place: str, activation: str, stacked: bool, top: bool = True) -> keras.Model:
    inputs = keras.Input((UNITS,))
    h = PLACES[place](inputs, activation, stacked)
    return keras.Model(inputs, L.Dense(3)(h) if top else h)


def kernels(net: keras.Model) -> NDArray[Any]:
    values = [to_numpy(variable) for variable in net.weights if variable.name == "kernel"]
    return np.concatenate([value.ravel() for value in values])


# Every place with one of two activations, and with the other in the long run.
CASES = [
    pytest.param(place, activation, marks=() if number % 2 == other else pytest.mark.slow)
    for number, place in enumerate(PLACES)
    for other, activation in enumerate(["relu", "tanh"])
]


@pytest.mark.parametrize(("place", "activation"), CASES)
def test_equal_gains_and_equal_kernels(place: str, activation: str) -> None:
    stacked, plain = model(place, activation, True), model(place, activation, False)
    rows, expected = initialize(stacked, seed=3).kernels, initialize(plain, seed=3).kernels
    assert [row.gain for row in rows for _ in range(row.count)] == [row.gain for row in expected]
    assert [row.why for row in rows for _ in range(row.count)] == [row.why for row in expected]
    np.testing.assert_array_equal(kernels(stacked), kernels(plain))


@backends
@pytest.mark.parametrize("place", [pytest.param("branch", marks=pytest.mark.slow), "linear"])
def test_equal_kernels_after_calibration(place: str) -> None:
    stacked, plain = model(place, "relu", True), model(place, "relu", False)
    reports = initialize(stacked, X, seed=3), initialize(plain, X, seed=3)
    np.testing.assert_allclose(kernels(stacked), kernels(plain), rtol=1e-4)
    assert reports[0].drift == pytest.approx(reports[1].drift, abs=1e-4)


@pytest.mark.slow
def test_a_wrapped_stack_is_drawn_and_not_calibrated() -> None:
    """It is seen as one layer, by its output: there is no link between kernels to measure."""
    wrapped, same = (model("time", "relu", True) for _ in range(2))
    assert initialize(wrapped, X, seed=3).drift is None
    initialize(same, seed=3)
    stacks = [keras.ops.convert_to_numpy(one.layers[2].layer.kernel) for one in (wrapped, same)]
    np.testing.assert_array_equal(*stacks)


def test_a_stack_that_ends_a_model() -> None:
    """Its last layer gives the output, and only this one is scaled as such and not measured."""
    stacked, plain = (model("linear", "relu", stacked, top=False) for stacked in (True, False))
    initialize(stacked, X, seed=3)
    initialize(plain, X, seed=3)
    np.testing.assert_allclose(kernels(stacked), kernels(plain), rtol=1e-4)
    walks = gradient_walk(stacked, X), gradient_walk(plain, X)
    assert len(walks[0].layer_names) == len(walks[1].layer_names) == DEPTH
    np.testing.assert_allclose(walks[0].backward, walks[1].backward, rtol=1e-4)


def test_the_prediction_of_a_stack_is_that_of_its_layers() -> None:
    stacked, plain = model("data", "relu", True), model("data", "relu", False)
    initialize(stacked, seed=3)
    initialize(plain, seed=3)
    own, expected = gradient_walk(stacked, X).prediction, gradient_walk(plain, X).prediction
    assert own is not None
    assert expected is not None
    np.testing.assert_allclose(own.mean, expected.mean, rtol=1e-6)


def test_runs_of_equal_layers_are_rows_of_the_report() -> None:
    report = initialize(model("linear", "tanh", True), seed=0)
    assert [(row.path.split("/")[-1], row.shape, row.count) for row in report.kernels] == [
        ("kernel", (16, 16), 1),
        ("kernel[0]", (16, 16), 1),
        ("kernel[1:5]", (4, 16, 16), 4),
        ("kernel", (16, 3), 1),
    ]
    assert "7 kernels drawn" in str(report)
    assert "kernel[1:5]" in str(report)


def test_a_frozen_stack_is_left_alone() -> None:
    net = model("linear", "tanh", True)
    net.layers[2].trainable = False
    before = to_numpy(net.layers[2].kernel).copy()
    assert len(initialize(net, X, seed=0).kernels) == 2
    np.testing.assert_array_equal(to_numpy(net.layers[2].kernel), before)


def test_deep_mlp_has_the_hidden_gains_that_initialize_gives() -> None:
    """The ends are free: the first kernel and the classifier's."""
    for activation in ("relu", "tanh"):
        net = model_zoo.deep_mlp(
            9, 24, activation=activation, distribution="normal", input_shape=(UNITS,), classes=3, seed=0
        )
        rows = initialize(net, distribution="normal", seed=0).kernels
        hidden = [row.gain for row in rows for _ in range(row.count)][1:-1]
        initializer = next(layer for layer in net.layers if isinstance(layer, DenseStack)).kernel_initializer
        assert hidden == pytest.approx([initializer.gain] * 8)
        assert initializer.gain == pytest.approx(gain(activation, 24, 9))


@pytest.mark.slow
def test_ten_thousand_layers_take_the_time_of_drawing() -> None:
    """Counted, not timed: a fixed number of calls for each layer, and one assignment."""
    net = keras.Sequential([keras.Input((4,)), DenseStack(10_000, kernel_initializer="zeros"), L.Dense(2)])
    report = initialize(net, seed=0)
    assert [row.count for row in report.kernels] == [1, 9_999, 1]
