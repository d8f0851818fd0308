"""What several tests of the Keras side share: arrays out of tensors, and models compared in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_rwinit import initialize
from keras_rwinit.initialization import InitializationReport
from keras_rwinit.layers import DeepSequential, DenseStack

Array = NDArray[Any]

BACKEND: str = keras.backend.backend()
# For training where compiling is not the point: tracing a few layers takes longer than running them.
EAGERLY: dict[str, bool] = {"run_eagerly": True} if BACKEND == "tensorflow" else {}
# On JAX each network compiles for seconds, so that a test of it by default stands for others like it.
SLOW_ON_JAX: list[pytest.MarkDecorator] = [pytest.mark.slow] if BACKEND == "jax" else []
WIDTH, BATCH = 12, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((BATCH, WIDTH)).astype(np.float32)
Y = RNG.standard_normal((BATCH, WIDTH)).astype(np.float32)


def slow_on_jax(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test as slow if this process runs on JAX."""
    return pytest.mark.slow(test) if BACKEND == "jax" else test


def initialize_normal(
    model: keras.Model, x: Any = None, distribution: str = "normal", seed: int | None = None, **options: Any
) -> InitializationReport:
    """`initialize` with normal kernels, for tests that state their gains."""
    return initialize(model, x, distribution, seed, **options)


def to_numpy(tensor: Any) -> Array:
    """Values of a tensor or variable, half precision as float32."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def weights_of(model: keras.Model) -> list[Array]:
    """The weights of a model or layer, in order."""
    return [to_numpy(weight) for weight in model.weights]


def by_layer(model: keras.Model) -> list[Array]:
    """Kernel and bias of every layer in turn, whichever the form."""
    arrays = []
    for layer in model.layers:
        weights = [to_numpy(weight) for weight in layer.weights]
        if isinstance(layer, DenseStack):
            arrays += [weight[d] for d in range(layer.depth) for weight in weights]
        else:
            arrays += weights
    return arrays


def run(model: Any, x: Array) -> Array:
    """Output of a model or layer as an array."""
    return to_numpy(model(keras.ops.convert_to_tensor(x)))


def weight_gradients(model: Any, x: Array) -> list[Array]:
    """Gradients of a fixed random function of the output: every trainable weight's, then the input's.

    The layers run once more, statelessly, on the weights as arguments, so that each back end's own
    differentiation sees all of them.
    """
    direction = np.random.default_rng(5).standard_normal(run(model, x).shape).astype(x.dtype)

    def value(tensors: Sequence[Any]) -> Any:
        *weights, inputs = tensors
        outputs, _ = model.stateless_call(weights, list(model.non_trainable_variables), inputs)
        return keras.ops.sum(outputs * keras.ops.convert_to_tensor(direction))

    return gradients(value, [*(to_numpy(w) for w in model.trainable_variables), x])


def relative_error(a: Array, b: Array) -> float:
    """Largest difference of two arrays, relative to the largest entry of the second."""
    scale = float(np.max(np.abs(b)))
    difference = float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return difference / scale if scale else difference


def make_stack(depth: int, activation: Any = "tanh", **kwargs: Any) -> DenseStack:
    """A built stack; orthogonal kernels keep the signal in range at any depth."""
    gain = 2**0.5 if activation == "relu" else 1.0
    settings: dict[str, Any] = {
        "kernel_initializer": keras.initializers.Orthogonal(gain, seed=1),
        "bias_initializer": keras.initializers.RandomNormal(stddev=0.1, seed=2),
    }
    stack = DenseStack(depth, activation, **{**settings, **kwargs})
    stack.build((None, WIDTH))
    return stack


def dense_layers(stack: DenseStack, **kwargs: Any) -> DeepSequential:
    """Plain Dense layers with the weights of a stack."""
    layers = [
        keras.layers.Dense(
            WIDTH, stack.activation, use_bias=stack.use_bias, dtype=stack.dtype_policy, **kwargs
        )
        for _ in range(stack.depth)
    ]
    plain = DeepSequential(layers, (WIDTH,), dtype=stack.dtype_policy)
    stacked = stack.get_weights()
    plain.set_weights([weight[d] for d in range(stack.depth) for weight in stacked])
    return plain


def as_model(stack: DenseStack) -> keras.Model:
    return keras.Sequential([keras.Input((WIDTH,)), stack])


def stack_weights(weights: list[Array], count: int) -> list[Array]:
    """Per-layer arrays, `count` per layer, in the shape of a stack's."""
    return [np.stack(weights[first::count]) for first in range(count)]


def fit(model: keras.Model, epochs: int = 1, **kwargs: Any) -> list[float]:
    """Losses of training on X and Y in batches of three examples and of two."""
    model.compile(keras.optimizers.SGD(0.5), "mse", **{"jit_compile": BACKEND == "jax", **kwargs})
    history = model.fit(X, Y, epochs=epochs, batch_size=3, shuffle=False, verbose=0)
    return list(history.history["loss"])


def gradients(function: Callable[[Sequence[Any]], Any], arrays: Sequence[Array]) -> list[Array]:
    """Gradient of a scalar `function` of a list of tensors at `arrays`.

    Args:
        function: Takes a list of back-end tensors, returns a scalar one.
        arrays: Where to differentiate.

    Returns:
        One array for each of `arrays`, of its shape.

    Raises:
        ValueError: The back end is not tensorflow, jax or torch.
    """
    backend = keras.backend.backend()
    if backend not in _GRADIENTS:
        raise ValueError(
            f"Gradients need the {', '.join(_GRADIENTS)} back end of Keras. Received: {backend!r}"
        )
    tensors = [keras.ops.convert_to_tensor(array, dtype=str(array.dtype)) for array in arrays]
    return [
        np.asarray(keras.ops.convert_to_numpy(gradient))
        for gradient in _GRADIENTS[backend](function, tensors)
    ]


def _tensorflow(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import tensorflow as tf

    # Operation by operation: tracing a graph for one use takes longer than running it.
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(tensors)
    return tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import jax

    return jax.jit(jax.grad(function))(tensors)


def _torch(function: Callable[[Sequence[Any]], Any], tensors: list[Any]) -> Sequence[Any]:
    import torch

    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(function(leaves), leaves)


_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
