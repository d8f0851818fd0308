"""`walk_totals` and `walk_layers`: equal to the walk that visits every layer, at any depth in little time."""

from __future__ import annotations

import numpy as np
import pytest

from keras_rwinit.theory import ACTIVATIONS, DISTRIBUTIONS, NoGainError, gain, plan_width, predict_walk
from keras_rwinit.theory._collocation import Stretch, collocation_rule, divide
from keras_rwinit.theory._long_walk import walk_layers, walk_totals
from keras_rwinit.theory._mean_field import mean_field_walk

FIELDS = ("mean", "std", "log_variance", "fluctuation", "misalignment", "dead")
CASES = [
    ("tanh", "normal", 100, 1.15),
    ("tanh", "orthogonal", 100, 1.02),
    ("elu", "orthogonal", 100, 1.1),
    ("selu", "normal", 32, 0.8),
    ("tanh", "uniform", 64, 1.02),
    ("relu6", "normal", 100, 1.5),
]


@pytest.mark.parametrize(
    ("activation", "distribution", "width", "used", "depth"),
    [
        (*CASES[0], 300),
        (*CASES[1], 300),
        *(pytest.param(*case, 1000, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_equal_to_the_walk_layer_by_layer(
    activation: str, distribution: str, width: int, used: float, depth: int
) -> None:
    """Within 1e-6 nats, at the gain and 10 % to either side of it."""
    gains = used * np.array([0.9, 1.0, 1.1])
    arguments = ACTIVATIONS[activation], gains, width, depth, DISTRIBUTIONS[distribution]
    totals, walked = walk_totals(*arguments), mean_field_walk(*arguments)
    np.testing.assert_allclose(totals.mean, walked.mean[:, 0], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(totals.std, walked.std[:, 0], rtol=1e-9, atol=1e-6)
    change = walked.log_variance[:, -1] - walked.log_variance[:, 0]
    np.testing.assert_allclose(totals.log_variance_change, change, rtol=1e-9, atol=1e-6)
    layers = walk_layers(ACTIVATIONS[activation], used, width, depth, DISTRIBUTIONS[distribution])
    for field in FIELDS:
        expected = getattr(walked, field)[1:2]
        np.testing.assert_allclose(getattr(layers, field), expected, rtol=1e-9, atol=1e-6)
    # Twin: one layer fewer is another walk.
    other = walk_totals(*arguments[:3], depth - 1, arguments[4])
    assert not np.allclose(other.std, walked.std[:, 0], rtol=1e-9, atol=1e-6)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_gain_of_a_million_and_more_layers() -> None:
    """The gain falls towards its limit; it took 33 s and 1.8 GB at 100,000 layers."""
    limit = gain("tanh", 100)
    away = [gain("tanh", 100, depth) - limit for depth in (1000, 10**5, 10**6, 10**12)]
    assert away[0] > away[1] > away[2]
    assert abs(away[3]) < 1e-4


def test_a_chain_that_leaves_the_floats_goes_on_as_it_left() -> None:
    walk = predict_walk("tanh", 100, 20_000, gain=0.2)
    assert walk.mean[0] == pytest.approx(19_999 * np.log(0.2), rel=0.01)
    assert np.isfinite(walk.std).all()


def test_a_prediction_larger_than_the_memory_is_refused() -> None:
    for activation in ("relu", "tanh"):
        with pytest.raises(ValueError, match="A prediction of `depth`=1,000,000,000,000 layers takes .*iB"):
            predict_walk(activation, 100, 10**12)


@pytest.mark.slow
def test_plan_of_many_layers_and_a_small_spread() -> None:
    """It took more than ten seconds. The width is the smallest that keeps the spread."""
    width = plan_width(500, 0.01, activation="celu", distribution="truncated_normal")
    spreads = [
        predict_walk("celu", n, 500, distribution="truncated_normal").spread for n in (width, width - 2)
    ]
    assert spreads[0] <= 0.01 < spreads[1]


@pytest.mark.parametrize(
    ("activation", "distribution", "width"),
    [("hard_tanh", "orthogonal", 100), ("tanh", "orthogonal", 100), ("sin", "normal", 100)],
)
def test_no_drift_is_left_at_the_gain_of_many_layers(activation: str, distribution: str, width: int) -> None:
    """The mean of the first of them was 3 nats off zero."""
    depth = 30_000
    found = gain(activation, width, depth, distribution=distribution)
    arguments = ACTIVATIONS[activation], found * np.array([1.0, 1.001]), width, depth
    walk = walk_totals(*arguments, DISTRIBUTIONS[distribution])
    assert abs(walk.mean[0]) < 1e-3 * walk.std[0]
    assert walk.mean[1] > 0.1 * walk.std[1]  # twin


def test_no_gain_where_the_mean_jumps_through_zero() -> None:
    """The gain was 1.0748, at which the walk falls by 15,928 nats."""
    with pytest.raises(ValueError, match="the gradient lines up with the pre-activations"):
        gain("softplus", 100, 30_000)


@pytest.mark.parametrize("depth", [32, 257, 999, 10**6, 10**12])
def test_stretches_grow_towards_the_middle(depth: int) -> None:
    stretches = divide(depth, growth=16.0)
    assert sum(stretch.length for stretch in stretches) == depth
    place = 0
    for stretch in stretches:
        assert (stretch.before, stretch.after) == (place, depth - place - stretch.length)
        place += stretch.length
    # Rounding to whole layers makes a stretch longer by one.
    assert all(stretch.log_growth < np.log(17.0) for stretch in stretches)


@pytest.mark.parametrize("stretch", [Stretch(500, 7_000, 20_000), Stretch(20_000, 7_000, 500)])
def test_rule_of_a_stretch(stretch: Stretch) -> None:
    """What the matrices make of `1 / (layers from the nearer end)`, which is smooth in the logarithm."""
    rule = collocation_rule(stretch, 18)
    layers = np.arange(stretch.length + 1.0)

    def inverse(layer: np.ndarray) -> np.ndarray:
        return 1.0 / (500.0 + (layer if stretch.before < stretch.after else stretch.length - layer))

    def at(variable: np.ndarray) -> np.ndarray:
        return inverse(stretch.layer(variable))

    np.testing.assert_allclose(stretch.layer(stretch.variable(layers)), layers, atol=1e-9)
    nodes = at(np.polynomial.chebyshev.chebpts2(19))
    points = rule.at_points @ nodes
    np.testing.assert_allclose(rule.shift @ points, rule.after_points @ nodes, rtol=1e-11)
    np.testing.assert_allclose(rule.first @ points, inverse(layers[0]), rtol=1e-11)
    np.testing.assert_allclose(rule.weights @ points, inverse(layers[:-1]).sum(), rtol=1e-12)
    # Twin: one layer more is another sum.
    assert abs(rule.weights @ points / inverse(layers).sum() - 1.0) > 1e-6


def test_a_singular_equation_is_no_error_of_its_own() -> None:
    """It raised LinAlgError."""
    with pytest.raises(NoGainError, match="for exponential at width 64 and depth 300"):
        gain("exponential", 64, 300)
