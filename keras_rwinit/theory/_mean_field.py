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
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._backward_pass import carry_back, initial_gradient
from ._layer_table import NODES, WEIGHTS, Layer, layer_step, layer_table
from ._moments import moment_table
from .activation import Activation
from .distributions import Distribution

__all__ = [
    "MISALIGNMENT_LIMIT",
    "MeanFieldWalk",
    "StationaryState",
    "mean_field_walk",
    "stationary_state",
    "unit_step",
]

Array: TypeAlias = NDArray[np.float64]

_MIDDLE = len(NODES) // 2

_STATIONARY_STEPS = 50  # of the iteration for a stationary state; most need two to four
_UNDAMPED_STEPS = 10  # of these; wide hard_tanh would go to and fro between two states

MISALIGNMENT_LIMIT = 2.0
"""Largest `|t - 1|` at which the drift was found, by simulation, to agree with the expansion."""


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


def mean_field_walk(
    activation: Activation, gains: Array, width: int, depth: int, distribution: Distribution
) -> MeanFieldWalk:
    """Returns the walk of `depth` layers at each of `gains`, for inputs of unit variance."""
    log_gain2 = 2.0 * np.log(np.asarray(gains, np.float64))
    layers = _forward(activation, log_gain2, width, depth, distribution)
    last = Layer(*(field[-1] for field in layers))
    before = Layer(*(field[:-1] for field in layers))
    steps, _ = carry_back(before, log_gain2, initial_gradient(last))
    # The last layer takes no step.
    slope = np.append(steps.slope, np.zeros((1, len(log_gain2))), axis=0)
    variance = _sum_from_the_last(steps.noise) + slope**2 * layers.var_y
    misalignment = np.append(steps.misalignment, [np.abs(last.x_df - 1.0) @ WEIGHTS], axis=0)
    # The walk is of |delta|, half the log of its square.
    return MeanFieldWalk(
        mean=_sum_from_the_last(steps.mean).T / 2.0,
        std=np.sqrt(np.maximum(variance, 0.0)).T / 2.0,
        log_variance=layers.mean_y.T,
        fluctuation=np.sqrt(layers.var_y).T,
        misalignment=misalignment.T,
        dead=np.clip(layers.flat, 0.0, 1.0).T ** width,
    )


def _sum_from_the_last(steps: Array) -> Array:
    """Returns the sum of the steps between each layer and the last one, which has 0."""
    sums = np.cumsum(steps[::-1], axis=0)[::-1]
    return np.append(sums, np.zeros((1, steps.shape[1])), axis=0)


def _forward(
    activation: Activation, log_gain2: Array, width: int, depth: int, distribution: Distribution
) -> Layer:
    """Follows mean and variance of `y` through the layers; they are the first axis of the fields."""
    table = layer_table(activation, width, distribution)
    state = log_gain2, np.zeros_like(log_gain2)
    states = [state]
    while len(states) < depth:
        mean_y, var_y = table.advance(*state)
        following = mean_y + log_gain2, var_y
        change = max(np.abs(after - before).max() for after, before in zip(following, state, strict=True))
        if change < 1e-13:  # every further layer repeats the last one
            break
        state = following
        states.append(state)
    layers = table.describe(*np.stack(states, axis=1))
    repeats = np.append(np.ones(len(states) - 1, int), depth - len(states) + 1)
    return layers if len(states) == depth else Layer(*(np.repeat(field, repeats, 0) for field in layers))


def unit_step(activation: Activation, width: int, distribution: Distribution) -> float:
    """Returns the mean of `ln z` at unit-variance pre-activations and a gradient not aligned with them."""
    step = layer_step(moment_table(activation)(np.zeros((1, 1))), width, distribution)
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
    moving = np.arange(len(log_variance))  # those whose variance still changes
    for number in range(_STATIONARY_STEPS):
        before = var_y[moving]
        m = table(log_variance[moving, None] + np.sqrt(before)[:, None] * NODES)
        step = layer_step(m, width, distribution)
        kept = (step.chain_mean - (step.chain_mean @ WEIGHTS)[:, None]) ** 2 @ WEIGHTS / before
        after = step.chain_variance @ WEIGHTS / np.maximum(1.0 - kept, 1e-6)
        stable[moving] &= (kept < 1.0) & (after < 1.0)
        if number >= _UNDAMPED_STEPS:
            after = np.sqrt(before * after)
        var_y[moving] = np.where(stable[moving], after, 1.0)
        # An error of the variance is one of the log-gain, in nats, of the same order.
        moving = moving[np.abs(var_y[moving] - before) > 1e-13]
        if not moving.size:
            break
    m = table(log_variance[:, None] + np.sqrt(var_y)[:, None] * NODES)
    step = layer_step(m, width, distribution)
    chain = step.chain_mean @ WEIGHTS
    log_gain2 = log_variance - chain
    # The alignment's own fixed point, at the mean of y.
    x_df, alignment = m.x_df[:, _MIDDLE] - 1.0, m.alignment[:, _MIDDLE]
    stable &= alignment < 1.0
    aligned = x_df / np.where(stable, 1.0 - alignment, 1.0)
    drift = log_gain2 + step.step_mean @ WEIGHTS
    stable &= np.abs(aligned) <= MISALIGNMENT_LIMIT
    drift += aligned * step.aligned[:, _MIDDLE] + x_df * step.skewed[:, _MIDDLE]
    return StationaryState(log_gain=log_gain2 / 2.0, drift=drift / 2.0, stable=stable)
