"""Compares `keras_rwinit.initialize` with Keras's initializers on four deep networks.

Every network is compiled once and trained by Adam from every initialization, for the same number of steps on
the same batches. A separate seed chooses the best of the learning rates `RATES` for the initialization, and
five other seeds give the results. The drift is that of the walk before training, in nats per layer.

    python benchmarks/initializers_compared.py --output benchmarks/results/initializers_compared.json
    python benchmarks/initializers_compared.py --quick

With `--dataset mnist --data-dir DIRECTORY` the two networks of Dense layers of decreasing width are trained
on MNIST, otherwise on the 8x8 digits of scikit-learn, as the other two are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from _output import describe_machine, new_file, write_json

from keras_rwinit import data, gradient_walk, initialize
from keras_rwinit.data import Dataset

L = keras.layers
RATES = (1e-3, 3e-4, 1e-4)
BATCH = 64
CALIBRATION = 256

# Draws the kernels of a model, given inputs and a seed.
Initialization: TypeAlias = Callable[[keras.Model, np.ndarray, int], object]


def tapering(examples: Dataset) -> keras.Model:
    """Builds 13 Dense relu layers of decreasing width."""
    inputs = h = keras.Input((examples.features,))
    for units in (500, 400, 300, 250, 200, 150, 120, 100, 80, 60, 40, 30, 20):
        h = L.Dense(units, "relu")(h)
    return keras.Model(inputs, L.Dense(examples.classes)(h), name="tapering_mlp")


def convolutional(examples: Dataset) -> keras.Model:
    """Builds a hundred convolutions on 8 x 8 images."""
    inputs = keras.Input((examples.features,))
    h = L.Reshape((8, 8, 1))(inputs)
    for _ in range(100):
        h = L.Conv2D(16, 3, padding="same", activation="relu")(h)
    return keras.Model(inputs, L.Dense(examples.classes)(L.Flatten()(h)), name="cnn_100")


def autoencoder(examples: Dataset) -> keras.Model:
    """Builds an autoencoder of tanh layers with a bottleneck of 16 units in the middle."""
    inputs = h = keras.Input((examples.features,))
    half = (128,) * 7 + (96,) * 4 + (64,) * 4 + (32,) * 4
    for units in (*half, 16, *reversed(half)):
        h = L.Dense(units, "tanh")(h)
    return keras.Model(inputs, L.Dense(examples.features)(h), name="autoencoder")


def residual(examples: Dataset) -> keras.Model:
    """Builds fifty residual blocks of two Dense layers, without normalization."""
    inputs = keras.Input((examples.features,))
    h = L.Dense(64)(inputs)
    for _ in range(50):
        h = L.Add()([h, L.Dense(64)(L.Dense(64, "relu")(h))])
    return keras.Model(inputs, L.Dense(examples.classes)(h), name="residual_mlp")


NETWORKS = (tapering, autoencoder, residual, convolutional)


def by_keras(name: str) -> Initialization:
    """Returns the initialization of every kernel by one of Keras's initializers."""

    def draw(model: keras.Model, x: np.ndarray, seed: int) -> None:
        for index, variable in enumerate(v for v in model.trainable_variables if v.name == "kernel"):
            config = {"class_name": name, "config": {"seed": 1000 * seed + index}}
            variable.assign(keras.initializers.get(config)(variable.shape, dtype=variable.dtype))

    return draw


INITIALIZATIONS: dict[str, Initialization] = {
    "he_normal": by_keras("HeNormal"),
    "glorot_uniform": by_keras("GlorotUniform"),
    "orthogonal": by_keras("Orthogonal"),
    "initialize(model)": lambda model, x, seed: initialize(model, seed=seed),
    "initialize(model, x)": lambda model, x, seed: initialize(model, x, seed=seed),
    "initialize(model, x, 'orthogonal')": lambda model, x, seed: initialize(model, x, "orthogonal", seed),
}
KERAS = ("he_normal", "glorot_uniform", "orthogonal")


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, rate: float, steps: int, seed: int) -> float:
    """Trains and returns the mean loss of the last tenth of the steps; infinite if training diverged."""
    model.optimizer.learning_rate.assign(rate)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(steps):
        batch = rng.choice(len(x), BATCH, replace=False)
        losses.append(float(model.train_on_batch(x[batch], y[batch])))
    last = float(np.mean(losses[-max(steps // 10, 1) :]))
    return last if np.isfinite(last) else float("inf")


def reset(model: keras.Model, draw: Initialization, x: np.ndarray, seed: int) -> None:
    """Draws the kernels and sets the biases and the state of the optimizer to zero."""
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(np.zeros(variable.shape))
    for variable in model.optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(np.zeros(variable.shape))
    draw(model, x, seed)


def compare(
    build: Callable[[Dataset], keras.Model], examples: Dataset, steps: int, seeds: int, rates: Sequence[float]
) -> dict[str, Any]:
    """Returns final losses and drifts of one network for every initialization."""
    model = build(examples)
    x = examples.x_train
    y, loss = examples.y_train, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if model.output_shape[-1] == examples.features:
        y, loss = x, keras.losses.MeanSquaredError()
    model.compile("adam", loss)
    model.optimizer.build(model.trainable_variables)
    rows = {}
    for name, draw in INITIALIZATIONS.items():
        started = time.perf_counter()
        by_rate = {}
        for rate in rates:
            reset(model, draw, x[:CALIBRATION], 10_000)
            by_rate[rate] = train(model, x, y, rate, steps, 10_000)
        best = min(by_rate, key=lambda rate: by_rate[rate])
        losses, drifts = [], []
        for seed in range(seeds):
            reset(model, draw, x[:CALIBRATION], seed)
            drifts.append(gradient_walk(model, x[:CALIBRATION]).drift)
            losses.append(train(model, x, y, best, steps, seed))
        rows[name] = {"learning_rate": best, "losses": losses, "drifts": drifts}
        spread = np.std(losses, ddof=1)
        print(
            f"{model.name:14} {name:36} rate {best:.0e}  loss {np.mean(losses):9.4g} ± {spread:8.2g}  "
            f"drift {np.mean(np.abs(drifts)):.4f}  ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    return {"steps": steps, "initializations": rows, "excess": excess(rows)}


def excess(rows: dict[str, Any]) -> dict[str, float]:
    """Returns by how many standard errors the mean loss exceeds that of Keras's best initializer."""
    best = min((rows[name]["losses"] for name in KERAS), key=np.mean)
    found = {}
    for name, row in rows.items():
        if name not in KERAS:
            difference = np.mean(row["losses"]) - np.mean(best)
            error = np.sqrt((np.var(row["losses"], ddof=1) + np.var(best, ddof=1)) / len(best))
            found[name] = float(difference / error) if np.isfinite(difference) else float("inf")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison, prints it and, with --output, writes it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", default="digits", help="data set of the two networks of decreasing width"
    )
    parser.add_argument("--data-dir", help="directory of prepared tensorflow-datasets sets")
    names = [build.__name__ for build in NETWORKS]
    parser.add_argument("--only", nargs="+", choices=names, help="train only these networks")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--quick", action="store_true", help="ten steps, two seeds and one learning rate")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    steps, seeds, rates = (10, 2, RATES[:1]) if options.quick else (options.steps, options.seeds, RATES)
    wide, digits = data.load(options.dataset, options.data_dir), data.load("digits")
    started = time.perf_counter()
    results: dict[str, Any] = {}
    for build in NETWORKS:
        name = build.__name__
        if options.only and name not in options.only:
            continue
        examples = wide if build in (tapering, autoencoder) else digits
        results[name] = {"dataset": examples.name, **compare(build, examples, steps, seeds, rates)}
        for initialization, value in results[name]["excess"].items():
            print(f"{name:14} {initialization:36} {value:+6.1f} standard errors above the best of Keras's")
        report = {
            "machine": describe_machine(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "seconds": time.perf_counter() - started,
            "networks": results,
        }
        if options.output:
            write_json(options.output, report)


if __name__ == "__main__":
    main()
