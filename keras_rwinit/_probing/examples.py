"""Checks the examples that a model is to run on: arrays in the structure of its inputs or outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_rwinit._checks import check_real
from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.types import ArrayTree

__all__ = ["check_equally_many", "check_examples", "first_batch"]


def first_batch(
    x: ArrayTree,
    y: ArrayTree = None,
    sample_weight: ArrayTree = None,
    *,
    input_shape: object = None,
) -> tuple[ArrayTree, ArrayTree, ArrayTree]:
    """Returns inputs, targets and sample weights: those of the first batch if `x` is a data set.

    Args:
        x: Arrays, which are returned as they are, or what `fit` takes batches from: a `tf.data.Dataset`, a
            `PyDataset`, a `DataLoader` of PyTorch or a generator, which loses its first batch.
        y: Targets; None with a data set.
        sample_weight: Weights; None with a data set.
        input_shape: The model's `input_shape`, by which single examples are told from a batch. `None`: only
            those are found of which a part is a single number.

    Raises:
        ValueError: A data set has no batch, gives single examples, or comes with targets or weights.
    """
    if not _gives_batches(x):
        return x, y, sample_weight
    if y is not None or sample_weight is not None:
        raise ValueError(
            "`y` and `sample_weight` come with the batches of a data set. Received: both a data set of type "
            f"{type(x).__name__} and {'`y`' if y is not None else '`sample_weight`'}"
        )
    # A `PyDataset` is read by index, and may have no end.
    batches = ([x[0]] if x.num_batches != 0 else []) if isinstance(x, keras.utils.PyDataset) else x
    for batch in batches:
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if _is_single_example((inputs, targets, weights), input_shape):
            shapes = ", ".join(map(str, _shapes_of(inputs)))
            raise ValueError(
                "`x` must give batches of examples: take `x.batch(32)` of a `tf.data.Dataset`, or set the "
                f"`batch_size` of a loader. Received: {type(x).__name__} of examples of shape {shapes}"
            )
        return inputs, targets, weights
    raise ValueError(f"`x` must have at least one batch. Received: {type(x).__name__} without any")


def _gives_batches(x: ArrayTree) -> bool:
    if isinstance(x, keras.utils.PyDataset):
        return True
    structure = isinstance(x, list | tuple | Mapping | Set | str | bytes)
    return (
        isinstance(x, Iterable) and not structure and not hasattr(x, "shape") and not hasattr(x, "__array__")
    )


def _is_single_example(element: ArrayTree, input_shape: object) -> bool:
    """Returns whether what a data set gives, (inputs, targets, weights), has no axis of examples."""
    if () in _shapes_of(element):
        return True
    expected, given = _model_shapes(input_shape), _shapes_of(element[0])
    return len(expected) == len(given) > 0 and all(map(_fits_one, given, expected))


def _fits_one(given: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Returns whether an array has the shape of one example of a model's input."""
    sizes = expected[1:]
    return len(given) == len(sizes) and all(size in (None, n) for size, n in zip(sizes, given, strict=True))


def _shapes_of(structure: ArrayTree) -> list[tuple[int, ...]]:
    arrays = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
    return [tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf) for leaf in arrays]


def _model_shapes(input_shape: object) -> list[tuple[int | None, ...]]:
    """Returns the shapes in a model's `input_shape`, in the order in which `keras.tree` flattens inputs."""
    if isinstance(input_shape, dict):
        return [shape for name in sorted(input_shape) for shape in _model_shapes(input_shape[name])]
    if not isinstance(input_shape, list | tuple):
        return []
    if all(size is None or isinstance(size, int) for size in input_shape):
        return [tuple(input_shape)]
    return [shape for part in input_shape for shape in _model_shapes(part)]


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
