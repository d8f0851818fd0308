"""Gradients by the back end's automatic differentiation, at arguments and at values inside a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

import keras
import numpy as np

from .execution import has_value
from .types import Tensor

__all__ = [
    "TapKey",
    "Tapped",
    "can_differentiate",
    "gradients_at_taps",
    "tape_records",
    "value_and_slopes",
]

_tape_records: ContextVar[bool] = ContextVar("_tape_records", default=False)


def tape_records() -> bool:
    """Returns whether the function of `gradients_at_taps` runs under its tape, on TensorFlow.

    A gradient that is asked for meanwhile is one that the model takes itself, and is differentiated in turn.
    """
    return _tape_records.get()


def can_differentiate() -> bool:
    """Returns whether the present back end takes gradients."""
    return keras.backend.backend() in _TAP


class TapKey(NamedTuple):
    """Tells the tapped values of one run apart.

    Args:
        owner: Whose value it is.
        number: Which of its values, in their order.
    """

    owner: int
    number: int


class Tapped(NamedTuple):
    """What was found at a tapped value.

    Args:
        gradient: The gradient at the value.
        value: The value, if it had none while the function ran.
        used: Whether the result depends on the value, as far as the back end knows.
    """

    gradient: Tensor
    value: Tensor | None = None
    used: bool = True


Tap: TypeAlias = Callable[[Tensor, TapKey], Tensor]
TappedFunction: TypeAlias = Callable[[Sequence[Tensor], Tap, bool], Tensor]
Gradients: TypeAlias = tuple[list[Tensor], dict[TapKey, Tapped | None]]


def gradients_at_taps(function: TappedFunction, tensors: Sequence[Tensor]) -> Gradients:
    """Returns the gradients of a scalar function with respect to its arguments and to values inside it.

    The function runs operation by operation, uncompiled: compiling for one use would cost more. A value may
    still lie in a part of it that the back end traces or runs again for its gradient.

    Args:
        function: Called as `function(tensors, tap, concrete)`, returns a scalar tensor. It passes each value
            of interest through `tap(value, key)` and continues with what `tap` returns. `concrete` says
            whether the tensors have values. On JAX the function runs twice, the second time with tensors
            without values.
        tensors: Arguments at which to differentiate, of a floating dtype.

    Returns:
        Gradients with respect to `tensors`, and what was found at the taps, in their order; None at a value
        that cannot be read from outside the traced function.
    """
    if not can_differentiate():
        *others, last = _TAP
        raise ValueError(
            f"Gradients need Keras's {', '.join(others)} or {last} back end. "
            f"Received: {keras.backend.backend()!r}"
        )
    return _TAP[keras.backend.backend()](function, list(tensors))


def _tap_tensorflow(function: TappedFunction, tensors: list[Tensor]) -> Gradients:
    import tensorflow as tf

    values: dict[TapKey, Tensor | None] = {}
    # The layers that run again while the gradient is computed: the tape did not see them at first.
    run_again: set[int] = set()
    forward = True

    with tf.GradientTape() as tape:
        tape.watch(tensors)

        def tap(value: Tensor, key: TapKey) -> Tensor:
            if not forward:
                run_again.add(key.owner)
            elif has_value(value):
                tape.watch(value)
                values[key] = value
            else:
                values[key] = None
            return value

        token = _tape_records.set(True)
        try:
            result = function(tensors, tap, True)
        finally:
            _tape_records.reset(token)
    forward = False
    seen = {key: value for key, value in values.items() if value is not None}
    both = tape.gradient(result, [*tensors, *seen.values()])
    # Zeros, as JAX gives them, where the result does not depend on a tensor.
    gradients = [
        tf.zeros_like(at) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, at in zip(both, [*tensors, *seen.values()], strict=True)
    ]
    unseen = {key for key, gradient in zip(seen, both[len(tensors) :], strict=True) if gradient is None} & {
        key for key in seen if key.owner in run_again
    }
    found = {
        key: Tapped(gradient, used=at is not None)
        for key, gradient, at in zip(seen, gradients[len(tensors) :], both[len(tensors) :], strict=True)
    }
    return gradients[: len(tensors)], {key: None if key in unseen else found.get(key) for key in values}


def _tap_jax(function: TappedFunction, tensors: list[Tensor]) -> Gradients:
    import jax

    # JAX differentiates with respect to arguments alone. Each tapped value gets a zero added, which is an
    # argument and has the gradient of the value.
    zeros: dict[TapKey, Tensor] = {}
    traced: set[TapKey] = set()

    def look(value: Tensor, key: TapKey) -> Tensor:
        # NumPy's zeros: JAX's own would belong to the function that is being traced.
        zeros[key] = np.zeros(value.shape, value.dtype)
        if not has_value(value):
            traced.add(key)
        return value

    # The first run finds the taps' shapes, which the zeros need before the second.
    function(tensors, look, True)
    read = _reading_tap()

    def with_taps(
        tensors: list[Tensor],
        zeros: Mapping[TapKey, Tensor],
        values: Mapping[TapKey, Tensor],
        uses: Mapping[TapKey, Tensor],
    ) -> Tensor:
        def tap(value: Tensor, key: TapKey) -> Tensor:
            if key not in zeros:  # a function that JAX traced for the first run serves the second
                return value
            if key in traced:
                return read(value, zeros[key], values[key], uses[key])
            return value + zeros[key]

        return function(tensors, tap, False)

    values = {key: zeros[key] for key in traced}
    uses = {key: np.zeros((), np.float32) for key in traced}
    gradients, at_taps, values, uses = jax.grad(with_taps, (0, 1, 2, 3))(tensors, zeros, values, uses)
    found: dict[TapKey, Tapped | None] = {}
    for key in zeros:
        if key not in traced:
            found[key] = Tapped(at_taps[key])
        else:
            # In a loop or a mapped function, the sums over its runs come out.
            found[key] = Tapped(at_taps[key], values[key]) if float(uses[key]) == 1.0 else None
    return gradients, found


def _reading_tap() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Returns a function that reads a traced value, which has no number yet: it comes out as a gradient.

    The function returns its first argument `a`. With `g` the gradient at it, the gradients of its arguments
    are `g`, `g`, `a`, and the number of times that it is run.
    """
    import jax

    @jax.custom_vjp
    def read(a: Tensor, zero: Tensor, value: Tensor, uses: Tensor) -> Tensor:
        return a

    def forward(a: Tensor, zero: Tensor, value: Tensor, uses: Tensor) -> tuple[Tensor, Tensor]:
        return a, a

    def backward(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        total = g.sum()
        # 1, computed of `g` so that a mapped function adds it up over its elements
        one = ((total == total) | (total != total)).astype(np.float32)
        return g, g, a, one

    read.defvjp(forward, backward)
    return read


def _tap_torch(function: TappedFunction, tensors: list[Tensor]) -> Gradients:
    import torch

    values: dict[TapKey, Tensor | None] = {}
    forward = True

    def tap(value: Tensor, key: TapKey) -> Tensor:
        if not has_value(value):
            values[key] = None
            return value
        # A value that depends on no differentiated tensor has to become a leaf to have a gradient.
        tapped = value if value.requires_grad else value.detach().requires_grad_()
        if forward:  # a checkpointed layer runs again for its gradient
            values[key] = tapped
        return tapped

    # Dropout on PyTorch draws from the generator that everything else draws from. In the caller's inference
    # mode all gradients would be zero.
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        # Only a copy of a tensor that was made in inference mode can be differentiated.
        copies = [tensor.clone() if tensor.is_inference() else tensor.detach() for tensor in tensors]
        leaves = [tensor.requires_grad_() for tensor in copies]
        result = function(leaves, tap, True)
        forward = False
        seen = {key: value for key, value in values.items() if value is not None}
        at = [*leaves, *seen.values()]
        both: Sequence[Tensor | None] = [None] * len(at)
        if at and result.requires_grad:
            both = torch.autograd.grad(result, at, allow_unused=True)
    # PyTorch gives None where the result does not depend on a tensor.
    filled = [
        torch.zeros_like(tensor) if gradient is None else gradient
        for gradient, tensor in zip(both, at, strict=True)
    ]
    found = {
        key: Tapped(gradient, used=at is not None)
        for key, gradient, at in zip(seen, filled[len(leaves) :], both[len(leaves) :], strict=True)
    }
    return filled[: len(leaves)], {key: found.get(key) for key in values}


_TAP = {"tensorflow": _tap_tensorflow, "jax": _tap_jax, "torch": _tap_torch}


Values: TypeAlias = tuple[Tensor, Tensor | None]


def value_and_slopes(function: Callable[[Tensor], Tensor], x: Tensor) -> Values:
    """Returns `function(x)` and the gradient of its sum, which is the slopes of an element-wise function.

    The slopes are None where the back end finds no way from the value to `x`.
    """
    return _SLOPES[keras.backend.backend()](function, x)


def _slopes_tensorflow(function: Callable[[Tensor], Tensor], x: Tensor) -> Values:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x) if tf.is_tensor(y) else None


def _slopes_jax(function: Callable[[Tensor], Tensor], x: Tensor) -> Values:
    import jax

    y, pull_back = jax.vjp(function, x)
    return y, pull_back(jax.numpy.ones_like(y))[0]


def _slopes_torch(function: Callable[[Tensor], Tensor], x: Tensor) -> Values:
    import torch

    x = x.detach().clone().requires_grad_()
    y = function(x)
    if not torch.is_tensor(y) or not y.requires_grad:
        return y, None
    return y.detach(), torch.autograd.grad(y.sum(), x, allow_unused=True)[0]


_SLOPES = {"tensorflow": _slopes_tensorflow, "jax": _slopes_jax, "torch": _slopes_torch}
