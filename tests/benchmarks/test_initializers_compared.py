"""The initializations that `benchmarks/initializers_compared.py` compares."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
L = keras.layers


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("initializers_compared")


def chain() -> keras.Model:
    """Returns kernels fed by the data, relu, tanh and a sum of a linear layer and itself."""
    inputs = keras.Input((12,))
    h = L.Dense(12, "relu")(inputs)
    h = L.Dense(12, "tanh")(h)
    h = L.Dense(12)(h)
    return keras.Model(inputs, L.Dense(12)(L.Add()([h, h])))


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(w) for w in model.get_weights() if w.ndim == 2]


def test_each_kernel_gets_the_gain_of_what_feeds_it(benchmark: ModuleType) -> None:
    """All singular values of an orthogonal kernel are its gain."""
    model = chain()
    x = np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
    benchmark.slope_aware("orthogonal")(model, x, 3)
    for kernel, gain in zip(kernels(model), (1.0, 2.0**0.5, 1.0, 1.0), strict=True):
        np.testing.assert_allclose(np.linalg.svd(kernel)[1], gain, rtol=1e-5)
    first, _, third, last = kernels(model)
    assert not np.allclose(first, third)
    assert not np.allclose(third, last)
    for loss, wanted in (
        (keras.losses.MeanSquaredError(), 0.3),
        (keras.losses.CategoricalCrossentropy(), 1.0),
    ):
        model.compile("adam", loss)
        benchmark.scaled(benchmark.slope_aware("orthogonal"))(model, x, 3)
        assert np.sqrt(np.mean(np.square(model.predict(x, verbose=0)))) == pytest.approx(wanted, rel=1e-5)
    for before, after in zip((first, third), (kernels(model)[0], kernels(model)[2]), strict=True):
        np.testing.assert_array_equal(after, before)


def test_without_anyinit_its_rows_are_left_out(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    left = benchmark.available()
    assert "AnyInit is not installed" in capsys.readouterr().out
    assert len(left) == len(benchmark.INITIALIZATIONS) - 2
    assert not any("anyinit" in name for name in left)


@pytest.mark.slow
def test_training_is_that_of_single_steps(benchmark: ModuleType) -> None:
    """The loss is the mean over the last tenth of the steps, on the batches of the seed."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 12)).astype(np.float32)
    model = chain()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    start = model.get_weights()
    benchmark.reset(model, start)
    found = benchmark.train(model, x, x, 0.01, 20, 5)
    benchmark.reset(model, start)
    model.optimizer.learning_rate.assign(0.01)
    rng = np.random.default_rng(5)
    losses = []
    for _ in range(20):
        batch = rng.choice(100, benchmark.BATCH, replace=False)
        losses.append(float(model.train_on_batch(x[batch], x[batch])))
    assert found == pytest.approx(np.mean(losses[-2:]), rel=1e-4)


def test_differences_count_in_standard_errors(benchmark: ModuleType) -> None:
    rows = {
        "other": {"losses": [2.0, 3.0, 4.0]},
        "diverged": {"losses": [2.0, float("inf"), 4.0]},
        "failed": {"error": "ValueError"},
        "own": {"losses": [1.0, 1.0, 1.0]},
    }
    expected = {"other": pytest.approx(2.0 * 3.0**0.5), "diverged": float("inf"), "own": 0.0}
    assert benchmark.differences(rows) == expected


def test_the_default_is_the_reference(benchmark: ModuleType) -> None:
    assert list(benchmark.INITIALIZATIONS)[-1] == "initialize(model, x)"


@pytest.mark.parametrize(
    ("best", "tried", "at_an_end"),
    [
        (3e-4, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], False),
        (3e-5, [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2], False),
        (3e-2, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1], False),
        (1.0, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1], True),
    ],
)
def test_the_grid_extends_while_the_best_rate_stands_at_its_end(
    benchmark: ModuleType, best: float, tried: list[float], at_an_end: bool
) -> None:
    def loss_at(rate: float) -> float:
        return float(abs(np.log(rate / best)))

    rate, losses = benchmark.best_rate(loss_at, benchmark.GRID, benchmark.EXTENSION)
    assert list(losses) == tried
    assert rate == (tried[-1] if at_an_end else best)
    row = {"learning_rate": rate, "trial_losses": losses}
    assert benchmark.stands_at_an_end(row) == at_an_end
    row |= {"losses": [1.0, 1.0], "drifts": [0.0, 0.0], "seconds": 1.0}
    assert ("stands at an end" in benchmark.describe_row("net", "row", row)) == at_an_end


def test_a_grid_without_a_finite_loss_ends(benchmark: ModuleType) -> None:
    rate, losses = benchmark.best_rate(lambda rate: float("inf"), benchmark.GRID, benchmark.EXTENSION)
    assert rate == 1e-4
    assert len(losses) == 5


def test_a_run_goes_on_from_the_rows_of_its_file(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stopped in its third row, and run again."""
    trained: list[str] = []

    def row(self: object, draw: object) -> dict[str, object]:
        name = next(name for name, value in benchmark.INITIALIZATIONS.items() if value is draw)
        if len(trained) == 2:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(name)
        losses = [float("inf"), 1.0] if name == "he_normal" else [2.0, 1.0]
        return {
            "learning_rate": 1e-3,
            "trial_losses": {1e-3: 1.0},
            "losses": losses,
            "drifts": [0.0, 0.0],
            "seconds": 1.0,
        }

    monkeypatch.setattr(benchmark.Comparison, "row", row)
    monkeypatch.setattr(benchmark.Comparison, "__init__", lambda self, *arguments: None)
    path = tmp_path / "results.json"
    arguments = ["--quick", "--only", "gelu", "--output", str(path)]
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(arguments)
    assert list(json.loads(path.read_text())["networks"]["gelu"]["initializations"]) == trained[:2]
    benchmark.main(arguments)
    assert [name for name in trained if name != "stopped"] == list(benchmark.available())
    found = json.loads(path.read_text())["networks"]["gelu"]
    assert list(found["initializations"]) == list(benchmark.available())
    assert found["initializations"]["he_normal"]["losses"] == [None, 1.0]
    with pytest.raises(SystemExit):
        benchmark.main(arguments[1:])


def test_the_networks_are_the_seven_that_the_page_names(benchmark: ModuleType) -> None:
    assert set(benchmark.NETWORKS) == {
        *("tapering", "autoencoder", "residual", "convolutional"),
        *("tanh", "gelu", "pooled"),
    }


def test_the_page_has_the_recorded_tables(benchmark: ModuleType) -> None:
    recorded = json.loads((BENCHMARKS / "results" / "initializers_compared.json").read_text(encoding="utf-8"))
    page = (BENCHMARKS.parent / "docs" / "comparisons.md").read_text(encoding="utf-8")
    networks = recorded["networks"]
    of_convolutions = {name: networks[name] for name in ("convolutional", "pooled")}
    of_layers = {name: network for name, network in networks.items() if name not in of_convolutions}
    assert set(networks) == set(benchmark.NETWORKS)
    assert benchmark.markdown(of_layers) in page
    assert benchmark.markdown(of_convolutions) in page
    for network in networks.values():
        rows = network["initializations"]
        assert network["differences"] == pytest.approx(benchmark.differences(rows))
        assert all(len(row["losses"]) >= 3 for row in rows.values())
