"""What a loader takes and what it returns to `load`, before standardization."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "StrPath"]

StrPath: TypeAlias = str | os.PathLike[str]


class Arrays(NamedTuple):
    """Inputs, float32 (examples, features), and labels, int32 (examples,), of both sets."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int32]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int32]
