"""Checks the examples that a model is to run on: arrays in the structure of its inputs or outputs."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_rwinit._checks import check_real
from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.types import ArrayTree

__all__ = ["check_equally_many", "check_examples"]


def check_examples(name: str, value: ArrayTree) -> tuple[ArrayTree, int]:
    """Returns `value` as NumPy arrays in its own structure, and the number of examples in them.

    Raises:
        ValueError: It holds no array, no example, different numbers of examples, or something other than
            finite numbers. `None` stands for an array that is left out.
    """
    if value is None:
        raise _NoArrayError(name, value)
    arrays = map_arrays(lambda leaf: _as_array(name, leaf), _list_to_array(name, value))
    flat = [array for array in keras.tree.flatten(arrays) if array is not None]
    counts = {len(array) for array in flat}
    if not flat or len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"`{name}` must hold at least one example, and the same number in each of its arrays. "
            f"Received: shapes {[array.shape for array in flat]}"
        )
    return arrays, counts.pop()


def check_equally_many(name: str, value: ArrayTree, examples: int) -> ArrayTree:
    """Returns `value` as NumPy arrays; ValueError unless they hold as many examples as the inputs, `x`."""
    arrays, count = check_examples(name, value)
    if count != examples:
        raise ValueError(
            f"`x` and `{name}` must hold equally many examples. Received: {examples} and {count}."
        )
    return arrays


class _NoArrayError(ValueError):
    """Something is neither an array nor numbers."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(
            f"`{name}` must hold arrays. Received: {type(value).__name__}; take one batch of a dataset, for "
            "example with `next(iter(dataset))`."
        )


def _list_to_array(name: str, value: ArrayTree) -> ArrayTree:
    """Makes one array of nested lists of numbers; a list of arrays stays as it is."""
    if isinstance(value, list) and not any(
        leaf is None or hasattr(leaf, "shape") for leaf in keras.tree.flatten(value)
    ):
        return check_real(name, value)
    return value


def _as_array(name: str, leaf: ArrayLike) -> NDArray[np.generic]:
    if not hasattr(leaf, "__array__") and not keras.ops.is_tensor(leaf) and not np.isscalar(leaf):
        raise _NoArrayError(name, leaf)
    array = check_real(name, keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
    if array.ndim == 0:
        raise ValueError(f"`{name}` must hold examples along its first axis. Received: {leaf!r}, of shape ()")
    # JAX would make int32 of int64 too, but with a warning.
    narrow = array.dtype.kind in "iu" and array.dtype.itemsize == 8
    narrow = narrow and int(array.min()) >= -(2**31) and int(array.max()) < 2**31
    return array.astype(np.int32) if narrow else array
