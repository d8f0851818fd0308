"""`keras-rwinit train`: what a run leaves, and that nothing stops it for good."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli_helpers import (
    FILES,
    Finished,
    Stop,
    contents_of,
    files_in,
    refusal,
    report_of,
    run_cli,
    run_until,
)

import keras_rwinit
from keras_rwinit import data
from keras_rwinit._files import locked
from keras_rwinit.models import model_zoo
from keras_rwinit.models.model_zoo import deep_mlp
from keras_rwinit.training import run as training_run
from keras_rwinit.training.loop import compile_classifier, reset_compile_options
from keras_rwinit.training.strategies.base import KerasLoop

SMALL = ("train", "--depth", 12, "--width", 16, "--epochs", 3, "--batch", 256)


def weights_of(directory: Path) -> list[Any]:
    weights: list[Any] = keras.saving.load_model(directory / "model.keras").get_weights()
    return weights


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which commands run."""
    directory = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield directory


@pytest.fixture(scope="module")
def first(home: Path) -> tuple[Finished, Path]:
    """A small run into the directory that the command chooses."""
    return run_cli(*SMALL), home / "runs/train-1"


@pytest.fixture(scope="module")
def undisturbed(first: tuple[Finished, Path]) -> Path:
    """Directory of a run that nothing has interrupted."""
    assert first[0].code == 0
    return first[1]


@pytest.fixture(scope="module")
def with_biases(first: tuple[Finished, Path], home: Path) -> Path:
    """Directory of a second unnamed run, with random biases and hardly any training."""
    options = ("--no-compare", "--bias-stddev", 0.1, "--learning-rate", 1e-30, "--epochs", 1)
    assert run_cli(*SMALL, *options).code == 0
    return home / "runs/train-2"


def test_says_little_and_leaves_six_files(first: tuple[Finished, Path]) -> None:
    finished, directory = first
    assert (finished.code, finished.err) == (0, "")
    assert files_in(directory) == FILES
    epochs = [line for line in finished.out.splitlines() if " epoch " in line]
    assert len(epochs) == 6
    assert f"Written to {Path('runs/train-1')}" in finished.out


@pytest.mark.parametrize("name", ["training.png", "gradient_walk.png"])
def test_pictures_are_pictures(name: str, first: tuple[Finished, Path]) -> None:
    image = pytest.importorskip("matplotlib.image").imread(first[1] / name)
    assert image.shape[0] > 300
    assert image.shape[1] > 500
    assert image.std() > 0.01


def test_history_has_a_line_an_epoch(first: tuple[Finished, Path]) -> None:
    with open(first[1] / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, str(epoch)) for name in ("random_walk", "glorot_uniform") for epoch in (1, 2, 3)]
    assert [(row["network"], row["epoch"]) for row in rows] == expected
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])


def test_model_loads_and_predicts_as_reported(first: tuple[Finished, Path]) -> None:
    directory, digits = first[1], data.load("digits")
    outputs = keras.saving.load_model(directory / "model.keras").predict(digits.x_test, verbose=0)
    accuracy = float((outputs.argmax(axis=1) == digits.y_test).mean())
    reported = report_of(directory)["networks"]["random_walk"]
    assert accuracy == pytest.approx(reported["test_accuracy"], abs=1e-6)


def test_report_holds_settings_plan_and_results(first: tuple[Finished, Path]) -> None:
    directory = first[1]
    report = report_of(directory)
    assert report["settings"] == json.loads((directory / "settings.json").read_text(encoding="utf-8"))
    assert report["settings"]["depth"] == 12
    walk = keras_rwinit.predict_walk("tanh", 16, 12, distribution="orthogonal")
    assert report["plan"]["gain"] == walk.gain
    assert report["plan"]["predicted_spread_nats"] == walk.std[0]
    assert report["plan"]["parameters"] == keras.saving.load_model(directory / "model.keras").count_params()
    assert [network["diverged"] for network in report["networks"].values()] == [False, False]
    drift = report["networks"]["random_walk"]["measured_drift_nats_per_layer"]
    assert abs(drift) < 5.0 * walk.std[0] / 11  # a draw's own drift: one standard deviation is std / steps


def test_unnamed_runs_are_numbered(undisturbed: Path, with_biases: Path, home: Path) -> None:
    assert {path.name for path in (home / "runs").iterdir()} >= {"train-1", "train-2"}
    assert files_in(undisturbed) == files_in(with_biases) == FILES


def test_resuming_a_finished_run_changes_nothing(undisturbed: Path) -> None:
    before = contents_of(undisturbed)
    for options in (("--output", undisturbed), ()):
        finished = run_cli("train", "--resume", *options)
        assert (finished.code, finished.err) == (0, "")
        assert "is finished; nothing is left to do" in finished.out
    assert contents_of(undisturbed) == before
    assert files_in(undisturbed) == FILES


STOPS = [
    Stop("checkpoint-random_walk.npz", 1, "half written"),
    Stop("checkpoint-random_walk.npz", 2, "before its renaming"),
    Stop("model.keras", 1, "half written"),
    Stop("checkpoint-glorot_uniform.npz", 2, "half written"),
    Stop("report.json", 1, "before its renaming"),
    Stop("checkpoint-random_walk.npz", 1, "before its deletion"),
]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stops", [[STOPS[0], STOPS[-1]], STOPS], ids=["twice", "at every moment"])
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    stops: list[Stop], undisturbed: Path, tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("forkserver")  # imports TensorFlow once for all of them
    processes.set_forkserver_preload(["keras_rwinit.commands.train", "pytest"])
    directory = tmp_path / "killed"
    arguments = [*SMALL, "--output", directory]
    for stop in stops:
        process = processes.Process(target=run_until, args=(stop, [str(part) for part in arguments]))
        process.start()
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL, stop
        arguments = ["train", "--resume", "--output", directory]
    assert run_cli(*arguments).code == 0
    assert (directory / "history.csv").read_bytes() == (undisturbed / "history.csv").read_bytes()
    for weight, expected in zip(weights_of(directory), weights_of(undisturbed), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert report_of(directory)["networks"] == report_of(undisturbed)["networks"]
    assert files_in(directory) == FILES


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    """One line, 130, and a run that goes on; meanwhile no other process gets at the directory."""
    directory = tmp_path / "run"
    options = ("--output", directory, "--no-compare", "--epochs", 8)
    command = [sys.executable, "-m", "keras_rwinit", *map(str, (*SMALL, *options))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(" epoch " in line for line in process.stdout)
        process.send_signal(signal.SIGSTOP)
        assert "Another process is at work" in refusal("train", "--resume", "--output", directory)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    again = f"keras-rwinit train --resume --output {directory}"
    assert err == f"keras-rwinit: interrupted; continue with {again}\n"
    assert err.count("\n") == 1
    finished = run_cli("train", "--resume", "--output", directory)
    assert (finished.code, finished.err) == (0, "")
    assert " epoch 1/8" not in finished.out
    assert files_in(directory) == FILES


def test_two_at_once_in_one_directory(undisturbed: Path) -> None:
    with locked(undisturbed):
        line = refusal("train", "--resume", "--output", undisturbed)
    assert f"Another process is at work on the run in {undisturbed}" in line


def test_a_new_run_keeps_off_one_that_began_meanwhile(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands started together can both find the directory empty."""
    before = contents_of(undisturbed)
    monkeypatch.setattr("keras_rwinit.commands.train.new_directory", lambda *args, **kwargs: undisturbed)
    with locked(undisturbed):
        assert "Another process is at work" in refusal(*SMALL, "--seed", 5)
    assert contents_of(undisturbed) == before
    assert "not empty" in refusal(*SMALL, "--seed", 5)
    assert contents_of(undisturbed) == before


@pytest.mark.slow
def test_what_is_not_finite_is_said_and_can_be_shown_again(tmp_path: Path) -> None:
    """A network that diverges, compared with one whose gradient is dead from the start."""
    options = ("--activation", "relu", "--learning-rate", 1e30, "--compare", "zeros", "--epochs", 3)
    finished = run_cli(*SMALL, *options, "--output", tmp_path / "run")
    assert (finished.code, finished.err) == (0, "")
    networks = report_of(tmp_path / "run")["networks"]
    assert networks["random_walk"]["diverged"] is True
    assert networks["random_walk"]["loss"] is None
    assert networks["random_walk"]["epoch"] < 3
    assert networks["zeros"]["measured_drift_nats_per_layer"] is None
    again = run_cli("train", "--resume", "--output", tmp_path / "run")
    assert (again.code, again.err) == (0, "")
    assert "diverged" in again.out


def test_other_settings_are_refused_on_resuming(undisturbed: Path) -> None:
    before = contents_of(undisturbed)
    line = refusal("train", "--resume", "--output", undisturbed, "--seed", 0, "--no-compare")
    assert "leave out --seed, --no-compare" in line
    assert contents_of(undisturbed) == before


def test_another_back_end_is_refused_on_resuming(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = keras.backend.backend()
    monkeypatch.setattr(training_run.keras.backend, "backend", lambda: "another")
    assert f"set KERAS_BACKEND={own}" in refusal("train", "--resume", "--output", undisturbed)


def test_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "name its directory with --output" in refusal("train", "--resume")
    Path("empty").mkdir()
    for name in ("empty", "absent"):
        line = refusal("train", "--resume", "--output", name)
        assert f"There is no run to resume in {name}" in line
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's graphs")
def test_long_runs_are_compiled_by_xla() -> None:
    """From 1e12 operations on; six a weight, example and step."""
    model = deep_mlp(3, 32, "tanh", input_shape=(64,), seed=0)
    short = int(1e12 / (6 * model.count_params() * 32))
    assert not compile_classifier(model, "adam", 1e-3, batch_size=32, steps=short).jit_compile
    assert compile_classifier(model, "adam", 1e-3, batch_size=32, steps=short + 1).jit_compile
    kept = reset_compile_options(model)
    assert (kept.jit_compile, kept.steps_per_execution) == (False, 1)


@pytest.mark.slow
def test_several_steps_at_once_change_no_number() -> None:
    """Short steps are run eight at a time; the rows are those of single ones, and every step is counted."""
    digits, results = data.load("digits"), []
    for settings in ({}, {"batch_size": 100, "steps": 30}):
        model = deep_mlp(10, 32, "tanh", input_shape=(64,), seed=0)
        compile_classifier(model, "adam", 1e-3, **settings)
        assert model.steps_per_execution == (8 if settings and keras.backend.backend() != "torch" else 1)
        counted: list[int] = []
        loop = KerasLoop(model, 100, lambda counted=counted: counted.append(1))
        rows = [loop.fit(digits.x_train, digits.y_train, epoch) for epoch in range(2)]
        results.append((rows, loop.evaluate(digits.x_test, digits.y_test), len(counted)))
    assert results[0] == results[1]
    assert results[0][2] == 2 * 15  # of 1437 examples


@pytest.mark.slow
def test_a_preset_is_network_and_recipe_where_nothing_else_is_said(home: Path) -> None:
    directory = home / "[red]preset"
    preset = model_zoo.presets["mnist_leaky_relu_1000"]
    options = ("--depth", 3, "--dataset", "digits", "--epochs", 1, "--output-gain", 2.0, "--no-compare")
    rate = ("--learning-rate", 2.5e-5)  # the preset's own, which is for 1000 layers
    finished = run_cli("train", "--preset", "mnist_leaky_relu_1000", *options, *rate, "--output", directory)
    assert finished.out.endswith(f"Written to {directory}\n")  # brackets are not markup
    settings = report_of(directory)["settings"]
    said = {"depth": 3, "dataset": "digits", "epochs": 1, "output_gain": 2.0, "compare": None, "seed": 0}
    config = {name: value for name, value in preset.config.items() if name not in ("depth", "input_shape")}
    recipe = {"learning_rate": 2.5e-5, "batch_size": 128, "cosine_decay": True, "optimizer": "adam"}
    assert settings.items() >= {**config, **recipe, **said}.items()
    model = keras.saving.load_model(directory / "model.keras")
    assert model.get_layer("hidden_1").activation.negative_slope == 0.9
    untrained = model_zoo.from_preset(
        "mnist_leaky_relu_1000", depth=3, input_shape=(64,), seed=0, output_gain=2.0
    )
    # One epoch at this learning rate moves the classifier's kernel by little beside its scale.
    kernel = untrained.get_layer("classifier").get_weights()[0]
    assert np.abs(model.get_layer("classifier").get_weights()[0] - kernel).max() < 0.01 * np.abs(kernel).max()


def test_a_run_with_random_biases_is_recorded(with_biases: Path) -> None:
    assert report_of(with_biases)["settings"]["bias_stddev"] == 0.1
    untrained = model_zoo.deep_mlp(
        12, 16, "tanh", input_shape=(64,), distribution="orthogonal", bias_stddev=0.1, seed=0
    )
    for weight, expected in zip(weights_of(with_biases), untrained.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-7)
    assert "--bias-stddev must" in refusal(*SMALL, "--bias-stddev", 0)
