"""Trains the defaults of `deep_mlp` with `model_zoo.recipe` at several depths, and records the accuracies.

For each depth, activation and seed the network learns the 8x8 digits by plain `compile` and `fit`. A line
of the table has the accuracy and the loss on the whole training set, and the test accuracy, after the last
epoch.

    python benchmarks/depths.py --output benchmarks/results/depths.csv
    python benchmarks/depths.py --depths 20 300 --width 32 --batch 128 --seeds 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import keras
from _output import new_file, write_csv

from keras_rwinit import data, model_zoo

COLUMNS = (
    "activation",
    "depth",
    "width",
    "batch",
    "epochs",
    "seed",
    "distribution",
    "learning_rate",
    "training_accuracy",
    "training_loss",
    "test_accuracy",
    "seconds",
)


def train(
    depth: int, width: int, activation: str, batch: int, epochs: int, seed: int, distribution: str | None
) -> dict[str, str]:
    """Trains one network and returns its line of the table."""
    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    digits = data.load("digits")
    model = model_zoo.deep_mlp(
        depth,
        width,
        activation,
        input_shape=(digits.features,),
        classes=digits.classes,
        distribution=distribution,
        seed=seed,
    )
    model.compile(**model_zoo.recipe(model), metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, batch_size=batch, epochs=epochs, verbose=0)
    loss, accuracy = model.evaluate(digits.x_train, digits.y_train, batch_size=512, verbose=0)
    _, test_accuracy = model.evaluate(digits.x_test, digits.y_test, batch_size=512, verbose=0)
    values = (
        activation,
        depth,
        width,
        batch,
        epochs,
        seed,
        distribution or "default",
        f"{float(model.optimizer.learning_rate):.3g}",
        f"{accuracy:.4f}",
        f"{loss:.4f}",
        f"{test_accuracy:.4f}",
        f"{time.perf_counter() - started:.0f}",
    )
    keras.backend.clear_session()
    return dict(zip(COLUMNS, map(str, values), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the networks, prints a line for each and, with --output, writes them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 100, 300, 1000])
    parser.add_argument("--activations", nargs="+", default=["relu", "tanh"])
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distribution", help="in place of the default one")
    parser.add_argument("--output", type=new_file, help="new CSV file for the results")
    options = parser.parse_args(arguments)
    rows = []
    for seed in range(options.seeds):
        for depth in options.depths:
            for activation in options.activations:
                row = train(
                    depth,
                    options.width,
                    activation,
                    options.batch,
                    options.epochs,
                    seed,
                    options.distribution,
                )
                rows.append(row)
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.output:
        command = " ".join(["python benchmarks/depths.py", *(arguments or sys.argv[1:])])
        write_csv(options.output, command, COLUMNS, rows)


if __name__ == "__main__":
    main()
