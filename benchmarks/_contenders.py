"""The networks that `stacks_compared.py` measures, each as a training step to call.

All are the same network: 64 inputs, tanh layers with biases, ten classes, Adam. Each runs in its own process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import keras

__all__ = ["CONTENDERS", "INPUTS", "stack_builder"]

INPUTS, CLASSES, LEARNING_RATE = 64, 10, 1e-6

# Makes one training step; the result is not used.
Step: TypeAlias = Callable[[], object]
# Builds a network from depth, width, batch size and dtype, and returns its step.
Build: TypeAlias = Callable[[int, int, int, str], Step]
# An array or a tree of arrays of the engine that is measured.
Tensor: TypeAlias = Any


def _draw_batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, INPUTS)).astype("float32"), rng.integers(0, CLASSES, batch)


def _compile(model: keras.Model, batch: int, jit_compile: bool | str) -> Step:
    """Compiles a Keras model and returns its training step."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, jit_compile=jit_compile)
    x, y = _draw_batch(batch)
    return lambda: model.train_on_batch(x, y)


def stack_builder(
    jit_compile: bool | str,
    remat: str | None = None,
    activation: str = "tanh",
    distribution: str | None = "normal",
) -> Build:
    """Returns the builder of this package's network."""

    def build(depth: int, width: int, batch: int, dtype: str) -> Step:
        from keras_rwinit import model_zoo

        model = model_zoo.deep_mlp(
            depth,
            width,
            activation,
            input_shape=(INPUTS,),
            distribution=distribution,
            seed=0,
            dtype=dtype,
            remat=remat,
        )
        return _compile(model, batch, jit_compile)

    return build


def _dense(depth: int, width: int, batch: int, dtype: str) -> Step:
    """Builds the network as a Keras user would write it, with one Dense layer for each hidden layer.

    Keras recurses through the layers, so that building and training need a thread with a large stack.
    """
    import keras

    from keras_rwinit.initializers import RandomWalkTanh

    def build() -> None:
        inputs = outputs = keras.Input((INPUTS,))
        for _ in range(depth):
            outputs = keras.layers.Dense(
                width, "tanh", dtype=dtype, kernel_initializer=RandomWalkTanh(gain=1.1)
            )(outputs)
        model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype=dtype)(outputs))
        box.append(_compile(model, batch, "auto"))

    box: list[Step] = []
    _in_deep_thread(build)
    return lambda: _in_deep_thread(box[0])


def _in_deep_thread(work: Callable[[], object]) -> None:
    """Calls a function in a thread with a large stack and without a recursion limit."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    sys.setrecursionlimit(1_000_000)
    threading.stack_size(512 * 2**20)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _torch(depth: int, width: int, batch: int, dtype: str) -> Step:
    import torch

    layers: list[Any] = []
    for fan_in in [INPUTS, *[width] * (depth - 1)]:
        layers += [torch.nn.Linear(fan_in, width), torch.nn.Tanh()]
        torch.nn.init.normal_(layers[-2].weight, std=1.1 / fan_in**0.5)
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, CLASSES)).to(getattr(torch, dtype))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    x, y = (torch.as_tensor(array) for array in _draw_batch(batch))
    x = x.to(getattr(torch, dtype))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _jax_step(loss: Callable[..., Tensor], parameters: Tensor, batch: int) -> Step:
    """Returns a step of Adam, written by hand, on a tree of arrays that every step donates and replaces."""
    import jax
    import jax.numpy as jnp

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = [parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros((), "int32")]
    x, y = (jnp.asarray(array) for array in _draw_batch(batch))

    def update(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
        scale = jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return w - (LEARNING_RATE * scale * m / (jnp.sqrt(v) + 1e-7)).astype(w.dtype), m, v

    def update_all(w: Tensor, m: Tensor, v: Tensor, t: Tensor) -> Tensor:
        g = jax.grad(loss)(w, x, y)
        t = t + 1
        new = jax.tree.map(lambda *leaves: update(*leaves, t.astype("float32")), w, g, m, v)
        parts = jax.tree.transpose(jax.tree.structure(w), jax.tree.structure((0, 0, 0)), new)
        return *parts, t

    compiled = jax.jit(update_all, donate_argnums=(0, 1, 2, 3))

    def step() -> None:
        state[:] = compiled(*state)
        jax.block_until_ready(state)

    return step


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    import jax

    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits.astype("float32")), y[:, None], 1).mean()


def _scan(depth: int, width: int, batch: int, dtype: str) -> Step:
    """Builds the network with `lax.scan`, without a library of layers."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    parameters = [
        (
            1.1 * jax.random.normal(key, shape, dtype) / shape[-2] ** 0.5,
            jnp.zeros((*shape[:-2], shape[-1]), dtype),
        )
        for key, shape in zip(
            keys, [(INPUTS, width), (depth - 1, width, width), (width, CLASSES)], strict=True
        )
    ]

    def loss(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (w1, b1), hidden, (w2, b2) = parameters
        h = jnp.tanh(x.astype(dtype) @ w1 + b1)
        h, _ = jax.lax.scan(lambda h, wb: (jnp.tanh(h @ wb[0] + wb[1]), None), h, hidden)
        return _cross_entropy(h @ w2 + b2, y)

    return _jax_step(loss, parameters, batch)


def _equinox(depth: int, width: int, batch: int, dtype: str) -> Step:
    import equinox
    import jax

    mlp = equinox.nn.MLP(
        INPUTS, CLASSES, width, depth, jax.numpy.tanh, scan=True, dtype=dtype, key=jax.random.key(0)
    )
    parameters, rest = equinox.partition(mlp, equinox.is_array)

    def loss(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _cross_entropy(jax.vmap(equinox.combine(parameters, rest))(x.astype(dtype)), y)

    return _jax_step(loss, parameters, batch)


def _matmuls(depth: int, width: int, batch: int, dtype: str) -> Step:
    """Builds a step of only the three matrix multiplications of every layer, on the current back end.

    All layers share one kernel, which stays in the cache. The time to read and update `depth` kernels is
    therefore not included.
    """
    import keras

    h, w = np.zeros((batch, width), "float32"), np.zeros((width, width), "float32")
    if keras.backend.backend() == "jax":
        import jax
        import jax.numpy as jnp

        def layer(h: Tensor, _: None) -> tuple[Tensor, None]:
            a = h @ weights
            return a @ (h.T @ a).T, None

        weights = jnp.asarray(w, dtype)
        run = jax.jit(lambda h: jax.lax.scan(layer, h, None, length=depth)[0])
        start = jnp.asarray(h, dtype)
        return lambda: run(start).block_until_ready()
    import tensorflow as tf

    kernel = tf.constant(w, dtype)

    @tf.function
    def loop(h: Tensor) -> Tensor:
        def ten_layers(done: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            for _ in range(10):
                a = tf.matmul(h, kernel)
                h = tf.matmul(a, tf.matmul(h, a, transpose_a=True), transpose_b=True)
            return done + 10, h

        return tf.while_loop(lambda done, _: done < depth, ten_layers, (0, h))[1]

    first = tf.constant(h, dtype)
    return lambda: loop(first).numpy()


def _on(backend: str, build: Build) -> Build:
    """Returns a builder that selects Keras's back end first, before Keras is imported."""

    def build_on_backend(depth: int, width: int, batch: int, dtype: str) -> Step:
        os.environ["KERAS_BACKEND"] = backend
        return build(depth, width, batch, dtype)

    return build_on_backend


# Names as in the table.
CONTENDERS: dict[str, Build] = {
    "bare matmuls, TensorFlow": _on("tensorflow", _matmuls),
    "keras_rwinit, TensorFlow, XLA": _on("tensorflow", stack_builder(True)),
    "keras_rwinit, TensorFlow": _on("tensorflow", stack_builder("auto")),
    "keras_rwinit, TensorFlow, XLA, remat": _on("tensorflow", stack_builder(True, remat="sqrt")),
    "Keras Dense, TensorFlow": _on("tensorflow", _dense),
    "PyTorch Sequential": _torch,
    "bare matmuls, JAX": _on("jax", _matmuls),
    "keras_rwinit, JAX": _on("jax", stack_builder("auto")),
    "JAX lax.scan by hand": _scan,
    "Equinox MLP(scan=True)": _equinox,
}
