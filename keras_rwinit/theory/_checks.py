"""Argument checks shared by every public function: the rule, the value received, the way out."""

from __future__ import annotations

import math
import numbers
from typing import Any

__all__ = ["check_count", "check_positive"]

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
