"""Regularizers and constraints of one layer's weight, applied to every layer of a stack."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_rwinit._keras.types import Tensor

__all__ = ["PerLayerConstraint", "PerLayerRegularizer"]


def map_layers(function: Callable[[Tensor], Tensor], stacked: Tensor) -> Tensor:
    """Applies `function` to every layer's weight and stacks the results."""
    stacked = keras.ops.convert_to_tensor(stacked)
    # PyTorch's vmap refuses the in-place sums of Keras's regularizers.
    if keras.backend.backend() == "torch":
        return keras.ops.stack([function(weight) for weight in stacked])
    return keras.ops.vectorized_map(function, stacked)


class PerLayerRegularizer(keras.regularizers.Regularizer):
    """Adds up `regularizer` of every layer of a stacked weight."""

    def __init__(self, regularizer: Callable[[Tensor], Tensor]) -> None:
        self.regularizer = regularizer

    def __call__(self, stacked: Tensor) -> Tensor:
        return keras.ops.sum(map_layers(self.regularizer, stacked))


class PerLayerConstraint(keras.constraints.Constraint):
    """Applies `constraint` to every layer of a stacked weight."""

    def __init__(self, constraint: Callable[[Tensor], Tensor]) -> None:
        self.constraint = constraint

    def __call__(self, stacked: Tensor) -> Tensor:
        return map_layers(self.constraint, stacked)
