"""Computes the table of values that stay as they are from version to version, `values.json`.

It uses public names alone, and passes by keyword what comes after `depth`. To record the values of another
version, delete `values.json` and, with that version installed, run in the directory of the tests
`KERAS_BACKEND=tensorflow python -m compatibility.make_values`.

What `initialize` makes of chains of tanh has been recorded anew: the first kernel had the linear gain, where
the theory's gain counts on pre-activations of variance gain^2. The walk of ten layers of 64 units was biased
by 0.29 +- 0.02 nats, and is by 0.01 +- 0.02. So has what it makes of networks with data: their outputs had a
root mean square of 0.1, with which 50 tanh layers were at a loss of 0.149 where they are at 0.003 with 1.
The gains of tanh, selu and arctan leave no drift now, and differ by up to 2e-6, with all that is drawn by
them. The expectations of curved activations have since been taken at other nodes: their gains and walks
differ by up to 2e-12, and the kernels not at all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

import keras_rwinit
from keras_rwinit import data, gradient_walk, initialize, model_zoo
from keras_rwinit.initializers import RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh
from keras_rwinit.layers import DeepSequential, DenseStack

__all__ = ["environment", "relative_tolerance", "theory_values", "values", "weight_values"]

Array = NDArray[Any]
Value = str | float

PATH = Path(__file__).with_name("values.json")
DISTRIBUTIONS = ("normal", "truncated_normal", "uniform", "orthogonal")
MEASURED = "gradient_walk"
"""First word of the names of values that pass through a back end's float64, whose last bits may differ."""

_PACKAGES = ("numpy", "scipy", "scikit-learn", "keras", "tensorflow")


def environment() -> dict[str, Any]:
    """What the last bits of a value can depend on: back end, versions and processor."""
    found: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    return {
        "backend": keras.backend.backend(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "simd": found.get("SIMD Extensions", {}).get("found", []),
    }


def relative_tolerance(name: str) -> float:
    """By how much the value of that name may differ where the environment is the same."""
    return 1e-9 if name.startswith(MEASURED) else 0.0


def values() -> dict[str, Value]:
    """Every value by name; a float, or the SHA-256 of arrays."""
    return {**theory_values(), **weight_values()}


def theory_values() -> dict[str, Value]:
    """The values that no back end of Keras takes part in."""
    return dict([*_gains(), *_walks(), *_plans(), *_digits()])


def weight_values() -> dict[str, Value]:
    """The values that come through a back end of Keras."""
    return dict([*_drawn_kernels(), *_stacks(), *_models(), *_initialized_models(), *_measured_walks()])


def _gains() -> Iterator[tuple[str, Value]]:
    for activation in ("linear", "relu", "leaky_relu(0.9)"):
        for distribution in DISTRIBUTIONS:
            value = keras_rwinit.gain(activation, width=100, distribution=distribution)
            yield f"gain of {activation}, width 100, {distribution}", value
    for distribution in DISTRIBUTIONS:
        value = keras_rwinit.gain("tanh", width=64, depth=100, distribution=distribution)
        yield f"gain of tanh, width 64, depth 100, {distribution}", value
        value = keras_rwinit.gain("tanh", width=64, depth=None, distribution=distribution)
        yield f"gain of tanh, width 64, depth None, {distribution}", value
    cases: list[tuple[str, int, int | None]] = [
        ("relu", 3, None),
        ("relu", 1000, 200),
        ("leaky_relu", 100, 10),
        ("elu", 100, 50),
        ("elu(0.5)", 100, 50),
        ("selu", 100, 50),
        ("sigmoid", 100, 50),
        ("softsign", 100, 30),
        ("erf", 100, 30),
        ("gelu", 100, 5),
        ("tanh", 100, 1),
        ("selu", 200, None),
    ]
    for activation, width, depth in cases:
        value = keras_rwinit.gain(activation, width=width, depth=depth)
        yield f"gain of {activation}, width {width}, depth {depth}", value
    yield "gain of numpy.arctan, width 100, depth 30", keras_rwinit.gain(np.arctan, width=100, depth=30)
    refined = keras_rwinit.gain("tanh", width=16, depth=3, refine=True)
    yield "gain of tanh, width 16, depth 3, refined", refined
    for activation, width in (("linear", 10), ("relu", 4), ("relu", 100)):
        value = keras_rwinit.paper_gain(activation, width=width)
        yield f"paper_gain of {activation}, width {width}", value


def _walks() -> Iterator[tuple[str, Value]]:
    cases: list[tuple[str, int, int, str, float | None]] = [
        ("relu", 100, 1000, "normal", 2**0.5),
        ("relu", 6, 20, "normal", None),
        ("leaky_relu(0.1)", 50, 100, "uniform", None),
        ("tanh", 64, 100, "orthogonal", None),
        ("tanh", 100, 200, "normal", 1.0),
        ("elu", 100, 30, "truncated_normal", None),
    ]
    for activation, width, depth, distribution, gain in cases:
        walk = keras_rwinit.predict_walk(
            activation, width=width, depth=depth, gain=gain, distribution=distribution
        )
        case = f"{activation}, width {width}, depth {depth}, {distribution}, gain {gain}"
        yield f"predict_walk of {case}: gain", float(walk.gain)
        yield f"predict_walk of {case}: mean[0]", float(walk.mean[0])
        yield f"predict_walk of {case}: std[0]", float(walk.std[0])
        yield f"predict_walk of {case}: dead_probability", float(walk.dead_probability)
    for activation in ("relu", "tanh"):
        for seed, distribution in enumerate(DISTRIBUTIONS):
            drawn = keras_rwinit.simulate_walk(
                activation, width=16, depth=10, samples=40, distribution=distribution, seed=seed
            )
            yield f"simulate_walk of {activation}, {distribution}: sum", float(drawn.sum())
            yield f"simulate_walk of {activation}, {distribution}: drawn", _digest([drawn], "<f8")
    drawn = keras_rwinit.simulate_walk("elu", width=16, depth=10, gain=1.2, samples=40, seed=-5)
    yield "simulate_walk of elu, gain 1.2, seed -5: sum", float(drawn.sum())


def _plans() -> Iterator[tuple[str, Value]]:
    yield "plan_width of relu", float(keras_rwinit.plan_width(depth=1000, spread=1.0))
    value = keras_rwinit.plan_width(
        depth=100, spread=0.5, activation="leaky_relu(0.1)", distribution="uniform"
    )
    yield "plan_width of leaky_relu(0.1), uniform", float(value)
    value = keras_rwinit.plan_width(depth=20, spread=0.2, activation="tanh", distribution="orthogonal")
    yield "plan_width of tanh, orthogonal", float(value)


def _digits() -> Iterator[tuple[str, Value]]:
    digits = data.load("digits")
    for name, dtype in (("x_train", "<f4"), ("y_train", "<i4"), ("x_test", "<f4"), ("y_test", "<i4")):
        array = getattr(digits, name)
        yield f"digits: {name}", _digest([array], dtype)
        yield f"digits: norm of {name}", _norm([array])


def _drawn_kernels() -> Iterator[tuple[str, Value]]:
    initializers: dict[str, Any] = {
        f"RandomWalk of tanh, depth 50, {distribution}": RandomWalk(
            activation="tanh", distribution=distribution, depth=50, seed=7
        )
        for distribution in DISTRIBUTIONS
    }
    initializers |= {
        "RandomWalk": RandomWalk(seed=0),
        "RandomWalk of a LeakyReLU layer": RandomWalk(activation=keras.layers.LeakyReLU(0.1), seed=1),
        "RandomWalk of a gain and a fan-in": RandomWalk(gain=1.5, fan_in=12, seed=2),
        "RandomWalk of a negative seed": RandomWalk(seed=-3),
        "RandomWalk of a SeedGenerator": RandomWalk(seed=keras.random.SeedGenerator(4)),
        "RandomWalkLinear": RandomWalkLinear(distribution="uniform", seed=5),
        "RandomWalkReLU": RandomWalkReLU(distribution="orthogonal", seed=6),
        "RandomWalkTanh": RandomWalkTanh(depth=20, seed=7),
    }
    for name, initializer in initializers.items():
        shape = (3, 4, 5) if "fan-in" in name else (12, 8)
        yield from _kept(f"{name}, shape {shape}", [initializer(shape)])
    yield from _kept("RandomWalk of a convolution", _weights(_convolutions()))
    keras.utils.set_random_seed(11)
    drawn = [keras.initializers.get(name)((9, 4)) for name in ("random_walk", "random_walk_tanh")]
    yield from _kept("initializers by their ids after set_random_seed", drawn)


def _convolutions() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, kernel_initializer=RandomWalk(activation="linear", seed=1)),
            layers.DepthwiseConv2D(3, depthwise_initializer=RandomWalk(activation="relu", seed=2)),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer=RandomWalk(distribution="orthogonal", seed=3)),
        ]
    )


def _stacks() -> Iterator[tuple[str, Value]]:
    stacks: dict[str, DenseStack] = {
        f"DenseStack of {distribution}": DenseStack(
            5,
            activation="tanh",
            kernel_initializer=RandomWalk(activation="tanh", distribution=distribution, depth=5, seed=3),
        )
        for distribution in DISTRIBUTIONS
    }
    stacks |= {
        "DenseStack of he_normal and normal biases": DenseStack(
            3,
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=1),
            bias_initializer=keras.initializers.RandomNormal(seed=2),
        ),
        "DenseStack of its default": DenseStack(4, activation="elu", use_bias=False),
    }
    for name, stack in stacks.items():
        keras.utils.set_random_seed(5)
        stack.build((None, 8))
        yield from _kept(name, [weight.value for weight in stack.weights])


def _models() -> Iterator[tuple[str, Value]]:
    shape: dict[str, Any] = {"depth": 5, "width": 32, "input_shape": (5,), "classes": 3}
    for activation in ("relu", "tanh"):
        for distribution in DISTRIBUTIONS:
            model = model_zoo.deep_mlp(activation=activation, distribution=distribution, seed=1, **shape)
            yield from _kept(f"deep_mlp of {activation}, {distribution}", _weights(model))
    # Recorded when `distribution` had the default "normal".
    shape["distribution"] = "normal"
    options: dict[str, dict[str, Any]] = {
        "leaky_relu(0.9)": {"activation": "leaky_relu(0.9)", "seed": 2},
        "elu(0.5), depth 1": {"activation": "elu(0.5)", "depth": 1, "seed": 3},
        "plain layers": {"activation": "tanh", "stacked": False, "seed": 4},
        "normal biases": {"bias_stddev": 0.1, "input_gain": 0.01, "output_gain": 100.0, "seed": 5},
        "plain layers and normal biases": {"bias_stddev": 0.1, "stacked": False, "seed": 5},
        "a gain": {"gain": 1.3, "seed": 6},
        "glorot_uniform": {"kernel_initializer": "glorot_uniform", "seed": 7},
        "mixed_bfloat16": {"dtype": "mixed_bfloat16", "seed": 8},
        "images": {"input_shape": (3, 2, 2), "seed": 9},
    }
    for name, changed in options.items():
        model = model_zoo.deep_mlp(**{**shape, **changed})
        yield from _kept(f"deep_mlp of {name}", _weights(model))
    keras.utils.set_random_seed(12)
    yield from _kept("deep_mlp after set_random_seed", _weights(model_zoo.deep_mlp(**shape)))
    preset = model_zoo.from_preset("digits_tanh_100", depth=4, width=32, seed=0)
    yield from _kept("from_preset of digits_tanh_100", _weights(preset))
    for distribution in DISTRIBUTIONS:
        model = model_zoo.deep_autoencoder(
            depth=9, width=16, bottleneck=4, input_shape=(6,), distribution=distribution, seed=3
        )
        yield from _kept(f"deep_autoencoder of {distribution}", _weights(model))
    stacked = model_zoo.deep_mlp(activation="tanh", seed=13, **shape)
    yield from _kept("unstack", _weights(model_zoo.unstack(stacked)))
    yield from _kept("unstack and stack", _weights(model_zoo.stack(model_zoo.unstack(stacked))))


def _chain() -> keras.Model:
    layers = keras.layers
    return DeepSequential(
        [*(layers.Dense(8, "tanh") for _ in range(4)), layers.Dense(3)], input_shape=(5,), name="chain"
    )


# Recorded anew when the gain of padded convolutions got the loss of its number of layers and the fan-in of
# a kernel that all positions share: the former values drifted.
def _residual() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((6, 6, 2))
    h = layers.Conv2D(4, 3, padding="same")(inputs)
    for _ in range(2):
        branch = layers.Conv2D(4, 3, padding="same", activation="relu")(h)
        h = layers.Add()([h, layers.Conv2D(4, 1)(branch)])
    h = layers.Activation("gelu")(layers.BatchNormalization()(h))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)), name="residual")


def _stacked() -> keras.Model:
    return model_zoo.deep_mlp(
        depth=5, width=32, activation="elu", input_shape=(5,), classes=3, distribution="normal", seed=0
    )


def _initialized_models() -> Iterator[tuple[str, Value]]:
    rng = np.random.default_rng(2)
    x, images = rng.standard_normal((12, 5)), rng.standard_normal((12, 6, 6, 2))
    cases: list[tuple[str, keras.Model, Any, str]] = [
        *((f"a chain, {distribution}", _chain(), None, distribution) for distribution in DISTRIBUTIONS),
        ("a chain with data", _chain(), x, "normal"),
        ("a DenseStack", _stacked(), None, "uniform"),
        ("a DenseStack with data", _stacked(), x, "orthogonal"),
        ("a residual network", _residual(), None, "normal"),
        ("a residual network with data", _residual(), images, "normal"),
    ]
    for name, model, examples, distribution in cases:
        report = initialize(model, examples, distribution=distribution, seed=21)
        yield from _kept(f"initialize of {name}", _weights(model))
        yield f"initialize of {name}: gains", float(sum(kernel.gain for kernel in report.kernels))


def _measured_walks() -> Iterator[tuple[str, Value]]:
    rng = np.random.default_rng(4)
    x, images, y = rng.standard_normal((6, 5)), rng.standard_normal((6, 6, 6, 2)), np.arange(6) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chain, residual = _chain(), _residual()
    for model in (chain, residual):
        initialize(model, distribution="normal", seed=22)
    measured = {
        "a DenseStack": gradient_walk(_stacked(), x),
        "a chain with a loss": gradient_walk(chain, x, y, loss),
        "a residual network": gradient_walk(residual, images, y, loss),
    }
    for name, walk in measured.items():
        yield f"{MEASURED} of {name}: drift", float(walk.drift)
        yield f"{MEASURED} of {name}: backward", float(walk.backward.sum())
        yield f"{MEASURED} of {name}: forward", float(walk.forward.sum())
        yield f"{MEASURED} of {name}: weight_gradient", float(walk.weight_gradient.sum())
        yield f"{MEASURED} of {name}: dead", float(walk.dead.sum())
        if walk.prediction is not None:
            yield f"{MEASURED} of {name}: predicted gain", float(walk.prediction.gain)


def _weights(model: keras.Model) -> list[Array]:
    return list(model.get_weights())


def _kept(name: str, arrays: Sequence[Any]) -> Iterator[tuple[str, Value]]:
    """Hash and norm: where the hash differs, the norm says whether it is by rounding."""
    as_numpy = [np.asarray(keras.ops.convert_to_numpy(array)) for array in arrays]
    yield name, _digest(as_numpy, "<f4")
    yield f"{name}: norm", _norm(as_numpy)


def _digest(arrays: Sequence[Array], dtype: str) -> str:
    """SHA-256 of the arrays' shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape};".encode())
        digest.update(np.ascontiguousarray(array, dtype).tobytes())
    return digest.hexdigest()


def _norm(arrays: Sequence[Array]) -> float:
    """Euclidean norm, the same in whatever order the processor would sum."""
    return math.sqrt(math.fsum(float(value) ** 2 for array in arrays for value in array.ravel()))


def main() -> None:
    """Writes `values.json`, which must not exist."""
    if keras.backend.backend() != "tensorflow":
        sys.exit(f"The values are TensorFlow's. Set KERAS_BACKEND. Received: {keras.backend.backend()}")
    table = {"made_with": environment(), "theory": theory_values(), "weights": weight_values()}
    try:
        with open(PATH, "x", encoding="utf-8") as file:
            file.write(json.dumps(table, indent=1) + "\n")
    except FileExistsError:
        sys.exit(f"{PATH.name} exists, and nothing is overwritten: delete it to record another version.")


if __name__ == "__main__":
    main()
