"""Models with shared and tied kernels; precision, rematerialization and adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras_helpers import BACKEND
from oracle_cases import (
    CASES,
    OUTPUT,
    Case,
    Problem,
    Size,
    case,
    dense_chain,
    labels,
    normal,
    solve,
    tokens,
)

L = keras.layers


# Shared and tied kernels, nested models
@case("two towers of one kind", default=True)
def siamese(size: Size) -> Problem:
    hidden = [L.Dense(size.width, "relu", name=f"h{number}") for number in range(size.depth)]
    tower = keras.Sequential([keras.Input((size.width,)), *hidden], name="tower")
    one, other = keras.Input((size.width,)), keras.Input((size.width,))
    h = keras.ops.abs(tower(one) - tower(other))
    x = [normal(size.width), normal(size.width, seed=1)]
    return solve([one, other], L.Dense(2, name=OUTPUT)(h), x)


@case("one layer applied again and again", wide=Size(64, 8))
def repeated(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    layer = L.Dense(size.width, "tanh", name="h")
    for _ in range(size.depth):
        h = layer(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


class Transposed(L.Layer):
    """Applies the kernel of another layer the other way round."""

    def __init__(self, layer: L.Dense, **options: Any) -> None:
        super().__init__(**options)
        self.layer = layer

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, keras.ops.transpose(self.layer.kernel))


@case("a tied decoder", wide=Size(48, 4))
def tied(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    layers = [L.Dense(size.width, name=f"h{number}") for number in range(size.depth)]
    for layer in layers:
        h = keras.ops.tanh(layer(h))
    for layer in reversed(layers):
        h = keras.ops.tanh(Transposed(layer)(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("a tied output", wide=Size(48, 4))
def tied_output(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    layers = [L.Dense(size.width, "tanh", name=f"h{number}") for number in range(size.depth)]
    for layer in layers:
        h = layer(h)
    return solve(inputs, Transposed(layers[-1])(h), normal(size.width))


@case("tied embeddings")
def tied_embeddings(size: Size) -> Problem:
    inputs = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(9, size.width, name="table")
    h = dense_chain(table(inputs), size, "tanh")
    # An embedding is a table and no kernel, so that this layer's is the last one.
    h = L.Dense(size.width, name=OUTPUT)(h)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return solve(inputs, table(h, reverse=True), tokens(6), labels(9, 6), loss)


@case("models in models")
def nested(size: Size) -> Problem:
    def block(name: str, activation: str) -> keras.Model:
        inputs = keras.Input((size.width,))
        part = Size(size.width, (size.depth + 1) // 2)
        return keras.Model(inputs, dense_chain(inputs, part, activation, name), name=name)

    inputs = keras.Input((size.width,))
    h = block("one", "relu")(inputs)
    h = keras.Sequential([keras.Input((size.width,)), block("two", "relu")], name="outer")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


# Precision, rematerialization, adapters
@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_policy(kind: str, name: str, plain: str, optimizer: str = "sgd", **options: Any) -> None:
    def build(size: Size) -> Problem:
        with policy(plain if size.plain else name):
            inputs = keras.Input((size.width,))
            h = L.LayerNormalization()(dense_chain(inputs, size, "tanh"))
            model = keras.Model(inputs, L.Dense(2, name=OUTPUT)(h), name="model")
            model.compile(optimizer, "mse")
        return Problem(model, normal(size.width), normal(2, seed=1))

    CASES[kind] = Case(build, **options)


in_policy("mixed_bfloat16", "mixed_bfloat16", "float32", default=True, backends=True)
in_policy("mixed_float16, scaled loss", "mixed_float16", "float32", "adam")
in_policy("bfloat16", "bfloat16", "float32")
if BACKEND != "jax":  # which knows no float64 unless it is told to
    in_policy("float64", "float64", "float64")


def rematerialized(mode: str, **options: Any) -> None:
    def build(size: Size) -> Problem:
        with contextlib.nullcontext() if size.plain else keras.RematScope(mode):
            inputs = keras.Input((size.width,))
            h = dense_chain(inputs, size, "relu")
            h = L.Flatten()(
                L.MultiHeadAttention(2, 3, name="attention")(*[L.Reshape((1, size.width))(h)] * 2)
            )
        return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))

    CASES[f"RematScope, {mode}"] = Case(build, **options)


rematerialized("full", default=True)
rematerialized("activations")


@case("low-rank adapters", no_chain="its kernels are frozen")
def lora(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    h = dense_chain(inputs, size, "relu")
    problem = solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))
    for layer in problem.model.layers:
        if isinstance(layer, L.Dense):
            layer.enable_lora(2)
    return problem
