"""The kernels of a Keras layer: which weights they are, what they sum over, what follows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_rwinit._keras.fans import TRANSPOSED, fan_in_axes
from keras_rwinit.layers import DenseStack

__all__ = [
    "Kernel",
    "has_own_activation",
    "hides_sublayers",
    "holds_kernels",
    "kernels_of",
    "skip_reason",
    "sublayers",
]

L = keras.layers

# Layers that compute `activation(inputs @ kernel + bias)` and nothing after it.
_WITH_ACTIVATION: tuple[type, ...] = (
    L.Dense,
    L.EinsumDense,
    L.Conv1D,
    L.Conv2D,
    L.Conv3D,
    *TRANSPOSED,
    L.DepthwiseConv1D,
    L.DepthwiseConv2D,
    L.SeparableConv1D,
    L.SeparableConv2D,
)
_NOT_KERNELS: tuple[tuple[type, str], ...] = (
    (L.Embedding, "an embedding is a table, not a kernel"),
    (L.RNN, "recurrent kernels repeat over time and make no random walk"),
    (L.Bidirectional, "recurrent kernels repeat over time and make no random walk"),
    (L.SpectralNormalization, "the layer divides its kernel by its largest singular value"),
)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel of a layer, or the stacked kernel of a `DenseStack`.

    Args:
        layer: The layer.
        variable: The weight.
        contracted: Axes of one kernel that an output unit sums over.
        activation: The layer's own activation after this kernel; None where there is none.
        stacked: Number of layers that a `DenseStack`'s weight holds; 0 for an ordinary kernel.
    """

    layer: Any
    variable: Any
    contracted: tuple[int, ...]
    activation: Any = None
    stacked: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one kernel."""
        shape = tuple(int(size) for size in self.variable.shape)
        return shape[1:] if self.stacked else shape

    @property
    def fan_in(self) -> float:
        """Inputs that an output unit sums over; their mean number in a strided transposed convolution."""
        full = math.prod(self.shape[axis] for axis in self.contracted)
        if isinstance(self.layer, TRANSPOSED):
            window, strides = self.shape[:-2], self.layer.strides
            return full / math.prod(min(s, k) for s, k in zip(strides, window, strict=True))
        return float(full)


def kernels_of(layer: Any) -> list[Kernel]:
    """The kernels of one layer, its sublayers' not among them, in the order in which they are applied."""
    if skip_reason(layer):
        return []
    if isinstance(layer, L.TimeDistributed):
        return kernels_of(layer.layer)
    if isinstance(layer, DenseStack):
        return [Kernel(layer, layer.kernel, (0,), layer.activation, layer.depth)]
    if isinstance(layer, L.SeparableConv1D | L.SeparableConv2D):
        depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
        return [
            Kernel(layer, depthwise, tuple(range(len(depthwise.shape) - 2))),
            Kernel(layer, pointwise, tuple(range(len(pointwise.shape) - 1)), layer.activation),
        ]
    variable = getattr(layer, "kernel", None)
    if not isinstance(variable, keras.Variable):  # under LoRA `kernel` is a sum, and this its fixed term
        variable = getattr(layer, "_kernel", None)
    if not isinstance(variable, keras.Variable) or len(variable.shape) < 2:
        return []
    activation = getattr(layer, "activation", None)
    return [Kernel(layer, variable, fan_in_axes(tuple(variable.shape), None, layer), activation)]


def skip_reason(layer: Any) -> str:
    """Why the weights of `layer` are no kernels of a walk; empty if they may be."""
    return next((reason for kind, reason in _NOT_KERNELS if isinstance(layer, kind)), "")


def has_own_activation(layer: Any) -> bool:
    """Whether what `layer` passes to its own `activation` are the pre-activations of its kernel."""
    return any(
        isinstance(layer, kind) and _implementation(layer) is _implementation(kind)
        for kind in _WITH_ACTIVATION
    )


def _implementation(owner: Any) -> Callable[..., Any] | None:
    return getattr(owner if isinstance(owner, type) else type(owner), "call", None)


def hides_sublayers(layer: Any) -> bool:
    """Whether the sublayers of `layer` may run inside a loop of the back end, out of sight."""
    return bool(skip_reason(layer)) or isinstance(layer, L.TimeDistributed)


def holds_kernels(layer: Any) -> bool:
    """Whether `layer` or one of its sublayers has a kernel."""
    pending = [layer]
    while pending:
        layer = pending.pop()
        if kernels_of(layer):
            return True
        pending.extend(sublayers(layer))
    return False


def sublayers(layer: Any) -> list[Any]:
    """The layers that `layer` keeps in its attributes, in their order."""
    return list(getattr(layer, "_layers", None) or [])
