"""Models with several inputs and heads, and with losses of many kinds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from loss_helpers import OwnLoss
from oracle_cases import (
    EXAMPLES,
    OUTPUT,
    Problem,
    Size,
    case,
    dense_chain,
    labels,
    normal,
    solve,
)

L = keras.layers


@case("two heads, by name", default=True, backends=True)
def two_heads(size: Size) -> Problem:
    inputs = keras.Input((6, size.width))
    h = dense_chain(inputs, size, "tanh")
    outputs = {
        "tags": L.Dense(4, name="head_tags")(h),
        "score": L.Dense(1, name="head_score")(L.Flatten()(h)),
    }
    losses = {"tags": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "score": "mae"}
    weights = {
        "tags": np.arange(EXAMPLES * 6.0).reshape(EXAMPLES, 6).astype("float32"),
        "score": np.arange(float(EXAMPLES)).astype("float32"),
    }
    y = {"tags": labels(4, 6), "score": normal(1, seed=1)}
    x = normal(6, size.width)
    return solve(inputs, outputs, x, y, losses, weights, loss_weights={"tags": 0.3, "score": 2.0})


@case("three heads, in a list")
def list_heads(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    h = dense_chain(inputs, size, "relu")
    outputs = [L.Dense(n, name=f"head{n}")(h) for n in (2, 3, 1)]
    y = [normal(n, seed=n) for n in (2, 3, 1)]
    losses = ["mse", "mae", keras.losses.Huber()]
    return solve(inputs, outputs, normal(size.width), y, losses, loss_weights=[1.0, 0.5, 3.0])


@case("heads at every depth", no_chain="each head adds a gradient of its own")
def deep_supervision(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    outputs = []
    for number in range(size.depth):
        h = L.Dense(size.width, "tanh", name=f"h{number}")(h)
        outputs.append(L.Dense(1, name=f"head{number}")(h))
    y = [normal(1, seed=number) for number in range(size.depth)]
    return solve(inputs, outputs, normal(size.width), y, ["mse"] * size.depth)


@case("a head without a loss")
def silent_head(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    h = dense_chain(inputs, size, "relu")
    outputs = {"a": L.Dense(2, name="head_a")(h), "b": L.Dense(3, name="head_b")(h)}
    return solve(inputs, outputs, normal(size.width), {"a": normal(2, seed=1)}, {"a": "mse"})


@case("several inputs", wide=Size(48, 6))
def several_inputs(size: Size) -> Problem:
    image, table = keras.Input((4, 4, 2), name="image"), keras.Input((5,), name="table")
    one = L.Flatten()(L.Conv2D(size.width, 3, activation="relu", name="conv")(image))
    other = L.Dense(size.width, "relu", name="row")(table)
    h = dense_chain(L.Concatenate()([one, other]), size, "relu")
    x = {"image": normal(4, 4, 2), "table": normal(5)}
    return solve({"image": image, "table": table}, L.Dense(2, name=OUTPUT)(h), x)


class Penalty(L.Layer):
    """Adds two losses of what passes."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(x)))
        self.add_loss(0.1 * keras.ops.mean(keras.ops.abs(x)))
        return x


@case("added losses and regularizers", backends=True)
def penalties(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.Dense(size.width, "tanh", name=f"h{number}", kernel_regularizer="l2")(h)
        h = Penalty()(L.ActivityRegularization(l1=0.01)(h))
    weights = np.array([1.0, 0.0, 3.0, 0.5], "float32")
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width), weights=weights)


@case("a compute_loss of its own")
def own_loss(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    model = OwnLoss(inputs, L.Dense(2, name=OUTPUT)(dense_chain(inputs, size, "elu")), name="model")
    model.compile("sgd")
    return Problem(model, normal(size.width), normal(2, seed=1))


@case("a sum over the batch")
def summed_loss(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    outputs = L.Dense(2, name=OUTPUT)(dense_chain(inputs, size, "tanh"))
    return solve(inputs, outputs, normal(size.width), loss=keras.losses.MeanSquaredError("sum"))


@case("a loss of booleans")
def boolean_loss(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    outputs = L.Dense(2, name=OUTPUT)(dense_chain(inputs, size, "tanh"))

    def loss(y: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y - y_pred), axis=-1)

    return solve(inputs, outputs, normal(size.width), normal(2, seed=1) > 0.0, loss)
