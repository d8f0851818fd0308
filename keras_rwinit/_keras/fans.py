"""Which axes of a kernel one output unit sums over: its fan-in, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["TRANSPOSED", "assemble_kernel", "fan_in_axes", "layer_being_built"]


TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def layer_being_built() -> keras.layers.Layer | None:
    """The layer whose `build` is running, if any.

    An initializer is told a shape, and a shape does not say whether `(3, 3, 64, 1)` is a depthwise
    kernel (fan-in 9) or a convolution's (fan-in 576). Keras keeps the layer in its name scopes.
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
    """Axes of a kernel of `shape` that one output unit sums over.

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
        for count in axes[1:]:
            if math.prod(shape[:count]) == fan_in:
                return axes[:count]
        raise ValueError(
            "`fan_in` must be the product of the kernel's leading axes, the ones an output unit sums "
            f"over. Received: fan_in={fan_in} for a kernel of shape {tuple(shape)}"
        )
    if isinstance(layer, keras.layers.EinsumDense):
        return _contracted_axes(layer.equation, axes)
    if isinstance(layer, TRANSPOSED):
        return (*axes[:-2], axes[-1])  # their kernels have the outputs before the inputs
    if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
        return axes[:-2]
    if isinstance(layer, keras.layers.SeparableConv1D | keras.layers.SeparableConv2D):
        # Both of its kernels are convolutional; the depthwise one is made first.
        return axes[:-2] if getattr(layer, "depthwise_kernel", None) is None else axes[:-1]
    return axes[:-1]


def _contracted_axes(equation: str, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the second operand of an einsum that the output sums over."""
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    contracted = tuple(
        axis for axis, label in zip(axes, kernel, strict=True) if label in inputs and label not in output
    )
    return contracted or axes[:-1]


def assemble_kernel(
    matrix: NDArray[np.float64], shape: Sequence[int], contracted: tuple[int, ...]
) -> NDArray[np.float64]:
    """Lays a (fan-in, fan-out) matrix out as a kernel of `shape` whose fan-in axes are `contracted`."""
    others = tuple(axis for axis in range(len(shape)) if axis not in contracted)
    order = contracted + others
    stacked = matrix.reshape([shape[axis] for axis in order])
    return stacked.transpose(np.argsort(order))
