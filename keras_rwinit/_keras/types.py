"""Names for types of the ecosystem that have none of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_rwinit.theory import Activation

__all__ = ["ActivationLike", "ArrayTree", "Initializer", "Seed", "Tensor"]

Tensor: TypeAlias = Any
"""A tensor of the current back end: `tf.Tensor`, `jax.Array` or `torch.Tensor`."""

ArrayTree: TypeAlias = Any
"""Arrays or tensors in nested lists, tuples and dictionaries, as the inputs and outputs of Keras models."""

ActivationLike: TypeAlias = str | Activation | keras.layers.Layer | Callable[[Tensor], Tensor] | None
"""What Keras or the theory takes as an activation; None is linear."""

Initializer: TypeAlias = Callable[..., Tensor]
"""A Keras initializer, or a function of a shape and a dtype."""

Seed: TypeAlias = int | keras.random.SeedGenerator | None
"""A seed of an initializer; None draws new values at every call."""
