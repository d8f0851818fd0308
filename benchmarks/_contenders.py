"""The networks that `stacks_compared.py` measures, each as a training step to call.

All are the same network: 64 inputs, tanh layers with biases, ten classes, Adam. Each runs in its own process.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import keras

__all__ = ["ADAM", "CONTENDERS", "EPOCH", "Epoch", "backend_of", "stack_builder"]

INPUTS, CLASSES, LEARNING_RATE = 64, 10, 1e-6
EPOCH = 32  # steps
ADAM, ADAM_PASSES = "Adam's seven passes over the weights", 7

# Makes one training step; the result is not used.
Step: TypeAlias = Callable[[], object]
# Builds a network from depth, width, batch size and dtype, and returns its step.
Build: TypeAlias = Callable[[int, int, int, str], Step]
# An array or a tree of arrays of the engine that is measured.
Tensor: TypeAlias = Any


def _draw_batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, INPUTS)).astype("float32"), rng.integers(0, CLASSES, batch)


class Epoch:
    """One epoch of `fit`, which reads the state of the model back once; the first epoch has one step.

    Args:
        model: A compiled model.
        batch: Examples per step.
    """

    def __init__(self, model: keras.Model, batch: int) -> None:
        self.model, self.batch, self.steps = model, batch, 1
        self._x, self._y = _draw_batch(EPOCH * batch)

    def __call__(self) -> None:
        """Makes the steps."""
        examples = self.steps * self.batch
        self.model.fit(self._x[:examples], self._y[:examples], self.batch, shuffle=False, verbose=0)
        self.steps = EPOCH


def _compile(model: keras.Model, batch: int, jit_compile: bool | str, steps_per_execution: int = 1) -> Step:
    """Compiles a Keras model and returns its training step; an epoch of `fit` for several steps at once."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        loss,
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    if steps_per_execution > 1:
        return Epoch(model, batch)
    x, y = _draw_batch(batch)
    return lambda: model.train_on_batch(x, y)


def stack_builder(
    jit_compile: bool | str,
    remat: str | None = None,
    activation: str = "tanh",
    distribution: str | None = "normal",
    steps_per_execution: int = 1,
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
        return _compile(model, batch, jit_compile, steps_per_execution)

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


def _torch(compiled: bool) -> Build:
    """Returns the builder of PyTorch's network with its fused Adam, compiled by `torch.compile` or not.

    It runs on a GPU if there is one; compiled, it is then replayed as CUDA graphs.
    """

    def build(depth: int, width: int, batch: int, dtype: str) -> Step:
        import torch

        on_gpu = torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        if on_gpu:
            torch.set_float32_matmul_precision("high")  # TF32, which JAX uses by default
        layers: list[Any] = []
        for fan_in in [INPUTS, *[width] * (depth - 1)]:
            layers += [torch.nn.Linear(fan_in, width), torch.nn.Tanh()]
            torch.nn.init.normal_(layers[-2].weight, std=1.1 / fan_in**0.5)
        model = torch.nn.Sequential(*layers, torch.nn.Linear(width, CLASSES))
        model = model.to(device, getattr(torch, dtype))
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
        network = torch.compile(model, mode="reduce-overhead" if on_gpu else None) if compiled else model
        x, y = (torch.as_tensor(array, device=device) for array in _draw_batch(batch))
        x = x.to(getattr(torch, dtype))

        def step() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
            if on_gpu:
                torch.cuda.synchronize()

        return step

    return build


def _jax_step(loss: Callable[..., Tensor], parameters: Tensor, batch: int, with_optax: bool = False) -> Step:
    """Returns a step of Adam on a tree of arrays that every step donates and replaces.

    Args:
        loss: Function of the parameters and a batch.
        parameters: The tree of arrays.
        batch: Number of examples.
        with_optax: Whether Adam is optax's, else it is written by hand.
    """
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(array) for array in _draw_batch(batch))
    if with_optax:
        import optax

        adam = optax.adam(LEARNING_RATE)
        state = [parameters, adam.init(parameters)]

        def update_all(w: Tensor, of_adam: Tensor) -> Tensor:
            updates, of_adam = adam.update(jax.grad(loss)(w, x, y), of_adam, w)
            return optax.apply_updates(w, updates), of_adam

    else:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        state = [parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros((), "int32")]
        update_all = functools.partial(_adam_by_hand, jax.grad(loss), x, y)
    compiled = jax.jit(update_all, donate_argnums=tuple(range(len(state))))

    def step() -> None:
        state[:] = compiled(*state)
        jax.block_until_ready(state)

    return step


def _adam_by_hand(
    gradient: Callable[..., Tensor], x: Tensor, y: Tensor, w: Tensor, m: Tensor, v: Tensor, t: Tensor
) -> Tensor:
    import jax
    import jax.numpy as jnp

    def update(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
        scale = jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return w - (LEARNING_RATE * scale * m / (jnp.sqrt(v) + 1e-7)).astype(w.dtype), m, v

    t = t + 1
    new = jax.tree.map(lambda *leaves: update(*leaves, t.astype("float32")), w, gradient(w, x, y), m, v)
    return *jax.tree.transpose(jax.tree.structure(w), jax.tree.structure((0, 0, 0)), new), t


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    import jax

    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits.astype("float32")), y[:, None], 1).mean()


def _scan(unroll: int = 1, with_optax: bool = False) -> Build:
    """Returns the builder of the network with `lax.scan`, without a library of layers."""

    def build(depth: int, width: int, batch: int, dtype: str) -> Step:
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

        def layer(h: Tensor, weights: Tensor) -> tuple[Tensor, None]:
            return jnp.tanh(h @ weights[0] + weights[1]), None

        def loss(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
            (w1, b1), hidden, (w2, b2) = parameters
            h = jnp.tanh(x.astype(dtype) @ w1 + b1)
            h, _ = jax.lax.scan(layer, h, hidden, unroll=unroll)
            return _cross_entropy(h @ w2 + b2, y)

        return _jax_step(loss, parameters, batch, with_optax)

    return build


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


def _matmuls(different: bool) -> Build:
    """Returns the builder of only the three matrix multiplications of every layer, on the current back end.

    Args:
        different: Whether every layer has a kernel of its own, which is read from memory. Otherwise one
            kernel stays in the cache.
    """

    def build(depth: int, width: int, batch: int, dtype: str) -> Step:
        import keras

        h = np.zeros((batch, width), "float32")
        w = np.zeros((depth if different else 1, width, width), "float32")
        if keras.backend.backend() == "jax":
            return _matmuls_of_jax(h, w, depth, dtype)
        return _matmuls_of_tensorflow(h, w, depth, dtype, different)

    return build


def _matmuls_of_jax(h: np.ndarray, w: np.ndarray, depth: int, dtype: str) -> Step:
    import jax
    import jax.numpy as jnp

    def layer(h: Tensor, kernel: Tensor) -> tuple[Tensor, None]:
        a = h @ kernel
        return a @ (h.T @ a).T, None

    kernels = jnp.asarray(w, dtype)
    if len(w) == 1:
        run = jax.jit(lambda h, kernels: jax.lax.scan(lambda h, _: layer(h, kernels[0]), h, None, depth)[0])
    else:
        run = jax.jit(lambda h, kernels: jax.lax.scan(layer, h, kernels)[0])
    start = jnp.asarray(h, dtype)
    return lambda: run(start, kernels).block_until_ready()


def _matmuls_of_tensorflow(h: np.ndarray, w: np.ndarray, depth: int, dtype: str, different: bool) -> Step:
    import tensorflow as tf

    kernels = tf.Variable(w, dtype=dtype)
    at_once = math.gcd(depth, 10)

    @tf.function
    def loop(h: Tensor) -> Tensor:
        of_layers = kernels.value()

        def some_layers(done: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            for number in range(at_once):
                a = tf.matmul(h, of_layers[done + number if different else 0])
                h = tf.matmul(a, tf.matmul(h, a, transpose_a=True), transpose_b=True)
            return done + at_once, h

        return tf.while_loop(lambda done, _: done < depth, some_layers, (0, h))[1]

    first = tf.constant(h, dtype)
    return lambda: loop(first).numpy()


def _adam_passes(depth: int, width: int, batch: int, dtype: str) -> Step:
    """Builds a step that moves as many bytes as Adam has to, at the speed at which the machine copies.

    Adam reads the gradient, the weights and two moments, and writes the weights and the moments: seven passes
    over an array of the weights' size. A copy makes two of them.
    """
    size = depth * width * width
    item = "float32" if dtype == "float32" else "float16"  # NumPy has no bfloat16, which has the same size
    source, target = np.ones(size, item), np.zeros(size, item)
    threads = os.cpu_count() or 1
    bounds = list(itertools.pairwise(size * number // threads for number in range(threads + 1)))
    pool = ThreadPoolExecutor(threads)

    def copy(first: int, last: int) -> None:
        np.copyto(target[first:last], source[first:last])

    def step() -> None:
        for _ in range(ADAM_PASSES // 2):
            list(pool.map(copy, *zip(*bounds, strict=True)))
        if ADAM_PASSES % 2:  # half a copy
            list(pool.map(copy, *zip(*[(first, (first + last) // 2) for first, last in bounds], strict=True)))

    return step


def _on(backend: str, build: Build) -> Build:
    """Returns a builder that fails unless the process runs on Keras's back end of that name."""

    def build_on_backend(depth: int, width: int, batch: int, dtype: str) -> Step:
        import keras

        if keras.backend.backend() != backend:
            raise RuntimeError(f"Set KERAS_BACKEND={backend} before Keras is imported.")
        return build(depth, width, batch, dtype)

    return build_on_backend


def backend_of(name: str) -> str | None:
    """Returns the back end of Keras that a contender needs; None for one without Keras."""
    return next((backend.lower() for backend in ("JAX", "TensorFlow") if f", {backend}" in name), None)


# Names as in the table.
CONTENDERS: dict[str, Build] = {
    "bare matmuls, TensorFlow": _on("tensorflow", _matmuls(different=False)),
    "matmuls of different kernels, TensorFlow": _on("tensorflow", _matmuls(different=True)),
    "keras_rwinit, TensorFlow, XLA": _on("tensorflow", stack_builder(True)),
    "keras_rwinit, TensorFlow": _on("tensorflow", stack_builder("auto")),
    "keras_rwinit, TensorFlow, XLA, remat": _on("tensorflow", stack_builder(True, remat="sqrt")),
    "Keras Dense, TensorFlow": _on("tensorflow", _dense),
    "PyTorch Sequential": _torch(compiled=False),
    "PyTorch Sequential, torch.compile": _torch(compiled=True),
    "bare matmuls, JAX": _on("jax", _matmuls(different=False)),
    "matmuls of different kernels, JAX": _on("jax", _matmuls(different=True)),
    "keras_rwinit, JAX": _on("jax", stack_builder("auto")),
    "keras_rwinit, JAX, fit": _on("jax", stack_builder("auto", steps_per_execution=8)),
    "Keras Dense, JAX": _on("jax", _dense),
    "JAX lax.scan by hand": _scan(),
    "JAX lax.scan by hand, unroll=4": _scan(unroll=4),
    "JAX lax.scan, optax": _scan(with_optax=True),
    "Equinox MLP(scan=True)": _equinox,
    ADAM: _adam_passes,
}
