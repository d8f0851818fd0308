r"""The walk before training: its mean and spread, layer by layer, and the width that keeps it narrow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_positive

from ._analytic_gain import analytic_gain
from ._mean_field import mean_field_walk
from ._two_slopes import log_step_moments
from .activations import Activation, ActivationLike, resolve_activation
from .distributions import Distribution, resolve_distribution

__all__ = ["WalkPrediction", "plan_width", "predict_walk"]

_WIDEST = 10**7


@dataclass(frozen=True)
class WalkPrediction:
    """What `predict_walk` says of a network of `depth` hidden layers.

    Args:
        gain: The gain the prediction is for.
        mean: Mean of `ln(|delta_d| / |delta_depth|)`, shape (depth,), in nats of `|delta|` (not of
            its square). Entry 0 is the first hidden layer; the last entry is 0.
        std: Its standard deviation over networks, same shape and unit; the last entry is 0.
        dead_probability: Probability that some hidden layer passes no gradient at all. `mean` and
            `std` are those of the networks where none does.
    """

    gain: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    dead_probability: float

    @property
    def drift(self) -> float:
        """Mean step of the walk towards the input, in nats of `|delta|` a layer; 0 at depth 1."""
        return float(self.mean[0] / max(len(self.mean) - 1, 1))


def predict_walk(
    activation: ActivationLike,
    width: int,
    depth: int,
    gain: float | None = None,
    distribution: str = "normal",
) -> WalkPrediction:
    r"""Mean and standard deviation of the gradient's log-norm at every layer, before training.

    With `ln|delta_d| = ln|delta_{d+1}| + ln g + (ln z_d) / 2`, the mean is the sum of the steps' means
    and, for activations of two slopes, the variance is the sum of their variances `Var(ln z) / 4`
    (about 5 / (4 width) a layer for relu, 1 / (2 width) for linear), exactly at every width. For all
    other activations both are of first order in 1 / width and include the fluctuation of the
    pre-activations' variance from network to network.

    Args:
        activation: Name, NumPy callable or `Activation`; see `resolve_activation`.
        width: Units of a hidden layer, at least 1.
        depth: Number of hidden layers, at least 1.
        gain: The gain in use. `None`: `keras_rwinit.gain` of the other arguments.
        distribution: Of the kernels; see `keras_rwinit.gain`.

    Returns:
        A `WalkPrediction`.

    Raises:
        ValueError: An argument is out of range or unknown, or `gain` is None and none exists.

    Example:
        >>> he = predict_walk("relu", width=100, depth=1001, gain=2**0.5)
        >>> print(f"{he.mean[0]:.2f} {he.std[0]:.2f}")
        -12.71 3.60
        >>> print(f"{abs(predict_walk('relu', width=100, depth=1001).mean[0]):.9f}")
        0.000000000

    References:
        Sussillo & Abbott, arXiv:1412.6558, section 3.
    """
    resolved, law = resolve_activation(activation), resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    if gain is None:
        gain = analytic_gain(resolved, width, max(depth, 2), law)
    else:
        gain = check_positive("gain", gain)
    if resolved.slopes is not None:
        return _two_slope_walk(resolved.slopes, width, depth, gain, law)
    return _mean_field_prediction(resolved, width, depth, gain, law)


def _two_slope_walk(
    slopes: tuple[float, float], width: int, depth: int, gain: float, law: Distribution
) -> WalkPrediction:
    log_z, variance = log_step_moments(slopes, width, law)
    steps = np.arange(depth - 1, -1, -1.0)
    dead = -np.expm1(depth * np.log1p(-(0.5**width))) if 0.0 in slopes else 0.0
    return WalkPrediction(
        gain, steps * (np.log(gain) + log_z / 2.0), np.sqrt(steps * variance / 4.0), float(dead)
    )


def _mean_field_prediction(
    activation: Activation, width: int, depth: int, gain: float, law: Distribution
) -> WalkPrediction:
    walk = mean_field_walk(activation, np.array([gain]), width, depth, law)
    dead = 1.0 - float(np.prod(1.0 - walk.dead[0]))
    return WalkPrediction(gain, walk.mean[0], walk.std[0], dead)


def plan_width(
    depth: int, spread: float, activation: ActivationLike = "relu", distribution: str = "normal"
) -> int:
    """Smallest width from which on the gradient's log-norm spreads by at most `spread`.

    Args:
        depth: Number of hidden layers, at least 1.
        spread: Standard deviation of `ln|delta|` between the first and the last hidden layer, in
            nats: `predict_walk(...).std[0]`. Above 0.
        activation: Name, NumPy callable or `Activation`.
        distribution: Of the kernels; see `keras_rwinit.gain`.

    Returns:
        The width. At very small widths look at `predict_walk(...).dead_probability` as well.

    Raises:
        ValueError: An argument is out of range or unknown, or no width up to ten million will do.

    Example:
        >>> plan_width(depth=1000, spread=1.0)
        1253
    """
    resolved, law = resolve_activation(activation), resolve_distribution(distribution)
    depth, spread = check_count("depth", depth), check_positive("spread", spread)

    def narrow_enough(width: int) -> bool:
        try:
            best = analytic_gain(resolved, width, max(depth, 2), law)
        except ValueError:
            if width >= _WIDEST:
                raise
            return False
        return bool(predict_walk(resolved, width, depth, best, distribution).std[0] <= spread)

    if not narrow_enough(_WIDEST):
        raise ValueError(
            f"No width up to {_WIDEST:,} keeps the spread over {depth} layers at or below "
            f"{spread:g} nats. Allow a larger spread or use fewer layers."
        )
    high = 2
    while not narrow_enough(high):
        high = min(2 * high, _WIDEST)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if narrow_enough(middle) else (middle, high)
    return 1 if high == 2 and narrow_enough(1) else high
