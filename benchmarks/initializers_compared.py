"""Compares `keras_rwinit.initialize` with other initializations on seven deep networks.

The others are Keras's initializers, as they are and with the two things that `initialize` does besides: the
gain of each kernel's activation, and outputs scaled to the root mean square that it chooses (1, or 0.3 for
the autoencoder). There is also the package AnyInit, if it is installed (`pip install anyinit`).

Every network is compiled once and trained by Adam from every initialization, for the same number of steps on
the same batches. A separate seed chooses the best learning rate of a grid for the initialization, which is
extended while the best one stands at an end; other seeds give the results. The drift is that of the walk
before training, in nats per layer.

    python benchmarks/initializers_compared.py --output benchmarks/results/initializers_compared.json
    python benchmarks/initializers_compared.py --quick

The output is written after each row. The same command goes on where a run was interrupted: rows that the file
has already are not run again.

With `--dataset mnist --data-dir DIRECTORY` the two networks of Dense layers of decreasing width are trained
on MNIST, otherwise on the 8x8 digits of scikit-learn, as the others are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _output import describe_machine, write_json

from keras_rwinit import data, gradient_walk, initialize
from keras_rwinit.data import Dataset
from keras_rwinit.initialization._output_scale import output_rms

L = keras.layers
GRID = range(-8, -3)  # of learning rates, 1e-4 to 1e-2; see `rate_at`
EXTENSION = 3  # rates beyond each end of the grid, at most
BATCH = 64
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


def tanh(examples: Dataset) -> keras.Model:
    """Builds fifty Dense tanh layers of width 100."""
    inputs = h = keras.Input((examples.features,))
    for _ in range(50):
        h = L.Dense(100, "tanh")(h)
    return keras.Model(inputs, L.Dense(examples.classes)(h), name="tanh_mlp")


def gelu(examples: Dataset) -> keras.Model:
    """Builds twenty Dense gelu layers of width 100."""
    inputs = h = keras.Input((examples.features,))
    for _ in range(20):
        h = L.Dense(100, "gelu")(h)
    return keras.Model(inputs, L.Dense(examples.classes)(h), name="gelu_mlp")


def _convolutions(examples: Dataset, channels: int) -> tuple[Any, Any]:
    """Returns the input and the output of a hundred relu convolutions on 8 x 8 images."""
    inputs = keras.Input((examples.features,))
    h = L.Reshape((8, 8, 1))(inputs)
    for _ in range(100):
        h = L.Conv2D(channels, 3, padding="same", activation="relu")(h)
    return inputs, h


def convolutional(examples: Dataset) -> keras.Model:
    """Builds a hundred relu convolutions of 16 channels, and a Dense layer that reads all positions."""
    inputs, h = _convolutions(examples, 16)
    return keras.Model(inputs, L.Dense(examples.classes)(L.Flatten()(h)), name="cnn_flat")


def pooled(examples: Dataset) -> keras.Model:
    """Builds a hundred relu convolutions of 8 channels, and a Dense layer that reads their mean."""
    inputs, h = _convolutions(examples, 8)
    return keras.Model(inputs, L.Dense(examples.classes)(L.GlobalAveragePooling2D()(h)), name="cnn_pooled")


@dataclass(frozen=True)
class Network:
    """A network and how long it is trained.

    Args:
        build: Builds it for a data set.
        steps: Training steps.
        batch: Examples in a step.
        wide: Whether it is trained on the data set of the command line, and not on the digits.
        calibration: Number of examples that initializations with data get, and that the drift is measured on.
    """

    build: Callable[[Dataset], keras.Model]
    steps: int = 120
    batch: int = BATCH
    wide: bool = False
    calibration: int = 128


# A hundred convolutions take ten to thirty times as long a step as the others.
NETWORKS = {
    "tapering": Network(tapering, wide=True),
    "autoencoder": Network(autoencoder, wide=True),
    "residual": Network(residual),
    "convolutional": Network(convolutional, steps=50, batch=32, calibration=32),
    "tanh": Network(tanh),
    "gelu": Network(gelu),
    "pooled": Network(pooled, steps=50, batch=32, calibration=32),
}


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
    `sqrt(2)` after relu, and 1 after tanh, whose slope at zero is 1 on both sides. gelu counts as relu, as is
    the custom.

    Args:
        kernels: "normal" or "orthogonal".
    """

    def draw(model: keras.Model, x: np.ndarray, seed: int) -> None:
        drawn = (layer for layer in model.layers if isinstance(layer, L.Dense | L.Conv2D))
        for index, layer in enumerate(drawn):
            gain = 2.0**0.5 if _activation_before(layer) in _RECTIFIERS else 1.0
            own_seed = 1000 * seed + index
            initializer = (
                keras.initializers.Orthogonal(gain, own_seed)
                if kernels == "orthogonal"
                else keras.initializers.VarianceScaling(gain**2, "fan_in", "untruncated_normal", own_seed)
            )
            layer.kernel.assign(initializer(layer.kernel.shape, layer.kernel.dtype))

    return draw


_RECTIFIERS = (keras.activations.relu, keras.activations.gelu)


def _activation_before(layer: keras.layers.Layer) -> object:
    """Returns the activation of the layer that feeds a layer; None where there is none."""
    before = layer.input._keras_history.operation
    while isinstance(before, L.Flatten | L.GlobalAveragePooling2D):
        before = before.input._keras_history.operation
    return getattr(before, "activation", None)


def scaled(draw: Initialization) -> Initialization:
    """Returns an initialization followed by scaling the last kernel, as `initialize(model, x)` does."""

    def draw_and_scale(model: keras.Model, x: np.ndarray, seed: int) -> None:
        draw(model, x, seed)
        outputs = keras.ops.convert_to_numpy(model(x)).astype(np.float64)
        kernel = model.layers[-1].kernel
        kernel.assign(kernel * (output_rms(model) / np.sqrt(np.mean(outputs**2))))

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
    "orthogonal, scaled": scaled(by_keras("Orthogonal")),
    "slope-aware He, scaled": scaled(slope_aware("normal")),
    "slope-aware orthogonal, scaled": scaled(slope_aware("orthogonal")),
    "anyinit.initialize(model)": by_anyinit("analytic"),
    "anyinit.initialize(model, 'empirical', x)": by_anyinit("empirical"),
    "initialize(model)": lambda model, x, seed: initialize(model, seed=seed),
    "initialize(model, x, 'normal')": lambda model, x, seed: initialize(model, x, "normal", seed),
    "initialize(model, x, 'orthogonal')": lambda model, x, seed: initialize(model, x, "orthogonal", seed),
    "initialize(model, x)": lambda model, x, seed: initialize(model, x, seed=seed),
}


def available() -> dict[str, Initialization]:
    """Returns the initializations whose packages are installed, and says which are left out."""
    if importlib.util.find_spec("anyinit"):
        return INITIALIZATIONS
    print("AnyInit is not installed, so that its rows are left out: pip install anyinit")
    return {name: draw for name, draw in INITIALIZATIONS.items() if not name.startswith("anyinit")}


def train(
    model: keras.Model, x: np.ndarray, y: np.ndarray, rate: float, steps: int, seed: int, batch: int = BATCH
) -> float:
    """Trains and returns the mean loss of the last tenth of the steps; infinite if training diverged."""
    model.optimizer.learning_rate.assign(rate)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.choice(len(x), batch, replace=False) for _ in range(steps)])
    first = batch * (steps - max(steps // 10, 1))
    for part in (order[:first], order[first:]):
        # The loss of an epoch is the mean over its batches, which are of one size.
        history = model.fit(x[part], y[part], batch, shuffle=False, verbose=0).history
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


def rate_at(index: int) -> float:
    """Returns the learning rate of a place in the grid: 1e-4 at -8, 3e-4 at -7, 1e-3 at -6 and so on."""
    return float(f"{(1, 3)[index % 2]}e{index // 2}")


def best_rate(
    loss_at: Callable[[float], float], grid: range, extension: int
) -> tuple[float, dict[float, float]]:
    """Returns the learning rate with the smallest loss, and the losses of all that were tried.

    Args:
        loss_at: Trains with a learning rate and returns the loss.
        grid: The places to begin with. While the best one stands at an end, the next beyond it is tried.
        extension: How many places beyond each end may be tried.
    """
    losses = {index: loss_at(rate_at(index)) for index in grid}
    while np.isfinite(min(losses.values())):
        best = min(losses, key=lambda index: losses[index])
        beyond = {min(losses): best - 1, max(losses): best + 1}.get(best)
        if beyond is None or not grid[0] - extension <= beyond <= grid[-1] + extension:
            break
        losses[beyond] = loss_at(rate_at(beyond))
    best = min(losses, key=lambda index: losses[index])
    return rate_at(best), {rate_at(index): losses[index] for index in sorted(losses)}


def stands_at_an_end(row: dict[str, Any]) -> bool:
    """Returns whether the learning rate of a row is the smallest or the largest of those tried."""
    rates = [float(rate) for rate in row["trial_losses"]]
    return len(rates) > 1 and row["learning_rate"] in (min(rates), max(rates))


class Comparison:
    """Trains one network from every initialization.

    Args:
        network: The network.
        examples: The data set.
        steps: Training steps.
        seeds: Number of seeds.
        grid, extension: The learning rates; see `best_rate`.
    """

    def __init__(
        self, network: Network, examples: Dataset, steps: int, seeds: int, grid: range, extension: int
    ) -> None:
        self.steps, self.seeds, self.grid, self.extension = steps, seeds, grid, extension
        self.model = network.build(examples)
        self.x = examples.x_train
        self.given, self.batch = self.x[: network.calibration], network.batch
        self.y, loss = examples.y_train, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if self.model.output_shape[-1] == examples.features:
            self.y, loss = self.x, keras.losses.MeanSquaredError()
        self.model.compile("adam", loss)
        self.model.optimizer.build(self.model.trainable_variables)

    def row(self, draw: Initialization) -> dict[str, Any]:
        """Returns final losses and drifts of one initialization."""
        started = time.perf_counter()
        weights = draw_weights(self.model, draw, self.given, TRIAL_SEED)
        rate, trials = best_rate(
            lambda rate: self._loss(weights, rate, TRIAL_SEED), self.grid, self.extension
        )
        losses, drifts = [], []
        for seed in range(self.seeds):
            weights = draw_weights(self.model, draw, self.given, seed)
            drifts.append(gradient_walk(self.model, self.given).drift)
            losses.append(self._loss(weights, rate, seed))
        return {
            "learning_rate": rate,
            "trial_losses": trials,
            "losses": losses,
            "drifts": drifts,
            "seconds": time.perf_counter() - started,
        }

    def _loss(self, weights: list[np.ndarray], rate: float, seed: int) -> float:
        reset(self.model, weights)
        return train(self.model, self.x, self.y, rate, self.steps, seed, self.batch)


def describe_row(network: str, name: str, row: dict[str, Any]) -> str:
    """Returns a line about one row; it says where the learning rate stands at an end of those tried."""
    if "error" in row:
        return f"{network:14} {name:42} failed: {row['error']}"
    losses = np.array(row["losses"], float)
    deviation = losses.std(ddof=1) if np.isfinite(losses).all() else np.inf
    return (
        f"{network:14} {name:42} rate {row['learning_rate']:.0e}{'!' if stands_at_an_end(row) else ' '} "
        f"loss {losses.mean():9.4g} ± {deviation:8.2g}  "
        f"drift {np.mean(np.abs(np.array(row['drifts'], float))):.4f}  ({row['seconds']:.0f} s)"
        + (", the rate stands at an end" if stands_at_an_end(row) else "")
    )


def differences(rows: dict[str, Any]) -> dict[str, float]:
    """Returns by how many standard errors each mean loss exceeds that of the last row.

    The losses of one seed belong together, since all initializations are trained on its batches. A loss that
    is not finite exceeds any other.
    """
    own = np.array(rows[list(rows)[-1]]["losses"], float)
    found = {}
    for name, row in rows.items():
        if "error" in row:
            continue
        difference = np.array(row["losses"], float) - own
        if not np.isfinite(difference).all():
            found[name] = float("inf")
            continue
        error = difference.std(ddof=1) / np.sqrt(len(own))
        found[name] = float(difference.mean() / error) if difference.any() else 0.0
    return found


def load_results(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the networks of an earlier run's file; empty without one.

    Raises:
        ValueError: That run had other settings.
    """
    if path is None or not path.exists():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("settings") != settings:
        raise ValueError(
            f"{path} has the results of other settings; choose another file. Received: {settings}, and there "
            f"{report.get('settings')}"
        )
    networks: dict[str, Any] = report["networks"]
    for network in networks.values():
        for row in network["initializations"].values():
            for field in ("losses", "drifts"):  # JSON has no infinity
                row[field] = [float("inf") if value is None else value for value in row.get(field, [])]
    return networks


def markdown(networks: dict[str, Any]) -> str:
    """Returns a table of loss, drift and difference from the last initialization, as the site has it."""
    lines = ["| | " + " | ".join(networks) + " |", "|---" * (len(networks) + 1) + "|"]
    names = {name: None for network in networks.values() for name in network["initializations"]}
    for name in names:
        cells = [_cell(network, name) for network in networks.values()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(network: dict[str, Any], name: str) -> str:
    row = network["initializations"].get(name)
    if row is None:
        return ""
    if "error" in row:
        return "fails"
    if not np.isfinite(row["losses"]).all():
        return "diverges"
    loss, deviation = np.mean(row["losses"]), np.std(row["losses"], ddof=1)
    drift, difference = np.mean(np.abs(row["drifts"])), network["differences"].get(name, 0.0)
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
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), help="train only these networks")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--quick", action="store_true", help="ten steps, two seeds and one learning rate")
    parser.add_argument("--output", type=Path, help="JSON file for the results; a run goes on from its rows")
    options = parser.parse_args(arguments)
    seeds, grid, extension = (2, GRID[2:3], 0) if options.quick else (options.seeds, GRID, EXTENSION)
    settings = {
        "dataset": options.dataset,
        "seeds": seeds,
        "rates": [rate_at(index) for index in grid],
        "steps": {name: 10 if options.quick else network.steps for name, network in NETWORKS.items()},
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    try:
        results = load_results(options.output, settings)
    except ValueError as error:
        parser.error(str(error))
    wide, digits = data.load(options.dataset, options.data_dir), data.load("digits")
    for name in options.only or NETWORKS:
        examples, steps = wide if NETWORKS[name].wide else digits, settings["steps"][name]
        results.setdefault(name, {"dataset": examples.name, "steps": steps, "initializations": {}})
        rows = results[name]["initializations"]
        pending = {row: draw for row, draw in available().items() if row not in rows}
        comparison = Comparison(NETWORKS[name], examples, steps, seeds, grid, extension) if pending else None
        for row, draw in pending.items():
            assert comparison is not None
            try:
                rows[row] = comparison.row(draw)
            except Exception as error:
                if not row.startswith("anyinit"):
                    raise
                # AnyInit checks what it did, and raises where the walk of a deep network does not please it.
                rows[row] = {"error": f"{type(error).__name__}: {error}"}
            print(describe_row(name, row, rows[row]), flush=True)
            _save(options.output, settings, results)
        results[name]["differences"] = differences(rows)
        for row, value in results[name]["differences"].items():
            print(f"{name:14} {row:42} {value:+7.1f} standard errors above the last row")
        _save(options.output, settings, results)
    print(markdown(results))


def _save(path: Path | None, settings: dict[str, Any], networks: dict[str, Any]) -> None:
    """Writes the results so far, if there is a file to write them to."""
    if path is None:
        return
    seconds = sum(
        row.get("seconds", 0.0)
        for network in networks.values()
        for row in network["initializations"].values()
    )
    report = {
        "machine": describe_machine(),
        "settings": settings,
        "seconds": seconds,
        "networks": networks,
    }
    # Whole or not at all: the run may be interrupted here too.
    part = path.with_name(path.name + ".part")
    write_json(part, report)
    part.replace(path)


if __name__ == "__main__":
    main()
