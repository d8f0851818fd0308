"""The declared properties of every distribution against draws from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from keras_rwinit.theory import DISTRIBUTIONS, gain, predict_walk, simulate_walk
from keras_rwinit.theory.distributions import Distribution, draw_kernel

Array = NDArray[np.float64]

every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
SHAPE = (500, 400)
BOUND = 4.0  # standard errors; with 12 comparisons of correct draws one fails in 1,300 cases


def draw(distribution: Distribution) -> Array:
    """200,000 entries, seed 0."""
    return distribution.draw(np.random.default_rng(0), *SHAPE).ravel()


def kurtosis_in_standard_errors(entries: Array, declared: float) -> float:
    """Sample excess kurtosis less the declared one, in standard errors.

    The standard error is that of the delta method: with k the kurtosis, the mean over the entries of
    `z^4 - k - 2 k (z^2 - 1)` is the sampling error of `mean z^4 / (mean z^2)^2`.
    """
    squares = entries**2 / (entries**2).mean()
    kurtosis = (squares**2).mean()
    influence = squares**2 - kurtosis - 2.0 * kurtosis * (squares - 1.0)
    return float((kurtosis - 3.0 - declared) / (influence.std() / np.sqrt(len(entries))))


@every_distribution
def test_mean_and_variance_of_the_entries(distribution: Distribution) -> None:
    """Mean 0 and variance 1; a variance of 1.02 is told apart."""
    entries = draw(distribution)
    assert abs(entries.mean()) < BOUND / np.sqrt(entries.size)
    standard_error = np.sqrt((2.0 + distribution.excess_kurtosis) / entries.size)
    assert abs((entries**2).mean() - 1.0) < BOUND * standard_error
    assert abs(1.02 * (entries**2).mean() - 1.0) > BOUND * standard_error


@every_distribution
def test_declared_kurtosis(distribution: Distribution) -> None:
    assert abs(kurtosis_in_standard_errors(draw(distribution), distribution.excess_kurtosis)) < BOUND


@every_distribution
@pytest.mark.parametrize("error", [-0.1, 0.1])
def test_wrong_kurtosis_is_noticed(distribution: Distribution, error: float) -> None:
    """Twin: a declaration that is off by 0.1."""
    assert abs(kurtosis_in_standard_errors(draw(distribution), distribution.excess_kurtosis + error)) > BOUND


@every_distribution
def test_declared_structure(distribution: Distribution) -> None:
    """Entries are normal (Kolmogorov-Smirnov) unless independent; kernels are isometries or mirrored."""
    normal = bool(stats.kstest(draw(distribution), "norm").pvalue > 0.001)
    kernel = draw_kernel(distribution, np.random.default_rng(1), 60, 40)
    isometry = np.allclose(kernel.T @ kernel, np.eye(40), atol=1e-12)
    mirrored = np.array_equal(kernel[:30], -kernel[30:])
    found = (
        "independent" if not normal else "orthogonal" if isometry else "mirrored" if mirrored else "gaussian"
    )
    assert found == distribution.structure


@every_distribution
@pytest.mark.parametrize("shape", [(60, 60), (80, 40), (40, 80)], ids=["square", "tall", "wide"])
def test_kernels_have_variance_one_over_fan_in(distribution: Distribution, shape: tuple[int, int]) -> None:
    """20 kernels of one generator; the sum of squares of an orthogonal one has no error at all."""
    rng = np.random.default_rng(2)
    kernels = np.stack([draw_kernel(distribution, rng, *shape) for _ in range(20)])
    standard_error = np.sqrt((2.0 + distribution.excess_kurtosis) / kernels.size)
    assert kernels.shape[1:] == shape
    assert abs(shape[0] * (kernels**2).mean() - 1.0) < BOUND * standard_error
    assert abs(kernels.mean()) < BOUND / np.sqrt(shape[0] * kernels.size)


def test_truncated_normal_has_the_moments_of_scipy() -> None:
    reference = stats.truncnorm(-2.0, 2.0)
    distribution = DISTRIBUTIONS["truncated_normal"]
    assert distribution.excess_kurtosis == pytest.approx(float(reference.stats("k")), rel=1e-13)
    assert abs(draw(distribution)).max() <= 2.0 / reference.std() * (1.0 + 1e-14)
    # The quantile at probability 1/4 turns the scale into a number that can be compared exactly.
    ours = np.quantile(distribution.draw(np.random.default_rng(3), *SHAPE), 0.25)
    uniform = np.quantile(np.random.default_rng(3).uniform(size=SHAPE), 0.25)
    assert ours == pytest.approx(float(reference.ppf(uniform)) / float(reference.std()), rel=1e-4)


def three_point(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """0 in two of three cases, else +-sqrt 3: variance 1 and the kurtosis of a normal variable, 3."""
    values = np.array([0.0, 0.0, 0.0, 0.0, -np.sqrt(3.0), np.sqrt(3.0)])
    return values[rng.integers(6, size=(rows, columns))]


@pytest.mark.parametrize(("structure", "dead"), [("independent", 2.0 / 3.0), ("gaussian", 0.0)])
def test_the_structure_decides_how_a_distribution_is_simulated(
    monkeypatch: pytest.MonkeyPatch, structure: Any, dead: float
) -> None:
    """A kernel of one entry passes no gradient where the entry is 0; 2000 networks, 4 standard errors.

    Twin: the same distribution declared as Gaussian is simulated with normal entries, which are never 0.
    """
    distribution = Distribution(
        name="three_point", draw=three_point, structure=structure, excess_kurtosis=0.0
    )
    monkeypatch.setitem(DISTRIBUTIONS, "three_point", distribution)
    walks = simulate_walk("linear", 1, 2, samples=2000, distribution="three_point", seed=4)
    share = np.isneginf(walks[:, 0]).mean()
    assert abs(share - dead) <= 4.0 * np.sqrt(dead * (1.0 - dead) / 2000)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_delta_orthogonal_is_orthogonal_in_chains_of_matrices(activation: str) -> None:
    one, other = (
        (
            [gain(activation, 12, 4, distribution=name)],
            predict_walk(activation, 12, 4, distribution=name).std,
            simulate_walk(activation, 12, 4, samples=3, distribution=name, seed=3),
        )
        for name in ("delta_orthogonal", "orthogonal")
    )
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_one_entry_of_the_table_is_all_that_a_new_distribution_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = Distribution(
        name="three_point", draw=three_point, structure="independent", excess_kurtosis=0.0
    )
    monkeypatch.setitem(DISTRIBUTIONS, "three_point", distribution)
    assert gain("relu", 50, distribution="three_point") == gain("relu", 50)
    assert predict_walk("tanh", 50, 10, distribution="three_point").spread > 0.0
    with pytest.raises(ValueError, match="one of normal, .*, three_point. Received: 'four_point'"):
        gain("relu", 50, distribution="four_point")


@pytest.mark.parametrize("missing", ["name", "draw", "structure", "excess_kurtosis"])
def test_no_field_has_a_default(missing: str) -> None:
    fields = {"name": "own", "draw": three_point, "structure": "independent", "excess_kurtosis": 0.0}
    del fields[missing]
    with pytest.raises(TypeError, match=missing):
        Distribution(**fields)  # type: ignore[arg-type]


def test_contradictory_declarations() -> None:
    uniform = DISTRIBUTIONS["uniform"]
    with pytest.raises(
        ValueError, match="one of gaussian, independent, orthogonal, mirrored. Received: 'sparse'"
    ):
        dataclasses.replace(uniform, structure="sparse")  # type: ignore[arg-type]
    for structure in ("gaussian", "orthogonal", "mirrored"):
        with pytest.raises(ValueError, match="use 'independent' for all others.*excess_kurtosis=-1.2"):
            dataclasses.replace(uniform, structure=structure)  # type: ignore[arg-type]
