"""What theory says of a trial before it trains: which ones cannot work, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import ml_dtypes
import numpy as np
from keras_tuner.errors import FailedTrialError

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory import predict_walk
from keras_rwinit.theory._mean_field import mean_field_walk
from keras_rwinit.theory.distributions import resolve_distribution

from ._space import Point

__all__ = ["TrialForecast", "UntrainableTrialError", "forecast_trial"]

_DEVIATIONS = 3.0
_CERTAIN = 0.9973  # what lies within three standard deviations
_LOSS_SCALE = 2.0**15  # that Keras's LossScaleOptimizer starts with


class UntrainableTrialError(FailedTrialError, ValueError):
    """A trial that theory rules out before it trains."""


@dataclass(frozen=True)
class TrialForecast:
    """What to expect of a network.

    Args:
        gain: Of the hidden kernels.
        drift: Mean step of the gradient's log-norm, in nats of `|delta|` a layer.
        spread: Standard deviation of the log-norm over all layers, in nats of `|delta|`.
        reason: Why the network cannot be trained; None if it may be.
    """

    gain: float
    drift: float
    spread: float
    reason: str | None


def forecast_trial(point: Point, dtype: str | None = None) -> TrialForecast:
    r"""The walk that `predict_walk` predicts, held against the range of the dtype in use.

    Hopeless is a network whose gradient, three standard deviations to the good, has still left the
    dtype's range on its way to the first layer (`ln|delta|` relative to the last layer below the log of the
    smallest normal number or above that of the largest), whose activations have on their way to the
    last, or in which some layer passes no gradient with a probability above 0.9973.

    Args:
        point: The network.
        dtype: Dtype or policy of its layers. `None`: Keras's global policy.

    Raises:
        NoGainError: (a ValueError) The activation has no gain at this width and depth.

    Example:
        >>> point = Point(0.5, 64, 400, "tanh", "normal", 1.0, 1.0, 1e-3, "adam")
        >>> print(prognosis(point, "float32").reason)
        the gradient vanishes: ln|delta| falls by 221 +- 2 nats over 400 layers, and float32 ends at -87
    """
    return _cached(point, *_range(dtype))


@lru_cache(maxsize=4096)
def _cached(point: Point, low: float, high: float, name: str) -> TrialForecast:
    activation, depth = theory_activation(point.activation), point.depth
    gain = point.gain_ratio * computed_gain(activation, point.width, depth, point.distribution)
    law = resolve_distribution(point.distribution)
    with np.errstate(all="ignore"):  # far from the optimum the prediction may leave the floats itself
        walk = predict_walk(activation, point.width, depth, gain, point.distribution)
        forward = mean_field_walk(activation, np.array([gain]), point.width, depth, law)
    mean, spread = float(walk.mean[0]), float(walk.std[0])
    reason = None
    if walk.dead_probability > _CERTAIN:
        reason = (
            f"no gradient passes some layer in {walk.dead_probability:.2%} of such networks: width "
            f"{point.width} is too small for {depth} layers"
        )
    elif not math.isfinite(mean):
        reason = f"the gradient's log-norm over {depth} layers is beyond all floating-point numbers"
    elif mean + _DEVIATIONS * spread < low:
        reason = (
            f"the gradient vanishes: ln|delta| falls by {-mean:.0f} +- {spread:.0f} nats over {depth} "
            f"layers, and {name} ends at {low:.0f}"
        )
    elif mean - _DEVIATIONS * spread > high:
        reason = (
            f"the gradient explodes: ln|delta| grows by {mean:.0f} +- {spread:.0f} nats over {depth} "
            f"layers, and {name} ends at {high:.0f}"
        )
    else:
        level = float(forward.log_variance[0, -1]) / 2.0
        noise = float(forward.fluctuation[0, -1]) / 2.0
        if level - _DEVIATIONS * noise > high:
            reason = (
                f"the activations explode: their log-norm grows by {level:.0f} +- {noise:.0f} nats over "
                f"{depth} layers, and {name} ends at {high:.0f}"
            )
        elif level + _DEVIATIONS * noise < low:
            reason = (
                f"the activations vanish: their log-norm falls by {-level:.0f} +- {noise:.0f} nats over "
                f"{depth} layers, and {name} ends at {low:.0f}"
            )
    return TrialForecast(gain, walk.drift, spread, reason)


def _range(dtype: str | None) -> tuple[float, float, str]:
    """Logs of the smallest normal and of the largest number of the dtype computed in, and its name."""
    own = keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()
    name = str(own.compute_dtype)
    info: Any = ml_dtypes.finfo(name)  # type: ignore[no-untyped-call]
    low, high = math.log(float(info.smallest_normal)), math.log(float(info.max))
    if keras.config.dtype_policy().name == "mixed_float16":  # Keras scales the loss of such models
        low -= math.log(_LOSS_SCALE)
    return low, high, name
