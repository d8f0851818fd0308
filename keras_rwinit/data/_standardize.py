"""Zero mean and unit variance in every input dimension, by the training set's statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_rwinit._checks import check_real

__all__ = ["standardize"]

# A range of at most this many roundings of the largest magnitude counts as rounding, not as signal.
_ROUNDINGS = 4
_ROWS_AT_ONCE = 4096

# An array of any real dtype.
RealArray: TypeAlias = NDArray[Any]


@overload
def standardize(x_train: ArrayLike, /) -> NDArray[np.float32]: ...


@overload
def standardize(x_train: ArrayLike, *others: ArrayLike) -> tuple[NDArray[np.float32], ...]: ...


def standardize(
    x_train: ArrayLike, *others: ArrayLike
) -> NDArray[np.float32] | tuple[NDArray[np.float32], ...]:
    """Shifts and scales every dimension to zero mean and unit variance over the training set.

        z = (x - mean(x_train)) / std(x_train),    each dimension by itself,

    with mean and standard deviation (over all examples, `ddof=0`) computed in float64 by
    scikit-learn's `StandardScaler`. The other arrays are transformed by the *training* set's
    statistics: no statistic of a test set is used.

    A dimension that is constant over the training set becomes exactly zero in every array, even
    where a test example differs: a network cannot learn from such a pixel, and its scale is
    unknown. A dimension counts as constant if its range over the training set is at most
    4 eps max|x|, where eps is the spacing of the array's own float type (0 for integers), so that
    a few roundings do not count as variation.

    Args:
        x_train: Training inputs, shape (examples, features), any real dtype.
        *others: Further arrays with the same number of features, e.g. a test set.

    Returns:
        The standardized array, float32 and of the same shape. With `others` a tuple of one for each argument,
        in their order.

    Raises:
        ValueError: If an array is empty, not of rank 2 or not real, if it holds NaN or infinite
            values, or if its number of features differs from that of `x_train`. If a value is beyond
            float32 after the scaling.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data import standardize
        >>> train, test = standardize([[1.0, 7.0], [3.0, 7.0]], [[4.0, 9.0]])
        >>> train.tolist(), test.tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0]])
        >>> standardize([[1.0], [3.0]]).tolist()
        [[-1.0], [1.0]]

    References:
        LeCun, Bottou, Orr and Mueller, "Efficient BackProp", in Neural Networks: Tricks of the
        Trade, Springer, 1998, section 4.3.
    """
    from sklearn.preprocessing import StandardScaler

    train = _check_inputs("x_train", x_train)
    arrays = {"x_train": train}
    for position, values in enumerate(others):
        name = f"others[{position}]"
        arrays[name] = _check_inputs(name, values, train.shape[1])
    constant, exponent = _constant_dimensions(train)
    scaler = StandardScaler()
    for _, rows in _blocks(train, exponent):
        scaler.partial_fit(rows)
    # The scaler's own test for constants does not know how far `x_train` was rounded before.
    scaler.scale_ = np.where(constant, 1.0, np.sqrt(scaler.var_))
    results = tuple(np.empty(array.shape, np.float32) for array in arrays.values())
    for (name, array), result in zip(arrays.items(), results, strict=True):
        for where, rows in _blocks(array, exponent):
            rows[:, constant] = scaler.mean_[constant]
            with np.errstate(over="ignore"):
                result[where] = (rows - scaler.mean_) / scaler.scale_
            if not np.isfinite(result[where]).all():
                raise ValueError(
                    f"`{name}` has values so many standard deviations of `x_train` away from its mean that "
                    "float32 does not hold them. Clip them, or drop the examples or the feature."
                )
    return results if others else results[0]


def _check_inputs(name: str, values: ArrayLike, features: int | None = None) -> RealArray:
    array = check_real(name, values)
    if array.ndim != 2:
        raise ValueError(
            f"`{name}` must have rank 2, (examples, features). Received: shape {array.shape}; "
            "flatten each example first, `x.reshape(len(x), -1)`."
        )
    if features not in (None, array.shape[1]):
        raise ValueError(
            f"Every array must have as many features as `x_train`, {features}. "
            f"Received: {array.shape[1]} in `{name}`; select the same columns in both."
        )
    return array


def _constant_dimensions(train: RealArray) -> tuple[NDArray[np.bool_], NDArray[np.intc]]:
    """Returns which dimensions are constant, and the binary exponent of each one's magnitude."""
    low, high = train.min(axis=0).astype(np.float64), train.max(axis=0).astype(np.float64)
    exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]
    # Scaling by a power of two is exact. It keeps `high - low` finite for values near 1e308.
    low, high = np.ldexp(low, -exponent), np.ldexp(high, -exponent)
    eps = float(np.finfo(train.dtype).eps) if train.dtype.kind == "f" else 0.0
    constant = high - low <= _ROUNDINGS * eps * np.maximum(np.abs(low), np.abs(high))
    return constant, exponent


def _blocks(array: RealArray, exponent: NDArray[np.intc]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yields blocks of rows times `2**-exponent` in float64, since a whole float64 copy may not fit."""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        where = slice(start, start + _ROWS_AT_ONCE)
        with np.errstate(over="ignore"):  # a test value far beyond the training set's
            yield where, np.ldexp(array[where].astype(np.float64), -exponent)
