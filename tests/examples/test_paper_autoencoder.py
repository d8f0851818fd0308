"""The experiment with deep autoencoders: a quick run and its errors, and that it resumes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import data, model_zoo

PAPER = Path(__file__).parents[2] / "examples" / "paper"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PAPER)
    return importlib.import_module("autoencoder")


@pytest.fixture
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.mark.slow
def test_a_quick_run_and_its_restart(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "--output", str(tmp_path)]
    rows = experiment.main(arguments)
    assert [row["initializer"] for row in rows] == ["random_walk_orthogonal", "he_normal"]
    assert {row["seed"] for row in rows} == {1}
    walk, he = rows
    assert walk["training_error"] < 0.65 < he["training_error"] < 1.0
    for row in rows:
        assert row["test_error"] == pytest.approx(row["training_error"], abs=0.05)
    table = tmp_path / "autoencoder" / "results.csv"
    assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + 4 + 2
    picture = tmp_path / "autoencoder" / "picture.png"
    assert picture.read_bytes().startswith(b"\x89PNG")

    def refuse(*arguments: Any) -> None:
        raise AssertionError("was done already")

    monkeypatch.setattr(experiment, "train_autoencoder", refuse)
    written = table.read_bytes()
    picture.unlink()
    assert experiment.main(arguments) == rows
    assert table.read_bytes() == written
    assert picture.exists()


@pytest.mark.slow
def test_a_run_does_not_depend_on_earlier_runs(experiment: ModuleType, digits: data.Dataset) -> None:
    """The same run before and after another run on one compiled network gives the same numbers."""
    model = experiment.build_compiled(digits, 5, 16, 4, 32)
    errors = []
    for seed in (1, 2, 1):
        fresh = model_zoo.deep_autoencoder(5, 16, 4, input_shape=(64,), seed=seed)
        experiment.reset(model, fresh, digits)
        outputs = keras.ops.convert_to_numpy(model(digits.x_train[:1000]))
        assert np.sqrt(np.mean(outputs**2)) == pytest.approx(0.1, rel=1e-4)
        errors.append(experiment.train_autoencoder(model, digits, 0.003, 1, 32, seed))
    assert errors[2] == pytest.approx(errors[0], rel=1e-4)
    assert errors[1] != pytest.approx(errors[0], rel=1e-3)


def test_the_linear_reference_is_that_of_principal_components(
    experiment: ModuleType, digits: data.Dataset
) -> None:
    found = experiment.linear_errors(digits, 8)
    _, values, rows = np.linalg.svd(digits.x_train.astype(np.float64), full_matrices=False)
    assert found["training_error"] == pytest.approx((values[8:] ** 2).sum() / (values**2).sum(), rel=1e-6)
    rest = digits.x_test - digits.x_test @ rows[:8].T @ rows[:8]
    assert found["test_error"] == pytest.approx((rest**2).sum() / (digits.x_test**2.0).sum(), rel=1e-6)
    everything = experiment.linear_errors(digits, 64)
    assert everything["training_error"] == pytest.approx(0.0, abs=1e-9)


def test_the_rate_of_a_diverged_run_is_not_chosen(experiment: ModuleType) -> None:
    errors = {0.1: float("nan"), 0.2: 0.9, 0.3: 0.8, 0.4: 0.95}
    tried = [
        {"depth": 5, "initializer": "zeros", "rate": rate, "training_error": error}
        for rate, error in errors.items()
    ]
    assert [row["rate"] for row in experiment.best_rates(tried)] == [0.3]
