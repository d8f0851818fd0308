"""The loop over a stack of Dense layers on TensorFlow: one while loop, with a gradient of its own.

Left to TensorFlow, the gradient of a loop that indexes a stacked kernel adds a tensor of the whole
kernel's size at every layer. Here the backward loop writes each layer's gradient to its own place.
Several layers are unrolled in the body of either loop: a step of a TensorFlow loop costs tens of
microseconds beside what its body costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

__all__ = ["run_stack"]

Tensor = Any
Gradient = Callable[[Tensor, Tensor], Tensor]

# Of 1, 2, 5, 10, 20, 50 layers of width 64 and 100 at depth 1000, ten came within 3 % of the fastest
# step; more cost tracing time and gain nothing.
_UNROLLED = 10

# df/da * upstream from the layer's output alone, so that pre-activations need not be kept.
_GRADIENT_FROM_OUTPUT: dict[Any, Gradient] = {
    keras.activations.linear: lambda h, upstream: upstream,
    keras.activations.relu: lambda h, upstream: tf.raw_ops.ReluGrad(gradients=upstream, features=h),
    keras.activations.tanh: lambda h, upstream: tf.raw_ops.TanhGrad(y=h, dy=upstream),
    keras.activations.sigmoid: lambda h, upstream: tf.raw_ops.SigmoidGrad(y=h, dy=upstream),
    keras.activations.selu: lambda h, upstream: tf.raw_ops.SeluGrad(gradients=upstream, outputs=h),
}


def run_stack(
    x: Tensor, kernel: Tensor, bias: Tensor, activation: Callable[[Any], Any], inference: bool = False
) -> Tensor:
    """`depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""
    from_output = _GRADIENT_FROM_OUTPUT.get(activation)
    depth = kernel.shape[0]
    # Keras hands over the variables themselves where no cast makes tensors of them.
    weights = [tf.convert_to_tensor(w) for w in (kernel, bias) if w is not None]

    def empty(size: int, like: Tensor, shape: Any) -> tf.TensorArray:
        return tf.TensorArray(like.dtype, size, clear_after_read=False, element_shape=shape)

    def unstacked(stacked: Tensor) -> tf.TensorArray:
        return empty(depth, stacked, stacked.shape[1:]).unstack(stacked)

    @tf.custom_gradient
    def stack(x: Tensor, kernel: Tensor, *bias: Tensor) -> tuple[Tensor, Any]:
        kernels, biases = unstacked(kernel), [unstacked(b) for b in bias]

        def forward(d: Any, h: Tensor, *kept: tf.TensorArray) -> tuple[Any, ...]:
            a = tf.matmul(h, kernels.read(d))
            for b in biases:
                a = a + b.read(d)
            next_h = activation(a)
            # The gradient needs every layer's input, and its pre-activation only where the slope
            # cannot be read off the output, which is the next layer's input.
            values = (h,) if from_output else (h, a)
            return d + 1, next_h, *(k.write(d, v) for k, v in zip(kept, values, strict=True))

        arrays = [empty(depth, x, x.shape) for _ in range(1 if from_output else 2)]
        _, y, *kept = _loop(forward, depth, (0, x, *arrays))
        # A SavedModel stores the gradient too, and cannot store one that closes over TensorArrays.
        stored = [k.stack() for k in kept] if inference else []

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            inputs, *pre_activations = [unstacked(t) for t in stored] if inference else kept
            backward_kernels = unstacked(kernel) if inference else kernels

            def backward(step: Any, dh: Tensor, h: Tensor, *written: tf.TensorArray) -> tuple[Any, ...]:
                d = depth - 1 - step
                if from_output:
                    delta = from_output(h, dh)
                else:
                    delta = _pulled_back(activation, pre_activations[0].read(d), dh)
                h = inputs.read(d)
                d_weights = [tf.matmul(h, delta, transpose_a=True)]
                d_weights += [delta if b.shape.rank == 3 else tf.reduce_sum(delta, 0) for b in bias]
                dh = tf.matmul(delta, backward_kernels.read(d), transpose_b=True)
                arrays = (w.write(d, v) for w, v in zip(written, d_weights, strict=True))
                return step + 1, dh, h, *arrays

            arrays = [empty(depth, w, w.shape[1:]) for w in (kernel, *bias)]
            _, dx, _, *written = _loop(backward, depth, (0, upstream, y, *arrays))
            return dx, *(w.stack() for w in written)

        return y, gradient

    return stack(x, *weights)


def _pulled_back(activation: Callable[[Any], Any], a: Tensor, upstream: Tensor) -> Tensor:
    with tf.GradientTape() as tape:
        tape.watch(a)
        h = activation(a)
    return tape.gradient(h, a, upstream)


def _loop(body: Callable[..., tuple[Any, ...]], depth: int, variables: tuple[Any, ...]) -> tuple[Any, ...]:
    """Applies `body` `depth` times: what does not fill whole rounds first, the rest in a while loop."""
    rounds, single = divmod(depth, _UNROLLED)
    for _ in range(single):
        variables = body(*variables)

    def round_of_layers(*variables: Any) -> tuple[Any, ...]:
        for _ in range(_UNROLLED):
            variables = body(*variables)
        return variables

    if rounds == 1:
        return round_of_layers(*variables)
    if rounds:
        variables = tf.while_loop(
            lambda count, *_: count < depth, round_of_layers, variables, maximum_iterations=rounds
        )
    return variables
