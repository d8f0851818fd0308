"""`Dataset`, the record that every public loader returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ._checks import validate

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set of labeled, flattened examples.

    Args:
        name: Name in reports.
        x_train: Training inputs, float32, shape (examples, features).
        y_train: Training labels, int32, shape (examples,), from 0 to `classes - 1`.
        x_test: Test inputs, float32, shape (examples, features).
        y_test: Test labels, int32, shape (examples,).
        classes: Number of classes.

    Raises:
        ValueError: If an array breaks one of the rules above; see `validate`.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data import Dataset
        >>> x, y = np.eye(4, dtype="float32"), np.arange(4, dtype="int32")
        >>> Dataset("identity", x, y, x, y, classes=4).features
        4
    """

    name: str
    x_train: NDArray[np.float32] = field(repr=False)
    y_train: NDArray[np.int32] = field(repr=False)
    x_test: NDArray[np.float32] = field(repr=False)
    y_test: NDArray[np.int32] = field(repr=False)
    classes: int

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            validate(x, y, self.classes)
            if x.ndim != 2 or x.dtype != np.float32 or y.dtype != np.int32:
                raise ValueError(
                    f"`x_{part}` must be float32 of shape (examples, features) and `y_{part}` "
                    f"int32. Received: {x.dtype} of shape {x.shape} and {y.dtype}; pass "
                    "`x.reshape(len(x), -1).astype('float32')` and `y.astype('int32')`."
                )
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise ValueError(
                "`x_train` and `x_test` must have equally many features. Received: "
                f"{self.x_train.shape[1]} and {self.x_test.shape[1]}."
            )

    @property
    def features(self) -> int:
        """Number of input dimensions."""
        return int(self.x_train.shape[1])
