"""Checks that the builders share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_rwinit._checks import check_count
from keras_rwinit._memory import check_fits

__all__ = ["check_excluded", "check_input_shape", "check_parameters_fit", "count_parameters"]

_BYTES = {"float64": 8, "float16": 2, "bfloat16": 2}


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input as a tuple, or a ValueError."""
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str) or not input_shape:
        raise ValueError(f"`input_shape` must be a tuple of sizes, as in (784,). Received: {input_shape!r}")
    return tuple(check_count("input_shape", size) for size in input_shape)


def check_parameters_fit(count: int, dtype: Any, what: str) -> None:
    """Raises ValueError if `dtype` is not a float's, or `count` parameters of it exceed the memory.

    Args:
        count: Weights and biases.
        dtype: Dtype or policy, as the builders take it.
        what: The network, for the message.
    """
    item = keras.dtype_policies.get(dtype).variable_dtype if dtype else keras.config.floatx()
    if not keras.backend.is_float_dtype(item):
        raise ValueError(f"`dtype` must be a float dtype or a policy of one. Received: dtype={dtype!r}")
    check_fits(count * _BYTES.get(item, 4), f"{what} has {count:,} parameters, and in {item}")


def check_excluded(kernel_initializer: Any, distribution: str, **gains: float | None) -> None:
    """Raises ValueError if a setting of the random walk's is given.

    Args:
        kernel_initializer: What is to draw the kernels in the random walk's place.
        distribution: As the builders take it; `"normal"` is not given.
        **gains: By the argument's name; None is not given.
    """
    given = [name for name, value in gains.items() if value is not None]
    given += ["distribution"] * (distribution != "normal")
    if given:
        raise ValueError(
            f"{', '.join(given)}: these belong to the random-walk initializer that "
            "`kernel_initializer` replaces. Give one or the other. "
            f"Received: kernel_initializer={kernel_initializer!r}"
        )


def count_parameters(depth: int, width: int, inputs: int, classes: int) -> int:
    """Weights and biases of `deep_mlp(depth, width)`, without building it.

    Example:
        >>> count_parameters(1000, 64, 64, 10)
        4160650
    """
    hidden = (inputs + 1) * width + (depth - 1) * (width + 1) * width
    return hidden + (width + 1) * classes
