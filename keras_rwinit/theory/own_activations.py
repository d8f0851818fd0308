"""Activations that stand in no table: callables, and layers whose units have activations of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .activation import Activation, Function, two_slope_activation
from .own_functions import OwnFunction

__all__ = ["activation_from_callable", "average_activation", "check_own_activation", "own_activation"]

Array: TypeAlias = NDArray[np.float64]


def own_activation(function: Function) -> Activation:
    """Returns the `Activation` of a NumPy callable of the user's, which is tried first.

    Raises:
        ActivationError: (a ValueError) It fails, or does not return real numbers.
        NotElementwiseError: (a ValueError) It does not act element by element.
    """
    name = getattr(function, "__name__", None)
    checked = OwnFunction(name if isinstance(name, str) else type(function).__name__, function)
    return activation_from_callable(checked.name, checked, _float32_slopes(checked))


def check_own_activation(activation: Activation) -> Activation:
    """Returns a new object for an `Activation` of the user's, whose functions are tried first.

    Raises:
        ActivationError: (a ValueError) A function fails, or does not return real numbers.
        NotElementwiseError: (a ValueError) It does not act element by element.
    """
    function, derivative = activation.function, activation.derivative
    if not isinstance(function, OwnFunction):
        function = OwnFunction(activation.name, function)
    if derivative is None:
        derivative = _float32_slopes(function)
    elif not isinstance(derivative, OwnFunction):
        derivative = OwnFunction(activation.name, derivative)
    return replace(activation, function=function, derivative=derivative)


def _float32_slopes(function: OwnFunction) -> Function | None:
    """Returns the derivative of a function that computes in float32; None leaves it to `Activation`."""
    return function.central_difference if function.single_precision else None


def activation_from_callable(name: str, function: Function, derivative: Function | None = None) -> Activation:
    """Returns the `Activation` of a callable, with two exact slopes where it has them.

    Args:
        name: The name for messages.
        function: A map of float64 arrays that acts element by element.
        derivative: Its derivative, vectorized likewise. `None`: central differences.

    Returns:
        An activation of two slopes if `function` is linear on either side of zero, from 2^-20 to 2^20.
    """
    try:
        slopes = _find_two_slopes(function)
    except Exception:  # the error of a callable that fails on arrays is raised when its moments are taken
        slopes = None
    if slopes is None:
        return Activation(name, function, derivative)
    # A back end computes in float32: seven digits restore the decimal number that the user wrote.
    below, above = (float(f"{slope:.7g}") for slope in slopes)
    return two_slope_activation(name, below, above)


def average_activation(name: str, units: Sequence[Activation]) -> Activation:
    """Returns the activation of a layer whose units have activations of their own.

    In the theory each expectation over a unit is then the mean over the units as well. Equal units are one
    activation.

    Args:
        name: The name for messages.
        units: The activation of every unit.
    """
    if len(set(units)) == 1:
        return replace(units[0], name=name, constant=False)
    slopes = [unit.slopes for unit in units if unit.slopes is not None]
    if len(slopes) == len(units):
        pairs = np.array(slopes)
        return Activation(
            name,
            lambda a: a * _unit_slopes(pairs, a),
            lambda a: _unit_slopes(pairs, a),
            slopes=tuple(pairs.ravel()),
            units=tuple(units),
        )
    functions = [unit.function for unit in units]
    derivatives = [unit.slope_at for unit in units]
    return Activation(
        name, lambda a: _apply_units(functions, a), lambda a: _apply_units(derivatives, a), units=tuple(units)
    )


def _unit_numbers(count: int, a: Array) -> NDArray[np.intp]:
    """Returns which of `count` activations each unit of `a` has: as many units each, as nearly as it goes."""
    return np.arange(a.shape[-1]) * count // a.shape[-1]


def _unit_slopes(pairs: Array, a: Array) -> Array:
    below, above = pairs[_unit_numbers(len(pairs), a)].T
    return np.where(a > 0, above, below)


def _apply_units(functions: Sequence[Function], a: Array) -> Array:
    numbers, values = _unit_numbers(len(functions), a), np.empty(a.shape)
    for number in np.unique(numbers):
        columns = numbers == number
        values[..., columns] = functions[number](a[..., columns])
    return values


def _find_two_slopes(function: Function) -> tuple[float, float] | None:
    """Returns the slopes below and above zero; None if `function` is not linear there, or 0 everywhere."""
    magnitudes = 2.0 ** np.arange(-20.0, 21.0)
    with np.errstate(all="ignore"):
        below, above = np.asarray(function(np.outer([-1.0, 1.0], magnitudes)), np.float64) / magnitudes
    at_one = len(magnitudes) // 2
    slopes = 0.0 - float(below[at_one]), float(above[at_one])  # `0.0 -` gives no negative zero
    if not any(slopes) or not np.isfinite(slopes).all():
        return None
    linear_below = np.allclose(below, -slopes[0], rtol=1e-6, atol=1e-9)
    linear_above = np.allclose(above, slopes[1], rtol=1e-6, atol=1e-9)
    return slopes if linear_below and linear_above else None
