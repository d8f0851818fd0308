"""Makes the directory `files`: what a version of the package wrote, for later versions to read.

Every file is written by the public interface or the command line, and none is edited by hand. The interrupted
runs are of processes that were killed by signal 9, at the moment that `INTERRUPTED` says. To record another
version, delete `files` and, with that version installed, run in the directory of the tests
`KERAS_BACKEND=tensorflow python -m compatibility.make_files`; then `git add -f` the checkpoint, since
`.gitignore` names `*.npz`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.optimizers import LayerwiseClipping

from .make_values import environment

FILES = Path(__file__).with_name("files")
LARGEST_PICTURE = 20_000  # bytes

Array = NDArray[np.float32]

TRAIN = ("train", "--depth", "3", "--width", "8", "--activation", "relu", "--batch", "512")
TUNE = ("tune", "--depth", "3", "--width", "8:16", "--epochs", "1", "--batch", "512", "--seeds", "0")
COMMANDS: dict[str, tuple[str, ...]] = {
    "train_finished": (*TRAIN, "--epochs", "1"),
    "train_interrupted": (*TRAIN, "--epochs", "2"),
    "tune_interrupted": (*TUNE, "--trials", "4"),
}
INTERRUPTED = {
    "train_interrupted": "checkpoint-random_walk.npz",  # one epoch of two, of the first network of two
    "tune_interrupted": "trial_2/trial.json",  # two trials have ended, the third has begun
}
"""End of the path of the file after whose first writing the process was killed."""

_KILLED = """
import os, runpy, signal, sys

replace, end = os.replace, sys.argv.pop(1)

def stopping_replace(source, target):
    replace(source, target)
    if str(target).replace(os.sep, "/").endswith(end):
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = stopping_replace
sys.argv[0] = "keras-rwinit"
runpy.run_module("keras_rwinit", run_name="__main__")
"""


def examples(features: tuple[int, ...]) -> Array:
    """The inputs whose outputs are recorded."""
    return np.random.default_rng(0).standard_normal((4, *features)).astype(np.float32)


def targets(model: keras.Model) -> Array:
    """What the fitted model learns."""
    return np.random.default_rng(1).standard_normal((4, *model.output_shape[1:])).astype(np.float32)


def _mlp(**options: Any) -> keras.Model:
    return model_zoo.deep_mlp(**{"depth": 6, "width": 8, "input_shape": (6,), "classes": 3, **options})


def _by_string_ids() -> keras.Model:
    dense = keras.layers.Dense
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            dense(8, kernel_initializer="random_walk_linear"),
            dense(8, "relu", kernel_initializer="random_walk_relu"),
            dense(8, "tanh", kernel_initializer=RandomWalk("tanh", depth=50, seed=2)),
            dense(8, "tanh", kernel_initializer="random_walk_tanh"),
            dense(8, keras.layers.LeakyReLU(0.2), kernel_initializer=RandomWalk(keras.layers.LeakyReLU(0.2))),
            dense(3, kernel_initializer="random_walk"),
        ],
        name="by_string_ids",
    )


def _stack_with_settings() -> keras.Model:
    stack = DenseStack(
        4,
        activation=keras.layers.LeakyReLU(0.2),
        kernel_initializer=RandomWalk(keras.layers.LeakyReLU(0.2), distribution="uniform", seed=1),
        kernel_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(3.0, axis=0),
        use_bias=False,
        remat=2,
    )
    return keras.Sequential([keras.Input((6,)), stack], name="stack_with_settings")


def _chain() -> keras.Model:
    layers = [
        keras.layers.Dense(8, "relu", kernel_initializer=RandomWalk("relu", seed=seed)) for seed in range(4)
    ]
    classifier = keras.layers.Dense(3, kernel_initializer=RandomWalk("linear", seed=4))
    return DeepSequential([*layers, classifier], input_shape=(6,), name="chain")


def _fitted(optimizer: Any, **options: Any) -> keras.Model:
    model = _mlp(seed=9, **options)
    model.compile(optimizer, "mse")
    model.fit(examples((6,)), targets(model), batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model


MODELS: Mapping[str, Callable[[], keras.Model]] = {
    "relu.keras": lambda: _mlp(activation="relu", seed=1),
    "tanh_orthogonal.keras": lambda: _mlp(activation="tanh", distribution="orthogonal", seed=2),
    "plain.keras": lambda: _mlp(activation="tanh", distribution="orthogonal", stacked=False, seed=3),
    "leaky_relu.keras": lambda: _mlp(activation="leaky_relu(0.9)", seed=4),
    "elu.keras": lambda: _mlp(activation="elu(0.5)", distribution="orthogonal", seed=5),
    "remat.keras": lambda: _mlp(activation="tanh", distribution="orthogonal", remat="sqrt", seed=6),
    "biases.keras": lambda: _mlp(bias_stddev=0.1, input_gain=0.01, output_gain=100.0, seed=7),
    "images.keras": lambda: _mlp(input_shape=(3, 2), classifier_activation="softmax", seed=8),
    "autoencoder.keras": lambda: model_zoo.deep_autoencoder(
        depth=6, width=8, bottleneck=2, input_shape=(6,), distribution="orthogonal", seed=10
    ),
    "by_string_ids.keras": _by_string_ids,
    "stack_with_settings.keras": _stack_with_settings,
    "chain.keras": _chain,
    "unstacked.keras": lambda: model_zoo.unstack(_mlp(activation="relu", depth=4, seed=11)),
    "fitted.keras": lambda: _fitted(LayerwiseClipping("adam", clipnorm=0.1)),
    "fitted_plain.keras": lambda: _fitted(LayerwiseClipping(keras.optimizers.SGD(0.01)), stacked=False),
    "stacked.h5": lambda: _mlp(activation="relu", seed=12),
    "chain.h5": _chain,
}


def outputs_of(model: keras.Model, inputs: Any) -> list[Any]:
    """The outputs, as lists of numbers that float32 holds."""
    outputs = model(np.asarray(inputs, np.float32), training=False)
    listed: list[Any] = keras.ops.convert_to_numpy(outputs).tolist()
    return listed


def fit_again(model: keras.Model) -> None:
    """Trains a fitted model for one more epoch, which takes the state of its optimizer."""
    features = model.input_shape[1:]
    model.fit(examples(features), targets(model), batch_size=4, epochs=1, shuffle=False, verbose=0)


def _make_models(directory: Path) -> None:
    directory.mkdir()
    expected: dict[str, Any] = {}
    for name, build in MODELS.items():
        model = build()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's, that HDF5 files are of the past
            model.save(directory / name)
        inputs = examples(model.input_shape[1:]).tolist()
        record = {"parameters": model.count_params(), "inputs": inputs, "outputs": outputs_of(model, inputs)}
        if getattr(model, "optimizer", None) is not None:
            fit_again(model)
            record["outputs_after_another_epoch"] = outputs_of(model, inputs)
        expected[name] = record
    _write_json(directory / "expected.json", expected)


def _dying() -> keras.Model:
    """Relu units that are dead for some of the examples, after a layer whose kernel is not measured."""
    layers, low = keras.layers, keras.initializers.Constant(-0.2)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6))
    h = layers.SimpleRNN(4, name="recurrent")(inputs)
    for name in ("first", "second"):
        h = layers.Dense(4, "relu", bias_initializer=low, name=name)(h)
    return keras.Model(inputs, layers.Dense(1, name="outputs")(h), name="dying")


def _make_walks(directory: Path) -> None:
    directory.mkdir()
    walks = {
        "with_prediction": gradient_walk(
            _mlp(activation="tanh", distribution="orthogonal", seed=1), examples((6,))
        ),
        "not_finite": gradient_walk(_dying(), examples((5, 6)), np.ones((4, 1)), "mse"),
    }
    expected: dict[str, Any] = {}
    for name, walk in walks.items():
        walk.save(directory / f"{name}.json")
        expected[name] = {
            "verdict": walk.verdict,
            "drift": repr(walk.drift),
            "layer_names": list(walk.layer_names),
            "backward": [[repr(value) for value in row] for row in walk.backward.tolist()],
            "weight_gradient": [repr(value) for value in walk.weight_gradient.tolist()],
        }
    _write_json(directory / "expected.json", expected)


def _make_runs(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        undisturbed = Path(temporary)
        for name, command in COMMANDS.items():
            _run([sys.executable, "-m", "keras_rwinit", *command, "--output", str(undisturbed / name)], 0)
        _kept(undisturbed / "train_finished", directory / "train_finished")
        shutil.copy(undisturbed / "train_interrupted/history.csv", directory / "train_interrupted.csv")
        _without_seconds(undisturbed / "tune_interrupted/trials.csv", directory / "tune_interrupted.csv")
        for name, end in INTERRUPTED.items():
            stopped = undisturbed / f"stopped_{name}"
            command = (*COMMANDS[name], "--output", str(stopped))
            _run([sys.executable, "-c", _KILLED, end, *command], -signal.SIGKILL)
            _kept(stopped, directory / name)


def _run(command: list[str], code: int) -> None:
    process = subprocess.run(command, stdout=subprocess.DEVNULL, env={**os.environ, "MPLBACKEND": "agg"})
    if process.returncode != code:
        sys.exit(f"{' '.join(command[1:])} ended with {process.returncode}, not {code}.")


def _kept(source: Path, target: Path) -> None:
    """Copies a run's directory without its lock and its large pictures."""

    def ignored(directory: str, names: list[str]) -> list[str]:
        large = [
            name
            for name in names
            if name.endswith(".png") and (Path(directory) / name).stat().st_size > LARGEST_PICTURE
        ]
        return [*large, ".lock"]

    shutil.copytree(source, target, ignore=ignored)


def _without_seconds(source: Path, target: Path) -> None:
    with open(source, newline="", encoding="utf-8") as file:
        rows = [{name: row[name] for name in row if name != "seconds"} for row in csv.DictReader(file)]
    with open(target, "x", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def described_presets() -> dict[str, Any]:
    """Size, arguments and recipe of every preset, by name."""
    return {
        name: {
            "parameters": preset.parameters,
            "config": {key: list(v) if isinstance(v, tuple) else v for key, v in preset.config.items()},
            "recipe": dataclasses.asdict(preset.recipe),
        }
        for name, preset in model_zoo.presets.items()
    }


def _write_json(path: Path, content: Any) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=False) + "\n")


def main() -> None:
    """Makes the directory, which must not exist."""
    if keras.backend.backend() != "tensorflow":
        sys.exit(f"The files are TensorFlow's. Set KERAS_BACKEND. Received: {keras.backend.backend()}")
    if FILES.exists():
        sys.exit(f"{FILES.name} exists, and nothing is overwritten: delete it to record another version.")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        _write_json(made / "made_with.json", environment())
        _write_json(made / "presets.json", described_presets())
        _make_models(made / "models")
        _make_walks(made / "walks")
        _make_runs(made)
        shutil.copytree(made, FILES)


if __name__ == "__main__":
    main()
