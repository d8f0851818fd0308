"""Reads log-norms, summed in float64, and units without a slope off a layer's signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit._keras.arrays import read_array
from keras_rwinit._keras.types import Tensor
from keras_rwinit._tracing.kernels import Kernel
from keras_rwinit.theory import Activation
from keras_rwinit.theory.memo import cache_by_value

__all__ = [
    "kernel_log_norms",
    "log_norm",
    "mean_log_norm",
    "saturated_units",
    "to_numpy",
    "units_last",
]

Array = NDArray[np.float64]
Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

FLAT = 0.01
"""A unit is dead or saturated where its slope is below this share of the activation's steepest."""

_FIRST_ROWS = 16
_CHUNK_SIZE = 2**17  # numbers converted to float64 at a time: 1 MiB, for which malloc maps no new memory


def log_norm(vectors: Floats) -> Array:
    """Returns ln of the Euclidean norm over all axes but the first, summed in float64; -inf at 0."""
    flat = np.asarray(vectors).reshape(len(vectors), -1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if flat.dtype != np.float64:
            # float64 holds the square of every float32 number.
            return np.asarray(0.5 * np.log(_sums_of_squares(flat.astype(np.float32, copy=False))))
        # Squares of float64 numbers leave its range where the numbers themselves do not.
        largest = np.abs(flat).max(axis=1, initial=0.0)
        scaled = flat / np.where((largest > 0.0) & (largest < np.inf), largest, 1.0)[:, None]
        return np.asarray(0.5 * np.log(np.einsum("ij,ij->i", scaled, scaled)) + np.log(largest))


def _sums_of_squares(rows: Floats) -> Array:
    """Returns the sum of squares of each row in float64, into which a part at a time is copied."""
    sums = np.empty(len(rows))
    part = max(1, _CHUNK_SIZE // max(rows.shape[1], 1))
    for start in range(0, len(rows), part):
        exact = rows[start : start + part].astype(np.float64)
        np.einsum("ij,ij->i", exact, exact, out=sums[start : start + part])
    return sums


def mean_log_norm(values: Array) -> Array:
    """Returns the mean over the first axis of the log-norms that are finite, column by column.

    The signal of a dead example has norm zero; its -inf would hide all other examples. Where no value is
    finite, the plain mean says how: -inf, inf or nan.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), values.mean(axis=0)))


def to_numpy(tensor: Tensor) -> Floats:
    """Returns a tensor as NumPy array of float64 or float32, which is not to be written to."""
    array = read_array(tensor)
    return cast(Floats, array if array.dtype == np.float64 else array.astype(np.float32, copy=False))


def kernel_log_norms(kernel: Kernel, gradient: Tensor) -> Array:
    """Returns ln of the norm of a kernel's gradient, layer by layer of a stack; nan if it is quantized."""
    if not keras.backend.is_float_dtype(kernel.variable.dtype):
        return np.array([np.nan])
    values = to_numpy(gradient)
    return log_norm(values if kernel.stacked else values[None])


def units_last(layer: keras.layers.Layer, values: Floats) -> Floats:
    """Returns a row for each example and position, a column for each unit; layers stay the first axis."""
    if getattr(layer, "data_format", None) == "channels_first" and values.ndim > 3:
        values = np.moveaxis(values, 2, -1)
    return values.reshape(len(values), -1, values.shape[-1])


def saturated_units(activation: Callable[[Tensor], Tensor], a: Floats) -> Mask | None:
    """Returns which units have next to no slope at any example and position; None where it is unknown.

    Args:
        activation: The activation.
        a: Pre-activations, shape (..., rows, units).
    """
    if activation is keras.activations.linear:
        return None
    try:
        known = theory_activation(activation, a.shape[-1])
    except ValueError:  # softmax and others that do not act unit by unit
        return None
    limit = FLAT * max(_steepest_slope(unit) for unit in known.units or (known,))
    layers = a.reshape(-1, *a.shape[-2:])
    if known.slopes is not None:
        # The largest and the smallest number tell on which sides of zero there are any.
        layers = np.stack([layers.max(axis=-2), layers.min(axis=-2)], axis=-2)
    # Most units have a slope in the first rows, and most layers no other units.
    flat = np.asarray((_slopes(known, layers[:, :_FIRST_ROWS]) <= limit).all(axis=-2))
    undecided = flat.any(axis=-1)
    if undecided.any():
        flat[undecided] = (_slopes(known, layers[undecided]) <= limit).all(axis=-2)
    return flat.reshape(*a.shape[:-2], a.shape[-1])


@cache_by_value(maxsize=256)
def _steepest_slope(activation: Activation) -> float:
    return float(_slopes(activation, np.linspace(-8.0, 8.0, 1601)).max())


def _slopes(activation: Activation, a: Floats) -> Floats:
    """Returns the absolute slopes at an array, nan where they overflow."""
    with np.errstate(all="ignore"):  # the verdict tells of signals that have exploded
        slopes = np.abs(activation.slope_at(cast(Array, a)))  # float32 will do
    # A derivative may return one number for the whole array.
    return np.broadcast_to(slopes, a.shape)
