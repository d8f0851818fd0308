"""What lies between an activation and the next kernel: constants, dropout, pooling and gates."""

from __future__ import annotations

import math
import re
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import initialize_normal as initialize
from keras_helpers import to_numpy
from numpy.typing import NDArray

from keras_rwinit import gain, gradient_walk
from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._tracing.signals import Gate
from keras_rwinit.initialization._factors import gate_moments
from keras_rwinit.initialization._recursions import Multiplier, branch_scale
from keras_rwinit.theory import ACTIVATIONS

L = keras.layers

Array = NDArray[np.float64]


def data(*shape: int, examples: int = 16) -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=(examples, *shape)).astype("float32")


def sigmoid(a: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-a))


# Gates


def gated_chain(blocks: int, activation: str, units: int = 16) -> keras.Model:
    h = inputs = keras.Input((units,))
    for block in range(blocks):
        h = L.Multiply()(
            [L.Dense(units, name=f"up_{block}")(h), L.Dense(units, activation, name=f"gate_{block}")(h)]
        )
    return keras.Model(inputs, L.Dense(3, name="top")(h))


def brute_force(
    blocks: int, units: int, up: float, gate: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Steps of `ln RMS` and `ln|delta|` a block of y = u * sigmoid(v), without Keras and without theory."""
    h = rng.normal(size=units) / up  # the first kernel of a model reads the data with a gain of about 1
    start, layers = h, []
    for _ in range(blocks):
        w_u, w_v = (g * rng.normal(size=(units, units)) / np.sqrt(units) for g in (up, gate))
        u, s = w_u @ h, sigmoid(w_v @ h)
        layers.append((w_u, w_v, u, s))
        h = u * s
    delta = first = rng.normal(size=units)
    for w_u, w_v, u, s in reversed(layers):
        delta = w_u.T @ (delta * s) + w_v.T @ (delta * u * s * (1.0 - s))
    forward = np.log(np.linalg.norm(h) / np.linalg.norm(start))
    backward = np.log(np.linalg.norm(delta) / np.linalg.norm(first))
    return float(forward / blocks), float(backward / blocks)


@pytest.mark.slow
def test_a_chain_of_gates_keeps_signal_and_gradient() -> None:
    """By brute force with the gains of the rules: 1/8 nats of the gradient in all, plus noise."""
    blocks, units, networks = 16, 64, 40
    rows = initialize(gated_chain(blocks, "sigmoid", units), seed=0).kernels
    up, gate = rows[4].gain, rows[5].gain
    assert rows[5].why.endswith("gate of one of 16 products")
    assert "gated by sigmoid" in rows[4].why
    rng = np.random.default_rng(0)
    drifts = np.array([brute_force(blocks, units, up, gate, rng) for _ in range(networks)])
    error = drifts.std(axis=0, ddof=1) / math.sqrt(networks)
    assert abs(drifts[:, 0].mean()) < 3.0 * error[0] + 0.001
    assert -3.0 * error[1] < drifts[:, 1].mean() < 3.0 * error[1] + 0.125 / blocks
    # Without the gate's mean square the signal falls by half a nat a block and more.
    plain = np.array([brute_force(blocks, units, 1.0, gate, rng) for _ in range(10)])
    assert plain[:, 0].mean() < -0.5


def test_gates_are_followed() -> None:
    """They are not scaled as outputs are, and the walk does not leave them out."""
    model = gated_chain(3, "silu")
    names = gradient_walk(model, data(16)).layer_names
    assert sorted(names) == sorted(f"{kind}_{block}" for block in range(3) for kind in ("up", "gate"))
    rows = {row.path.split("/")[0]: row for row in initialize(model, data(16), seed=0).kernels}
    assert all(rows[f"gate_{block}"].correction == 1.0 for block in (1, 2))
    assert rows["top"].correction < 0.3
    assert rows["up_1"].why.endswith("gated by silu, a product of degree two")


def test_products_of_degree_two_are_said_to_have_no_scale() -> None:
    """With a normalization before them and a shortcut around them, nothing is to be done."""
    assert "No scale holds both signal and gradient" in str(initialize(gated_chain(2, "silu"), seed=0))
    assert "No scale holds" not in str(initialize(gated_chain(2, "sigmoid"), seed=0))
    h = inputs = keras.Input((16,))
    for _ in range(2):
        n = L.RMSNormalization()(h)
        h = L.Add()([h, L.Dense(16)(L.Multiply()([L.Dense(16)(n), L.Dense(16, "silu")(n)]))])
    assert "No scale holds" not in str(initialize(keras.Model(inputs, L.Dense(3)(h)), seed=0))


@pytest.mark.parametrize(("name", "expected"), [("sigmoid", 0.2934), ("silu", 0.3558), ("linear", 1.0)])
def test_mean_squares_of_gates(name: str, expected: float) -> None:
    """By a million normal numbers; those of E s^2 are within 0.5 %."""
    moments = gate_moments(Gate(ACTIVATIONS[name], 1.0, 0.0, 0.0, False), 1)
    squares = np.asarray(ACTIVATIONS[name].function(np.random.default_rng(0).normal(size=10**6))) ** 2
    assert moments.mean_square == pytest.approx(expected, abs=2e-4)
    assert moments.mean_square == pytest.approx(squares.mean(), rel=5e-3)
    assert moments.kurtosis == pytest.approx((squares**2).mean() / squares.mean() ** 2, rel=2e-2)


def test_the_bias_of_a_gate_counts() -> None:
    gate = Gate(ACTIVATIONS["sigmoid"], -1.0, 1.0, -2.0, False)
    # Pre-activations of variance 1 / 10,000: (1 - sigmoid(-2))^2.
    assert gate_moments(gate, 10_000).mean_square == pytest.approx(sigmoid(np.array(2.0)) ** 2, rel=1e-3)


def highway(layers: int, units: int = 32, activation: str = "tanh") -> keras.Model:
    inputs = keras.Input((units,))
    h = L.Dense(units)(inputs)
    for _ in range(layers):
        t = L.Dense(units, "sigmoid")(h)
        h = t * L.Dense(units, activation)(h) + (1.0 - t) * h
    return keras.Model(inputs, L.Dense(3)(h))


def highway_drifts(scale: float, layers: int, units: int, rng: np.random.Generator) -> tuple[float, float]:
    """Drifts of `ln RMS` and `ln|delta|` through tanh highway layers, without Keras and without theory."""
    x = start = rng.normal(size=units)
    tape = []
    for _ in range(layers):
        w, v = (rng.normal(size=(units, units)) / math.sqrt(units) for _ in range(2))
        f, t = np.tanh(scale * w @ x), sigmoid(v @ x / math.sqrt(layers))
        tape.append((scale * w, v / math.sqrt(layers), f, t, x))
        x = t * f + (1.0 - t) * x
    delta = last = rng.normal(size=units)
    for w, v, f, t, h in reversed(tape):
        through_gate = v.T @ (delta * t * (1.0 - t) * (f - h))
        delta = (1.0 - t) * delta + w.T @ (delta * t * (1.0 - f * f)) + through_gate
    norm = np.linalg.norm
    return float(np.log(norm(x) / norm(start))), float(np.log(norm(delta) / norm(last)))


def highway_scale(layers: int) -> float:
    gates = [
        Multiplier(1.0, 1.0, ((Gate(ACTIVATIONS["sigmoid"], scale, shift, 0.0, False), layers**-0.5),))
        for scale, shift in ((-1.0, 1.0), (1.0, 0.0))
    ]
    return branch_scale(ACTIVATIONS["tanh"], *gates, layers).scale


@pytest.mark.slow
def test_highway_layers_keep_signal_and_gradient() -> None:
    """A shortcut through 1 - t has a quarter of its variance left, and the branch supplies the rest.

    At the scale that a linear branch would need, sqrt((1 - t^2) / t^2), both drift by more than two nats.
    """
    rng = np.random.default_rng(0)
    drifts = np.mean([highway_drifts(highway_scale(30), 30, 64, rng) for _ in range(5)], axis=0)
    assert np.abs(drifts).max() < 1.4
    linear = np.mean([highway_drifts(math.sqrt(3.0), 30, 64, rng) for _ in range(5)], axis=0)
    assert linear.max() < -1.6


def test_the_branch_of_a_highway_layer_is_found() -> None:
    rows = initialize(highway(4), seed=0).kernels
    branches = [row for row in rows if "beside a shortcut gated by sigmoid" in row.why]
    assert [row.gain for row in branches] == pytest.approx([gain("linear", 32) * highway_scale(4)] * 4)


def test_a_highway_of_relu_says_what_no_scale_keeps() -> None:
    """The mean of ReLU makes the sum grow; a short highway of tanh is kept to half a nat."""
    (relu, tanh) = (
        [row.why for row in initialize(highway(n, activation=name), seed=0).kernels if "gated by" in row.why]
        for n, name in ((12, "relu"), (4, "tanh"))
    )
    assert len(relu) == 12
    assert all(
        re.search(r"no scale keeps signal and gradient: about 1\.\d nats are left", why) for why in relu
    )
    assert not any("no scale" in why for why in tanh)


def test_squeeze_and_excite() -> None:
    inputs = keras.Input((6, 6, 8))
    h = L.Conv2D(8, 3, activation="relu", name="first")(inputs)
    gate = L.Dense(2, "relu", name="squeeze")(L.GlobalAveragePooling2D(keepdims=True)(h))
    gate = L.Dense(8, name="excite")(gate)
    h = L.Multiply()([h, L.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)])
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Conv2D(8, 3, name="after")(h))))
    rows = {row.path.split("/")[0]: row for row in initialize(model, seed=0).kernels}
    # E hard_sigmoid(x)^2 = 1/4 + E x^2 / 36, but for the tails beyond three.
    assert rows["after"].gain == pytest.approx(gain("relu", 72) / math.sqrt(0.25 + 1 / 36), rel=0.01)
    assert "excite" in gradient_walk(model, data(6, 6, 8)).layer_names


# Dropout and pooling

DROPOUTS = {
    "Dropout": lambda: L.Dropout(0.3, seed=1),
    "SpatialDropout1D": lambda: L.SpatialDropout1D(0.3, seed=1),
    "GaussianDropout": lambda: L.GaussianDropout(0.3, seed=1),
    "AlphaDropout": lambda: L.AlphaDropout(0.3, seed=1),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_factors_of_dropout(name: str) -> None:
    """The layers themselves: the gradient's factor is the output at 1 less that at 0, for the same mask."""
    make = DROPOUTS[name]
    find = layer_kind(make()).factor
    assert find is not None
    factor = find(make())
    ones = np.ones((40, 50, 100), "float32")
    masks = [to_numpy(make()(x, training=True)).astype(float) for x in (ones, 0.0 * ones)]
    m = masks[0] - masks[1]
    count = m.size if name != "SpatialDropout1D" else m.size / 50
    error = 4.0 * math.sqrt((factor.kurtosis - 1.0) / count)
    assert (m**2).mean() == pytest.approx(factor.mean_square, rel=error)
    assert (m**4).mean() / (m**2).mean() ** 2 == pytest.approx(factor.kurtosis, rel=5.0 * error)


def dropout_chain(layers: int, units: int = 32) -> keras.Model:
    chain = [layer for _ in range(layers) for layer in (L.Dense(units, "relu"), L.Dropout(0.5, seed=1))]
    return keras.Sequential([keras.Input((units,)), *chain, L.Dense(3)])


def test_dropout_takes_the_root_of_what_is_kept() -> None:
    row = initialize(dropout_chain(3), seed=0).kernels[2]
    assert row.why == "fed by relu; dropout of 0.5"
    # The step itself, a hundred thousand times: z = sum (m f' x)^2 / N.
    rng = np.random.default_rng(0)
    mask = 2.0 * (rng.random((100_000, 32)) < 0.5) * (rng.random((100_000, 32)) < 0.5)
    z = (mask * rng.normal(size=mask.shape)) ** 2 @ np.full(32, 1 / 32)
    log_z = np.log(z[z > 0.0])
    error = log_z.std() / 2.0 / math.sqrt(len(log_z))
    assert math.log(row.gain) == pytest.approx(-log_z.mean() / 2.0, abs=3.0 * error)


def dropout_drifts(
    scale: float, kept: float, units: int, networks: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Mean steps of `ln|delta|` of networks of 20 ReLU layers, each with kernels and masks of its own."""
    h = rng.normal(size=(networks, units, 1)).astype("float32")
    layers = []
    for _ in range(20):
        w = rng.standard_normal((networks, units, units), dtype="float32") * np.float32(
            scale / math.sqrt(units)
        )
        a = w @ h
        slopes = ((a > 0.0) & (rng.random(a.shape) < kept)).astype("float32") / np.float32(kept)
        h = slopes * a
        layers.append((w, slopes))
    delta = rng.normal(size=h.shape).astype("float32") * layers[-1][1]
    start = np.linalg.norm(delta[..., 0], axis=1)
    for (w, _), (_, slopes) in zip(layers[:0:-1], layers[-2::-1], strict=True):
        delta = slopes * (w.swapaxes(1, 2) @ delta)
    end = np.linalg.norm(delta[..., 0], axis=1)
    alive = (start > 0.0) & (end > 0.0)
    return np.asarray(np.log(end[alive] / start[alive]) / 19, np.float64)


@pytest.mark.slow
def test_dropout_leaves_no_drift_with_masks_of_its_own_for_each_network() -> None:
    """Layers of one seed draw one mask for all layers and networks, whose spread does not average out.

    2,000 networks of width 64 have a standard error of 0.0011 nats a layer.
    """
    row = initialize(dropout_chain(3, 64), seed=0).kernels[2]
    drifts = np.concatenate(
        [dropout_drifts(row.gain, 0.5, 64, 100, np.random.default_rng(n)) for n in range(20)]
    )
    error = drifts.std(ddof=1) / math.sqrt(len(drifts))
    assert abs(drifts.mean()) < 3.0 * error
    # Without the correction for the width, of 0.026 nats a layer
    assert drifts.mean() + math.log(gain("relu", 64) * math.sqrt(0.5) / row.gain) < -3.0 * error


def alpha_dropout_drift(scale: float, rate: float, rng: np.random.Generator) -> float:
    """Drift of `ln|delta|` of one SELU network of 20 layers with alpha dropout, nats a layer."""
    units, layers, low = 128, 20, -1.6732632423543772 * 1.0507009873554805
    a_scale = ((1.0 - rate) * (1.0 + rate * low**2)) ** -0.5
    selu, h, tape = ACTIVATIONS["selu"], rng.normal(size=units), []
    w = gain("selu", units, layers) * rng.normal(size=(units, units)) / math.sqrt(units)
    for _ in range(layers):
        a, kept = w @ h, rng.random(units) >= rate
        h = a_scale * (selu.function(a) * kept + low * ~kept) - a_scale * low * rate
        tape.append((w, a_scale * kept * selu.slope_at(a)))
        w = scale * rng.normal(size=(units, units)) / math.sqrt(units)
    delta = start = rng.normal(size=units) * tape[-1][1]
    for (w, _), (_, slopes) in zip(tape[:0:-1], tape[-2::-1], strict=True):
        delta = slopes * (w.T @ delta)
    return float(np.log(np.linalg.norm(delta) / np.linalg.norm(start))) / (layers - 1)


@pytest.mark.slow
def test_alpha_dropout_behind_selu_leaves_no_drift() -> None:
    """It moves the pre-activations to where SELU's slope is smaller, by brute force."""
    chain = [layer for _ in range(20) for layer in (L.Dense(128, "selu"), L.AlphaDropout(0.3))]
    row = initialize(keras.Sequential([keras.Input((128,)), *chain, L.Dense(3)]), seed=0).kernels[3]
    assert row.why == "fed by selu; alpha dropout of 0.3"
    rng = np.random.default_rng(0)
    drifts = np.array([alpha_dropout_drift(row.gain, 0.3, rng) for _ in range(12)])
    assert abs(drifts.mean()) < 3.0 * drifts.std(ddof=1) / math.sqrt(12) + 0.002
    # What the gradient's mean square alone asks for is 0.14 nats a layer off.
    assert math.log(row.gain / gain("selu", 128, 20) / math.sqrt(1.0 + 0.3 * 1.758**2)) > 0.1


def test_dropout_is_calibrated_in_training_mode() -> None:
    model, x = dropout_chain(8), data(32)
    initialize(model, x, seed=0)
    assert abs(gradient_walk(model, x, training=True).drift) < 0.003


def test_average_pooling_keeps_the_gradient() -> None:
    layers = [layer for _ in range(3) for layer in (L.Conv2D(8, 3, padding="same"), L.AveragePooling2D(2))]
    model = keras.Sequential([keras.Input((8, 8, 4)), *layers, L.Flatten(), L.Dense(3)])
    rows = initialize(model, seed=0).kernels
    assert rows[1].why == "fed linearly; mean of 4 positions; zero padding"
    walk = gradient_walk(model, data(8, 8, 4)).backward.mean(axis=0)
    # Three steps of a walk of 72 inputs: 0.12 nats each. Without the factor 2 it would be -0.7 nats a step.
    assert abs(walk[0] - walk[-1]) < 0.6


def test_constants_between_layers() -> None:
    inputs = keras.Input((16,))
    h = L.Dense(16, "relu")(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.Dense(16)(h * 0.25)))
    assert initialize(model, seed=0).kernels[1].gain == pytest.approx(4.0 * gain("relu", 16))


# Repeated kernels


def test_a_shared_kernel_has_the_gain_of_the_use_that_repeats() -> None:
    inputs, shared = keras.Input((32,)), L.Dense(32, "tanh")
    h = inputs
    for _ in range(10):
        h = shared(h)
    row = initialize(keras.Model(inputs, L.Dense(3)(h)), seed=0).kernels[0]
    assert row.gain == pytest.approx(gain("tanh", 32, 10))
    assert row.why == "fed by tanh; applied 10 times"


def test_a_kernel_in_different_places_has_the_mean_of_their_gains() -> None:
    inputs, shared = keras.Input((32,)), L.Dense(32)
    h = L.Dense(32, "relu")(inputs)
    h = shared(L.ReLU()(shared(h)))
    row = initialize(keras.Model(inputs, L.Dense(3)(shared(h))), seed=0).kernels[1]
    assert row.gain == pytest.approx((gain("relu", 32) ** 2 * gain("linear", 32)) ** (1 / 3))


class Reversed(L.Layer):
    """A layer with a kernel of (outputs, inputs)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(10, input_shape[-1]), name="kernel")

    def call(self, inputs: Any) -> Any:
        return inputs @ keras.ops.transpose(self.kernel)


def test_the_axes_of_a_users_kernel_follow_from_its_input() -> None:
    model = keras.Sequential([keras.Input((30,)), Reversed(), L.Dense(3)])
    assert [row.fan_in for row in initialize(model, seed=0).kernels] == [30, 10]


# Parts of a model


def head_and_body() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(8, "relu", name="body", bias_initializer="ones"),
            keras.Sequential([L.Dense(8, "relu"), L.Dense(3)], name="head"),
        ]
    )


@pytest.mark.parametrize("by_name", [True, False])
def test_only_the_given_layers_are_drawn(by_name: bool) -> None:
    model, whole = head_and_body(), head_and_body()
    before = to_numpy(model.layers[0].kernel).copy()
    report = initialize(model, data(8), seed=0, layers=["head"] if by_name else [model.layers[1]])
    np.testing.assert_array_equal(to_numpy(model.layers[0].kernel), before)
    assert len(report.kernels) == 2
    initialize(whole, seed=0)
    initialize(model, seed=0, layers=["head"])
    for one, other in zip(model.layers[1].weights, whole.layers[1].weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


@pytest.mark.parametrize("layers", [["tail"], [L.Dense(3)], [3], [None]])
def test_layers_that_are_none(layers: list[Any]) -> None:
    model = head_and_body()
    with pytest.raises(ValueError, match="`layers` must hold layers of the model.*which is none"):
        initialize(model, layers=layers)
    with pytest.raises(ValueError, match="and in `layers`"):
        initialize(model, layers=[])
    with pytest.raises(ValueError, match="or their names. Received: array"):
        initialize(model, layers=np.array(3))


def test_the_report_counts_every_weight_and_the_biases_of_a_trained_model() -> None:
    model = head_and_body()
    report = initialize(model, seed=0)
    assert len(report.kernels) + len(report.skipped) == len(model.weights) == 6
    assert report.biases == (3, 1)
    assert "1 of 3 biases are not zero" in str(report)
    np.testing.assert_array_equal(to_numpy(model.layers[0].bias), np.ones(8))
