"""`validate`, which checks the arrays of a user before training."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_rwinit._checks import check_count, check_real

__all__ = ["validate"]


def validate(x: ArrayLike, y: ArrayLike, classes: int) -> None:
    """Raises ValueError unless `x` and `y` can train a classifier over `classes` classes.

    Args:
        x: Inputs, shape (examples, ...): real, finite numbers of any scale.
        y: Labels, shape (examples,): integers from 0 to `classes - 1`.
        classes: Number of classes, at least 1.

    Raises:
        ValueError: If `x` is empty, has fewer than two dimensions, is not real, or holds NaN or
            infinite values; if `y` is not a vector of integers, differs from `x` in length, or
            holds a label outside `[0, classes)`; if `classes` is not a positive integer.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data import validate
        >>> x = np.zeros((3, 5))
        >>> validate(x, np.array([0, 1, 1]), classes=2)
        >>> validate(x, np.array([0, 1, 2]), classes=2)
        Traceback (most recent call last):
            ...
        ValueError: `y` must hold labels from 0 to 1 (`classes` is 2). Received: labels from 0 to \
2; pass classes=3 or more, or relabel from 0.
    """
    classes = check_count("classes", classes)
    inputs = check_real("x", x)
    if inputs.ndim < 2:
        raise ValueError(
            "`x` must have examples along its first dimension and features along the others. "
            f"Received: shape {inputs.shape}; for one example pass `x[None, :]`, for one feature "
            "`x[:, None]`."
        )
    labels = np.asarray(y)
    if labels.ndim != 1:
        # The argmax of a single column is zero whatever it holds.
        column = labels.ndim == 2 and labels.shape[1] == 1
        way = "pass `y[:, 0]`" if column else "for one-hot labels pass `np.argmax(y, axis=1)`"
        raise ValueError(
            f"`y` must be a vector of labels, one per example. Received: shape {labels.shape}; {way}."
        )
    if labels.size and labels.dtype.kind not in "iu":
        raise ValueError(
            f"`y` must hold integer labels. Received: dtype {labels.dtype}; pass "
            "`y.astype('int32')` if its values are whole numbers, or number the classes from 0."
        )
    if len(labels) != len(inputs):
        raise ValueError(
            "`x` and `y` must hold equally many examples. Received: "
            f"{len(inputs)} inputs and {len(labels)} labels."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"`y` must hold labels from 0 to {classes - 1} (`classes` is {classes}). Received: "
            f"labels from {lowest} to {highest}; pass classes={max(highest, 0) + 1} or more, or "
            "relabel from 0."
        )
