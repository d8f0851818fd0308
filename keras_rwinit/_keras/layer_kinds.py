"""The one table of layer kinds: which kernels a layer has, and what it does to the signal that passes.

To add a kind of layer, add an entry to `_KINDS`. Initializers, tracing, `initialize` and `gradient_walk` read
this table. A layer defined above this module registers itself by `register_layer_kind`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import keras

from keras_rwinit.theory import ACTIVATIONS
from keras_rwinit.theory.activations import NOT_ELEMENTWISE, SELU_ALPHA, SELU_SCALE

from .types import ActivationLike

__all__ = [
    "Effect",
    "Factor",
    "KernelKind",
    "LayerKind",
    "activates_kernel_output",
    "contracted_axes",
    "is_known_layer",
    "kernel_kind_being_built",
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
    UNIT_LENGTH = "gives its output unit length"
    SUM = "adds its inputs"
    MEAN = "takes the mean of its inputs"
    PRODUCT = "multiplies its inputs"
    QUOTIENT = "divides its first input by the second"
    CONCATENATION = "puts its inputs side by side"
    EMBEDDING = "looks up rows of a table"
    FUNCTION = "computes what its values tell"


@dataclass(frozen=True)
class Factor:
    """Independent factors by which a layer multiplies the gradient of each of its inputs.

    Args:
        mean_square: Mean square m of the factor: the squared norm of a gradient is multiplied by m on its
            way back. So is the signal's mean square on its way forward, unless `only_backward`.
        kurtosis: Fourth moment of the factor over the square of m; 1 if it is the same for all units.
        reason: What the layer does, for reports.
        random: Whether the factors are drawn anew for each example, in training only.
        only_backward: Whether the signal itself is changed by less than the gradient.
        dropped_value: What alpha dropout puts in the place of a unit that it drops; else 0.
    """

    mean_square: float
    kurtosis: float
    reason: str
    random: bool = False
    only_backward: bool = False
    dropped_value: float = 0.0


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
        factor: Returns the factor by which the layer multiplies gradients, or None where it passes them on.
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
    factor: Callable[[Operation], Factor | None] | None = None
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


def _time_step_shape(shape: Shape) -> Shape:
    """Returns the shape of one time step."""
    return (shape[0], *shape[2:])


def _relu_activation(layer: keras.layers.ReLU) -> ActivationLike:
    slope, highest = float(layer.negative_slope or 0.0), layer.max_value
    # Other shifted or cut ReLUs have no name in the theory's table.
    if layer.threshold or (highest is not None and (slope or highest != 6.0)):
        return layer
    if highest is not None:
        return "relu6"
    return f"leaky_relu({slope!r})" if slope else "relu"


def _dropout_factor(layer: keras.layers.Dropout) -> Factor | None:
    """Returns the factor of inverted dropout: 1 / (1 - rate) with probability 1 - rate, else 0.

    Its mean square and its kurtosis are both `1 / (1 - rate)`.
    """
    kept = 1.0 - float(layer.rate)
    return Factor(1.0 / kept, 1.0 / kept, f"dropout of {layer.rate:g}", random=True) if 0 < kept < 1 else None


def _gaussian_dropout_factor(layer: keras.layers.GaussianDropout) -> Factor | None:
    """Returns the factor of a normal variable of mean 1 and variance s = rate / (1 - rate).

    `E m^2 = 1 + s = 1 / (1 - rate)`, as of plain dropout, and `E m^4 = 1 + 6 s + 3 s^2`.
    """
    rate = float(layer.rate)
    if not 0.0 < rate < 1.0:
        return None
    s = rate / (1.0 - rate)
    kurtosis = (1.0 + 6.0 * s + 3.0 * s * s) / (1.0 + s) ** 2
    return Factor(1.0 + s, kurtosis, f"Gaussian dropout of {rate:g}", random=True)


def _alpha_dropout_factor(layer: keras.layers.AlphaDropout) -> Factor | None:
    """Returns the factor `a` with probability 1 - rate, else 0, of `a (x m + p (1 - m)) + b`.

    `a^2 = 1 / ((1 - rate)(1 + rate p^2))` keeps the variance of a standardized signal, so that the gradient
    has `E m^2 = a^2 (1 - rate) = 1 / (1 + rate p^2)`; p is SELU's lowest value (Klambauer et al.,
    arXiv:1706.02515).
    """
    rate = float(layer.rate)
    if not 0.0 < rate < 1.0:
        return None
    mean_square = 1.0 / (1.0 + rate * _SELU_LOWEST**2)
    reason = f"alpha dropout of {rate:g}"
    return Factor(
        mean_square,
        1.0 / (1.0 - rate),
        reason,
        random=True,
        only_backward=True,
        dropped_value=_SELU_LOWEST,
    )


def _average_pooling_factor(layer: keras.layers.AveragePooling2D) -> Factor | None:
    """Returns the factor of a mean over k positions: it gives each of them `1 / k` of its own gradient.

    Disjoint windows leave `k (delta / k)^2 = delta^2 / k` of a squared gradient, and so do overlapping ones
    whose gradients are uncorrelated. The signal's mean square falls to `1 / k + (1 - 1 / k) c`, where c is
    the correlation (not centered) of two positions.
    """
    positions = math.prod(_as_tuple(layer.pool_size))
    return Factor(1.0 / positions, 1.0, f"mean of {positions} positions", only_backward=True)


def _as_tuple(value: int | Axes) -> Axes:
    return (value,) if isinstance(value, int) else tuple(value)


def _named_activation(name: str) -> LayerKind:
    """Returns the kind of an operation that is the activation `name` of the theory's table."""

    def find(operation: Operation) -> ActivationLike:
        parameters = {key: value for key, value in operation.get_config().items() if key != "name"}
        # Operations have defaults of their own: `keras.ops.gelu` is the approximate one.
        if name == "gelu" and parameters.get("approximate"):
            return "gelu_tanh"
        if name in _FAMILY_PARAMETERS:
            return f"{name}({float(parameters[_FAMILY_PARAMETERS[name]])!r})"
        return operation if set(parameters) - {"approximate"} else name

    return LayerKind(effect=Effect.ACTIVATION, activation=find)


def _mixing_activation(name: str) -> LayerKind:
    """Returns the kind of what applies an activation of Keras's that mixes the units."""
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
_SELU_LOWEST = -SELU_ALPHA * SELU_SCALE
_AVERAGE_POOLING = LayerKind(factor=_average_pooling_factor)
_NORMALIZATION = LayerKind(effect=Effect.NORMALIZATION)
_ITSELF = LayerKind(effect=Effect.ACTIVATION, activation=lambda layer: layer)
_FUNCTION = LayerKind(effect=Effect.FUNCTION)
# Parameters of operations whose activations have a name with a parameter in the theory's table
_FAMILY_PARAMETERS = {"leaky_relu": "negative_slope", "elu": "alpha", "celu": "alpha", "squareplus": "b"}

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
    L.TimeDistributed: LayerKind(wrapped="layer", wrapped_shape=_time_step_shape, hides_sublayers=True),
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
    L.UnitNormalization: LayerKind(effect=Effect.UNIT_LENGTH),
    L.Dropout: LayerKind(factor=_dropout_factor),
    L.GaussianDropout: LayerKind(factor=_gaussian_dropout_factor),
    L.AlphaDropout: LayerKind(factor=_alpha_dropout_factor),
    # A mean over the whole image is left out: positions of a deep network are alike, so that it keeps the
    # signal, and a factor for its gradient would drive what it feeds into saturation.
    L.AveragePooling1D: _AVERAGE_POOLING,
    L.AveragePooling2D: _AVERAGE_POOLING,
    L.AveragePooling3D: _AVERAGE_POOLING,
    L.Activation: _ITSELF,
    **{getattr(L, known.keras_layer.name): _ITSELF for known in ACTIVATIONS.values() if known.keras_layer},
    L.ReLU: LayerKind(effect=Effect.ACTIVATION, activation=_relu_activation),
    L.PReLU: _ITSELF,
    L.Softmax: _mixing_activation("softmax"),
    L.Add: LayerKind(effect=Effect.SUM),
    L.Average: LayerKind(effect=Effect.MEAN),
    L.Subtract: LayerKind(effect=Effect.SUM),
    L.Multiply: LayerKind(effect=Effect.PRODUCT),
    L.Maximum: _FUNCTION,
    L.Minimum: _FUNCTION,
    L.Rescaling: _FUNCTION,
    L.Concatenate: LayerKind(effect=Effect.CONCATENATION),
}

# Functions of `keras.ops` that move, repeat, select or linearly combine the elements of a tensor.
_PASSING = """
    Rearrange Cast SaturateCast Copy Identity StopGradient ConvertToTensor Slice SliceUpdate Scatter
    ScatterUpdate Unstack GetItem Reshape Ravel View Transpose Moveaxis Swapaxes Squeeze ExpandDims Flip
    Fliplr Flipud Rot90 Roll Repeat Tile BroadcastTo Pad Append Split ArraySplit Hsplit Vsplit Dsplit Take
    TakeAlongAxis Tril Triu Diag Diagonal Trace Sort Max Amax Min Amin Median MaxPool AdaptiveMaxPool Mean
    Average Sum Cumsum Diff Correlate AveragePool AdaptiveAveragePool Einsum Matmul Dot Tensordot Vdot Inner
    Conv DepthwiseConv SeparableConv ConvTranspose DotProductAttention Resize CropImages PadImages
    ExtractPatches AffineTransform GaussianBlur DepthToSpace SpaceToDepth Unfold Fold
"""

# Functions of `keras.ops`, by the names of their classes, which are not public.
_OPERATIONS: dict[str, LayerKind] = {
    **{_class_name(name): _named_activation(name) for name in ACTIVATIONS},
    "Add": LayerKind(effect=Effect.SUM),
    "Subtract": LayerKind(effect=Effect.SUM),
    "Multiply": LayerKind(effect=Effect.PRODUCT),
    "Divide": LayerKind(effect=Effect.QUOTIENT),
    "TrueDivide": LayerKind(effect=Effect.QUOTIENT),
    "Concatenate": LayerKind(effect=Effect.CONCATENATION),
    "Stack": LayerKind(effect=Effect.CONCATENATION),
    "Hstack": LayerKind(effect=Effect.CONCATENATION),
    "Vstack": LayerKind(effect=Effect.CONCATENATION),
    "LayerNorm": _NORMALIZATION,
    "RMSNorm": _NORMALIZATION,
    "BatchNorm": _NORMALIZATION,
    **{_class_name(name): _mixing_activation(name) for name in NOT_ELEMENTWISE},
    **dict.fromkeys(_PASSING.split(), LayerKind()),
}

# Any other layer may have a weight called `kernel`, as recurrent cells have.
_OTHER_LAYER = _DENSE
# Any other operation is looked at by its values.
_OTHER_OPERATION = _FUNCTION


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


def is_known_layer(layer: keras.layers.Layer) -> bool:
    """Returns whether the table has the class of `layer` or one above it."""
    return _registered_class(layer) is not None


def activates_kernel_output(layer: keras.layers.Layer) -> bool:
    """Returns whether `layer` applies its `activation` directly to its kernel's output."""
    cls = _registered_class(layer)
    if cls is None or not any(kernel.activated for kernel in _KINDS[cls].kernels):
        return False
    # A subclass with its own `call` may do anything. An instance's `call` hides that of its class.
    return bool(type(layer).call is cls.call)  # type: ignore[attr-defined]


def kernel_kind_being_built(layer: keras.layers.Layer | None) -> KernelKind | None:
    """Returns the kind of the next kernel that `layer` creates; None where nothing is known of it."""
    kernels = () if layer is None else layer_kind(layer).kernels
    # Layers create their kernels in the table's order: the first one that is missing is next.
    missing = (kernel for kernel in kernels if getattr(layer, kernel.attribute, None) is None)
    return next(missing, kernels[-1] if kernels else None)


def contracted_axes(layer: keras.layers.Layer | None, rank: int) -> Axes:
    """Returns which axes of the next kernel that `layer` creates are summed over.

    Args:
        layer: The layer whose `build` is running, if known.
        rank: Number of axes of the kernel.
    """
    axes = tuple(range(rank))
    kind = kernel_kind_being_built(layer)
    return axes[:-1] if layer is None or kind is None else kind.contracted(layer, axes)
