"""`initialize` with kernels that are mirrored, or that are drawn at their center."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, to_numpy

from keras_rwinit import data, gain, gradient_walk, initialize
from keras_rwinit.initialization import InitializationReport
from keras_rwinit.layers import DenseStack

L = keras.layers
backends = pytest.mark.backends
exhaustive = [pytest.mark.slow, pytest.mark.exhaustive]
Layers = list[Any]
SHAPE = (4, 4, 3)


def sequential(layers: Layers, shape: tuple[int, ...] = SHAPE) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(5)])


def convolution(channels: int = 8, activation: str | None = "relu", **options: Any) -> Any:
    return L.Conv2D(channels, 3, padding="same", activation=activation, **options)


def draw(model: keras.Model, distribution: str = "looks_linear", **options: Any) -> InitializationReport:
    return initialize(model, distribution=distribution, seed=0, **options)


def examples(model: keras.Model, count: int = 2) -> Array:
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype("float32")


def nonlinearity(model: keras.Model) -> float:
    """How far the outputs of a sum of two inputs are from the sum of their outputs, over their size."""
    x, y = examples(model)
    of_x, of_y, of_sum, of_nothing = to_numpy(model(np.stack([x, y, x + y, 0 * x])))
    return float(np.abs(of_x + of_y - of_sum - of_nothing).max() / np.abs(of_x).max())


def reasons(report: InitializationReport) -> list[str]:
    return [kernel.why for kernel in report.kernels]


# Hidden layers that are linear at first, all kernels mirrored.
CHAINS: dict[str, Callable[[], Layers]] = {
    "Dense": lambda: [L.Flatten(), L.Dense(12, "relu"), L.Dense(12, "relu")],
    "odd": lambda: [L.Flatten(), L.Dense(15, "leaky_relu"), L.Dense(9, "gelu"), L.Dense(11, "silu")],
    "stack": lambda: [L.Flatten(), L.Dense(8, "relu"), DenseStack(3, "relu")],
    "sequences": lambda: [L.Reshape((12, 4)), L.Dense(8, "relu"), L.Dense(7, "relu")],
    "flattened": lambda: [convolution(), convolution(7), L.Flatten()],
    "reshaped": lambda: [convolution(), convolution(), L.Reshape((-1,)), L.Dense(6, "relu")],
    "time steps": lambda: [convolution(), L.Reshape((16, 8)), L.Conv1D(6, 3, activation="relu"), L.Flatten()],
    "pooled": lambda: [convolution(), L.AveragePooling2D(2), convolution(9), L.GlobalAveragePooling2D()],
    "groups": lambda: [convolution(), convolution(12, groups=2), convolution(12, groups=4), L.Flatten()],
    "resized": lambda: [
        convolution(strides=2),
        L.UpSampling2D(),
        L.ZeroPadding2D(),
        convolution(),
        L.Flatten(),
    ],
    "dropout": lambda: [convolution(), L.Dropout(0.2), convolution(), L.SpatialDropout2D(0.2), L.Flatten()],
    "normalized": lambda: [
        *(convolution(activation=None), L.BatchNormalization(), L.ReLU()),
        *(convolution(activation=None), L.LeakyReLU(0.2), L.Rescaling(2.0)),
        L.Flatten(),
    ],
}


@backends
@pytest.mark.parametrize("case", CHAINS)
def test_the_network_is_linear_at_first(case: str) -> None:
    """Twin: with `delta_orthogonal` kernels it is not."""
    model = sequential(CHAINS[case]())
    why = reasons(draw(model))
    assert "; mirrored outputs" in why[0]
    assert all("; mirrored inputs and outputs" in reason for reason in why[1:-1])
    assert why[-1].endswith("; mirrored inputs")
    assert nonlinearity(model) < 1e-5
    assert 0.1 < np.abs(to_numpy(model(examples(model)))).mean() < 10.0
    draw(model, "delta_orthogonal")
    assert nonlinearity(model) > 0.01


@pytest.mark.parametrize("depth", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_the_walk_is_flat_and_correlations_are_kept(depth: int) -> None:
    """To float32's rounding, for every example and every pair of them, with an odd number of channels."""
    channels = 9
    model = sequential([convolution(channels) for _ in range(depth)] + [L.Flatten()])
    draw(model)
    x = examples(model, 3)
    walk = gradient_walk(model, x)
    assert np.ptp(walk.backward, axis=1).max() < 1e-5
    ends = keras.Model(model.inputs[0], [model.layers[index].output for index in (0, depth - 1)])
    first, last = (to_numpy(h).astype(np.float64).reshape(3, -1, channels) for h in ends(x))
    half = channels // 2
    # relu(z) - relu(-z) = z, at every position
    z, kept = (h[..., :half] - h[..., half : 2 * half] for h in (first, last))
    np.testing.assert_allclose(
        np.einsum("ipc,jpc->pij", kept, kept), np.einsum("ipc,jpc->pij", z, z), rtol=1e-5, atol=1e-5
    )


def test_images_with_the_channels_first_have_the_same_kernels() -> None:
    """TensorFlow does not run them on a CPU."""
    kernels = []
    for data_format, shape in (("channels_last", (4, 5, 3)), ("channels_first", (3, 4, 5))):
        options = {"data_format": data_format}
        model = sequential(
            [
                *(convolution(**options), L.AveragePooling2D((2, 1), **options), convolution(7, **options)),
                L.Flatten(**options),
            ],
            shape,
        )
        assert reasons(draw(model))[-1].endswith("; mirrored inputs")
        kernels.append([to_numpy(kernel) for kernel in model.trainable_weights if kernel.name == "kernel"])
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_flattening_images_with_the_channels_first_as_they_lie() -> None:
    """The rows of a kernel behind a Flatten of another data format, against the order of a transposition."""
    model = sequential([convolution(data_format="channels_first"), L.Flatten()], (3, 4, 5))
    draw(model)
    rows = to_numpy(model.layers[-1].kernel).reshape(8, 20, 5)
    np.testing.assert_array_equal(rows[:4], -rows[4:])
    other = sequential([convolution(), L.Flatten()], (4, 5, 3))
    draw(other)
    np.testing.assert_array_equal(rows, to_numpy(other.layers[-1].kernel).reshape(20, 8, 5).swapaxes(0, 1))


def residual() -> keras.Model:
    """A sum of a shortcut and a branch of two convolutions, twice, and a classifier."""
    inputs = keras.Input(SHAPE)
    x = convolution(activation=None)(inputs)
    for _ in range(2):
        x = L.Add()([x, convolution(activation=None)(convolution()(x))])
    return keras.Model(inputs, L.Dense(5)(L.Flatten()(x)))


def test_a_sum_begins_a_chain() -> None:
    """The branches are linear: with them the whole network is."""
    model = residual()
    why = reasons(draw(model))
    assert ["mirrored" in reason for reason in why] == [False, True, True, True, True, False]
    assert all("; mirrored outputs" in reason for reason in why[1:5:2])
    assert all("; mirrored inputs" in reason and "branch of one of 2 sums" in reason for reason in why[2:5:2])
    assert nonlinearity(model) < 1e-5


def two_readers() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = convolution()(convolution()(inputs))
    one = L.Flatten()(convolution()(x))
    two = L.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, L.Dense(5)(L.Concatenate()([one, L.Dense(4, "relu")(two)])))


def shared() -> keras.Model:
    inputs = keras.Input((8,))
    layer = L.Dense(8, "relu", name="twice")
    return keras.Model(inputs, L.Dense(5)(L.Dense(8, "relu")(layer(layer(inputs)))))


# Models in which one kernel is not mirrored, its number, and why it is not.
BREAKS: dict[str, tuple[Callable[[], keras.Model], int, str]] = {
    "maximum pooling": (
        lambda: sequential([convolution(), convolution(), L.MaxPooling2D(name="pool"), L.Flatten()]),
        2,
        "; not mirrored: 'pool' does not keep pairs",
    ),
    "another activation": (
        lambda: sequential([convolution(), convolution(activation="tanh"), L.Flatten()]),
        2,
        r"; not mirrored: tanh has no f\(a\) - f\(-a\) = c a",
    ),
    "normalization": (
        lambda: sequential([convolution(), convolution(), L.BatchNormalization(name="norm"), L.Flatten()]),
        2,
        "; not mirrored: 'norm' follows the activation",
    ),
    "softmax": (
        lambda: sequential([convolution(), convolution(), L.Activation("softmax", name="soft"), L.Flatten()]),
        2,
        "; not mirrored: 'soft' does not keep pairs",
    ),
    "depthwise": (
        lambda: sequential(
            [convolution(), convolution(), L.DepthwiseConv2D(3, activation="relu"), L.Flatten()]
        ),
        2,
        "not mirrored: .* is no matrix; orthogonal: a depthwise kernel keeps the channels apart",
    ),
    "groups": (
        lambda: sequential([convolution(6), convolution(6, groups=2), convolution(6, groups=3), L.Flatten()]),
        2,
        "; mirrored outputs; inputs not mirrored: groups of 6 channels leave no pairs",
    ),
    "one unit": (
        lambda: sequential([L.Flatten(), L.Dense(4, "relu"), L.Dense(1, "leaky_relu")]),
        2,
        "not mirrored: a single unit leaves no pairs",
    ),
    "applied twice": (
        lambda: sequential([L.Flatten(), L.Dense(4, "relu"), *[L.Dense(4, "relu")] * 2, L.Dense(4, "relu")]),
        2,
        "mirrored outputs; inputs not mirrored: the kernel of .* applied several times",
    ),
    "another reader": (two_readers, 2, "; not mirrored: the output of .* is not only activated"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_the_report_says_why_a_kernel_is_not_mirrored(case: str) -> None:
    make, number, message = BREAKS[case]
    model = make()
    found = reasons(draw(model))
    assert re.search(message, found[number]), found
    assert np.isfinite(to_numpy(model(examples(model)))).all()
    # Two examples that are positive in the only unit tell nothing.
    assert nonlinearity(model) > 1e-3 or case == "one unit"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sequential([L.Flatten(), L.Dense(8, "tanh")]),
            r"has no two that can be; .*tanh has no f\(a\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((4,)), L.Dense(3)]),
            "has no two that can be. Use 'orthogonal'",
        ),
    ],
)
def test_a_model_without_a_chain_is_refused(make: Callable[[], keras.Model], message: str) -> None:
    model = make()
    before = [to_numpy(weight) for weight in model.weights]
    with pytest.raises(ValueError, match=message):
        draw(model)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


def test_named_layers_are_mirrored_among_themselves() -> None:
    """A frozen kernel, or one that is not in `layers`, has no mirrored outputs to read."""
    model = sequential([L.Flatten(), L.Dense(8, "relu"), L.Dense(8, "relu", name="new"), L.Dense(8, "relu")])
    kept = to_numpy(model.layers[1].kernel)
    report = draw(model, layers=["new", model.layers[3], model.layers[4]])
    np.testing.assert_array_equal(to_numpy(model.layers[1].kernel), kept)
    assert [reason.split("; ")[1] for reason in reasons(report)] == [
        "mirrored outputs",
        "mirrored inputs and outputs",
        "mirrored inputs",
    ]


def test_calibration_keeps_pairs() -> None:
    model = sequential([convolution(), convolution(), L.Flatten()])
    report = draw(model, x=5.0 * examples(model, 20))
    assert report.drift == pytest.approx(0.0, abs=1e-5)
    assert nonlinearity(model) < 1e-5


def test_kernels_at_the_center_have_the_gain_of_their_channels() -> None:
    """A chain and its report; what has no center is orthogonal as a whole."""
    layers = [
        convolution(),
        convolution(16, groups=2),
        L.DepthwiseConv2D(3, activation="relu"),
        convolution(),
    ]
    model = sequential([*layers, L.Flatten()])
    report = draw(model, "delta_orthogonal")
    assert [kernel.fan_in for kernel in report.kernels] == [3.0, 4.0, 9.0, 16.0, 32.0]
    for kernel, fan_in in zip(report.kernels[1:], (4, 9, 16, 32), strict=True):
        expected = gain("relu", fan_in, distribution="orthogonal")
        assert kernel.gain == pytest.approx(expected, rel=0.05 if fan_in == 9 else 1e-12)
    assert "orthogonal: a depthwise kernel keeps the channels apart" in report.kernels[2].why
    for layer in (model.layers[0], model.layers[3]):
        kernel = to_numpy(layer.kernel)
        assert not np.delete(kernel.reshape(9, -1), 4, axis=0).any()
        short = kernel[1, 1] if kernel.shape[2] >= kernel.shape[3] else kernel[1, 1].T
        gram = short.T @ short
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-5 * gram[0, 0])


@pytest.mark.parametrize(
    ("depth", "distribution", "epochs", "low", "high"),
    [
        pytest.param(12, "looks_linear", 1, 0.0, 1.7, marks=pytest.mark.slow),
        pytest.param(100, "looks_linear", 3, 0.0, 0.6, marks=exhaustive),
        pytest.param(100, "delta_orthogonal", 3, 2.2, 2.4, marks=exhaustive),
        pytest.param(100, None, 3, 2.2, 2.4, marks=exhaustive),
    ],
)
def test_plain_relu_convolutions_learn(
    depth: int, distribution: str | None, epochs: int, low: float, high: float
) -> None:
    """Training loss of the 8 x 8 digits, with 8 channels; ln 10 is 2.303. None: He's initialization."""
    keras.utils.set_random_seed(0)
    digits = data.load("digits")
    layers = [convolution(kernel_initializer="he_normal") for _ in range(depth)]
    model = keras.Sequential([keras.Input((64,)), L.Reshape((8, 8, 1)), *layers, L.Flatten(), L.Dense(10)])
    if distribution is not None:
        draw(model, distribution)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    history = model.fit(digits.x_train[:1280], digits.y_train[:1280], 64, epochs, verbose=0)
    assert low < history.history["loss"][-1] < high
