r"""Mean and variance of the walk for smooth activations, to first order in 1 / width, without sampling.

Let `n` be the width, `y = ln q` the log-variance of a layer's pre-activations `a`, and `x = a / sqrt(q)`,
which is standard normal. The moments `m1`, `k` and others are defined in `_moments`. Three quantities
travel through the layers:

**The forward chain.** `q_1 = gain^2` for inputs of unit variance and `q_{d+1} = gain^2 |f(a_d)|^2 / n`.
Given `q_d` the pre-activations are independent normal variables, so `y` is a Markov chain with noise
of order 1 / n: `Var(y' | y) = (E f^4 / (E f^2)^2 - 1) / n`, and `E(y' | y) = ln(gain^2 E f^2)` less half
that variance. It is followed as a normal variable (its mean and variance, with a seven-point
Gauss-Hermite rule for the expectations), because near criticality its fluctuations cause most of the
walk's spread and much of its drift.

**The step.** `z_d / m1` given `q_d` has mean one and variance `v = (3 k - 1) / n`. The mean and variance of
its logarithm are taken to be those of a gamma variable: `psi(1/v) - ln(1/v)` and `psi1(1/v)`, exact for a
linear layer. The noise of the chain is treated in the same way.

**The alignment** `t_d = n (a_d . delta_d)^2 / (|a_d|^2 |delta_d|^2)` of the gradient with the
pre-activations. Back-propagation carries it on, because `h . (W^T delta) = a . delta`. It starts at
`E[x^2 f'^2] / m1`, obeys `t_d = E[x^2 f'^2] / m1 + (t_{d+1} - 1) E[x f f']^2 / (E f^2 m1)`, and adds
`(t_{d+1} - 1) E[f^2 f'^2] / (E f^2 m1 n)` to the mean of `ln z_d`. For two slopes it stays at one.

Orthogonal kernels fix the lengths of `W h` and `W^T delta`: the fluctuations that the lengths account for
are projected out of the step and of the chain. Entries with an excess kurtosis `c` add the Edgeworth
terms of order `c / n`. Sussillo & Abbott (arXiv:1412.6558) stop at `ln m1`; the other terms are derived in
this package and tested against simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ._moments import Moments, MomentTable, moment_table
from .activation import Activation
from .distributions import Distribution

__all__ = [
    "MISALIGNMENT_LIMIT",
    "WEIGHTS",
    "Layer",
    "MeanFieldWalk",
    "StationaryState",
    "follow_layer",
    "mean_field_walk",
    "stationary_state",
    "unit_step",
]

Array: TypeAlias = NDArray[np.float64]

# Gauss-Hermite rule for expectations over a standard normal variable; its middle node is 0.
_NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
_MIDDLE = len(_NODES) // 2

MISALIGNMENT_LIMIT = 2.0
"""Largest `|t - 1|` at which the drift was found, by simulation, to agree with the expansion."""


def _log_gamma_moments(variance: Array) -> tuple[Array, Array]:
    """Returns mean and variance of `ln G` for a gamma variable G of mean one and the given variance."""
    shape = 1.0 / np.maximum(variance, 1e-12)
    return special.digamma(shape) - np.log(shape), special.zeta(2.0, shape)  # zeta(2, x) = psi1(x)


@dataclass(frozen=True)
class _Step:
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


def _step(m: Moments, width: int, distribution: Distribution) -> _Step:
    """Returns a layer's step from the moments of its activation; see the module's docstring.

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
    return _Step(
        chain_mean=m.log_f2 + edgeworth * m.curvature_f / width + chain_bias,
        chain_variance=chain_variance,
        step_mean=m.log_df2 + edgeworth * m.curvature_df / width + step_bias,
        step_variance=step_variance,
        covariance=covariance / width,
        aligned=aligned / width,
        skewed=excess * m.cross / (2.0 * width),
    )


@dataclass(frozen=True)
class MeanFieldWalk:
    """The walk at each of several gains; all arrays have the shape (gains, depth).

    Args:
        mean: Mean of `ln(|delta_d| / |delta_depth|)`, in nats.
        std: Standard deviation of the same over networks, in nats.
        log_variance: Mean of `ln q_d`, the pre-activations' log-variance.
        fluctuation: Standard deviation of `ln q_d` over networks.
        misalignment: `|t_d - 1|`. The expansion holds while it is of order one.
        dead: Probability that no unit of layer d passes any gradient.
    """

    mean: Array
    std: Array
    log_variance: Array
    fluctuation: Array
    misalignment: Array
    dead: Array


class Layer(NamedTuple):
    """One layer as the forward pass found it, for the backward pass.

    `x_df`, `alignment`, `aligned` and `skewed` depend on `y` and have the shape (gains, nodes). All other
    fields are averages over `y`, of shape (gains,).

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


def mean_field_walk(
    activation: Activation, gains: Array, width: int, depth: int, distribution: Distribution
) -> MeanFieldWalk:
    """Returns the walk of `depth` layers at each of `gains`, for inputs of unit variance."""
    log_gain2 = 2.0 * np.log(np.asarray(gains, np.float64))
    layers = _forward(activation, log_gain2, width, depth, distribution)
    return _backward(layers, log_gain2, width)


def _forward(
    activation: Activation, log_gain2: Array, width: int, depth: int, distribution: Distribution
) -> list[Layer]:
    """Follows mean and variance of `y` through the layers, and records each."""
    table = moment_table(activation)
    mean_y, var_y = log_gain2, np.zeros_like(log_gain2)
    layers: list[Layer] = []
    for _ in range(depth):
        layer, next_mean, next_var = follow_layer(table, mean_y, var_y, log_gain2, width, distribution)
        layers.append(layer)
        settled = max(np.abs(next_mean - mean_y).max(), np.abs(next_var - var_y).max()) < 1e-13
        mean_y, var_y = next_mean, next_var
        if settled:  # every further layer repeats the last one
            break
    return layers + layers[-1:] * (depth - len(layers))


def follow_layer(
    table: MomentTable,
    mean_y: Array,
    var_y: Array,
    log_gain2: Array,
    width: int,
    distribution: Distribution,
) -> tuple[Layer, Array, Array]:
    """Returns one layer, and mean and variance of the next layer's `y`."""
    # The layer's moments at the nodes of the Gauss-Hermite rule for a normal y.
    std_y = np.sqrt(var_y)
    m = table(mean_y[:, None] + std_y[:, None] * _NODES)
    step = _step(m, width, distribution)
    # Regression coefficients on y are Cov(., y) / Var y; in the first layer y does not vary.
    scale = np.where(std_y > 0, std_y, np.inf)
    chain_mean, chain_variance = step.chain_mean @ WEIGHTS, step.chain_variance @ WEIGHTS
    layer = Layer(
        mean_y=mean_y,
        var_y=var_y,
        step_mean=step.step_mean @ WEIGHTS,
        step_variance=step.step_variance @ WEIGHTS,
        step_slope=(step.step_mean * _NODES) @ WEIGHTS / scale,
        chain_slope=(step.chain_mean * _NODES) @ WEIGHTS / scale,
        chain_variance=chain_variance,
        covariance=step.covariance @ WEIGHTS,
        flat=m.flat @ WEIGHTS,
        x_df=m.x_df,
        alignment=m.alignment,
        aligned=step.aligned,
        skewed=step.skewed,
    )
    # The law of total variance gives the next layer's y.
    next_mean = chain_mean + log_gain2
    next_var = (step.chain_mean - chain_mean[:, None]) ** 2 @ WEIGHTS + chain_variance
    return layer, next_mean, next_var


def _backward(layers: list[Layer], log_gain2: Array, width: int) -> MeanFieldWalk:
    """Carries the gradient back over the layers and accumulates mean and variance of its log-norm.

    The alignment follows equation (alignment) of the theory page.

    With `y~` the deviation of `y` from its mean, the walk from layer d is
    `b_d y~_d + sum_{e >= d} (step noise_e + b_{e+1} chain noise_e)`; `slope` is `b_d`.
    """
    shape = len(log_gain2), len(layers)
    mean, std, misalignment = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    total = noise = slope = np.zeros(shape[0])
    x_df_above = layers[-1].x_df
    aligned = x_df_above - 1.0  # t - 1 of the layer above
    misalignment[:, -1] = np.abs(aligned) @ WEIGHTS
    for d in range(len(layers) - 2, -1, -1):
        layer = layers[d]
        # Mean: gain and step, then what the alignment of the layer above adds.
        total = total + log_gain2 + layer.step_mean
        total = total + (aligned * layer.aligned + (x_df_above - 1.0) * layer.skewed) @ WEIGHTS
        # Variance: this layer's noises enter, and `slope` of the layer above becomes this layer's.
        noise = noise + layer.step_variance + 2.0 * slope * layer.covariance + slope**2 * layer.chain_variance
        slope = layer.step_slope + layer.chain_slope * slope
        # Alignment of this layer.
        aligned = layer.x_df - 1.0 + aligned * layer.alignment
        x_df_above = layer.x_df
        # The walk is of |delta|, half the log of its square.
        mean[:, d] = total / 2.0
        std[:, d] = np.sqrt(np.maximum(noise + slope**2 * layer.var_y, 0.0)) / 2.0
        misalignment[:, d] = np.abs(aligned) @ WEIGHTS
    mean_y = np.stack([layer.mean_y for layer in layers], axis=1)
    var_y = np.stack([layer.var_y for layer in layers], axis=1)
    flat = np.stack([layer.flat for layer in layers], axis=1)
    dead = np.clip(flat, 0.0, 1.0) ** width
    return MeanFieldWalk(
        mean=mean,
        std=std,
        log_variance=mean_y,
        fluctuation=np.sqrt(var_y),
        misalignment=misalignment,
        dead=dead,
    )


def unit_step(activation: Activation, width: int, distribution: Distribution) -> float:
    """Returns the mean of `ln z` at unit-variance pre-activations and a gradient not aligned with them."""
    step = _step(moment_table(activation)(np.zeros((1, 1))), width, distribution)
    return float(step.step_mean[0, 0])


@dataclass(frozen=True)
class StationaryState:
    """Fixed points of the forward chain, one entry per log-variance; see `stationary_state`.

    Args:
        log_gain: `ln gain` for which the log-variance is a fixed point.
        drift: Mean of the walk's step there, in nats of `|delta|` per layer.
        stable: Whether the chain and the alignment both return there after a disturbance, with
            fluctuations below one nat.
    """

    log_gain: Array
    drift: Array
    stable: NDArray[np.bool_]


def stationary_state(
    activation: Activation, log_variance: Array, width: int, distribution: Distribution
) -> StationaryState:
    """Returns, for each mean `log_variance` of the pre-activations, the gain that keeps it and the drift."""
    table = moment_table(activation)
    var_y = np.full_like(log_variance, 1e-6)
    stable = np.ones(log_variance.shape, bool)
    # Fixed-point iteration for the variance of y, which noise feeds and the chain's contraction drains.
    for _ in range(30):
        m = table(log_variance[:, None] + np.sqrt(var_y)[:, None] * _NODES)
        step = _step(m, width, distribution)
        chain = step.chain_mean @ WEIGHTS
        kept = (step.chain_mean - chain[:, None]) ** 2 @ WEIGHTS / var_y
        var_y = step.chain_variance @ WEIGHTS / np.maximum(1.0 - kept, 1e-6)
        stable &= (kept < 1.0) & (var_y < 1.0)
        var_y = np.where(stable, var_y, 1.0)
    log_gain2 = log_variance - chain
    # The alignment's own fixed point, at the mean of y.
    x_df, alignment = m.x_df[:, _MIDDLE] - 1.0, m.alignment[:, _MIDDLE]
    stable &= alignment < 1.0
    aligned = x_df / np.where(stable, 1.0 - alignment, 1.0)
    drift = log_gain2 + step.step_mean @ WEIGHTS
    stable &= np.abs(aligned) <= MISALIGNMENT_LIMIT
    drift += aligned * step.aligned[:, _MIDDLE] + x_df * step.skewed[:, _MIDDLE]
    return StationaryState(log_gain=log_gain2 / 2.0, drift=drift / 2.0, stable=stable)
