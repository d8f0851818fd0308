"""Decides whether the gradient and the activations of a deep network fit the range of a dtype."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import dtype_limits

from ._long_walk import walk_layers
from .activation import ActivationLike
from .activation_names import resolve_activation
from .distributions import resolve_distribution
from .mirrored import mirrored_level
from .walk import WalkPrediction, predict_walk

__all__ = [
    "FloatRange",
    "NormPrediction",
    "Shortfall",
    "find_range_risk",
    "find_range_violation",
    "float_range",
    "predict_norms",
]

Array: TypeAlias = NDArray[np.float64]

_DEVIATIONS = 3.0
"""Standard deviations to either side of a mean within which 99.73 % of the networks lie."""

_LARGEST_ENTRY = math.log(4.0)
"""Log of a layer's largest entry over its root mean square."""


_VIOLATIONS = {
    ("gradient", "down"): "the gradient vanishes: ln|delta| falls",
    ("gradient", "up"): "the gradient explodes: ln|delta| grows",
    ("activations", "down"): "the activations vanish: their log-norm falls",
    ("activations", "up"): "the activations explode: their log-norm grows",
}


@dataclass(frozen=True)
class FloatRange:
    """The range of a floating-point dtype, as logarithms.

    Args:
        name: Name of the dtype.
        low: Log of the smallest normal number.
        high: Log of the largest number.
    """

    name: str
    low: float
    high: float


def float_range(dtype: str, loss_scale: float = 1.0) -> FloatRange:
    """Returns the range of a dtype for a gradient that is multiplied by `loss_scale`.

    Args:
        dtype: Name of a floating-point dtype, `"bfloat16"` and the float8 ones included.
        loss_scale: Factor that loss scaling puts on the gradient; it lowers the low end.

    Example:
        >>> half = float_range("float16")
        >>> print(f"{half.low:.1f} {half.high:.1f}")
        -9.7 11.1
    """
    smallest, largest = dtype_limits(dtype)
    return FloatRange(name=dtype, low=math.log(smallest) - math.log(loss_scale), high=math.log(largest))


@dataclass(frozen=True)
class NormPrediction:
    """The predicted norms of gradient and activations in a network of `depth` hidden layers.

    Args:
        gradient: The walk of the gradient's log-norm.
        level: Mean over networks of the log of the pre-activations' root mean square, shape (depth,).
        level_std: Standard deviation of the same over networks, shape (depth,).
    """

    gradient: WalkPrediction
    level: Array
    level_std: Array


def predict_norms(
    activation: ActivationLike, width: int, depth: int, *, gain: float, distribution: str = "normal"
) -> NormPrediction:
    """Predicts the norms of gradient and activations; see `predict_walk` for the arguments."""
    resolved = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    with np.errstate(all="ignore"):  # at a gain far from the unbiased one the prediction may overflow
        gradient = predict_walk(resolved, width, depth, gain=gain, distribution=distribution)
        if resolved_distribution.mirrored:
            level = mirrored_level(resolved, width, depth, gain)
            return NormPrediction(gradient=gradient, level=level, level_std=np.zeros(depth))
        forward = walk_layers(resolved, gain, width, depth, resolved_distribution)
    return NormPrediction(
        gradient=gradient,
        level=forward.log_variance[0] / 2.0,
        level_std=forward.fluctuation[0] / 2.0,
    )


class Shortfall(NamedTuple):
    """A quantity that needs more of the range than there is, in nats.

    Args:
        quantity: `"gradient"` or `"activations"`.
        needed: Nats over which the log-norm spreads, three standard deviations included.
        available: Nats that the dtype has for it.
    """

    quantity: str
    needed: float
    available: float


def find_range_risk(norms: NormPrediction, floats: FloatRange) -> Shortfall | None:
    """Returns the first quantity that may leave the range; None if all stay in it with near certainty.

    The walk is taken with three standard deviations, and a layer's largest entry as four times its root
    mean square. The scale of the gradient is free, because loss scaling chooses it, so that its log-norm
    has the whole range from the smallest layer to the largest: `ln(65504 / 6e-5) - ln 4` = 19.4 nats in
    float16. This is equation (floatrange) of the theory page. The activations start at a root mean square of
    one and have `ln 65504 - ln 4` = 9.7 nats to either side.
    """
    walk = norms.gradient
    gradient = float(np.ptp(walk.mean)) + _DEVIATIONS * walk.spread
    activations = float((np.abs(norms.level) + _DEVIATIONS * norms.level_std).max())
    available = {
        "gradient": floats.high - floats.low - _LARGEST_ENTRY,
        "activations": floats.high - _LARGEST_ENTRY,
    }
    for quantity, needed in (("gradient", gradient), ("activations", activations)):
        if not needed <= available[quantity]:  # nan counts as too much
            return Shortfall(quantity=quantity, needed=needed, available=available[quantity])
    return None


def find_range_violation(norms: NormPrediction, floats: FloatRange) -> str | None:
    """Describes the quantity that leaves the range with near certainty; returns None if all may stay in it.

    The gradient is judged at the first hidden layer, relative to the last, and the activations at the last
    hidden layer. Each must be outside the range by three standard deviations.
    """
    walk, depth = norms.gradient, len(norms.level)
    mean, level = float(walk.mean[0]), float(norms.level[-1])
    if not math.isfinite(mean):
        return f"the gradient's log-norm over {depth} layers is beyond all floating-point numbers"
    changes = (("gradient", mean, walk.spread), ("activations", level, float(norms.level_std[-1])))
    for quantity, change, std in changes:
        if change + _DEVIATIONS * std < floats.low:
            direction, end = "down", floats.low
        elif change - _DEVIATIONS * std > floats.high:
            direction, end = "up", floats.high
        else:
            continue
        return (
            f"{_VIOLATIONS[quantity, direction]} by {abs(change):.0f} +- {std:.0f} nats over {depth} layers, "
            f"and {floats.name} ends at {end:.0f}"
        )
    return None
