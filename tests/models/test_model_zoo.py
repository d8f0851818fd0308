"""`deep_mlp` and its presets: layers, names, gains, arguments, memory."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, Array, by_layer, run, to_numpy

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential
from keras_rwinit.models._presets import _preset
from keras_rwinit.theory import NoGainError, gain, predict_walk, resolve_activation, shape_activation

backends = pytest.mark.backends  # where a back end takes part
slow_on_jax = pytest.mark.slow if BACKEND == "jax" else pytest.mark.backends  # it compiles every operation

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
both_forms = pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "plain"])
SMALL: dict[str, Any] = {"depth": 5, "width": 20, "input_shape": (6,), "classes": 3}


def small(**arguments: Any) -> keras.Model:
    return model_zoo.deep_mlp(**{**SMALL, "seed": 1, **arguments})


def kernels_of(model: keras.Model) -> list[Array]:
    return [weight for weight in by_layer(model) if weight.ndim == 2]


@backends
@both_forms
def test_layers_and_names(stacked: bool) -> None:
    for _ in range(2):  # the names do not count up from model to model
        model = small(stacked=stacked)
        assert model.name == "deep_mlp_5x20"
        names = [layer.name for layer in model.layers]
        if stacked:
            assert names == ["inputs", "hidden_1", "hidden_stack", "classifier"]
        else:
            assert names == [*(f"hidden_{index}" for index in range(1, 6)), "classifier"]
            assert isinstance(model, DeepSequential)
    assert not model.compiled
    assert [layer.name for layer in small(depth=1, stacked=stacked).layers][-2:] == ["hidden_1", "classifier"]
    assert small(name="mine", stacked=stacked).name == "mine"


@backends
@pytest.mark.parametrize(
    "stacked",
    [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.exhaustive])],
    ids=["stacked", "plain"],
)
def test_thousand_layers_within_the_recursion_limit(stacked: bool) -> None:
    limit = sys.getrecursionlimit()
    model = small(depth=1000, width=3, activation="relu", stacked=stacked)
    assert sys.getrecursionlimit() == limit
    assert model.count_params() == model_zoo.count_parameters(1000, 3, 6, 3)
    assert len(model.layers) == (4 if stacked else 1001)


@both_forms
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_parameters_are_counted_without_building(depth: int, stacked: bool) -> None:
    model = small(depth=depth, input_shape=(4, 5), stacked=stacked)
    assert model_zoo.count_parameters(depth, 20, 20, 3) == model.count_params()


@pytest.mark.parametrize("name", ["depth", "width", "inputs", "classes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_only_networks_that_can_be_built_have_parameters(name: str, value: Any) -> None:
    sizes = {"depth": 3, "width": 20, "inputs": 20, "classes": 3, name: value}
    with pytest.raises(ValueError, match=f"^`{name}` must be an integer of at least 1.*: {name}={value}"):
        model_zoo.count_parameters(**sizes)


@backends
@both_forms
@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform", "orthogonal"])
def test_gains(distribution: str, stacked: bool) -> None:
    """By the initializers' settings, and by the kernels of one seed at gain 1."""
    model = small(activation="tanh", distribution=distribution, stacked=stacked)
    expected = gain("tanh", 20, 5, distribution=distribution)
    names = ["hidden_1", "hidden_stack" if stacked else "hidden_3", "classifier"]
    first, hidden, last = (model.get_layer(name).kernel_initializer for name in names)
    assert (first.gain, hidden.gain, last.gain) == (expected, expected, None)
    assert all(
        isinstance(one, RandomWalk) and one.distribution == distribution for one in (first, hidden, last)
    )
    unit = small(activation="tanh", distribution=distribution, stacked=stacked, gain=1.0, output_gain=1.0)
    kernels, units = kernels_of(model), kernels_of(unit)
    for kernel, one in zip(kernels[:-1], units[:-1], strict=True):
        np.testing.assert_allclose(kernel, expected * one, rtol=1e-6)
    linear = gain("linear", 20, distribution=distribution)
    np.testing.assert_allclose(kernels[-1], linear * units[-1], rtol=1e-6)


@both_forms
def test_gains_of_ones_own(stacked: bool) -> None:
    normal: dict[str, Any] = {"distribution": "normal", "stacked": stacked}
    unit = kernels_of(small(gain=1.0, output_gain=1.0, **normal))
    model = small(gain=1.5, input_gain=0.5, output_gain=0.25, **normal)
    own = kernels_of(model)
    for kernel, one, factor in zip(own, unit, [0.5, 1.5, 1.5, 1.5, 1.5, 0.25], strict=True):
        np.testing.assert_allclose(kernel, factor * one, rtol=1e-6)
    follows = kernels_of(small(gain=1.5, **normal))
    np.testing.assert_allclose(follows[0], 1.5 * unit[0], rtol=1e-6)
    # With mirrored kernels the first one reads data that come without an activation.
    mirrored: dict[str, Any] = {"distribution": "looks_linear", "stacked": stacked}
    unit = kernels_of(small(gain=1.0, **mirrored))
    own = kernels_of(small(gain=1.5, output_gain=0.25, **mirrored))
    for kernel, one, factor in zip(own, unit, [1.0, 1.5, 1.5, 1.5, 1.5, 0.25], strict=True):
        np.testing.assert_allclose(kernel, factor * one, rtol=1e-6)


@backends
@both_forms
def test_seeds(stacked: bool) -> None:
    def kernels(**arguments: Any) -> list[Array]:
        return kernels_of(small(width=6, stacked=stacked, **arguments))

    one, same, other = kernels(seed=1), kernels(seed=1), kernels(seed=2)
    for kernel, again, different in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(kernel, again)
        assert not np.isin(kernel, different).any()
    assert len({kernel.tobytes() for kernel in one}) == len(one)
    keras.utils.set_random_seed(3)
    first, second = kernels(seed=None), kernels(seed=None)
    assert not np.isin(first[1], second[1]).any()
    keras.utils.set_random_seed(3)
    for kernel, again in zip(first, kernels(seed=None), strict=True):
        np.testing.assert_array_equal(kernel, again)


@backends
@both_forms
@pytest.mark.parametrize(
    "initializer",
    ["glorot_uniform", pytest.param(keras.initializers.HeNormal(seed=7), marks=slow_on_jax), "zeros"],
)
def test_other_initializers(initializer: Any, stacked: bool) -> None:
    model = small(kernel_initializer=initializer, width=6, stacked=stacked)
    assert type(model.get_layer("hidden_1").kernel_initializer) is type(keras.initializers.get(initializer))
    kernels = kernels_of(model)
    assert len({kernel.tobytes() for kernel in kernels[:-1]}) == (1 if initializer == "zeros" else 5)
    again = small(kernel_initializer=initializer, width=6, stacked=not stacked)
    for kernel, other in zip(kernels, kernels_of(again), strict=True):
        np.testing.assert_array_equal(kernel, other)


@pytest.mark.parametrize(
    "excluded", [{"gain": 1.0}, {"input_gain": 1.0}, {"output_gain": 1.0}, {"distribution": "uniform"}]
)
def test_another_initializer_excludes_the_random_walks_settings(excluded: dict[str, Any]) -> None:
    message = (
        f"{next(iter(excluded))}: these belong to the random-walk .*Received: kernel_initializer='zeros'"
    )
    with pytest.raises(ValueError, match=message):
        small(kernel_initializer="zeros", **excluded)


@both_forms
def test_the_classifier(stacked: bool) -> None:
    model = small(classes=7, classifier_activation="softmax", stacked=stacked)
    probabilities = run(model, X)
    assert probabilities.shape == (4, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    logits = run(small(classes=7, stacked=stacked), X)
    np.testing.assert_allclose(
        np.log(probabilities / probabilities[:, :1]), logits - logits[:, :1], atol=1e-5
    )


@backends
@both_forms
def test_images_are_flattened(stacked: bool) -> None:
    images = np.random.default_rng(1).standard_normal((3, 28, 28)).astype(np.float32)
    model = small(input_shape=(28, 28), stacked=stacked)
    assert model.input_shape == (None, 28, 28)
    assert "flatten" in [layer.name for layer in model.layers]
    flat = small(input_shape=(784,), stacked=stacked)
    np.testing.assert_allclose(run(model, images), run(flat, images.reshape(3, 784)), rtol=1e-5, atol=1e-6)


@backends
@both_forms
@pytest.mark.parametrize(
    ("dtype", "compute"),
    [("mixed_bfloat16", "bfloat16"), pytest.param("float16", "float16", marks=slow_on_jax)],
)
def test_dtypes(dtype: str, compute: str, stacked: bool) -> None:
    model = small(dtype=dtype, stacked=stacked)
    expected = "float32" if dtype.startswith("mixed") else dtype
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.weights} == {expected}
    assert keras.backend.standardize_dtype(model(X).dtype) == compute
    exact = run(small(stacked=stacked), X)
    np.testing.assert_allclose(run(model, X), exact, atol=0.05 * np.abs(exact).max())


@backends
@both_forms
@pytest.mark.parametrize(
    "activation", [keras.layers.LeakyReLU(0.1), keras.activations.tanh, lambda a: keras.ops.tanh(a)]
)
def test_activations_that_are_no_names(activation: Any, stacked: bool) -> None:
    model = small(activation=activation, stacked=stacked)
    h = X
    *hidden, last = zip(kernels_of(model), [w for w in by_layer(model) if w.ndim == 1], strict=True)
    for kernel, bias in hidden:
        h = to_numpy(activation(keras.ops.convert_to_tensor(h @ kernel + bias)))
    np.testing.assert_allclose(run(model, X), h @ last[0] + last[1], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            ({"depth": value}, "`depth` must be an integer of at least 1")
            for value in (0, -1, 1.5, True, "9")
        ),
        *(({"width": value}, "`width` must be an integer of at least 1") for value in (0, 2.5, None)),
        *(({"classes": value}, "`classes` must be an integer of at least 1") for value in (0, 1.0)),
        *(({"input_shape": value}, "`input_shape` must be") for value in ((0,), (None,), (3, -1), 6, ())),
        ({"input_shape": (10**9, 10**9)}, "`input_shape` must be at most"),
        *(
            ({name: value, "distribution": law}, f"`{name}` must .*: {name}={re.escape(repr(value))}")
            for name in ("gain", "input_gain", "output_gain")
            for value, law in ((-1.0, "normal"), (1e39, "normal"), (1e-300, "looks_linear"), ("2", "uniform"))
        ),
        ({"output_gain": 0}, "`output_gain` must be a finite number above 0"),
        ({"bias_stddev": 0.0}, "`bias_stddev` must be a finite number above 0"),
        ({"distribution": "cauchy"}, "`distribution` must be one of"),
        ({"activation": "sotfmax"}, "`activation` must be the name of|Could not interpret activation"),
        ({"seed": "a"}, "`seed` must be an integer"),
        ({"seed": 1.5}, "`seed` must be an integer"),
        ({"seed": True}, "`seed` must be an integer"),
        ({"kernel_initializer": "he_norml"}, "`kernel_initializer` must be a Keras initializer.*'he_normal'"),
        ({"dtype": "float31"}, "float31"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


@both_forms
@pytest.mark.slow
def test_an_activation_without_a_gain(stacked: bool) -> None:
    with pytest.raises(NoGainError, match="gelu at width 20 and depth 300.*looks_linear"):
        small(depth=300, activation="gelu", distribution="normal", stacked=stacked)
    assert small(depth=30, activation="gelu", distribution="normal", gain=1.4, stacked=stacked).built
    assert small(depth=30, activation="mish", gain=1.4, stacked=stacked).built
    assert small(depth=300, activation="gelu", stacked=stacked).built  # mirrored kernels have one


@both_forms
def test_a_model_larger_than_the_memory_is_refused(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="depth 1,000,000 and width 10,000 has .* parameters.*takes .* PiB|TiB"
    ):
        model_zoo.deep_mlp(10**6, 10**4, stacked=stacked)
    parameters = model_zoo.count_parameters(5, 20, 6, 3)
    monkeypatch.setattr("keras_rwinit.initializers.check_fits", lambda needed, what: None)
    monkeypatch.setattr("keras_rwinit._limits.physical_memory", lambda: 4 * parameters)
    assert small(stacked=stacked).built
    assert small(dtype="mixed_float16", stacked=stacked).built
    with pytest.raises(ValueError, match="in float64 takes .* Use a smaller width or depth"):
        small(dtype="float64", stacked=stacked)
    monkeypatch.setattr("keras_rwinit._limits.physical_memory", lambda: 4 * parameters - 1)
    with pytest.raises(ValueError, match="in float32 takes"):
        small(stacked=stacked)


@pytest.mark.parametrize("name", model_zoo.presets)
def test_presets_describe_their_networks(name: str) -> None:
    preset = model_zoo.presets[name]
    assert isinstance(preset, model_zoo.Preset)
    inspect.signature(model_zoo.deep_mlp).bind(**preset.config)
    model = model_zoo.from_preset(name, seed=0)
    assert model.count_params() == preset.parameters
    assert model.name == name
    assert isinstance(preset.recipe, model_zoo.TrainingRecipe)
    keras.optimizers.get(preset.recipe.optimizer)
    assert preset.recipe.learning_rate > 0
    assert min(preset.recipe.batch_size, preset.recipe.epochs) >= 1
    assert preset.description


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", -1.0), ("learning_rate", float("inf")), ("batch_size", 0), ("epochs", 1.5)],
)
def test_a_recipe_refuses_what_cannot_train(name: str, value: Any) -> None:
    numbers = {"learning_rate": 1e-3, "batch_size": 32, "epochs": 1, name: value}
    with pytest.raises(ValueError, match=f"^`{name}` must be .* Received: {name}={value}"):
        model_zoo.TrainingRecipe("digits", "adam", **numbers)


def test_a_preset_has_the_features_and_classes_of_its_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = model_zoo.TrainingRecipe("timit", "adam", 1e-3, batch_size=32, epochs=1)
    preset = _preset("Two layers on TIMIT.", recipe, depth=2, width=3, activation="relu")
    monkeypatch.setattr(model_zoo, "presets", {"timit": preset})
    model = model_zoo.from_preset("timit", seed=0)
    assert (model.input_shape, model.output_shape) == ((None, 1320), (None, 39))
    assert model.count_params() == preset.parameters


def test_preset_overrides() -> None:
    model = model_zoo.from_preset("digits_tanh_1000", depth=3, seed=0, stacked=False)
    assert (model.name, len(model.layers)) == ("digits_tanh_1000", 4)
    assert model.layers[0].kernel_initializer.distribution == "orthogonal"
    # Another initializer replaces what the preset says of the random walk's, and only that.
    glorot = model_zoo.from_preset("mnist_relu_200", depth=2, width=3, kernel_initializer="glorot_uniform")
    assert isinstance(glorot.get_layer("hidden_stack").kernel_initializer, keras.initializers.GlorotUniform)
    assert glorot.get_layer("hidden_stack").bias.numpy().any()
    with pytest.raises(ValueError, match="^gain: these belong"):
        model_zoo.from_preset("digits_tanh_100", depth=2, kernel_initializer="he_normal", gain=2.0)
    with pytest.raises(TypeError, match="widht"):
        model_zoo.from_preset("digits_tanh_1000", widht=3)
    with pytest.raises(ValueError, match="`name` must be one of digits_tanh_1000.*Received: name='nonesuch'"):
        model_zoo.from_preset("nonesuch")
    with pytest.raises(TypeError):
        model_zoo.presets["mine"] = None
    with pytest.raises(TypeError):
        model_zoo.presets["digits_tanh_1000"].config["depth"] = 3


@backends
@pytest.mark.parametrize("activation", ["erf", "sin", "gelu_tanh", "celu(0.5)", "squareplus(2)", "relu6"])
def test_the_activations_of_gain_are_taken_by_name(activation: str, tmp_path: Path) -> None:
    model = small(activation=activation, depth=3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(keras.saving.load_model(tmp_path / "model.keras"), X), run(model, X))
    h = X
    *hidden, last = zip(kernels_of(model), [w for w in by_layer(model) if w.ndim == 1], strict=True)
    for kernel, bias in hidden:
        h = resolve_activation(activation).function((h @ kernel + bias).astype(np.float64))
    np.testing.assert_allclose(run(model, X), h @ last[0] + last[1], atol=1e-4)


@slow_on_jax
@pytest.mark.backends
@both_forms
def test_shaped_activations_are_shaped_for_the_depth(stacked: bool, tmp_path: Path) -> None:
    """For all hidden layers, of which the stack has one less; files hold the parameters."""
    model = small(activation="shaped(tanh)", depth=12, stacked=stacked)
    concrete = shape_activation("tanh", 12)
    same = small(activation=concrete.name, depth=12, stacked=stacked)
    np.testing.assert_array_equal(run(same, X), run(model, X))
    first = model.get_layer("hidden_1").kernel_initializer
    assert (first.activation.name, first.distribution) == (concrete.name, "orthogonal")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("hidden_1").activation.name == concrete.name
    np.testing.assert_array_equal(run(loaded, X), run(model, X))


def test_the_walk_of_a_shaped_activation_is_predicted() -> None:
    model = small(activation="shaped(relu)", depth=40, distribution="orthogonal")
    measured = gradient_walk(model, X)
    predicted = predict_walk("shaped(relu)", 20, 40, distribution="orthogonal")
    assert measured.prediction is not None
    assert measured.prediction.spread == pytest.approx(predicted.spread, rel=1e-6)
    assert predicted.spread != predict_walk("relu", 20, 40, distribution="orthogonal").spread


def test_an_activation_with_a_parameter_is_taken_by_name() -> None:
    named = model_zoo.deep_mlp(4, 8, "leaky_relu(0.9)", input_shape=(5,), seed=0)
    layer = model_zoo.deep_mlp(4, 8, keras.layers.LeakyReLU(0.9), input_shape=(5,), seed=0)
    x = np.random.default_rng(0).standard_normal((3, 5)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(named(x)), keras.ops.convert_to_numpy(layer(x)))
    with pytest.raises(ValueError, match="leaky_relu"):
        model_zoo.deep_mlp(4, 8, "leaky_relu(x)", input_shape=(5,))
