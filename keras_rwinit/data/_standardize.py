"""Zero mean and unit variance in every input dimension, by the training set's statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_rwinit._checks import check_real

__all__ = ["standardize"]

# A range of at most this many roundings of the largest magnitude is rounding, not signal.
_ROUNDINGS = 4
_ROWS_AT_ONCE = 4096


def standardize(x_train: ArrayLike, *others: ArrayLike) -> tuple[NDArray[np.float32], ...]:
    """Shifts and scales every dimension to zero mean and unit variance over the training set.

        z = (x - mean(x_train)) / std(x_train),    each dimension by itself,

    with mean and standard deviation (over all examples, `ddof=0`) computed in float64. The other
    arrays are transformed by the *training* set's statistics: nothing of a test set enters.

    A dimension that is constant over the training set becomes exactly zero in every array, also
    where a test example differs: such a pixel carries nothing a network could have learned from,
    and its scale is unknown. Constant means that its range over the training set is at most
    4 eps max|x|, with eps the spacing of the array's own float type (0 for integers): a constant
    that went through a few roundings counts as constant.

    Args:
        x_train: Training inputs, shape (examples, features), any real dtype.
        *others: Further arrays of as many features, a test set for instance.

    Returns:
        A tuple of float32 arrays, one for each argument, shapes unchanged.

    Raises:
        ValueError: If an array is empty, not of rank 2, not real, holds NaN or infinite values,
            or has another number of features than `x_train`.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data import standardize
        >>> train, test = standardize([[1.0, 7.0], [3.0, 7.0]], [[4.0, 9.0]])
        >>> train.tolist(), test.tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0]])

    References:
        LeCun, Bottou, Orr and Mueller, "Efficient BackProp", in Neural Networks: Tricks of the
        Trade, Springer, 1998, section 4.3.
    """
    arrays = [_check_inputs("x_train", x_train)]
    for position, other in enumerate(others):
        name = f"others[{position}]"
        arrays.append(_check_inputs(name, other))
        if arrays[-1].shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"Every array must have as many features as `x_train`, {arrays[0].shape[1]}. "
                f"Received: {arrays[-1].shape[1]} in `{name}`; select the same columns in both."
            )
    train = arrays[0]
    constant, exponent = _constant_dimensions(train)
    mean, std = _moments(train, exponent)
    std[constant] = 1.0
    return tuple(_transform(array, mean, std, exponent, constant) for array in arrays)


def _check_inputs(name: str, values: ArrayLike) -> NDArray[Any]:
    array = check_real(name, values)
    if array.ndim != 2:
        raise ValueError(
            f"`{name}` must have rank 2, (examples, features). Received: shape {array.shape}; "
            "flatten each example first, `x.reshape(len(x), -1)`."
        )
    return array


def _constant_dimensions(train: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.intc]]:
    """Returns which dimensions are constant, and the binary exponent of each one's magnitude."""
    low = train.min(axis=0).astype(np.float64)
    high = train.max(axis=0).astype(np.float64)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    exponent = np.frexp(magnitude)[1]
    eps = float(np.finfo(train.dtype).eps) if train.dtype.kind == "f" else 0.0
    # Scaling by a power of two is exact and keeps the range of values near 1e308 finite.
    spread = np.ldexp(high, -exponent) - np.ldexp(low, -exponent)
    constant = spread <= _ROUNDINGS * eps * np.ldexp(magnitude, -exponent)
    return constant, exponent


def _moments(
    train: NDArray[Any], exponent: NDArray[np.intc]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean and standard deviation of `train * 2**-exponent`, in two passes."""
    count, features = train.shape
    total = np.zeros(features)
    for _, rows in _blocks(train, exponent):
        total += rows.sum(axis=0)
    mean = total / count
    squares = np.zeros(features)
    for _, rows in _blocks(train, exponent):
        squares += np.square(rows - mean).sum(axis=0)
    return mean, np.sqrt(squares / count)


def _transform(
    array: NDArray[Any],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    exponent: NDArray[np.intc],
    constant: NDArray[np.bool_],
) -> NDArray[np.float32]:
    result = np.empty(array.shape, dtype=np.float32)
    for where, rows in _blocks(array, exponent):
        result[where] = (rows - mean) / std
    result[:, constant] = 0.0
    return result


def _blocks(array: NDArray[Any], exponent: NDArray[np.intc]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yields blocks of rows as float64, scaled by `2**-exponent`: no whole float64 copy."""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        where = slice(start, start + _ROWS_AT_ONCE)
        yield where, np.ldexp(array[where].astype(np.float64), -exponent)
