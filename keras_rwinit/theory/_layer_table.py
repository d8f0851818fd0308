"""Tabulates what one layer of a smooth activation does to the forward chain and to the gradient.

The moments of `_moments` and the width give every quantity of a layer as a function of `y`, the log-variance
of its pre-activations; see `_mean_field`. They are computed once for a grid of `y` and interpolated, so that
a layer costs one look-up, whatever the depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.interpolate import CubicSpline

from ._moments import Moments, moment_table
from .activation import Activation
from .distributions import Distribution
from .memo import cache_by_value

__all__ = ["NODES", "WEIGHTS", "Layer", "LayerTable", "Step", "layer_step", "layer_table"]

Array: TypeAlias = NDArray[np.float64]

# Gauss-Hermite rule for expectations over a standard normal variable; its middle node is 0.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
# Rows that turn values at the nodes into their mean, and into their covariance with the variable.
_MEAN_AND_COVARIANCE = np.stack([WEIGHTS, WEIGHTS * NODES])


def _log_gamma_moments(variance: Array) -> tuple[Array, Array]:
    """Returns mean and variance of `ln G` for a gamma variable G of mean one and the given variance."""
    shape = 1.0 / np.maximum(variance, 1e-12)
    return special.digamma(shape) - np.log(shape), special.zeta(2.0, shape)  # zeta(2, x) = psi1(x)


@dataclass(frozen=True)
class Step:
    """Moments of one layer's step given `y`, without the gain; every field has the shape of `y`.

    Args:
        chain_mean: Mean of the next layer's `y`.
        chain_variance: Variance of the next layer's `y`.
        step_mean: Mean of `ln z`, for a gradient that is not aligned with the pre-activations.
        step_variance: Variance of `ln z`.
        covariance: Covariance of `ln z` and the next layer's `y`.
        aligned: Factor of `t - 1` of the layer above in the mean of `ln z`.
        skewed: Factor of `E[x^2 f'^2] / m1 - 1` of the layer above in the mean of `ln z`.
    """

    chain_mean: Array
    chain_variance: Array
    step_mean: Array
    step_variance: Array
    covariance: Array
    aligned: Array
    skewed: Array


def layer_step(m: Moments, width: int, distribution: Distribution) -> Step:
    """Returns a layer's step from the moments of its activation; see the docstring of `_mean_field`.

    For normal kernels, and to first order in 1 / width, mean and variance of the next `y` are those of
    equation (chain) of the theory page, without the gain. Mean and variance of `ln z` are those of
    equation (smoothstep) of the theory page.
    """
    excess = distribution.excess_kurtosis
    # Relative variances of |f|^2 and of z, times the width, for normal entries.
    spread_f, spread_df = m.kurtosis_f - 1.0 - m.between_f, 3.0 * m.kurtosis_df - 1.0 - m.between_df
    covariance, aligned = m.cross - 1.0 - m.between, m.cross
    edgeworth = excess * m.kurtosis_f / 6.0
    if distribution.orthogonal:
        # An isometry fixes |W h| and |W^T delta|: the regression of each quantity on them is taken out.
        spread_f = spread_f - (m.x_f - 1.0) ** 2 / 2.0
        spread_df = spread_df - 2.0 - (m.x_df - 1.0) ** 2 / 2.0
        covariance = covariance - (m.x_f - 1.0) * (m.x_df - 1.0) / 2.0
        aligned = aligned - 1.0
        edgeworth = edgeworth - 1.0
    spread_df = spread_df + 3.0 * excess * m.kurtosis_df**2 / width
    chain_bias, chain_variance = _log_gamma_moments(np.maximum(spread_f, 0.0) / width)
    step_bias, step_variance = _log_gamma_moments(np.maximum(spread_df, 0.0) / width)
    return Step(
        chain_mean=m.log_f2 + edgeworth * m.curvature_f / width + chain_bias,
        chain_variance=chain_variance,
        step_mean=m.log_df2 + edgeworth * m.curvature_df / width + step_bias,
        step_variance=step_variance,
        covariance=covariance / width,
        aligned=aligned / width,
        skewed=excess * m.cross / (2.0 * width),
    )


class Layer(NamedTuple):
    """One layer as the forward pass found it, for the backward pass.

    `x_df`, `alignment`, `aligned` and `skewed` depend on `y` and have the shape of `mean_y` and one more axis
    for the nodes of the Gauss-Hermite rule. All other fields are averages over `y`, of the shape of `mean_y`.

    Args:
        mean_y: Mean of `y`.
        var_y: Variance of `y`.
        step_mean: Mean of `ln z`, without gain and alignment.
        step_variance: Variance of `ln z` given `y`.
        step_slope: Regression coefficient of `ln z` on `y`.
        chain_slope: Regression coefficient of the next layer's `y` on this one's.
        chain_variance: Variance of the next layer's `y` given this one's.
        covariance: Covariance of `ln z` and the next layer's `y` given this one's.
        flat: Probability that a unit has slope 0.
        x_df: `E[x^2 f'^2] / m1`.
        alignment: Share of `t - 1` that passes through the layer.
        aligned: Factor of `t - 1` of the layer above in the mean of `ln z`.
        skewed: Factor of `x_df - 1` of the layer above in the mean of `ln z`.
    """

    mean_y: Array
    var_y: Array
    step_mean: Array
    step_variance: Array
    step_slope: Array
    chain_slope: Array
    chain_variance: Array
    covariance: Array
    flat: Array
    x_df: Array
    alignment: Array
    aligned: Array
    skewed: Array


class LayerTable:
    """Interpolates what a layer does, for one activation, width and distribution.

    Mean and variance of a layer's `y` may have any shape, the same for both.

    Args:
        activation: The activation.
        width: Units of a layer.
        distribution: Distribution of the kernels.
    """

    def __init__(self, activation: Activation, width: int, distribution: Distribution) -> None:
        moments = moment_table(activation)
        y, m = moments.grid, moments.at_grid
        step = layer_step(m, width, distribution)
        columns = (
            step.chain_mean,
            step.chain_variance,
            step.step_mean,
            step.step_variance,
            step.covariance,
            m.flat,
            m.x_df,
            m.alignment,
            step.aligned,
            step.skewed,
        )
        self._all = CubicSpline(y, np.stack(columns, axis=-1))
        # The first two columns alone, and with their derivatives
        cubic = self._all.c[..., :2]
        self._chain = CubicSpline.construct_fast(cubic, self._all.x)
        quadratic = np.concatenate([0.0 * cubic[:1], cubic[:3] * np.array([3.0, 2.0, 1.0])[:, None, None]])
        self._linear_chain = CubicSpline.construct_fast(
            np.concatenate([cubic, quadratic], axis=-1), self._all.x
        )
        # Beyond the grid E f^2 and m1 continue as powers of q: their logarithms as straight lines.
        self._lowest, self._highest = moments.lowest, moments.highest
        self._outer_slopes = moments.outer_slopes

    def advance(self, mean_y: Array, var_y: Array) -> tuple[Array, Array]:
        """Returns mean and variance of the next layer's `y`, without the gain."""
        values = self._evaluate(self._chain, _at_nodes(mean_y, np.sqrt(var_y)))
        mean, variance = values[..., 0], values[..., 1]
        next_mean = mean @ WEIGHTS
        # The law of total variance
        return next_mean, (mean - next_mean[..., None]) ** 2 @ WEIGHTS + variance @ WEIGHTS

    def linearize(self, mean_y: Array, var_y: Array) -> tuple[Array, Array]:
        """Returns what `advance` does along a new first axis, and its derivatives along two.

        The derivatives have the shape (2, 2, ...): those of mean and variance, by mean and by variance.
        """
        std_y = np.sqrt(var_y)
        mean, variance, *slopes = np.moveaxis(
            self._evaluate(self._linear_chain, _at_nodes(mean_y, std_y)), -1, 0
        )
        next_mean = mean @ WEIGHTS
        away = mean - next_mean[..., None]
        by_node = np.stack([slopes[0], 2.0 * away * slopes[0] + slopes[1]])
        # A node is at `mean + std * node`, and d std / d variance = 1 / (2 std).
        by_mean = by_node @ WEIGHTS
        by_variance = by_node @ _MEAN_AND_COVARIANCE[1] / np.maximum(2.0 * std_y, 1e-9)
        after = np.stack([next_mean, away**2 @ WEIGHTS + variance @ WEIGHTS])
        return after, np.stack([by_mean, by_variance], axis=1)

    def describe(self, mean_y: Array, var_y: Array) -> Layer:
        """Returns all that the backward pass needs of layers with this mean and variance of `y`."""
        std_y = np.sqrt(var_y)
        y = _at_nodes(mean_y, std_y)
        inside = self._clip(y)
        values = self._all(inside)
        if inside is not y:
            values[..., (0, 2)] += self._continue(y, inside)
        mean, covariance = np.moveaxis(_MEAN_AND_COVARIANCE @ values, -2, 0)
        # Regression coefficients on y are Cov(., y) / Var y; in the first layer y does not vary.
        slope = covariance / np.where(std_y > 0, std_y, np.inf)[..., None]
        return Layer(
            mean_y=mean_y,
            var_y=var_y,
            step_mean=mean[..., 2],
            step_variance=mean[..., 3],
            step_slope=slope[..., 2],
            chain_slope=slope[..., 0],
            chain_variance=mean[..., 1],
            covariance=mean[..., 4],
            flat=mean[..., 5],
            x_df=values[..., 6],
            alignment=values[..., 7],
            aligned=values[..., 8],
            skewed=values[..., 9],
        )

    def _evaluate(self, chain: CubicSpline, y: Array) -> Array:
        """Returns the columns of `chain` at `y`, the first of them continued beyond the grid."""
        inside = self._clip(y)
        values = np.asarray(chain(inside))
        if inside is not y:
            values[..., 0] += self._continue(y, inside)[..., 0]
        return values

    def _clip(self, y: Array) -> Array:
        """Returns `y` within the grid: the array itself if all of it is."""
        if self._lowest <= y.min() and y.max() <= self._highest:
            return y
        return np.clip(y, self._lowest, self._highest)

    def _continue(self, y: Array, inside: Array) -> Array:
        """Returns what `ln E f^2` and `ln m1` gain from the edge of the grid to `y`, along a last axis."""
        beyond = y - inside
        low, high = self._outer_slopes
        return np.where((beyond < 0.0)[..., None], low, high) * beyond[..., None]


def _at_nodes(mean_y: Array, std_y: Array) -> Array:
    """Returns the nodes of the Gauss-Hermite rule for a normal `y`, along a last axis."""
    return mean_y[..., None] + std_y[..., None] * NODES


@cache_by_value(maxsize=64)
def layer_table(activation: Activation, width: int, distribution: Distribution) -> LayerTable:
    """Returns the `LayerTable` of the arguments, built at its first use."""
    return LayerTable(activation, width, distribution)
