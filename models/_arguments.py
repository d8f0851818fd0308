"""Checks of arguments that the builders of networks share."""

from __future__ import annotations

import math
from typing import TypeAlias

import keras

from keras_rwinit._checks import check_fits_dtype, check_positive
from keras_rwinit._keras.types import Initializer
from keras_rwinit._limits import check_fits

__all__ = [
    "DType",
    "check_excluded",
    "check_gain",
    "check_parameters_fit",
    "computes_in_float16",
]

DType: TypeAlias = str | keras.DTypePolicy | None
"""A dtype or dtype policy; None is Keras's own."""

# Bytes of one number; other dtypes have 4.
_BYTES = {"float64": 8, "float16": 2, "bfloat16": 2}


def check_parameters_fit(count: int, dtype: DType, what: str) -> None:
    """Raises ValueError if no network of `dtype` can be drawn, or `count` parameters of it exceed the memory.

    Args:
        count: Weights and biases.
        dtype: Dtype or dtype policy.
        what: The network, for the message.
    """
    policy = keras.dtype_policies.get(dtype)
    if isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy):
        # Keras makes quantized kernels of zeros, for weights that are loaded.
        raise ValueError(
            "`dtype` must be a float dtype or a policy of one: call `quantize` of the finished model. "
            f"Received: dtype={policy.name!r}"
        )
    item = policy.variable_dtype if dtype else keras.config.floatx()
    if not keras.backend.is_float_dtype(item):
        raise ValueError(f"`dtype` must be a float dtype or a policy of one. Received: dtype={dtype!r}")
    check_fits(count * _BYTES.get(item, 4), f"{what} has {count:,} parameters, and in {item}")


def check_excluded(
    kernel_initializer: Initializer | str, distribution: str | None, **gains: float | None
) -> None:
    """Raises ValueError if a setting of the random-walk initializer is given beside another initializer.

    Args:
        kernel_initializer: The initializer that replaces the random walk's.
        distribution: Distribution of the kernels; None and `"normal"` count as not given.
        **gains: Gains by the argument's name; None counts as not given.
    """
    given = [name for name, value in gains.items() if value is not None]
    # "normal" was the default once, and is passed along in programs of that time.
    if distribution not in (None, "normal"):
        given.append("distribution")
    if given:
        raise ValueError(
            f"{', '.join(given)}: these belong to the random-walk initializer that "
            "`kernel_initializer` replaces. Give one or the other. "
            f"Received: kernel_initializer={kernel_initializer!r}"
        )


def check_gain(
    name: str, gain: float | None, fan_in: int, dtype: DType, *, factor: float = 1.0
) -> float | None:
    """Returns a gain that a user gave as a float, or None; ValueError unless the kernel's weights fit.

    Args:
        name: Name of the argument. The initializers, which draw later, know each gain as `gain`.
        gain: The gain; None if it is not given.
        fan_in: Fan-in of the kernel.
        dtype: Dtype or dtype policy of the layer.
        factor: Gain of the kernel over the given one.
    """
    if gain is None:
        return None
    gain = check_positive(name, gain)
    weights = str(keras.dtype_policies.get(dtype).variable_dtype)
    check_fits_dtype(name, gain, weights, number=gain * factor / math.sqrt(fan_in))
    return gain


def computes_in_float16(dtype: DType) -> bool:
    """Returns whether layers of a dtype or policy compute in float16."""
    return bool(keras.dtype_policies.get(dtype).compute_dtype == "float16")
