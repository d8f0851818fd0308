"""The study of physics-informed networks: its derivatives, references, search, quick run and page."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROOT = Path(__file__).parents[2]
PINN = ROOT / "examples" / "pinn"
PROBLEMS = ("poisson", "burgers", "allen_cahn")
FORMS = (
    "glorot",
    "near_identity",
    "walk",
    "adaptive",
    "glorot, sines",
    "near_identity, sines",
    "walk, sines",
    "gated, sines",
    "mirrored, sines",
    "mirrored slow, sines",
    "walk, all sines",
    "siren",
    "siren, signal",
)


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "paper"))
    monkeypatch.syspath_prepend(str(PINN))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def values_by(function: Callable[[Array], Any], points: Array) -> Array:
    """The jet of a function of points, shape (3 or 4, points): its values and their finite differences."""
    step = 1e-4

    def at(axis: int, times: int) -> Array:
        moved = points.copy()
        moved[:, axis] += times * step
        return np.asarray(function(moved), np.float64)

    center = at(0, 0)
    rows = [center, (at(0, 1) - at(0, -1)) / (2 * step), (at(0, 1) - 2 * center + at(0, -1)) / step**2]
    if points.shape[1] == 2:
        rows.append((at(1, 1) - at(1, -1)) / (2 * step))
    return np.stack(rows)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("inputs", [1, 2])
def test_the_derivatives_of_a_network_are_those_of_its_values(name: str, inputs: int) -> None:
    form, jets, descent = module("_forms").FORMS[name], module("_jets"), module("_descent")
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (7, inputs))
    # The frequencies of SIREN are too high for finite differences.
    weights = form.draw(inputs, 4, 0.1 if name.startswith("siren") else 1.5, 0)
    if name == "gated, sines":
        weights[6][:] = 0.3  # the blocks' shares, which begin at zero

    def run(points: Array) -> Array:
        with descent.double_precision():
            tensors = [keras.ops.convert_to_tensor(weight) for weight in weights]
            jet = form.apply(tensors, jets.from_inputs(keras.ops.convert_to_tensor(points)))
            return np.asarray(keras.ops.convert_to_numpy(jet))

    expected = values_by(lambda moved: run(moved)[0], points)
    np.testing.assert_allclose(run(points), expected, rtol=1e-5, atol=1e-5)


def nonlinear_share(name: str) -> float:
    """The share of a network that is no linear function of its sines, at its first weights."""
    form, jets, descent = module("_forms").FORMS[name], module("_jets"), module("_descent")
    points = np.linspace(-1.0, 1.0, 200)[:, None]
    weights = form.draw(1, 5, 4.0, 0)
    with descent.double_precision():
        tensors = [keras.ops.convert_to_tensor(weight) for weight in weights]
        u = form.apply(tensors, jets.from_inputs(keras.ops.convert_to_tensor(points)))[0]
        u = np.asarray(keras.ops.convert_to_numpy(u))
    sines = np.sin(points @ weights[0] + weights[1])
    fitted = sines @ np.linalg.lstsq(sines, u, rcond=1e-13)[0]
    return float(np.linalg.norm(u - fitted) / np.linalg.norm(u))


def test_gated_and_mirrored_networks_begin_as_linear_functions_of_the_sines() -> None:
    assert nonlinear_share("gated, sines") < 1e-9
    assert nonlinear_share("mirrored, sines") < 1e-9
    assert nonlinear_share("mirrored slow, sines") < 1e-9
    assert nonlinear_share("walk, sines") > 1e-6


@pytest.mark.parametrize("problem", PROBLEMS)
def test_base_and_factor_have_the_derivatives_of_their_values(problem: str) -> None:
    known = module("_problems").PROBLEMS[problem]
    points = known.sample(16)
    for function in (known.base, known.factor):
        expected = values_by(lambda moved, of=function: of(moved)[0], points)
        np.testing.assert_allclose(function(points), expected, atol=1e-5)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_conditions_hold_whatever_the_network_is(problem: str) -> None:
    known = module("_problems").PROBLEMS[problem]
    at_ends = np.array([[-1.0], [1.0]]) if problem == "poisson" else np.array([[-1.0, 0.3], [1.0, 0.7]])
    np.testing.assert_allclose(known.factor(at_ends)[0], 0.0)
    np.testing.assert_allclose(known.base(at_ends)[0], -1.0 if problem == "allen_cahn" else 0.0, atol=1e-12)
    if problem != "poisson":
        x = np.linspace(-1.0, 1.0, 9)
        start = np.stack([x, np.zeros(9)], axis=1)
        np.testing.assert_allclose(known.factor(start)[0], 0.0)
        values = {"burgers": -np.sin(np.pi * x), "allen_cahn": x**2 * np.cos(np.pi * x)}
        np.testing.assert_allclose(known.base(start)[0], values[problem], atol=1e-12)


def residual_of(problem: str, points: Array, jet: Array) -> Array:
    known, descent = module("_problems").PROBLEMS[problem], module("_descent")
    with descent.double_precision():
        residual = known.residual(points, keras.ops.convert_to_tensor(jet))
        return np.asarray(keras.ops.convert_to_numpy(residual))


def test_the_references_solve_the_equations() -> None:
    """Finite differences of the known solutions have no residual; those of wrong ones have."""
    problems = module("_problems")
    x = np.linspace(-0.9, 0.9, 11)[:, None]
    jet = values_by(lambda moved: problems._wave(moved[:, 0]), x)
    assert np.abs(residual_of("poisson", x, jet)).max() < 1e-5
    assert np.abs(residual_of("poisson", x, 1.01 * jet)).max() > 1e-3
    points = np.stack([np.linspace(-0.9, 0.9, 10), np.linspace(0.1, 0.9, 10)], axis=1)
    jet = values_by(problems.solve_burgers, points)
    assert np.abs(residual_of("burgers", points, jet)).max() < 1e-4
    assert np.abs(residual_of("burgers", points, 1.01 * jet)).max() > 5e-3


def test_the_shock_is_as_steep_as_in_the_literature() -> None:
    """Basdevant et al., Computers & Fluids 14 (1986): a slope of -152.00516 at t = 1.6037 / pi."""
    step = 1e-5
    points = np.array([[-step, 1.6037 / np.pi], [step, 1.6037 / np.pi]])
    below, above = module("_problems").solve_burgers(points)
    assert (above - below) / (2 * step) == pytest.approx(-152.00516, rel=1e-4)


def test_the_solution_of_allen_cahn_is_that_of_finite_differences() -> None:
    problems = module("_problems")
    x = np.linspace(-1.0, 1.0, 401)
    u, step = x**2 * np.cos(np.pi * x), 1e-3

    def change(u: Array) -> Array:
        moved = 5.0 * (u - u**3)
        moved[1:-1] += problems.DIFFUSION * (u[2:] - 2.0 * u[1:-1] + u[:-2]) / (x[1] - x[0]) ** 2
        moved[[0, -1]] = 0.0
        return moved

    rows = []
    for number in range(1, 1001):  # the midpoint rule
        u = u + step * change(u + step / 2 * change(u))
        if number % 50 == 0:
            rows.append(u[::2])
    found = problems.solve_allen_cahn().reshape(20, 201)
    # The differences are of second order, with an error of about 1e-3 where u is steep.
    np.testing.assert_allclose(found, rows, atol=5e-3)
    assert np.abs(found - np.roll(rows, 1, axis=1)).max() > 5e-2


@pytest.mark.backends
def test_the_gradient_is_that_of_the_loss_to_double_precision() -> None:
    comparison, descent = module("_comparison"), module("_descent")
    network = comparison.Network(module("_problems").PROBLEMS["poisson"], "walk, sines", 3, 16)
    vector = descent.pack(network.draw(1.0, 1))
    direction = np.random.default_rng(0).standard_normal(len(vector))

    def loss(step: float) -> float:
        return float(network.evaluate(vector + step * direction)[0])

    h = 1e-4
    slope = (8.0 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12.0 * h)
    assert network.evaluate(vector)[1] @ direction == pytest.approx(slope, rel=1e-8)


def test_both_optimizers_find_a_minimum() -> None:
    descent = module("_descent")
    sizes = np.array([1.0, 10.0, 100.0])

    def evaluate(vector: Array) -> tuple[float, Array]:
        return float(0.5 * sizes @ (vector - 1.0) ** 2), sizes * (vector - 1.0)

    start = np.zeros(3)
    np.testing.assert_allclose(descent.l_bfgs(evaluate, start, 50), 1.0, atol=1e-6)
    np.testing.assert_allclose(descent.adam(evaluate, start, 0.05, 500), 1.0, atol=1e-2)
    # Adam's first step has the length of the rate in every coordinate.
    np.testing.assert_allclose(descent.adam(evaluate, start, 0.05, 1), 0.05, rtol=1e-6)


def test_adam_is_that_of_keras() -> None:
    descent = module("_descent")
    variable = keras.Variable(np.zeros(3, np.float32))
    rates = [0.01 * 0.5 * (1.0 + math.cos(math.pi * step / 20)) for step in range(20)]
    optimizer = keras.optimizers.Adam(0.01, epsilon=1e-8)
    sizes = np.array([1.0, 10.0, 100.0])
    for rate in rates:
        optimizer.learning_rate = rate
        gradient = sizes * (keras.ops.convert_to_numpy(variable) - 1.0)
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [variable])

    def evaluate(vector: Array) -> tuple[float, Array]:
        return 0.0, sizes * (vector - 1.0)

    found = descent.adam(evaluate, np.zeros(3), 0.01, 20)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(variable), rtol=1e-4)


def test_the_search_finds_the_best_of_two_ladders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = module("_comparison")

    def bowl(run: dict[str, Any]) -> dict[str, float]:
        away = (math.log10(run["rate"] / 1e-2)) ** 2 + (math.log2(run["input_scale"] / 0.25)) ** 2
        return {"test_loss": math.inf if run["rate"] > 2e-2 else away}

    monkeypatch.setattr(comparison, "train", bowl)
    experiment = module("_experiment").Experiment("some", tmp_path, False, None, "")
    chosen = comparison.search(experiment, {"network": "some"})
    assert (chosen["rate"], chosen["input_scale"]) == (1e-2, 0.25)

    monkeypatch.setattr(comparison, "train", lambda run: {"test_loss": run["rate"]})
    with pytest.raises(ValueError, match="came to the end of a ladder"):
        comparison.search(experiment, {"network": "other"})


@pytest.mark.slow
@pytest.mark.backends
def test_a_quick_run_and_its_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisson, arguments = module("poisson"), ["--quick", "--output", str(tmp_path)]
    rows = poisson.main(arguments)
    glorot, walk = rows
    assert walk["network"] == "walk, sines"
    assert walk["error"] < 0.1 * glorot["error"]
    directory = tmp_path / "poisson"
    assert {path.name for path in directory.iterdir()} == {"results.csv", "picture.png"}
    assert (directory / "picture.png").read_bytes().startswith(b"\x89PNG")
    written = (directory / "results.csv").read_bytes()
    monkeypatch.setattr(module("_comparison"), "train", lambda run: pytest.fail("was done already"))
    assert len(poisson.main(arguments)) == len(rows)
    assert (directory / "results.csv").read_bytes() == written
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["burgers", "allen_cahn"])
def test_the_other_problems_run(problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = module(problem).main(["--quick", "--output", str(tmp_path)])
    assert all(row["loss"] < row["adam_loss"] for row in rows)
    assert all(0.0 < row["error"] < 1.0 for row in rows)
    capsys.readouterr()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_result_has_the_best_settings_of_the_search(problem: str) -> None:
    """No setting next to those chosen has a smaller test loss with the seed of the search."""
    comparison, experiment = module("_comparison"), module("_experiment")
    rows = experiment.read(PINN / "results" / problem / "results.csv")
    keys = ("network", "depth", "rate", "input_scale")
    losses = {tuple(row[key] for key in keys): row["test_loss"] for row in rows if row["seed"] == 0}
    chosen = {tuple(row[key] for key in keys) for row in rows if row["seed"] != 0}
    assert chosen
    for network, depth, rate, scale in chosen:
        at, along = comparison.RATES.index(rate), comparison.SCALES.index(scale)
        neighbors = [(network, depth, comparison.RATES[at + step], scale) for step in (-1, 1)]
        neighbors += [(network, depth, rate, comparison.SCALES[along + step]) for step in (-1, 1)]
        best = losses[network, depth, rate, scale]
        assert all(not losses[neighbor] < best for neighbor in neighbors)


def test_the_page_agrees_with_the_tables() -> None:
    page = module("write_page")
    assert page.PAGE.read_text(encoding="utf-8") == page.make_page(), "run examples/pinn/write_page.py"


@pytest.mark.slow
def test_the_recipe_of_the_page_gives_a_network_of_the_signals_frequency() -> None:
    """Of 20 networks the mean number of zeros is that of Rice's formula, within three standard errors."""
    page = (ROOT / "docs" / "studies" / "pinn.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    x, counts = np.linspace(-1.0, 1.0, 400, dtype=np.float32)[:, None], []
    for seed in range(20):
        keras.utils.set_random_seed(seed)
        names: dict[str, Any] = {}
        exec(compile(block, "pinn.md", "exec"), names)
        u = keras.ops.convert_to_numpy(names["model"](x))[:, 0]
        counts.append(np.count_nonzero(np.diff(np.sign(u))))
    error = np.std(counts, ddof=1) / len(counts) ** 0.5
    assert abs(np.mean(counts) - 2.0 * names["frequency"] / np.pi) < 3.0 * error
    assert error < 0.5
