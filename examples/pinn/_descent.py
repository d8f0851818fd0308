"""Adam, then L-BFGS, on one vector of all weights; the back end computes the loss and its gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from threadpoolctl import threadpool_limits

__all__ = [
    "Array",
    "Evaluate",
    "adam",
    "compile_forward",
    "compile_loss",
    "double_precision",
    "l_bfgs",
    "pack",
]

Array: TypeAlias = NDArray[np.float64]
Evaluate: TypeAlias = Callable[[Array], tuple[float, Array]]


def double_precision() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which float64 stays float64: JAX computes in float32 by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


def pack(weights: Sequence[Array]) -> Array:
    """Returns one vector with all entries of the weights."""
    return np.concatenate([np.ravel(weight) for weight in weights])


def compile_loss(loss: Callable[[list[Any]], Any], shapes: Sequence[tuple[int, ...]]) -> Evaluate:
    """Returns a function of a vector of weights that gives the loss and its gradient, in float64.

    Args:
        loss: Function of a list of tensors, written with `keras.ops`.
        shapes: Shapes of the tensors, in the order in which `pack` put them into the vector.
    """

    def of_vector(vector: Any) -> Any:
        tensors, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            tensors.append(keras.ops.reshape(vector[start : start + size], shape))
            start += size
        return loss(tensors)

    differentiate = _DIFFERENTIATE[keras.backend.backend()](of_vector)

    def evaluate(vector: Array) -> tuple[float, Array]:
        with double_precision():
            value, gradient = differentiate(np.asarray(vector, np.float64))
        return float(value), np.asarray(gradient, np.float64)

    return evaluate


def compile_forward(function: Callable[[list[Any]], Any]) -> Callable[[list[Array]], Array]:
    """Returns a function of a list of weights that gives the same values as an array."""
    if keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)

    def values(weights: list[Array]) -> Array:
        with double_precision():
            tensors = [keras.ops.convert_to_tensor(weight) for weight in weights]
            found: Array = keras.ops.convert_to_numpy(function(tensors))
        return found

    return values


def _on_jax(function: Callable[[Any], Any]) -> Callable[[Array], tuple[Any, Any]]:
    import jax

    return jax.jit(jax.value_and_grad(function))


def _on_tensorflow(function: Callable[[Any], Any]) -> Callable[[Array], tuple[Any, Any]]:
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False, input_signature=[tf.TensorSpec([None], tf.float64)])
    def differentiate(vector: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(vector)
            value = function(vector)
        return value, tape.gradient(value, vector)

    return differentiate


def _on_torch(function: Callable[[Any], Any]) -> Callable[[Array], tuple[Any, Any]]:
    import torch

    def differentiate(vector: Array) -> tuple[Any, Any]:
        tensor = torch.tensor(vector, requires_grad=True)
        value = function(tensor)
        (gradient,) = torch.autograd.grad(value, tensor)
        return value.detach(), gradient.numpy()

    return differentiate


_DIFFERENTIATE = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}


def adam(evaluate: Evaluate, vector: Array, rate: float, steps: int) -> Array:
    """Returns the weights after Adam with a rate that falls to zero along a cosine."""
    mean, square = np.zeros_like(vector), np.zeros_like(vector)
    for step in range(steps):
        value, gradient = evaluate(vector)
        if not np.isfinite(value):
            return vector
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        # Both averages begin at zero: without the factor the first steps would be too short.
        correction = np.sqrt(1.0 - 0.999 ** (step + 1)) / (1.0 - 0.9 ** (step + 1))
        scheduled = rate * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        vector = vector - scheduled * correction * mean / (np.sqrt(square) + 1e-8)
    return vector


def l_bfgs(evaluate: Evaluate, vector: Array, iterations: int) -> Array:
    """Returns the weights after L-BFGS, which keeps the last 20 steps."""
    options = {"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 20, "ftol": 0.0, "gtol": 0.0}
    with threadpool_limits(1):  # its products of short vectors wait for threads otherwise
        found: Array = optimize.minimize(evaluate, vector, jac=True, method="L-BFGS-B", options=options).x
    return found
