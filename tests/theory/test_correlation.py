"""The correlation of two inputs: prediction, exact simulation and networks of real matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from theory_helpers import draw_matrices

from keras_rwinit.theory import (
    Activation,
    effective_rank,
    gain,
    predict_correlation,
    resolve_activation,
    simulate_correlation,
)
from keras_rwinit.theory._pair_two_slopes import close_step

Array = NDArray[np.float64]

SAMPLES = 2_000
WITHIN = 3.0  # standard errors


def brute_force_correlation(
    name: str, width: int, depth: int, correlation: float, samples: int, distribution: str, seed: int
) -> Array:
    """The correlation at every layer, shape (samples, depth), from networks with real matrices."""
    activation = resolve_activation(name, depth)
    used = gain(activation, width, depth, distribution=distribution)
    rng = np.random.default_rng(seed)
    x, y = np.linalg.qr(rng.standard_normal((samples, width, 2)))[0].transpose(2, 0, 1) * np.sqrt(width)
    h = np.stack([x, correlation * x + np.sqrt(1.0 - correlation**2) * y])
    found = np.empty((samples, depth))
    for d in range(depth):
        matrices = used * draw_matrices(rng, samples, width, distribution)
        h = activation.function(np.einsum("sij,psj->psi", matrices, h, optimize=True))
        lengths = np.linalg.norm(h, axis=2)
        found[:, d] = (h[0] * h[1]).sum(axis=1) / lengths.prod(axis=0)
    return found


def deviations(mean: Array, std: Array, drawn: Array) -> tuple[Array, Array]:
    """How far prediction and sample are apart in mean and standard deviation, in standard errors."""
    count, found = len(drawn), drawn.std(axis=0)
    fourth = ((drawn - drawn.mean(axis=0)) ** 4).mean(axis=0)
    relative_error = np.sqrt((fourth / found**4 - 1.0) / (4.0 * count))
    return (mean - drawn.mean(axis=0)) / (found / np.sqrt(count)), (std / found - 1.0) / relative_error


def layers_of(depth: int) -> list[int]:
    return sorted({depth // 4, depth // 2, depth - 1})


def check(name: str, width: int, depth: int, correlation: float, drawn: Array, distribution: str) -> None:
    predicted = predict_correlation(name, width, depth, correlation=correlation, distribution=distribution)
    # Two samples differ by sqrt(2) standard errors of one.
    within = WITHIN * (np.sqrt(2.0) if predicted.simulated else 1.0)
    in_mean, in_std = deviations(predicted.mean, predicted.std, drawn)
    assert np.abs(in_mean[layers_of(depth)]).max() < within
    assert np.abs(in_std[layers_of(depth)]).max() < within


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
@pytest.mark.parametrize("name", ["relu", "tanh", "shaped(relu)"])
def test_the_simulation_agrees_with_networks_of_matrices(name: str, distribution: str) -> None:
    # Two samples of 400 networks, whose means differ by sqrt(2) standard errors of one.
    width, depth, samples = 16, 5, 400
    real = brute_force_correlation(name, width, depth, 0.3, samples, distribution, seed=1)
    drawn = simulate_correlation(
        name, width, depth, correlation=0.3, samples=samples, distribution=distribution, seed=2
    )
    in_mean, in_std = deviations(real.mean(axis=0), real.std(axis=0), drawn)
    assert np.abs(in_mean).max() < WITHIN * np.sqrt(2.0)
    assert np.abs(in_std).max() < WITHIN * np.sqrt(2.0)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("relu", "normal"), ("leaky_relu", "normal"), ("shaped(relu)", "orthogonal"), ("relu", "orthogonal")],
)
def test_two_slopes_are_predicted(name: str, distribution: str) -> None:
    width, depth = 64, 8
    drawn = simulate_correlation(
        name, width, depth, correlation=0.5, samples=SAMPLES, distribution=distribution, seed=5
    )
    check(name, width, depth, 0.5, drawn, distribution)


def test_a_smooth_activation_is_predicted() -> None:
    assert not predict_correlation("tanh", 64, 4, correlation=0.5).simulated
    drawn = simulate_correlation("tanh", 64, 4, correlation=0.5, samples=400, seed=5)
    check("tanh", 64, 4, 0.5, drawn, "normal")


def test_a_wrong_slope_is_not_what_is_predicted() -> None:
    drawn = simulate_correlation("leaky_relu(0.3)", 64, 8, correlation=0.5, samples=SAMPLES, seed=5)
    wrong = predict_correlation("leaky_relu(0.2)", 64, 8, correlation=0.5)
    in_mean, _ = deviations(wrong.mean, wrong.std, drawn)
    assert np.abs(in_mean).max() > 2.0 * WITHIN


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "shaped(relu)", "shaped(gelu)"])
def test_networks_of_matrices_are_as_predicted(name: str) -> None:
    drawn = brute_force_correlation(name, 64, 6, 0.9, SAMPLES, "normal", seed=3)
    check(name, 64, 6, 0.9, drawn, "normal")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "depth", "correlation"),
    [
        ("relu", 64, 150, -0.5),
        ("leaky_relu", 128, 20, 0.99),
        ("shaped(relu)", 64, 50, 0.0),
        ("tanh", 64, 30, 0.9),
        pytest.param("leaky_relu", 256, 60, 0.99, marks=pytest.mark.exhaustive),
        pytest.param("shaped(relu)", 64, 200, 0.0, marks=pytest.mark.exhaustive),
        pytest.param("tanh", 64, 150, 0.9, marks=pytest.mark.exhaustive),
        pytest.param("shaped(gelu)", 64, 150, 0.0, marks=pytest.mark.exhaustive),
        pytest.param("shaped(gelu)", 512, 20, 0.99, marks=pytest.mark.exhaustive),
    ],
)
def test_deep_networks_are_as_predicted(name: str, width: int, depth: int, correlation: float) -> None:
    drawn = simulate_correlation(name, width, depth, correlation=correlation, samples=SAMPLES, seed=8)
    check(name, width, depth, correlation, drawn, "normal")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [("shaped(relu)", 64, 1000), ("shaped(gelu)", 64, 1000), ("tanh", 64, 1000), ("shaped(gelu)", 512, 300)],
)
def test_a_thousand_layers_are_as_predicted(name: str, width: int, depth: int) -> None:
    drawn = simulate_correlation(name, width, depth, correlation=0.5, samples=SAMPLES, seed=9)
    check(name, width, depth, 0.5, drawn, "normal")


@pytest.mark.parametrize(("slope", "orthogonal"), [(0.0, False), (0.5, False), (0.5, True), (0.0, True)])
def test_close_inputs_are_exact_at_small_width(slope: float, orthogonal: bool) -> None:
    # One layer of 12 units, straight from the definition of the angle between two inputs that are 1e-6 apart
    width, count = 12, 20_000
    u, v = np.random.default_rng(4).standard_normal((2, count, width))
    if orthogonal:
        v -= u * ((u * v).sum(axis=1) / (u * u).sum(axis=1))[:, None]
        v *= (np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))[:, None]
    if slope == 0.0:
        on = (u > 0).sum(axis=1) >= 2
        u, v = u[on], v[on]
    slopes = np.where(u > 0, 1.0, slope)
    h, difference = slopes * u, slopes * v
    across = difference - h * ((h * difference).sum(axis=1) / (h * h).sum(axis=1))[:, None]
    step = np.log(np.linalg.norm(across, axis=1) / np.linalg.norm(h, axis=1))
    exact = close_step((slope, 1.0), width, orthogonal)
    error = step.std() / np.sqrt(len(step))
    assert abs(step.mean() - exact.mean) < WITHIN * error
    kurtosis = ((step - step.mean()) ** 4).mean() / step.var() ** 2
    assert abs(step.var() / exact.variance - 1.0) < WITHIN * np.sqrt((kurtosis - 1.0) / len(step))
    first_order = -1.0 / width if slope == 0.0 else 0.0
    assert abs(step.mean() - first_order) > 2.0 * WITHIN * error or orthogonal


def test_relu_collapses_as_brute_force_says() -> None:
    # 200 layers of 20 units: ln sin(theta) falls by 14.3 from close inputs, not by the 3.1 of infinite width.
    step = close_step((0.0, 1.0), 20, orthogonal=False)
    noise = 200 * step.mean
    assert -13.0 < noise < -10.5
    active = np.arange(2, 21)
    weight = special.binom(20, active) / special.binom(20, active).sum()
    expected = weight @ (special.digamma((active - 1) / 2) - special.digamma(active / 2)) / 2.0
    assert step.mean == pytest.approx(expected, rel=1e-12)


def test_a_linear_network_keeps_the_angle_under_orthogonal_kernels_alone() -> None:
    kept = predict_correlation("linear", 64, 50, correlation=0.4, distribution="orthogonal")
    np.testing.assert_allclose(kept.mean, 0.4, atol=1e-9)
    np.testing.assert_allclose(kept.std, 0.0, atol=1e-6)
    assert predict_correlation("linear", 64, 50, correlation=0.4).std[-1] > 0.3


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.5)", "gelu"])
def test_mirrored_networks_have_one_law_at_all_layers(name: str) -> None:
    options: dict[str, Any] = {"correlation": 0.3, "distribution": "looks_linear"}
    predicted = predict_correlation(name, 64, 3, **options)
    assert predicted.simulated == (name == "gelu")
    drawn = simulate_correlation(name, 64, 3, samples=SAMPLES, seed=1, **options)
    in_mean, in_std = deviations(predicted.mean, predicted.std, drawn)
    within = WITHIN * (np.sqrt(2.0) if predicted.simulated else 1.0)
    assert np.abs(in_mean).max() < within
    assert np.abs(in_std).max() < within
    if name != "gelu":
        assert np.ptp(predicted.mean) == np.ptp(predicted.std) == 0.0


def test_equal_and_opposite_inputs() -> None:
    for name in ("relu", "tanh"):
        same = predict_correlation(name, 64, 2, correlation=1.0, gain=1.4)
        np.testing.assert_allclose(same.mean, 1.0, atol=1e-7)
    opposite = simulate_correlation("tanh", 32, 3, correlation=-1.0, samples=5, seed=0)
    np.testing.assert_allclose(opposite, -1.0, rtol=1e-12)


def test_what_cannot_be_followed_is_simulated() -> None:
    bent = predict_correlation("elu", 16, 4, correlation=0.2)
    assert bent.simulated
    again = predict_correlation(
        Activation("mine", resolve_activation("elu").function), 16, 4, correlation=0.2
    )
    np.testing.assert_allclose(bent.mean, again.mean, rtol=1e-2)
    bent.mean[0] = 0.0  # not the cached array
    assert predict_correlation("elu", 16, 4, correlation=0.2).mean[0] != 0.0


def test_the_same_seed_draws_the_same_networks() -> None:
    first, second = (simulate_correlation("relu", 8, 3, samples=4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_dead_networks_are_nan_from_there_on() -> None:
    drawn = simulate_correlation("relu", 2, 30, samples=50, seed=0)
    dead = np.isnan(drawn)
    assert dead[:, -1].mean() > 0.9
    assert (dead[:, 1:] >= dead[:, :-1]).all()


@pytest.mark.parametrize("correlation", [1.5, float("nan"), "0.5", True, None])
def test_a_wrong_correlation_is_named(correlation: Any) -> None:
    with pytest.raises(ValueError, match="`correlation` must be a number from -1 to 1"):
        predict_correlation("relu", 10, 10, correlation=correlation)


def test_effective_rank() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert effective_rank(directions) == pytest.approx(6.0)
    assert effective_rank(1e200 * directions[:3]) == pytest.approx(3.0)
    assert effective_rank(np.ones((4, 2, 3))) == pytest.approx(1.0)
    values = np.array([0.5, 0.3, 0.2])
    assert effective_rank(directions[:3] * values[:, None]) == pytest.approx(
        np.exp(-(values * np.log(values)).sum())
    )
    with pytest.raises(ValueError, match="a number that is not zero"):
        effective_rank(np.zeros((2, 2)))
