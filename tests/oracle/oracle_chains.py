"""Chains of Dense layers, with dropout, normalization, sums and gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
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
)

from keras_rwinit import model_zoo
from keras_rwinit.layers import DeepSequential, DenseStack

L = keras.layers


# Chains of Dense layers
SCALED_TANH: Callable[[Any], Any] = lambda a: keras.ops.tanh(1.3 * a)  # noqa: E731
ACTIVATIONS: dict[str, Any] = {
    "relu": "relu",
    "tanh": "tanh",
    "elu": "elu",
    "selu": "selu",
    "softsign": "softsign",
    "gelu": "gelu",
    "silu": "silu",
    "a lambda": SCALED_TANH,
}


def add_dense_chains() -> None:
    for name, activation in ACTIVATIONS.items():

        def build(size: Size, activation: Any = activation) -> Problem:
            inputs = keras.Input((size.width,))
            h = dense_chain(inputs, size, activation)
            return solve(inputs, L.Dense(3, name=OUTPUT)(h), normal(size.width))

        CASES[f"dense, {name}"] = Case(build, default=name == "tanh")


add_dense_chains()


def add_layered_chains() -> None:
    makers: dict[str, Callable[[], Any]] = {
        "relu by ops": lambda: keras.ops.relu,
        "LeakyReLU": lambda: L.LeakyReLU(0.2),
        "PReLU": lambda: L.PReLU(keras.initializers.Constant(0.3)),
        "Activation": lambda: L.Activation("tanh"),
        "x * sigmoid(x) by ops": lambda: lambda h: h * keras.ops.sigmoid(h),
    }
    for name, make in makers.items():

        def build(size: Size, make: Callable[[], Any] = make) -> Problem:
            h = inputs = keras.Input((size.width,))
            for number in range(size.depth):
                h = make()(L.Dense(size.width, name=f"h{number}")(h))
            return solve(inputs, L.Dense(3, name=OUTPUT)(h), normal(size.width))

        CASES[f"dense and {name}"] = Case(build)


add_layered_chains()


@case("Sequential, cross-entropy")
def sequential(size: Size) -> Problem:
    hidden = [L.Dense(size.width, "relu", name=f"h{number}") for number in range(size.depth)]
    model = keras.Sequential([keras.Input((6,)), *hidden, L.Dense(5, "softmax", name=OUTPUT)])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Problem(model, normal(6), labels(5))


@case("decreasing widths", wide=Size(160, 6))
def tapering(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.Dense(size.width - number * size.width // (size.depth + 3), "relu", name=f"h{number}")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("DeepSequential")
def deep_sequential(size: Size) -> Problem:
    hidden = [L.Dense(size.width, "tanh", name=f"h{number}") for number in range(size.depth)]
    model = DeepSequential([*hidden, L.Dense(2, name=OUTPUT)], (size.width,))
    model.compile("sgd", "mse")
    return Problem(model, normal(size.width), normal(2, seed=1))


@case("DenseStack", names=False, default=True, backends=True)
def stack(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    if size.plain:
        h = dense_chain(L.Dense(size.width, "relu", name="before")(h), size, "tanh")
    else:
        h = L.Dense(size.width, "relu", name="before")(h)
        h = DenseStack(size.depth, "tanh", name="stack")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("DenseStack over time", names=False)
def stack_over_time(size: Size) -> Problem:
    h = inputs = keras.Input((5, size.width))
    h = (
        dense_chain(h, size, "relu")
        if size.plain
        else DenseStack(size.depth, "relu", name="stack", kernel_initializer="random_walk")(h)
    )
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(5, size.width))


@case("deep_mlp", names=False)
def deep_mlp(size: Size) -> Problem:
    model = model_zoo.deep_mlp(size.depth, size.width, "relu", input_shape=(6,), classes=3, seed=0)
    if size.plain:
        model = model_zoo.unstack(model)
        model.layers[-1].name = OUTPUT
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Problem(model, normal(6), labels(3))


# Dropout and normalization
@case("dropout in training", training=True, default=True, wide=Size(96, 8))
def dropout(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.Dropout(0.3, seed=number)(L.Dense(size.width, "relu", name=f"h{number}")(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("dropout at inference", no_chain="the gains are those of training")
def dropout_off(size: Size) -> Problem:
    return dropout(size)


@case("Gaussian dropout in training", training=True, wide=Size(96, 8))
def gaussian_dropout(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.GaussianDropout(0.2, seed=number)(L.Dense(size.width, "tanh", name=f"h{number}")(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("alpha dropout in training", training=True, wide=Size(96, 8))
def alpha_dropout(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.AlphaDropout(0.1, seed=number)(L.Dense(size.width, "selu", name=f"h{number}")(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("spatial dropout in training", training=True, wide=Size(64, 6))
def spatial_dropout(size: Size) -> Problem:
    h = inputs = keras.Input((5, size.width))
    for number in range(size.depth):
        h = L.SpatialDropout1D(0.3, seed=number)(L.Dense(size.width, "relu", name=f"h{number}")(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(5, size.width))


def batch_normalized(size: Size) -> Problem:
    h = inputs = keras.Input((6, size.width))
    for number in range(size.depth):
        h = L.BatchNormalization()(L.Dense(size.width, use_bias=False, name=f"h{number}")(h))
        h = L.Activation("relu")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(6, size.width))


case("batch normalization in training", training=True, backends=True)(batch_normalized)
case("batch normalization at inference")(batch_normalized)


@case("pre-normalized residual", wide=Size(48, 6))
def residual_normalized(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        branch = L.Dense(2 * size.width, "gelu", name=f"inner{number}")(L.LayerNormalization()(h))
        h = h + L.Dense(size.width, name=f"outer{number}")(branch)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.LayerNormalization()(h)), normal(size.width))


@case("post-normalized residual", wide=Size(48, 6))
def residual_post(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        branch = L.Dense(size.width, "relu", name=f"inner{number}")(h)
        h = L.LayerNormalization()(L.Add()([h, L.Dense(size.width, name=f"outer{number}")(branch)]))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


# Sums, products, concatenation
@case("residual", wide=Size(48, 6))
def residual(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        branch = L.Dense(size.width, "relu", name=f"inner{number}")(h)
        h = L.Add()([h, L.Dense(size.width, name=f"outer{number}")(branch)])
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


class Scale(L.Layer):
    """Multiplies by a number that begins at zero, as ReZero does."""

    def build(self, shape: Any) -> None:
        self.alpha = self.add_weight(shape=(), initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.alpha


@case("ReZero", randomize=False, no_chain="no gradient passes the zeros")
def rezero(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = h + Scale()(L.Dense(size.width, "tanh", name=f"h{number}")(h))
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("a head of zeros", randomize=False)
def zero_head(size: Size) -> Problem:
    inputs = keras.Input((size.width,))
    h = dense_chain(inputs, size, "relu")
    head = L.Dense(2, kernel_initializer="zeros", name=OUTPUT)
    return solve(inputs, head(h), normal(size.width))


@case("dense connections", wide=Size(48, 6))
def densely_connected(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        h = L.Concatenate()([h, L.Dense(size.width, "relu", name=f"h{number}")(h)])
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("highway", wide=Size(48, 6))
def highway(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    closed = keras.initializers.Constant(-1.0)
    for number in range(size.depth):
        gate = L.Dense(size.width, "sigmoid", bias_initializer=closed, name=f"gate{number}")(h)
        new = L.Dense(size.width, "tanh", name=f"new{number}")(h)
        h = gate * new + (1.0 - gate) * h
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("gated linear units", wide=Size(64, 6))
def glu(size: Size) -> Problem:
    h = inputs = keras.Input((size.width,))
    for number in range(size.depth):
        gate = L.Dense(size.width, "sigmoid", name=f"gate{number}")(h)
        h = L.Multiply()([L.Dense(size.width, name=f"value{number}")(h), gate])
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(size.width))


@case("SwiGLU blocks", wide=Size(48, 5), default=True)
def swiglu(size: Size) -> Problem:
    h = inputs = keras.Input((5, size.width))
    for number in range(size.depth):
        n = L.RMSNormalization()(h)
        gate = keras.ops.silu(L.Dense(2 * size.width, use_bias=False, name=f"gate{number}")(n))
        up = L.Dense(2 * size.width, use_bias=False, name=f"up{number}")(n)
        h = h + L.Dense(size.width, use_bias=False, name=f"down{number}")(gate * up)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(5, size.width))


@case("squeeze and excite", wide=Size(24, 3))
def squeeze_excite(size: Size) -> Problem:
    h = inputs = keras.Input((6, 6, 3))
    for number in range(size.depth):
        h = L.Conv2D(size.width, 3, padding="same", activation="relu", name=f"conv{number}")(h)
        s = L.Dense(size.width, "relu", name=f"squeeze{number}")(L.GlobalAveragePooling2D()(h))
        s = L.Dense(size.width, "sigmoid", name=f"excite{number}")(s)
        h = h * L.Reshape((1, 1, size.width))(s)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(6, 6, 3))
