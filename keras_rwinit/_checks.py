"""Argument checks shared by every public function: the rule, the value received, the way out."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_count", "check_positive", "check_real", "check_seed"]

_LARGEST = 10**15  # counts enter formulas as floats, which are exact up to 2**53


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Returns `value` as an int; ValueError unless it is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}")
    if int(value) > _LARGEST and name != "seed":
        raise ValueError(
            f"`{name}` must be at most {_LARGEST:,}. Received: a number of {len(str(value)):,} digits"
        )
    return int(value)


def check_positive(name: str, value: Any) -> float:
    """Returns `value` as a float; ValueError unless it is a finite number above zero."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and value > 0.0):
        raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")
    return float(value)


def check_seed(value: Any, rule: str = "an integer or None") -> int | None:
    """Returns a seed as an int, or None; ValueError unless it is an integer or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
        raise ValueError(f"`seed` must be {rule}. Received: seed={value!r}")
    return None if value is None else int(value)


def check_real(name: str, values: ArrayLike) -> NDArray[Any]:
    """Returns `values` as an array; ValueError unless it is non-empty, real and finite."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a rectangular array. Received rows of unequal length: pad or "
            "resample them to one length first."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must hold real numbers. Received: dtype {array.dtype}; convert it, for "
            f"example with `{name}.astype('float32')`."
        )
    if array.size == 0:
        raise ValueError(
            f"`{name}` must hold at least one example with at least one feature. Received: "
            f"shape {array.shape}; check the filter or the path that selected the examples."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        _raise_not_finite(name, array)
    return array


def _raise_not_finite(name: str, array: NDArray[Any]) -> None:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    bad = np.argwhere(~np.isfinite(array))[0]
    first = ", ".join(str(int(index)) for index in bad)
    raise ValueError(
        f"`{name}` must be finite. Received: {nan} NaN and {infinite} infinite values, the first "
        f"at {name}[{first}]; drop those examples or impute the values."
    )
