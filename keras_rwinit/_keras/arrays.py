"""Maps arrays in nested structures, and makes tensors of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from .types import ArrayTree, Tensor

__all__ = ["map_arrays", "read_array", "to_tensor", "value_of"]

_READABLE = ("float32", "float64")


def map_arrays(function: Callable[[NDArray[np.generic]], Any], arrays: ArrayTree) -> ArrayTree:
    """Returns `function` of every array in a structure; None, an input that is left out, stays None."""
    return keras.tree.map_structure(lambda array: None if array is None else function(array), arrays)


def read_array(tensor: Tensor) -> NDArray[np.generic]:
    """Returns a tensor as NumPy array that is not to be written to: it may be the tensor's own memory."""
    # `convert_to_numpy` copies; `np.asarray` of such a tensor of TensorFlow does not.
    if keras.backend.backend() == "tensorflow" and getattr(tensor, "dtype", None) in _READABLE:
        return np.asarray(tensor)
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def value_of(variable: keras.Variable) -> Tensor:
    """Returns the value of a variable as a constant, from which parts may be taken in any thread.

    PyTorch may deadlock where one thread indexes a parameter that takes gradients while another uses it.
    """
    return keras.ops.stop_gradient(variable.value)


def to_tensor(values: NDArray[np.generic] | Tensor, float_dtype: str | None = None) -> Tensor:
    """Returns an array or a tensor as a tensor that gradients can be taken of.

    Args:
        values: The array or tensor.
        float_dtype: Dtype of the tensor if `values` are of a floating dtype. `None`: their own.
    """
    dtype = keras.backend.standardize_dtype(values.dtype)
    if float_dtype and keras.backend.is_float_dtype(dtype):
        dtype = float_dtype
    tensor = keras.ops.convert_to_tensor(values, dtype)
    # PyTorch takes no gradient through a tensor that was made in inference mode, only through a copy.
    return tensor.clone() if keras.backend.backend() == "torch" and tensor.is_inference() else tensor
