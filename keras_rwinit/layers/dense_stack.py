"""`DenseStack`: many equal Dense layers with one variable, run as one loop."""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras

from keras_rwinit._checks import check_count
from keras_rwinit._keras.activations import get_activation, has_weights, in_precision
from keras_rwinit._keras.layer_kinds import KernelKind, LayerKind, register_layer_kind
from keras_rwinit._keras.names import get_initializer
from keras_rwinit._keras.types import ActivationLike, Initializer, Tensor
from keras_rwinit.initializers import RandomWalk

from ._adaptation import DENSE_ARGUMENTS, AdaptableStack, make_dense

__all__ = ["DENSE_ARGUMENTS", "DenseStack", "check_remat", "make_dense", "run_stack"]

_BACKENDS = ("tensorflow", "jax", "torch")
# Imported once, here: PyTorch's compiler cannot look through an import inside a function.
_LOOP: ModuleType | None = (
    importlib.import_module(f"keras_rwinit.layers._loops.{keras.backend.backend()}")
    if keras.backend.backend() in _BACKENDS
    else None
)


def run_stack(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
    inference: bool = False,
    segment: int | None = None,
) -> Tensor:
    """Applies `h = activation(h @ kernel[d] + bias[d])` for every d, in the back end's own loop.

    Args:
        x: Inputs of shape (batch, units). The loop computes in their dtype and casts the weights to it, layer
            by layer.
        kernel: Kernels of shape (depth, units, units).
        bias: Biases of shape (depth, units), or None.
        activation: Element-wise function of tensors of the back end; its results have the dtype of `x`.
        inference: Whether the loop is for predictions and export. On TensorFlow it can then be written into a
            SavedModel and other formats, and its gradient runs the layers once more. It changes nothing on
            other back ends.
        segment: Number of layers whose activations the gradient recomputes from the input of the first of
            them. `None`: the gradient keeps all activations.

    Returns:
        The last layer's activations, of shape (batch, units).
    """
    if _LOOP is None:
        raise ValueError(
            f"DenseStack runs on the {', '.join(_BACKENDS)} back ends of Keras. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    return _LOOP.run_stack(x, kernel, bias, activation, inference, segment)


def check_remat(remat: int | str | None) -> int | str | None:
    """Returns `remat` of `DenseStack`; ValueError unless it is a number of layers, "sqrt" or None."""
    if isinstance(remat, str) and remat != "sqrt":
        raise ValueError(f"`remat` must be a number of layers, 'sqrt' or None. Received: remat={remat!r}")
    return remat if remat is None or isinstance(remat, str) else check_count("remat", remat)


@keras.saving.register_keras_serializable(package="keras_rwinit")
class DenseStack(AdaptableStack):
    r"""Applies `depth` equal Dense layers one after another, with their weights in one variable.

    Computes `h_d = activation(h_{d-1} W_d + b_d)`, d = 1 ... depth, with the values and gradients of `depth`
    `keras.layers.Dense`, but compiles to one loop: building and compiling take the same time at any depth.

    On TensorFlow, pass `training=True` in custom training loops, as `fit` does. Without it the loop is one
    that can be exported; it copies every layer's weights, and its gradient runs the layers once more.

    `model.summary()` shows a layer's class and name, and so no depth; `repr(stack)` has depth and width.
    `len(stack)` is the depth, and `stack[8]` the ninth layer as a `keras.layers.Dense` with a copy of its
    weights: to look at a layer, or to build another model from it. To change a layer of the stack, assign to
    `stack.kernel` and `stack.bias`.

    Each layer's kernel is drawn with a different seed and the fan-in of one layer. Regularizers and
    constraints apply to each layer's kernel and bias as they would to a Dense layer's. An activity
    regularizer sees the output of the last layer only.

    Args:
        depth: Number of layers, at least 1.
        activation: Element-wise activation: a name that `keras_rwinit.gain` takes, a function or a layer.
            `"shaped(gelu)"` and the like are shaped for `depth` layers.
        use_bias: Whether each layer adds a bias.
        kernel_initializer: Any Keras initializer, called once per layer with shape `(units, units)`.
            An int seed in it is the root of the layers' seeds. `None`: `RandomWalk` for the
            activation and depth of this stack.
        bias_initializer: Any Keras initializer, called once per layer with shape `(units,)`.
        kernel_regularizer, bias_regularizer: Any Keras regularizer.
        kernel_constraint, bias_constraint: Any Keras constraint.
        remat: Which activations are kept for the gradient. `None`: those of every layer, `depth` arrays of
            shape (batch, units). A number of layers: the input of every segment of so many layers; the
            gradient recomputes the activations of one segment after another, at the cost of one more forward
            pass. `"sqrt"`: segments of `sqrt(depth)` layers, which keep the fewest activations at a time,
            `2 sqrt(depth)`. On TensorFlow, XLA compiles second and higher derivatives with `None` only.
        lora_rank: Rank of each layer's low-rank update, as in `keras.layers.Dense`; see `enable_lora`.
        lora_alpha: Scale of the updates times `lora_rank`. `None`: `lora_rank`, a scale of 1.
        quantization_config: Configuration of `quantize`, as in `keras.layers.Dense`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Input shape:
        `(batch, ..., units)`. The stack has the width of its input's last axis.

    Output shape:
        `(batch, ..., units)`.

    Weights:
        `kernel` of shape `(depth, units, units)` and `bias` of shape `(depth, units)`. After `enable_lora`,
        `kernel` is the sum of the frozen kernels and the updates; `quantize` makes it integers and adds
        `kernel_scale`.

    Raises:
        ValueError: `depth` is not an integer of at least 1, `remat` is none of the above, the activation is
            unknown or a layer with weights, the input has fewer than two axes, or no gain exists for the
            activation.

    Example:
        >>> import keras, keras_rwinit
        >>> model = keras.Sequential([
        ...     keras.Input((64,)), keras_rwinit.layers.DenseStack(200), keras.layers.Dense(10)
        ... ])
        >>> stack = model.layers[0]
        >>> len(stack), tuple(stack.kernel.shape), tuple(stack[8].kernel.shape)
        (200, (200, 64, 64), (64, 64))
    """

    def __init__(
        self,
        depth: int,
        activation: ActivationLike = "relu",
        use_bias: bool = True,
        kernel_initializer: Initializer | str | None = None,
        bias_initializer: Initializer | str = "zeros",
        kernel_regularizer: keras.regularizers.Regularizer | str | None = None,
        bias_regularizer: keras.regularizers.Regularizer | str | None = None,
        kernel_constraint: keras.constraints.Constraint | str | None = None,
        bias_constraint: keras.constraints.Constraint | str | None = None,
        remat: int | str | None = None,
        *,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lora_rank, lora_alpha, quantization_config, **kwargs)
        if not keras.backend.is_float_dtype(self.variable_dtype):
            raise ValueError(
                f"`dtype` must be a float dtype or a policy of one. Received: dtype={self.variable_dtype!r}"
            )
        self.depth = check_count("depth", depth)
        self.remat = check_remat(remat)
        self.activation = get_activation(activation, self.depth)
        if has_weights(self.activation):
            raise ValueError(
                "The layers of a DenseStack share one activation, and a layer such as PReLU has weights for "
                "each of them. Use Dense layers with an activation each, as `model_zoo.deep_mlp(..., "
                f"stacked=False)` makes them. Received: activation={activation!r}"
            )
        self.use_bias = use_bias
        if kernel_initializer is None:
            kernel_initializer = RandomWalk(self.activation, depth=self.depth)
        self.kernel_initializer = get_initializer(kernel_initializer, "kernel_initializer")
        self.bias_initializer = get_initializer(bias_initializer, "bias_initializer")
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        units = input_shape[-1]
        if units is None:
            raise ValueError(
                "DenseStack needs an input of known width, since its layers have the same width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self._units = units
        self._add_kernels()
        self.bias = None
        if self.use_bias:
            self.bias = self._add_stacked(
                "bias", (units,), self.bias_initializer, self.bias_regularizer, self.bias_constraint
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: units})
        self.built: bool = True
        if self.lora_rank is not None:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        kernel = keras.ops.convert_to_tensor(self.kernel)
        bias = None if self.bias is None else keras.ops.convert_to_tensor(self.bias)
        activation = in_precision(self.activation, self.compute_dtype)
        x = self._as_matrix(inputs)
        y = run_stack(x, kernel, bias, activation, not training, self._segment())
        return self._as_inputs(y, inputs)

    def quantized_call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self._as_inputs(self._run_quantized(self._as_matrix(inputs)), inputs)

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        """Replaces the kernels by integers, each layer's as Keras's Dense does.

        Args:
            mode: `"int8"` or `"int4"`. `None`: that of `config`.
            type_check: Whether to refuse subclasses.
            config: A configuration of Keras's, such as `keras.quantizers.Int8QuantizationConfig()`. `None`:
                Keras's default for the mode.

        Raises:
            ValueError: `mode` and `config` are both None, or the stack is not built or is quantized already.
            NotImplementedError: (a warning in `Model.quantize`) The mode is another one of Keras's, or the
                layer is a subclass.

        Example:
            >>> from keras_rwinit import model_zoo
            >>> model = model_zoo.deep_mlp(depth=9, width=32, input_shape=(64,))
            >>> model.get_layer("hidden_stack").quantize("int8")
            >>> model.get_layer("hidden_stack").kernel.dtype
            'int8'
        """
        # A subclass may do anything with its kernels.
        if type_check and type(self) is not DenseStack:
            raise self._not_implemented_error(self.quantize)
        if mode not in ("int8", "int4"):
            raise NotImplementedError(
                f"A DenseStack can be quantized to int8 and int4; for {mode} use Dense layers, as "
                f"`model_zoo.unstack(model)` makes them. The layer {self.name!r} stays as it is."
            )
        self._quantize_kernels(mode, config)

    def _as_matrix(self, inputs: Tensor) -> Tensor:
        """Returns the inputs with one row for each position."""
        inputs = keras.ops.cast(inputs, self.compute_dtype)
        shape = keras.ops.shape(inputs)
        return inputs if len(shape) == 2 else keras.ops.reshape(inputs, (math.prod(shape[:-1]), shape[-1]))

    def _as_inputs(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Returns the rows of `outputs` in the shape of `inputs`."""
        shape = keras.ops.shape(inputs)
        return outputs if len(shape) == 2 else keras.ops.reshape(outputs, shape)

    def _segment(self) -> int | None:
        """Returns the number of layers in a segment of `remat`."""
        # depth / s kept inputs plus s recomputed activations are fewest at s = sqrt(depth).
        return round(math.sqrt(self.depth)) if isinstance(self.remat, str) else self.remat

    def __len__(self) -> int:
        return self.depth

    def __getitem__(self, index: int) -> keras.layers.Dense:
        """Returns one layer as a Dense layer with a copy of its weights.

        Args:
            index: Number of the layer, from 0; from the end if negative.

        Raises:
            IndexError: There is no such layer.
            TypeError: `index` is not an integer.
            ValueError: The stack is not built.
        """
        number = operator.index(index)
        if not -self.depth <= number < self.depth:
            raise IndexError(f"The stack has {self.depth} layers. Received: index={index}")
        if not self.built:
            raise ValueError(f"The stack has no weights yet: build it or call it once. Received: {self!r}")
        return self._layer(number % self.depth)

    def __iter__(self) -> Iterator[keras.layers.Dense]:
        return (self[index] for index in range(self.depth))

    def __repr__(self) -> str:
        return f"<DenseStack name={self.name}, depth={self.depth}, units={self.units}, built={self.built}>"

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


register_layer_kind(DenseStack, LayerKind((KernelKind("kernel", lambda layer, axes: (0,), stacked="depth"),)))
