"""Gradients by the back end's automatic differentiation, at arguments and at values inside a function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from .threads import replace_function
from .types import Tensor

__all__ = ["TapKey", "Tapped", "double_precision", "gradients_at_taps", "has_value", "uncompiled"]


def double_precision() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which float64 stays float64: JAX computes in float32 by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


@contextlib.contextmanager
def uncompiled(*, inline: bool = False) -> Iterator[None]:
    """Lets the present thread run operation by operation: no function is rematerialized or compiled.

    A value inside a function that the back end traces is out of reach. On TensorFlow, a function that is
    traced on copies of a model's weights would also keep them, and be called with them ever after. All other
    threads compile and rematerialize as before, except that on PyTorch those that begin to compile meanwhile
    run uncompiled.

    Args:
        inline: Whether `jax.jit` and JAX's loops run operation by operation too, which is slow.
    """
    with contextlib.ExitStack() as stack:
        switch_off = _UNCOMPILED.get(keras.backend.backend())
        for context in switch_off(inline) if switch_off else []:
            stack.enter_context(context)
        yield


Contexts: TypeAlias = list[contextlib.AbstractContextManager[object]]


def _same_function(function: Callable[..., Any] | None = None, **options: object) -> Any:
    """Stands for `tf.recompute_grad` and `jax.checkpoint`, which are also decorators with options."""
    return _same_function if function is None else function


def _uncompiled_tensorflow(inline: bool) -> Contexts:
    import tensorflow as tf

    compiled = type(tf.function(lambda: None))
    original = compiled.__call__

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        # TensorFlow's own functions, such as that of `tf.vectorized_map`, may be written for a graph alone.
        if str(getattr(self.python_function, "__module__", "")).startswith("tensorflow."):
            return original(self, *args, **kwargs)
        return self.python_function(*args, **kwargs)

    return [
        replace_function(compiled, "__call__", run),
        replace_function(tf, "recompute_grad", _same_function),
    ]


def _uncompiled_jax(inline: bool) -> Contexts:
    import jax

    contexts: Contexts = [replace_function(jax, name, _same_function) for name in ("checkpoint", "remat")]
    return [*contexts, jax.disable_jit()] if inline else contexts


def _uncompiled_torch(inline: bool) -> Contexts:
    import torch
    import torch.utils.checkpoint

    module = torch.utils.checkpoint

    def run(
        function: Callable[..., Any],
        *args: Any,
        use_reentrant: object = None,
        context_fn: object = None,
        determinism_check: object = None,
        debug: object = None,
        early_stop: object = None,
        preserve_rng_state: object = None,
        **kwargs: Any,
    ) -> Any:
        return function(*args, **kwargs)

    contexts: Contexts = [
        replace_function(module, "checkpoint", run),
        # Those who imported `checkpoint` by its name come past here, if they want the reentrant kind.
        replace_function(module.CheckpointFunction, "apply", lambda function, keep, *args: function(*args)),
    ]
    if "torch._dynamo" in sys.modules:  # only then has anything been compiled
        contexts.append(torch.compiler.set_stance("force_eager"))
    return contexts


_UNCOMPILED = {
    "tensorflow": _uncompiled_tensorflow,
    "jax": _uncompiled_jax,
    "torch": _uncompiled_torch,
}


def has_value(tensor: Tensor) -> bool:
    """Returns whether a tensor has a value that can be read, which those of a traced function do not have."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    if backend == "torch":
        try:
            return bool(tensor.data_ptr() or tensor.numel() == 0)
        except RuntimeError:  # of a tensor inside `torch.vmap`
            return False
    return True


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
        that is not to be seen from outside.
    """
    backend = keras.backend.backend()
    if backend not in _TAP:
        *others, last = _TAP
        raise ValueError(
            f"Gradients need Keras's {', '.join(others)} or {last} back end. Received: {backend!r}"
        )
    return _TAP[backend](function, list(tensors))


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

        result = function(tensors, tap, True)
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
    """Returns a function that reads a value without a value: it comes out as a gradient.

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

    # Dropout on PyTorch draws from the generator that everything else draws from.
    with torch.random.fork_rng(), torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
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
