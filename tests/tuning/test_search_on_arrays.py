"""`tuning.search` on a user's arrays: labels and real targets, one process and several."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tuning_helpers import SHORT, few_digits, small_space, table_of

pytest.importorskip("keras_tuner")

import keras_tuner

from keras_rwinit import tuning
from keras_rwinit.tuning._data import load_data, load_saved_data, save_data, split_training_set
from keras_rwinit.tuning._losses import REGRESSION_LOSSES
from keras_rwinit.tuning._trainer import NetworkTrainer
from keras_rwinit.tuning.search_job import SearchJob
from keras_rwinit.tuning.settings import SearchOptions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
Y = X @ [[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]]


def regression(outputs: int = 1, **changed: Any) -> tuning.DeepMLPHyperModel:
    arguments: dict[str, Any] = {"depth": 2, "width": (8, 16), "activation": "relu", "loss": "mse", **changed}
    return tuning.DeepMLPHyperModel((3,), outputs, **arguments)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_labels_as_arrays_are_the_data_set_of_them(tmp_path: Path) -> None:
    few = few_digits()
    tuning.search(few, small_space(), directory=tmp_path / "set", trials=2, **SHORT)
    pair = (few.x_train.astype("float64"), few.y_train.astype("int64"))
    tuning.search(pair, small_space(), directory=tmp_path / "pair", trials=2, **SHORT)
    assert table_of(tmp_path / "set") == table_of(tmp_path / "pair")


def test_an_interruption_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchJob, "run", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"search\(\.\.\., directory='.*found', resume=True\)"):
        tuning.search((X, Y[:, 0]), regression(), directory=tmp_path / "found", trials=1)


def test_the_default_space_is_that_of_the_arrays() -> None:
    job = SearchJob((X.reshape(20, 4, 3).tolist(), [0, 1, 2, 3] * 5), None, SearchOptions())
    assert (job.hypermodel.input_shape, job.hypermodel.classes) == ((4, 3), 4)


@pytest.mark.slow
def test_the_score_is_the_metric_of_the_held_out_targets() -> None:
    """The same network, evaluated by hand."""
    options = SearchOptions(objective="val_mae", trials=1, **SHORT)
    job = SearchJob((X, Y), regression(2), options)
    built = []
    build = job.hypermodel.build

    def keep(*args: Any, **kwargs: Any) -> keras.Model:
        built.append(build(*args, **kwargs))
        return built[-1]

    job.hypermodel.build = keep  # type: ignore[method-assign]
    score = job.trainer.train(keras_tuner.HyperParameters(), seed=1)
    data = split_training_set(job.examples, 0)
    assert data.y_validation.shape == (16, 2)
    predicted = built[0].predict(data.x_validation, verbose=0)
    assert score == pytest.approx(float(np.abs(predicted - data.y_validation).mean()), rel=1e-5)


def test_one_target_is_a_column_of_targets() -> None:
    options = SearchOptions(trials=1, **SHORT)
    flat, column = (SearchJob((X, y), regression(), options).examples.y for y in (Y[:, 0], Y[:, :1]))
    assert (flat == column).all()
    assert flat.shape == (80, 1)


def test_a_larger_r2_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkTrainer, "train", lambda trainer, hp, seed: hp.get("gain_ratio"))
    result = tuning.search((X, Y), regression(2), objective="val_r2_score", trials=5, seeds=0)
    assert result.best is not None
    assert result.best.score == max(float(row.score or 0.0) for row in result)


def test_workers_read_the_same_arrays(tmp_path: Path) -> None:
    for space, targets in ((regression(2), Y), (None, np.arange(80) % 7)):
        examples, source = load_data((X, targets), space)
        directory = tmp_path / str(examples.outputs)
        directory.mkdir()
        save_data(examples, source, directory)
        read = load_saved_data(source, directory)
        for theirs, ours in ((read.x, examples.x), (read.y, examples.y)):
            assert theirs.dtype == ours.dtype
            assert (theirs == ours).all()


def test_a_resumed_search_has_the_same_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkTrainer, "train", lambda trainer, hp, seed: 1.0)
    arguments: dict[str, Any] = {"directory": tmp_path, "trials": 1, **SHORT}
    tuning.search((X, Y), regression(2), **arguments)
    tuning.search((X, Y), regression(2), **arguments, resume=True)
    changed = X.copy()
    changed[-1, -1] += 1e-3
    for other in ((changed, Y), (X, Y + 1e-3), (X[:-1], Y[:-1])):
        with pytest.raises(ValueError, match="has other settings: sha256 "):
            tuning.search(other, regression(2), **arguments, resume=True)
    with pytest.raises(ValueError, match="has other settings: loss 'mse', not 'mae'"):
        tuning.search((X, Y), regression(2, loss="mae"), **arguments, resume=True)


@pytest.mark.parametrize(
    ("data", "space", "objective", "message"),
    [
        ((X, Y), None, "val_loss", "`y` holds real numbers.*loss=.mse"),
        ((X, Y), regression(), "val_loss", "classes=2 to DeepMLPHyperModel"),
        ((X, Y[:-1]), regression(2), "val_loss", "equally many examples.*80 inputs and 79"),
        ((X, Y[:, :, None]), regression(), "val_loss", "`y` must have the shape"),
        ((X, Y * np.nan), regression(2), "val_loss", "`y` must be finite"),
        ((X * np.inf, Y), regression(2), "val_loss", "`x` must be finite"),
        ((X * 1e39, Y), regression(2), "val_loss", "`x` must hold numbers in the range of float32"),
        ((X, Y * 1e300), regression(2), "val_loss", "`y` must hold numbers in the range of float32"),
        ((X[:1], Y[:1]), regression(2), "val_loss", "at least two training examples"),
        ((X, Y), regression(2), "val_accuracy", "`objective` must be one of val_loss, loss, val_mse"),
        ((X, [0, 1] * 40), None, "val_mse", "`objective` must be one of val_loss, loss, val_accuracy"),
        ((X, Y), regression(2), "val_val_mse", "`objective`"),
        ((X, Y), regression(2), None, "`objective`"),
        ((X, Y, Y), regression(2), "val_loss", "`data` must be .*pair of arrays.*tuple"),
        (X, regression(), "val_loss", "`data` must be .*pair of arrays.*ndarray"),
        (X, Y, "val_loss", r"as a pair: search\(\(x, y\), hypermodel\)"),
        (few_digits(), small_space(loss="mse"), "val_loss", "few has labels: leave `loss` out"),
    ],
)
def test_bad_data_are_refused(data: Any, space: Any, objective: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuning.search(data, space, objective=objective, trials=1, **SHORT)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "MeanSquaredError", "", 0, [], abs])
def test_a_loss_that_is_none_of_a_regression_is_refused(loss: Any) -> None:
    with pytest.raises(ValueError, match=re.escape("`loss` must be one of mse, mae")):
        regression(loss=loss)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_loss_and_metric_of_a_regression_trains() -> None:
    targets = np.abs(Y)
    for loss in REGRESSION_LOSSES:
        model = regression(2, loss=loss).build(keras_tuner.HyperParameters())
        assert np.isfinite(model.evaluate(X, targets, verbose=0)).all()
    for metric in ("mse", "root_mean_squared_error", "r2_score"):
        result = tuning.search((X, Y), regression(2), objective=metric, trials=1, **SHORT)
        assert result.best is not None, result[0].reason


@pytest.mark.slow
@pytest.mark.exhaustive
def test_workers_search_on_arrays(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"objective": "val_mae", "trials": 2, **SHORT}
    tuning.search((X, Y), regression(2), directory=tmp_path / "two", workers=2, **arguments)
    tuning.search((X, Y), regression(2), directory=tmp_path / "one", **arguments)
    first = [table_of(tmp_path / name)[0] for name in ("two", "one")]
    assert first[0] == first[1]
    assert [row["status"] for row in table_of(tmp_path / "two")] == ["COMPLETED"] * 2
