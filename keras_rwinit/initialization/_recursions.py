"""Gains of layers that change the signal by another factor than the gradient, so that both are followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from keras_rwinit._keras.layer_kinds import Factor
from keras_rwinit._tracing.signals import Gate
from keras_rwinit.theory import Activation
from keras_rwinit.theory.memo import cache_by_value

from ._moments import slopes_at, values_at

__all__ = ["BranchScale", "Multiplier", "alpha_dropout_gain", "branch_scale"]

Array: TypeAlias = NDArray[np.float64]

_NORMAL = np.linspace(-8.0, 8.0, 321)
_WEIGHTS = np.exp(-0.5 * _NORMAL**2) / np.exp(-0.5 * _NORMAL**2).sum()
_MOST_LAYERS = 300  # followed; a longer chain is taken to be of so many, which bounds the time


class PathMoments(NamedTuple):
    """Mean and mean square of what a path is multiplied with."""

    mean: float
    mean_square: float


@dataclass(frozen=True)
class Multiplier:
    """What a path is multiplied with, by independent factors.

    Args:
        constant: Product of the constants.
        random: Mean square of factors of mean one, such as dropout.
        gates: The gates, with the standard deviation that their pre-activations have for a signal of mean
            square one.
    """

    constant: float
    random: float
    gates: tuple[tuple[Gate, float], ...]

    def moments(self, mean_square: float) -> PathMoments:
        """Returns the moments beside a signal of a mean square."""
        mean, square = self.constant, self.constant**2 * self.random
        for gate, stddev in self.gates:
            values = gate(stddev * (1.0 if gate.normalized else math.sqrt(mean_square)) * _NORMAL)
            mean, square = mean * float(_WEIGHTS @ values), square * float(_WEIGHTS @ values**2)
        return PathMoments(mean, square)


class _Moments(NamedTuple):
    """`E f`, `E f^2` and `E f'^2` of an activation, of units that differ the means."""

    mean: float
    mean_square: float
    slope_mean_square: float


def _moments(activation: Activation, stddev: float) -> _Moments:
    a = stddev * _NORMAL
    values, slopes = values_at(activation, a), slopes_at(activation, a)
    return _Moments(
        float(np.mean([_WEIGHTS @ value for value in values])),
        float(np.mean([_WEIGHTS @ value**2 for value in values])),
        float(np.mean([_WEIGHTS @ slope**2 for slope in slopes])),
    )


@cache_by_value(maxsize=256)
def alpha_dropout_gain(activation: Activation, factor: Factor, layers: int) -> float:
    r"""Returns the factor of the gain that alpha dropout asks for behind a smooth activation.

    With rate r and lowest value p, `m = 1 / (1 + r p^2)` multiplies the mean square of the gradient, while
    the pre-activations' variance goes on as

        q' = g^2 m (E f^2 + r p^2 - 2 r p E f),   E ln z = ln(g^2 m E f'^2)

    A gain that makes up for m alone moves q to where f' is smaller. The factor is the ratio of the gains
    that solve `sum E ln z = 0` with and without the dropout at infinite width (Klambauer et al.,
    arXiv:1706.02515, for the map).

    Args:
        activation: f.
        factor: The dropout's factor, with `dropped_value` p.
        layers: Number of layers of the chain.

    Returns:
        The ratio; `1 / sqrt(m)` where no gain solves the sum.
    """
    rate, p, m = 1.0 - 1.0 / factor.kurtosis, factor.dropped_value, factor.mean_square

    def drift(log_gain: float, start: float, rate: float, m: float) -> float:
        square, q, total = math.exp(2.0 * log_gain), start, 0.0
        for _ in range(min(max(layers, 2), _MOST_LAYERS) - 1):
            found = _moments(activation, math.sqrt(q))
            total += math.log(max(square * m * found.slope_mean_square, 1e-300))
            q = square * m * (found.mean_square + rate * p * (p - 2.0 * found.mean))
            q = min(max(q, 1e-100), 1e100)
        return total

    try:
        # Without dropout the first layer has the variance of the gain itself.
        plain = brentq(lambda log_gain: drift(log_gain, math.exp(2.0 * log_gain), 0.0, 1.0), -3.0, 3.0)
        start = math.exp(2.0 * plain)
        dropped = brentq(lambda log_gain: drift(log_gain, start, rate, m), plain - 3.0, plain + 3.0)
    except ValueError:  # no change of sign
        return 1.0 / math.sqrt(m)
    return math.exp(dropped - plain)


class BranchScale(NamedTuple):
    """What `branch_scale` finds.

    Args:
        scale: Standard deviation of the branch's pre-activations.
        drift: The largest change that is left over all layers, of `ln RMS`, `ln|delta|` or their difference,
            in nats.
    """

    scale: float
    drift: float


def branch_scale(
    activation: Activation, shortcut: Multiplier, branch: Multiplier, layers: int
) -> BranchScale:
    r"""Returns the standard deviation of a branch's pre-activations beside a shortcut that is multiplied.

    A highway layer is `x' = t f(a) + c x` with `a = s W x`, `t` and `c` of independent pre-activations v.
    With entries of W of variance `1 / N`, to leading order

        E x'^2 = E c^2 E x^2 + E t^2 E f^2 + 2 E t E c E f E x
        E |delta_x|^2 = (E c^2 + s^2 E t^2 E f'^2) E |delta_x'|^2
        E |delta_v|^2 ~ E x^2 E |delta_x'|^2

    With f linear one s keeps all three, `s^2 = (1 - E c^2) / E t^2`. If f saturates, the signal falls where
    the gradient is kept; if f has a mean, as ReLU has, the last term of the first line makes the signal grow.
    The returned s makes the largest of the drifts over all layers as small as it gets.

    Args:
        activation: f.
        shortcut: c.
        branch: t.
        layers: Number of such layers in a row.
    """

    def largest_drift(log_scale: float) -> float:
        s, q, mean, signal, gradient = math.exp(log_scale), 1.0, 0.0, 0.0, 0.0
        for _ in range(min(max(layers, 1), _MOST_LAYERS)):
            f = _moments(activation, s * math.sqrt(q))
            c, t = shortcut.moments(q), branch.moments(q)
            before = q
            q = c.mean_square * q + t.mean_square * f.mean_square + 2.0 * t.mean * c.mean * f.mean * mean
            q = min(max(q, 1e-100), 1e100)
            mean = t.mean * f.mean + c.mean * mean
            signal += 0.5 * math.log(q / before)
            gradient += 0.5 * math.log(c.mean_square + s * s * t.mean_square * f.slope_mean_square)
        return max(abs(signal), abs(gradient), abs(gradient - signal))

    kept, passed = shortcut.moments(1.0).mean_square, branch.moments(1.0).mean_square
    center = 0.5 * math.log(max(1.0 - kept, 1e-12) / passed)
    best = _smallest(largest_drift, center - 5.0, center + 3.0)
    return BranchScale(math.exp(best), largest_drift(best))


def _smallest(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns where a function of one minimum, or of few, is smallest."""
    points = np.linspace(low, high, 17)
    best = int(np.argmin([function(float(point)) for point in points]))
    bounds = points[max(best - 1, 0)], points[min(best + 1, len(points) - 1)]
    return float(minimize_scalar(function, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x)
