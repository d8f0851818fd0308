"""Activations that a model writes as several operations, as one function of the pre-activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.evaluation import evaluate_activation
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit.theory import ACTIVATIONS, Activation
from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.own_activations import activation_from_callable

from .graph import Step
from .signals import LINEAR

__all__ = ["compose", "evaluate_step", "multiply_functions"]

Array: TypeAlias = NDArray[np.float64]

_GRID = np.linspace(-7.0, 7.0, 57)


def compose(outer: Activation, inner: Activation, scale: float, shift: float) -> Activation:
    """Returns `outer(scale * inner(a) + shift)`."""

    def between(a: Array) -> Array:
        return np.asarray(scale * inner.function(a) + shift, np.float64)

    argument = "a" if inner is LINEAR else f"{inner.name}(a)"
    argument = argument if scale == 1.0 else f"{scale:g} {argument}"
    argument = argument if shift == 0.0 else f"{argument} {'-' if shift < 0 else '+'} {abs(shift):g}"
    if outer is LINEAR:
        name, function = argument, between
    else:
        name = f"{outer.name}({argument})"
        function = lambda a: np.asarray(outer.function(between(a)), np.float64)  # noqa: E731
    kinks = set(inner.kinks)
    if inner is LINEAR:
        kinks = {(kink - shift) / scale for kink in outer.kinks}
    return _recognize(
        name,
        function,
        lambda a: outer.slope_at(between(a)) * scale * inner.slope_at(a),
        tuple(sorted(kinks)),
    )


def multiply_functions(one: Activation, other: Activation) -> Activation:
    """Returns `one(a) * other(a)`."""
    return _recognize(
        f"{one.name} * {other.name}",
        lambda a: np.asarray(one.function(a) * other.function(a), np.float64),
        lambda a: one.slope_at(a) * other.function(a) + one.function(a) * other.slope_at(a),
        tuple(sorted({*one.kinks, *other.kinks})),
    )


def _recognize(
    name: str,
    function: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    kinks: tuple[float, ...],
) -> Activation:
    """Returns the activation of the theory's table that `function` is, or a new one."""
    known = _find_in_table(function(_GRID))
    if known is not None:
        return known
    with_slopes = activation_from_callable(name, function)
    return with_slopes if with_slopes.slopes else Activation(name, function, derivative, kinks)


def _find_in_table(values: Array) -> Activation | None:
    """Returns the activation of the theory's table that has these values at the points of `_GRID`."""
    for known in ACTIVATIONS.values():
        with np.errstate(all="ignore"):
            if np.allclose(known.function(_GRID), values, rtol=1e-6, atol=1e-6):
                return known
    return None


def evaluate_step(step: Step, inputs: Sequence[Activation]) -> Activation:
    """Returns what an operation computes of pre-activations a, by its values.

    The constants of the call are bound, as the limits are in `keras.ops.clip(h, 0, 6)`.

    Args:
        step: The operation and its arguments.
        inputs: For each tensor among its arguments, the function of a that it is.

    Raises:
        ActivationError: (a ValueError) The operation cannot be evaluated, or its values are not finite.
        NotElementwiseError: (a ValueError) It mixes the elements of its inputs.
    """
    name = type(step.operation).__name__.lower()

    def apply_to_tensor(a: Tensor) -> Tensor:
        outputs = _call(step, [a] * len(inputs))
        # A condition, such as `h > 0`, is a step from 0 to 1.
        return keras.ops.cast(outputs, a.dtype) if keras.ops.is_tensor(a) else outputs

    def apply_to_array(a: Array) -> Tensor:
        if keras.ops.is_tensor(a):
            raise TypeError("the activations between are functions of arrays")
        values = [np.asarray(activation.function(a), np.float64) for activation in inputs]
        return _call(step, [keras.ops.convert_to_tensor(value, "float64") for value in values])

    is_first = all(activation is LINEAR for activation in inputs)
    found = evaluate_activation(name, apply_to_tensor if is_first else apply_to_array, step.units)
    if found.slopes is not None or found.units:
        return found
    with np.errstate(all="ignore"):
        values = np.asarray(found.function(_GRID), np.float64)
        slopes = np.asarray(found.slope_at(_GRID), np.float64)
    if not (np.isfinite(values).all() and np.isfinite(slopes[_GRID != 0.0]).all()):
        raise ActivationError(f"The values of {name!r} are not finite.")
    return _find_in_table(values) or found


def _call(step: Step, values: Sequence[Tensor]) -> Tensor:
    """Returns the output of an operation with values in the place of the symbolic tensors."""
    remaining = list(values)

    def bind(argument: ArrayTree) -> ArrayTree:
        return remaining.pop(0) if isinstance(argument, keras.KerasTensor) else argument

    args, kwargs = keras.tree.map_structure(bind, (step.arguments, dict(step.keywords)))
    if remaining:
        raise TypeError("an argument is no tensor of the model")
    with keras.StatelessScope():
        return step.operation.call(*args, **kwargs)
