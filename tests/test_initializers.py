"""The contract of every initializer, for every distribution: moments, seeds, configs, dtypes, errors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, Array, to_numpy

import keras_rwinit
from keras_rwinit.initializers import RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh
from keras_rwinit.theory import ACTIVATIONS, Activation, NoGainError, gain
from keras_rwinit.theory.distributions import DISTRIBUTIONS

backends = pytest.mark.backends  # not where the numbers are NumPy's

CLASSES = {RandomWalk: "relu", RandomWalkLinear: "linear", RandomWalkReLU: "relu", RandomWalkTanh: "tanh"}
IDS = {
    "random_walk": RandomWalk,
    "random_walk_linear": RandomWalkLinear,
    "random_walk_relu": RandomWalkReLU,
    "random_walk_tanh": RandomWalkTanh,
}
ROUNDING = 3e-7  # of a float32 kernel against the float64 one it was drawn as

every_class = pytest.mark.parametrize("cls", list(CLASSES), ids=lambda cls: cls.__name__)
every_distribution = pytest.mark.parametrize("distribution", list(DISTRIBUTIONS))
every_pair = pytest.mark.parametrize(
    ("cls", "distribution"),
    [
        pytest.param(cls, distribution, id=f"{cls.__name__}-{distribution}")
        for cls in CLASSES
        for distribution in DISTRIBUTIONS
        if (cls, distribution) != (RandomWalkTanh, "looks_linear")  # refused
    ],
)


def draw(
    initializer: keras.initializers.Initializer, shape: tuple[int, ...] = (6, 5), **kwargs: Any
) -> Array:
    return to_numpy(initializer(shape, **kwargs))


def moments_in_standard_errors(
    kernel: Array, expected_gain: float, distribution: str
) -> tuple[float, float, float]:
    """How far mean, variance and fourth moment lie from the distribution's, in standard errors.

    Of n independent entries of variance v, the mean has the standard error sqrt(v / n), and the
    variance v sqrt((kurtosis - 1) / n). An orthogonal kernel's variance is the same in every draw.
    """
    fan_in, count = kernel.shape[0], kernel.size
    entries = kernel.astype(np.float64).ravel() * np.sqrt(fan_in) / expected_gain
    kurtosis = 3.0 + DISTRIBUTIONS[distribution].excess_kurtosis
    variance_error = ROUNDING if distribution == "orthogonal" else np.sqrt((kurtosis - 1.0) / count)
    fourth = entries**4
    return (
        entries.mean() * np.sqrt(count),
        ((entries**2).mean() - 1.0) / variance_error,
        (fourth.mean() - kurtosis) / (fourth.std() / np.sqrt(count)),
    )


@backends
@every_pair
def test_moments_are_those_of_the_distribution(cls: Any, distribution: str) -> None:
    """80,000 entries, seed 3, four standard errors."""
    kernel = draw(cls(distribution=distribution, seed=3), (400, 200))
    deviations = moments_in_standard_errors(
        kernel, gain(CLASSES[cls], 400, None, distribution=distribution), distribution
    )
    assert np.max(np.abs(deviations)) < 4.0


@every_pair
def test_a_gain_two_percent_off_fails_the_test_of_moments(cls: Any, distribution: str) -> None:
    right = gain(CLASSES[cls], 400, None, distribution=distribution)
    for factor in (0.98, 1.02):
        kernel = draw(cls(distribution=distribution, seed=3, gain=factor * right), (400, 200))
        assert abs(moments_in_standard_errors(kernel, right, distribution)[1]) > 4.0


@every_pair
@pytest.mark.parametrize(
    ("fan_in", "depth"), [(32, None), (100, 50), pytest.param(100, 1000, marks=pytest.mark.slow)]
)
def test_the_gain_is_exactly_the_computed_one(
    cls: Any, distribution: str, fan_in: int, depth: int | None
) -> None:
    """The same seed with gain 1 gives the standard draw: the ratio is the gain, entry by entry."""
    kernel = draw(cls(distribution=distribution, depth=depth, seed=8), (fan_in, 7)).astype(np.float64)
    unit = draw(cls(distribution=distribution, gain=1.0, seed=8), (fan_in, 7)).astype(np.float64)
    expected = gain(CLASSES[cls], fan_in, depth, distribution=distribution)
    np.testing.assert_allclose(kernel, expected * unit, rtol=ROUNDING)


@every_distribution
def test_variance_times_fan_in_is_the_gain_squared_in_a_uniform_or_orthogonal_kernel(
    distribution: str,
) -> None:
    """Where one kernel shows it without noise: the bound of uniform entries, an orthogonal kernel's norm."""
    kernel = draw(RandomWalkReLU(distribution, gain=1.5, seed=1), (300, 300)).astype(np.float64)
    if distribution == "orthogonal":
        assert (kernel**2).mean() * 300 == pytest.approx(1.5**2, rel=ROUNDING)
    bounds = {"uniform": np.sqrt(3.0), "truncated_normal": 2.0 / 0.87962566103423978}
    if distribution in bounds:
        reached = np.abs(kernel).max() * np.sqrt(300) / 1.5
        assert bounds[distribution] * (1.0 - 1e-3) < reached < bounds[distribution] * (1.0 + ROUNDING)


@backends
@pytest.mark.parametrize("name", IDS)
def test_string_ids(name: str) -> None:
    assert type(keras.initializers.get(name)) is IDS[name]
    layer = keras.layers.Dense(40, kernel_initializer=name)
    keras.utils.set_random_seed(2)
    layer.build((None, 30))
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(to_numpy(layer.kernel), draw(IDS[name](), (30, 40)))
    np.testing.assert_array_equal(to_numpy(layer.bias), np.zeros(40))
    assert issubclass(IDS[name], keras_rwinit.initializers.RandomWalk)


@backends
@every_class
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")
def test_dtypes(cls: Any, dtype: str) -> None:
    """Each is the float64 draw, rounded once; JAX without x64 makes float32 of float64."""
    kernel = cls(seed=5)((7, 6), dtype=dtype)
    made = keras.backend.standardize_dtype(kernel.dtype)
    assert made == ("float32" if dtype == "float64" and BACKEND == "jax" else dtype)
    precision = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 0.0}[made]
    exact = gain(CLASSES[cls], 16 if cls is RandomWalkTanh else 7)
    exact *= np.random.default_rng(5).standard_normal((7, 6)) / np.sqrt(7.0)
    # One ulp of float64 for the order of the multiplications; half precision goes through float32.
    np.testing.assert_allclose(to_numpy(kernel), exact, rtol=1.01 * precision + 1e-15, atol=1e-7)
    assert keras.backend.standardize_dtype(cls(seed=5)((7, 6)).dtype) == keras.config.floatx()


@backends
@every_class
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_kernels_are_floats(cls: Any, dtype: str) -> None:
    with pytest.raises(ValueError, match=f"Kernels have a float dtype. Received: dtype='{dtype}'"):
        cls()((4, 4), dtype=dtype)
    with pytest.raises(ValueError, match="Kernels have a float dtype. Received: dtype={1}"):
        cls()((4, 4), dtype={1})


@every_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"distribution": "cauchy"},
            "`distribution` must be one of normal, .*looks_linear. Received: 'cauchy'",
        ),
        ({"distribution": None}, "`distribution` must be one of .*Received: None"),
        *(
            ({"depth": depth}, "`depth` must be an integer of at least 1")
            for depth in (0, -1, 1.5, True, "9")
        ),
        *(
            ({"gain": value}, f"`gain` must be a finite number above 0. Received: gain={value!r}")
            for value in (0, 0.0, -1, float("nan"), float("inf"), True, "1")
        ),
        *(
            ({"seed": seed}, "`seed` must be an integer, a `keras.random.SeedGenerator` or None. Received")
            for seed in ("a", True, 1.5)
        ),
        *(({"fan_in": fan_in}, "`fan_in` must be an integer of at least 1") for fan_in in (0, -4, 2.5, True)),
    ],
)
def test_bad_arguments(cls: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@backends
@every_class
@pytest.mark.parametrize("shape", [(), (3,), 3, None])
def test_a_kernel_has_two_axes(cls: Any, shape: Any) -> None:
    with pytest.raises(
        ValueError, match="A kernel has at least two axes.*biases with 'zeros'. Received: shape="
    ):
        cls()(shape)


@every_class
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3, -1), (3.0, 2), (None, 2)])
def test_every_axis_has_a_positive_length(cls: Any, shape: Any) -> None:
    with pytest.raises(ValueError, match="`shape` must .*at least 1. Received: shape="):
        cls()(shape)


@pytest.mark.parametrize("activation", ["sotfmax", "", 3, object(), ["relu"]])
def test_an_unknown_activation(activation: Any) -> None:
    with pytest.raises(ValueError, match="`activation` must be the name of an element-wise activation"):
        RandomWalk(activation)


@pytest.mark.parametrize("activation", ["softmax", keras.activations.softmax, keras.activations.log_softmax])
def test_an_activation_across_units_has_no_gain(activation: Any) -> None:
    with pytest.raises(ValueError, match="must act element by element.*linear gain there"):
        RandomWalk(activation)


@backends
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (keras.activations.relu, "relu"),
        (keras.activations.tanh, "tanh"),
        (None, "linear"),
        (keras.layers.LeakyReLU(0.1), "leaky_relu(0.1)"),
        (keras.layers.ELU(2.0), "elu(2.0)"),
        (keras.layers.Activation("selu"), "selu"),
        (ACTIVATIONS["tanh"], "tanh"),
        ("leaky_relu(0.1)", "leaky_relu(0.1)"),
    ],
)
def test_forms_of_an_activation_of_the_table(activation: Any, name: str) -> None:
    assert RandomWalk(activation, depth=20)._compute_gain(100) == gain(name, 100, 20)


@backends
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (lambda a: np.tanh(a), "tanh"),
        (lambda a: keras.ops.tanh(a), "tanh"),
        (lambda a: keras.ops.maximum(a, 0.25 * a), "leaky_relu(0.25)"),
        (Activation("mine", lambda a: np.where(a > 0, a, np.expm1(a))), "elu"),
        (keras.layers.ReLU(negative_slope=0.1), "leaky_relu(0.1)"),
    ],
    ids=["numpy", "keras.ops", "kinked", "theory", "layer"],
)
def test_forms_of_an_activation_outside_the_table(activation: Any, name: str) -> None:
    """Numerical derivatives and, for two slopes, the expansion in 1 / width in place of the exact gain."""
    initializer = RandomWalk(activation, depth=20)
    assert initializer._compute_gain(100) == pytest.approx(gain(name, 100, 20), rel=1e-3)
    assert draw(initializer).shape == (6, 5)


@backends
@pytest.mark.parametrize("wrapped", [False, True], ids=["function", "layer"])
def test_a_layer_that_is_built_draws_as_a_call_does(wrapped: bool) -> None:
    """Keras draws the variables of a layer where TensorFlow's tapes do not record."""

    def own(a: Any) -> Any:  # made anew, since gains are kept by function
        return keras.ops.arctan(a) + 0.1 * a

    activation = keras.layers.Activation(own) if wrapped else own
    layer = keras.layers.Dense(
        30, activation, kernel_initializer=RandomWalk(activation, depth=20, distribution="orthogonal", seed=1)
    )
    layer.build((None, 100))
    expected = gain(lambda a: np.arctan(a) + 0.1 * a, 100, 20, distribution="orthogonal")
    lengths = np.linalg.norm(to_numpy(layer.kernel), axis=0)
    np.testing.assert_allclose(lengths, expected, rtol=1e-3)


@backends
def test_placeholders_do_not_advance_the_random_numbers() -> None:
    kernels = []
    for build_first in (True, False):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8, "tanh", kernel_initializer=RandomWalk("tanh")) for _ in range(2)]
        model = keras.Sequential(layers)
        if build_first:
            model.build((None, 8))
        model.compile("sgd", "mse")
        model.fit(np.zeros((4, 8)), np.zeros((4, 8)), verbose=0)
        kernels.append([to_numpy(layer.kernel) for layer in layers])
    np.testing.assert_array_equal(kernels[0], kernels[1])


@backends
def test_a_model_that_is_built_by_its_first_step_draws_its_kernels() -> None:
    """Their variables wait for their values while Keras builds the model without computing."""

    def own(a: Any) -> Any:
        return keras.ops.arctan(a) + 0.1 * a

    layers = [keras.layers.Dense(8, own, kernel_initializer=RandomWalk(own, seed=seed)) for seed in (1, 2)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    model.fit(np.zeros((4, 8)), np.zeros((4, 8)), verbose=0)
    for layer, seed in zip(layers, (1, 2), strict=True):
        expected = to_numpy(RandomWalk(own, seed=seed)((8, 8)))
        np.testing.assert_allclose(to_numpy(layer.kernel), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "depth", [100, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (None, 1000))]
)
def test_an_activation_without_a_gain_says_what_to_use_instead(depth: int | None) -> None:
    with pytest.raises(NoGainError, match="gelu .*Use relu or leaky_relu.*looks_linear"):
        RandomWalk("gelu", depth=depth)((100, 100))
    assert draw(RandomWalk("gelu", depth=depth, gain=1.4)).shape == (6, 5)


LOOKS_LINEAR = {"activation": "relu", "distribution": "looks_linear"}


def test_a_shaped_activation_needs_the_depth_and_keeps_its_parameters() -> None:
    shaped = RandomWalk("shaped(relu)", depth=200, seed=1)
    assert shaped.get_config()["activation"] == "leaky_relu(0.6796)"
    np.testing.assert_array_equal(
        draw(RandomWalk.from_config(shaped.get_config())), draw(RandomWalk("shaped(relu)", depth=200, seed=1))
    )
    for arguments in ({}, {"gain": 1.0}):
        with pytest.raises(ValueError, match=r"'shaped\(relu\)' is shaped for a depth.* Pass `depth`"):
            RandomWalk("shaped(relu)", **arguments)


@backends
def test_layers_of_mirrored_kernels_are_linear() -> None:
    """First, hidden and last kernel, of odd widths too: the network is linear and keeps the data's size."""
    layers = [
        keras.layers.Dense(
            21, "relu", kernel_initializer=RandomWalk(**LOOKS_LINEAR, seed=1, mirrored="outputs")
        ),
        keras.layers.Dense(30, "relu", kernel_initializer=RandomWalk(**LOOKS_LINEAR, seed=2)),
        keras.layers.Dense(30, "relu", kernel_initializer=RandomWalk(**LOOKS_LINEAR, seed=3)),
        keras.layers.Dense(8, kernel_initializer=RandomWalk(**LOOKS_LINEAR, seed=4, mirrored="inputs")),
    ]
    x, y = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")

    def outputs(values: Array) -> Array:
        for layer in layers:
            values = layer(values)
        return to_numpy(values)

    np.testing.assert_allclose(outputs(x) + outputs(y), outputs(x + y), atol=1e-5)
    assert 0.5 < np.linalg.norm(outputs(x)) / np.linalg.norm(x) < 2.0


@backends
@pytest.mark.parametrize("side", ["both", "inputs", "outputs"])
def test_mirrored_side_survives_the_config(side: str) -> None:
    initializer = RandomWalk("gelu", "looks_linear", seed=3, mirrored=side)
    copy = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    np.testing.assert_array_equal(draw(copy, (8, 6)), draw(initializer, (8, 6)))
    old = initializer.get_config()
    del old["mirrored"]  # as files of earlier versions have it
    assert RandomWalk.from_config(old).mirrored == "both"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"activation": "tanh", "distribution": "looks_linear"},
            "c a .* 'orthogonal' for all .*Received: tanh",
        ),
        (
            {**LOOKS_LINEAR, "mirrored": "rows"},
            "`mirrored` must be one of both, inputs, outputs. Received: 'rows'",
        ),
        ({"mirrored": "inputs"}, "mirrored='inputs' with distribution='normal'"),
    ],
)
def test_bad_mirrored_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomWalk(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 3, 1, 4), "a width of at least 2. Received: 1"),
        ((1, 4), "a width of at least 2. Received: 1"),
        ((4, 1), "at least two of them"),
    ],
)
def test_shapes_without_pairs(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomWalk(**LOOKS_LINEAR)(shape)


@backends
@pytest.mark.parametrize("cls", list(CLASSES), ids=lambda cls: cls.__name__)
def test_class_names_are_ids(cls: Any) -> None:
    assert type(keras.initializers.get(cls.__name__)) is cls


@backends
def test_an_id_warns_once_of_an_activation_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_rwinit.initializers._warned_of", set())

    def build(activation: Any, initializer: Any = "random_walk") -> None:
        keras.layers.Dense(20, activation, kernel_initializer=initializer).build((None, 20))

    with pytest.warns(UserWarning, match=r"activation gelu.*gain of relu.*RandomWalk\('gelu', depth=...\)"):
        build("gelu")
    build("gelu")
    for quiet in ("relu", None, "softmax"):
        build(quiet)
    build("tanh", "random_walk_tanh")
    build("tanh", RandomWalk(gain=1.0))


@backends
@pytest.mark.parametrize("value", [1e39, 1e300, 1e-300])
def test_a_gain_that_the_dtype_does_not_hold(value: float) -> None:
    with pytest.raises(ValueError, match="`gain` must leave the weights in the range of float32, from"):
        RandomWalk(gain=value)((4, 4))
    if BACKEND != "jax":
        assert np.abs(draw(RandomWalk(gain=1e39, seed=0), dtype="float64")).max() > 1e38
    with pytest.raises(ValueError, match="range of float16"):
        RandomWalk(gain=1e5)((4, 4), dtype="float16")
