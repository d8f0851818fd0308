"""Warns, before a very deep network trains, where float16 may not hold its numbers."""

from __future__ import annotations

import warnings

from keras_rwinit.theory import Activation
from keras_rwinit.theory.float_range import find_range_risk, float_range, predict_norms

__all__ = ["warn_where_float16_is_too_narrow"]


def warn_where_float16_is_too_narrow(
    activation: Activation, width: int, depth: int, gain: float, distribution: str
) -> None:
    """Warns if `find_range_risk` finds that gradient or activations may leave the range of float16."""
    norms = predict_norms(activation, width, depth, gain=gain, distribution=distribution)
    shortfall = find_range_risk(norms, float_range("float16"))
    if shortfall is not None:
        quantity, needed, available = shortfall
        warnings.warn(
            f"float16 may not hold the {quantity} of {depth} {activation.name} layers of width {width}: the "
            f"log-norm is predicted to spread by {needed:.3g} nats (three standard deviations), and "
            f"float16 has room for {available:.3g}. Use mixed_bfloat16, a larger width "
            "(keras_rwinit.plan_width), or orthogonal kernels with a saturating activation.",
            UserWarning,
            stacklevel=3,
        )
