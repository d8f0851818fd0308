"""Kernels inside functions that the back end maps: `initialize` leaves them, and names them."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, to_numpy

from keras_rwinit import initialize

pytestmark = [pytest.mark.backends, pytest.mark.slow]
L = keras.layers


def data() -> Array:
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class Mapped(L.Layer):
    """Two layers, applied to each example in a mapped function, whose layers no tracing sees."""

    def __init__(self, units: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.one, self.two = L.Dense(6, "leaky_relu", name="one"), L.Dense(units, "leaky_relu", name="two")

    def build(self, shape: Any) -> None:
        self.one.build(shape)
        self.two.build((None, 6))

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((*x.shape[:-1], self.units))

    def call(self, x: Any) -> Any:
        return keras.ops.vectorized_map(lambda row: self.two(self.one(row[None]))[0], x)


def around(block: L.Layer, *after: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), L.Dense(4, "leaky_relu", name="before"), block, *after])


def after() -> list[L.Layer]:
    return [L.Dense(5, "leaky_relu", name="after"), L.Dense(2, name="top")]


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("units", [5, 4])
def test_kernels_left_out_are_named(units: int, with_data: bool) -> None:
    """With 4 units the mapped function has the shape of an activation."""
    model = around(Mapped(units), *after())
    hidden = [to_numpy(weight) for weight in model.layers[1].weights]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = initialize(model, data() if with_data else None, seed=0)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    (left,) = [message for message in messages if "were left as they were" in message]
    paths = [model.layers[1].one.kernel.path, model.layers[1].two.kernel.path]
    assert all(path in left for path in paths)
    reasons = dict(report.skipped)
    assert {reasons[path] for path in paths} == {"a kernel that the model was not seen to apply"}
    for before, weight in zip(hidden, model.layers[1].weights, strict=True):
        np.testing.assert_array_equal(before, to_numpy(weight))
    # The step from `after` to `before` is not a link: two kernels lie between.
    rows = {row.path.split("/")[-2]: row for row in report.kernels}
    assert rows["after"].correction == 1.0
    assert "guess" in rows["after"].why


def test_a_kernel_that_feeds_only_what_is_out_of_sight_gives_no_output() -> None:
    model = around(Mapped(2))
    with pytest.warns(match="left as they were"), pytest.warns(match="could not be measured"):
        pass_through = initialize(model, data(), seed=0)
    # Scaled as one that reads the data, and not as one that gives the outputs
    a = to_numpy(keras.ops.matmul(data(), model.layers[0].kernel))
    gain = pass_through.kernels[0].gain / pass_through.kernels[0].correction
    assert np.sqrt((a**2).mean()) == pytest.approx(min(gain, 1.0), rel=0.1)
