"""Draws the weights of a stack, each layer's by an initializer with a different seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import keras

from keras_rwinit._keras.seeding import layer_initializers
from keras_rwinit._keras.types import Initializer, Tensor
from keras_rwinit.initializers import RandomWalk

__all__ = ["StackedInitializer"]

_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones)


class StackedInitializer(keras.initializers.Initializer):
    """Draws the weights along the first axis of a shape, each by an initializer with a different seed.

    Args:
        initializer: Initializer of one layer's weight. An int seed in it is the root of the layers' seeds.
    """

    def __init__(self, initializer: Initializer) -> None:
        self.initializer = initializer

    def __call__(self, shape: Sequence[int], dtype: str | None = None, layout: Any = None) -> Tensor:
        """Draws a tensor of `shape`.

        Keras passes `layout`, a sharding of JAX, where `keras.distribution` cuts the variable. Without this
        argument Keras would trace and compile the drawing, slowly for a large variable.
        """
        weight = self._draw(tuple(shape), keras.backend.standardize_dtype(dtype))
        if layout is None:
            return weight
        import jax

        return jax.device_put(weight, jax.sharding.NamedSharding(jax.sharding.get_mesh(), layout.spec))

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        # Constants need no seeds, and so no list of initializers.
        if isinstance(self.initializer, _CONSTANT):
            return self.initializer(shape, dtype=dtype)
        # Making a tensor takes longer than drawing its numbers: random-walk kernels are drawn into one array.
        if _draws_stacks(self.initializer):
            stacked = self.initializer._draw_stack(shape[0], shape[1:], dtype)
            return keras.ops.convert_to_tensor(stacked, dtype=dtype)
        layers = layer_initializers(self.initializer, shape[0])
        return keras.ops.stack([layer(shape[1:], dtype=dtype) for layer in layers])


def _draws_stacks(initializer: Initializer) -> TypeGuard[RandomWalk]:
    """Returns whether a random walk's initializer draws what its class does, which a subclass may change."""
    return isinstance(initializer, RandomWalk) and all(
        getattr(type(initializer), name) is getattr(RandomWalk, name) for name in ("__call__", "reseeded")
    )
