"""`gradient_walk` against back-propagation written out in NumPy, on every back end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit._probing.objective import DIRECTION_SEED
from keras_rwinit.layers import DeepSequential, DenseStack

pytestmark = pytest.mark.backends

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
Dense, Input, Sequential, losses = keras.layers.Dense, keras.Input, keras.Sequential, keras.losses

# JAX compiles every operation for every shape: the models share theirs.
EXAMPLES, FEATURES, CLASSES = 3, 6, 4  # a power of two: Keras's mean over classes is float32 off TensorFlow
# Keras computes in float64 everywhere but on JAX, where log-norms see float32 through a few layers and a
# difference of a probability and 1.
EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-4 if keras.backend.backend() == "jax" else 1e-10}

# f and f', by hand
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "linear": (lambda a: a, np.ones_like),
    "relu": (lambda a: np.maximum(a, 0.0), lambda a: (a > 0.0) * 1.0),
    "elu": (lambda a: np.where(a > 0, a, np.expm1(a)), lambda a: np.exp(np.minimum(a, 0.0))),
    "tanh": (np.tanh, lambda a: 1.0 / np.cosh(a) ** 2),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda a: 1 / (2 + np.exp(a) + np.exp(-a))),
    "softplus": (lambda a: np.log1p(np.exp(a)), lambda a: 1 / (1 + np.exp(-a))),
}


@pytest.fixture
def double() -> Iterator[None]:
    """Models made in the test compute in float64, where the back end can."""
    before = keras.config.dtype_policy()
    if keras.backend.backend() != "jax":
        keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def sequential(activation: str) -> keras.Model:
    """Tapering, with layers passed by and one without biases."""
    passed_by = keras.layers.Flatten(), keras.layers.Dropout(0.5)
    dense = Dense(8, activation), Dense(6, activation, use_bias=False), Dense(5, activation), Dense(CLASSES)
    return Sequential([Input((2, FEATURES // 2)), passed_by[0], dense[0], passed_by[1], *dense[1:]])


def functional(activation: str) -> keras.Model:
    inputs = outputs = Input((FEATURES,))
    for units in (8, 6, 5):
        outputs = Dense(units, activation)(outputs)
    return keras.Model(inputs, Dense(CLASSES, use_bias=False)(outputs))


def deep_sequential(activation: str) -> keras.Model:
    return DeepSequential([*(Dense(6, activation) for _ in range(5)), Dense(CLASSES)], (FEATURES,))


def stacks(activation: str) -> keras.Model:
    """Stacks of 12 layers, which is more than a round of the loop, and of one."""
    stack = DenseStack(12, activation, kernel_initializer="he_normal")
    last = DenseStack(1, activation, use_bias=False, kernel_initializer="he_normal")
    return Sequential([Input((FEATURES,)), stack, Dense(5, activation), last, Dense(CLASSES)])


def drawn(build: Callable[[str], keras.Model], activation: str, seed: int = 3) -> tuple[keras.Model, Array]:
    """A model with the same weights on every back end, biases not zero, and inputs."""
    model, rng = build(activation), np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        scale = 0.3 if variable.name == "bias" else np.sqrt(2.0 / shape[-2])
        variable.assign(scale * rng.normal(size=shape))
    # Of float32 values: functional models cast their inputs to what they were built with.
    return model, rng.normal(size=(EXAMPLES, *model.input_shape[1:])).astype("float32").astype(float)


def by_hand(model: keras.Model, activation: str, x: Array, loss_gradient: Function) -> tuple[Array, Array]:
    """`ln|delta|` and `ln|h|`, shape (examples, layers); `loss_gradient` is that of each example's loss."""
    pairs: list[tuple[Array, Array]] = []
    for weights in (layer.get_weights() for layer in model.layers):
        if weights:
            kernel = np.asarray(weights[0], np.float64).reshape(-1, *weights[0].shape[-2:])
            bias = weights[1].reshape(len(kernel), -1) if len(weights) > 1 else np.zeros(kernel.shape[::2])
            pairs += zip(kernel, bias.astype(np.float64), strict=True)
    (function, derivative), (*hidden, (kernel, bias)) = FUNCTIONS[activation], pairs
    h, layers = x.reshape(len(x), -1), []
    for w, b in hidden:
        layers.append((w, h @ w + b))
        h = function(layers[-1][1])
    upstream = loss_gradient(h @ kernel + bias) @ kernel.T
    backward, forward = [], []
    for w, a in reversed(layers):
        delta = derivative(a) * upstream
        upstream = delta @ w.T
        backward.insert(0, np.linalg.norm(delta, axis=1))
        forward.insert(0, np.linalg.norm(function(a), axis=1))
    return np.log(np.stack(backward, axis=1)), np.log(np.stack(forward, axis=1))


def random_direction(outputs: Array) -> Array:
    row = np.random.default_rng(DIRECTION_SEED).standard_normal(outputs.shape[1])
    return np.broadcast_to(row, outputs.shape)


ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
BUILDERS = (sequential, functional, deep_sequential, stacks)
ALL_CASES = [pytest.param(build, activation) for build in BUILDERS for activation in FUNCTIONS]
# The other back ends take one case by default; the rest of these is slow there.
CASES_ELSEWHERE = [
    pytest.param(
        build, activation, marks=[] if (build, activation) == (stacks, "tanh") else [pytest.mark.slow]
    )
    for build in BUILDERS
    for activation in FUNCTIONS
]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("build", "activation"), ALL_CASES if ON_TENSORFLOW else CASES_ELSEWHERE)
def test_as_by_hand(build: Callable[[str], keras.Model], activation: str) -> None:
    model, x = drawn(build, activation)
    walk = gradient_walk(model, x)
    backward, forward = by_hand(model, activation, x, random_direction)
    assert walk.backward.dtype == walk.forward.dtype == np.float64
    np.testing.assert_allclose(walk.backward, backward, **EXACT)
    np.testing.assert_allclose(walk.forward, forward, **EXACT)
    drift = (backward[:, 0] - backward[:, -1]).mean() / (len(walk.layer_names) - 1)
    assert walk.drift == pytest.approx(drift, abs=EXACT["atol"])


LABELS = np.array([0, 3, 1])
ONE_HOT = np.eye(CLASSES)[LABELS]
TARGETS = np.random.default_rng(5).normal(size=(EXAMPLES, CLASSES))
from_logits = losses.SparseCategoricalCrossentropy(from_logits=True)


def cross_entropy(outputs: Array) -> Array:
    exponentials = np.exp(outputs)
    return exponentials / exponentials.sum(axis=1, keepdims=True) - ONE_HOT


def squared_error(outputs: Array) -> Array:
    return 2.0 * (outputs - TARGETS) / CLASSES


def own_loss(y: Any, outputs: Any) -> Any:
    return keras.ops.sum(keras.ops.square(y - outputs), axis=-1) / CLASSES


LOSSES: dict[str, tuple[Any, Any, Function]] = {
    "labels": (from_logits, LABELS, cross_entropy),
    "list": (from_logits, LABELS.tolist(), cross_entropy),
    "one-hot": (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, cross_entropy),
    "name": ("mse", TARGETS, squared_error),
    # The number of examples times the loss that Keras reports, which is no mean here
    "sum": (losses.MeanSquaredError(reduction="sum"), TARGETS, lambda a: EXAMPLES * squared_error(a)),
    "object": (losses.MeanSquaredError(), TARGETS, squared_error),
    "own function": (own_loss, TARGETS, squared_error),
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("build", "compiled"), [(sequential, False), (stacks, True)])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_as_by_hand(kind: str, build: Callable[[str], keras.Model], compiled: bool) -> None:
    loss, y, loss_gradient = LOSSES[kind]
    model, x = drawn(build, "tanh")
    if compiled:
        model.compile("sgd", loss)
    walk = gradient_walk(model, x, y, None if compiled else loss)
    backward, _ = by_hand(model, "tanh", x, loss_gradient)
    np.testing.assert_allclose(walk.backward, backward, **EXACT)


def test_names() -> None:
    model, x = drawn(stacks, "relu")
    stack, dense, last, _ = (layer.name for layer in model.layers)
    names = gradient_walk(model, x.astype("float32").tolist()).layer_names
    assert names == (*(f"{stack}[{index}]" for index in range(12)), dense, f"{last}[0]")


@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        pytest.param("linear", 0.5, marks=pytest.mark.slow),
        pytest.param("tanh", 0.5, marks=[] if ON_TENSORFLOW else [pytest.mark.slow]),
        pytest.param("linear", 2.0, marks=[] if ON_TENSORFLOW else [pytest.mark.slow]),
    ],
)
def test_a_thousand_layers_stay_within_the_floats(activation: str, gain: float) -> None:
    """1000 ln 2 = 693 nats, and float64 goes 708 either way: only squares are out of its reach."""
    options: dict[str, Any] = {"distribution": "orthogonal", "input_shape": (4,), "seed": 0}
    model = model_zoo.deep_mlp(1000, 8, activation, gain=gain, **options)
    walk = gradient_walk(model, np.random.default_rng(0).normal(size=(2, 4)))
    assert np.isfinite(walk.backward).all()
    assert np.isfinite(walk.forward).all()
    # Where tanh is linear, an orthogonal kernel multiplies every norm by the gain.
    np.testing.assert_allclose(np.diff(walk.backward[:, 100:]), -np.log(gain), atol=1e-6)
    assert walk.drift == pytest.approx(np.log(gain), rel=2e-2)


def test_a_dead_network_is_minus_infinity_without_a_warning() -> None:
    model = Sequential([Input((2,)), *(Dense(3, "relu") for _ in range(3)), Dense(1)])
    model.set_weights([-np.ones_like(weight) for weight in model.get_weights()])
    walk = gradient_walk(model, np.ones((2, 2)))
    assert (walk.backward == -np.inf).all()
    assert not np.isfinite(walk.drift)


BAD_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "unbuilt": (lambda: Sequential([Dense(3), Dense(2)]), "no weights yet: build it"),
    "no kernel": (lambda: Sequential([Input((FEATURES,)), keras.layers.ReLU()]), "no layer with a kernel"),
    "no model": (lambda: Dense(3), "must be a Keras model"),
}
X = np.ones((EXAMPLES, FEATURES))
BAD_ARGUMENTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "empty": ((X[:0],), "`x` must hold at least one example"),
    "NaN": ((X * np.nan,), "`x` must be finite.*18 NaN"),
    "text": ((X.astype(str),), "`x` must hold real numbers.*astype"),
    "names": ((np.full(X.shape, "a"),), r"`x` must hold real numbers.*np\.unique\(x"),
    "bytes": ((np.full(X.shape, b"a"),), r"`x` must hold real numbers.*np\.unique\(x"),
    "objects": ((np.full(X.shape, "a", object),), r"`x` must hold real numbers.*np\.unique\(x"),
    "one vector": ((X[0],), r"`x` must.*\(6,\)"),
    "scalar": ((1.0,), r"`x` must.*\(\)"),
    "too few features": ((X[:, :5],), r"`x` must.*\(3, 5\)"),
    "ragged": (([[1.0, 2.0], [3.0]],), "`x` must be a rectangular array"),
    "no loss": ((X, LABELS), "Targets need a loss: pass `loss=`"),
    "unknown loss": ((X, LABELS, "msee"), "`loss` must be a Keras loss.*msee"),
    "fewer targets": ((X, LABELS[:2], "mse"), "equally many.*3 and 2"),
    "targets broadcast": ((X, ONE_HOT[:, :1], "mse"), r"does not fit.*\(3, 4\).*\(3, 1\)"),
    "no such label": ((X, LABELS + 1, from_logits), "does not fit.*from 0 to 3.*1 to 4"),
    "labels for one-hot": ((X, LABELS, "categorical_crossentropy"), "does not fit.*categorical_crossentropy"),
    "NaN target": ((X, ONE_HOT * np.nan, "mse"), "`y` must be finite"),
    "two losses": ((X, ONE_HOT, ["mse", "mse"]), "1 outputs and 2 losses"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_models_that_cannot_be_measured(case: str) -> None:
    with pytest.raises(ValueError, match=BAD_MODELS[case][1]):
        gradient_walk(BAD_MODELS[case][0](), X)


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_arguments_that_cannot_be_used(case: str) -> None:
    with pytest.raises(ValueError, match=BAD_ARGUMENTS[case][1]):
        gradient_walk(functional("relu"), *BAD_ARGUMENTS[case][0])
