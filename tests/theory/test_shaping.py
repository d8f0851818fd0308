"""Activations shaped for a depth: their conditions, gains, names and what they do in networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate
from theory_helpers import drift_in_standard_errors

from keras_rwinit.theory import (
    ACTIVATIONS,
    NoGainError,
    gain,
    plan_width,
    predict_correlation,
    predict_walk,
    resolve_activation,
    shape_activation,
    simulate_walk,
)
from keras_rwinit.theory.activations import SHAPED
from keras_rwinit.theory.float_range import predict_norms
from keras_rwinit.theory.walk import predict_chain

exhaustive = [pytest.mark.slow, pytest.mark.exhaustive]
SMOOTH = [name for name, in_ops in SHAPED.items() if in_ops is not None]


def expectation(values: Any) -> float:
    """E of a function of a standard normal variable, by scipy's adaptive quadrature."""

    def weighed(x: float) -> float:
        return float(values(np.array([x]))[0]) * math.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi)

    return float(integrate.quad(weighed, -9.0, 9.0, limit=400, epsabs=1e-10)[0])


@pytest.mark.parametrize(
    ("depth", "slope"), [(100, 0.5704), (200, 0.6796), (500, 0.7862), (1000, 0.8444), (10_000, 0.9481)]
)
def test_slopes_are_those_of_the_correlation_map(depth: int, slope: float) -> None:
    shaped = shape_activation("relu", depth)
    assert shaped.slopes is not None
    assert shaped.slopes[0] == pytest.approx(slope, abs=6e-5)
    assert shape_activation("leaky_relu", depth) == shaped == resolve_activation(shaped.name)


def test_two_slopes_reach_the_correlation_in_wide_networks() -> None:
    for correlation in (0.5, 0.9):
        shaped = shape_activation("relu", 100, correlation=correlation)
        wide = predict_correlation(shaped, 10**7, 100)
        assert wide.mean[-1] == pytest.approx(correlation, abs=1e-4)
        # Another slope does not.
        assert shaped.slopes is not None
        other = predict_correlation(f"leaky_relu({shaped.slopes[0] - 0.02})", 10**7, 100)
        assert abs(other.mean[-1] - correlation) > 0.005


@pytest.mark.parametrize("name", [pytest.param("gelu", marks=pytest.mark.slow), "tanh"])
def test_smooth_ones_reach_the_correlation_in_wide_networks(name: str) -> None:
    # At great width and the gain of infinite width, which the two conditions on the scale make one
    wide = predict_correlation(f"shaped({name})", 10**8, 30, gain=1.0)
    assert not wide.simulated
    assert wide.mean[-1] == pytest.approx(0.9, abs=2e-4)


@pytest.mark.parametrize("name", SMOOTH)
def test_conditions_hold(name: str) -> None:
    shaped = shape_activation(name, 200)
    f, df = shaped.function, shaped.slope_at
    assert expectation(lambda x: f(x) ** 2) == pytest.approx(1.0, abs=2e-4)
    assert expectation(lambda x: df(x) ** 2) == pytest.approx(1.0, abs=2e-4)
    radial = expectation(lambda x: x * f(x) * df(x))
    source = expectation(lambda x: (x * x - 1.0) * df(x) ** 2)
    assert source / (1.0 - radial**2) == pytest.approx(-0.3, abs=5e-3)
    # (sqrt(2) + 2 sqrt(3)) 9 / depth at great depth
    assert 0.6 < (1.0 - radial) / (4.878 * 9.0 / 200) < 1.1


@pytest.mark.parametrize(
    ("name", "depths", "widths"),
    [
        *(pytest.param(name, (200,), (100,), marks=pytest.mark.slow) for name in SMOOTH),
        *(pytest.param(name, (50, 200, 1000), (100, 1000), marks=exhaustive) for name in SMOOTH),
    ],
)
def test_gains_exist(name: str, depths: tuple[int, ...], widths: tuple[int, ...]) -> None:
    for depth in depths:
        shaped = resolve_activation(f"shaped({name})", depth)
        for width in widths:
            assert 1.0 < gain(shaped, width, depth) < 1.03


def test_the_error_names_the_shaped_activation_which_has_a_gain() -> None:
    with pytest.raises(NoGainError, match=r"`activation='shaped\(gelu\)'`"):
        gain("gelu", 100, 200)
    assert gain("shaped(gelu)", 100, 30) == gain(shape_activation("gelu", 30), 100, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "softplus"])
def test_networks_do_not_drift(name: str) -> None:
    depth = 30
    walks = simulate_walk(f"shaped({name})", 100, depth, samples=800, seed=depth)
    assert abs(drift_in_standard_errors(walks[:, 0])) < 3.0
    wrong = 1.01 * gain(f"shaped({name})", 100, depth)
    walks = simulate_walk(f"shaped({name})", 100, depth, gain=wrong, samples=300, seed=depth)
    assert abs(drift_in_standard_errors(walks[:, 0])) > 2.0 * 3.0


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "softplus"])
@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_deep_networks_do_not_drift(name: str, depth: int) -> None:
    walks = simulate_walk(f"shaped({name})", 100, depth, samples=2000, seed=depth)
    assert abs(drift_in_standard_errors(walks[:, 0])) < 3.0


def test_shallow_networks_need_no_shape() -> None:
    assert shape_activation("relu", 5) == ACTIVATIONS["relu"]
    assert gain("shaped(softplus)", 100, 1) > 1.0


def test_names_resolve_to_what_they_name() -> None:
    for name in ("tanh", "elu"):
        shaped = resolve_activation(f"shaped({name})", 120)
        again = resolve_activation(shaped.name)
        assert again == shaped
        assert again.name == shaped.name
        assert again.name.startswith(f"shaped({name}, ")
        assert resolve_activation(f"shaped({name}, depth=120)", 7) == shaped
        assert resolve_activation(f"shaped({name}, depth=120, correlation=0.9)") == shaped
        assert resolve_activation(f"shaped({name},correlation=0.8)", 120) != shaped


def test_derivatives_are_those_of_the_functions() -> None:
    a = np.linspace(-4.0, 4.0, 41)
    for name in ("softplus", "sigmoid"):
        shaped = shape_activation(name, 50)
        step = 1e-6
        numerical = (shaped.function(a + step) - shaped.function(a - step)) / (2.0 * step)
        np.testing.assert_allclose(shaped.slope_at(a), numerical, atol=1e-6)


def test_the_depth_is_known_where_there_is_one() -> None:
    name, depth, width = "shaped(relu)", 30, 64
    shaped = shape_activation("relu", depth)
    assert gain(name, width, depth) == gain(shaped, width)
    assert predict_walk(name, width, depth).spread == predict_walk(shaped, width, depth).spread
    assert simulate_walk(name, width, depth, samples=3, seed=1).shape == (3, depth)
    chain = predict_chain(name, [width] * (depth - 1), [1.0] * (depth - 1))
    assert chain.spread == pytest.approx(predict_walk(shaped, width, depth, gain=1.0).spread, rel=1e-12)
    assert plan_width(depth, 1.0, activation=name) == plan_width(depth, 1.0, activation=shaped)
    assert predict_norms(name, width, depth, gain=1.0).level.shape == (depth,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shaped(gelu)", "is shaped for a depth, which is not known here"),
        ("shaped(relu6)", "`name` must be an activation that can be shaped: relu, "),
        ("shaped(gelu, depth=2.5)", "A shaped activation is written"),
        ("shaped(gelu, depth=inf)", "A shaped activation is written"),
        ("shaped(gelu, 0, 1, 1, 1)", "A shaped activation is written"),
        ("shaped(gelu, 1, 2, 3)", "A shaped activation is written"),
        ("shaped(relu, 1, 2, 3, 4)", "A shaped activation is written"),
        ("shaped(gelu, dept=3)", "A shaped activation is written"),
        ("shaped(gelu, depth=0)", "`depth` must be an integer of at least 1"),
        ("shaped(gelu, depth=9, correlation=1)", "`correlation` must be from 0.01 to 0.99"),
    ],
)
def test_wrong_names_say_what_is_right(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", "\\(") if message[0] in "A" else message):
        resolve_activation(name)


@pytest.mark.parametrize("depth", [0, -1, 2.5, True, None])
def test_a_wrong_depth_is_named(depth: Any) -> None:
    with pytest.raises(ValueError, match="`depth` must be an integer"):
        shape_activation("gelu", depth)
