"""Whether float16 can hold the numbers of a very deep network, said before it trains."""

from __future__ import annotations

import math
import warnings

import numpy as np

from keras_rwinit.theory import predict_walk
from keras_rwinit.theory._mean_field import mean_field_walk
from keras_rwinit.theory.activations import Activation
from keras_rwinit.theory.distributions import resolve_distribution

__all__ = ["warn_where_float16_is_too_narrow"]

_DEVIATIONS = 3.0
_LARGEST_ENTRY = math.log(4.0)  # of a layer, over its root mean square
_TOP = math.log(float(np.finfo(np.float16).max))
_BOTTOM = math.log(float(np.finfo(np.float16).smallest_normal))


def warn_where_float16_is_too_narrow(
    activation: Activation, width: int, depth: int, gain: float, distribution: str
) -> None:
    r"""Warns where the walk may leave float16: three standard deviations, and entries of four times the mean.

    The gradient's scale is free, loss scaling chooses it, so that its log-norm may range over
    `ln(65504 / 6e-5) - ln 4` = 19.4 nats from its smallest layer to its largest. The activations start at
    a root mean square of one and have `ln 65504 - ln 4` = 9.7 nats to either side.
    """
    with np.errstate(all="ignore"):
        walk = predict_walk(activation, width, depth, gain, distribution)
        law = resolve_distribution(distribution)
        forward = mean_field_walk(activation, np.array([gain]), width, depth, law)
    level, noise = forward.log_variance[0] / 2.0, forward.fluctuation[0] / 2.0
    needs = {
        "gradient": (float(np.ptp(walk.mean)) + _DEVIATIONS * float(walk.std[0]), _TOP - _BOTTOM),
        "activations": (float((np.abs(level) + _DEVIATIONS * noise).max()), _TOP),
    }
    for what, (nats, range_) in needs.items():
        if not nats <= range_ - _LARGEST_ENTRY:
            warnings.warn(
                f"float16 may not hold the {what} of {depth} {activation.name} layers of width {width}: the "
                f"log-norm is predicted to spread by {nats:.3g} nats (three standard deviations), and "
                f"float16 has room for {range_ - _LARGEST_ENTRY:.3g}. Use mixed_bfloat16, a larger width "
                "(keras_rwinit.plan_width), or orthogonal kernels with a saturating activation.",
                UserWarning,
                stacklevel=3,
            )
            return
