"""What is read off signals that have left the range of the floats."""

from __future__ import annotations

import keras
import numpy as np

from keras_rwinit._probing.norms import saturated_units


def test_units_of_a_signal_that_has_exploded_are_not_saturated() -> None:
    """The derivative of GELU overflows there, which is no warning to a user: the verdict says it."""
    a = np.array([[1e30, -1e30, 0.5]], np.float32)
    saturated = saturated_units(keras.activations.gelu, a)
    assert saturated is not None
    assert not saturated[2]


def test_a_unit_is_dead_that_has_no_slope_in_any_row() -> None:
    """Three layers of a relu network, of whose units one is alive in the last row alone, and one in none."""
    a = np.ones((3, 100, 4), np.float32)
    a[0, :99, 1] = a[1, :, 2] = -1.0
    saturated = saturated_units(keras.activations.relu, a)
    assert saturated is not None
    np.testing.assert_array_equal(np.argwhere(saturated), [[1, 2]])
    alone = saturated_units(keras.activations.relu, a[1])
    assert alone is not None
    np.testing.assert_array_equal(alone, saturated[1])
