"""Compares `keras_rwinit.initialize` with other initializations on three deep networks.

The others are Keras's initializers, as they are and with the two things that `initialize` does besides: the
gain of each kernel's activation, and outputs scaled to a root mean square of 0.1. There is also the package
AnyInit, if it is installed (`pip install anyinit`).

Every network is compiled once and trained by Adam from every initialization, for the same number of steps on
the same batches. A separate seed chooses the better of the learning rates `RATES` for the initialization, and
other seeds give the results. The drift is that of the walk before training, in nats per layer.

    python benchmarks/initializers_compared.py --output benchmarks/results/initializers_compared.json
    python benchmarks/initializers_compared.py --quick

With `--dataset mnist --data-dir DIRECTORY` the two networks of Dense layers of decreasing width are trained
on MNIST, otherwise on the 8x8 digits of scikit-learn, as the third is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _output import describe_machine, new_file, write_json

from keras_rwinit import data, gradient_walk, initialize
from keras_rwinit.data import Dataset

L = keras.layers
RATES = (1e-3, 3e-4)
BATCH = 64
CALIBRATION = 256
OUTPUT_SCALE = 0.1  # that of `initialize(model, x)`
TRIAL_SEED = 10_000  # chooses the learning rate

# Draws the kernels of a model, given inputs and a seed.
Initialization: TypeAlias = Callable[[keras.Model, np.ndarray, int], object]


def tapering(examples: Dataset) -> keras.Model:
    """Builds 13 Dense relu layers of decreasing width."""
    inputs = h = keras.Input((examples.features,))
    for units in (500, 400, 300, 250, 200, 150, 120, 100, 80, 60, 40, 30, 20):
        h = L.Dense(units, "relu")(h)
    return keras.Model(inputs, L.Dense(examples.classes)(h), name="tapering_mlp")


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


NETWORKS = (tapering, autoencoder, residual)


def by_keras(name: str) -> Initialization:
    """Returns the initialization of every kernel by one of Keras's initializers."""

    def draw(model: keras.Model, x: np.ndarray, seed: int) -> None:
        for index, variable in enumerate(v for v in model.trainable_variables if v.name == "kernel"):
            config = {"class_name": name, "config": {"seed": 1000 * seed + index}}
            variable.assign(keras.initializers.get(config)(variable.shape, dtype=variable.dtype))

    return draw


def slope_aware(kernels: str) -> Initialization:
    """Returns the initialization of every kernel with the gain of the activation that feeds it.

    The gain is `sqrt(2 / (1 + a^2))` after an activation of slopes 1 and `a` (He et al., arXiv:1502.01852):
    `sqrt(2)` after relu, and 1 after tanh, whose slope at zero is 1 on both sides.

    Args:
        kernels: "normal" or "orthogonal".
    """

    def draw(model: keras.Model, x: np.ndarray, seed: int) -> None:
        for index, layer in enumerate(layer for layer in model.layers if isinstance(layer, L.Dense)):
            before = layer.input._keras_history.operation
            gain = 2.0**0.5 if getattr(before, "activation", None) is keras.activations.relu else 1.0
            own_seed = 1000 * seed + index
            initializer = (
                keras.initializers.Orthogonal(gain, own_seed)
                if kernels == "orthogonal"
                else keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal", own_seed)
            )
            layer.kernel.assign(initializer(layer.kernel.shape, layer.kernel.dtype))

    return draw


def scaled(draw: Initialization) -> Initialization:
    """Returns an initialization followed by scaling the last kernel, so that the outputs are small."""

    def draw_and_scale(model: keras.Model, x: np.ndarray, seed: int) -> None:
        draw(model, x, seed)
        outputs = keras.ops.convert_to_numpy(model(x)).astype(np.float64)
        kernel = model.layers[-1].kernel
        kernel.assign(kernel * (OUTPUT_SCALE / np.sqrt(np.mean(outputs**2))))

    return draw_and_scale


def by_anyinit(mode: str) -> Initialization:
    """Returns the initialization by AnyInit; `mode` is "analytic" or "empirical"."""

    def draw(model: keras.Model, x: np.ndarray, seed: int) -> None:
        import anyinit

        anyinit.initialize(model, mode, x if mode == "empirical" else None, seed=seed)

    return draw


INITIALIZATIONS: dict[str, Initialization] = {
    "he_normal": by_keras("HeNormal"),
    "glorot_uniform": by_keras("GlorotUniform"),
    "orthogonal": by_keras("Orthogonal"),
    "orthogonal, outputs 0.1": scaled(by_keras("Orthogonal")),
    "slope-aware He, outputs 0.1": scaled(slope_aware("normal")),
    "slope-aware orthogonal, outputs 0.1": scaled(slope_aware("orthogonal")),
    "anyinit.initialize(model)": by_anyinit("analytic"),
    "anyinit.initialize(model, 'empirical', x)": by_anyinit("empirical"),
    "initialize(model)": lambda model, x, seed: initialize(model, seed=seed),
    "initialize(model, x)": lambda model, x, seed: initialize(model, x, seed=seed),
    "initialize(model, x, 'orthogonal')": lambda model, x, seed: initialize(model, x, "orthogonal", seed),
}


def available() -> dict[str, Initialization]:
    """Returns the initializations whose packages are installed, and says which are left out."""
    if importlib.util.find_spec("anyinit"):
        return INITIALIZATIONS
    print("AnyInit is not installed, so that its rows are left out: pip install anyinit")
    return {name: draw for name, draw in INITIALIZATIONS.items() if not name.startswith("anyinit")}


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, rate: float, steps: int, seed: int) -> float:
    """Trains and returns the mean loss of the last tenth of the steps; infinite if training diverged."""
    model.optimizer.learning_rate.assign(rate)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.choice(len(x), BATCH, replace=False) for _ in range(steps)])
    first = BATCH * (steps - max(steps // 10, 1))
    for part in (order[:first], order[first:]):
        # The loss of an epoch is the mean over its batches, which are of one size.
        history = model.fit(x[part], y[part], BATCH, shuffle=False, verbose=0).history
    last = float(history["loss"][0])
    return last if np.isfinite(last) else float("inf")


def draw_weights(model: keras.Model, draw: Initialization, x: np.ndarray, seed: int) -> list[np.ndarray]:
    """Draws the kernels, sets the biases to zero, and returns all weights."""
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(np.zeros(variable.shape))
    draw(model, x, seed)
    weights: list[np.ndarray] = model.get_weights()
    return weights


def reset(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Sets the weights, and the state of the optimizer to zero."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(np.zeros(variable.shape))


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
    for name, draw in available().items():
        started = time.perf_counter()
        by_rate = {}
        weights = draw_weights(model, draw, x[:CALIBRATION], TRIAL_SEED)
        for rate in rates:
            reset(model, weights)
            by_rate[rate] = train(model, x, y, rate, steps, TRIAL_SEED)
        best = min(by_rate, key=lambda rate: by_rate[rate])
        losses, drifts = [], []
        for seed in range(seeds):
            reset(model, draw_weights(model, draw, x[:CALIBRATION], seed))
            drifts.append(gradient_walk(model, x[:CALIBRATION]).drift)
            losses.append(train(model, x, y, best, steps, seed))
        rows[name] = {"learning_rate": best, "trial_losses": by_rate, "losses": losses, "drifts": drifts}
        spread = np.std(losses, ddof=1)
        print(
            f"{model.name:14} {name:42} rate {best:.0e}  loss {np.mean(losses):9.4g} ± {spread:8.2g}  "
            f"drift {np.mean(np.abs(drifts)):.4f}  ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    return {"steps": steps, "initializations": rows, "differences": differences(rows)}


def differences(rows: dict[str, Any]) -> dict[str, float]:
    """Returns by how many standard errors each mean loss exceeds that of the last initialization.

    The losses of one seed belong together, since all initializations are trained on its batches.
    """
    own = np.array(rows[list(INITIALIZATIONS)[-1]]["losses"])
    found = {}
    for name, row in rows.items():
        difference = np.array(row["losses"]) - own
        error = difference.std(ddof=1) / np.sqrt(len(own))
        found[name] = float(difference.mean() / error) if difference.any() else 0.0
    return found


def markdown(networks: dict[str, Any]) -> str:
    """Returns a table of loss, drift and difference from the last initialization, as the site has it."""
    lines = ["| | " + " | ".join(networks) + " |", "|---" * (len(networks) + 1) + "|"]
    for name in INITIALIZATIONS:
        cells = [_cell(network, name) for network in networks.values()]
        if any(cells):
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(network: dict[str, Any], name: str) -> str:
    row = network["initializations"].get(name)
    if row is None:
        return ""
    loss, deviation = np.mean(row["losses"]), np.std(row["losses"], ddof=1)
    drift, difference = np.mean(np.abs(row["drifts"])), network["differences"][name]
    shown = f"{loss:#.3g} ± {deviation:#.2g}".replace(". ", " ").removesuffix(".")
    return f"{shown}, {drift:.3f}, {difference:+.1f}"


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
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
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
        for initialization, value in results[name]["differences"].items():
            print(f"{name:14} {initialization:42} {value:+7.1f} standard errors above the last row")
        report = {
            "machine": describe_machine(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "seconds": time.perf_counter() - started,
            "networks": results,
        }
        if options.output:
            write_json(options.output, report)
    print(markdown(results))


if __name__ == "__main__":
    main()
