"""The table of small models that other modules fill, and what their builders share.

Layers whose names differ in a number alone stand at equal places of a chain; those whose names begin with
`head` feed no other kernel. A builder that is asked for `plain` returns the same network as the back end's
own differentiation can run it: in float32, without rematerialization and compiled functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from keras_helpers import BACKEND
from numpy.typing import NDArray

Array = NDArray[Any]
L = keras.layers
OUTPUT = "head"
EXAMPLES = 4


class Size(NamedTuple):
    """Units of a layer and layers of a chain."""

    width: int
    depth: int
    plain: bool = False


TINY, WIDE = Size(4, 3), Size(48, 8)


@dataclass
class Problem:
    """A compiled model with one batch of examples."""

    model: keras.Model
    x: Any
    y: Any
    sample_weight: Any = None
    several_arguments: bool = False
    examples: int = EXAMPLES

    def tensors(self) -> tuple[keras.Model, Any, Any, Any]:
        def convert(value: Any) -> Any:
            return None if value is None else keras.ops.convert_to_tensor(value)

        values = (keras.tree.map_structure(convert, v) for v in (self.x, self.y, self.sample_weight))
        return self.model, *values


@dataclass(frozen=True)
class Case:
    """A kind of model.

    Args:
        build: Builds a problem of a size.
        training: Whether it is measured as in training.
        no_chain: Why there is no chain of layers for `initialize` to keep even; empty if there is.
        wide: The size at which the walk's own spread is small.
        names: Whether the plain network has layers of the same names.
        randomize: Whether biases and the like get values other than the first ones.
        seeds: Networks that `initialize` draws.
        default: Whether it runs by default.
        backends: Whether it runs on the other back ends.
        fails: What is not right about it, by the test that fails.
    """

    build: Callable[[Size], Problem]
    training: bool = False
    no_chain: str = ""
    wide: Size = WIDE
    names: bool = True
    randomize: bool = True
    seeds: int = 3
    default: bool = False
    backends: bool = False
    fails: Mapping[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(name: str, **options: Any) -> Callable[[Callable[[Size], Problem]], Callable[[Size], Problem]]:
    """Adds a builder to the table."""

    def add(build: Callable[[Size], Problem]) -> Callable[[Size], Problem]:
        CASES[name] = Case(build, **options)
        return build

    return add


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(EXAMPLES, *shape)).astype("float32")


def labels(classes: int, *shape: int) -> Array:
    return np.random.default_rng(2).integers(0, classes, (EXAMPLES, *shape)).astype("int32")


def solve(
    inputs: Any, outputs: Any, x: Any, y: Any = None, loss: Any = "mse", weights: Any = None, **options: Any
) -> Problem:
    """Compiles a functional model; without targets they are random numbers of the output's shape."""
    model = keras.Model(inputs, outputs, name="model")
    model.compile("sgd", loss, **options)
    if y is None:
        y = normal(*model.output_shape[1:], seed=1)
    return Problem(model, x, y, weights)


def dense_chain(h: Any, size: Size, activation: Any, name: str = "h", **options: Any) -> Any:
    for number in range(size.depth):
        h = L.Dense(size.width, activation, name=f"{name}{number}", **options)(h)
    return h


def tokens(*shape: int) -> Array:
    """Tokens above zero, of which the last ones of each example are padding."""
    x = np.random.default_rng(0).integers(1, 9, (EXAMPLES, *shape)).astype("int32")
    for number in range(EXAMPLES):
        x[number, shape[0] - number % 3 :] = 0
    return x


def foreign(x: Any) -> Any:
    """Does nothing, by a function of the back end, which refuses symbolic tensors."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.cast(x, tf.float32)
    if BACKEND == "jax":
        import jax

        return jax.lax.convert_element_type(x, "float32")
    import torch

    return torch.clone(x)


class OwnKernel(L.Layer):
    """A layer of somebody's own with a kernel, (outputs, inputs)."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(self.units, shape[-1]), name="kernel")

    def call(self, x: Any) -> Any:
        return keras.ops.relu(keras.ops.matmul(x, keras.ops.transpose(self.kernel)))
