"""Activations without a name: evaluated in the back end's tensors as they are, and left as they were."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, SLOW_ON_JAX, run, slow_on_jax, to_numpy

import keras_rwinit
from keras_rwinit import gain, model_zoo
from keras_rwinit._keras.activations import has_weights, remember_activations, theory_activation
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.theory import resolve_activation
from keras_rwinit.theory.activation import ActivationError, NotElementwiseError

pytestmark = pytest.mark.backends

POINTS = np.linspace(-3.05, 2.95, 61)
X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


@keras.saving.register_keras_serializable(package="tests")
class ScaledTanh(keras.layers.Layer):
    """tanh(scale * a) with a trainable scale, one for all units or one for each."""

    def __init__(self, scale: float = 10.0, per_unit: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first_scale, self.per_unit = scale, per_unit

    def build(self, input_shape: tuple[int, ...]) -> None:
        shape = (input_shape[-1],) if self.per_unit else ()
        self.scale = self.add_weight(
            shape=shape, initializer=keras.initializers.Constant(self.first_scale), name="scale"
        )

    def call(self, inputs: Any) -> Any:
        return keras.ops.tanh(self.scale * inputs)


def native_functions() -> list[tuple[Callable[[Any], Any], str]]:
    """Functions of the back end itself, which take no arrays of NumPy, or no float64."""
    if BACKEND == "torch":
        import torch

        return [(torch.relu, "relu"), (torch.tanh, "tanh"), (torch.nn.ReLU(), "relu")]
    if BACKEND == "jax":
        import jax

        return [(jax.nn.relu, "relu"), (jax.jit(jax.numpy.tanh), "tanh")]
    import tensorflow as tf

    tenth = tf.constant(0.1)
    return [
        (tf.nn.relu, "relu"),
        (tf.nn.tanh, "tanh"),
        (lambda a: tf.maximum(a, tenth * a), "leaky_relu(0.1)"),
    ]


def test_functions_of_the_back_end() -> None:
    for function, name in native_functions():
        found, known = theory_activation(function), resolve_activation(name)
        assert found.slopes == known.slopes
        np.testing.assert_allclose(found.function(POINTS), known.function(POINTS), atol=1e-6)
        np.testing.assert_allclose(found.slope_at(POINTS), known.slope_at(POINTS), atol=1e-6)
    function, name = native_functions()[0]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(50, function), keras.layers.Dense(3)])
    report = keras_rwinit.initialize(model, distribution="normal", seed=0)
    assert report.kernels[1].gain == gain(name, 50)
    assert RandomWalk(function, depth=9)._compute_gain(50) == gain(name, 50)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="eager tensors of TensorFlow turn into arrays")
def test_gradients_are_those_that_training_takes() -> None:
    """A straight-through estimator has the slope of its own; NumPy has none, and differences give it."""
    import tensorflow as tf

    @tf.custom_gradient
    def straight_through(a: Any) -> Any:
        return tf.sign(a), lambda upstream: upstream

    np.testing.assert_array_equal(theory_activation(straight_through).slope_at(POINTS), 1.0)
    found = theory_activation(lambda a: a * np.tanh(a))
    np.testing.assert_allclose(
        found.slope_at(POINTS), np.tanh(POINTS) + POINTS / np.cosh(POINTS) ** 2, atol=1e-8
    )
    # Inside a graph too, whose tensors have no values
    seen: list[float] = []
    tf.function(lambda: seen.append(gain(theory_activation(tf.nn.tanh), 50, 5)), autograph=False)()
    assert seen == [pytest.approx(gain("tanh", 50, 5), rel=1e-9)]


def fail(a: Any) -> Any:
    if "Keras" not in type(a).__name__:
        raise RuntimeError("no such device")
    return a


def test_what_cannot_be_evaluated_is_never_linear_silently() -> None:
    with pytest.raises(ActivationError, match="'fail' cannot be evaluated.*RuntimeError: no such device"):
        RandomWalk(fail)
    assert RandomWalk(fail, gain=1.5).gain == 1.5
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(8, fail)(inputs)))
    why = keras_rwinit.initialize(model, seed=0).kernels[1].why
    assert why.startswith("taken to be fed linearly, which is a guess. The activation 'fail'")
    assert "no such device" in why


def cut_at_random(seed: keras.random.SeedGenerator) -> Callable[[Any], Any]:
    def activation(a: Any) -> Any:
        drawn = keras.random.uniform(keras.ops.shape(a), seed=seed)
        return keras.ops.relu(a) * keras.ops.cast(drawn > 0.5, a.dtype)

    return activation


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Dense(6, "softmax")],
        pytest.param([keras.layers.Dense(6), keras.layers.Softmax()], marks=SLOW_ON_JAX),
        pytest.param([keras.layers.Dense(6), keras.layers.Activation("log_softmax")], marks=SLOW_ON_JAX),
        pytest.param([keras.layers.Dense(6), keras.layers.Lambda(keras.ops.sparsemax)], marks=SLOW_ON_JAX),
        [keras.layers.Dense(6, cut_at_random(keras.random.SeedGenerator(0)))],
    ],
    ids=["of a layer", "layer", "activation layer", "operation", "random"],
)
def test_what_mixes_units_is_never_linear_silently(layers: Any) -> None:
    model = keras.Sequential(
        [keras.Input((6,)), *layers, keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    )
    report = keras_rwinit.initialize(model, seed=0, distribution="normal")
    assert report.kernels[1].why.startswith(
        "taken to be fed linearly, which is a guess. `activation` must act"
    )
    assert report.kernels[2].why == "fed by relu"
    walk = keras_rwinit.gradient_walk(model, X)
    assert walk.prediction is None
    assert "is fed by an activation that theory does not know" in walk.unpredicted


def test_attention_is_no_guess() -> None:
    """Its softmax weighs what it sums."""
    inputs = keras.Input((5, 6))
    h = keras.layers.Dense(6, "relu")(keras.layers.MultiHeadAttention(2, 3)(inputs, inputs))
    scores = keras.ops.softmax(h @ keras.ops.transpose(h, (0, 2, 1)))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(scores @ h))
    assert not any("guess" in kernel.why for kernel in keras_rwinit.initialize(model, seed=0).kernels)


def test_random_numbers_of_an_activation_stay_where_they_were() -> None:
    seed = keras.random.SeedGenerator(0)
    layers = [keras.layers.Dense(6, cut_at_random(seed)) for _ in range(3)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    before = to_numpy(seed.state).copy()
    keras_rwinit.initialize(model, X, seed=0)
    keras_rwinit.gradient_walk(model, X)
    np.testing.assert_array_equal(to_numpy(seed.state), before)
    first, second = to_numpy(model(X)), to_numpy(model(X))
    assert not np.array_equal(first, second)


class ReLU:
    """A class in place of its instance."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (math.tanh, "'tanh' cannot be evaluated.*Pass the name 'tanh'.*single numbers.*`keras.ops.where"),
        (lambda a: a if a > 0 else 0.0, "single numbers.*`keras.ops.where.*pass their `gain`"),
        (ReLU, "Pass the name 'relu'. 'ReLU' is a class: pass an instance"),
        (lambda a: None, "cannot be evaluated.*NoneType"),
        (lambda a: np.asarray(a) * 1j, "cannot be evaluated"),
    ],
    ids=["math", "condition", "class", "none", "complex"],
)
def test_a_callable_that_fails_is_answered_with_what_to_pass(function: Any, message: str) -> None:
    with pytest.raises(ActivationError, match=message):
        RandomWalk(function, depth=5)


@pytest.mark.parametrize(
    "function",
    [
        keras.activations.softmax,
        lambda a: keras.ops.softmax(a),
        lambda a: a / keras.ops.max(keras.ops.abs(a), axis=0),
        lambda a: keras.ops.sum(a, axis=-1),
    ],
    ids=["softmax", "lambda", "batch", "sum"],
)
def test_what_mixes_elements(function: Any) -> None:
    with pytest.raises(NotElementwiseError, match="must act element by element"):
        theory_activation(function)


@slow_on_jax
def test_layers_are_looked_at_as_they_are_and_left_as_they_were() -> None:
    layer, state = ScaledTanh(), random.getstate()
    assert gain(theory_activation(layer), 50, 9) == pytest.approx(gain("tanh", 50, 9) / 10.0, rel=1e-5)
    assert not layer.built
    assert not layer.variables
    assert random.getstate() == state
    layer.build((None, 6))
    layer.scale.assign(2.0)
    assert gain(theory_activation(layer), 50, 9) == pytest.approx(gain("tanh", 50, 9) / 2.0, rel=1e-5)
    assert [to_numpy(variable) for variable in layer.variables] == [2.0]

    prelu = keras.layers.PReLU()
    assert theory_activation(prelu, 6).slopes == (0.0, 1.0)
    assert not prelu.built
    assert has_weights(prelu)
    assert has_weights(layer)
    assert not has_weights(keras.layers.LeakyReLU(0.1))


@slow_on_jax
def test_units_that_differ() -> None:
    """Each of its present weight; equal ones are one activation again."""
    layer = ScaledTanh(1.0, per_unit=True)
    layer.build((None, 6))
    layer.scale.assign(np.array([0.5, 0.5, 1.0, 1.0, 2.0, 2.0], np.float32))
    known = theory_activation(layer)
    assert len(known.units) == 6
    a = np.tile(POINTS[:, None], 6)
    scale = to_numpy(layer.scale)
    np.testing.assert_allclose(known.function(a), np.tanh(scale * a), atol=2e-6)
    np.testing.assert_allclose(known.slope_at(a), scale / np.cosh(scale * a) ** 2, atol=2e-6)
    layer.scale.assign(np.ones(6, np.float32))
    assert not theory_activation(layer).units

    prelu = keras.layers.PReLU()
    prelu.build((None, 4))
    prelu.alpha.assign(np.array([0.1, 0.5, 0.0, -0.25], np.float32))
    assert set(zip(*[iter(theory_activation(prelu).slopes or ())] * 2, strict=True)) == {
        (0.1, 1.0),
        (0.5, 1.0),
        (0.0, 1.0),
        (-0.25, 1.0),
    }


@slow_on_jax
def test_a_model_with_prelu_stays_a_model() -> None:
    model = keras.Sequential([keras.Input((6,))])
    for seed in (1, 2):
        slopes = keras.initializers.RandomUniform(0.0, 1.0, seed=seed)
        model.add(keras.layers.Dense(8, activation=keras.layers.PReLU(slopes)))
    model.add(keras.layers.Dense(3))
    run(model, X)  # Keras builds an activation layer at the first call
    before = [to_numpy(layer.activation.alpha) for layer in model.layers[:2]]
    report = keras_rwinit.initialize(model, X, seed=0)
    assert [kernel.activation for kernel in report.kernels] == ["linear", "PReLU", "PReLU"]
    assert np.isfinite(keras_rwinit.gradient_walk(model, X).backward).all()
    for layer, slopes in zip(model.layers, before, strict=False):
        np.testing.assert_array_equal(to_numpy(layer.activation.alpha), slopes)
    assert run(model, X).shape == (4, 3)


class Noise(keras.layers.Layer):
    """Adds random numbers at inference too."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs: Any) -> Any:
        return inputs + 0.01 * keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


def nested_prelu() -> keras.Model:
    def prelu(name: str) -> keras.layers.Layer:
        return keras.layers.PReLU(keras.initializers.Constant(0.3), name=name)

    dense = [
        keras.layers.Dense(8, prelu("first"), name="one"),
        Noise(),
        keras.layers.Dense(7, keras.layers.Activation(prelu("second"), name="around"), name="two"),
    ]
    inner = keras.Sequential([keras.Input((6,)), *dense], name="inner")
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(inner(inputs)))


@pytest.mark.parametrize(
    "use",
    [
        lambda model: keras_rwinit.initialize(model, seed=0).kernels[0].gain,
        lambda model: keras_rwinit.initialize(model, X, seed=0).drift,
        lambda model: keras_rwinit.gradient_walk(model, X.astype(np.float64)).backward,
    ],
    ids=["initialize", "calibrate", "measure"],
)
def test_prelu_that_was_never_called(use: Callable[[keras.Model], Any]) -> None:
    model, called = nested_prelu(), nested_prelu()
    state = next(variable for variable in called.variables if "seed" in variable.path)
    before = to_numpy(state)
    run(called, X)  # Keras builds an activation layer in the first call
    state.assign(before)
    for mine, its in zip(model.layers[1].layers[::2], called.layers[1].layers[::2], strict=True):
        its.set_weights([*mine.get_weights(), *its.get_weights()[2:]])
    called.layers[2].set_weights(model.layers[2].get_weights())
    np.testing.assert_array_equal(use(model), use(called))
    np.testing.assert_array_equal(run(model, X), run(called, X))
    slopes = [[(v.path, v.shape) for v in one.variables if v.name == "alpha"] for one in (model, called)]
    assert slopes[0] == slopes[1]
    assert len(slopes[0]) == 2


def test_stacks_refuse_activations_with_weights_and_plain_layers_have_their_own() -> None:
    with pytest.raises(ValueError, match=r"layers of a DenseStack share one activation.*stacked=False"):
        DenseStack(3, keras.layers.PReLU())
    with pytest.raises(ValueError, match="stacked=False"):
        model_zoo.deep_mlp(3, 8, keras.layers.PReLU(), input_shape=(6,))
    model = model_zoo.deep_mlp(3, 8, keras.layers.PReLU(), input_shape=(6,), stacked=False, seed=0)
    activations = [layer.activation for layer in model.layers[:-1]]
    assert [tuple(activation.alpha.shape) for activation in activations] == [(8,)] * 3
    assert len(set(map(id, activations))) == 3
    assert len(model.trainable_variables) == 3 * 3 + 2
    assert len(model_zoo.stack(model).layers) == 5  # none of them goes into a stack
    twin = DeepSequential.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(run(twin, X), run(model, X))


def test_gains_follow_what_a_callable_computes_now() -> None:
    factor = 1.0

    def scaled(a: Any) -> Any:
        return keras.ops.tanh(factor * a)

    walk = RandomWalk(scaled, depth=50)
    found = []
    for factor in (1.0, 2.0, 0.5):  # noqa: B007
        found.append((gain(theory_activation(scaled), 100, 50), walk._compute_gain(100)))
    expected = gain("tanh", 100, 50) / np.array([1.0, 2.0, 0.5])
    np.testing.assert_allclose(found, np.stack([expected, expected], axis=1), rtol=1e-5)
    leaky = keras.layers.LeakyReLU(0.1)
    walk = RandomWalk(leaky)
    assert walk._compute_gain(50) == gain("leaky_relu(0.1)", 50)
    leaky.negative_slope = 0.9
    assert walk._compute_gain(50) == gain("leaky_relu(0.9)", 50)


def test_no_cache_keeps_an_activation_alive() -> None:
    class Callable_:
        def __call__(self, a: Any) -> Any:
            return keras.ops.tanh(a)

    function = Callable_()
    alive = weakref.ref(function)
    with remember_activations():
        assert theory_activation(function) is theory_activation(function)
    assert gain(theory_activation(function), 30, 5) == pytest.approx(gain("tanh", 30, 5), rel=1e-5)
    del function
    gc.collect()
    assert alive() is None
