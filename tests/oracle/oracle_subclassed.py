"""Subclassed models in many styles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras_helpers import BACKEND
from oracle_cases import (
    CASES,
    OUTPUT,
    Case,
    OwnKernel,
    Problem,
    Size,
    foreign,
    normal,
)

L = keras.layers


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


class Subclassed(keras.Model):
    """Keeps its layers in another order than that in which it applies them."""

    def __init__(self, size: Size) -> None:
        super().__init__(name="model")
        self.plain = size.plain
        self.top = L.Dense(2, name=OUTPUT)
        self.hidden = [L.Dense(size.width, name=f"h{number}") for number in reversed(range(size.depth))]

    def run(self, x: Any) -> Any:
        for layer in reversed(self.hidden):
            x = keras.ops.relu(layer(x))
        return self.top(x)


class InList(Subclassed):
    def call(self, x: Any) -> Any:
        return self.run(x)


class NeedsTraining(Subclassed):
    def call(self, x: Any, training: bool) -> Any:
        del training
        return self.run(x)


class Casts(Subclassed):
    def call(self, x: Any) -> Any:
        return foreign(self.run(foreign(x)))


class BuiltByHand(Subclassed):
    def __init__(self, size: Size) -> None:
        super().__init__(size)
        for layer in (*self.hidden, self.top):
            layer.build((None, size.width))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.run(foreign(x))


class Compiled(Subclassed):
    """Compiles what it does, which the plain one does not."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.inside = self.run if size.plain else compiled(self.run)

    def call(self, x: Any) -> Any:
        return self.inside(x)


class Rematerialized(Subclassed):
    def call(self, x: Any) -> Any:
        for layer in reversed(self.hidden):
            x = keras.ops.relu(layer(x) if self.plain else keras.remat(layer)(x))
        return self.top(x)


class InDictionaries(Subclassed):
    """Takes an optional input and returns an output that is not there."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        h = inputs["x"] if inputs["context"] is None else inputs["x"] + inputs["context"]
        outputs = self.run(foreign(h))
        return outputs if self.plain else (outputs, None)


class SeveralArguments(Subclassed):
    def call(self, one: Any, other: Any, training: bool = False) -> Any:
        return self.run(one + other)


class Block(L.Layer):
    """A residual block with layers of its own."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__(name=f"block{number}")
        self.inner = L.Dense(2 * width, "relu", name=f"inner{number}")
        self.outer = L.Dense(width, name=f"outer{number}")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.outer.build((*shape[:-1], self.inner.units))

    def call(self, x: Any) -> Any:
        return x + self.outer(self.inner(x))


class InBlocks(keras.Model):
    def __init__(self, size: Size) -> None:
        super().__init__(name="model")
        self.blocks = [Block(size.width, number) for number in range(size.depth)]
        self.top = L.Dense(2, name=OUTPUT)

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.top(x)


class OwnLayers(keras.Model):
    def __init__(self, size: Size) -> None:
        super().__init__(name="model")
        self.hidden = [OwnKernel(size.width, name=f"h{number}") for number in range(size.depth)]
        self.top = L.Dense(2, name=OUTPUT)

    def call(self, x: Any) -> Any:
        for layer in self.hidden:
            x = layer(x)
        return self.top(x)


NO_SHAPE = "without data nothing is known of its inputs' shapes, and the order of its layers is a guess"
STYLES: dict[str, tuple[Callable[[Size], keras.Model], dict[str, Any]]] = {
    "layers in a list": (InList, {}),
    "training without a default": (NeedsTraining, {}),
    "casts by the back end": (Casts, {"default": True, "backends": True}),
    "built by hand": (BuiltByHand, {"fails": {"theory": NO_SHAPE}}),
    "compiled": (Compiled, {"default": True}),
    "keras.remat in the call": (Rematerialized, {}),
    "dictionaries and None": (InDictionaries, {"backends": True}),
    "several arguments": (SeveralArguments, {"fails": {"theory": NO_SHAPE}}),
    "layers in blocks": (InBlocks, {"wide": Size(48, 6)}),
    "kernels of one's own": (OwnLayers, {}),
}


def add_styles() -> None:
    for kind, (style, options) in STYLES.items():

        def build(size: Size, style: Callable[[Size], keras.Model] = style) -> Problem:
            model, x = style(size), normal(size.width)
            several = style is SeveralArguments
            inputs: Any = {"x": x, "context": None} if style is InDictionaries else x
            inputs = (x, normal(size.width, seed=3)) if several else inputs
            model(*(inputs if several else (inputs,)), training=False)
            model.compile("sgd", "mse")
            return Problem(model, inputs, normal(2, seed=1), several_arguments=several)

        CASES[f"subclassed, {kind}"] = Case(build, **options)


add_styles()
