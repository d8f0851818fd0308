r"""The walk of a network of smooth activations, to first order in 1 / width, without sampling.

Three quantities travel through the layers, `n` the width, `y = ln q` the log-variance of a layer's
pre-activations, `x = a / sqrt(q)` standard normal:

**The forward chain.** `q_1 = gain^2` for inputs of unit variance and `q_{d+1} = gain^2 |f(a_d)|^2 / n`.
Given `q_d` the pre-activations are independent normal variables, so `y` is a Markov chain with noise
of order 1 / n: `Var(y' | y) = (E f^4 / (E f^2)^2 - 1) / n`, and `E(y' | y) = ln(gain^2 E f^2)` less half
that variance. It is followed as a normal variable (its mean and variance, with a seven-point
Gauss-Hermite rule for the expectations), because near criticality its fluctuations are what most of
the walk's spread and much of its drift come from.

**The step.** `z_d / m1` given `q_d` has mean one and variance `v = (3 k - 1) / n`. Its logarithm is given
the moments of a gamma variable's: `psi(1/v) - ln(1/v)` and `psi1(1/v)`, exact for a linear layer. The
same is done for the noise of the chain.

**The alignment** `t_d = n (a_d . delta_d)^2 / (|a_d|^2 |delta_d|^2)` of the gradient with the
pre-activations, which back-propagation carries through `h . (W^T delta) = a . delta`: it starts at
`E[x^2 f'^2] / m1`, obeys `t_d = E[x^2 f'^2] / m1 + (t_{d+1} - 1) E[x f f']^2 / (E f^2 m1)`, and adds
`(t_{d+1} - 1) E[f^2 f'^2] / (E f^2 m1 n)` to the mean of `ln z_d`. For two slopes it stays at one.

Orthogonal kernels fix the lengths of `W h` and `W^T delta`: the fluctuations that lengths account for
are projected out of the step and of the chain. Entries with an excess kurtosis `c` add the Edgeworth
terms of order `c / n`. Sussillo & Abbott (arXiv:1412.6558) stop at `ln m1`; the rest is this package's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ._moments import Moments, moment_table
from .activations import Activation
from .distributions import Distribution

__all__ = [
    "MISALIGNMENT_LIMIT",
    "MeanFieldWalk",
    "StationaryState",
    "mean_field_walk",
    "stationary_state",
    "unit_step",
]

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_MIDDLE = len(_NODES) // 2

MISALIGNMENT_LIMIT = 2.0
"""Largest `|t - 1|` at which the drift was found, by simulation, to agree with the expansion."""


def _log_gamma_moments(variance: Array) -> tuple[Array, Array]:
    """Mean and variance of `ln G` for a gamma variable G of mean one and the given variance."""
    shape = 1.0 / np.maximum(variance, 1e-12)
    return special.digamma(shape) - np.log(shape), special.zeta(2.0, shape)  # zeta(2, x) = psi1(x)


@dataclass(frozen=True)
class _Step:
    """Law of a layer's step given `y`, the gain left out; every field has the shape of `y`.

    `aligned` multiplies `t - 1` of the layer above, `skewed` its `E[x^2 f'^2] / m1 - 1`.
    """

    chain_mean: Array
    chain_variance: Array
    step_mean: Array
    step_variance: Array
    covariance: Array
    aligned: Array
    skewed: Array


def _step(m: Moments, width: int, law: Distribution) -> _Step:
    excess = law.excess_kurtosis
    spread_f, spread_df = m.kurtosis_f - 1.0, 3.0 * m.kurtosis_df - 1.0
    covariance, aligned = m.cross - 1.0, m.cross
    edgeworth = excess * m.kurtosis_f / 6.0
    if law.orthogonal:
        spread_f = spread_f - (m.x_f - 1.0) ** 2 / 2.0
        spread_df = spread_df - 2.0 - (m.x_df - 1.0) ** 2 / 2.0
        covariance = covariance - (m.x_f - 1.0) * (m.x_df - 1.0) / 2.0
        aligned = aligned - 1.0
        edgeworth = edgeworth - 1.0
    spread_df = spread_df + 3.0 * excess * m.kurtosis_df**2 / width
    chain_bias, chain_variance = _log_gamma_moments(np.maximum(spread_f, 0.0) / width)
    step_bias, step_variance = _log_gamma_moments(np.maximum(spread_df, 0.0) / width)
    return _Step(
        m.log_f2 + edgeworth * m.curvature_f / width + chain_bias,
        chain_variance,
        m.log_df2 + edgeworth * m.curvature_df / width + step_bias,
        step_variance,
        covariance / width,
        aligned / width,
        excess * m.cross / (2.0 * width),
    )


@dataclass(frozen=True)
class MeanFieldWalk:
    """The walk at each of several gains; arrays (gains, depth) unless said otherwise.

    Args:
        mean, std: Of `ln(|delta_d| / |delta_depth|)`, in nats.
        log_variance: Mean of `ln q_d`, the pre-activations' log-variance.
        fluctuation: Standard deviation of `ln q_d` from network to network.
        misalignment: `|t_d - 1|`. The expansion holds while it is of order one.
        dead: Probability that no unit of layer d passes any gradient.
    """

    mean: Array
    std: Array
    log_variance: Array
    fluctuation: Array
    misalignment: Array
    dead: Array


def mean_field_walk(
    activation: Activation, gains: Array, width: int, depth: int, law: Distribution
) -> MeanFieldWalk:
    """The walk of `depth` layers at each of `gains`, for inputs of unit variance."""
    table = moment_table(activation)
    log_gain2 = 2.0 * np.log(np.asarray(gains, np.float64))
    mean_y, var_y = log_gain2, np.zeros_like(log_gain2)
    layers, by_node = [], []
    for _ in range(depth):
        std_y = np.sqrt(var_y)
        m = table(mean_y[:, None] + std_y[:, None] * _NODES)
        step = _step(m, width, law)
        chain, chain_noise = step.chain_mean @ _WEIGHTS, step.chain_variance @ _WEIGHTS
        scale = np.where(std_y > 0, std_y, np.inf)
        layers.append(
            np.stack(
                [
                    mean_y,
                    var_y,
                    step.step_mean @ _WEIGHTS,
                    step.step_variance @ _WEIGHTS,
                    (step.step_mean * _NODES) @ _WEIGHTS / scale,
                    (step.chain_mean * _NODES) @ _WEIGHTS / scale,
                    chain_noise,
                    step.covariance @ _WEIGHTS,
                    m.flat @ _WEIGHTS,
                ]
            )
        )
        by_node.append(np.stack([m.x_df, m.alignment, step.aligned, step.skewed]))
        next_var = (step.chain_mean - chain[:, None]) ** 2 @ _WEIGHTS + chain_noise
        next_mean = chain + log_gain2
        settled = max(np.abs(next_mean - mean_y).max(), np.abs(next_var - var_y).max()) < 1e-13
        mean_y, var_y = next_mean, next_var
        if settled:
            break
    # Once the chain has settled every further layer is the last one again.
    last = len(layers) - 1
    record = np.stack([layers[min(d, last)] for d in range(depth)])
    return _backward(record, [by_node[min(d, last)] for d in range(depth)], log_gain2, width)


def _backward(record: Array, by_node: list[Array], log_gain2: Array, width: int) -> MeanFieldWalk:
    """Carries the gradient back over the recorded layers, accumulating mean and variance.

    With `y~` the deviation of `y` from its mean, the walk from layer d is
    `b_d y~_d + sum_{e >= d} (step noise_e + b_{e+1} chain noise_e)`; `slope` is `b_d`.
    """
    depth, _, count = record.shape
    mean, std = np.zeros((count, depth)), np.zeros((count, depth))
    misalignment = np.zeros((count, depth))
    total = noise = slope = np.zeros(count)
    x_df_above = by_node[-1][0]
    aligned = x_df_above - 1.0
    misalignment[:, -1] = np.abs(aligned) @ _WEIGHTS
    for d in range(depth - 2, -1, -1):
        _, var_y, step, step_noise, step_slope, chain_slope, chain_noise, cov, _ = record[d]
        x_df, alignment, aligned_weight, skewed_weight = by_node[d]
        total = total + log_gain2 + step
        total = total + (aligned * aligned_weight + (x_df_above - 1.0) * skewed_weight) @ _WEIGHTS
        noise = noise + step_noise + 2.0 * slope * cov + slope**2 * chain_noise
        slope = step_slope + chain_slope * slope
        aligned = x_df - 1.0 + aligned * alignment
        x_df_above = x_df
        mean[:, d] = total / 2.0
        std[:, d] = np.sqrt(np.maximum(noise + slope**2 * var_y, 0.0)) / 2.0
        misalignment[:, d] = np.abs(aligned) @ _WEIGHTS
    dead = np.clip(record[:, 8], 0.0, 1.0).T ** width
    return MeanFieldWalk(mean, std, record[:, 0].T, np.sqrt(record[:, 1]).T, misalignment, dead)


def unit_step(activation: Activation, width: int, law: Distribution) -> float:
    """Mean of `ln z` for pre-activations of unit variance, the gradient not aligned with them."""
    step = _step(moment_table(activation)(np.zeros((1, 1))), width, law)
    return float(step.step_mean[0, 0])


@dataclass(frozen=True)
class StationaryState:
    """Where the forward chain stands still, one entry a log-variance; see `stationary_state`.

    Args:
        log_gain: `ln gain` that holds the chain there.
        drift: Mean of the walk's step there, nats of `|delta|` a layer.
        stable: Whether the chain and the alignment both return there after a disturbance, with
            fluctuations below one nat.
    """

    log_gain: Array
    drift: Array
    stable: NDArray[np.bool_]


def stationary_state(
    activation: Activation, log_variance: Array, width: int, law: Distribution
) -> StationaryState:
    """For each mean `log_variance` of the pre-activations: the gain that keeps it, and the drift."""
    table = moment_table(activation)
    var_y = np.full_like(log_variance, 1e-6)
    stable = np.ones(log_variance.shape, bool)
    for _ in range(30):
        m = table(log_variance[:, None] + np.sqrt(var_y)[:, None] * _NODES)
        step = _step(m, width, law)
        chain = step.chain_mean @ _WEIGHTS
        kept = (step.chain_mean - chain[:, None]) ** 2 @ _WEIGHTS / var_y
        var_y = step.chain_variance @ _WEIGHTS / np.maximum(1.0 - kept, 1e-6)
        stable &= (kept < 1.0) & (var_y < 1.0)
        var_y = np.where(stable, var_y, 1.0)
    log_gain2 = log_variance - chain
    x_df, alignment = m.x_df[:, _MIDDLE] - 1.0, m.alignment[:, _MIDDLE]
    stable &= alignment < 1.0
    aligned = x_df / np.where(stable, 1.0 - alignment, 1.0)
    drift = log_gain2 + step.step_mean @ _WEIGHTS
    stable &= np.abs(aligned) <= MISALIGNMENT_LIMIT
    drift += aligned * step.aligned[:, _MIDDLE] + x_df * step.skewed[:, _MIDDLE]
    return StationaryState(log_gain2 / 2.0, drift / 2.0, stable)
