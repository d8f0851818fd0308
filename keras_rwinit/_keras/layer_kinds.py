"""The one table of layer kinds: which kernels a layer has, and what it does to the signal that passes.

To add a kind of layer, add an entry to `_KINDS`. Initializers, tracing, `initialize` and `gradient_walk` read
this table. A layer defined above this module registers itself by `register_layer_kind`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import keras

from keras_rwinit.theory import ACTIVATIONS

from .types import ActivationLike

__all__ = [
    "Effect",
    "KernelKind",
    "LayerKind",
    "activates_kernel_output",
    "contracted_axes",
    "layer_kind",
    "register_layer_kind",
]

L = keras.layers
Operation: TypeAlias = keras.Operation
Axes: TypeAlias = tuple[int, ...]
Shape: TypeAlias = tuple[int | None, ...]


class Effect(enum.Enum):
    """What an operation without kernels does to a signal."""

    ACTIVATION = "acts element by element"
    NORMALIZATION = "gives its output unit variance"
    SUM = "adds its inputs"
    PRODUCT = "multiplies its inputs"
    CONCATENATION = "puts its inputs side by side"
    EMBEDDING = "looks up rows of a table"


@dataclass(frozen=True)
class KernelKind:
    """A kernel of a kind of layer.

    Args:
        attribute: Attribute of the layer that holds the kernel.
        contracted: Returns the axes that an output unit sums over, for the layer and all axes of the kernel.
        activated: Whether the layer's own activation follows.
        zero_padded: Whether the kernel reads zeros beyond the edge where the layer's `padding` is "same".
        transposed: Whether the strides of the layer spread its inputs, so that an output unit sums over a
            part of the kernel's fan-in only.
        stacked: Attribute of the layer that counts the kernels along the first axis of the weight; empty for
            an ordinary kernel.
    """

    attribute: str
    contracted: Callable[[keras.layers.Layer, Axes], Axes]
    activated: bool = True
    zero_padded: bool = False
    transposed: bool = False
    stacked: str = ""


def _same_shape(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class LayerKind:
    """What the package knows of a kind of layer or operation.

    Args:
        kernels: The kernels in the order in which the layer applies them.
        effect: What the layer does to a signal, if it has no kernel.
        activation: Returns the activation that the layer applies, where `effect` is `Effect.ACTIVATION`.
        wrapped: Attribute that holds the wrapped layer, whose kernels count as this layer's; empty if there
            is none.
        wrapped_shape: Returns the input shape of the wrapped layer for that of the layer.
        chained: Attribute that lists the layers that it applies one after another; empty if there is none.
        runs_user_code: Whether it calls a function of the user's, which may hold sums and activations.
        hides_sublayers: Whether its sublayers may run inside a loop of the back end, out of sight.
        skip_reason: Why its weights are no kernels of a walk; empty if they may be.
        measured: Whether `gradient_walk` measures its output although its weights are no kernels of a walk.
    """

    kernels: tuple[KernelKind, ...] = ()
    effect: Effect | None = None
    activation: Callable[[Operation], ActivationLike] | None = None
    wrapped: str = ""
    wrapped_shape: Callable[[Shape], Shape] = _same_shape
    chained: str = ""
    runs_user_code: bool = False
    hides_sublayers: bool = False
    skip_reason: str = ""
    measured: bool = False


def _leading_axes(layer: keras.layers.Layer, axes: Axes) -> Axes:
    """Returns all axes but the last, which counts the outputs: so Keras reads a kernel."""
    return axes[:-1]


def _window_axes(layer: keras.layers.Layer, axes: Axes) -> Axes:
    """Returns the axes of a depthwise kernel's window; its channels stay apart."""
    return axes[:-2]


def _transposed_axes(layer: keras.layers.Layer, axes: Axes) -> Axes:
    """Returns the axes of a transposed convolution's window and of its inputs, which come last."""
    return (*axes[:-2], axes[-1])


def _einsum_axes(layer: keras.layers.EinsumDense, axes: Axes) -> Axes:
    """Returns the axes of the kernel that the equation sums over."""
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    summed = tuple(
        axis for axis, label in zip(axes, kernel, strict=True) if label in inputs and label not in output
    )
    # An equation that sums over no axis of the kernel is read as a Dense kernel is.
    return summed or axes[:-1]


def _one_step_shape(shape: Shape) -> Shape:
    """Returns the shape of one time step."""
    return (shape[0], *shape[2:])


def _prelu_activation(layer: keras.layers.PReLU) -> str:
    """Returns the activation of the mean slope, which stands for the units' own slopes."""
    slope = float(keras.ops.convert_to_numpy(layer.alpha.value).mean())
    return f"leaky_relu({slope!r})" if slope else "relu"


def _relu_activation(layer: keras.layers.ReLU) -> ActivationLike:
    slope, highest = float(layer.negative_slope or 0.0), layer.max_value
    # Other shifted or cut ReLUs have no name in the theory's table.
    if layer.threshold or (highest is not None and (slope or highest != 6.0)):
        return layer
    if highest is not None:
        return "relu6"
    return f"leaky_relu({slope!r})" if slope else "relu"


def _named_activation(name: str) -> LayerKind:
    return LayerKind(effect=Effect.ACTIVATION, activation=lambda operation: name)


def _class_name(name: str) -> str:
    """Returns `HardTanh` for `hard_tanh`, as Keras names its operations."""
    return "".join(part.capitalize() for part in name.split("_"))


_DENSE = LayerKind((KernelKind("kernel", _leading_axes),))
_CONVOLUTION = LayerKind((KernelKind("kernel", _leading_axes, zero_padded=True),))
_TRANSPOSED = LayerKind((KernelKind("kernel", _transposed_axes, transposed=True),))
_DEPTHWISE = LayerKind((KernelKind("kernel", _window_axes, zero_padded=True),))
_SEPARABLE = LayerKind(
    (
        KernelKind("depthwise_kernel", _window_axes, activated=False, zero_padded=True),
        KernelKind("pointwise_kernel", _leading_axes),
    )
)
_RECURRENT = LayerKind(
    hides_sublayers=True,
    skip_reason="recurrent kernels repeat over time and make no random walk",
    measured=True,
)
_NORMALIZATION = LayerKind(effect=Effect.NORMALIZATION)
_ITSELF = LayerKind(effect=Effect.ACTIVATION, activation=lambda layer: layer)

_KINDS: dict[type, LayerKind] = {
    # Layers that compute `activation(inputs @ kernel + bias)` and nothing after it
    L.Dense: _DENSE,
    L.EinsumDense: LayerKind((KernelKind("kernel", _einsum_axes),)),
    L.Conv1D: _CONVOLUTION,
    L.Conv2D: _CONVOLUTION,
    L.Conv3D: _CONVOLUTION,
    L.Conv1DTranspose: _TRANSPOSED,
    L.Conv2DTranspose: _TRANSPOSED,
    L.Conv3DTranspose: _TRANSPOSED,
    L.DepthwiseConv1D: _DEPTHWISE,
    L.DepthwiseConv2D: _DEPTHWISE,
    L.SeparableConv1D: _SEPARABLE,
    L.SeparableConv2D: _SEPARABLE,
    # Layers of other layers
    L.TimeDistributed: LayerKind(wrapped="layer", wrapped_shape=_one_step_shape, hides_sublayers=True),
    L.RNN: _RECURRENT,
    L.Bidirectional: _RECURRENT,
    L.SpectralNormalization: LayerKind(
        hides_sublayers=True,
        skip_reason="the layer divides its kernel by its largest singular value",
        measured=True,
    ),
    L.Embedding: LayerKind(
        effect=Effect.EMBEDDING,
        hides_sublayers=True,
        skip_reason="an embedding is a table, not a kernel",
    ),
    # Layers without a kernel
    L.Lambda: LayerKind(runs_user_code=True),
    L.BatchNormalization: _NORMALIZATION,
    L.LayerNormalization: _NORMALIZATION,
    L.GroupNormalization: _NORMALIZATION,
    L.RMSNormalization: _NORMALIZATION,
    L.UnitNormalization: _NORMALIZATION,
    L.Activation: _ITSELF,
    **{getattr(L, known.keras_layer.name): _ITSELF for known in ACTIVATIONS.values() if known.keras_layer},
    L.ReLU: LayerKind(effect=Effect.ACTIVATION, activation=_relu_activation),
    L.PReLU: LayerKind(effect=Effect.ACTIVATION, activation=_prelu_activation),
    L.Add: LayerKind(effect=Effect.SUM),
    L.Average: LayerKind(effect=Effect.SUM),
    L.Subtract: LayerKind(effect=Effect.SUM),
    L.Multiply: LayerKind(effect=Effect.PRODUCT),
    L.Concatenate: LayerKind(effect=Effect.CONCATENATION),
}

# Functions of `keras.ops`, by the names of their classes, which are not public.
_OPERATIONS: dict[str, LayerKind] = {
    **{_class_name(name): _named_activation(name) for name in ACTIVATIONS},
    "LeakyRelu": LayerKind(
        effect=Effect.ACTIVATION,
        activation=lambda operation: f"leaky_relu({float(operation.negative_slope)!r})",
    ),
    "Add": LayerKind(effect=Effect.SUM),
    "Average": LayerKind(effect=Effect.SUM),
    "Subtract": LayerKind(effect=Effect.SUM),
    "Multiply": LayerKind(effect=Effect.PRODUCT),
    "Concatenate": LayerKind(effect=Effect.CONCATENATION),
    "Stack": LayerKind(effect=Effect.CONCATENATION),
    "Hstack": LayerKind(effect=Effect.CONCATENATION),
    "Vstack": LayerKind(effect=Effect.CONCATENATION),
}

# Any other layer may have a weight called `kernel`, as recurrent cells have.
_OTHER_LAYER = _DENSE
_OTHER_OPERATION = LayerKind()


def register_layer_kind(cls: type[keras.layers.Layer], kind: LayerKind) -> None:
    """Adds a class of layers, and its subclasses, to the table."""
    _KINDS[cls] = kind


def layer_kind(operation: Operation) -> LayerKind:
    """Returns the kind of a layer or operation: that of its class or of the nearest class above it."""
    cls = _registered_class(operation)
    if cls is not None:
        return _KINDS[cls]
    if isinstance(operation, keras.layers.Layer):
        return _OTHER_LAYER
    names = (cls.__name__ for cls in type(operation).__mro__)
    return next((_OPERATIONS[name] for name in names if name in _OPERATIONS), _OTHER_OPERATION)


def _registered_class(operation: Operation) -> type | None:
    return next((cls for cls in type(operation).__mro__ if cls in _KINDS), None)


def activates_kernel_output(layer: keras.layers.Layer) -> bool:
    """Returns whether `layer` applies its `activation` directly to its kernel's output."""
    cls = _registered_class(layer)
    if cls is None or not any(kernel.activated for kernel in _KINDS[cls].kernels):
        return False
    # A subclass with its own `call` may do anything. An instance's `call` hides that of its class.
    return bool(type(layer).call is cls.call)  # type: ignore[attr-defined]


def contracted_axes(layer: keras.layers.Layer | None, rank: int) -> Axes:
    """Returns which axes of the next kernel that `layer` creates are summed over.

    Args:
        layer: The layer whose `build` is running, if known.
        rank: Number of axes of the kernel.
    """
    axes = tuple(range(rank))
    kernels = () if layer is None else layer_kind(layer).kernels
    if not kernels:
        return axes[:-1]
    # Layers create their kernels in the table's order: the first one that is missing is next.
    missing = (kernel for kernel in kernels if getattr(layer, kernel.attribute, None) is None)
    return next(missing, kernels[-1]).contracted(layer, axes)
