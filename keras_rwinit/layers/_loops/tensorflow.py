"""The loop over a stack of Dense layers on TensorFlow: one while loop with a hand-written gradient.

TensorFlow's own gradient of a loop that indexes a stacked kernel adds a tensor of the whole kernel's size at
every layer. Here the forward and the backward loop read each layer's weights in place, and the backward loop
writes each layer's gradient in place, so that neither the kernel nor its gradient is ever copied as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_rwinit._keras.activations import activation_name
from keras_rwinit._keras.types import Tensor
from keras_rwinit.theory import resolve_activation

__all__ = ["run_stack"]

Activation: TypeAlias = Callable[[Tensor], Tensor]
Gradient: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Gradients: TypeAlias = Callable[[Tensor], tuple[Tensor | None, ...]]

# Layers in a round of the loop. A round of TensorFlow's loop costs tens of microseconds in addition to its
# layers. Of 1, 2, 5, 10 and 20 layers at depth 1000, ten came within 3 % of the fastest step at widths 64,
# 100 and 256; more layers cost tracing time and gain nothing. A round of XLA's loop costs nothing in
# addition: one layer was as fast as ten, and compiled in a third of the time.
_UNROLLED = 10
_UNROLLED_BY_XLA = 1


def run_stack(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    activation: Activation,
    inference: bool = False,
    segment: int | None = None,
) -> Tensor:
    """Applies `depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""
    # Keras passes the variables themselves where it casts nothing.
    weights = [tf.convert_to_tensor(w) for w in (kernel, bias) if w is not None]
    depth = kernel.shape[0]

    @tf.custom_gradient
    def stack(x: Tensor, *weights: Tensor) -> tuple[Tensor, Gradients]:
        layers = _Layers(weights, activation, inference)
        short = segment if segment is not None and segment < depth else None

        def run_forward() -> tuple[Tensor, list[tf.TensorArray]]:
            if short is not None:
                return _run_segments_forward(layers, x, depth, short)
            return layers.forward(x, 0, depth)

        # Exporters convert only loops that return nothing but the last activations. A SavedModel stores the
        # gradient too, and cannot if that closes over TensorArrays. So the gradient runs the layers again.
        y, kept = (layers.forward(x, 0, depth, keep=False)[0], None) if inference else run_forward()

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            last, arrays = run_forward() if kept is None else (y, kept)
            empty = tuple(_allocate(w, inference) for w in weights)
            if short is not None:
                dx, *written = _run_segments_backward(layers, upstream, arrays[0], depth, short, empty)
            else:
                dx, *written = layers.backward(upstream, last, arrays, 0, depth, empty)
            results = (dx, *(w.stack() if inference else w for w in written))
            return tuple(tf.ensure_shape(r, t.shape) for r, t in zip(results, (x, *weights), strict=True))

        return y, gradient

    return stack(x, *weights)


@dataclass(frozen=True)
class _Layers:
    """The layers of a stack, any number of which run forward or backward in one loop.

    Args:
        weights: `(kernel,)` or `(kernel, bias)`, stacked.
        activation: Element-wise function of tensors.
        portable: Whether the loop has only operations that TensorFlow can store in a SavedModel, and can
            differentiate and compile by XLA after loading it, and that other formats have. This costs a copy
            of each layer's weights.
    """

    weights: tuple[Tensor, ...]
    activation: Activation
    portable: bool

    @cached_property
    def from_output(self) -> Gradient | None:
        """The activation's gradient from its output; None if it needs the pre-activation."""
        name = activation_name(self.activation)
        gradient = resolve_activation(name).gradient_from_output if name else None
        return partial(gradient, tf.raw_ops) if gradient else None

    def _read(self, stacked: Tensor, start: int | Tensor, count: int, dtype: tf.DType) -> list[Tensor]:
        """Returns one of the weights of `count` layers, without a copy where the weights are aligned."""
        if self.portable:
            block = tf.gather(stacked, start + tf.range(count))
        else:
            block = _slice(stacked, start, count)
        return list(tf.unstack(tf.cast(block, dtype), count))

    def forward(
        self, h: Tensor, start: int | Tensor, count: int, keep: bool = True
    ) -> tuple[Tensor, list[tf.TensorArray]]:
        """Runs layers `start` to `start + count`; returns their output, and what the gradient needs.

        The gradient needs every layer's input, and its pre-activation only where the slope cannot be read off
        the output, which is the next layer's input.
        """
        number = (1 if self.from_output else 2) if keep else 0
        arrays = [_new_array(count, h) for _ in range(number)]

        def body(first: int | Tensor, size: int, h: Tensor, *kept: tf.TensorArray) -> tuple[Tensor, ...]:
            kernels, *biases = [self._read(w, start + first, size, h.dtype) for w in self.weights]
            for i in range(size):
                a = tf.matmul(h, kernels[i])
                for b in biases:
                    a = a + b[i]
                values = (h, a)[: len(kept)]
                kept = tuple(k.write(first + i, v) for k, v in zip(kept, values, strict=True))
                h = self.activation(a)
            return h, *kept

        y, *kept = _loop(body, count, _layers_per_round(), (h, *arrays))
        return y, kept

    def backward(
        self,
        dh: Tensor,
        y: Tensor,
        kept: list[tf.TensorArray],
        start: int | Tensor,
        count: int,
        written: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Returns the gradient at the input of layer `start`, and `written` with these layers' gradients."""
        inputs, *pre_activations = kept

        def body(
            first: int | Tensor, size: int, dh: Tensor, h: Tensor, *written: Tensor
        ) -> tuple[Tensor, ...]:
            kernels = self._read(self.weights[0], start + first, size, dh.dtype)
            gradients: list[list[Tensor]] = [[] for _ in self.weights]
            for i in reversed(range(size)):
                if self.from_output:
                    delta = self.from_output(h, dh)
                else:
                    delta = _pull_back(self.activation, pre_activations[0].read(first + i), dh)
                h = inputs.read(first + i)
                gradients[0].insert(0, tf.matmul(h, delta, transpose_a=True))
                for biases in gradients[1:]:
                    biases.insert(0, tf.reduce_sum(delta, 0))
                dh = tf.matmul(delta, kernels[i], transpose_b=True)
            blocks = zip(written, gradients, strict=True)
            return dh, h, *(_write(w, start + first, tf.cast(tf.stack(g), w.dtype)) for w, g in blocks)

        dx, _, *gradients = _loop(body, count, _layers_per_round(), (dh, y, *written), backward=True)
        return dx, *gradients


def _run_segments_forward(
    layers: _Layers, x: Tensor, depth: int, segment: int
) -> tuple[Tensor, list[tf.TensorArray]]:
    """Runs all layers and keeps the input of every segment, from which `_run_segments_backward` starts."""

    def body(first: int | Tensor, size: int, h: Tensor, inputs: tf.TensorArray) -> tuple[Tensor, ...]:
        inputs = inputs.write(_segment_index(first, segment), h)
        return layers.forward(h, first, size, keep=False)[0], inputs

    y, inputs = _loop(body, depth, segment, (x, _new_array(-(-depth // segment), x)))
    return y, [inputs]


def _run_segments_backward(
    layers: _Layers,
    upstream: Tensor,
    inputs: tf.TensorArray,
    depth: int,
    segment: int,
    written: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """Runs each segment forward once more, then backward."""

    def body(first: int | Tensor, size: int, dh: Tensor, *written: Tensor) -> tuple[Tensor, ...]:
        y, kept = layers.forward(inputs.read(_segment_index(first, segment)), first, size)
        return layers.backward(dh, y, kept, first, size, written)

    return _loop(body, depth, segment, (upstream, *written), backward=True)


def _segment_index(first: int | Tensor, segment: int) -> int | Tensor:
    """Returns the index of the segment that begins with layer `first`; only the first one may be short."""
    return (first + segment - 1) // segment


def _loop(
    body: Callable[..., tuple[Tensor, ...]],
    count: int,
    size: int,
    variables: tuple[Tensor, ...],
    backward: bool = False,
) -> tuple[Tensor, ...]:
    """Runs `body(first, size, *variables)` for rounds of `size` layers, a shorter round first."""
    rounds, single = divmod(count, size)
    if single and not backward:
        variables = body(0, single, *variables)
    if rounds == 1:
        variables = body(single, size, *variables)
    elif rounds:

        def round_of_layers(number: int | Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
            at = rounds - 1 - number if backward else number
            return number + 1, *body(single + at * size, size, *variables)

        _, *results = tf.while_loop(
            lambda number, *_: number < rounds, round_of_layers, (0, *variables), maximum_iterations=rounds
        )
        variables = tuple(results)
    if single and backward:
        variables = body(0, single, *variables)
    return variables


def _compiled_by_xla() -> bool:
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def _layers_per_round() -> int:
    return _UNROLLED_BY_XLA if _compiled_by_xla() else _UNROLLED


def _new_array(size: int, like: Tensor) -> tf.TensorArray:
    return tf.TensorArray(like.dtype, size, clear_after_read=False, element_shape=like.shape)


def _allocate(like: Tensor, portable: bool) -> Tensor | tf.TensorArray:
    """Returns room for the gradient of a stacked weight: a tensor, or a TensorArray of its layers.

    Outside XLA, an operation that XLA does not have writes into the tensor in place. A SavedModel may be
    compiled later, so that its loop writes into a TensorArray, at the cost of a copy.
    """
    if portable:
        return tf.TensorArray(like.dtype, like.shape[0], element_shape=like.shape[1:])
    return tf.raw_ops.Empty(shape=tf.shape(like), dtype=like.dtype)


def _slice(stacked: Tensor, start: int | Tensor, count: int) -> Tensor:
    """Returns the rows from `start` to `start + count`."""
    sizes = [tf.shape(stacked)[i] if size is None else size for i, size in enumerate(stacked.shape)]

    def read(stacked: Tensor) -> Tensor:
        return tf.slice(stacked, [start] + [0] * (len(sizes) - 1), [count, *sizes[1:]])

    if not _compiled_by_xla():
        return read(stacked)

    # Under XLA, TensorFlow's gradient of a slice has no gradient, which third derivatives need.
    @tf.custom_gradient
    def read_under_xla(stacked: Tensor) -> tuple[Tensor, Gradients]:
        def gradient(upstream: Tensor) -> Tensor:
            rows = start + tf.range(count)
            return tf.tensor_scatter_nd_update(tf.zeros_like(stacked), rows[:, tf.newaxis], upstream)

        return read(stacked), gradient

    return read_under_xla(stacked)


def _write(stacked: Tensor | tf.TensorArray, start: int | Tensor, block: Tensor) -> Tensor | tf.TensorArray:
    """Writes `block` into `stacked` at `start`; no other code may hold `stacked`, which changes in place."""
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
def _write_in_place(stacked: Tensor, rows: Tensor, block: Tensor) -> tuple[Tensor, Gradients]:
    """Writes in place; TensorFlow's operation has no gradient, which second derivatives need."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        return upstream, None, tf.gather(upstream, rows)

    return tf.raw_ops.InplaceUpdate(x=stacked, i=rows, v=block), gradient


def _pull_back(activation: Activation, a: Tensor, upstream: Tensor) -> Tensor:
    """Returns the gradient at the pre-activations `a` for the gradient `upstream` at the activations."""
    with tf.GradientTape() as tape:
        tape.watch(a)
        h = activation(a)
    return tape.gradient(h, a, upstream)
