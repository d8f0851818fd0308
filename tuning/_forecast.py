"""Forecasts from theory how a trial's network behaves, and rules out those that cannot train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import keras
from keras_tuner.errors import FailedTrialError

from keras_rwinit._keras.activations import concrete_activation, theory_activation
from keras_rwinit.models.kernel_defaults import kernel_defaults
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory.float_range import FloatRange, find_range_violation, float_range, predict_norms

from ._point import Point

__all__ = ["TrialForecast", "UntrainableTrialError", "forecast_trial"]

_CERTAIN = 0.9973  # the share of a normal distribution within three standard deviations
_LOSS_SCALE = 2.0**15  # the scale with which Keras's LossScaleOptimizer starts


class UntrainableTrialError(FailedTrialError, ValueError):
    """A trial that theory rules out before it trains.

    `DeepMLPHyperModel.build` raises it. A keras-tuner tuner then marks the trial as failed and goes on.

    Example:
        >>> import keras_tuner
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel((64,), gain_ratio=(0.5, 2.0), width=16, depth=200)
        >>> hp = keras_tuner.HyperParameters()
        >>> hp.Fixed("gain_ratio", 0.5)
        0.5
        >>> try:
        ...     space.build(hp)
        ... except tuning.UntrainableTrialError as error:
        ...     print(error)
        the gradient vanishes: ln|delta| falls by 138 +- 0 nats over 200 layers, and float32 ends at -87
    """


@dataclass(frozen=True)
class TrialForecast:
    """What theory predicts of a trial's network.

    Args:
        gain: Gain of the hidden kernels.
        drift: Mean step of the gradient's log-norm, in nats of `|delta|` per layer.
        spread: Standard deviation of the log-norm over all layers, in nats of `|delta|`.
        reason: Why the network cannot be trained; None if it may be.
    """

    gain: float
    drift: float
    spread: float
    reason: str | None


def forecast_trial(point: Point, dtype: str | None = None) -> TrialForecast:
    r"""Predicts a network's walk and compares it with the range of the dtype in use.

    A network cannot be trained if its gradient or its activations leave the range by three standard
    deviations (see `find_range_violation`), or if with a probability above 0.9973 some layer passes no
    gradient.

    Args:
        point: The network.
        dtype: Dtype or policy of its layers. `None`: Keras's global policy.

    Raises:
        NoGainError: (a ValueError) The activation has no gain at this width and depth.

    Example:
        >>> point = Point(0.5, 64, 400, "tanh", "normal", 1.0, 1.0, 1e-3, "adam")
        >>> print(forecast_trial(point, "float32").reason)
        the gradient vanishes: ln|delta| falls by 221 +- 2 nats over 400 layers, and float32 ends at -87
    """
    return _forecast(point, _range(dtype))


@lru_cache(maxsize=4096)
def _forecast(point: Point, floats: FloatRange) -> TrialForecast:
    activation = theory_activation(concrete_activation(point.activation, point.depth))
    distribution = kernel_defaults(activation, point.width, point.distribution).distribution
    gain = point.gain_ratio * computed_gain(activation, point.width, point.depth, distribution=distribution)
    norms = predict_norms(activation, point.width, point.depth, gain=gain, distribution=distribution)
    walk = norms.gradient
    if walk.dead_probability > _CERTAIN:
        reason: str | None = (
            f"no gradient passes some layer in {walk.dead_probability:.2%} of such networks: width "
            f"{point.width} is too small for {point.depth} layers"
        )
    else:
        reason = find_range_violation(norms, floats)
    return TrialForecast(gain, walk.drift, walk.spread, reason)


def _range(dtype: str | None) -> FloatRange:
    """Returns the range of the dtype in which layers of this dtype or policy compute."""
    policy = keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()
    # Keras scales the loss where the global policy is mixed_float16, whatever the layers' own one.
    scaled = keras.config.dtype_policy().name == "mixed_float16"
    return float_range(str(policy.compute_dtype), _LOSS_SCALE if scaled else 1.0)
