r"""Solves for the parameters of activations that are shaped for a depth; `shaping` has the derivation.

Everything here takes plain functions and returns numbers, so that the table of activations can use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.interpolate import CubicSpline

__all__ = [
    "ALIGNMENT",
    "Shape",
    "UnshapeableError",
    "correlation_after",
    "smooth_shape",
    "two_slope_increment",
    "two_slope_shape",
]

Array: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Any]

_MOST_STEPPED = 2000  # layers up to which a correlation is followed layer by layer
_HIGHEST = 6.0  # arctanh of the largest correlation that is followed
_REACH = 9.0  # standard deviations of x; what lies beyond weighs 2e-19
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_ORDERS = 40  # Hermite coefficients of a shaped activation
_SHIFTS = np.sort(np.concatenate([[0.0], np.geomspace(2e-3, 16.0, 72), -np.geomspace(2e-3, 16.0, 72)]))
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-4, 3.0
ALIGNMENT = 0.7
"""Fixed point of the gradient's alignment in a deep network; `shaping` says why."""

_DIGITS = 6
"""Significant digits of a parameter. The solver's last digits may differ from machine to machine."""


class UnshapeableError(ValueError):
    """No shape of the activation meets the conditions."""


class Shape(NamedTuple):
    """The parameters of `c (f(a x + b) + d)`.

    Args:
        input_scale: a, above 0.
        shift: b.
        scale: c, above 0.
        offset: d.
    """

    input_scale: float
    shift: float
    scale: float
    offset: float


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


# Following a correlation through many equal layers


def correlation_after(added: Callable[[float], float], depth: int) -> float:
    """Returns the correlation to which `depth` layers take a correlation of 0.

    A great depth is not walked layer by layer. The number of layers from 0 to c is
    `int_0^c dx / v + ln(v(c) / v(0)) / 2`, up to terms of order v: its derivative k' obeys
    `k' v + k'' v^2 / 2 = 1`.

    Args:
        added: What a layer adds to a correlation from 0 to 1, v(c), above 0 below one.
        depth: Number of layers.
    """
    if depth > _MOST_STEPPED:
        return _correlation_after_many(added, depth)
    correlation = 0.0
    for _ in range(depth):
        correlation += added(correlation)
    return correlation


def _correlation_after_many(added: Callable[[float], float], depth: int) -> float:
    # With c = tanh z the integrand is smooth, and the correlation never reaches one.
    z = np.linspace(0.0, _HIGHEST, 601)
    c = np.tanh(z)
    rate = np.array([added(float(value)) for value in c])
    layers_per_z = CubicSpline(z, (1.0 - c * c) / rate)
    passed = layers_per_z.antiderivative()(z) + np.log(rate / rate[0]) / 2.0
    return float(np.tanh(np.interp(depth, passed, z)))


# Two slopes


def two_slope_increment(correlation: float, slope: float) -> float:
    """Returns `C(c) - c`: what a layer of slopes 1 and `slope` adds to the correlation, at infinite width.

    C is the map of equation (correlation) of the theory page.

    `C(c) = [(1 - a)^2 (sqrt(1 - c^2) + (pi - arccos c) c) / pi + 2 a c] / (1 + a^2)`, because the
    activation is `(1 - a) relu(x) + a x` and `E[x relu(y)] = c / 2` (Cho & Saul 2009 for the kernel of
    ReLU).
    """
    bent = math.sqrt(max(1.0 - correlation * correlation, 0.0)) - correlation * math.acos(
        max(-1.0, min(1.0, correlation))
    )
    return (1.0 - slope) ** 2 / (1.0 + slope * slope) * bent / math.pi


def two_slope_shape(depth: int, correlation: float) -> float:
    """Returns the slope below 0 that takes orthogonal inputs to `correlation` after `depth` layers.

    It solves equation (shaping) of the theory page. It is 0 where ReLU itself does not take them so far.
    """

    def excess(slope: float) -> float:
        return correlation_after(lambda c: two_slope_increment(c, slope), depth) - correlation

    if excess(0.0) <= 0.0:
        return 0.0
    return _rounded(float(optimize.brentq(excess, 0.0, 1.0 - 1e-9, xtol=1e-10)))


# Smooth activations


def smooth_shape(
    function: Function, slope_at: Function, kinks: Sequence[float], depth: int, correlation: float
) -> Shape:
    """Returns the shape of `f` for which the conditions of `shaping` hold at unit variance.

    Args:
        function: f, vectorized.
        slope_at: f', vectorized.
        kinks: Points where f is not smooth.
        depth: Number of layers.
        correlation: Correlation of the activations of two orthogonal inputs after so many layers.

    Raises:
        UnshapeableError: No shape has the alignment wanted, or the layers are too many.
    """
    family = _Family(function, slope_at, tuple(kinks))

    def excess(log_scale: float) -> float:
        return family.at(math.exp(log_scale)).correlation_after(depth) - correlation

    low, high = math.log(_SMALLEST_SCALE), math.log(_LARGEST_SCALE)
    if excess(low) > 0.0:
        raise UnshapeableError(
            f"`depth`={depth:,} layers take inputs beyond `correlation`={correlation:g} even at the smallest "
            f"input scale that is solved for, {_SMALLEST_SCALE:g}. Use fewer layers or a larger correlation."
        )
    if excess(high) > 0.0:
        high = float(optimize.brentq(excess, low, high, xtol=1e-9))
    return family.at(math.exp(high)).shape()


class _Family:
    """All shapes of an activation with `Q(1) = C'(1) = 1`.

    Args:
        function: f, vectorized.
        slope_at: f', vectorized.
        kinks: Points where f is not smooth.
    """

    def __init__(self, function: Function, slope_at: Function, kinks: tuple[float, ...]) -> None:
        self._function, self._slope_at, self._kinks = function, slope_at, kinks

    def at(self, input_scale: float) -> _Shaped:
        """Returns the shape of an input scale whose gradient aligns as wanted, of the smallest shift."""
        shifts = _SHIFTS
        with np.errstate(all="ignore"):  # far out the activation is flat
            excess = self._excess_alignment(input_scale, shifts)
        crossings = np.flatnonzero(excess[:-1] * excess[1:] < 0.0)
        if not crossings.size:
            raise UnshapeableError(
                f"No shift holds the gradient's alignment for an input scale of {input_scale:.3g}."
            )
        distance = np.minimum(np.abs(shifts[crossings]), np.abs(shifts[crossings + 1]))
        # Of odd functions the positive one of two equal shifts
        first = int(crossings[np.lexsort((-crossings, distance.round(9)))[0]])
        shift = optimize.brentq(
            lambda b: float(self._excess_alignment(input_scale, np.array([b]))[0]),
            shifts[first],
            shifts[first + 1],
            xtol=1e-12,
        )
        return _Shaped(self._function, self._slope_at, self._kinks, input_scale, float(shift))

    def _excess_alignment(self, input_scale: float, shifts: Array) -> Array:
        """Returns `E[x^2 fs'^2] - 1 - (t - 1) (1 - E[x fs fs']^2)` at several shifts, t being `ALIGNMENT`.

        Its zero solves equation (fixedpoint) of the theory page.
        """
        x, weight = _quadrature((np.asarray(self._kinks)[None] - shifts[:, None]) / input_scale)
        u = input_scale * x + shifts[:, None]
        f = np.asarray(self._function(u), np.float64)
        df = np.asarray(self._slope_at(u), np.float64)

        def mean(values: Array) -> Array:
            return np.asarray((weight * values).sum(axis=1), np.float64)

        square, center = mean(df * df), mean(f)
        f = f - center[:, None]
        variance = mean(f * f) / (input_scale**2 * square)
        constant = -np.copysign(np.sqrt(np.maximum(1.0 - variance, 0.0)), mean(f * (x * x - 1.0)))
        radial = mean(x * f * df) / (input_scale * square) + constant * mean(x * df) / np.sqrt(square)
        source = mean(x * x * df * df) / square - 1.0
        return np.asarray(source - (ALIGNMENT - 1.0) * (1.0 - radial**2), np.float64)


class _Shaped:
    """One shape, with the Hermite coefficients of its activation.

    Args:
        function: f, vectorized.
        slope_at: f', vectorized.
        kinks: Points where f is not smooth.
        input_scale: a.
        shift: b.
    """

    def __init__(
        self,
        function: Function,
        slope_at: Function,
        kinks: tuple[float, ...],
        input_scale: float,
        shift: float,
    ) -> None:
        self._scale_and_shift = input_scale, shift
        x, weight = (array[0] for array in _quadrature((np.asarray(kinks)[None] - shift) / input_scale))
        f = np.asarray(function(input_scale * x + shift), np.float64)
        df = np.asarray(slope_at(input_scale * x + shift), np.float64)
        # E fs'^2 = 1
        self._scale = 1.0 / (input_scale * math.sqrt(float(weight @ (df * df))))
        mean = float(weight @ f)
        coefficients = _hermite(x, _ORDERS) @ (weight * self._scale * (f - mean))
        variance = float(weight @ np.square(self._scale * (f - mean)))
        # E fs^2 = 1, by a constant of the sign that damps fluctuations of the variance
        constant = -math.copysign(math.sqrt(max(1.0 - variance, 0.0)), coefficients[2])
        self._offset = constant / self._scale - mean
        coefficients[0] = constant
        powers = np.square(coefficients)
        # The orders that are left out count as the highest that is not: the powers add up to one.
        powers[-1] += max(1.0 - float(powers.sum()), 0.0)
        powers[1] = -(powers[0] + float(powers[2:].sum()))
        self._increments = powers.tolist()[::-1]
        # With `E fs'^2 = sum_k k f_k^2 = 1`,
        # `C(c) - c = (1 - c)^2 sum_i c^i sum_{k > i + 1} (k - 1 - i) f_k^2`.
        self._factored = np.cumsum(np.cumsum(powers[:1:-1])).tolist()
        # What the orders that are left out add to `-C'(1)`. Without kinks it is rounding.
        orders = np.arange(2, _ORDERS)
        self._left_out = max(float(powers[0] - (orders - 1) @ powers[2:]), 0.0) if kinks else 0.0

    def increment(self, correlation: float) -> float:
        """Returns `C(c) - c`, with `C(c) = sum_k f_k^2 c^k` and `sum_k f_k^2 = 1`."""
        value = 0.0
        for power in self._increments:
            value = value * correlation + power
        return value

    def factored_increment(self, correlation: float) -> float:
        """Returns the same without a difference of numbers near one."""
        value = 0.0
        for factor in self._factored:
            value = value * correlation + factor
        return (1.0 - correlation) * (value * (1.0 - correlation) + self._left_out)

    def correlation_after(self, depth: int) -> float:
        """Returns the correlation of two orthogonal inputs after `depth` layers."""
        deep = depth > _MOST_STEPPED  # a layer then adds so little that `increment` has no digits left
        return correlation_after(self.factored_increment if deep else self.increment, depth)

    def shape(self) -> Shape:
        """Returns the parameters, rounded."""
        return Shape(*map(_rounded, (*self._scale_and_shift, self._scale, self._offset)))


def _quadrature(kinks: Array) -> tuple[Array, Array]:
    """Returns nodes and weights of expectations over a standard normal variable.

    Args:
        kinks: Points where each integrand is not smooth, shape (integrands, kinks).

    Returns:
        Two arrays of shape (integrands, nodes).
    """
    panels = np.broadcast_to(np.arange(-_REACH, _REACH + 1.0), (len(kinks), int(2 * _REACH) + 1))
    edges = np.sort(np.concatenate([panels, np.clip(kinks, -_REACH, _REACH)], axis=1), axis=1)
    half = np.diff(edges, axis=1)[:, :, None] / 2.0
    middle = (edges[:, 1:] + edges[:, :-1])[:, :, None] / 2.0
    x = (middle + half * _NODES).reshape(len(kinks), -1)
    return x, (half * _WEIGHTS).reshape(x.shape) * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)


def _hermite(x: Array, orders: int) -> Array:
    """Returns the orthonormal Hermite polynomials of orders 0 to `orders - 1`, shape (orders, x)."""
    values = np.empty((orders, len(x)))
    values[0], values[1] = 1.0, x
    for k in range(2, orders):
        values[k] = (x * values[k - 1] - math.sqrt(k - 1) * values[k - 2]) / math.sqrt(k)
    return values
