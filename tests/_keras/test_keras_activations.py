"""Every name that `gain` takes is an activation of Keras's layers, on every back end, and can be saved."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, SLOW_ON_JAX, gradients, run, to_numpy

import keras_rwinit
from keras_rwinit import model_zoo
from keras_rwinit._keras.activations import (
    NamedActivation,
    activation_name,
    concrete_activation,
    in_precision,
    keras_activation,
    theory_activation,
)
from keras_rwinit._keras.execution import double_precision
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack, get_activation
from keras_rwinit.theory import ACTIVATIONS, Activation, resolve_activation

pytestmark = pytest.mark.backends

NAMES = [
    *ACTIVATIONS,
    "leaky_relu(0.9)",
    "leaky_relu(-0.5)",
    "elu(0.5)",
    "celu(0.5)",
    "squareplus(2)",
    "squareplus(0.1234567)",
    "shaped(gelu, 0.48, 0.58, 2.36, -0.57)",
    "shaped(tanh, 0.36, 0.43, 3.5, -0.39)",
    "shaped(mish, 0.5, 0.5, 2.4, -0.4)",
]
# Those that are neither a name of Keras's nor an activation layer.
OWN = [name for name in NAMES if isinstance(keras_activation(name), NamedActivation)]
# On both sides of every kink, and on none of them.
POINTS = np.arange(-8.0, 8.0, 0.25) + 1 / 128
WIDTH = 5
X = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)


def evaluate_all(functions: list[Any], a: Any) -> list[Any]:
    """Values of all functions, on JAX compiled together."""

    def evaluate(a: Any) -> list[Any]:
        return [function(a) for function in functions]

    if BACKEND == "jax":
        import jax

        evaluate = jax.jit(evaluate)
    return evaluate(a)


def test_values_and_slopes_are_those_of_the_theory() -> None:
    """All names in one function of one back end: float32 against float64, in units of the largest value."""
    functions = [get_activation(name) for name in NAMES]
    points = POINTS.astype(np.float32)

    def total(tensors: Any) -> Any:
        return sum(keras.ops.sum(function(a)) for function, a in zip(functions, tensors, strict=True))

    slopes = gradients(total, [points] * len(NAMES))
    values = evaluate_all(functions, keras.ops.convert_to_tensor(points))
    for name, value, slope in zip(NAMES, values, slopes, strict=True):
        known = resolve_activation(name)
        np.testing.assert_allclose(value, known.function(POINTS), rtol=3e-6, atol=1e-6, err_msg=name)
        # gelu_tanh multiplies 1 - tanh(s)^2, which is rounded to 1e-7, with up to 60 where it is near zero.
        np.testing.assert_allclose(slope, known.slope_at(POINTS), rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow), "float64"])
def test_results_have_the_dtype_of_the_arguments(dtype: str) -> None:
    """To four roundings; TensorFlow's own gelu and leaky_relu have constants of float32."""
    precision = {"float16": 1e-3, "bfloat16": 1e-2, "float64": 1e-8}[dtype]
    names = [*OWN, "leaky_relu(0.9)", "elu(0.5)", "tanh", "relu"]

    with double_precision():
        a = keras.ops.convert_to_tensor(POINTS[24:40], dtype)
        values = evaluate_all([in_precision(get_activation(name), dtype) for name in names], a)
    for name, value in zip(names, values, strict=True):
        assert keras.backend.standardize_dtype(value.dtype) == dtype, name
        exact = resolve_activation(name).function(POINTS[24:40])
        np.testing.assert_allclose(to_numpy(value), exact, atol=4.0 * precision, err_msg=name)


def test_kinds() -> None:
    """Names of Keras's stay names; what files of earlier versions hold stays what it is."""
    for name in ("tanh", "leaky_relu", "elu", "celu", "squareplus", "swish", "softmax"):
        assert keras_activation(name) == name
        assert get_activation(name) is keras.activations.get(name)
    leaky, elu = keras_activation("leaky_relu(0.9)"), keras_activation("elu(0.5)")
    assert (type(leaky), leaky.negative_slope) == (keras.layers.LeakyReLU, 0.9)
    assert (type(elu), elu.alpha) == (keras.layers.ELU, 0.5)
    own = {name for name, activation in ACTIVATIONS.items() if callable(activation.keras)}
    assert set(OWN) & set(ACTIVATIONS) == own >= {"gelu_tanh", "erf", "sin"}
    assert set(OWN) - set(ACTIVATIONS) == {n for n in NAMES if "(" in n} - {"leaky_relu(0.9)", "elu(0.5)"}
    assert keras_activation(None) is None
    assert keras_activation(leaky) is leaky
    for name, activation in ACTIVATIONS.items():
        if isinstance(activation.keras, str):
            assert keras.activations.get(name) is getattr(keras.activations, activation.keras)


def test_shaped_names_get_their_parameters() -> None:
    assert concrete_activation("shaped(relu)", 200) == "leaky_relu(0.6796)"
    assert concrete_activation("shaped(relu)", 3) == keras_activation("shaped(relu)", 3) == "relu"


def test_names_and_theory_of_what_keras_takes() -> None:
    for name in NAMES:
        function = get_activation(name)
        found = activation_name(function)
        assert found is not None
        assert (
            resolve_activation(found).name
            == resolve_activation(name).name
            == theory_activation(function).name
        )
        np.testing.assert_array_equal(
            theory_activation(function).function(POINTS), resolve_activation(name).function(POINTS)
        )
    for function in (keras.activations.softmax, keras.ops.tanh, np.tanh, keras.layers.ReLU()):
        assert activation_name(function) is None
    assert activation_name(DenseStack(2, kernel_initializer="zeros").activation) == "relu"


@pytest.mark.parametrize("name", ["rellu", "tanh(2)", "leaky_relu(", ""])
def test_unknown_names(name: str) -> None:
    for take in (get_activation, lambda name: DenseStack(2, name, kernel_initializer="zeros")):
        with pytest.raises(ValueError, match="`activation` must be the name of an element-wise activation"):
            take(name)
    with pytest.raises(ValueError, match="must be a finite number"):
        get_activation("celu(x)")


def test_a_named_activation_is_a_value() -> None:
    """Equal by name, with copies that are equal, and with a config."""
    celu = NamedActivation("celu(0.50)")
    assert celu == NamedActivation("celu(0.5)") != NamedActivation("celu(0.25)")
    assert len({celu, NamedActivation("celu(0.5)"), NamedActivation("erf")}) == 2
    assert (celu.__name__, repr(celu)) == ("celu(0.5)", "NamedActivation('celu(0.5)')")
    serialized = json.loads(json.dumps(keras.activations.serialize(celu)))
    for twin in (
        copy.deepcopy(celu),
        pickle.loads(pickle.dumps(celu)),
        NamedActivation.from_config(celu.get_config()),
        keras.activations.get(serialized),
        keras.activations.deserialize(serialized),
    ):
        assert type(twin) is NamedActivation
        assert twin == celu
        np.testing.assert_array_equal(to_numpy(twin(X)), to_numpy(celu(X)))
    with pytest.raises(ValueError, match="that `keras.activations` lacks. Received: 'tanh'"):
        NamedActivation("tanh")


def test_keras_layers_take_the_names_that_keras_lacks() -> None:
    shaped = get_activation("shaped(gelu)", depth=50)
    layer = keras.layers.Dense(3, activation=shaped, kernel_initializer=RandomWalk("shaped(gelu)", depth=50))
    model = keras.Sequential([keras.Input((X.shape[-1],)), layer])
    a = X @ to_numpy(layer.kernel)
    expected = keras_rwinit.shape_activation("gelu", depth=50).function(a.astype(np.float64))
    np.testing.assert_allclose(run(model, X), expected, atol=1e-5)
    twin = keras.Sequential.from_config(model.get_config())
    assert twin.layers[0].activation == shaped
    assert get_activation("tanh") is keras.activations.tanh
    with pytest.raises(ValueError, match="is shaped for a depth"):
        get_activation("shaped(gelu)")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_every_name_load(suffix: str, tmp_path: Path) -> None:
    """A Dense layer and a stack of each, in one model of one file."""
    inputs = outputs = keras.Input((WIDTH,))
    for name in OWN:
        walk = RandomWalk(name, gain=0.5, seed=1)
        outputs = keras.layers.Dense(WIDTH, get_activation(name), kernel_initializer=walk)(outputs)
        outputs = DenseStack(2, name, kernel_initializer=RandomWalk(get_activation(name), gain=0.5, seed=2))(
            outputs
        )
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    names = [activation_name(layer.activation) for layer in loaded.layers[1:]]
    assert names == [resolve_activation(name).name for name in OWN for _ in range(2)]
    np.testing.assert_array_equal(to_numpy(loaded(X)), to_numpy(model(X)))


@pytest.mark.parametrize("stacked", [True, pytest.param(False, marks=SLOW_ON_JAX)])
@pytest.mark.parametrize("name", OWN)
def test_deep_mlps(name: str, stacked: bool) -> None:
    """With the gain of the theory, for the activations that only the theory knew."""
    model = model_zoo.deep_mlp(
        3, 24, name, input_shape=(WIDTH,), distribution="normal", stacked=stacked, seed=0
    )
    hidden = model.get_layer("hidden_1")
    assert hidden.kernel_initializer.gain == keras_rwinit.gain(name, 24, 3)
    exact = resolve_activation(name).function(X.astype(np.float64) @ to_numpy(hidden.kernel))
    np.testing.assert_allclose(to_numpy(hidden(X)), exact, rtol=1e-5, atol=1e-6)
    config = json.loads(json.dumps(model.get_config()))
    np.testing.assert_array_equal(run(type(model).from_config(config), X), run(model, X))


def test_a_user_activation_is_not_saved_by_accident() -> None:
    """A `theory.Activation` has no form in Keras unless it says so."""
    assert Activation("mine", np.tanh).keras is None
    assert all(activation.keras is not None for activation in ACTIVATIONS.values())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the loop of TensorFlow")
def test_the_loop_of_tensorflow_takes_its_gradients_from_the_table() -> None:
    from keras_rwinit.layers._loops.tensorflow import _Layers

    loops = {name: _Layers((), get_activation(name), portable=False) for name in NAMES}
    gradients = {name: loop.from_output for name, loop in loops.items() if loop.from_output}
    flagged = {name for name in NAMES if resolve_activation(name).gradient_from_output}
    assert set(gradients) == flagged >= {"linear", "relu", "selu", "sigmoid", "tanh"}
    for name, gradient in gradients.items():
        h = resolve_activation(name).function(POINTS).astype(np.float32)
        slope = gradient(keras.ops.convert_to_tensor(h), keras.ops.ones(h.shape))
        np.testing.assert_allclose(
            to_numpy(slope), resolve_activation(name).slope_at(POINTS), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_training_in_mixed_precision_on_the_compiled_loop(policy: str) -> None:
    """By XLA where the back end has it; a LeakyReLU layer too, whose own policy is another."""
    inputs = outputs = keras.Input((WIDTH,))
    for name in ("celu(0.5)", "leaky_relu(0.9)"):
        walk = RandomWalk(name, gain=1.0, seed=1)
        outputs = DenseStack(2, name, kernel_initializer=walk, dtype=policy)(outputs)
        assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND != "torch")
    losses = model.fit(X, np.zeros_like(X), epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[0]
