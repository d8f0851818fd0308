"""`deep_autoencoder`: its widths, gains, seeds and walk, and its forms."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, Array, by_layer, relative_error, run
from theory_helpers import drift_in_standard_errors

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit._keras.activations import theory_activation
from keras_rwinit.diagnostics import GradientWalk
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.models._autoencoder import _count_parameters, _levels
from keras_rwinit.theory import NoGainError, gain, resolve_activation

backends = pytest.mark.backends  # where a back end takes part
slow_on_jax = pytest.mark.slow if BACKEND == "jax" else pytest.mark.backends  # it compiles every operation

SMALL: dict[str, Any] = {"depth": 9, "width": 20, "bottleneck": 6, "input_shape": (30,)}
X = np.random.default_rng(0).standard_normal((4, 30)).astype(np.float32)


def small(**arguments: Any) -> keras.Model:
    return model_zoo.deep_autoencoder(**{**SMALL, "seed": 1, **arguments})


def kernels_of(model: keras.Model) -> list[Array]:
    """Of every layer by itself, those of stacks too."""
    return [weight for weight in by_layer(model) if weight.ndim == 2]


def widths_of(model: keras.Model) -> list[int]:
    """Units of the hidden layers."""
    return [kernel.shape[1] for kernel in kernels_of(model)[:-1]]


@backends
def test_layers_and_names() -> None:
    for _ in range(2):  # the names do not count up from model to model
        model = small()
        assert model.name == "deep_autoencoder_9x20x6"
        assert [layer.name for layer in model.layers] == [
            *("inputs", "encoder_1", "encoder_1_stack", "encoder_2", "encoder_2_stack", "bottleneck"),
            *("decoder_1", "decoder_1_stack", "decoder_2", "decoder_2_stack", "reconstruction"),
        ]
    assert not model.compiled
    assert model.get_layer("reconstruction").activation is keras.activations.linear
    assert model.get_layer("bottleneck").activation is keras.activations.tanh
    encoder = keras.Model(model.input, model.get_layer("bottleneck").output)
    assert run(encoder, X).shape == (4, 6)
    assert run(model, X).shape == X.shape
    assert small(name="mine").name == "mine"


@pytest.mark.parametrize(
    ("depth", "width", "bottleneck", "widths"),
    [
        (1, 64, 16, [16]),
        (2, 64, 16, [64, 16]),
        (3, 64, 16, [64, 16, 64]),
        (4, 64, 16, [64, 32, 16, 64]),
        (5, 64, 16, [64, 32, 16, 32, 64]),
        (13, 64, 16, [64, 64, 64, 32, 32, 32, 16, 32, 32, 32, 64, 64, 64]),
        (11, 100, 16, [100, 100, 54, 54, 29, 16, 29, 54, 54, 100, 100]),
        (7, 9, 1, [9, 5, 3, 1, 3, 5, 9]),
        (5, 8, 8, [8, 8, 8, 8, 8]),
        (5, 8, 7, [8, 8, 7, 8, 8]),
    ],
)
def test_widths(depth: int, width: int, bottleneck: int, widths: list[int]) -> None:
    model = small(depth=depth, width=width, bottleneck=bottleneck, activation="relu")
    assert widths_of(model) == widths
    kernels = kernels_of(model)
    assert [kernel.shape[0] for kernel in kernels] == [30, *widths]
    assert kernels[-1].shape[1] == 30


def test_widths_fall_and_rise_in_steps_of_one_ratio_and_at_most_a_half() -> None:
    for bottleneck, width in itertools.combinations_with_replacement(range(1, 40), 2):
        widths = [level.units for level in _levels(2 * width + 1, width, bottleneck)]
        assert widths == widths[::-1]
        encoder = widths[: len(widths) // 2 + 1]
        assert (encoder[0], encoder[-1]) == (width, bottleneck)
        if bottleneck < width:
            assert sorted(set(encoder), reverse=True) == encoder
            assert width / bottleneck <= 2 ** (len(encoder) - 1) < 2 * width / bottleneck
            np.testing.assert_allclose(
                encoder, np.geomspace(width, bottleneck, len(encoder)), atol=0.5, rtol=0
            )


@pytest.mark.parametrize("depth", [1, 2, 7, 40, 41])
def test_depth_is_the_number_of_hidden_layers(depth: int) -> None:
    levels = _levels(depth, 20, 6)
    model = small(depth=depth)
    assert sum(level.layers for level in levels) == len(widths_of(model)) == depth
    assert _count_parameters(levels, 30) == model.count_params()


def in_standard_errors(kernel: Array, expected: float, kurtosis: float = 3.0) -> float:
    """Of the mean square of n entries: v sqrt((kurtosis - 1) / n) is one, v = `expected^2 / fan_in`."""
    squares = (kernel.astype(np.float64) * np.sqrt(kernel.shape[0]) / expected) ** 2
    return float((squares.mean() - 1.0) / np.sqrt((kurtosis - 1.0) / kernel.size))


WIDE: dict[str, Any] = {
    "depth": 9,
    "width": 128,
    "bottleneck": 32,
    "input_shape": (100,),
    "distribution": "normal",
    "seed": 5,
}


@backends
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gains(activation: str) -> None:
    """Each kernel has the gain of its own fan-in: at least 3,200 entries each, four standard errors."""
    kernels = kernels_of(model_zoo.deep_autoencoder(activation=activation, **WIDE))
    for kernel in kernels[:-1]:
        assert abs(in_standard_errors(kernel, gain(activation, kernel.shape[0], 9))) < 4.0
    assert abs(in_standard_errors(kernels[-1], 0.3)) < 4.0


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_gain_five_percent_off_fails_the_test_of_gains(factor: float) -> None:
    """The largest of the kernels tell; so does the last one."""
    right = gain("tanh", 128, 9)
    wrong = model_zoo.deep_autoencoder(gain=factor * right, output_gain=factor * 0.3, **WIDE)
    square = [kernel for kernel in kernels_of(wrong) if kernel.shape == (128, 128)]
    assert len(square) == 2
    assert all(abs(in_standard_errors(kernel, right)) > 4.0 for kernel in square)
    assert abs(in_standard_errors(kernels_of(wrong)[-1], 0.3)) > 4.0


@backends
@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform", "orthogonal"])
def test_gains_entry_by_entry(distribution: str) -> None:
    """Against the draw of the same seed with gain 1: fan-ins of 30 and 20 and so on, each with its own."""
    model = small(width=64, bottleneck=32, distribution=distribution)
    unit = small(width=64, bottleneck=32, distribution=distribution, gain=1.0, output_gain=1.0)
    *kernels, last = kernels_of(model)
    *units, last_unit = kernels_of(unit)
    for kernel, one in zip(kernels, units, strict=True):
        expected = gain("tanh", kernel.shape[0], 9, distribution=distribution)
        np.testing.assert_allclose(kernel, expected * one, rtol=1e-6)
    np.testing.assert_allclose(last, 0.3 * last_unit, rtol=1e-6)
    assert len({gain("tanh", kernel.shape[0], 9, distribution=distribution) for kernel in kernels}) == 3
    initializers = [layer.kernel_initializer for layer in model.layers if hasattr(layer, "kernel")]
    assert all(isinstance(one, RandomWalk) and one.distribution == distribution for one in initializers)


def test_kernels_are_orthogonal_by_default() -> None:
    for kernel in kernels_of(small(gain=1.0, output_gain=1.0)):
        tall = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
        gram = tall.T @ tall * min(1.0, kernel.shape[0] / kernel.shape[1])
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_a_bottleneck_too_narrow_for_a_gain_of_its_own_has_that_of_the_least_width_with_one() -> None:
    model = small(bottleneck=2, width=64, distribution="normal")
    unit = small(bottleneck=2, width=64, distribution="normal", gain=1.0)
    behind = model.layers.index(model.get_layer("bottleneck")) + 1
    kernel, one = (m.layers[behind].get_weights()[0] for m in (model, unit))
    np.testing.assert_allclose(kernel, gain("tanh", 16, 9) * one, rtol=1e-6)


@backends
def test_seeds() -> None:
    one, same, other = (kernels_of(small(seed=seed)) for seed in (1, 1, 2))
    for kernel, again, different in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(kernel, again)
        assert not np.isin(kernel, different).any()
    assert len({kernel.tobytes() for kernel in one}) == len(one)
    # Equal seeds would give equal standard draws whatever the shapes.
    units = kernels_of(small(gain=1.0, output_gain=1.0))
    starts = [tuple(np.round(unit.ravel()[:6] * np.sqrt(len(unit)), 3)) for unit in units]
    assert len(set(starts)) == len(starts)
    keras.utils.set_random_seed(3)
    first, second = kernels_of(small(seed=None)), kernels_of(small(seed=None))
    assert not np.isin(first[1], second[1]).any()
    keras.utils.set_random_seed(3)
    for kernel, again in zip(first, kernels_of(small(seed=None)), strict=True):
        np.testing.assert_array_equal(kernel, again)


@backends
@pytest.mark.parametrize(
    "initializer",
    ["glorot_uniform", pytest.param(keras.initializers.HeNormal(seed=7), marks=slow_on_jax), "zeros"],
)
def test_other_initializers(initializer: Any) -> None:
    model = small(kernel_initializer=initializer)
    kind = type(keras.initializers.get(initializer))
    for layer in model.layers[1:]:
        assert type(layer.kernel_initializer) is kind
    kernels = kernels_of(model)
    assert len({kernel.tobytes() for kernel in kernels if kernel.shape == (20, 20)}) == (
        1 if initializer == "zeros" else 2
    )
    if initializer == "glorot_uniform":
        for kernel in kernels:
            assert 0.8 < np.abs(kernel).max() / np.sqrt(6.0 / sum(kernel.shape)) <= 1.0


WALK: dict[str, Any] = {
    "depth": 100,
    "width": 64,
    "bottleneck": 32,
    "input_shape": (40,),
    "distribution": "normal",
}


def walk_of(seed: int, **arguments: Any) -> GradientWalk:
    model = model_zoo.deep_autoencoder(**{**WALK, **arguments}, seed=seed)
    walk = gradient_walk(model, np.random.default_rng(seed).standard_normal((16, 40)))
    assert walk.backward.shape == (16, 100)
    return walk


def walked(seed: int, **arguments: Any) -> float:
    """`ln|delta|` at the first hidden layer above that at the last, in nats."""
    return 99 * walk_of(seed, **arguments).drift


def mean_walk_in_standard_errors(**arguments: Any) -> float:
    """Mean of four networks by the predicted deviation; the examples of one network walk nearly as one."""
    walks = [walk_of(seed, **arguments) for seed in range(4)]
    assert all(walk.prediction is not None for walk in walks)
    deviation = np.mean([walk.prediction.std[0] for walk in walks if walk.prediction])
    return float(np.mean([99 * walk.drift for walk in walks]) / (deviation / np.sqrt(4)))


@backends
@slow_on_jax
def test_the_walk_of_relu_is_unbiased_over_all_widths() -> None:
    """Seeds 0 to 3, four standard errors of the predicted spread, 4 nats; glorot's loses some 35."""
    assert abs(mean_walk_in_standard_errors(activation="relu", distribution="orthogonal")) < 4.0
    assert mean_walk_in_standard_errors(activation="relu", kernel_initializer="glorot_uniform") < -12.0


def test_a_gain_five_percent_off_fails_the_test_of_walks() -> None:
    """Five nats in a hundred layers, and what a gain of one width costs the others."""
    wrong = gain("relu", 64, distribution="orthogonal")
    for factor in (0.95, 1.05):
        error = mean_walk_in_standard_errors(
            activation="relu", distribution="orthogonal", gain=factor * wrong
        )
        assert abs(error) > 4.0


@pytest.mark.slow
def test_the_walk_of_tanh_is_unbiased_too() -> None:
    """Seeds 0 to 5, four of their own standard errors, 0.2 nats; glorot's loses three."""

    def totals(**arguments: Any) -> Array:
        return np.array([walked(seed, **arguments) for seed in range(6)])

    right = gain("tanh", 64, 100, distribution="orthogonal")
    assert abs(drift_in_standard_errors(totals(distribution="orthogonal"))) < 4.0
    for factor in (0.95, 1.05):
        wrong = totals(distribution="orthogonal", gain=factor * right)
        assert abs(drift_in_standard_errors(wrong)) > 4.0
    assert totals(kernel_initializer="glorot_uniform").mean() < -2.0


@backends
def test_inputs_of_several_axes() -> None:
    images = X.reshape(4, 2, 5, 3)
    model = small(input_shape=(2, 5, 3))
    assert (model.input_shape, model.output_shape) == ((None, 2, 5, 3), (None, 2, 5, 3))
    np.testing.assert_allclose(run(model, images).reshape(4, 30), run(small(), X), rtol=1e-5, atol=1e-6)
    assert small(input_shape=[30]).input_shape == (None, 30)


@backends
@pytest.mark.parametrize("shape", [(30,), pytest.param((5, 6), marks=slow_on_jax)])
def test_unstacked(shape: tuple[int, ...]) -> None:
    model = small(depth=30, input_shape=shape)
    plain = model_zoo.unstack(model)
    assert isinstance(plain, DeepSequential)
    assert not any(isinstance(layer, DenseStack) for layer in plain.layers)
    for one, other in zip(by_layer(model), by_layer(plain), strict=True):
        np.testing.assert_array_equal(one, other)
    x = X.reshape(4, *shape)
    assert relative_error(run(plain, x), run(model, x)) < 1e-5
    back = model_zoo.stack(plain)
    assert sum(isinstance(layer, DenseStack) for layer in back.layers) == 4
    assert relative_error(run(back, x), run(model, x)) < 1e-5


@backends
@pytest.mark.parametrize("activation", ["tanh", "leaky_relu(0.9)", "shaped(relu, correlation=0.4)"])
def test_saved_and_loaded(activation: str, tmp_path: Path) -> None:
    model = small(activation=activation, input_shape=(5, 6), distribution="orthogonal")
    x = X.reshape(4, 5, 6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(by_layer(model), by_layer(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(run(loaded, x), run(model, x), rtol=1e-6)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    # By its parameters, which are those of the model's depth
    shaped = theory_activation(loaded.get_layer("bottleneck").activation)
    assert shaped == resolve_activation(activation, SMALL["depth"])


@backends
@pytest.mark.slow
@pytest.mark.parametrize("depth", [100, 1000])
def test_very_many_layers_make_a_step(depth: int) -> None:
    limit = sys.getrecursionlimit()
    model = small(depth=depth, width=24, bottleneck=12, distribution="orthogonal", input_shape=(5, 6))
    assert len(widths_of(model)) == depth
    before = by_layer(model)
    model.compile("adam", "mse")
    x = X.reshape(4, 5, 6)
    assert np.isfinite(model.train_on_batch(x, x))
    assert sys.getrecursionlimit() == limit
    after = by_layer(model)
    assert all(np.isfinite(weight).all() for weight in after)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@backends
@pytest.mark.parametrize(
    ("dtype", "compute"),
    [("mixed_bfloat16", "bfloat16"), pytest.param("float16", "float16", marks=slow_on_jax)],
)
def test_dtypes(dtype: str, compute: str) -> None:
    model = small(dtype=dtype, input_shape=(5, 6))
    expected = "float32" if dtype.startswith("mixed") else dtype
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.weights} == {expected}
    x = X.reshape(4, 5, 6)
    assert keras.backend.standardize_dtype(model(x).dtype) == compute
    exact = run(small(input_shape=(5, 6)), x)
    np.testing.assert_allclose(run(model, x), exact, atol=0.05 * np.abs(exact).max())


def test_a_walk_wider_than_float16_is_said_beforehand() -> None:
    wide: dict[str, Any] = {"depth": 1000, "activation": "relu", "width": 24}
    with pytest.warns(UserWarning, match="float16 may not hold"):
        small(dtype="mixed_float16", **wide)
    with pytest.warns(UserWarning, match="float16 may not hold"):
        small(dtype="mixed_float16", gain=1.0, **{**wide, "depth": 100})
    small(dtype="mixed_bfloat16", **wide)
    small(dtype="mixed_float16", **{**wide, "depth": 9})


@pytest.mark.parametrize("excluded", [{"gain": 1.0}, {"output_gain": 1.0}, {"distribution": "uniform"}])
def test_another_initializer_excludes_the_random_walks_settings(excluded: dict[str, Any]) -> None:
    message = (
        f"{next(iter(excluded))}: these belong to the random-walk .*Received: kernel_initializer='zeros'"
    )
    with pytest.raises(ValueError, match=message):
        small(kernel_initializer="zeros", **excluded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            ({name: value}, f"`{name}` must be an integer of at least 1")
            for name in ("depth", "width", "bottleneck")
            for value in (0, -1, 1.5, True, "9", None)
        ),
        ({"bottleneck": 21}, "`bottleneck` must be at most `width`.*Received: bottleneck=21, width=20"),
        *(
            ({"input_shape": value}, "`input_shape` must be")
            for value in ((0,), (None,), (3, -1), 6, (), "9")
        ),
        *(
            (
                {name: value, "activation": "relu", "distribution": law},
                f"`{name}` must .*: {name}={re.escape(repr(value))}",
            )
            for name in ("gain", "output_gain")
            for value, law in ((-1.0, "normal"), (0, "normal"), (1e39, "looks_linear"))
        ),
        ({"distribution": "cauchy"}, "`distribution` must be one of"),
        ({"distribution": ["normal"]}, "`distribution` must be one of"),
        ({"activation": "sotfmax"}, "`activation` must be the name of|Could not interpret activation"),
        *(({"seed": value}, "`seed` must be an integer") for value in ("a", 1.5, True)),
        ({"kernel_initializer": "he_norml"}, "`kernel_initializer` must be a Keras initializer.*'he_normal'"),
        ({"dtype": "float31"}, "float31"),
        ({"dtype": "int32"}, "`dtype` must be a float dtype"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_layers_of_equal_width_share_no_weights_of_an_activation() -> None:
    with pytest.raises(ValueError, match="`activation` must have no weights .*'leaky_relu.*PReLU"):
        small(activation=keras.layers.PReLU())
    without_stacks = small(depth=3, activation=keras.layers.PReLU())
    activations = [layer.activation for layer in without_stacks.layers[1:-1]]
    assert len({id(activation) for activation in activations}) == 3


@pytest.mark.slow
def test_an_activation_without_a_gain() -> None:
    with pytest.raises(NoGainError, match="gelu at width .* and depth 300.*looks_linear"):
        small(depth=300, activation="gelu")
    assert small(depth=300, activation="gelu", gain=1.4).built


def test_a_model_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="autoencoder of depth 1,000,000,000 and .* parameters.*takes .* TiB"
    ):
        model_zoo.deep_autoencoder(10**9)
    parameters = small().count_params()
    monkeypatch.setattr("keras_rwinit.initializers.check_fits", lambda needed, what: None)
    monkeypatch.setattr("keras_rwinit._limits.physical_memory", lambda: 4 * parameters)
    assert small().built
    monkeypatch.setattr("keras_rwinit._limits.physical_memory", lambda: 4 * parameters - 1)
    with pytest.raises(ValueError, match="in float32 takes .* Use a smaller width or depth"):
        small()
