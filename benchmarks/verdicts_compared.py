"""Compares the verdict of `gradient_walk` before training with what training then does, for many networks.

Every network is measured as in training and then trained by Adam on the 8x8 digits, for the same number of
steps on the same batches. Learning rates are tried one after the other until it learns: 0.03 / depth, but at
most 0.003, then three times as much and as little. A network stays at chance if no rate brings its training
accuracy above `CHANCE`, and has learned if one brings it to `LEARNED`. The columns `cosine`, `rank` and
`lost` say how alike the inputs are in the last hidden layer: their mean correlation, the effective rank of
what they differ in, and the share of the inputs' directions beyond the first that this rank has lost.

The JSON file beside the CSV has, for each seed, how many networks of each verdict came to which outcome, and
the rank correlation (Spearman's, ties sharing their mean rank) of the verdict's severity, by `SEVERITY`, with
the final loss. The limits of the verdicts were set on seed 0; other seeds are held out.

    python benchmarks/verdicts_compared.py --output benchmarks/results/verdicts_compared.csv
    python benchmarks/verdicts_compared.py --seed 1 --output benchmarks/results/verdicts_compared.csv
    python benchmarks/verdicts_compared.py --only "tanh glorot_uniform" --output part.csv

The CSV continues where it ends. `--measure` keeps the training in it and measures the seed's networks again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _output import describe_machine
from scipy.stats import spearmanr

from keras_rwinit import GradientWalk, data, gradient_walk, model_zoo
from keras_rwinit._files import write_atomically
from keras_rwinit.data import Dataset
from keras_rwinit.layers import DenseStack

L = keras.layers
CHANCE, LEARNED = 0.2, 0.5
STEPS, BATCH = 300, 64
MEASURED_EXAMPLES = 50
RATES = (1.0, 3.0, 1.0 / 3.0)
LARGEST_RATE = 3e-3

TRAINED = ("outcome", "accuracy", "loss", "learning_rate")
MEASURED = ("verdict", "drift", "predicted", "spread", "cosine", "rank", "lost")
COLUMNS = ("kind", "depth", "seed", *MEASURED, *TRAINED)

SEVERITY = {
    "fine": 0,
    "growing": 1,
    "shrinking": 1,
    "inputs alike": 1,
    "inputs collapsed": 2,
    "exploding": 3,
    "vanishing": 3,
    "dead": 4,
    "not finite": 4,
}
"""How bad each verdict is, by the words that it begins with."""

# Makes a network for inputs of 64 features and ten classes from a seed.
Builder: TypeAlias = Callable[[int], keras.Model]
Row: TypeAlias = dict[str, str]
Key: TypeAlias = tuple[str, int, int]
"""Kind, depth and seed."""


@dataclass(frozen=True)
class Network:
    """A kind of network at one depth.

    Args:
        kind: Name of the kind.
        depth: Number of layers that the gradient passes one after the other.
        build: Makes it.
    """

    kind: str
    depth: int
    build: Builder


def chain(kind: str, depths: Sequence[int], **options: Any) -> list[Network]:
    """Returns plain chains of several depths, by the options of `deep_mlp`."""

    def builder(depth: int) -> Builder:
        return lambda seed: model_zoo.deep_mlp(depth, 48, **options, input_shape=(64,), seed=seed)

    return [Network(kind, depth, builder(depth)) for depth in depths]


def residual(
    blocks: int,
    width: int = 32,
    *,
    normalized: bool = False,
    scale: float = 1.0,
    gate: str | None = None,
    activation: str = "relu",
) -> Builder:
    """Returns a builder of blocks `h + scale * activation(W h)`.

    Args:
        blocks: Number of blocks.
        width: Units of a layer.
        normalized: Whether a block's input is normalized.
        scale: Factor of a block's output at the start.
        gate: `"zero-gamma"` for a batch normalization at the block's end whose scale is zero,
            `"ReZero"` for one trainable factor, zero at the start.
        activation: Activation.
    """

    def build(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((64,))
        h = L.Dense(width)(inputs)
        for _ in range(blocks):
            branch = L.LayerNormalization()(h) if normalized else h
            branch = L.Dense(width, activation, kernel_initializer="he_normal")(branch)
            branch = L.Dense(width, kernel_initializer="he_normal")(branch)
            if gate == "zero-gamma":
                branch = L.BatchNormalization(gamma_initializer="zeros")(branch)
            elif gate == "ReZero":
                branch = Factor()(branch)
            elif scale != 1.0:
                branch = L.Rescaling(scale)(branch)
            h = L.Add()([h, branch])
        return keras.Model(inputs, L.Dense(10)(h))

    return build


class Factor(L.Layer):  # type: ignore[misc]  # Keras has no types
    """A trainable factor that is zero at the start."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the factor."""
        self.factor = self.add_weight(shape=(), initializer="zeros", name="factor")

    def call(self, inputs: Any) -> Any:
        """Returns the inputs times the factor."""
        return self.factor * inputs


def normalized_chain(depth: int, layer: type[L.Layer], width: int = 32) -> Builder:
    """Returns a builder of Dense relu layers, each with a normalization before its activation."""

    def build(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        inputs = h = keras.Input((64,))
        for _ in range(depth):
            h = L.ReLU()(layer()(L.Dense(width)(h)))
        return keras.Model(inputs, L.Dense(10)(h))

    return build


def with_zero_head(build: Builder) -> Builder:
    """Returns a builder of the same network with an output layer of zeros."""

    def build_with_zeros(seed: int) -> keras.Model:
        model = build(seed)
        head = model.layers[-1]
        head.kernel.assign(np.zeros(head.kernel.shape))
        return model

    return build_with_zeros


def with_hidden_weights(build: Builder, kernel: float, bias: float) -> Builder:
    """Returns a builder of the same network whose stack has kernels times `kernel` and biases of `bias`."""

    def build_changed(seed: int) -> keras.Model:
        model = build(seed)
        stack = next(layer for layer in model.layers if isinstance(layer, DenseStack))
        stack.kernel.assign(stack.kernel * kernel)
        stack.bias.assign(np.full(stack.bias.shape, bias))
        return model

    return build_changed


NORMAL, ORTHOGONAL = {"distribution": "normal"}, {"distribution": "orthogonal"}
HE, GLOROT = {"kernel_initializer": "he_normal"}, {"kernel_initializer": "glorot_uniform"}
TANH_50 = chain("", (50,), activation="tanh", **ORTHOGONAL)[0].build
SIGMOID_20 = chain("", (20,), activation="sigmoid", **GLOROT)[0].build
RELU_20 = chain("", (20,), activation="relu", **NORMAL)[0].build

NETWORKS = [
    *chain("relu he_normal", (5, 30, 100, 300), activation="relu", **HE),
    *chain("relu glorot_uniform", (5, 12, 30, 100), activation="relu", **GLOROT),
    *chain("relu random_walk", (30, 200, 300), activation="relu", **NORMAL),
    *chain("relu looks_linear", (200,), activation="relu", distribution="looks_linear"),
    *chain("shaped(relu) orthogonal", (200,), activation="shaped(relu, depth=200)", **ORTHOGONAL),
    *chain("relu random_walk, gain 1.8", (100,), activation="relu", gain=1.8, **NORMAL),
    *chain("leaky_relu(0.8) orthogonal", (100, 1000), activation="leaky_relu(0.8)", **ORTHOGONAL),
    *chain("leaky_relu(0.1) he_normal", (50,), activation="leaky_relu(0.1)", **HE),
    *chain("tanh glorot_uniform", (10, 100, 300, 1000), activation="tanh", **GLOROT),
    *chain("tanh random_walk", (50,), activation="tanh", **NORMAL),
    *chain("tanh orthogonal", (100, 1000), activation="tanh", **ORTHOGONAL),
    *chain("tanh orthogonal, gain 0.9", (30, 100), activation="tanh", gain=0.9, **ORTHOGONAL),
    *chain("tanh orthogonal, gain 1.5", (30, 200), activation="tanh", gain=1.5, **ORTHOGONAL),
    *chain("gelu he_normal", (5, 50), activation="gelu", **HE),
    *chain("gelu glorot_uniform", (20,), activation="gelu", **GLOROT),
    *chain("sigmoid glorot_uniform", (5, 20), activation="sigmoid", **GLOROT),
    *chain("sigmoid random_walk", (10,), activation="sigmoid", **NORMAL),
    *chain("selu lecun_normal", (20, 100), activation="selu", kernel_initializer="lecun_normal"),
    Network("residual", 60, residual(30)),
    Network("residual, branches / sqrt(blocks)", 60, residual(30, scale=30**-0.5)),
    Network("residual, normalized", 60, residual(30, normalized=True)),
    Network("residual, zero-gamma", 40, residual(20, gate="zero-gamma")),
    Network("residual, ReZero", 60, residual(30, gate="ReZero")),
    Network("relu, batch normalization", 20, normalized_chain(20, L.BatchNormalization)),
    Network("relu, layer normalization", 30, normalized_chain(30, L.LayerNormalization)),
    Network("tanh orthogonal, zero head", 50, with_zero_head(TANH_50)),
    Network("relu random_walk, zero head", 20, with_zero_head(RELU_20)),
    Network("sigmoid glorot_uniform, zero head", 20, with_zero_head(SIGMOID_20)),
    Network("tanh, all hidden kernels zero", 50, with_hidden_weights(TANH_50, 0.0, 0.0)),
    Network("relu, biases of -100", 20, with_hidden_weights(RELU_20, 1.0, -100.0)),
]


def measure(network: Network, digits: Dataset, seed: int) -> Row:
    """Returns the columns that are known before training."""
    model = network.build(seed)
    x, y = digits.x_test[:MEASURED_EXAMPLES], digits.y_test[:MEASURED_EXAMPLES]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Before training, moving averages of a batch normalization mean nothing.
    walk = gradient_walk(model, x, y, loss, training=True)
    return {"verdict": walk.verdict, **numbers_of(walk)}


def numbers_of(walk: GradientWalk) -> Row:
    """Returns what the verdict goes by."""
    prediction, correlation = walk.prediction, walk.correlation
    assert correlation is not None
    return {
        "drift": f"{walk.drift:.6f}",
        "predicted": "" if prediction is None else f"{prediction.mean[0]:.4f}",
        "spread": "" if prediction is None else f"{prediction.spread:.4f}",
        "cosine": f"{correlation.forward[-1]:.6f}",
        "rank": f"{correlation.effective_rank[-1]:.2f}",
        "lost": f"{1.0 - (correlation.effective_rank[-1] - 1.0) / (correlation.inputs_rank - 1.0):.3f}",
    }


def train(network: Network, digits: Dataset, seed: int) -> Row:
    """Trains at one rate after the other until the network learns; returns the best accuracy."""
    best = (-1.0, float("nan"), float("nan"))
    for factor in RATES:
        rate = min(0.03 / network.depth, LARGEST_RATE) * factor
        model = network.build(seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False)
        rng = np.random.default_rng(seed)
        epochs = -(-STEPS * BATCH // len(digits.x_train))
        order = np.concatenate([rng.permutation(len(digits.x_train)) for _ in range(epochs)])[: STEPS * BATCH]
        x, y = digits.x_train[order], digits.y_train[order]
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        final, accuracy = model.evaluate(digits.x_train, digits.y_train, batch_size=256, verbose=0)
        best = max(best, (accuracy, rate, final))
        if accuracy >= LEARNED:
            break
    accuracy, rate, final = best
    outcome = "learned" if accuracy >= LEARNED else "chance" if accuracy <= CHANCE else "slow"
    return {
        "outcome": outcome,
        "accuracy": f"{accuracy:.4f}",
        "loss": f"{final:.4f}",
        "learning_rate": f"{rate:.3g}",
    }


def read(path: Path) -> dict[Key, Row]:
    """Returns the rows of a CSV; none if there is no file."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {(row["kind"], int(row["depth"]), int(row["seed"])): row for row in csv.DictReader(file)}


def word_of(row: Row) -> str:
    """Returns the words of `SEVERITY` that a row's verdict begins with."""
    verdict = row["verdict"].removeprefix("partly ")
    return next(word for word in SEVERITY if verdict.startswith(word))


def rank_correlation(rows: Sequence[Row]) -> float:
    """Returns Spearman's rank correlation of the verdict's severity with the final loss."""
    severities = [SEVERITY[word_of(row)] for row in rows]
    losses = np.array([float(row["loss"]) for row in rows])
    # A loss that is not a number is worse than any other.
    return float(spearmanr(severities, np.where(np.isnan(losses), np.inf, losses)).statistic)


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns how often each verdict came to which outcome, and how well verdicts rank the final losses."""
    outcomes: dict[str, Counter[str]] = {}
    for row in rows:
        outcomes.setdefault(word_of(row), Counter())[row["outcome"]] += 1
    return {
        "networks": len(rows),
        "rank_correlation": round(rank_correlation(rows), 4) if len(rows) > 1 else None,
        "outcomes": {word: dict(outcomes[word]) for word in SEVERITY if word in outcomes},
    }


def write(path: Path, rows: Mapping[Key, Row], command: str) -> None:
    """Writes the CSV, seed by seed in the order of `NETWORKS`, and a JSON file with the conditions."""
    seeds = sorted({seed for _, _, seed in rows})
    by_seed = {
        seed: [rows[key] for network in NETWORKS if (key := (network.kind, network.depth, seed)) in rows]
        for seed in seeds
    }

    def fill(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for ordered in by_seed.values():
                writer.writerows(ordered)

    write_atomically(path, fill)
    described = path.with_suffix(".json")
    commands = json.loads(described.read_text(encoding="utf-8"))["commands"] if described.exists() else []
    conditions = {
        "commands": [*commands, command] if command not in commands else commands,
        "steps": STEPS,
        "batch_size": BATCH,
        "dataset": "digits",
        "chance": CHANCE,
        "learned": LEARNED,
        "seeds": {str(seed): summarize(ordered) for seed, ordered in by_seed.items()},
        "machine": describe_machine(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
    }
    text = json.dumps(conditions, indent=2) + "\n"
    write_atomically(described, lambda temporary: temporary.write_text(text, "utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and trains the networks, prints a line for each and, with --output, writes them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = sorted({network.kind for network in NETWORKS})
    parser.add_argument("--only", nargs="+", choices=kinds, help="only these kinds of network")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order of the data")
    parser.add_argument("--measure", action="store_true", help="measure again, and keep the training")
    parser.add_argument("--output", type=Path, help="CSV file for the results; the next run continues it")
    options = parser.parse_args(arguments)
    digits = data.load("digits")
    rows = read(options.output) if options.output else {}
    for network in NETWORKS:
        key = (network.kind, network.depth, options.seed)
        known = rows.get(key)
        if (options.only and network.kind not in options.only) or (known and not options.measure):
            continue
        trained = {name: known[name] for name in TRAINED} if known else train(network, digits, options.seed)
        rows[key] = row = {
            "kind": network.kind,
            "depth": str(network.depth),
            "seed": str(options.seed),
            **measure(network, digits, options.seed),
            **trained,
        }
        print("  ".join(row.values()), flush=True)
        keras.utils.clear_session()
        if options.output:
            write(options.output, rows, f"python {' '.join([*sys.argv[:1], *(arguments or sys.argv[1:])])}")


if __name__ == "__main__":
    main()
