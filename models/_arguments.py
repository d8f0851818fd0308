"""Checks of arguments that the builders of networks share."""

from __future__ import annotations

from typing import TypeAlias

import keras

from keras_rwinit._keras.types import Initializer
from keras_rwinit._memory import check_fits

__all__ = [
    "DType",
    "check_excluded",
    "check_parameters_fit",
    "computes_in_float16",
    "count_parameters",
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
    # `deep_autoencoder` has the default "normal", which cannot be told from "normal" passed by the user.
    if distribution not in (None, "normal"):
        given.append("distribution")
    if given:
        raise ValueError(
            f"{', '.join(given)}: these belong to the random-walk initializer that "
            "`kernel_initializer` replaces. Give one or the other. "
            f"Received: kernel_initializer={kernel_initializer!r}"
        )


def computes_in_float16(dtype: DType) -> bool:
    """Returns whether layers of a dtype or policy compute in float16."""
    return bool(keras.dtype_policies.get(dtype).compute_dtype == "float16")


def count_parameters(depth: int, width: int, inputs: int, classes: int) -> int:
    """Returns the number of weights and biases of `deep_mlp(depth, width)`, without building it.

    Example:
        >>> count_parameters(1000, 64, 64, 10)
        4160650
    """
    # Each unit has a bias beside its weights.
    hidden = (inputs + 1) * width + (depth - 1) * (width + 1) * width
    return hidden + (width + 1) * classes
