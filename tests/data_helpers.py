"""Bounds for standardized columns, shared by the tests of `keras_rwinit.data`."""

from __future__ import annotations

import numpy as np

# Rounding to float32 multiplies a value by 1 + d, |d| <= 2^-24. A column z with rms 1 then keeps
# |mean| <= 2^-24 mean|z| <= 2^-24 and rms within 1 +- 2^-24; the factor covers float64 rounding.
ROUNDING = 2.0**-24 * 1.001


def column_errors(z: np.ndarray) -> tuple[float, float]:
    """Returns the largest distances of a column's mean from 0 and of its deviation from 1."""
    z = z.astype(np.float64)
    return float(np.abs(z.mean(axis=0)).max()), float(np.abs(z.std(axis=0) - 1.0).max())
