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
