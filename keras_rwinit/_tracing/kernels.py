"""The kernels of a Keras layer: which weights they are, what they sum over, what follows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import keras
import numpy as np

from keras_rwinit._keras.arrays import value_of
from keras_rwinit._keras.layer_kinds import KernelKind, activates_kernel_output, is_known_layer, layer_kind
from keras_rwinit._keras.types import Tensor

__all__ = [
    "Kernel",
    "KernelIdentity",
    "activates_kernel_output",
    "hides_sublayers",
    "holds_kernels",
    "kernels_of",
    "matrices_of",
    "skip_reason",
    "sublayers",
]

KernelIdentity: TypeAlias = tuple[int, int | None]
"""`id` of a kernel's variable, and its index there if the variable holds several."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of a layer, or all kernels of a `DenseStack`, which lie in one weight.

    Args:
        layer: The layer.
        variable: The weight.
        kind: What the table of layer kinds says of it.
        activation: The layer's own activation after this kernel; None where there is none.
        stacked: Number of layers that a `DenseStack`'s weight holds; 0 for an ordinary kernel.
        index: Which of the stacked kernels this is, along the first axis of the weight; None for an ordinary
            kernel, and for all kernels of a stack together.
        turned: Whether it is applied the other way round, as a tied decoder does, and sums over the axes that
            its layer gives out.
        center: The position in a convolution's window to draw, where all others are zero; None where all are
            drawn.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    kind: KernelKind
    activation: Callable[[Tensor], Tensor] | None = None
    stacked: int = 0
    index: int | None = None
    turned: bool = False
    center: tuple[int, ...] | None = None

    @property
    def identity(self) -> KernelIdentity:
        """What two applications of one kernel have in common."""
        return id(self.variable), self.index

    @property
    def mean_bias(self) -> float:
        """Mean of the biases that its layer adds; 0 without any."""
        bias = getattr(self.layer, "bias", None)
        if not isinstance(bias, keras.Variable):
            return 0.0
        values = value_of(bias) if self.index is None else value_of(bias)[self.index]
        return float(keras.ops.convert_to_numpy(values).astype(np.float64).mean())

    def oriented(self, input_shape: tuple[int | None, ...] | None) -> Kernel:
        """Returns the kernel of a layer of the user's with the axes that it sums over by the input's shape.

        A matrix counts as (inputs, outputs), unless only its second axis has the size of the input's last.
        """
        if self.turned or is_known_layer(self.layer) or len(self.shape) != 2 or not input_shape:
            return self
        first, second = self.shape
        if first == second or input_shape[-1] != second:
            return self
        return replace(self, kind=replace(self.kind, contracted=lambda layer, axes: axes[1:]))

    def unstack(self) -> list[Kernel]:
        """Returns the kernels of a stack one by one, in the order in which it applies them."""
        return [replace(self, index=index) for index in range(self.stacked)] if self.stacked else [self]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one kernel."""
        # TensorFlow makes a new object for each look at a shape, which is slow.
        shape = tuple(int(size) for size in self.variable.shape)
        return shape[1:] if self.stacked else shape

    @cached_property
    def contracted(self) -> tuple[int, ...]:
        """Axes of one kernel that an output unit sums over."""
        axes = tuple(range(len(self.shape)))
        contracted = self.kind.contracted(self.layer, axes)
        return tuple(axis for axis in axes if axis not in contracted) if self.turned else contracted

    @property
    def units(self) -> int:
        """Outputs of one kernel: units of a Dense layer, channels of a convolution."""
        return math.prod(self.shape[axis] for axis in range(len(self.shape)) if axis not in self.contracted)

    @property
    def fan_in(self) -> float:
        """Inputs that an output unit sums over; their mean number in a strided transposed convolution."""
        if self.center is not None:
            return float(self.shape[-2])
        full = math.prod(self.shape[axis] for axis in self.contracted)
        if self.kind.transposed:
            # Along each axis an output meets every stride-th entry of the window.
            window, strides = self.shape[:-2], self.layer.strides
            return full / math.prod(min(s, k) for s, k in zip(strides, window, strict=True))
        return float(full)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels that a convolution's kernels read in all, and those that one output sums over."""
        window = math.prod(self.shape[: len(self.shape) - 2])
        # A depthwise kernel has its channels beside those that it gives for each.
        own = int(self.fan_in) // window
        groups = self.shape[-2] if len(self.contracted) == len(self.shape) - 2 else 0
        return own * (groups or getattr(self.layer, "groups", 1)), own


def kernels_of(layer: keras.Operation) -> list[Kernel]:
    """Returns the kernels of one layer, without its sublayers', in the order in which it applies them."""
    kind = layer_kind(layer)
    if kind.wrapped:
        return kernels_of(getattr(layer, kind.wrapped))
    kernels = []
    for kernel in kind.kernels:
        variable = getattr(layer, kernel.attribute, None)
        # Under LoRA `kernel` is a sum, and `_kernel` its fixed term.
        if not isinstance(variable, keras.Variable):
            variable = getattr(layer, f"_{kernel.attribute}", None)
        if not isinstance(variable, keras.Variable) or len(variable.shape) < 2:
            continue
        activation = getattr(layer, "activation", None) if kernel.activated else None
        stacked = getattr(layer, kernel.stacked) if kernel.stacked else 0
        kernels.append(Kernel(layer, variable, kernel, activation, stacked))
    if not kernels and len(matrices := matrices_of(layer)) == 1:
        ((attribute, variable),) = matrices.items()
        kernels.append(Kernel(layer, variable, replace(kind.kernels[0], attribute=attribute)))
    return kernels


def matrices_of(layer: keras.Operation) -> dict[str, keras.Variable]:
    """Returns the trainable matrices of a layer of the user's that its inputs can be multiplied by.

    Keras's guides call the kernel of a layer of one's own `w`. Tables, such as one of positions, have other
    shapes: the size of their first axis is not that of the inputs' last. If it happens to be, a matrix counts
    only beside a bias.

    Returns:
        The matrices by the attribute that holds them; none for layers of a known class.
    """
    if not isinstance(layer, keras.layers.Layer) or is_known_layer(layer) or not vars(layer).get("built"):
        return {}
    # Not public: the shapes that `build` was called with, which Keras keeps for saving.
    shapes = getattr(layer, "_build_shapes_dict", None) or {}
    shape = next(iter(shapes.values())) if len(shapes) == 1 else None
    if not isinstance(shape, tuple | list) or not shape:  # a list in a model that was loaded
        return {}
    weights = {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, keras.Variable) and value.trainable
    }
    shapes_of_weights = {tuple(value.shape) for value in weights.values()}
    return {
        name: value
        for name, value in weights.items()
        if len(value.shape) == 2
        and value.shape[0] == shape[-1]
        and (tuple(value.shape) != tuple(shape[-2:]) or (value.shape[1],) in shapes_of_weights)
    }


def skip_reason(layer: keras.layers.Layer) -> str:
    """Returns why the weights of `layer` are no kernels of a walk; empty if they may be."""
    return layer_kind(layer).skip_reason


def hides_sublayers(layer: keras.layers.Layer) -> bool:
    """Returns whether the sublayers of `layer` may run inside a loop of the back end, out of sight."""
    return layer_kind(layer).hides_sublayers


def holds_kernels(layer: keras.layers.Layer) -> bool:
    """Returns whether `layer` or one of its sublayers has a kernel."""
    # Without recursion: models nest and chain layers to any depth.
    pending = [layer]
    while pending:
        layer = pending.pop()
        if kernels_of(layer):
            return True
        pending.extend(sublayers(layer))
    return False


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers that `layer` keeps in its attributes, in their order."""
    return list(getattr(layer, "_layers", None) or [])
