"""Drawing the weights of a stack: for each layer by an initializer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_rwinit._keras.seeding import layer_initializers
from keras_rwinit.initializers import RandomWalk

__all__ = ["StackedInitializer"]

_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones)


class StackedInitializer(keras.initializers.Initializer):
    """Draws weights along the first axis of a shape, each by an initializer of its own.

    Args:
        initializer: Of one layer's weight; an int seed in it is the root of the layers' seeds.
    """

    def __init__(self, initializer: Any) -> None:
        self.initializer = initializer

    def __call__(self, shape: Sequence[int], dtype: Any = None, layout: Any = None) -> Any:
        """A tensor of `shape`.

        Keras passes `layout`, a sharding of JAX, where `keras.distribution` cuts the variable; without this
        argument it would trace and compile the drawing of a large one.
        """
        weight = self._drawn(tuple(shape), keras.backend.standardize_dtype(dtype))
        if layout is None:
            return weight
        import jax

        return jax.device_put(weight, jax.sharding.NamedSharding(jax.sharding.get_mesh(), layout.spec))

    def _drawn(self, shape: tuple[int, ...], dtype: str) -> Any:
        if isinstance(self.initializer, _CONSTANT):
            return self.initializer(shape, dtype=dtype)
        layers: list[Any] = layer_initializers(self.initializer, shape[0])
        # A list of a hundred thousand kernels would be in memory a second time, and each tensor takes longer
        # to make than its numbers to draw.
        plain = [layer for layer in layers if type(layer).__call__ is RandomWalk.__call__]
        if len(plain) == len(layers):
            stacked = np.empty(shape, "float64" if dtype == "float64" else "float32")
            for index, layer in enumerate(plain):
                stacked[index] = layer._array(shape[1:], dtype)
            return keras.ops.convert_to_tensor(stacked, dtype=dtype)
        return keras.ops.stack([layer(shape[1:], dtype=dtype) for layer in layers])
