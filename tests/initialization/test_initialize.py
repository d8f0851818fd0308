"""`initialize`: the gain of every kernel in its context, the calibration, and what it leaves alone."""

from __future__ import annotations

import inspect
import json
import math
import sys
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import initialize_normal as initialize
from keras_helpers import slow_on_jax, to_numpy
from numpy.typing import NDArray

from keras_rwinit import gain, gradient_walk, model_zoo
from keras_rwinit.layers import DeepSequential, DenseStack

backends = pytest.mark.backends

Array = NDArray[Any]
L = keras.layers


def data(*shape: int, examples: int = 16) -> Array:
    return np.random.default_rng(0).normal(size=(examples, *shape)).astype("float32")


def chain(*layers: Any, shape: tuple[int, ...] = (64,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers])


def assert_moments(kernel: Any, expected_gain: float, fan_in: float) -> None:
    """Mean and mean square within four standard errors of a normal kernel's with that gain."""
    values = to_numpy(kernel).ravel().astype(float) * math.sqrt(fan_in)
    n = len(values)
    assert abs(values.mean()) < 4.0 * expected_gain / math.sqrt(n)
    assert abs((values**2).mean() / expected_gain**2 - 1.0) < 4.0 * math.sqrt(2.0 / n)


@backends
def test_each_kernel_has_the_gain_of_what_feeds_it() -> None:
    """Whether the activation is the layer's own, a layer, an operation, or behind what passes it on."""
    inputs = keras.Input((64,))
    h = L.Dense(100, "relu")(inputs)
    h = L.Dense(200)(L.Permute((1,))(h))
    h = L.LeakyReLU(0.2)(h)
    h = L.Dense(150)(h)
    h = keras.ops.relu(h)
    h = L.Reshape((10, 15))(h)
    h = L.Flatten()(h)
    model = keras.Model(inputs, L.Dense(100)(L.Dense(300)(h)))
    report = initialize(model, seed=0)
    expected = [
        gain("linear", 64),
        gain("relu", 100),
        gain("leaky_relu(0.2)", 200),
        gain("relu", 150),
        gain("linear", 300),
    ]
    assert [kernel.gain for kernel in report.kernels] == pytest.approx(expected, rel=1e-12)
    assert [kernel.fan_in for kernel in report.kernels] == [64, 100, 200, 150, 300]
    for layer, row in zip([x for x in model.layers if isinstance(x, L.Dense)], report.kernels, strict=True):
        assert_moments(layer.kernel, row.gain, row.fan_in)
    with pytest.raises(AssertionError):
        assert_moments(model.layers[1].kernel, 1.1 * report.kernels[0].gain, 64)


def test_smooth_activations_have_the_gain_of_the_depth() -> None:
    model = chain(*(L.Dense(64, "tanh") for _ in range(30)), L.Dense(5))
    report = initialize(model, seed=0)
    assert {round(kernel.gain, 9) for kernel in report.kernels[1:]} == {round(gain("tanh", 64, 30), 9)}
    orthogonal = initialize(model, distribution="orthogonal", seed=0)
    assert orthogonal.kernels[5].gain == pytest.approx(gain("tanh", 64, 30, distribution="orthogonal"))


def test_activations_without_a_gain_for_the_depth_get_that_of_one_step() -> None:
    """`g^2 E f'(x)^2 = 1` but for the correction of order 1 / N."""
    model = chain(*(L.Dense(400, "gelu") for _ in range(12)), L.Dense(5), shape=(400,))
    kernel = initialize(model, seed=0).kernels[7]
    x = np.linspace(-9, 9, 20_001)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    cdf = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    slope2 = float(np.sum((cdf + x * density) ** 2 * density) * (x[1] - x[0]))
    assert kernel.gain == pytest.approx(slope2**-0.5, rel=5 / 400)
    assert "no gain for 12 layers" in kernel.why
    normalized = chain(L.Dense(400), L.BatchNormalization(), L.Activation("gelu"), L.Dense(5), shape=(400,))
    assert initialize(normalized, seed=0).kernels[1].gain == pytest.approx(kernel.gain)


CASES: dict[str, tuple[Any, tuple[int, ...], float]] = {
    "Conv1D": (lambda: L.Conv1D(60, 5), (20, 30), 150),
    "Conv2D": (lambda: L.Conv2D(30, 3), (9, 9, 20), 180),
    "grouped": (lambda: L.Conv2D(40, 3, groups=2), (9, 9, 20), 90),
    "Conv3D": (lambda: L.Conv3D(20, 2), (5, 5, 5, 10), 80),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(5, depth_multiplier=3), (9, 9, 40), 25),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(30, 4, strides=2), (9, 9, 20), 4 * 20),
    "EinsumDense": (lambda: L.EinsumDense("abc,cde->abde", (9, 10, 20)), (9, 60), 60),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(50)), (9, 60), 60),
}


@pytest.mark.parametrize("case", CASES)
def test_fan_in_of_every_kind_of_layer(case: str) -> None:
    make, shape, fan_in = CASES[case]
    layer = make()
    model = chain(L.ReLU(), layer, shape=shape)
    (row,) = initialize(model, seed=0).kernels
    assert row.fan_in == fan_in
    assert row.gain == pytest.approx(gain("relu", fan_in))
    assert_moments(layer.weights[0], row.gain, fan_in)


def test_strided_transposed_convolutions_keep_the_activations_variance() -> None:
    """Inputs of unit variance, away from the edges; with every tap counted it would be a quarter."""
    layer = L.Conv2DTranspose(64, 4, strides=2)
    model = chain(layer, shape=(20, 20, 32))
    initialize(model, seed=0)
    a = to_numpy(model(data(20, 20, 32)))[:, 6:-6, 6:-6]
    # 64 channels of kernels of 128 weights: the variance of a channel has a spread of sqrt(2 / 128).
    assert (a**2).mean() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 128 / 64) + 0.01)


def test_separable_convolutions_have_two_kernels() -> None:
    model = chain(L.SeparableConv2D(30, 3), L.ReLU(), L.Flatten(), L.Dense(3), shape=(6, 6, 50))
    depthwise, pointwise, dense = initialize(model, seed=0).kernels
    assert (depthwise.fan_in, pointwise.fan_in, dense.fan_in) == (9, 50, 480)
    assert pointwise.gain == pytest.approx(gain("linear", 50))
    assert dense.gain == pytest.approx(gain("relu", 480))


def test_zero_padding_is_made_up_for() -> None:
    """Two steps between three layers: what two means over a window of three leave of an even spread."""
    model = chain(*(L.Conv2D(8, 3, padding="same") for _ in range(3)), shape=(8, 5, 8))
    share = 1.0
    for size in (8, 5):
        spread = np.ones(size)
        for _ in range(2):
            spread = np.convolve(spread, np.ones(3) / 3, "same")
        share *= math.sqrt(spread.sum() / size)
    for kernel in initialize(model, seed=0).kernels:
        # The other factor is that of the window's walk, exp(1 / (2 N)) for N of some 60 to 200.
        assert 1.002 < kernel.gain * math.sqrt(share) < 1.01
        assert kernel.why.endswith("zero padding")
    for layer in (L.Conv2D(8, 3), L.Conv2D(8, 3, strides=2, padding="same"), L.Conv2D(8, 1, padding="same")):
        (kernel,) = initialize(chain(layer, shape=(8, 5, 8)), seed=0).kernels
        assert kernel.gain == pytest.approx(gain("linear", int(kernel.fan_in)))


def residual(blocks: int, units: int = 64, normalized: bool = False) -> keras.Model:
    inputs = keras.Input((units,))
    h = L.Dense(units)(inputs)
    for _ in range(blocks):
        branch = L.Dense(units)(L.Dense(units, "relu")(h))
        h = L.Add()([h, L.LayerNormalization()(branch) if normalized else branch])
    return keras.Model(inputs, L.Dense(10)(h))


@backends
@slow_on_jax
def test_branches_share_the_variance_of_their_sums() -> None:
    report = initialize(residual(5), seed=0)
    linear, relu = gain("linear", 64), gain("relu", 64)
    expected = [linear, *[linear, relu / math.sqrt(5)] * 5, linear]
    assert [kernel.gain for kernel in report.kernels] == pytest.approx(expected)
    # Behind a normalization a scale would be undone.
    normalized = initialize(residual(5, normalized=True), seed=0)
    assert [kernel.gain for kernel in normalized.kernels[2:-1:2]] == pytest.approx([relu] * 5)


@pytest.mark.slow
def test_the_sum_keeps_its_variance_over_depth() -> None:
    """(1 + 1 / 50)^50 times the variance after fifty blocks, and not 2^50 times."""
    model = residual(50, units=200)
    initialize(model, seed=0)
    tower = keras.Model(model.input, model.layers[-2].output)
    growth = (to_numpy(tower(data(200))) ** 2).mean() / (to_numpy(model.layers[1](data(200))) ** 2).mean()
    # Every block's share of the variance fluctuates with its width and the kernels by some 15 %.
    assert np.log(growth) == pytest.approx(50 * np.log(1.02), abs=4 * 0.15 / math.sqrt(50) + 0.05)


def test_sums_of_equal_branches_share_alike() -> None:
    inputs = keras.Input((64,))
    h = L.Dense(64, "relu")(inputs)
    # A mean has a third of the sum besides.
    for merge, expected in ((L.Add(), 1.0 / math.sqrt(3)), (L.Average(), math.sqrt(3))):
        model = keras.Model(inputs, L.Dense(3)(merge([L.Dense(64)(h) for _ in range(3)])))
        kernels = initialize(model, seed=0).kernels
        assert [kernel.gain for kernel in kernels[1:4]] == pytest.approx([expected * gain("relu", 64)] * 3)
        assert kernels[4].gain == pytest.approx(gain("linear", 64))


def two_terms(merge: Any, activation: str | None, beside: bool, blocks: int = 20) -> keras.Model:
    h = inputs = keras.Input((32,))
    for _ in range(blocks):
        first = h if beside else L.Dense(32, activation)(h)
        h = merge([first, L.Dense(32, activation)(h)])
    return keras.Model(inputs, L.Dense(3)(h))


@pytest.mark.parametrize(
    ("merge", "activation", "beside", "expected"),
    [
        # A half of the shortcut has a quarter of its variance, and a half of the branch the rest.
        (lambda terms: L.Average()(terms), None, True, math.sqrt(3.0)),
        (lambda terms: 0.5 * terms[0] + 0.5 * terms[1], None, True, math.sqrt(3.0)),
        # Slopes of mean square 1 / 2, and a common mean of 1 / pi of the square
        (lambda terms: L.Add()(terms), "relu", False, (1.0 + 1.0 / math.pi) ** -0.25),
    ],
    ids=["a mean", "a sum of halves", "activated terms"],
)
def test_constants_and_activations_of_terms_are_made_up_for(
    merge: Any, activation: str | None, beside: bool, expected: float
) -> None:
    rows = initialize(two_terms(merge, activation, beside, 3), seed=0).kernels
    assert rows[2].gain == pytest.approx(gain("linear", 32) * expected, rel=2e-3)


@pytest.mark.parametrize("steepness", [1.0, 10.0])
def test_the_first_kernel_has_the_gain_that_a_smooth_activation_counts_on(steepness: float) -> None:
    """That of tanh(10 a) is a tenth; fed at the linear gain it would saturate in every layer."""
    activation = lambda a: keras.ops.tanh(steepness * a)  # noqa: E731
    first, second, *_ = initialize(
        chain(*(L.Dense(64, activation) for _ in range(8)), L.Dense(3)), seed=0
    ).kernels
    assert first.gain == second.gain == pytest.approx(gain("tanh", 64, 8) / steepness, rel=1e-4)
    # With two slopes any scale will do, and behind a normalization none.
    for model in (
        chain(L.Dense(64, "relu"), L.Dense(3)),
        chain(L.Dense(64), L.LayerNormalization(), L.Dense(3)),
    ):
        assert initialize(model, seed=0).kernels[0].gain == pytest.approx(gain("linear", 64))


class Block(L.Layer):
    """A layer of somebody's own, with a sum and an operation for an activation."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(units), L.Dense(units)

    def call(self, x: Any) -> Any:
        return x + self.second(keras.ops.relu(self.first(x)))


class Opaque(Block):
    """One that cannot be called with symbolic tensors."""

    def call(self, x: Any) -> Any:
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return super().call(x)


class Subclassed(keras.Model):
    def __init__(self, block: type[Block]) -> None:
        super().__init__()
        self.blocks = [block(32, name=f"block_{index}") for index in range(4)]
        self.top = L.Dense(3)

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.top(x)


@backends
def test_subclassed_models_are_followed_into_their_layers() -> None:
    model = Subclassed(Block)
    model(data(32))
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    report = initialize(model, seed=0)
    expected = [*[gain("linear", 32), gain("relu", 32) / 2.0] * 4, gain("linear", 32)]
    assert not any("guess" in kernel.why for kernel in report.kernels)
    assert [kernel.gain for kernel in report.kernels] == pytest.approx(expected)
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes


def test_what_symbols_cannot_follow_is_followed_by_a_run_on_arrays() -> None:
    opaque, plain = Subclassed(Opaque), Subclassed(Block)
    for model in (opaque, plain):
        model(data(32))
    found, expected = (initialize(model, seed=0).kernels for model in (opaque, plain))
    assert [(kernel.gain, kernel.why) for kernel in found] == [
        (kernel.gain, kernel.why) for kernel in expected
    ]


def test_shared_layers_are_drawn_once() -> None:
    inputs, shared = keras.Input((32,)), L.Dense(32, "relu")
    model = keras.Model(inputs, L.Dense(3)(shared(shared(inputs))))
    assert len(initialize(model, seed=0).kernels) == 2


def test_the_report_lists_skipped_weights() -> None:
    tokens = keras.Input((5,), dtype="int32")
    h = L.Embedding(11, 6, name="table")(tokens)
    h = L.LSTM(7, name="memory")(h)
    frozen = L.Dense(8, "relu", name="frozen", trainable=False)
    model = keras.Model(tokens, L.Dense(3, name="top")(frozen(h)))
    before = {v.path: to_numpy(v).copy() for v in model.weights}
    report = initialize(model, seed=0)
    assert [kernel.path.split("/")[-2] for kernel in report.kernels] == ["top"]
    reasons = {path.split("/")[0]: why for path, why in report.skipped}
    assert "table, not a kernel" in reasons["table"]
    assert "recurrent" in reasons["memory"]
    assert reasons["frozen"] == "not trainable"
    for variable in model.weights:
        same = np.array_equal(before[variable.path], to_numpy(variable))
        assert same == (variable.path != report.kernels[0].path)


def test_the_report_says_what_weights_of_normalizations_are() -> None:
    layers = (L.Dense(4), L.BatchNormalization(), L.PReLU(), L.LayerNormalization(), L.Dense(2))
    report = initialize(keras.Sequential([keras.Input((3,)), *layers]), seed=0)
    reasons = {path.rsplit("/", 1)[-1]: why for path, why in report.skipped}
    for names, why in (
        (("gamma", "beta"), "a scale or offset of a normalization"),
        (("moving_mean", "moving_variance"), "a moving statistic of a normalization"),
        (("alpha",), "neither a kernel nor a bias, such as a scale, a slope or a table"),
        (("bias",), "a bias"),
    ):
        assert {reasons[name] for name in names} == {why}
    assert "4 left: a scale or offset of a normalization" in report.summary()


@backends
@slow_on_jax
def test_the_same_seed_gives_the_same_bits() -> None:
    model, x = residual(3), data(64)

    def drawn(seed: int | None, with_data: bool) -> list[Array]:
        initialize(model, x if with_data else None, seed=seed)
        return [to_numpy(v).copy() for v in model.weights]

    for with_data in (False, True):
        for one, other in zip(drawn(3, with_data), drawn(3, with_data), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(drawn(3, False)[0], drawn(4, False)[0])
    assert not np.array_equal(drawn(None, False)[0], drawn(None, False)[0])
    kernels = [to_numpy(v) for v in model.weights if v.name == "kernel" and tuple(v.shape) == (64, 64)]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "tapering": (
        lambda: chain(
            *(L.Dense(n, "relu") for n in (500, 300, 200, 150, 100, 80, 60, 40, 30, 20)),
            L.Dense(10),
            shape=(784,),
        ),
        (784,),
    ),
    "convolutional": (
        lambda: chain(
            *(L.Conv2D(8, 3, padding="same", activation="relu") for _ in range(10)),
            L.Flatten(),
            L.Dense(10),
            shape=(6, 6, 1),
        ),
        (6, 6, 1),
    ),
    "autoencoder": (
        lambda: chain(
            *(L.Dense(n, "elu") for n in (64, 64, 48, 48, 32, 16, 32, 48, 48, 64, 64)), L.Dense(64)
        ),
        (64,),
    ),
    "separable": (
        lambda: chain(
            *(L.SeparableConv2D(16, 3, padding="same", activation="relu") for _ in range(8)),
            L.Flatten(),
            L.Dense(4),
            shape=(6, 6, 4),
        ),
        (6, 6, 4),
    ),
    "stack": (lambda: model_zoo.deep_mlp(60, 32, "relu", input_shape=(64,), classes=10), (64,)),
    "residual": (lambda: residual(30), (64,)),
    "deep residual": (lambda: residual(50), (64,)),
    "deep convolutional": (
        lambda: chain(
            *(L.Conv2D(8, 3, padding="same", activation="relu") for _ in range(30)),
            L.Flatten(),
            L.Dense(10),
            shape=(6, 6, 1),
        ),
        (6, 6, 1),
    ),
}


SLOW = ("residual", "deep residual", "deep convolutional")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS],
)
def test_calibration_leaves_no_drift(name: str) -> None:
    build, shape = MODELS[name]
    model, x = build(), 3.0 * data(*shape) + 1.0
    report = initialize(model, x, seed=1)
    walk = gradient_walk(model, x)
    assert abs(walk.drift) < (0.01 if "residual" in name else 0.002)
    assert report.drift is not None
    assert abs(report.drift) < 0.002
    # The first layer sees data of mean square 10 as if it were 1, and the outputs have mean square 1.
    first = next(
        layer
        for layer in model.layers
        if getattr(layer, "kernel", None) is not None or "separable" in layer.name
    )
    if isinstance(first, L.Dense):
        a = to_numpy(keras.ops.matmul(x, first.kernel))
        # That of a smooth activation has the variance that the theory's gain counts on.
        expected = report.kernels[0].gain / report.kernels[0].correction if name == "autoencoder" else 1.0
        assert (a**2).mean() == pytest.approx(expected**2, rel=1e-3)
    assert (to_numpy(model(x)) ** 2).mean() == pytest.approx(1.0, rel=1e-2)


@backends
def test_calibration_on_every_back_end() -> None:
    model, x = model_zoo.deep_mlp(12, 32, "relu", input_shape=(64,), classes=10), 3.0 * data(64)
    model.compile("adam", "mse")
    model.fit(x, data(10), verbose=0)
    initialize(model, x, seed=1)
    assert abs(gradient_walk(model, x).drift) < 0.002
    assert int(to_numpy(model.optimizer.iterations)) == 0
    model.fit(x, data(10), verbose=0)


def test_without_calibration_there_is_a_drift_to_remove() -> None:
    """The twin of the test above: one network of 60 layers of width 32 has a spread of 1.5 nats."""
    build, shape = MODELS["stack"]
    model = build()
    initialize(model, seed=1)
    assert abs(gradient_walk(model, data(*shape)).drift) > 0.002
    report = initialize(model, data(*shape), seed=1)
    assert report.drift_before is not None
    assert abs(report.drift_before) > 0.002


@pytest.mark.parametrize(
    "optimizer",
    ["adam", "sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adagrad", "nadam"))],
)
def test_the_optimizer_is_reset(optimizer: str) -> None:
    model = chain(L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(2))
    model.compile(keras.optimizers.get(optimizer), "mse", run_eagerly=True)
    model.optimizer.learning_rate = 0.0123
    untouched = [to_numpy(v).copy() for v in _built(model).variables]
    model.fit(data(64), data(2), epochs=2, verbose=0)
    others = {v.path: to_numpy(v).copy() for v in model.weights if v.name != "kernel"}
    initialize(model, seed=0)
    for fresh, variable in zip(untouched, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(fresh, to_numpy(variable))
    assert float(to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.0123)
    for variable in model.weights:
        if variable.name != "kernel":
            np.testing.assert_array_equal(others[variable.path], to_numpy(variable))
    model.fit(data(64), data(2), verbose=0)


def _built(model: keras.Model) -> keras.optimizers.Optimizer:
    model.optimizer.build(model.trainable_variables)
    return model.optimizer


@pytest.mark.parametrize(
    "depths", [(20, 80), pytest.param((300, 1200), marks=[pytest.mark.slow, pytest.mark.exhaustive])]
)
def test_time_is_linear_in_the_number_of_layers(depths: tuple[int, int]) -> None:
    """Counted, not timed: every layer is looked at a fixed number of times, and nothing recurses."""
    counts = [_count_calls(depth) for depth in depths]
    assert counts[1] < 4.2 * counts[0]


def _count_calls(depth: int) -> int:
    """Number of calls of the package's functions in `initialize`, with no room for a call a layer."""
    model = DeepSequential([*(L.Dense(4, "relu") for _ in range(depth)), L.Dense(2)], (4,))
    limit, calls = sys.getrecursionlimit(), 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call" and "keras_rwinit" in frame.f_code.co_filename

    sys.setrecursionlimit(min(len(inspect.stack(0)) + 200, limit))
    sys.setprofile(count)
    try:
        report = initialize(model, seed=0)
    finally:
        sys.setprofile(None)
        sys.setrecursionlimit(limit)
    assert len(report.kernels) == depth + 1
    return calls


def test_a_stack_is_drawn_layer_by_layer() -> None:
    stack = DenseStack(5, "tanh", kernel_initializer="he_normal")
    model = chain(stack, L.Dense(2), shape=(40,))
    report = initialize(model, seed=0)
    rows = [(row.path.split("/")[-1], row.shape, row.count) for row in report.kernels]
    assert rows == [("kernel[0]", (40, 40), 1), ("kernel[1:5]", (4, 40, 40), 4), ("kernel", (40, 2), 1)]
    for index, kernel in enumerate(to_numpy(stack.kernel)):
        assert_moments(kernel, report.kernels[min(index, 1)].gain, 40)
    assert len({kernel.tobytes() for kernel in to_numpy(stack.kernel)}) == 5


@backends
@slow_on_jax
def test_low_precision_kernels() -> None:
    model = chain(L.Dense(50, "relu", dtype="bfloat16"), L.Dense(2, dtype="mixed_float16"))
    report = initialize(model, data(64), seed=0)
    assert all(np.isfinite(to_numpy(v).astype(float)).all() for v in model.weights)
    assert report.kernels[0].correction != 1.0


def test_the_forget_gate_of_a_new_lstm_is_no_trained_bias() -> None:
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(5), L.Dense(6, "tanh"), L.Dense(2)])
    report = initialize(model, seed=0)
    assert (report.biases.total, report.biases.nonzero) == (2, 0)
    assert "set them to zero" not in report.summary()


class Sublayers(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.chain = [L.Dense(4, "relu", name=f"dense{number}") for number in range(3)]

    def call(self, x: Any) -> Any:
        for layer in self.chain:
            x = layer(x)
        return x


def built_without_sublayers() -> keras.Model:
    model = Sublayers()
    model.built = True
    return model


X = data(64)
BAD: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "unbuilt": (lambda: keras.Sequential([L.Dense(3)]), (), "no weights yet: build it"),
    "no model": (lambda: L.Dense(3), (), "must be a Keras model"),
    "sublayers": (built_without_sublayers, (), r"3 layers.*no weights yet, dense0 .*`model\(x\[:1\]\)`"),
    "no kernel": (lambda: chain(L.ReLU()), (), "no kernel to draw"),
    "empty": (lambda: residual(2), (X[:0],), "at least one example"),
    "zero": (lambda: residual(2), (X * 0.0,), "`x` must not be zero everywhere"),
    "NaN": (lambda: residual(2), (X * np.nan,), "`x` must be finite"),
    "wrong shape": (lambda: residual(2), (X[:, :5],), r"\(examples, 64\).*\(16, 5\)"),
    "distribution": (lambda: residual(2), (None, "cauchy"), "`distribution` must be one of"),
    "seed": (lambda: residual(2), (None, "normal", "x"), "`seed` must be"),
    "text": (lambda: residual(2), ("batch",), "`x` must hold real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_leave_the_model_as_it_was(case: str) -> None:
    build, arguments, message = BAD[case]
    model = build()
    before = [to_numpy(v).copy() for v in model.weights]
    with pytest.raises(ValueError, match=message):
        initialize(model, *arguments)
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_model_as_it_was(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise error

    model = residual(2)
    before = [to_numpy(v).copy() for v in model.weights]
    monkeypatch.setattr("keras_rwinit.initialization._initialize.calibrate", interrupted)
    with pytest.raises(error):
        initialize(model, X, seed=0)
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))


def test_the_report() -> None:
    model = residual(2)
    report = initialize(model, X, seed=0)
    text = report.summary()
    assert str(report) == text
    assert "6 kernels drawn, 6 other weights left as they were" in text
    assert "6 left: a bias" in text
    assert "not zero" not in text
    assert "branch of one of 2 sums" in text
    assert json.loads(json.dumps(report.to_dict()))["drift"] == report.drift


def test_functions_in_lambdas_and_models_over_time_are_followed() -> None:
    inner = keras.Sequential([keras.Input((50,)), L.Dense(50, "relu"), L.Dense(40), L.Lambda(keras.ops.tanh)])
    model = chain(L.TimeDistributed(inner), L.Dense(3), shape=(4, 50))
    report = initialize(model, data(4, 50), seed=0)
    assert [kernel.activation for kernel in report.kernels] == ["linear", "relu", "tanh"]
    assert not any("guess" in kernel.why for kernel in report.kernels)


class Rectified(L.Dense):
    """A layer whose `call` does more than its kernel."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        return keras.ops.relu(super().call(x))


class Hidden(L.Dense):
    """A layer whose `call` computes on numbers only."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return super().call(x)

    def compute_output_spec(self, x: Any, training: bool | None = None) -> Any:
        return keras.KerasTensor((*x.shape[:-1], self.units))


@pytest.mark.parametrize(("layer", "guess"), [(Rectified, False), (Hidden, True)])
def test_a_call_of_somebodys_own_is_looked_into_or_a_guess(layer: type[L.Layer], guess: bool) -> None:
    model = chain(layer(64), layer(64), L.Dense(3))
    rows = initialize(model, seed=0).kernels
    assert [("guess" in row.why) for row in rows] == [guess] * 3
    assert [row.activation for row in rows[1:]] == ["linear" if guess else "relu"] * 2
    assert gradient_walk(model, data(64)).prediction is None


def test_what_an_embedding_feeds_is_not_scaled_as_data() -> None:
    tokens = keras.Input((5,), dtype="int32")
    h = L.Dense(32, "relu")(L.Flatten()(L.Embedding(11, 6)(tokens)))
    model = keras.Model(tokens, L.Dense(3)(h))
    first = initialize(model, np.arange(20).reshape(4, 5) % 11, seed=0).kernels[0]
    # Keras's tables are uniform up to 0.05.
    assert first.why.startswith("fed by an embedding; times 0.0")
    assert first.correction == 1.0
    rms = float(np.sqrt((to_numpy(model.layers[1].embeddings) ** 2).mean()))
    assert first.gain * rms == pytest.approx(gain("linear", 30))


def test_layers_frozen_after_compiling() -> None:
    model = chain(L.Dense(16, "relu"), L.Dense(2))
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(data(64), data(2), verbose=0)
    model.layers[0].trainable = False
    report = initialize(model, data(64), seed=0)
    assert len(report.kernels) == 1
    assert int(to_numpy(model.optimizer.iterations)) == 0


class Own(keras.optimizers.SGD):
    """Cannot be made from its configuration."""

    def __init__(self, needed: int, **options: Any) -> None:
        super().__init__(**options)


def test_an_optimizer_that_cannot_be_reset_is_named_before_anything_changes() -> None:
    model = chain(L.Dense(16, "relu"), L.Dense(2))
    model.compile(Own(3), "mse", run_eagerly=True)
    model.fit(data(64), data(2), verbose=0)
    before = [to_numpy(v).copy() for v in (*model.weights, *model.optimizer.variables)]
    with pytest.raises(ValueError, match="Received: Own.*before you compile"):
        initialize(model, seed=0)
    for old, variable in zip(before, (*model.weights, *model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))


def test_gates_of_a_signal_on_itself() -> None:
    """a * sigmoid(a) is known as SiLU, however it is written; a * tanh(a) is an activation without a name."""
    gates = {
        "silu": L.Activation("sigmoid"),
        "hard_silu": L.Lambda(lambda a: keras.ops.relu6(a + 3.0) / 6.0),
        "linear * tanh": L.Activation("tanh"),
    }
    for activation, gate in gates.items():
        inputs = keras.Input((50,))
        a = L.Dense(40)(inputs)
        model = keras.Model(inputs, L.Dense(3)(L.Multiply()([a, gate(a)])))
        kernel = initialize(model, seed=0).kernels[1]
        assert (kernel.activation, "guess" in kernel.why) == (activation, False)
