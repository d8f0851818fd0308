"""`predict_walk` and `plan_width`: conventions, exact cases, agreement with simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from theory_helpers import drift_in_standard_errors, std_relative_error

from keras_rwinit.theory import (
    DISTRIBUTIONS,
    Activation,
    NoGainError,
    WalkPrediction,
    gain,
    plan_width,
    predict_walk,
    resolve_activation,
    simulate_walk,
)
from keras_rwinit.theory.mirrored import mirrored_slope
from keras_rwinit.theory.walk import predict_chain

# Theory knows no convolutions; see test_distributions.py.
DIFFERENT = sorted(set(DISTRIBUTIONS) - {"delta_orthogonal"})


def skip_without_mirrored_slope(activation: str, distribution: str) -> None:
    """Skips what `looks_linear` refuses; tests/theory/test_mirrored.py has the message."""
    if DISTRIBUTIONS[distribution].mirrored and mirrored_slope(resolve_activation(activation)) is None:
        pytest.skip(f"{activation} cannot look linear")


@pytest.mark.parametrize("distribution", DIFFERENT)
@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu(0.1)", "tanh", "selu"])
@pytest.mark.parametrize("depth", [1, 2, 30])
def test_shapes_and_convention(activation: str, depth: int, distribution: str) -> None:
    skip_without_mirrored_slope(activation, distribution)
    walk = predict_walk(activation, 40, depth, distribution=distribution)
    assert isinstance(walk, WalkPrediction)
    assert walk.gain == gain(activation, 40, max(depth, 2), distribution=distribution)
    assert walk.mean.shape == walk.std.shape == (depth,)
    assert walk.mean.dtype == walk.std.dtype == np.float64
    assert walk.mean[-1] == walk.std[-1] == 0.0
    assert abs(walk.mean[0]) < 1e-6 * depth
    assert walk.drift == walk.mean[0] / max(depth - 1, 1)
    assert walk.spread == walk.std[0]
    assert 0.0 <= walk.dead_probability < 1e-8
    if not (activation == "linear" and distribution == "orthogonal") and distribution != "looks_linear":
        assert (np.diff(walk.std) < 0).all()


def test_he_initialization_loses_twelve_nats() -> None:
    """The example of the README: 1000 steps of `ln sqrt(2) + E ln z / 2` at width 100."""
    walk = predict_walk("relu", width=100, depth=1001, gain=2**0.5)
    assert walk.mean[0] == pytest.approx(-12.71, abs=0.005)
    assert walk.drift == walk.mean[0] / 1000
    np.testing.assert_allclose(walk.mean, walk.drift * np.arange(1000, -1, -1), rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "linear", "leaky_relu"])
def test_spread_grows_like_the_square_root_of_depth(activation: str) -> None:
    walk = predict_walk(activation, 100, 401)
    steps = np.arange(400, -1, -1)
    np.testing.assert_allclose(walk.std, walk.std[-2] * np.sqrt(steps), rtol=1e-12)
    # The last entries belong to the last layers: depth only adds layers in front.
    np.testing.assert_array_equal(walk.std[-11:], predict_walk(activation, 100, 11).std)


def test_gain_moves_the_mean_and_not_the_spread() -> None:
    """Two slopes: a gain wrong by a factor c drifts by exactly ln c a layer."""
    right, wrong = predict_walk("relu", 50, 21), predict_walk("relu", 50, 21, gain=1.1 * gain("relu", 50))
    assert wrong.drift == pytest.approx(np.log(1.1), rel=1e-9)
    np.testing.assert_array_equal(right.std, wrong.std)


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
@pytest.mark.parametrize(("activation", "width"), [("relu", 3), ("relu", 6), ("leaky_relu", 2)])
def test_two_slopes_are_exact_at_tiny_width(activation: str, width: int, distribution: str) -> None:
    """Mean and std of every layer of the living networks, 20,000 samples, seed 8, 4 standard errors."""
    depth, samples = 8, 20_000
    walk = predict_walk(activation, width, depth, gain=1.5, distribution=distribution)
    simulated = simulate_walk(
        activation, width, depth, gain=1.5, samples=samples, distribution=distribution, seed=8
    )
    simulated = simulated[np.isfinite(simulated[:, 0])]
    for d in range(depth - 1):
        layer = simulated[:, d]
        assert abs(layer.mean() - walk.mean[d]) < 4.0 * layer.std() / np.sqrt(len(layer))
        assert abs(layer.std() / walk.std[d] - 1.0) < 4.0 * std_relative_error(layer)
    whole, twin = (
        simulated[:, 0],
        predict_walk(activation, width, depth, gain=1.55, distribution=distribution),
    )
    assert abs(whole.mean() - twin.mean[0]) > 4.0 * whole.std() / np.sqrt(len(whole))


def test_smooth_walk_layer_by_layer() -> None:
    """tanh at a gain that is not the unbiased one: 4000 samples, seed 9.

    Means within 4 standard errors plus 2 % of the loss, stds within 4 standard errors plus 5 %, for
    the second order in 1 / width that the theory leaves out (measured: 0.3 % and 2 %).
    """
    walk = predict_walk("tanh", 60, 40, gain=1.1)
    simulated = simulate_walk("tanh", 60, 40, gain=1.1, samples=4000, seed=9)
    assert walk.mean[0] < -1.0
    for d in range(39):
        layer = simulated[:, d]
        allowed = 4.0 * layer.std() / np.sqrt(4000) - 0.02 * walk.mean[0]
        assert abs(layer.mean() - walk.mean[d]) < allowed
        assert abs(walk.std[d] / layer.std() - 1.0) < 4.0 * std_relative_error(layer) + 0.05
    # Twin: with the pre-activations' variance held at its mean the spread comes out far too low.
    first_order = np.sqrt(39 * 2.5 / 60) / 2.0
    assert first_order < 0.9 * simulated[:, 0].std()


@pytest.mark.parametrize(("width", "depth"), [(4, 1), (4, 7), (10, 1000), (64, 10**6), (1, 3)])
def test_dead_probability_of_relu(width: int, depth: int) -> None:
    """1 - (1 - 2^-N)^D, down to where only log1p can see it."""
    exact = -np.expm1(depth * np.log1p(-(2.0**-width)))
    assert predict_walk("relu", width, depth).dead_probability == pytest.approx(exact, rel=1e-12)
    assert predict_walk("leaky_relu", width, depth).dead_probability == 0.0


def test_dead_probability_of_a_saturating_activation() -> None:
    """hard_tanh, width 4: within 3 points of the 20,000 networks of seed 2 (first order in 1/width)."""
    walks = simulate_walk("hard_tanh", 4, 6, gain=2.0, samples=20_000, seed=2)
    share = (~np.isfinite(walks[:, 0])).mean()
    assert predict_walk("hard_tanh", 4, 6, gain=2.0).dead_probability == pytest.approx(share, abs=0.03)


def test_flat_activation_has_no_walk() -> None:
    flat = Activation("flat", np.zeros_like, np.zeros_like, slopes=(0.0, 0.0))
    with pytest.raises(ValueError, match="passes no gradient"):
        predict_walk(flat, 10, 5, gain=1.0)


def test_own_activation_predicts_the_named_walk() -> None:
    own = Activation("own", lambda a: 3.0 * np.maximum(a, 0.0), slopes=(0.0, 3.0))
    ours, named = predict_walk(own, 20, 10), predict_walk("relu", 20, 10)
    assert 3.0 * ours.gain == pytest.approx(named.gain, rel=1e-12)
    np.testing.assert_allclose(ours.std, named.std, rtol=1e-12)
    # Without `slopes` the same function goes the general way, to first order in 1 / width.
    general = predict_walk(lambda a: np.maximum(a, 0.0), 100, 20)
    named = predict_walk("relu", 100, 20)
    assert general.gain == pytest.approx(named.gain, rel=3e-4)
    np.testing.assert_allclose(general.std, named.std, rtol=0.02)


@pytest.mark.parametrize("distribution", DIFFERENT)
@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu(0.1)", "tanh"])
def test_a_chain_of_equal_layers_is_the_walk(activation: str, distribution: str) -> None:
    skip_without_mirrored_slope(activation, distribution)
    for depth in (2, 30):
        steps = depth - 1
        chain = predict_chain(activation, [40] * steps, [1.3] * steps, distribution=distribution)
        walk = predict_walk(activation, 40, depth, gain=1.3, distribution=distribution)
        assert chain.gain == pytest.approx(1.3)
        np.testing.assert_allclose(chain.mean, walk.mean, rtol=1e-12)
        np.testing.assert_allclose(chain.std, walk.std, rtol=1e-12, atol=1e-12)
        # The last layer's units are no fan-in of the chain, so that relu has one layer less to die in.
        alive = 1.0 - walk.dead_probability, 1.0 - chain.dead_probability
        assert alive[0] ** (steps / depth) == pytest.approx(alive[1], rel=1e-9)


def test_a_chain_is_the_sum_of_its_steps() -> None:
    """relu of falling width: means and variances of networks of two layers add up, from the last layer on."""
    widths, gains = [100, 50, 6], [1.4, 1.5, 1.6]
    chain = predict_chain("relu", widths, gains)
    pairs = [predict_walk("relu", width, 2, gain=gain) for width, gain in zip(widths, gains, strict=True)]
    means = [pair.mean[0] for pair in pairs]
    variances = [pair.spread**2 for pair in pairs]
    np.testing.assert_allclose(chain.mean, [sum(means[d:]) for d in range(4)], rtol=1e-12)
    np.testing.assert_allclose(chain.std**2, [sum(variances[d:]) for d in range(4)], rtol=1e-12)
    alive = (1.0 - 2.0**-100) * (1.0 - 2.0**-50) * (1.0 - 2.0**-6)
    assert chain.dead_probability == pytest.approx(1.0 - alive, rel=1e-12)
    assert chain.gain == pytest.approx(float(np.prod(gains)) ** (1.0 / 3.0))
    # Twin: in the opposite order the last entries are those of other layers.
    assert not np.allclose(chain.mean, predict_chain("relu", widths[::-1], gains[::-1]).mean)


def test_chains_without_a_prediction() -> None:
    for activation in ("relu", "tanh"):
        single = predict_chain(activation, [], [])
        assert (single.mean.tolist(), single.std.tolist(), single.dead_probability) == ([0.0], [0.0], 0.0)
    with pytest.raises(ValueError, match=r"`widths` must be equal for tanh.*Received: \[40, 30\]"):
        predict_chain("tanh", [40, 30], [1.2, 1.2])


def smallest_width(depth: int, spread: float, activation: str, distribution: str, top: int) -> int:
    """By trying them all: from this width up to `top` every one is narrow enough."""
    narrow = []
    for width in range(1, top):
        try:
            walk = predict_walk(activation, width, depth, distribution=distribution)
            narrow.append(walk.spread <= spread)
        except NoGainError:
            narrow.append(False)
    assert narrow[-1]
    return top - narrow[::-1].index(False) if False in narrow else 1


@pytest.mark.parametrize(
    ("activation", "distribution", "depth", "spread", "top"),
    [
        ("relu", "normal", 10, 1.0, 100),
        ("relu", "normal", 50, 0.5, 400),
        ("relu", "orthogonal", 10, 2.0, 100),
        ("relu", "orthogonal", 100, 1.5, 200),
        ("linear", "normal", 20, 0.25, 400),
        ("linear", "orthogonal", 20, 1e-3, 20),
        ("leaky_relu(0.01)", "orthogonal", 10, 3.0, 100),
        ("relu", "uniform", 10, 1.0, 100),
        pytest.param("tanh", "normal", 10, 0.75, 120, marks=pytest.mark.slow),
        ("tanh", "orthogonal", 10, 0.5, 26),
    ],
)
def test_plan_width_against_brute_force(
    activation: str, distribution: str, depth: int, spread: float, top: int
) -> None:
    width = plan_width(depth, spread, activation=activation, distribution=distribution)
    assert width == smallest_width(depth, spread, activation, distribution, top)


def test_plan_width_of_many_layers() -> None:
    """The planned width has the spread that was asked for: 500 networks, seed 7, 4 standard errors."""
    width = plan_width(depth=100, spread=1.0)
    walks = simulate_walk("relu", width, 100, samples=500, seed=7)[:, 0]
    assert abs(walks.std() - 1.0) < 4.0 * std_relative_error(walks) + 1.0 / width
    assert abs(drift_in_standard_errors(walks)) < 3.0
    assert plan_width(1, 1e-9) == 1
    assert plan_width(1000, 1.0) == 1253


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"`depth` must be an integer of at least 1. Received: depth=0"),
        ({"depth": 2.0}, "`depth` must be an integer"),
        ({"spread": 0.0}, r"`spread` must be a finite number above 0. Received: spread=0.0"),
        ({"spread": -1}, "`spread` must be a finite number above 0"),
        ({"spread": float("nan")}, "`spread` must be a finite number above 0"),
        ({"spread": "wide"}, "`spread` must be a finite number above 0. Received: spread='wide'"),
        ({"spread": 1e-6}, "No width up to 10,000,000 keeps the spread of relu over `depth`=1,000 layers"),
        ({"spread": 1e-6, "distribution": "orthogonal"}, r"Allow a larger spread, or use fewer layers\.$"),
        ({"activation": "softmax"}, "mixes the units of a layer"),
        (
            {"activation": "gelu", "depth": 60},
            r"No width will do: wide networks of gelu have no gain at `depth`=60.*looks_linear.*shaped\(gelu",
        ),
        ({"distribution": "glorot"}, "`distribution` must be one of normal.*Received: 'glorot'"),
    ],
)
def test_bad_arguments_of_plan_width(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_width(**{"depth": 1000, "spread": 1.0, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, r"`width` must be an integer of at least 1. Received: width=0"),
        ({"width": True}, "`width` must be an integer"),
        ({"depth": -3}, "`depth` must be an integer"),
        ({"depth": None}, "`depth` must be an integer"),
        ({"gain": 0.0}, "`gain` must be a finite number above 0"),
        ({"gain": -2}, "`gain` must be a finite number above 0"),
        ({"gain": float("inf")}, "`gain` must be a finite number above 0"),
        ({"gain": "1"}, "`gain` must be a finite number above 0. Received: gain='1'"),
        ({"activation": "glu"}, "'glu' mixes the units of a layer"),
        ({"distribution": None}, "`distribution` must be one of normal"),
    ],
)
def test_bad_arguments_of_predict_walk(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_walk(**{"activation": "relu", "width": 10, "depth": 5, **arguments})


def test_a_prediction_prints_as_one_line() -> None:
    prediction = predict_walk("relu", 10, 1000)
    assert str(prediction).startswith(f"gain {prediction.gain:.5f}, 1,000 hidden layers: first over last ")
    assert str(prediction).endswith("nats per layer, 62.4% of networks dead")
    assert repr(prediction) == f"<WalkPrediction: {prediction}>"
    assert "dead" not in str(predict_walk("tanh", 64, 20))
