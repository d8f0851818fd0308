"""Gradients by the back end's own automatic differentiation, arrays in and arrays out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["double_precision", "gradients", "in_double_precision"]

Array = NDArray[Any]


def double_precision() -> contextlib.AbstractContextManager[Any]:
    """A context in which float64 stays float64: JAX computes in float32 unless told otherwise."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


def in_double_precision(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`activation` with results of its argument's dtype: on JAX Keras's tanh gives float32 always."""
    if keras.backend.backend() == "jax" and activation is keras.activations.tanh:
        import jax

        return jax.numpy.tanh
    return activation


def gradients(function: Callable[[Sequence[Any]], Any], arrays: Sequence[Array]) -> list[Array]:
    """Gradient of a scalar `function` of a list of tensors at `arrays`.

    Args:
        function: Takes a list of back-end tensors, returns a scalar one.
        arrays: Where to differentiate.

    Returns:
        One array for each of `arrays`, of its shape.

    Raises:
        ValueError: The back end is not tensorflow, jax or torch.
    """
    backend = keras.backend.backend()
    if backend not in _GRADIENTS:
        raise ValueError(
            f"Gradients need the {', '.join(_GRADIENTS)} back end of Keras. Received: {backend!r}"
        )
    tensors = [keras.ops.convert_to_tensor(array, dtype=str(array.dtype)) for array in arrays]
    return [
        np.asarray(keras.ops.convert_to_numpy(gradient))
        for gradient in _GRADIENTS[backend](function, tensors)
    ]


def _tensorflow(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import tensorflow as tf

    def graph(tensors: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(tensors)
        return tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    # A concrete function is traced once and forgotten; calls of many a tf.function draw a warning.
    return tf.function(graph, autograph=False).get_concrete_function(tensors)(tensors)


def _jax(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import jax

    return jax.jit(jax.grad(function))(tensors)


def _torch(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import torch

    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(function(leaves), leaves)


_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
