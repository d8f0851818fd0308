"""Hostile calls of all that builds a network: finite weights, or a ValueError that names an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
from hostile import Call, Target, draw_calls, find_fault, mostly

from keras_rwinit import initialize, model_zoo
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack

ACTIVATIONS = mostly(
    (
        "relu",
        "relu",
        "relu",
        "tanh",
        "gelu",
        "linear",
        "erf",
        "leaky_relu(0.9)",
        "softplus",
        keras.activations.relu,
    ),
    *("leaky_relu(1e300)", "elu(nan)", "exponential", "softmax", "celu(0)", "sigmoid", "glu", "mish"),
    *(np.tanh, np.sum, keras.ops.sin, keras.ops.sum, len),
)
LAWS = ("normal", "orthogonal", "uniform", "truncated_normal", "looks_linear")
GAINS = mostly((None, None, 0.5, 1.0, 1.5), 20.0, 1e-10, 1e10, 1e39, 1e300)
FLOATS = (None, None, "float16", "bfloat16", "float64", "mixed_float16", keras.DTypePolicy("mixed_bfloat16"))
DTYPES = mostly(FLOATS, "int8", "float8", "string", "bool", "complex64")
INITIALIZERS = mostly(
    (None, None, None, None, None, "glorot_uniform", "random_walk_tanh"),
    *("zeros", "ones", "identity", "relu", RandomWalk, keras.initializers.Orthogonal(1e39)),
)
SHAPES = mostly(((3,), (4,), (2, 2), (1, 1, 1), [3]), (), (None, 3), (10**12,), (0,), (2.0,))
SEEDS = mostly((None, 0, 1), -3, 10**30)


def dense_stack(units: Any, **arguments: Any) -> DenseStack:
    """Makes a stack and its weights."""
    layer = DenseStack(**arguments)
    layer.build((None, units))
    return layer


def random_walk(shape: Any, dtype: Any, **arguments: Any) -> Any:
    """Draws a kernel."""
    return keras.ops.convert_to_numpy(RandomWalk(**arguments)(shape, dtype))


def finite_weights(result: Any, arguments: Mapping[str, Any]) -> str | None:
    """No weight is infinite or NaN, and no kernel all zero unless its own initializer makes it."""
    initializer = arguments.get("kernel_initializer")
    for weight in result.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
        if not np.isfinite(values).all() and initializer is None:
            return f"{weight.path} is not finite"
        if weight.name == "kernel" and not values.any() and initializer is None:
            return f"{weight.path} is zero"
    return None


def finite_kernel(result: Any, arguments: Mapping[str, Any]) -> str | None:
    values = np.asarray(result, np.float64)
    return None if np.isfinite(values).all() and values.any() else f"returns {values}"


def compiles(result: Any, arguments: Mapping[str, Any]) -> str | None:
    rate = float(result["optimizer"].learning_rate)
    return None if 0.0 < rate <= 1.0001e-3 else f"returns the rate {rate}"


def rate(result: Any, arguments: Mapping[str, Any]) -> str | None:
    return None if isinstance(result, float) and 0.0 < result <= 1e-3 else f"returns {result!r}"


NETWORK = {
    "activation": ACTIVATIONS,
    "input_shape": SHAPES,
    "kernel_initializer": INITIALIZERS,
    "distribution": (None, None, *LAWS),
    "gain": GAINS,
    "output_gain": GAINS,
    "seed": SEEDS,
    "dtype": DTYPES,
    "name": mostly((None, "net"), "a/b", "a b"),
}


def affordable(call: Call) -> bool:
    """Returns whether a network has few enough layers to be drawn: a million of them take a minute."""
    depth = call.arguments.get("depth")
    builds = call.target.find_fault is finite_weights
    return not (builds and isinstance(depth, int) and 10**5 < depth < 10**12)


def small_models() -> tuple[Any, ...]:
    """Returns models to convert, and what is none."""
    inputs = keras.Input((4,))
    branch = keras.layers.Add()([inputs, keras.layers.Dense(4)(inputs)])
    return (
        model_zoo.deep_mlp(3, 4, input_shape=(4,), classes=2, seed=0),
        model_zoo.deep_mlp(1, 4, input_shape=(2, 2), classes=1, seed=0),
        model_zoo.deep_mlp(3, 4, input_shape=(4,), stacked=False, classifier_activation="softmax"),
        model_zoo.deep_autoencoder(5, 4, 2, "relu", input_shape=(4,)),
        keras.Sequential([keras.layers.Dense(3)]),
        keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(2), keras.layers.Dense(3)]),
        keras.Sequential(),
        keras.Model(inputs, branch),
        keras.Model(inputs, [branch, keras.layers.Dense(1)(branch)]),
        keras.Model(inputs, inputs),
        keras.layers.Dense(3),
        DenseStack(2),
        keras.Sequential,
    )


@functools.cache
def make_targets() -> tuple[Target, ...]:
    """Returns the functions to call; the models that they take are made once."""
    models = small_models()
    return (
        Target(
            model_zoo.deep_mlp,
            {
                "depth": (1, 2, 3, 6),
                "width": (1, 2, 3, 8),
                **NETWORK,
                "classes": (1, 2, 10),
                "classifier_activation": mostly((None, "softmax", "sigmoid"), "relu", len),
                "input_gain": GAINS,
                "bias_stddev": mostly((None, None, None, 0.1), 1e-30, 1e39),
                "stacked": (True, True, False),
                "remat": mostly((None,), "sqrt", 1, 3, 100),
            },
            finite_weights,
            0.02,
            may_warn=True,
        ),
        Target(
            model_zoo.deep_autoencoder,
            {"depth": (1, 2, 3, 6), "width": (4, 8), "bottleneck": (1, 2, 3), **NETWORK},
            finite_weights,
            0.02,
            may_warn=True,
        ),
        Target(
            dense_stack,
            {
                "units": (1, 2, 3, 8),
                "depth": (1, 2, 3, 6),
                "activation": ACTIVATIONS,
                "use_bias": (True, False),
                "kernel_initializer": INITIALIZERS,
                "bias_initializer": mostly(("zeros", "ones"), "relu"),
                "kernel_regularizer": mostly((None, "l2"), "l3"),
                "kernel_constraint": mostly((None, "non_neg"), "l3"),
                "remat": mostly((None, "sqrt", 2), 0),
                "lora_rank": mostly((None, None, 1, 2), 50),
                "dtype": DTYPES,
            },
            finite_weights,
            0.02,
            may_warn=True,
        ),
        Target(
            random_walk,
            {
                "shape": mostly(
                    ((3, 4), (1, 1), (8, 8), [4, 4]), (2, 2, 3), (), (3,), (0, 2), (10**9, 10**9), (2.0, 2)
                ),
                "dtype": mostly((None, "float16", "float64", "bfloat16"), "int32", "floaty"),
                "activation": ACTIVATIONS,
                "distribution": LAWS,
                "depth": mostly((None, 1, 2, 100), 10**6),
                "gain": GAINS,
                "seed": SEEDS,
                "fan_in": mostly((None,), 3, 2),
                "mirrored": mostly(("both",), "inputs", "outputs"),
            },
            finite_kernel,
            0.05,
            may_warn=True,
        ),
        Target(
            model_zoo.from_preset,
            {
                "name": mostly(tuple(model_zoo.presets), "digits"),
                "depth": (1, 2),
                "width": (2, 4),
                "gain": GAINS,
                "seed": (None, 0),
                "dtype": DTYPES,
            },
            finite_weights,
            0.1,
            may_warn=True,
        ),
        Target(
            model_zoo.recipe,
            {"model": models, "loss": (None, None, "mse", "huber", keras.losses.Huber())},
            compiles,
        ),
        Target(
            model_zoo.learning_rate, {"depth": (1, 10, 1000), "width": (1, 64), "decays": (True, False)}, rate
        ),
        Target(model_zoo.stack, {"model": models}, finite_weights, 0.1),
        Target(model_zoo.unstack, {"model": models}, finite_weights, 0.1),
    )


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        (9, 0),
        *(pytest.param(60, seed, marks=pytest.mark.slow) for seed in range(1, 3)),
        *(
            pytest.param(1000, seed, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for seed in range(100, 105)
        ),
    ],
)
def test_hostile_calls(count: int, seed: int) -> None:
    calls = filter(affordable, draw_calls(make_targets(), count, seed))
    faults = [fault for call in calls if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("received", ["gain=-1.0", "gain=1.0", "scale=2"])
def test_a_message_about_another_argument_is_a_fault(received: str) -> None:
    """As when the gain that an initializer receives is `input_gain` of the model."""

    def wrong(gain: Any, input_gain: Any) -> None:
        name = received.split("=")[0]
        raise ValueError(f"`{name}` must be above 0. Received: {received}")

    for gain, faulty in ((None, True), (1.0, received != "gain=1.0"), (-1, received != "gain=-1.0")):
        call = Call(Target(wrong, {}, finite_weights), {"gain": gain, "input_gain": -1.0})
        assert (find_fault(call) is not None) is faulty


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_zoo.stack(3), "`model` must be a Keras model"),
        (lambda: model_zoo.unstack(keras.Sequential), "`model` must be a Keras model"),
        (lambda: model_zoo.unstack(keras.Model(*[keras.Input((4,))] * 2)), "must have layers"),
        (
            lambda: model_zoo.deep_mlp(2, 4, dtype="int8_from_float32"),
            "`dtype` must be a float dtype.*quantize",
        ),
        (lambda: model_zoo.recipe(model_zoo.deep_mlp(2, 4), loss=1e6), "`loss` must be a Keras loss"),
        (lambda: DenseStack(2, dtype="complex64"), "`dtype` must be a float dtype"),
        (lambda: DenseStack(2, bias_initializer=3), "`bias_initializer` must be.*Constant\\(3\\)"),
        (lambda: DenseStack(2, kernel_initializer=200), "`kernel_initializer` must be a Keras initializer"),
        (
            lambda: model_zoo.deep_mlp(2, 4, kernel_initializer="random_wlk"),
            "`kernel_initializer` must be.*random_walk",
        ),
        (lambda: model_zoo.deep_autoencoder(4, 8, 2, kernel_initializer=1.5), "`kernel_initializer` must be"),
        (lambda: RandomWalk()((10**9, 10**9)), "To draw a kernel of shape .* takes .* of memory"),
        (lambda: initialize(model_zoo.deep_mlp(2, 4), layers=0), "`layers` must hold layers"),
    ],
)
def test_what_was_a_foreign_error(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
