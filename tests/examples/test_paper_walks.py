"""The experiments on the walk itself: their quick runs, that they resume, and their fits."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("matplotlib")

DIRECTORY = Path(__file__).parents[2] / "examples" / "paper"
STEPS = np.array([8, 16, 32, 64])


@pytest.fixture
def sample_walks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DIRECTORY)
    return importlib.import_module("sample_walks")


@pytest.fixture
def optimal_gain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DIRECTORY)
    return importlib.import_module("optimal_gain")


def refuse(*_: object) -> None:
    raise AssertionError("run again")


@pytest.mark.slow
def test_sample_walks_run_and_are_not_run_again(
    sample_walks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "--output", str(tmp_path)]
    found = sample_walks.main(arguments)
    # 300 samples: one of four intervals of 95 % may miss; four standard errors are missed once in 16,000.
    for fit in found["exponents"]:
        assert abs(fit["exponent"] - fit["expected"]) < 4.0 * fit["exponent_error"] < 0.11
    drift = {row["initializer"]: row["drift"] for row in found["networks"]}
    assert drift["glorot_uniform"] < -5.0 < drift["random_walk"] < 5.0  # predicted: 30 layers lose 10 nats
    for picture in ("picture.png", "exponents.png"):
        assert (tmp_path / "sample_walks" / picture).read_bytes().startswith(b"\x89PNG")
    for work in ("simulate", "fit_exponent", "measure_network"):
        monkeypatch.setattr(sample_walks, work, refuse)
    again = sample_walks.main(arguments)
    for table, rows in found.items():
        for row, same in zip(rows, again[table], strict=True):
            assert row.items() <= same.items()  # what a row does not have is empty in the table


@pytest.mark.slow
def test_optimal_gain_runs_and_is_not_run_again(
    optimal_gain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "--output", str(tmp_path)]
    found = optimal_gain.main(arguments)
    # At width 100 theory is within the noise of thousands of networks; these are 10,000 and 2,000.
    for row in found["points"]:
        assert abs(row["deviation"]) < 4.0
        assert row["gain_error"] < 0.005
    drift = {(row["initializer"], row["depth"]): row["drift"] for row in found["baselines"]}
    assert all(abs(drift["random_walk", depth]) < 1e-4 for depth in (10, 100, 1000))
    assert drift["he_normal", 1000] > 10.0
    assert drift["glorot_uniform", 1000] < -5.0
    assert (tmp_path / "optimal_gain" / "picture.png").read_bytes().startswith(b"\x89PNG")
    for work in ("compute_gain", "simulate_gain", "predict_baseline"):
        monkeypatch.setattr(optimal_gain, work, refuse)
    again = optimal_gain.main(arguments)
    assert again == found


def fit_of(sample_walks: ModuleType, walks: list[np.ndarray]) -> dict[str, float]:
    spreads = [sample_walks.spread(values) for values in walks]
    return sample_walks.fit_exponent(STEPS, *np.transpose(spreads))


def test_the_interval_holds_the_exponent_of_walks_and_not_that_of_straight_lines(
    sample_walks: ModuleType,
) -> None:
    """10,000 walks of Laplace steps, whose fourth moment is not the normal one; and, as a twin, lines."""
    rng = np.random.default_rng(0)
    walk = fit_of(sample_walks, [rng.laplace(size=(10_000, n)).sum(axis=1) for n in STEPS])
    line = fit_of(sample_walks, [n * rng.laplace(size=10_000) for n in STEPS])
    assert walk["low"] < 0.5 < walk["high"]
    assert line["low"] < 1.0 < line["high"]
    assert walk["high"] - walk["low"] < 0.05
    assert not line["low"] < 0.5 < line["high"]


@pytest.mark.parametrize("kind", ["standard_normal", "laplace"])
def test_the_interval_holds_the_exponent_as_often_as_it_says(sample_walks: ModuleType, kind: str) -> None:
    """In 400 fits to samples of 2,000; three standard errors of a share of 95 % are 0.033.

    With the error of a normal sample, `std / sqrt(2 n)`, the twin, Laplace samples are within it only 78 %
    of the time.
    """
    rng = np.random.default_rng(1)
    inside, inside_if_normal = 0, 0
    for _ in range(400):
        samples = [n**0.5 * getattr(rng, kind)(size=2000) for n in STEPS]
        std, error = np.transpose([sample_walks.spread(values) for values in samples])
        fit = sample_walks.fit_exponent(STEPS, std, error)
        inside += fit["low"] < 0.5 < fit["high"]
        fit = sample_walks.fit_exponent(STEPS, std, std / 4000**0.5)
        inside_if_normal += fit["low"] < 0.5 < fit["high"]
    assert abs(inside / 400 - 0.95) < 0.033
    if kind == "laplace":
        assert abs(inside_if_normal / 400 - 0.95) > 0.033


def test_the_deviation_of_walks_is_that_of_single_examples(sample_walks: ModuleType) -> None:
    """Networks of deviation 1, examples of deviation 0.75 within each: 1.25 together.

    The mean square of 2,000 estimates from ten networks of 16 examples is that variance, within four standard
    errors. The deviation of the means alone, the twin, is too small.
    """
    rng = np.random.default_rng(5)
    walks = rng.standard_normal((2000, 10, 1)) + 0.75 * rng.standard_normal((2000, 10, 16))
    means, within = walks.mean(axis=2), walks.var(axis=2, ddof=1)
    found = []
    for drifts, variances in zip(means, within, strict=True):
        of_networks = zip(drifts, variances, strict=True)
        rows = [{"drift": drift, "example_variance": v, "examples": 16} for drift, v in of_networks]
        found.append(sample_walks.deviation_of_walks(rows) ** 2)
    error = np.std(found) / 2000**0.5
    assert abs(np.mean(found) - 1.25**2) < 4.0 * error
    assert abs(means.var(axis=1, ddof=1).mean() - 1.25**2) > 4.0 * error


def test_a_dead_gradient_has_no_spread(sample_walks: ModuleType) -> None:
    with pytest.raises(ValueError, match="The gradient became zero in a network; use wider layers."):
        sample_walks.spread([0.1, -np.inf, 0.2])


def test_the_root_of_means_and_its_error(optimal_gain: ModuleType) -> None:
    """Of 2,000 noisy parabolas with a root at 0.01: the errors given are those found, to 5 %.

    The standard deviation of 2,000 has a standard error of 1.6 %.
    """
    x = optimal_gain.RATIOS
    means, errors = 100.0 * (x - 0.01) + 500.0 * (x - 0.01) ** 2, np.linspace(0.1, 0.3, len(x))
    rng = np.random.default_rng(2)
    found = np.array(
        [
            optimal_gain.root_of_means(x, means + errors * rng.standard_normal(len(x)), errors)
            for _ in range(2000)
        ]
    )
    assert abs(found[:, 0].mean() - 0.01) < 4.0 * found[:, 0].std() / 2000**0.5
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.05)


def test_means_that_do_not_cross_zero_have_no_root(optimal_gain: ModuleType) -> None:
    with pytest.raises(ValueError, match="must cross zero once"):
        optimal_gain.root_of_means(optimal_gain.RATIOS, np.full(5, 0.3), np.full(5, 0.1))
