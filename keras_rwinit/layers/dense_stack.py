"""`DenseStack`: `depth` equal Dense layers in one weight and one loop."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from keras_rwinit._checks import check_count
from keras_rwinit._keras.stacked import mark_stacked
from keras_rwinit.initializers import RandomWalk

from ._drawing import StackedInitializer
from ._per_layer import PerLayerConstraint, PerLayerRegularizer

__all__ = ["DenseStack", "run_stack"]

_BACKENDS = ("tensorflow", "jax", "torch")
# Found once: PyTorch's compiler cannot look through an import.
_LOOP: ModuleType | None = (
    importlib.import_module(f"keras_rwinit.layers._loops.{keras.backend.backend()}")
    if keras.backend.backend() in _BACKENDS
    else None
)


def run_stack(
    x: Any,
    kernel: Any,
    bias: Any,
    activation: Callable[[Any], Any],
    inference: bool = False,
    segment: int | None = None,
) -> Any:
    """Applies `h = activation(h @ kernel[d] + bias[d])` for every d, in the back end's own loop.

    Args:
        x: Shape (batch, units). Its dtype is the one computed in; the weights are cast to it layer by layer.
        kernel: Shape (depth, units, units).
        bias: Shape (depth, units); (depth, batch, units) for a bias of each example's own, whose
            gradient is then the gradient at every example's pre-activations; or None.
        activation: Element-wise, of the back end.
        inference: Whether the loop is for predictions and export: on TensorFlow it then costs a
            copy of the activations and can be written into a SavedModel. No other back end minds.
        segment: Layers whose activations the gradient computes anew from the first one's input, rather
            than keeping them. `None`: keep all.

    Returns:
        The last layer's activations, shape (batch, units).
    """
    if _LOOP is None:
        raise ValueError(
            f"DenseStack runs on the {', '.join(_BACKENDS)} back ends of Keras. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    return _LOOP.run_stack(x, kernel, bias, activation, inference, segment)


def check_remat(remat: int | str | None) -> int | str | None:
    """`remat` of `DenseStack`, or a ValueError."""
    if isinstance(remat, str) and remat != "sqrt":
        raise ValueError(f"`remat` must be a number of layers, 'sqrt' or None. Received: remat={remat!r}")
    return remat if remat is None or isinstance(remat, str) else check_count("remat", remat)


@keras.saving.register_keras_serializable(package="keras_rwinit")
class DenseStack(keras.layers.Layer):
    r"""`depth` equal Dense layers, one after another, in one stacked weight.

    Computes `h_d = activation(h_{d-1} W_d + b_d)`, d = 1 ... depth, as `depth` calls of `keras.layers.Dense`
    would, with the same values and gradients, but compiles to one loop: building and compiling take
    the same time at any depth.

    On TensorFlow pass `training=True` in loops of your own, as `fit` does: without it the loop is one that
    can be exported, which copies the activations and every layer's weights.

    Every layer's kernel is drawn for itself, from a seed and a fan-in of its own. Regularizers and
    constraints apply to each layer's kernel and bias as they would to a Dense layer's. An activity
    regularizer sees the output of the last layer only.

    Args:
        depth: Number of layers, at least 1.
        activation: Name or function; element-wise.
        use_bias: Whether each layer adds a bias.
        kernel_initializer: Any Keras initializer, called once a layer with shape `(units, units)`.
            An int seed in it is the root of the layers' seeds. `None`: `RandomWalk` for the
            activation and depth of this stack.
        bias_initializer: Likewise, with shape `(units,)`.
        kernel_regularizer, bias_regularizer: Any Keras regularizer.
        kernel_constraint, bias_constraint: Any Keras constraint.
        remat: How the gradient comes by the activations. `None`: every layer's are kept, `depth` arrays of
            shape (batch, units). A number of layers: those of every so many layers are kept, and the
            others computed a second time, one such segment after another, at the cost of
            one more forward pass. `"sqrt"`: segments of `sqrt(depth)` layers, which keep the fewest
            activations at a time, `2 sqrt(depth)`.
        **kwargs: Of `keras.layers.Layer`: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Input shape:
        `(batch, units)`; the width of the stack is that of its input.

    Output shape:
        `(batch, units)`.

    Weights:
        `kernel` of shape `(depth, units, units)` and `bias` of shape `(depth, units)`.

    Raises:
        ValueError: `depth` is not an integer of at least 1, `remat` is none of the above, the input does
            not have two axes, or no gain exists for the activation.

    Example:
        >>> import keras, keras_rwinit
        >>> model = keras.Sequential([
        ...     keras.Input((64,)), keras_rwinit.layers.DenseStack(200), keras.layers.Dense(10)
        ... ])
        >>> tuple(model.layers[0].kernel.shape)
        (200, 64, 64)
    """

    def __init__(
        self,
        depth: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        remat: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depth = check_count("depth", depth)
        self.remat = check_remat(remat)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        if kernel_initializer is None:
            kernel_initializer = RandomWalk(self.activation, depth=self.depth)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        units = input_shape[-1]
        if units is None:
            raise ValueError(
                "DenseStack needs an input of known width, since it is the stack's own. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.kernel = self._add_stacked("kernel", (units, units))
        self.bias = self._add_stacked("bias", (units,)) if self.use_bias else None
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: units})

    def _add_stacked(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """One variable of `depth` layers' weights, each drawn by an initializer of its own."""
        regularizer = getattr(self, f"{name}_regularizer")
        constraint = getattr(self, f"{name}_constraint")
        weight = self.add_weight(
            name=name,
            shape=(self.depth, *shape),
            initializer=StackedInitializer(getattr(self, f"{name}_initializer")),
            regularizer=None if regularizer is None else PerLayerRegularizer(regularizer),
            constraint=None if constraint is None else PerLayerConstraint(constraint),
            autocast=False,  # the loop casts one layer at a time, where this would copy the whole stack
        )
        return mark_stacked(weight)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = keras.ops.cast(inputs, self.compute_dtype)
        kernel = keras.ops.convert_to_tensor(self.kernel)
        bias = None if self.bias is None else keras.ops.convert_to_tensor(self.bias)
        return run_stack(inputs, kernel, bias, self.activation, not training, self._segment())

    def _segment(self) -> int | None:
        return round(math.sqrt(self.depth)) if isinstance(self.remat, str) else self.remat

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "remat": self.remat,
        }
