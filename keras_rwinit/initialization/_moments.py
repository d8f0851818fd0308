"""Moments of activations and of their slopes over a standard normal variable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory import Activation

__all__ = [
    "NORMAL",
    "WEIGHTS",
    "Spectrum",
    "correlation_map",
    "normalized_spectrum",
    "slope_kurtosis",
    "slope_mean_square",
    "slopes_at",
    "squared_mean_ratio",
    "values_at",
]

Array: TypeAlias = NDArray[np.float64]
Spectrum: TypeAlias = tuple[float, ...]
"""Squared Hermite coefficients: `E f(a) f(b) = sum_n spectrum_n c^n` for normal a, b of correlation c."""

_TERMS = 32

# Quadrature over a standard normal variable; the trapezoidal rule takes kinks as they come.
NORMAL = np.linspace(-9.0, 9.0, 4001)
WEIGHTS = np.exp(-0.5 * NORMAL**2) / np.exp(-0.5 * NORMAL**2).sum()


def values_at(activation: Activation, a: Array) -> list[Array]:
    """Returns the values at `a` of each unit of an activation, whose units may differ."""
    return [_as_array(unit.function(a), a) for unit in activation.units or (activation,)]


def slopes_at(activation: Activation, a: Array) -> list[Array]:
    """Returns the slopes at `a` of each unit of an activation, whose units may differ."""
    return [_as_array(unit.slope_at(a), a) for unit in activation.units or (activation,)]


def _as_array(values: object, a: Array) -> Array:
    # A function of the user's may return one number for all.
    return np.broadcast_to(np.asarray(values, np.float64), a.shape)


def slope_mean_square(activation: Activation) -> float:
    """Returns the mean square of the slope of an activation; 1 for one without two slopes."""
    if activation.slopes is None:
        return 1.0
    return sum(slope * slope for slope in activation.slopes) / len(activation.slopes)


def slope_kurtosis(activation: Activation) -> float:
    """Returns `E f'^4 / (E f'^2)^2` at unit variance."""
    if activation.slopes is not None:
        mean = slope_mean_square(activation)
        fourth = sum(slope**4 for slope in activation.slopes) / len(activation.slopes)
        return fourth / mean**2 if mean > 0.0 else 1.0
    squares = [slopes**2 for slopes in slopes_at(activation, NORMAL)]
    mean_square = sum(float(WEIGHTS @ square) for square in squares)
    fourth = sum(float(WEIGHTS @ square**2) for square in squares)
    return len(squares) * fourth / mean_square**2 if mean_square > 0.0 else 1.0


def squared_mean_ratio(activation: Activation) -> float:
    """Returns `(E f)^2 / E f^2` at unit variance, of units that differ the mean of both."""
    values = values_at(activation, NORMAL)
    squared_mean = sum(float(WEIGHTS @ value) ** 2 for value in values)
    mean_square = sum(float(WEIGHTS @ value**2) for value in values)
    return squared_mean / mean_square if mean_square > 0.0 else 0.0


def normalized_spectrum(of_units: Sequence[Array]) -> Spectrum:
    """Returns the mean spectrum, of sum 1, of the units' functions; all zero where the functions are.

    Args:
        of_units: The values of each unit's function at `NORMAL`.
    """
    mean = np.mean([_spectrum(values) for values in of_units], axis=0)
    total = float(mean.sum())
    # Rounded, so that rounding errors do not give equal activations different keys in a cache.
    return tuple(round(float(x) / total, 12) for x in mean) if total > 0.0 else (0.0,) * _TERMS


def _spectrum(values: Array) -> Array:
    """Returns the squared Hermite coefficients of a function of a standard normal variable."""
    before, polynomial = np.zeros_like(NORMAL), np.ones_like(NORMAL)
    squares = []
    for n in range(_TERMS):
        squares.append(float(WEIGHTS @ (values * polynomial)) ** 2)
        # Of unit mean square: h_(n+1) = (x h_n - sqrt(n) h_(n-1)) / sqrt(n + 1)
        before, polynomial = polynomial, (NORMAL * polynomial - math.sqrt(n) * before) / math.sqrt(n + 1)
    # The mean square that higher terms have goes to the last one.
    squares[-1] += max(float(WEIGHTS @ values**2) - sum(squares), 0.0)
    return np.array(squares)


def correlation_map(spectrum: Spectrum, correlation: Array) -> Array:
    """Returns the correlation of a function of two normal variables, by that of the variables."""
    return np.asarray(np.polynomial.polynomial.polyval(np.clip(correlation, -1.0, 1.0), spectrum), np.float64)
