"""Forward passes of single layers that keep their precision and return their pre-activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import keras

from keras_rwinit._keras.activations import NamedActivation, theory_activation
from keras_rwinit._keras.autodiff import tape_records, value_and_slopes
from keras_rwinit._keras.types import Tensor
from keras_rwinit.layers import DenseStack

__all__ = ["dense_call", "layer_groups", "run_layers", "run_quantized_layers"]

_GROUP_SIZE = 2**20  # pre-activations of the layers in a group


def dense_call(layer: keras.layers.Dense) -> Callable[..., Tensor]:
    """Returns `Dense.call` written with operators: `keras.ops.matmul` keeps float64 on TensorFlow alone."""

    def call(inputs: Tensor, training: bool | None = None) -> Tensor:
        a = inputs @ keras.ops.convert_to_tensor(layer.kernel)
        return layer.activation(a if layer.bias is None else a + keras.ops.convert_to_tensor(layer.bias))

    return call


def run_layers(
    h: Tensor, kernels: Tensor, biases: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns the output of a stack's layers, and the pre-activations, some layers' in each tensor."""
    if keras.backend.backend() == "jax":
        # JAX dispatches each operation of a Python loop by itself; a scan is one operation.
        import jax

        run = _jitted_scan(activation) if _has_no_state(activation) else _scan(activation)
        with jax.disable_jit(False):
            h, pre_activations = run(h, kernels, biases)
        return h, [pre_activations]
    if keras.backend.backend() == "tensorflow" and _acts_unit_by_unit(activation, kernels.shape[-1]):
        return _run_on_tensorflow(h, kernels, biases, activation)
    h, pre_activations = _run_one_by_one(h, kernels, biases, activation)
    return h, [keras.ops.stack(pre_activations)]


def _run_one_by_one(
    h: Tensor, kernels: Tensor, biases: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns the output of layers, and the pre-activations of each."""
    pre_activations = []
    depth = kernels.shape[0]
    for kernel, bias in zip(keras.ops.unstack(kernels, depth), keras.ops.unstack(biases, depth), strict=True):
        pre_activations.append(h @ kernel + bias)
        h = activation(pre_activations[-1])
    return h, pre_activations


def _acts_unit_by_unit(activation: Callable[[Tensor], Tensor], units: int) -> bool:
    """Returns whether the slopes of an activation say all of its gradient."""
    try:
        theory_activation(activation, units)
    except ValueError:  # softmax and the like
        return False
    return _has_no_state(activation)


def _run_on_tensorflow(
    h: Tensor, kernels: Tensor, biases: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns what `run_layers` does, with the chain rule written out: a tape takes much longer."""
    import tensorflow as tf

    shape, units = tf.shape(biases), kernels.shape[-1]
    rows = tf.reshape(biases, (kernels.shape[0], -1, units))
    groups = layer_groups(rows.shape)
    parts: list[Tensor] = []  # pre-activations, group by group; they need no gradient of their own

    @tf.custom_gradient
    def run(h: Tensor, kernels: Tensor, biases: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        given = h, kernels, biases
        # Without this the tape also records, and keeps, the operations below.
        h, kernels, biases = (tf.stop_gradient(tensor) for tensor in given)
        inputs = h
        for layers in groups:
            part = []
            for kernel, bias in zip(tf.unstack(kernels[layers]), tf.unstack(biases[layers]), strict=True):
                part.append(tf.raw_ops.AddV2(x=tf.raw_ops.MatMul(a=h, b=kernel), y=bias))
                h = activation(part[-1])
            parts.append(tf.stack(part))

        def differentiate(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Returns the gradients at the inputs, the kernels and the biases, by that at the output."""
            if tape_records():
                with tf.GradientTape() as tape:
                    tape.watch(given)
                    output, _ = _run_one_by_one(*given, activation)
                return tuple(tape.gradient(output, given, gradient))
            deltas: list[Tensor] = []
            kernel_gradients: list[Tensor] = []
            for layers in reversed(groups):
                outputs, slopes = value_and_slopes(activation, parts.pop())  # popped to free its memory
                first = activation(parts[-1][-1]) if parts else inputs
                part = []
                for kernel, slope in zip(
                    reversed(tf.unstack(kernels[layers])), reversed(tf.unstack(slopes)), strict=True
                ):
                    part.append(tf.raw_ops.Mul(x=slope, y=gradient))
                    gradient = tf.raw_ops.MatMul(a=part[-1], b=kernel, transpose_b=True)
                deltas.append(tf.stack(part[::-1]))
                fed = tf.concat([first[None], outputs[:-1]], axis=0)
                kernel_gradients.append(tf.matmul(fed, deltas[-1], transpose_a=True))
            return gradient, _join(kernel_gradients), _join(deltas)

        return h, differentiate

    output = run(tf.reshape(h, (-1, units)), tf.convert_to_tensor(kernels), rows)
    return tf.reshape(output, shape[1:]), [tf.reshape(part, (-1, *shape[1:])) for part in parts]


def _join(parts: list[Tensor]) -> Tensor:
    """Returns the parts, the last one first, in one tensor, and empties the list to free them."""
    import tensorflow as tf

    joined = tf.concat(parts[::-1], axis=0)
    parts.clear()
    return joined


def layer_groups(shape: Sequence[int | None]) -> list[slice]:
    """Returns the layers of a stack in groups: single ones take long, and all of them at once much memory.

    Args:
        shape: Shape of the pre-activations, layers first; other sizes may be unknown.
    """
    depth, *per_layer = (number or 1 for number in shape)
    size = max(1, _GROUP_SIZE // math.prod(per_layer))
    return [slice(start, start + size) for start in range(0, depth, size)]


def run_quantized_layers(
    stack: DenseStack, x: Tensor, biases: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns the output of the layers of a quantized stack, and their pre-activations as `run_layers` does.

    The gradient at the inputs of an integer kernel is that which Keras's Dense defines.

    Args:
        stack: The stack.
        x: Its inputs, shape (..., units).
        biases: What each layer adds, shape (depth, ..., units).
        activation: The activation of the layers.
    """

    def step(h: Tensor, layer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def activate(a: Tensor) -> Tensor:
            seen.append(a)
            return activation(a)

        h = stack._run_quantized_layer(layer[0], h, bias=layer[1], activation=activate)
        return h, seen[0]

    units, depth = x.shape[-1], stack.depth
    h, rows = keras.ops.reshape(x, (-1, units)), keras.ops.reshape(biases, (depth, -1, units))
    if keras.backend.backend() == "jax":
        import jax

        with jax.disable_jit(False):
            h, pre_activations = jax.lax.scan(step, h, (keras.ops.arange(depth), rows))
    else:
        each = []
        for number, bias in enumerate(keras.ops.unstack(rows, depth)):
            h, a = step(h, (number, bias))
            each.append(a)
        pre_activations = keras.ops.stack(each)
    return keras.ops.reshape(h, x.shape), [keras.ops.reshape(pre_activations, biases.shape)]


def _has_no_state(activation: Callable[[Tensor], Tensor]) -> bool:
    """Returns whether it is a known function; another one may read variables, which `jit` would freeze."""
    if isinstance(activation, NamedActivation):
        return True
    package = str(getattr(activation, "__module__", "")).split(".")[0]
    is_bound = getattr(activation, "__self__", None) is not None  # to a layer, say, which may change
    return hasattr(activation, "__name__") and package in ("keras", "jax") and not is_bound


@lru_cache(maxsize=64)
def _jitted_scan(activation: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns a loop that is compiled once: JAX would compile a new function at every measurement."""
    import jax

    return jax.jit(_scan(activation))


def _scan(activation: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the loop over a stack's layers; its carry is the signal."""
    import jax

    def step(h: Tensor, layer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a = h @ layer[0] + layer[1]
        return activation(a), a

    def loop(h: Tensor, kernels: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        output: tuple[Tensor, Tensor] = jax.lax.scan(step, h, (kernels, biases))
        return output

    return loop
