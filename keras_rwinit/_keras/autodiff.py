"""Gradients by the back end's automatic differentiation, at arguments and at values inside a function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras

from .types import Tensor

__all__ = ["double_precision", "gradients_at_taps"]


def double_precision() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which float64 stays float64: JAX computes in float32 by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


Tap: TypeAlias = Callable[[Tensor], Tensor]
TappedFunction: TypeAlias = Callable[[Sequence[Tensor], Tap, bool], Tensor]


def gradients_at_taps(
    function: TappedFunction, tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the gradients of a scalar function with respect to its arguments and to values inside it.

    The function runs operation by operation, uncompiled: compiling for one use would cost more.

    Args:
        function: Called as `function(tensors, tap, concrete)`, returns a scalar tensor. It passes each value
            of interest through `tap` and continues with what `tap` returns. `concrete` says whether the
            tensors have values. On JAX the function runs twice, the second time with tensors without values.
        tensors: Arguments at which to differentiate.

    Returns:
        Gradients with respect to `tensors`, and to the tapped values, in the order of the taps.
    """
    backend = keras.backend.backend()
    if backend not in _TAP:
        *others, last = _TAP
        raise ValueError(
            f"Gradients need Keras's {', '.join(others)} or {last} back end. Received: {backend!r}"
        )
    return _TAP[backend](function, list(tensors))


def _tap_tensorflow(function: TappedFunction, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    import tensorflow as tf

    values: list[Tensor] = []
    with tf.GradientTape() as tape:
        tape.watch(tensors)

        def tap(value: Tensor) -> Tensor:
            tape.watch(value)
            values.append(value)
            return value

        result = function(tensors, tap, True)
    # Zeros, as JAX gives them, where the result does not depend on a tensor.
    both = tape.gradient(result, [*tensors, *values], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return both[: len(tensors)], both[len(tensors) :]


def _tap_jax(function: TappedFunction, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    import jax

    # JAX differentiates with respect to arguments alone. Each tapped value gets a zero added, which is an
    # argument and has the gradient of the value.
    zeros: list[Tensor] = []

    def add_zero(value: Tensor) -> Tensor:
        zeros.append(jax.numpy.zeros_like(value))
        return value

    # The first run finds the taps' shapes, which the zeros need before the second.
    function(tensors, add_zero, True)

    def with_taps(tensors: list[Tensor], taps: list[Tensor]) -> Tensor:
        waiting = iter(taps)
        return function(tensors, lambda value: value + next(waiting), False)

    gradients: tuple[list[Tensor], list[Tensor]] = jax.grad(with_taps, (0, 1))(tensors, zeros)
    return gradients


def _tap_torch(function: TappedFunction, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    import torch

    values: list[Tensor] = []

    def tap(value: Tensor) -> Tensor:
        # A value that depends on no differentiated tensor has to become a leaf to have a gradient.
        values.append(value if value.requires_grad else value.detach().requires_grad_())
        return values[-1]

    # Dropout on PyTorch draws from the generator that everything else draws from.
    with torch.random.fork_rng(), torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        result = function(leaves, tap, True)
        if not (leaves or values):
            return [], []
        both = torch.autograd.grad(result, [*leaves, *values], allow_unused=True)
    # PyTorch gives None where the result does not depend on a tensor.
    filled = [
        torch.zeros_like(at) if gradient is None else gradient
        for gradient, at in zip(both, [*leaves, *values], strict=True)
    ]
    return filled[: len(leaves)], filled[len(leaves) :]


_TAP = {"tensorflow": _tap_tensorflow, "jax": _tap_jax, "torch": _tap_torch}
