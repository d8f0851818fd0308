r"""Tabulates the Gaussian moments of an activation over the pre-activation's log-variance.

For `a ~ N(0, q)` and `y = ln q` the mean-field theory needs a few expectations of the activation. They are
computed once for each activation on a grid of `y` by the rules of `_quadrature`, and interpolated by cubic
splines.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ._quadrature import LOG_VARIANCE, SCALE, NormalQuadrature
from .activation import Activation
from .memo import cache_by_value

__all__ = ["MomentTable", "Moments", "moment_table"]

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class _Integrals:
    """The moments that are integrals; every field has the shape of the log-variances asked for.

    With `x = a / sqrt(q)` and all expectations over `a ~ N(0, q)`:

    Args:
        log_f2: `ln E f^2`.
        log_df2: `ln m1`, `m1 = E f'^2`.
        kurtosis_f: `E f^4 / (E f^2)^2`.
        kurtosis_df: `k = E f'^4 / m1^2`.
        cross: `E[f^2 f'^2] / (E f^2 m1)`.
        x_f: `E[x^2 f^2] / E f^2`.
        x_df: `E[x^2 f'^2] / m1`.
        alignment: `E[x f f']^2 / (E f^2 m1)`, the share of the squared alignment of pre-activations and
            gradient that passes through a layer.
        flat: Probability that `f' = 0`.
        between_f: Variance over the units of `E f_i^2`, over `(E f^2)^2`.
        between_df: Variance over the units of `E f_i'^2`, over `m1^2`.
        between: Covariance over the units of `E f_i^2` and `E f_i'^2`, over `E f^2 m1`.

    Where the units have activations `f_i` of their own, every expectation is the mean over the units as well,
    that of `ln flat` too. What differs between the units does not fluctuate from network to network: the last
    three, which are zero for equal units, come off the variances.
    """

    log_f2: Array
    log_df2: Array
    kurtosis_f: Array
    kurtosis_df: Array
    cross: Array
    x_f: Array
    x_df: Array
    alignment: Array
    flat: Array
    between_f: Array
    between_df: Array
    between: Array

    def stack(self) -> Array:
        """Returns all fields in one array, along its last axis."""
        return np.stack([getattr(self, field.name) for field in fields(self)], axis=-1)

    @classmethod
    def unstack(cls, stacked: Array) -> Self:
        """Returns the fields that `stack` put into `stacked`."""
        return cls(*np.moveaxis(stacked, -1, 0))


@dataclass(frozen=True)
class Moments(_Integrals):
    """The integrals at given log-variances, and second derivatives of two of them.

    Args:
        curvature_f: `q^2 (d/dq)^2 E f^2 / E f^2`.
        curvature_df: `q^2 (d/dq)^2 m1 / m1`.
    """

    curvature_f: Array
    curvature_df: Array


class MomentTable:
    """Interpolates the `Moments` of one activation.

    Args:
        activation: The activation.

    Raises:
        ValueError: The moments are not finite and positive at unit variance.
    """

    def __init__(self, activation: Activation) -> None:
        integrals = _integrate(activation)
        stacked = integrals.stack()
        usable = np.logical_and.reduce(np.isfinite(stacked), axis=1)
        center = int(np.searchsorted(LOG_VARIANCE, 0.0))
        if not usable[center]:
            f2, df2 = np.exp(integrals.log_f2[center]), np.exp(integrals.log_df2[center])
            raise ValueError(_why_no_gain(activation.name, f2, df2))
        # The widest range around unit variance where all moments are usable.
        below, above = np.flatnonzero(~usable[:center]), np.flatnonzero(~usable[center:])
        first = int(below[-1]) + 1 if below.size else 0
        last = center + int(above[0]) if above.size else len(usable)
        y, integrals = LOG_VARIANCE[first:last], _Integrals.unstack(stacked[first:last])
        logs = CubicSpline(y, np.stack([integrals.log_f2, integrals.log_df2], axis=-1))
        slopes = logs(y, 1)
        # `q^2 (d/dq)^2 M / M` is `L'' + L'^2 - L'` for `L = ln M` as a function of `y`.
        curvature_f, curvature_df = (logs(y, 2) + slopes**2 - slopes).T
        self.grid = y
        self.at_grid = Moments(**vars(integrals), curvature_f=curvature_f, curvature_df=curvature_df)
        self.lowest, self.highest = float(y[0]), float(y[-1])
        self.outer_slopes = slopes[0], slopes[-1]
        """Slopes of `ln E f^2` and `ln m1` at both ends."""

    @cached_property
    def _spline(self) -> CubicSpline:
        return CubicSpline(self.grid, self.at_grid.stack())

    def __call__(self, y: Array) -> Moments:
        """Returns the moments at log-variances `y`; beyond the grid E f^2 and m1 continue as powers of q."""
        inside = np.clip(y, self.lowest, self.highest)
        moments = Moments.unstack(self._spline(inside))
        if np.array_equal(inside, y):
            return moments
        beyond = y - inside
        low, high = self.outer_slopes
        return replace(
            moments,
            log_f2=moments.log_f2 + np.where(beyond < 0, low[0], high[0]) * beyond,
            log_df2=moments.log_df2 + np.where(beyond < 0, low[1], high[1]) * beyond,
        )


def _why_no_gain(name: str, f2: float, df2: float) -> str:
    """Returns the message for an activation with these `E f^2` and `E f'^2` at unit variance."""
    if df2 == 0.0:
        return (
            f"No gain exists for the activation {name!r}: its slope is 0 nearly everywhere, and no gradient "
            "passes. Use an `activation` with a slope, such as tanh in place of a step."
        )
    return (
        f"No gain exists for the activation {name!r}: E f(a)^2 and E f'(a)^2 must be finite and above 0 for "
        f"a standard normal a. Received: E f^2 = {f2:g}, E f'^2 = {df2:g}. Use an `activation` whose values "
        "are numbers everywhere."
    )


@cache_by_value(maxsize=64)
def moment_table(activation: Activation) -> MomentTable:
    """Returns the `MomentTable` of an activation, built at its first use."""
    return MomentTable(activation)


def _integrate(activation: Activation) -> _Integrals:
    """Returns the integrals at every log-variance of the grid; not finite where they are undefined.

    Among them are `ln m1` and k of equation (moments) of the theory page.
    """
    units = activation.units or (activation,)
    with np.errstate(all="ignore"):  # overflow marks the end of the usable grid, found by the caller
        total = np.sum([_integrate_unit(unit) for unit in units], axis=0)
        f2, df2, f4, df4, both, x2_f2, x2_df2, x_f_df, log_flat, f2_f2, df2_df2, f2_df2 = total / len(units)
        return _Integrals(
            log_f2=np.log(f2),
            log_df2=np.log(df2),
            kurtosis_f=f4 / f2**2,
            kurtosis_df=df4 / df2**2,
            cross=both / (f2 * df2),
            x_f=x2_f2 / f2,
            x_df=x2_df2 / df2,
            alignment=x_f_df**2 / (f2 * df2),
            flat=np.exp(log_flat),
            between_f=f2_f2 / f2**2 - 1.0,
            between_df=df2_df2 / df2**2 - 1.0,
            between=f2_df2 / (f2 * df2) - 1.0,
        )


def _integrate_unit(activation: Activation) -> Array:
    """Returns the expectations of one unit's activation that are averaged over the units."""
    rule = NormalQuadrature(activation.kinks)
    a = np.stack([rule.a, -rule.a])
    f = np.asarray(activation.function(a), np.float64)
    df = np.asarray(activation.slope_at(a), np.float64)
    f_f, df_df, a_a = f * f, df * df, a * a
    integrands = [
        f_f,
        df_df,
        f_f * f_f,
        df_df * df_df,
        f_f * df_df,
        a_a * f_f,
        a_a * df_df,
        a * f * df,
        1.0 * (df == 0.0),
    ]
    at_nodes = np.stack([values.sum(axis=0) for values in integrands], axis=-1)
    # A log-variance that reaches a node without a value has no moments.
    known = np.isfinite(at_nodes).all(axis=-1, keepdims=True)
    means = rule.mean(np.where(known, at_nodes, 0.0))
    if not known.all():
        means[rule.mean(1.0 - known)[:, 0] > 0.0] = np.nan
    # No node is at 0, where an activation may have no value: celu(0) has none. Then there are no moments.
    zero = np.zeros(1)
    means += 0.0 * np.asarray(activation.function(zero) + activation.slope_at(zero), np.float64)[0]
    f2, df2, f4, df4, both, a2_f2, a2_df2, a_f_df, flat = means.T
    q = SCALE * SCALE
    return np.stack(
        [
            f2,
            df2,
            f4,
            df4,
            both,
            a2_f2 / q,
            a2_df2 / q,
            a_f_df / SCALE,
            np.log(flat),
            f2 * f2,
            df2 * df2,
            f2 * df2,
        ]
    )
