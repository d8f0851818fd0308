"""Predicts mean and spread of the walk before training, and plans the width that keeps it narrow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_positive, deprecate_positional
from keras_rwinit._limits import check_fits

from ._analytic_gain import NoGainError, analytic_gain, ways_out
from ._checked_walk import checked_spread, checked_walk, expanded_spread
from ._decided_gain import decide_gain, decided_gain
from ._two_slopes import dead_layer_probability, log_step_moments
from .activation import Activation, ActivationLike
from .activation_names import resolve_activation
from .distributions import Distribution, resolve_distribution
from .mirrored import check_mirrored, mirrored_walk

__all__ = ["WalkPrediction", "plan_width", "predict_chain", "predict_walk"]

_WIDEST = 10**7  # the largest width that `plan_width` considers
_BYTES_PER_LAYER = 96  # of a prediction's arrays while they are computed


@dataclass(frozen=True, repr=False)
class WalkPrediction:
    """The predicted walk of the gradient through `depth` hidden layers; `print` it for a summary.

    Args:
        gain: Gain of the kernels.
        mean: Mean of `ln(|delta_d| / |delta_depth|)`, shape (depth,), in nats of `|delta|` (not of
            its square). Entry 0 is the first hidden layer; the last entry is 0.
        std: Standard deviation of the same over networks, same shape and unit; the last entry is 0.
        dead_probability: Probability that some hidden layer passes no gradient at all. `mean` and
            `std` describe the networks in which every layer passes one.

    Example:
        >>> predicted = predict_walk("relu", width=100, depth=101, gain=2**0.5)
        >>> print(f"{predicted.drift:.4f} {predicted.spread:.3f}")
        -0.0127 1.140
    """

    gain: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    dead_probability: float

    @property
    def drift(self) -> float:
        """Mean step of the walk towards the input, in nats of `|delta|` per layer; 0 at depth 1."""
        return float(self.mean[0] / max(len(self.mean) - 1, 1))

    @property
    def spread(self) -> float:
        """Standard deviation over networks of the log-norm at the first layer, `std[0]`, in nats."""
        return float(self.std[0])

    def __str__(self) -> str:
        dead = f", {self.dead_probability:.1%} of networks dead" if self.dead_probability >= 5e-4 else ""
        return (
            f"gain {self.gain:.5f}, {len(self.mean):,} hidden layers: first over last gradient "
            f"{self.mean[0]:+.2f} ± {self.spread:.2f} nats, drift {self.drift:+.5f} nats per layer{dead}"
        )

    def __repr__(self) -> str:
        return f"<WalkPrediction: {self}>"


@deprecate_positional("gain", "distribution")
def predict_walk(
    activation: ActivationLike,
    width: int,
    depth: int,
    *,
    gain: float | None = None,
    distribution: str = "normal",
) -> WalkPrediction:
    r"""Predicts mean and standard deviation of the gradient's log-norm at every layer, before training.

    Each step is `ln|delta_d| = ln|delta_{d+1}| + ln g + (ln z_d) / 2`, equation (step) of the theory page.
    The mean is the sum of the steps' means. For activations of two slopes the variance is the sum of their
    variances `Var(ln z) / 4` (about 5 / (4 width) per layer for relu, 1 / (2 width) for linear). Mean and
    standard deviation are then equation (prediction) of the theory page. It is exact at every width with
    normal and orthogonal kernels. For all other activations both are of first order in 1 / width and include
    the fluctuation of the pre-activations' variance from network to network. Below width 64 and at more than
    width^2 / 20 layers, and where the gradient lines up with the pre-activations, 50 to 500 simulated
    networks check them. If the means differ by more than a quarter of the spread, the spreads by more than
    a quarter, or the shares of dead networks by more than 0.05, the prediction is the simulation's.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        width: Units of a hidden layer, at least 1.
        depth: Number of hidden layers, at least 1.
        gain: Gain of the kernels. `None`: `keras_rwinit.gain` of the other arguments.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.

    Returns:
        A `WalkPrediction`.

    Raises:
        ValueError: An argument is out of range or unknown, or `gain` is None and none exists.

    Warns:
        UserWarning: `gain` is None, and `keras_rwinit.gain` warns of the one that it computes.

    Example:
        >>> he = predict_walk("relu", width=100, depth=1001, gain=2**0.5)
        >>> print(f"{he.mean[0]:.2f} {he.spread:.2f}")
        -12.71 3.60
        >>> print(f"{abs(predict_walk('relu', width=100, depth=1001).mean[0]):.9f}")
        0.000000000

    References:
        Sussillo & Abbott, arXiv:1412.6558, section 3.
    """
    resolved_activation = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    check_fits(_BYTES_PER_LAYER * depth, f"A prediction of `depth`={depth:,} layers")
    if gain is None:
        gain = decided_gain(resolved_activation, width, max(depth, 2), resolved_distribution)
    else:
        gain = check_positive("gain", gain)
    if resolved_distribution.mirrored:
        check_mirrored(resolved_activation, width)
        mean, std = mirrored_walk(resolved_activation, width, depth, gain)
        return WalkPrediction(gain=gain, mean=mean, std=std, dead_probability=0.0)
    if resolved_activation.slopes is not None:
        return _two_slope_walk(resolved_activation.slopes, width, depth, gain, resolved_distribution)
    mean, std, dead = checked_walk(resolved_activation, width, depth, gain, resolved_distribution)
    return WalkPrediction(gain=gain, mean=mean.copy(), std=std.copy(), dead_probability=dead)


def predict_chain(
    activation: ActivationLike,
    widths: Sequence[int],
    gains: Sequence[float],
    *,
    distribution: str = "normal",
) -> WalkPrediction:
    """Predicts the walk through hidden layers that have a width and a gain each.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        widths: Fan-in of the second to the last hidden layer; the depth is one more. Activations
            without two slopes have a prediction only where all widths are equal.
        gains: Gain of the same layers, all above 0. Activations without two slopes are predicted at
            the mean of the gains.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.

    Returns:
        A `WalkPrediction`, of the geometric mean of the gains for two slopes.

    Raises:
        ValueError: The widths differ and the activation does not have two slopes, or an argument is unknown.

    Example:
        >>> tapering = predict_chain("relu", widths=[100, 80, 60], gains=[1.43, 1.44, 1.45])
        >>> tapering.mean.shape
        (4,)
    """
    resolved_activation = resolve_activation(activation, len(widths) + 1)
    resolved_distribution = resolve_distribution(distribution)
    if resolved_activation.slopes is not None:
        return _two_slope_chain(resolved_activation.slopes, widths, gains, resolved_distribution)
    if len(set(widths)) > 1:
        raise ValueError(
            f"`widths` must be equal for {resolved_activation.name}, which does not have two slopes. "
            f"Received: {list(widths)}"
        )
    if not widths:
        return WalkPrediction(gain=1.0, mean=np.zeros(1), std=np.zeros(1), dead_probability=0.0)
    used, depth = float(np.mean(gains)), len(widths) + 1
    return predict_walk(resolved_activation, widths[0], depth, gain=used, distribution=distribution)


def _two_slope_chain(
    slopes: tuple[float, ...], widths: Sequence[int], gains: Sequence[float], distribution: Distribution
) -> WalkPrediction:
    moments = {width: log_step_moments(slopes, width, distribution) for width in widths}
    log_gains = [np.log(gain) for gain in gains]
    means = [log_gain + moments[width].mean / 2.0 for width, log_gain in zip(widths, log_gains, strict=True)]
    variances = [moments[width].variance / 4.0 for width in widths]
    # A layer passes nothing when all its units are off. The fan-ins are the units of all layers but the last.
    # Of a pair of units one is always on.
    dead = {
        width: 0.0 if distribution.mirrored else dead_layer_probability(slopes, width)
        for width in set(widths)
    }
    log_survival = sum(np.log1p(-dead[width]) for width in widths)
    used = float(np.exp(np.mean(log_gains))) if log_gains else 1.0
    return WalkPrediction(
        gain=used,
        mean=_sum_from_the_last(means),
        std=np.sqrt(_sum_from_the_last(variances)),
        dead_probability=float(-np.expm1(log_survival)),
    )


def _sum_from_the_last(steps: Sequence[float]) -> NDArray[np.float64]:
    """Returns the sum of the steps between each layer and the last one, which has 0."""
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0)


def _two_slope_walk(
    slopes: tuple[float, ...], width: int, depth: int, gain: float, distribution: Distribution
) -> WalkPrediction:
    """Evaluates equation (prediction) of the theory page."""
    log_z = log_step_moments(slopes, width, distribution)
    # Steps are independent and alike: means and variances add up from the last layer to each one.
    steps = np.arange(depth - 1, -1, -1.0)
    dead = -np.expm1(depth * np.log1p(-dead_layer_probability(slopes, width)))
    return WalkPrediction(
        gain=gain,
        mean=steps * (np.log(gain) + log_z.mean / 2.0),
        std=np.sqrt(steps * log_z.variance / 4.0),
        dead_probability=float(dead),
    )


@deprecate_positional("activation", "distribution")
def plan_width(
    depth: int, spread: float, *, activation: ActivationLike = "relu", distribution: str = "normal"
) -> int:
    r"""Returns the smallest width N from which on the gradient's log-norm spreads by at most `spread`.

    The steps of the walk are nearly independent, so that its variance is the sum of theirs,

        spread^2 = (depth - 1) Var(ln z) / 4,

    which is about `5 (depth - 1) / (4 N)` for relu and `(depth - 1) / (2 N)` for a linear network, both with
    normal kernels. The width is searched with the spread of `predict_walk`, at the gain of each width. For
    activations of two slopes this inverts equation (prediction) of the theory page.

    Args:
        depth: Number of hidden layers, at least 1.
        spread: Standard deviation over networks of `ln(|delta_1| / |delta_depth|)`, in nats:
            `predict_walk(...).spread`. Above 0.
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.

    Returns:
        The width. At very small widths `predict_walk(...).dead_probability` matters as well.

    Raises:
        ValueError: An argument is out of range or unknown, or no width up to ten million will do.
        NoGainError: (a ValueError) Wide networks of the activation have no gain at this depth.

    Example:
        >>> plan_width(depth=1000, spread=1.0)
        1253

    References:
        Sussillo & Abbott, arXiv:1412.6558, section 3.
    """
    resolved_activation = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    depth, spread = check_count("depth", depth), check_positive("spread", spread)

    spread_of = functools.cache(functools.partial(_spread, resolved_activation, depth, resolved_distribution))

    def excess(width: int, *, checked: bool = True) -> float:
        """Returns `ln(spread of the width / spread)`; infinite where a network has no gain."""
        found = spread_of(width, checked=checked)
        return math.log(found / spread) if found > 0.0 else -math.inf

    if spread_of(_WIDEST, checked=True) == math.inf:
        raise NoGainError(
            f"No width will do: wide networks of {resolved_activation.name} have no gain at "
            f"`depth`={depth:,} with {distribution} kernels. Fewer layers may do. "
            f"{ways_out(resolved_activation, _WIDEST)}"
        )
    if excess(_WIDEST) > 0.0:
        fewer = "fewer layers" if distribution == "orthogonal" else "fewer layers or orthogonal kernels"
        raise ValueError(
            f"No width up to {_WIDEST:,} keeps the spread of {resolved_activation.name} over "
            f"`depth`={depth:,} layers at or below `spread`={spread:g} nats. "
            f"The widest has {spread_of(_WIDEST, checked=True):.2g}. Allow a larger spread, or use {fewer}."
        )
    # Narrow networks are checked by simulation, which takes a second each: the expansion leads near them.
    low, high = _close_in(functools.partial(excess, checked=False), 0, _WIDEST, ratio=1.1)
    return _close_in(excess, *_bracket(excess, low, high))[1]


def _bracket(excess: Callable[[int], float], low: int, high: int) -> tuple[int, int]:
    """Returns a width whose spread is too large (or 0) and one whose spread is not, near `low` and `high`."""
    step = high - low
    while excess(high) > 0.0:
        low, high, step = high, min(high + step, _WIDEST), 2 * step
    while low > 0 and excess(low) <= 0.0:
        low, high, step = max(low - step, 0), low, 2 * step
    return low, high


def _close_in(excess: Callable[[int], float], low: int, high: int, *, ratio: float = 1.0) -> tuple[int, int]:
    """Returns widths closer to each other, of which the spread is too large at `low` and not at `high`.

    They are neighbors, or of at most the given ratio. The spread falls nearly like width^(-1/2), which leads
    from the widest network to one near the wanted one.
    """
    while high - low > 1 and high > ratio * low:
        guess = _bisect(low, high)
        # From the end that is nearer to the wanted spread
        near = low if low > 0 and excess(low) < -excess(high) else high
        if math.isfinite(excess(near)):
            guess = min(max(round(near * math.exp(2.0 * excess(near))), low + 1), high - 1)
            # Below the wanted width once the guess is near it, so that the interval closes from both sides.
            if guess > 0.97 * high:
                guess = max(low + 1, min(high - 1, high - 2 * (high - guess) - 1))
        for tried in (guess, _bisect(low, high)):
            if low < tried < high:
                low, high = (low, tried) if excess(tried) <= 0.0 else (tried, high)
    return low, high


def _bisect(low: int, high: int) -> int:
    """Returns the middle of an interval of widths, on the logarithmic scale if it is long."""
    return (low + high) // 2 if high < 4 * max(low, 1) else math.isqrt(max(low, 1) * high)


def _spread(
    activation: Activation, depth: int, distribution: Distribution, width: int, *, checked: bool
) -> float:
    """Returns `predict_walk(...).spread`, infinity without a gain, in memory that does not grow with depth.

    Args:
        activation: The activation.
        depth: Number of hidden layers.
        distribution: Distribution of the kernels.
        width: Units of a hidden layer.
        checked: Whether gain and spread of narrow networks are checked by simulation.
    """
    arguments = activation, width, max(depth, 2), distribution
    try:
        gain = decide_gain(*arguments).gain if checked else analytic_gain(*arguments)
    except ValueError as error:  # a mirrored kernel needs a width of 2, too
        if width == _WIDEST and not isinstance(error, NoGainError):
            raise
        return math.inf
    if activation.slopes is not None or distribution.mirrored:
        return predict_walk(
            activation, width, min(depth, 2), gain=gain, distribution=distribution.name
        ).spread * (1.0 if distribution.mirrored else math.sqrt(max(depth - 1, 1)))
    if checked:
        return checked_spread(activation, width, depth, gain, distribution)
    return expanded_spread(activation, width, depth, gain, distribution)
