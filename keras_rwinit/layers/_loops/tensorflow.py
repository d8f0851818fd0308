"""The loop over a stack of Dense layers on TensorFlow: one while loop, with a gradient of its own.

Left to TensorFlow, the gradient of a loop that indexes a stacked kernel adds a tensor of the whole
kernel's size at every layer. Here either loop reads its layers' weights where they lie, and the
backward loop writes each layer's gradient to its own place, so that neither the kernel nor its gradient is
ever copied as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

__all__ = ["run_stack"]

Tensor = Any
Gradient = Callable[[Tensor, Tensor], Tensor]

# Layers to a round of the loop. A round of TensorFlow's own loop costs tens of microseconds beside its
# layers: of 1, 2, 5, 10 and 20 layers at depth 1000, ten came within 3 % of the fastest step at widths
# 64, 100 and 256; more cost tracing time and gain nothing. XLA's loop costs nothing beside its layers: one
# to a round was as fast as ten, and compiled in a third of the time.
_UNROLLED = 10
_UNROLLED_BY_XLA = 1

# df/da * upstream from the layer's output alone, so that pre-activations need not be kept.
_GRADIENT_FROM_OUTPUT: dict[Any, Gradient] = {
    keras.activations.linear: lambda h, upstream: upstream,
    keras.activations.relu: lambda h, upstream: tf.raw_ops.ReluGrad(gradients=upstream, features=h),
    keras.activations.tanh: lambda h, upstream: tf.raw_ops.TanhGrad(y=h, dy=upstream),
    keras.activations.sigmoid: lambda h, upstream: tf.raw_ops.SigmoidGrad(y=h, dy=upstream),
    keras.activations.selu: lambda h, upstream: tf.raw_ops.SeluGrad(gradients=upstream, outputs=h),
}


def run_stack(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    activation: Callable[[Any], Any],
    inference: bool = False,
    segment: int | None = None,
) -> Tensor:
    """`depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""
    # Keras hands over the variables themselves where no cast makes tensors of them.
    weights = [tf.convert_to_tensor(w) for w in (kernel, bias) if w is not None]
    depth = kernel.shape[0]

    @tf.custom_gradient
    def stack(x: Tensor, *weights: Tensor) -> tuple[Tensor, Any]:
        layers = _Layers(weights, activation, inference)
        if segment is None or segment >= depth:
            y, kept = layers.forward(x, 0, depth)
        else:
            y, kept = _segments_forward(layers, x, depth, segment)
        # A SavedModel stores the gradient too, and cannot store one that closes over TensorArrays.
        stored = [array.stack() for array in kept] if inference else []

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            arrays = [_array(t.shape[0], t[0]).unstack(t) for t in stored] if inference else kept
            empty = tuple(_empty(w, inference) for w in weights)
            if segment is None or segment >= depth:
                dx, *written = layers.backward(upstream, y, arrays, 0, depth, empty)
            else:
                dx, *written = _segments_backward(layers, upstream, arrays[0], depth, segment, empty)
            results = (dx, *(w.stack() if inference else w for w in written))
            return tuple(tf.ensure_shape(r, t.shape) for r, t in zip(results, (x, *weights), strict=True))

        return y, gradient

    return stack(x, *weights)


@dataclass(frozen=True)
class _Layers:
    """Any run of the stack's layers, forward and backward. `weights` is `(kernel,)` or `(kernel, bias)`.

    `portable` makes it of operations that TensorFlow can store in a SavedModel, and differentiate and
    compile by XLA once it is loaded, for a copy of every layer's weights as it is read.
    """

    weights: tuple[Tensor, ...]
    activation: Callable[[Any], Any]
    portable: bool

    @property
    def from_output(self) -> Gradient | None:
        return _GRADIENT_FROM_OUTPUT.get(self.activation)

    def _read(self, stacked: Tensor, start: Any, count: int, dtype: Any) -> list[Tensor]:
        """One of the weights, of `count` layers; where they lie aligned, without copying them."""
        if self.portable:
            block = tf.gather(stacked, start + tf.range(count))
        else:
            rest = [tf.shape(stacked)[i] if size is None else size for i, size in enumerate(stacked.shape)][
                1:
            ]
            block = tf.slice(stacked, [start] + [0] * len(rest), [count, *rest])
        return list(tf.unstack(tf.cast(block, dtype), count))

    def forward(self, h: Tensor, start: Any, count: int, keep: bool = True) -> tuple[Tensor, list[Any]]:
        """Layers `start` to `start + count`: their output, and what the gradient needs of each.

        That is every layer's input, and its pre-activation only where the slope cannot be read off the
        output, which is the next layer's input.
        """
        arrays = [_array(count, h) for _ in range((1 if self.from_output else 2) if keep else 0)]

        def body(first: Any, size: int, h: Tensor, *kept: tf.TensorArray) -> tuple[Any, ...]:
            kernels, *biases = [self._read(w, start + first, size, h.dtype) for w in self.weights]
            for i in range(size):
                a = tf.matmul(h, kernels[i])
                for b in biases:
                    a = a + b[i]
                values = (h, a)[: len(kept)]
                kept = tuple(k.write(first + i, v) for k, v in zip(kept, values, strict=True))
                h = self.activation(a)
            return h, *kept

        y, *kept = _rounds(body, count, _unrolled(), (h, *arrays))
        return y, kept

    def backward(
        self, dh: Tensor, y: Tensor, kept: list[Any], start: Any, count: int, written: tuple[Any, ...]
    ) -> tuple[Tensor, ...]:
        """Gradient at the input of layer `start`, and `written` with these layers' gradients in it."""
        inputs, *pre_activations = kept

        def body(first: Any, size: int, dh: Tensor, h: Tensor, *written: Tensor) -> tuple[Any, ...]:
            kernels = self._read(self.weights[0], start + first, size, dh.dtype)
            gradients: list[list[Tensor]] = [[] for _ in self.weights]
            for i in reversed(range(size)):
                if self.from_output:
                    delta = self.from_output(h, dh)
                else:
                    delta = _pulled_back(self.activation, pre_activations[0].read(first + i), dh)
                h = inputs.read(first + i)
                gradients[0].insert(0, tf.matmul(h, delta, transpose_a=True))
                for b, of_bias in zip(self.weights[1:], gradients[1:], strict=True):
                    of_bias.insert(0, delta if len(b.shape) == 3 else tf.reduce_sum(delta, 0))
                dh = tf.matmul(delta, kernels[i], transpose_b=True)
            blocks = zip(written, gradients, strict=True)
            return dh, h, *(_write(w, start + first, tf.cast(tf.stack(g), w.dtype)) for w, g in blocks)

        dx, _, *written_ = _rounds(body, count, _unrolled(), (dh, y, *written), backward=True)
        return dx, *written_


def _segments_forward(layers: _Layers, x: Tensor, depth: int, segment: int) -> tuple[Tensor, list[Any]]:
    """Keeps the input of every segment of layers, for `_segments_backward` to start from."""

    def body(first: Any, size: int, h: Tensor, inputs: tf.TensorArray) -> tuple[Any, ...]:
        inputs = inputs.write(_number(first, segment), h)
        return layers.forward(h, first, size, keep=False)[0], inputs

    y, inputs = _rounds(body, depth, segment, (x, _array(-(-depth // segment), x)))
    return y, [inputs]


def _segments_backward(
    layers: _Layers, upstream: Tensor, inputs: Any, depth: int, segment: int, written: tuple[Tensor, ...]
) -> tuple[Any, ...]:
    """Runs each segment forward once more before going back through it."""

    def body(first: Any, size: int, dh: Tensor, *written: Tensor) -> tuple[Any, ...]:
        y, kept = layers.forward(inputs.read(_number(first, segment)), first, size)
        return layers.backward(dh, y, kept, first, size, written)

    return _rounds(body, depth, segment, (upstream, *written), backward=True)


def _number(first: Any, segment: int) -> Any:
    """Which segment begins with layer `first`; only the first one may be short."""
    return (first + segment - 1) // segment


def _rounds(
    body: Callable[..., tuple[Any, ...]],
    count: int,
    size: int,
    variables: tuple[Any, ...],
    backward: bool = False,
) -> tuple[Any, ...]:
    """`body(first, size, *variables)` for rounds of `size` layers; layers that fill no round come first."""
    rounds, single = divmod(count, size)
    if single and not backward:
        variables = body(0, single, *variables)
    if rounds == 1:
        variables = body(single, size, *variables)
    elif rounds:

        def round_of_layers(number: Any, *variables: Any) -> tuple[Any, ...]:
            at = rounds - 1 - number if backward else number
            return number + 1, *body(single + at * size, size, *variables)

        _, *variables_ = tf.while_loop(
            lambda number, *_: number < rounds, round_of_layers, (0, *variables), maximum_iterations=rounds
        )
        variables = tuple(variables_)
    if single and backward:
        variables = body(0, single, *variables)
    return variables


def _compiled_by_xla() -> bool:
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def _unrolled() -> int:
    return _UNROLLED_BY_XLA if _compiled_by_xla() else _UNROLLED


def _array(size: int, like: Tensor) -> tf.TensorArray:
    return tf.TensorArray(like.dtype, size, clear_after_read=False, element_shape=like.shape)


def _empty(like: Tensor, portable: bool) -> Any:
    """Where the gradient of a stacked weight is written: a tensor, or a TensorArray of its layers.

    The tensor is written in place outside XLA by an operation that XLA does not have, so that what is
    traced for a SavedModel, which may be compiled later, takes the other, at the cost of a copy.
    """
    if portable:
        return tf.TensorArray(like.dtype, like.shape[0], element_shape=like.shape[1:])
    return tf.raw_ops.Empty(shape=tf.shape(like), dtype=like.dtype)


def _write(stacked: Any, start: Any, block: Tensor) -> Any:
    """`stacked`, which nothing else may hold, with `block` at `start`."""
    count = block.shape[0]
    if isinstance(stacked, tf.TensorArray):
        for i in range(count):
            stacked = stacked.write(start + i, block[i])
        return stacked
    rows = start + tf.range(count)
    if _compiled_by_xla():
        return tf.tensor_scatter_nd_update(stacked, rows[:, tf.newaxis], block)
    return _write_in_place(stacked, rows, block)


@tf.custom_gradient
def _write_in_place(stacked: Tensor, rows: Tensor, block: Tensor) -> tuple[Tensor, Any]:
    """With a gradient, for gradients of gradients."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        return upstream, None, tf.gather(upstream, rows)

    return tf.raw_ops.InplaceUpdate(x=stacked, i=rows, v=block), gradient


def _pulled_back(activation: Callable[[Any], Any], a: Tensor, upstream: Tensor) -> Tensor:
    with tf.GradientTape() as tape:
        tape.watch(a)
        h = activation(a)
    return tape.gradient(h, a, upstream)
