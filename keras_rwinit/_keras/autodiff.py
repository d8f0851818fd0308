"""Gradients by the back end's own automatic differentiation, arrays in and arrays out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

__all__ = ["double_precision", "gradients_at_taps"]


def double_precision() -> contextlib.AbstractContextManager[Any]:
    """A context in which float64 stays float64: JAX computes in float32 unless told otherwise."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


Tap = Callable[[Any], Any]


def gradients_at_taps(
    function: Callable[[Sequence[Any], Tap, bool], Any], tensors: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Gradient of a scalar function with respect to its arguments and to values on its way.

    The function runs operation by operation, uncompiled, so that nothing is traced for one use.

    Args:
        function: Called as `function(tensors, tap, concrete)`, returns a scalar tensor. It passes the
            values on its way through `tap` and goes on with what `tap` returns. `concrete` says whether
            the tensors have values; on JAX it runs twice, the second time without.
        tensors: Where to differentiate.

    Returns:
        Gradients with respect to `tensors`, and to the values that were tapped, in the order of the taps.
    """
    backend = keras.backend.backend()
    if backend not in _TAPPED:
        raise ValueError(f"Gradients need the {', '.join(_TAPPED)} back end of Keras. Received: {backend!r}")
    return _TAPPED[backend](function, list(tensors))


def _tapped_tensorflow(function: Any, tensors: list[Any]) -> tuple[list[Any], list[Any]]:
    import tensorflow as tf

    values: list[Any] = []
    with tf.GradientTape() as tape:
        tape.watch(tensors)

        def tap(value: Any) -> Any:
            tape.watch(value)
            values.append(value)
            return value

        result = function(tensors, tap, True)
    both = tape.gradient(result, [*tensors, *values], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return both[: len(tensors)], both[len(tensors) :]


def _tapped_jax(function: Any, tensors: list[Any]) -> tuple[list[Any], list[Any]]:
    import jax

    zeros: list[Any] = []

    def measure(value: Any) -> Any:
        zeros.append(jax.numpy.zeros_like(value))
        return value

    function(tensors, measure, True)

    def with_taps(tensors: list[Any], taps: list[Any]) -> Any:
        waiting = iter(taps)
        return function(tensors, lambda value: value + next(waiting), False)

    gradients: tuple[list[Any], list[Any]] = jax.grad(with_taps, (0, 1))(tensors, zeros)
    return gradients


def _tapped_torch(function: Any, tensors: list[Any]) -> tuple[list[Any], list[Any]]:
    import torch

    values: list[Any] = []

    def tap(value: Any) -> Any:
        values.append(value if value.requires_grad else value.detach().requires_grad_())
        return values[-1]

    # Dropout on PyTorch draws from the generator that everything else draws from.
    with torch.random.fork_rng(), torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        result = function(leaves, tap, True)
        if not (leaves or values):
            return [], []
        both = torch.autograd.grad(result, [*leaves, *values], allow_unused=True)
    filled = [
        torch.zeros_like(at) if gradient is None else gradient
        for gradient, at in zip(both, [*leaves, *values], strict=True)
    ]
    return filled[: len(leaves)], filled[len(leaves) :]


_TAPPED = {"tensorflow": _tapped_tensorflow, "jax": _tapped_jax, "torch": _tapped_torch}
