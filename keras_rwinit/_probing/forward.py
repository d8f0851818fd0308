"""Forward passes of single layers that keep their precision and return their pre-activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import keras

from keras_rwinit._keras.activations import NamedActivation
from keras_rwinit._keras.types import Tensor

__all__ = ["dense_call", "run_layers"]


def dense_call(layer: keras.layers.Dense) -> Callable[..., Tensor]:
    """Returns `Dense.call` written with operators: `keras.ops.matmul` keeps float64 on TensorFlow alone."""

    def call(inputs: Tensor, training: bool | None = None) -> Tensor:
        a = inputs @ keras.ops.convert_to_tensor(layer.kernel)
        return layer.activation(a if layer.bias is None else a + keras.ops.convert_to_tensor(layer.bias))

    return call


def run_layers(
    h: Tensor, kernels: Tensor, biases: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns the output of a stack's layers, and their pre-activations along the first axis."""
    if keras.backend.backend() == "jax":
        # JAX dispatches each operation of a Python loop by itself; a scan is one operation.
        import jax

        run = _jitted_scan(activation) if _has_no_state(activation) else _scan(activation)
        with jax.disable_jit(False):
            return run(h, kernels, biases)
    pre_activations = []
    depth = kernels.shape[0]
    for kernel, bias in zip(keras.ops.unstack(kernels, depth), keras.ops.unstack(biases, depth), strict=True):
        pre_activations.append(h @ kernel + bias)
        h = activation(pre_activations[-1])
    return h, keras.ops.stack(pre_activations)


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
