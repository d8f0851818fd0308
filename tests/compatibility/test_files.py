"""What an earlier version left in files is read, and what it began is gone on with, to the same results."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import GradientWalk, data

from .make_files import FILES, described_presets, fit_again, outputs_of
from .make_values import environment

MADE_HERE = environment() == json.loads((FILES / "made_with.json").read_text(encoding="utf-8"))
ROUNDING = 1e-6 if MADE_HERE else 1e-5  # of float32, relative to the largest output
TRAINED = 1e-5
"""Relative difference that rounding may make in a loss after a few steps of training."""

MODELS: dict[str, Any] = json.loads((FILES / "models/expected.json").read_text(encoding="utf-8"))
WALKS: dict[str, Any] = json.loads((FILES / "walks/expected.json").read_text(encoding="utf-8"))
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the run began on the TensorFlow back end"
)


def run_command(*arguments: object) -> str:
    """What `python -m keras_rwinit ARGUMENTS`, in this process, printed; it must end without an error."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["keras-rwinit", *map(str, arguments)])
        try:
            runpy.run_module("keras_rwinit", run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == 0, err.getvalue()
    return out.getvalue()


def copy_recorded(name: str, tmp_path: Path) -> Path:
    """A copy of a recorded directory to work in."""
    return Path(shutil.copytree(FILES / name, tmp_path / name))


def contents_of(directory: Path) -> dict[str, bytes]:
    """The files of a run, its lock left out."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".lock"}


def rows_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_rows(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """Compares tables: numbers to rounding, all else as it is; columns may have been added."""
    assert len(found) == len(expected)
    for row, recorded in zip(found, expected, strict=True):
        for column, value in recorded.items():
            try:
                number = float(value)
            except ValueError:
                assert row[column] == value, column
            else:
                assert float(row[column]) == pytest.approx(number, rel=TRAINED, abs=1e-9, nan_ok=True), column


def check_outputs(found: list[Any], expected: list[Any], tolerance: float) -> None:
    """Compares outputs, relative to the largest."""
    largest = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance * largest)


@pytest.mark.parametrize("name", MODELS)
def test_models_load_and_compute_the_same(name: str) -> None:
    model = keras.saving.load_model(FILES / "models" / name)
    assert model.count_params() == MODELS[name]["parameters"]
    check_outputs(outputs_of(model, MODELS[name]["inputs"]), MODELS[name]["outputs"], ROUNDING)


@on_tensorflow
@pytest.mark.parametrize("name", [name for name in MODELS if "outputs_after_another_epoch" in MODELS[name]])
def test_fitted_models_go_on_with_their_optimizer(name: str) -> None:
    model = keras.saving.load_model(FILES / "models" / name)
    fit_again(model)
    found = outputs_of(model, MODELS[name]["inputs"])
    check_outputs(found, MODELS[name]["outputs_after_another_epoch"], TRAINED)
    assert found != MODELS[name]["outputs"]


@pytest.mark.parametrize("name", WALKS)
def test_walks_load(name: str, tmp_path: Path) -> None:
    expected = WALKS[name]
    walk = GradientWalk.load(FILES / f"walks/{name}.json")
    assert list(walk.layer_names) == expected["layer_names"]
    assert walk.verdict == expected["verdict"]
    if name == "not_finite":  # the recorded version had nan for examples without a gradient
        assert np.isfinite(walk.drift)
    else:
        np.testing.assert_equal(walk.drift, float(expected["drift"]))
    np.testing.assert_array_equal(walk.backward, np.asarray(expected["backward"], float))
    np.testing.assert_array_equal(walk.weight_gradient, np.asarray(expected["weight_gradient"], float))
    walk.save(tmp_path / "again.json")
    again = GradientWalk.load(tmp_path / "again.json")
    for field in ("backward", "forward", "weight_gradient", "dead"):
        np.testing.assert_array_equal(getattr(again, field), getattr(walk, field))
    assert again.dtype == walk.dtype


def test_a_walk_has_its_prediction() -> None:
    path = FILES / "walks/with_prediction.json"
    prediction = GradientWalk.load(path).prediction
    recorded = json.loads(path.read_text(encoding="utf-8"))["prediction"]
    assert prediction is not None
    assert (prediction.gain, prediction.dead_probability) == (recorded["gain"], recorded["dead_probability"])
    assert (prediction.mean.tolist(), prediction.std.tolist()) == (recorded["mean"], recorded["std"])


@pytest.mark.slow
@on_tensorflow
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    directory = copy_recorded("train_interrupted", tmp_path)
    printed = run_command("train", "--resume", "--output", directory)
    assert not re.search(r"random_walk .*\b1/2\b", printed)  # the first epoch is in the checkpoint
    assert re.search(r"random_walk .*\b2/2\b", printed)
    found, expected = rows_of(directory / "history.csv"), rows_of(FILES / "train_interrupted.csv")
    assert found[0] == expected[0]
    check_rows(found, expected)
    assert contents_of(directory).keys() >= {"model.keras", "report.json", "settings.json"}
    assert not list(directory.glob("*.npz"))


@on_tensorflow
@pytest.mark.parametrize("later", [(), ("strategy", "input_gain", "output_gain", "bias_stddev")])
def test_a_finished_run_is_finished(later: tuple[str, ...], tmp_path: Path) -> None:
    """Also one of a version that did not have all of today's settings."""
    pytest.importorskip("matplotlib")
    directory = copy_recorded("train_finished", tmp_path)
    settings = json.loads((directory / "settings.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in later}
    (directory / "settings.json").write_text(json.dumps(kept), encoding="utf-8")
    before = contents_of(directory)
    assert "finished" in run_command("train", "--resume", "--output", directory)
    assert contents_of(directory) == before


def test_the_model_of_a_finished_run_predicts_as_reported() -> None:
    directory, digits = FILES / "train_finished", data.load("digits")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    outputs = np.asarray(outputs_of(keras.saving.load_model(directory / "model.keras"), digits.x_test))
    accuracy = float((outputs.argmax(axis=1) == digits.y_test).mean())
    assert accuracy == pytest.approx(report["networks"]["random_walk"]["test_accuracy"], abs=1e-6)


@pytest.mark.slow
@on_tensorflow
def test_an_interrupted_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    pytest.importorskip("keras_tuner")
    pytest.importorskip("matplotlib")
    directory = copy_recorded("tune_interrupted", tmp_path)
    ended = [(directory / f"trials/trial_{trial}/outcome.json").read_bytes() for trial in (0, 1)]
    run_command("tune", "--resume", "--output", directory)
    assert [(directory / f"trials/trial_{trial}/outcome.json").read_bytes() for trial in (0, 1)] == ended
    found, expected = rows_of(directory / "trials.csv"), rows_of(FILES / "tune_interrupted.csv")
    assert [bool(row["reason"]) for row in found] == [bool(row.pop("reason")) for row in expected]
    check_rows(found, expected)
    summary = json.loads((directory / "trials.json").read_text(encoding="utf-8"))["summary"]
    assert summary.startswith("Best val_loss")


def test_presets_are_the_same() -> None:
    recorded = json.loads((FILES / "presets.json").read_text(encoding="utf-8"))
    found = described_presets()
    assert set(recorded) <= set(found)
    for name, preset in recorded.items():
        assert (found[name]["parameters"], found[name]["config"]) == (preset["parameters"], preset["config"])
        assert found[name]["recipe"].items() >= preset["recipe"].items(), name
