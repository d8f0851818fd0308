"""Tells what the units of an activation compute: all the same, or each its own, which is then tabulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from keras_rwinit.theory import Activation
from keras_rwinit.theory.activation import ActivationError, NotElementwiseError
from keras_rwinit.theory.own_activations import activation_from_callable, average_activation

from .evaluators import Evaluator

__all__ = ["choose_units", "evaluate_any_shape", "tabulate_units", "units_are_equal"]

Array: TypeAlias = NDArray[np.float64]

_SMOOTH_UNITS = 16
"""Number of units with different activations that are followed, unless each has two slopes."""

_TWO_SLOPE_UNITS = 1024

# Where units that differ are tabulated: 64 points to a factor of two, and the powers of two themselves.
_MAGNITUDES = 2.0 ** (np.arange(-20 * 64, 20 * 64 + 1) / 64.0)
_TABLE = np.concatenate([-_MAGNITUDES[::-1], [0.0], _MAGNITUDES])
_CHUNK = 2**22  # numbers to a tensor


def units_are_equal(name: str, evaluator: Evaluator, points: Array, axes: Sequence[int]) -> bool:
    """Returns whether all units compute the same.

    Raises:
        NotElementwiseError: An element's value depends on other elements, or on the call.
    """
    count, rows = int(np.prod(axes)), len(points)
    row, unit = np.arange(rows)[:, None], np.arange(count)
    at = (row + unit) % rows
    values = _evaluate_units(name, evaluator, points[at], axes)
    aligned = np.empty_like(values)  # a row for each point
    np.put_along_axis(aligned, at, values, axis=0)
    # Other neighbors, and half of the rows
    elsewhere = ((row + 3 * unit + 1) % rows)[: rows // 2]
    again = _evaluate_units(name, evaluator, points[elsewhere], axes)
    scale = 1e-6 * float(np.nan_to_num(np.abs(values), posinf=0.0).max(initial=0.0)) + 1e-30
    if not np.allclose(np.take_along_axis(aligned, elsewhere, axis=0), again, 1e-5, scale, equal_nan=True):
        raise NotElementwiseError(
            "`activation` must act element by element: its value at an element depends on other elements, or "
            f"changes from call to call, so that it has no gain. Received: {name!r}"
        )
    return np.allclose(aligned, aligned[:, :1], 1e-6, scale, equal_nan=True)


def _evaluate_units(name: str, evaluator: Evaluator, a: Array, axes: Sequence[int]) -> Array:
    """Returns the values at an array with a column for each unit."""
    shape = (len(a), *axes)
    with np.errstate(all="ignore"):
        values = evaluator.values(a.reshape(shape))
    if values.shape != shape:
        raise NotElementwiseError(
            f"`activation` must act element by element: it returned an array of shape {values.shape} for one "
            f"of shape {shape}. Received: {name!r}"
        )
    return values.reshape(a.shape)


def evaluate_any_shape(evaluate: Callable[[Array], Array], axes: Sequence[int], a: Array) -> Array:
    """Evaluates a function of arrays of shape `(any, *axes)`, all of whose units are equal, at any array."""
    count = int(np.prod(axes))
    # Few lengths: JAX compiles for each.
    rows = 16 ** math.ceil(math.log(max(-(-a.size // count), 64) / 64, 16)) * 64
    flat = np.zeros(rows * count)
    flat[: a.size] = np.ravel(a)
    return evaluate(flat.reshape(-1, *axes)).ravel()[: a.size].reshape(a.shape)


def choose_units(values: Array, limit: int) -> NDArray[np.intp]:
    """Returns the indices of at most `limit` units, evenly spaced in the order of `values`."""
    order = np.argsort(values, kind="stable")
    if len(order) <= limit:
        return np.arange(len(order))
    return order[(2 * np.arange(limit) + 1) * len(order) // (2 * limit)]


def tabulate_units(name: str, evaluator: Evaluator, axes: Sequence[int]) -> Activation:
    """Returns the average of units that differ, each as a table of values and slopes."""
    count = int(np.prod(axes))
    step = max(_CHUNK // count, 1)
    half = _evaluate_units(name, evaluator, np.full((1, count), 0.5), axes)[0]
    chosen = choose_units(half, _TWO_SLOPE_UNITS)
    values, slopes = np.empty((2, len(_TABLE), len(chosen)))
    for start in range(0, len(_TABLE), step):
        points = _TABLE[start : start + step]
        a = np.repeat(points[:, None], count, axis=1).reshape(-1, *axes)
        with np.errstate(all="ignore"):
            values[start : start + step] = evaluator.values(a).reshape(-1, count)[:, chosen]
            slopes[start : start + step] = _slopes_of(evaluator, a).reshape(-1, count)[:, chosen]

    def tabulate(indices: Iterable[int]) -> list[Activation]:
        return [_tabulated_unit(name, values[:, index], slopes[:, index]) for index in indices]

    units = tabulate(choose_units(half[chosen], _SMOOTH_UNITS))
    # A table takes a millisecond: those of all units are made only if all may have two slopes.
    if all(unit.slopes is not None for unit in units):
        every = tabulate(range(len(chosen)))
        if all(unit.slopes is not None for unit in every):
            units = every
    return average_activation(name, units)


def _slopes_of(evaluator: Evaluator, a: Array) -> Array:
    if evaluator.slopes is not None:
        return evaluator.slopes(a)
    return np.asarray(Activation("", evaluator.values).slope_at(a))


def _tabulated_unit(name: str, values: Array, slopes: Array) -> Activation:
    finite = np.isfinite(values) & np.isfinite(slopes)
    # Tables end where the values leave the floats, and are extended as straight lines.
    points, values, slopes = _TABLE[finite], values[finite], slopes[finite]
    if len(points) < 2:
        raise ActivationError(f"The activation {name!r} is not finite anywhere.")
    table = CubicHermiteSpline(points, values, slopes, extrapolate=False)
    # The slope of a table of float32 values would be a hundred times less precise than the slopes are.
    slope_table = PchipInterpolator(points, slopes, extrapolate=False)

    def function(a: Array) -> Array:
        inside = np.clip(a, points[0], points[-1])
        return np.asarray(table(inside) + (a - inside) * np.where(a < 0, slopes[0], slopes[-1]))

    def derivative(a: Array) -> Array:
        return np.asarray(slope_table(np.clip(a, points[0], points[-1])))

    return activation_from_callable(name, function, derivative)
