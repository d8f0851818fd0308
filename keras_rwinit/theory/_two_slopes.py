r"""Exact mean and variance of one step of the walk when the activation has two slopes.

With slopes `s_i` of the `width` units of a layer (each `above` or `below` with probability 1/2, which
symmetric weights make independent of everything else) and a unit vector `u`, one step of
back-propagation multiplies the squared norm by `gain^2 z`, `z = sum_i s_i^2 (W^T u)_i^2`. For normal
weights the terms are independent, so the Laplace transform of `X = width * z` is

    E exp(-t X) = phi(t)^width,   phi(t) = (1/2) sum_s (1 + 2 s^2 t)^(-1/2),

and the moments of `ln X` follow by Frullani's integral: for any c > 0

    E ln(X / c)   = int (exp(-e^s) - phi(e^s / c)^width) ds
    E ln(X / c)^2 = int 2 s (phi(e^s / c)^width - exp(-e^s)) ds - 2 gamma E ln(X / c)

over the real line, gamma being Euler's constant (the second is the variance of `ln G - ln X` for an
independent standard exponential G, of which `phi^width` is the survival function). The integrands are
analytic in the strip |Im s| < pi / 2, where the trapezoidal rule converges geometrically.

Units with slopes of their own (a PReLU layer) have a `phi_i` each, and the product of all takes the place of
`phi^width`: its logarithm is `width` times the mean of `ln phi_i` over the units.

An orthogonal kernel keeps the length of `W^T u`: its step is the normal one less the step of a linear
layer, whose `ln z` is that of a chi-square variable over its degrees of freedom.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keras_rwinit._checks import check_count

from .distributions import Distribution

__all__ = [
    "LogStepMoments",
    "dead_layer_probability",
    "log_chi_square_mean",
    "log_step_moments",
    "paper_log_variance",
]

Array: TypeAlias = NDArray[np.float64]

_SPACING = 1.0 / 16.0


class LogStepMoments(NamedTuple):
    """Mean and variance of `ln z`, in nats of the squared norm."""

    mean: float
    variance: float


@lru_cache(maxsize=4096)
def log_step_moments(slopes: tuple[float, ...], width: int, distribution: Distribution) -> LogStepMoments:
    """Returns mean and variance of `ln z`, given that at least one unit has a slope other than zero.

    The moments of an orthogonal kernel follow from equation (orthogonal) of the theory page.

    Args:
        slopes: Slope below and above zero, not both zero; of units that differ, those of one after another.
        width: Fan-in of the kernel.
        distribution: Distribution of the kernel.

    Returns:
        `E ln z` and `Var ln z`, in nats of the squared norm.
    """
    pairs, count = _count_pairs(slopes)
    low, high = pairs.T
    largest = float(high.max())
    if largest == 0.0:
        raise ValueError("An activation whose slopes are both 0 passes no gradient, at any gain.")
    mean, variance = _normal_moments(pairs / largest, count, width)
    mean += float(np.log(largest))
    if distribution.mirrored:
        # Each step is the same; see `mirrored`.
        return LogStepMoments(mean=2.0 * float(np.log(abs(sum(slopes)))) - float(np.log(2.0)), variance=0.0)
    if distribution.orthogonal:
        mean -= log_chi_square_mean(width)
        variance = max(variance - float(special.polygamma(1, width / 2)), 0.0)
    elif distribution.excess_kurtosis:
        # Entries of excess kurtosis c give (W^T u)_i the excess kurtosis c * sum u_j^4, and sum u_j^4 is
        # about 3 / active for `active` = width / k units. The denominator differs from active^2 by terms
        # of third order in 1 / width, chosen so that the shift does not overshoot at the smallest widths.
        k = 2.0 * float((low * low + high * high) @ count) / float((low + high) @ count) ** 2
        active = max(width / k, 1.0)
        shift = 3.0 * distribution.excess_kurtosis / ((active + 1.0) * (active + 3.0))
        mean -= shift / 2.0
        variance += shift
    return LogStepMoments(mean, variance)


def log_chi_square_mean(width: int) -> float:
    """Returns `E ln(X / width)` for a chi-square variable X with `width` degrees of freedom."""
    return float(special.digamma(width / 2) - np.log(width / 2))


def dead_layer_probability(slopes: tuple[float, ...], width: int) -> float:
    """Returns the probability that no unit of a layer passes a gradient."""
    pairs, count = _count_pairs(slopes)
    return _dead_probability(pairs, count, width)


def _count_pairs(slopes: tuple[float, ...]) -> tuple[Array, Array]:
    """Returns the squares of a unit's slopes, the smaller one first, and the share of the units with them."""
    squares = np.sort(np.square(np.asarray(slopes, np.float64).reshape(-1, 2)), axis=1)
    pairs, number = np.unique(squares, axis=0, return_counts=True)
    return pairs, number / len(squares)


def _dead_probability(pairs: Array, share: Array, width: int) -> float:
    # A unit is off with probability 0, 1/2 or 1.
    off = (pairs == 0.0).mean(axis=1)
    with np.errstate(divide="ignore"):
        return float(np.prod(off ** (width * share)))


def _normal_moments(pairs: Array, share: Array, width: int) -> LogStepMoments:
    """Returns mean and variance of `ln z` for normal weights, given that not all units are off.

    It integrates equation (frullani) of the theory page, with the Laplace transform of
    equation (laplace) of the theory page.

    Args:
        pairs: Squares of the slopes of each kind of unit, the largest of all being 1.
        share: Share of the units that are of each kind.
        width: Number of units.
    """
    # Nodes of the trapezoidal rule, from where the integrands are below rounding to where they are again.
    scale = width * float(pairs.sum(axis=1) @ share) / 2.0
    upper = 90.0 - float(np.log(pairs[pairs > 0.0].min()))
    # phi^width falls like t^(-n / 2), n being the number of units that are never off.
    never_off = width * float(share @ (pairs > 0.0).all(axis=1))
    if 0.0 < never_off < 1.0:
        upper /= never_off
    s = np.arange(-50.0, upper, _SPACING)
    t = np.exp(s) / scale
    log_survival = np.zeros(s.shape)
    for (low, high), part in zip(pairs, share, strict=True):
        # phi - 1, without cancellation: at large widths phi is within 1/width of one where it matters.
        phi_minus_1 = 0.5 * np.expm1(-0.5 * np.log1p(2.0 * high * t))
        phi_minus_1 += 0.5 * np.expm1(-0.5 * np.log1p(2.0 * low * t))
        with np.errstate(divide="ignore"):  # phi below 1e-16 counts as 0, and log 0 is the right limit
            log_survival += width * part * np.log1p(phi_minus_1)
    survival = np.exp(log_survival)
    dead = _dead_probability(pairs, share, width)
    if dead > 0.0:
        # Given that not all units are off: with those networks X would be 0 and its logarithm infinite.
        survival = (survival - dead) / (1.0 - dead)
    # Frullani's integrals of the module's text, with c = scale.
    difference = survival - np.exp(-np.exp(s))
    mean = -_SPACING * float(difference.sum())
    second = _SPACING * float((2.0 * s * difference).sum()) - 2.0 * np.euler_gamma * mean
    return LogStepMoments(mean=mean + float(np.log(scale / width)), variance=second - mean * mean)


def paper_log_variance(width: int) -> float:
    """Returns the paper's fit to `Var ln z` of a ReLU layer, `5 / (max(N, 6) - 4)`, in squared nats.

    `ln z` is the log of the squared norm, so a step of `ln|delta|` has a quarter of this variance.

    Args:
        width: N, at least 1.

    Returns:
        The variance. It is within 4 % of the exact one at width 10 and within 1 % from width 20 up.

    Raises:
        ValueError: `width` is not an integer of at least 1.

    Example:
        >>> round(paper_log_variance(104), 3)
        0.05

    References:
        Sussillo & Abbott, arXiv:1412.6558, section 3.
    """
    return 5.0 / (max(check_count("width", width), 6) - 4.0)
