"""Hostile calls of what measures and sets models, and damaged files of what they save."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hostile import Target, damage_json, draw_calls, find_fault, mostly

from keras_rwinit import GradientWalk, gradient_walk, initialize, model_zoo
from keras_rwinit.training.settings import Settings

tuning = pytest.importorskip("keras_rwinit.tuning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype("float32")
FLOAT64 = X.astype("float64")
DATA = mostly(
    (X, X.tolist(), FLOAT64, X * 1e30, X.astype("int32"), X > 0),
    *(FLOAT64 * 1e307, X * np.nan, X[:0], X[0], X[:, :5], [X], {"input": X}, X[..., None], X.astype(str)),
    *(X.astype(object), X + 1j, "digits"),
)
LABELS = mostly(
    (None, [0, 1, 2, 0], np.eye(4, 3)), [0, 1], [0, 1, 2, 9], [0.5] * 4, X, ["a"] * 4, np.full(4, -1)
)
LOSSES = mostly(
    (None, "sparse_categorical_crossentropy", "mse", keras.losses.Huber()), "mes", len, [None], {"a": "mse"}
)
WEIGHTS = mostly(
    (None, None, [1, 2, 3, 4], [0] * 4), [1.0, 2.0], [np.nan] * 4, [-1] * 4, "ones", np.ones((4, 3))
)


def small_models() -> tuple[Any, ...]:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(6, "relu", name="hidden")(inputs)
    normalized = keras.layers.BatchNormalization()(hidden)
    return (
        model_zoo.deep_mlp(3, 6, input_shape=(6,), classes=3, seed=0),
        model_zoo.deep_mlp(2, 6, input_shape=(6,), classes=3, seed=0, stacked=False),
        keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Dropout(0.5)(normalized))),
        keras.Model(inputs, [hidden, keras.layers.Dense(1)(hidden)]),
        keras.Model(inputs, keras.layers.Activation("relu")(inputs)),
        keras.Sequential([keras.layers.Dense(3)]),
        keras.Sequential(),
        keras.layers.Dense(3),
        keras.Model,
    )


def walk_of_numbers(result: GradientWalk, arguments: Mapping[str, Any]) -> str | None:
    """All that a walk can be asked for is answered."""
    result.summary()
    good = result.verdict and isinstance(repr(result), str)
    return None if good else f"returns {result.backward}"


def finite_kernels(result: Any, arguments: Mapping[str, Any]) -> str | None:
    str(result)
    good = all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in arguments["model"].weights)
    return None if good else "leaves weights that are not finite"


def loader(name: str, load: Callable[[Path], Any]) -> Callable[..., Any]:
    """Returns a function that writes text to a file `name` and loads it."""

    def load_text(**arguments: str) -> Any:
        (text,) = arguments.values()
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name
            path.write_bytes(text.encode("latin-1", "surrogatepass") if text.isascii() else text.encode())
            return load(path)

    load_text.__name__ = f"load_{name}"
    return load_text


def saved_walk() -> Any:
    model = model_zoo.deep_mlp(3, 6, input_shape=(6,), classes=3, seed=0)
    return json.loads(json.dumps(gradient_walk(model, X).to_dict()).replace("Infinity", '"inf"'))


def saved_settings() -> Any:
    settings = Settings(
        "digits", None, 3, 8, "relu", "normal", "random_walk", None, "adam", 1e-3, True, 8, 1, 0, "jax"
    )
    return dataclasses.asdict(settings)


def saved_search() -> Any:
    space = tuning.DeepMLPHyperModel((6,), 3, depth=3, width=[8, 16], activation=["relu", "tanh"])
    options = tuning.settings.SearchOptions()
    source = tuning.search_job.load_data((X, [0, 1, 2, 0]), space)[1]
    return dataclasses.asdict(tuning.settings.SearchSettings.from_options(options, source, space))


def answers_all(result: Any, arguments: Mapping[str, Any]) -> str | None:
    """Settings that are loaded can be used."""
    if isinstance(result, tuning.settings.SearchSettings):
        result.make_hypermodel().declare_hyperparameters(keras_tuner_values())
    return None


def keras_tuner_values() -> Any:
    import keras_tuner

    return keras_tuner.HyperParameters()


def file_targets(count: int, seed: int) -> tuple[Target, ...]:
    """Returns targets that load files, `count` damaged ones of each kind."""
    return (
        Target(
            loader("walk.json", GradientWalk.load),
            {"walk": damage_json(saved_walk(), count, seed)},
            walk_of_numbers,
            0.0,
        ),
        Target(
            loader("settings.json", lambda path: Settings.load(path.parent)),
            {"settings": damage_json(saved_settings(), count, seed)},
            answers_all,
            0.0,
        ),
        Target(
            loader("settings.json", lambda path: tuning.settings.SearchSettings.load(path.parent)),
            {"settings": damage_json(saved_search(), count, seed)},
            answers_all,
            0.0,
        ),
    )


@functools.cache
def make_targets() -> tuple[Target, ...]:
    """Returns the functions to call; the models that they take are made once."""
    models = small_models()
    return (
        Target(
            gradient_walk,
            {
                "model": mostly(models[:5], *models[5:]),
                "x": DATA,
                "y": LABELS,
                "loss": LOSSES,
                "sample_weight": WEIGHTS,
                "training": (False, True),
            },
            walk_of_numbers,
            0.03,
            may_warn=True,
        ),
        Target(
            initialize,
            {
                "model": mostly(models[:5], *models[5:]),
                "x": (*[None] * 60, *DATA),
                "distribution": ("normal", "orthogonal", "looks_linear", "uniform"),
                "seed": mostly((None, 0), -3, 10**30),
                "layers": mostly(
                    (None, None, [models[0].layers[-1]]),
                    (),
                    ["hidden"],
                    ["hidden", "hidden"],
                    "hidden",
                    ["nowhere"],
                ),
            },
            finite_kernels,
            0.03,
            may_warn=True,
        ),
    )


SEEDS = [
    (4, 0),
    *(pytest.param(24, seed, marks=pytest.mark.slow) for seed in range(1, 3)),
    *(pytest.param(600, seed, marks=[pytest.mark.slow, pytest.mark.exhaustive]) for seed in range(100, 105)),
]


@pytest.mark.parametrize(("count", "seed"), SEEDS)
def test_hostile_calls(count: int, seed: int) -> None:
    faults = [fault for call in draw_calls(make_targets(), count, seed) if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("count", "seed"), SEEDS)
def test_damaged_files(count: int, seed: int) -> None:
    targets = file_targets(10 * count, seed)
    faults = [fault for call in draw_calls(targets, 30 * count, seed) if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)
