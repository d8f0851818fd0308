"""`keras-rwinit walk`: of a fresh network and of a saved model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli_helpers import refusal, run_cli

from keras_rwinit import GradientWalk, data, gradient_walk, model_zoo
from keras_rwinit.optimizers import LayerwiseClipping

FILES = {"gradient_walk.json", "gradient_walk.png", "gradient_walk.txt"}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_model(path: Path, model: keras.Model) -> Path:
    model.save(path)
    return path


def test_a_fresh_network(directory: Path) -> None:
    finished = run_cli(
        "walk", "--depth", 12, "--width", 16, "--activation", "relu", "--seed", 3, "--examples", 7
    )
    assert (finished.code, finished.err) == (0, "")
    out = directory / "runs" / "walk-1"
    assert {path.name for path in out.iterdir()} == FILES
    walk = GradientWalk.load(out / "gradient_walk.json")
    examples = data.load("digits")
    model = model_zoo.deep_mlp(12, 16, "relu", input_shape=(64,), seed=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = gradient_walk(model, examples.x_test[:7], examples.y_test[:7], loss)
    np.testing.assert_array_equal(walk.backward, expected.backward)
    assert walk.prediction is not None
    table = (out / "gradient_walk.txt").read_text(encoding="utf-8")
    assert table in finished.out
    assert "hidden_stack[10]" in table
    assert (out / "gradient_walk.png").read_bytes().startswith(b"\x89PNG")
    run_cli("walk", "--depth", 3, "--width", 8)
    assert (directory / "runs" / "walk-2").is_dir()


@pytest.mark.slow
def test_another_initializer_vanishes(directory: Path) -> None:
    """200 layers at gain 1 lose 200 ln(sqrt 2) = 69 nats."""
    finished = run_cli(
        "walk", "--depth", 200, "--width", 16, "--initializer", "glorot_uniform", "--output", "[red]out"
    )
    assert "vanishing from" in finished.out
    assert finished.out.endswith("Written to [red]out\n")  # brackets are not markup
    assert GradientWalk.load(directory / "[red]out" / "gradient_walk.json").drift == pytest.approx(
        -0.38, abs=0.1
    )


@pytest.mark.slow
def test_glorot_kernels_of_tanh_are_not_fine() -> None:
    """The gradient shrinks by less than a factor of ten thousand, and by more than one of ten."""
    arguments = ("--depth", 1000, "--width", 64, "--activation", "tanh", "--initializer", "glorot_uniform")
    run_cli("walk", *arguments, "--output", "out")
    walk = GradientWalk.load(Path("out/gradient_walk.json"))
    assert re.fullmatch(r"shrinking from .* \(layer \d+ of 1000\) on", walk.verdict)


MODELS: dict[str, Any] = {
    "classifier": lambda: model_zoo.deep_mlp(4, 8, input_shape=(64,), classes=10, seed=0),
    "softmax": lambda: model_zoo.deep_mlp(4, 8, input_shape=(64,), classifier_activation="softmax", seed=0),
    "softmax layer": lambda: keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(10), keras.layers.Softmax()]
    ),
    "images": lambda: keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    ),
    "no classifier": lambda: keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(64)]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model(name: str, directory: Path) -> None:
    model = MODELS[name]()
    finished = run_cli(
        "walk", save_model(directory / "model.keras", model), "--output", "out", "--examples", 5
    )
    assert (finished.code, finished.err) == (0, "")
    examples = data.load("digits")
    x, y = examples.x_test[:5].reshape(-1, *model.input_shape[1:]), examples.y_test[:5]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits="softmax" not in name)
    expected = gradient_walk(model, x) if name == "no classifier" else gradient_walk(model, x, y, loss)
    walk = GradientWalk.load(directory / "out" / "gradient_walk.json")
    np.testing.assert_array_equal(walk.backward, expected.backward)


@pytest.mark.slow
def test_a_process_of_its_own_knows_what_the_package_registers(directory: Path) -> None:
    """A command imports only what it needs, and a saved model may hold any registered class."""
    model = model_zoo.deep_mlp(3, 16, "relu", input_shape=(64,), seed=0)
    model.compile(LayerwiseClipping("sgd"), "mse")
    model.save(directory / "model.keras")
    command = [sys.executable, "-m", "keras_rwinit", "walk", "model.keras", "--examples", "2"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert {path.name for path in (directory / "runs" / "walk-1").iterdir()} == FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.keras",), "There is no file absent.keras"),
        (("text.keras",), "Cannot load text.keras as a Keras model"),
        (("model.keras", "--depth", 3), "has its own layers: leave out --depth"),
        (("small.keras",), "takes inputs of shape (7,), and digits has 64 features"),
        (("indices.keras",), "No gradient passes the model's outputs"),
        (("--depth", 0), "--depth must be an integer of at least 1"),
        (("--depth", "many"), "it must be an integer. Received: many"),
        (("--examples", 0), "--examples must be"),
        (("--dataset", "absent"), "absent"),
        (("--initializer", "absent"), "absent"),
        (("--initializer", "initializer"), "initializer"),
        (("--initializer", "he_normal", "--distribution", "uniform"), "leave out one of the two"),
        (("--activation", "absent"), "absent"),
        (("--output", "full"), "full is not empty"),
    ],
)
def test_refusals(arguments: tuple[Any, ...], message: str, directory: Path) -> None:
    (directory / "text.keras").write_text("no model")
    (directory / "full").mkdir()
    (directory / "full" / "mine").write_text("mine")
    save_model(directory / "model.keras", MODELS["classifier"]())
    save_model(directory / "small.keras", keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]))
    inputs = keras.Input((64,))
    indices = keras.ops.cast(keras.layers.Dense(10)(inputs), "int32")
    save_model(directory / "indices.keras", keras.Model(inputs, indices))
    before = sorted(directory.rglob("*"))
    assert message in refusal("walk", *arguments)
    assert sorted(directory.rglob("*")) == before
