r"""Maps the covariance of a unit's value and derivatives by the input from one layer to the next.

Let C be the covariance of a pre-activation `a` and its derivatives `J` and `H`, `q = C_00`, and
`J = (C_01 / q) a + r`, `H = (C_02 / q) a + s`. `r` and `s` are normal and independent of `a`. The moments of
`J` and `H` given `a` are polynomials in `a`, so that every entry of the next covariance is an integral over
`a`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .activation import Activation

__all__ = ["check_smooth", "next_covariance"]

Array: TypeAlias = NDArray[np.float64]

# Panels of a Gauss-Legendre rule, in standard deviations of `a` and in units of the activation's argument.
_REACH = 9.0
_PANELS = np.arange(-_REACH, _REACH + 1.0)
_SCALES = np.array([0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def check_smooth(activation: Activation) -> Activation:
    """Returns an activation whose second derivative has a variance; ValueError for all others."""
    if activation.units:
        raise ValueError(
            "The derivatives of networks whose units have different activations are not predicted. Use one "
            f"activation for all units. Received: activation={activation.name!r}"
        )
    at = np.array(activation.kinks)
    near = 1e-9 * np.maximum(1.0, np.abs(at))
    jumps = np.abs(np.asarray(activation.slope_at(at + near)) - np.asarray(activation.slope_at(at - near)))
    if np.any(jumps > 1e-6) and not (activation.slopes and len(set(activation.slopes)) == 1):
        raise ValueError(
            f"The slope of the activation {activation.name!r} jumps, and so the second derivative of its "
            "network by the input is zero or does not exist. Use a smooth `activation`, such as tanh, sin, "
            "gelu or silu."
        )
    return activation


def next_covariance(activation: Activation, covariance: Array) -> Array:
    """Returns `E[v v^T]`, `v = (f, f' J, f'' J^2 + f' H)`, for normal (a, J, H) of this covariance."""
    q = float(covariance[0, 0])
    a, weights = _quadrature(q, activation.kinks)
    # Regression of J and H on a, and the covariance of what is left of them
    by_a = covariance[0, 1:] / q if q > 0.0 else np.zeros(2)
    (rr, rs), (_, ss) = covariance[1:, 1:] - q * np.outer(by_a, by_a)
    j, h = by_a[0] * a, by_a[1] * a  # means of J and H given a
    f = np.asarray(activation.function(a), np.float64)
    slope = np.asarray(activation.slope_at(a), np.float64)
    curvature = _curvature_at(activation, a)

    # Moments of J and H given a
    j2, jh, h2 = j**2 + rr, j * h + rs, h**2 + ss
    j3, j2h = j**3 + 3.0 * j * rr, j**2 * h + 2.0 * j * rs + h * rr
    j4 = j**4 + 6.0 * j**2 * rr + 3.0 * rr**2
    entries = {
        (0, 0): f * f,
        (0, 1): f * slope * j,
        (0, 2): f * (curvature * j2 + slope * h),
        (1, 1): slope**2 * j2,
        (1, 2): slope * (curvature * j3 + slope * jh),
        (2, 2): curvature**2 * j4 + 2.0 * curvature * slope * j2h + slope**2 * h2,
    }
    after = np.empty((3, 3))
    for (row, column), values in entries.items():
        after[row, column] = after[column, row] = float(weights @ values)
    return after


def _curvature_at(activation: Activation, a: Array) -> Array:
    """Returns `f''(a)` by central differences of fourth order."""
    if activation.derivative is not None:
        step = 1e-3 * np.maximum(1.0, np.abs(a))
        outer = activation.derivative(a + 2.0 * step) - activation.derivative(a - 2.0 * step)
        inner = activation.derivative(a + step) - activation.derivative(a - step)
        return np.asarray((8.0 * inner - outer) / (12.0 * step), np.float64)
    step = 3e-3 * np.maximum(1.0, np.abs(a))
    f = activation.function
    outer, inner = f(a + 2.0 * step) + f(a - 2.0 * step), f(a + step) + f(a - step)
    return np.asarray((16.0 * inner - outer - 30.0 * f(a)) / (12.0 * step**2), np.float64)


def _quadrature(q: float, kinks: Sequence[float]) -> tuple[Array, Array]:
    """Returns values of a and weights of expectations over `a ~ N(0, q)`."""
    scale = math.sqrt(q)
    if scale == 0.0:
        return np.zeros(1), np.ones(1)
    with np.errstate(over="ignore"):  # of kinks far outside
        in_argument = np.concatenate([-_SCALES, [0.0], _SCALES, kinks]) / scale
    edges = np.sort(np.concatenate([_PANELS, np.clip(in_argument, -_REACH, _REACH)]))
    half, middle = np.diff(edges)[:, None] / 2.0, (edges[1:] + edges[:-1])[:, None] / 2.0
    x = (middle + half * _NODES).ravel()
    weights = (half * _WEIGHTS).ravel() * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return scale * x, weights
