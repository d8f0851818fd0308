"""The fan-in of a kernel: which of its axes an output unit sums over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from .layer_kinds import contracted_axes

__all__ = ["assemble_kernel", "fan_in_axes", "layer_being_built"]


def layer_being_built() -> keras.layers.Layer | None:
    """Returns the layer whose `build` is running, if any.

    Keras passes an initializer the shape alone, and a shape does not say whether `(3, 3, 64, 1)` is a
    depthwise kernel (fan-in 9) or a convolution's (fan-in 576). Keras keeps the layer in its name scopes.
    """
    try:  # not part of Keras's public interface; without it the shape alone decides
        from keras.src.backend.common import global_state
    except ImportError:
        return None
    stack = global_state.get_global_attribute("name_scope_stack") or []
    for scope in reversed(stack):
        if isinstance(scope.caller, keras.layers.Layer):
            return scope.caller
    return None


def fan_in_axes(
    shape: Sequence[int], fan_in: int | None = None, layer: keras.layers.Layer | None = None
) -> tuple[int, ...]:
    """Returns the axes of a kernel of `shape` that one output unit sums over.

    Args:
        shape: Shape of the kernel, at least two axes.
        fan_in: The fan-in, if the user gave it: the product of the kernel's leading axes.
        layer: The layer the kernel is for, if known. Without it `shape` is read as Keras reads it:
            the last axis counts the outputs.

    Returns:
        The axes; the product of their sizes is the fan-in.

    Raises:
        ValueError: No run of leading axes has the product `fan_in`.
    """
    axes = tuple(range(len(shape)))
    if fan_in is not None:
        # The shortest run comes first: axes of size 1 can make several fit.
        for count in axes[1:]:
            if math.prod(shape[:count]) == fan_in:
                return axes[:count]
        raise ValueError(
            "`fan_in` must be the product of the kernel's leading axes, the ones an output unit sums "
            f"over. Received: fan_in={fan_in} for a kernel of shape {tuple(shape)}"
        )
    return contracted_axes(layer, len(shape))


def assemble_kernel(
    matrix: NDArray[np.float64], shape: Sequence[int], contracted: tuple[int, ...]
) -> NDArray[np.float64]:
    """Lays a (fan-in, fan-out) matrix out as a kernel of `shape` whose fan-in axes are `contracted`.

    Matrices along a first axis, shape (count, fan-in, fan-out), become kernels along a first axis.
    """
    others = tuple(axis for axis in range(len(shape)) if axis not in contracted)
    # The matrix has the fan-in axes first; the kernel may have them anywhere.
    order = contracted + others
    several = matrix.shape[:-2]
    stacked = matrix.reshape([*several, *(shape[axis] for axis in order)])
    places = [len(several) + int(axis) for axis in np.argsort(order)]
    return stacked.transpose([*range(len(several)), *places])
