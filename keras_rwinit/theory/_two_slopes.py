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

An orthogonal kernel keeps the length of `W^T u`: its step is the normal one less the step of a linear
layer, whose `ln z` is that of a chi-square variable over its degrees of freedom.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

from .distributions import Distribution

__all__ = ["LogStepMoments", "log_step_moments"]

_SPACING = 1.0 / 16.0


class LogStepMoments(NamedTuple):
    """Mean and variance of `ln z`, in nats of the squared norm."""

    mean: float
    variance: float


@lru_cache(maxsize=4096)
def log_step_moments(slopes: tuple[float, float], width: int, distribution: Distribution) -> LogStepMoments:
    """Returns mean and variance of `ln z`, given that at least one unit has a slope other than zero.

    Args:
        slopes: Slope below and above zero, not both zero.
        width: Fan-in of the kernel.
        distribution: Distribution of the kernel.

    Returns:
        `E ln z` and `Var ln z`, in nats of the squared norm.
    """
    low, high = sorted(slope * slope for slope in slopes)
    if high == 0.0:
        raise ValueError("An activation whose slopes are both 0 passes no gradient, at any gain.")
    mean, variance = _normal_moments(low / high, width)
    mean += float(np.log(high))
    if distribution.mirrored:
        # Each step is the same; see `mirrored`.
        return LogStepMoments(mean=2.0 * float(np.log(abs(sum(slopes)))) - float(np.log(2.0)), variance=0.0)
    if distribution.orthogonal:
        mean -= _log_chi_square_mean(width)
        variance = max(variance - float(special.polygamma(1, width / 2)), 0.0)
    elif distribution.excess_kurtosis:
        # Entries of excess kurtosis c give (W^T u)_i the excess kurtosis c * sum u_j^4, and sum u_j^4 is
        # about 3 / active for `active` = width / k units. The denominator differs from active^2 by terms
        # of third order in 1 / width, chosen so that the shift does not overshoot at the smallest widths.
        k = 2.0 * (low * low + high * high) / (low + high) ** 2
        active = max(width / k, 1.0)
        shift = 3.0 * distribution.excess_kurtosis / ((active + 1.0) * (active + 3.0))
        mean -= shift / 2.0
        variance += shift
    return LogStepMoments(mean, variance)


def _log_chi_square_mean(width: int) -> float:
    """Returns `E ln(X / width)` for a chi-square variable X with `width` degrees of freedom."""
    return float(special.digamma(width / 2) - np.log(width / 2))


def _normal_moments(ratio: float, width: int) -> LogStepMoments:
    """Returns mean and variance of `ln z` for normal weights and slopes of squares `ratio` <= 1 and 1."""
    # Nodes of the trapezoidal rule, from where the integrands are below rounding to where they are again.
    scale = width * (1.0 + ratio) / 2.0
    upper = 90.0 + (float(-np.log(ratio)) if ratio > 0 else 0.0)
    s = np.arange(-50.0, upper, _SPACING)
    t = np.exp(s) / scale
    # phi - 1, without cancellation: at large widths phi is within 1/width of one where it matters.
    phi_minus_1 = 0.5 * np.expm1(-0.5 * np.log1p(2.0 * t))
    phi_minus_1 += 0.5 * np.expm1(-0.5 * np.log1p(2.0 * ratio * t))
    with np.errstate(divide="ignore"):  # phi below 1e-16 counts as 0, and log 0 is the right limit
        survival = np.exp(width * np.log1p(phi_minus_1))
    if ratio == 0.0:
        # Given that not all units are off: with those networks X would be 0 and its logarithm infinite.
        dead = 0.5**width
        survival = (survival - dead) / (1.0 - dead)
    # Frullani's integrals of the module's text, with c = scale.
    difference = survival - np.exp(-np.exp(s))
    mean = -_SPACING * float(difference.sum())
    second = _SPACING * float((2.0 * s * difference).sum()) - 2.0 * np.euler_gamma * mean
    return LogStepMoments(mean=mean + float(np.log(scale / width)), variance=second - mean * mean)
