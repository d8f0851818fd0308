"""Calls of layers in a precision that Keras's own would leave, and of a stack layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["dense_call", "in_precision", "run_layers"]


def in_precision(activation: Callable[[Any], Any], dtype: str | None) -> Callable[[Any], Any]:
    """`activation` with results of its argument's dtype: on JAX Keras's tanh gives float32 always."""
    if dtype and activation is keras.activations.tanh and keras.backend.backend() == "jax":
        import jax

        return jax.numpy.tanh
    return activation


def dense_call(layer: Any) -> Callable[..., Any]:
    """`Dense.call` by the tensors' own operators: `keras.ops.matmul` knows no float64 but on TensorFlow."""

    def call(inputs: Any, training: bool | None = None) -> Any:
        a = inputs @ keras.ops.convert_to_tensor(layer.kernel)
        return layer.activation(a if layer.bias is None else a + keras.ops.convert_to_tensor(layer.bias))

    return call


def run_layers(h: Any, kernels: Any, biases: Any, activation: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Output of the layers of a stack, and their pre-activations, along the first axis."""
    if keras.backend.backend() == "jax":
        import jax

        def step(h: Any, layer: tuple[Any, Any]) -> tuple[Any, Any]:
            a = h @ layer[0] + layer[1]
            return activation(a), a

        output: tuple[Any, Any] = jax.lax.scan(step, h, (kernels, biases))
        return output
    pre_activations = []
    depth = kernels.shape[0]
    for kernel, bias in zip(keras.ops.unstack(kernels, depth), keras.ops.unstack(biases, depth), strict=True):
        pre_activations.append(h @ kernel + bias)
        h = activation(pre_activations[-1])
    return h, pre_activations
