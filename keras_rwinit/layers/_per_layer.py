"""Regularizers and constraints written for one layer's weight, applied to a stack of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["PerLayerConstraint", "PerLayerRegularizer"]


class PerLayerRegularizer(keras.regularizers.Regularizer):
    """Sum over the layers of a stacked weight of `regularizer` of each."""

    def __init__(self, regularizer: Callable[[Any], Any]) -> None:
        self.regularizer = regularizer

    def __call__(self, stacked: Any) -> Any:
        return keras.ops.sum(keras.ops.vectorized_map(self.regularizer, keras.ops.convert_to_tensor(stacked)))


class PerLayerConstraint(keras.constraints.Constraint):
    """`constraint` applied to every layer of a stacked weight."""

    def __init__(self, constraint: Callable[[Any], Any]) -> None:
        self.constraint = constraint

    def __call__(self, stacked: Any) -> Any:
        return keras.ops.vectorized_map(self.constraint, keras.ops.convert_to_tensor(stacked))
