"""What is written for one layer's weight, applied to a stack of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["PerLayerConstraint", "PerLayerRegularizer"]


def map_layers(function: Callable[[Any], Any], stacked: Any) -> Any:
    """`function` of every layer's weight, stacked again."""
    stacked = keras.ops.convert_to_tensor(stacked)
    if keras.backend.backend() == "torch":  # whose vmap refuses the in-place sums of Keras's regularizers
        return keras.ops.stack([function(weight) for weight in stacked])
    return keras.ops.vectorized_map(function, stacked)


class PerLayerRegularizer(keras.regularizers.Regularizer):
    """Sum over the layers of a stacked weight of `regularizer` of each."""

    def __init__(self, regularizer: Callable[[Any], Any]) -> None:
        self.regularizer = regularizer

    def __call__(self, stacked: Any) -> Any:
        return keras.ops.sum(map_layers(self.regularizer, stacked))


class PerLayerConstraint(keras.constraints.Constraint):
    """`constraint` applied to every layer of a stacked weight."""

    def __init__(self, constraint: Callable[[Any], Any]) -> None:
        self.constraint = constraint

    def __call__(self, stacked: Any) -> Any:
        return map_layers(self.constraint, stacked)
