"""The kernels of a Keras layer: which weights they are, what they sum over, what follows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras

from keras_rwinit._keras.layer_kinds import KernelKind, activates_kernel_output, layer_kind
from keras_rwinit._keras.types import Tensor

__all__ = [
    "Kernel",
    "activates_kernel_output",
    "hides_sublayers",
    "holds_kernels",
    "kernels_of",
    "skip_reason",
    "sublayers",
]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of a layer, or the stacked kernel of a `DenseStack`.

    Args:
        layer: The layer.
        variable: The weight.
        kind: What the table of layer kinds says of it.
        activation: The layer's own activation after this kernel; None where there is none.
        stacked: Number of layers that a `DenseStack`'s weight holds; 0 for an ordinary kernel.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    kind: KernelKind
    activation: Callable[[Tensor], Tensor] | None = None
    stacked: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one kernel."""
        shape = tuple(int(size) for size in self.variable.shape)
        return shape[1:] if self.stacked else shape

    @property
    def contracted(self) -> tuple[int, ...]:
        """Axes of one kernel that an output unit sums over."""
        return self.kind.contracted(self.layer, tuple(range(len(self.shape))))

    @property
    def fan_in(self) -> float:
        """Inputs that an output unit sums over; their mean number in a strided transposed convolution."""
        full = math.prod(self.shape[axis] for axis in self.contracted)
        if self.kind.transposed:
            # Along each axis an output meets every stride-th entry of the window.
            window, strides = self.shape[:-2], self.layer.strides
            return full / math.prod(min(s, k) for s, k in zip(strides, window, strict=True))
        return float(full)


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
    return kernels


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
