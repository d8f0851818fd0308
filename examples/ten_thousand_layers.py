"""Trains 10,000 or 100,000 plain layers on the 8x8 digits, and prints time and memory.

python examples/ten_thousand_layers.py [--depth 100000] [--quick] [--picture loss.png] [--record loss.csv]

The network has orthogonal kernels, tanh and width 64, and is trained by Adam with cosine decay. Its memory
for activations grows with the square root of depth (`remat="sqrt"`), and XLA compiles the same loop at any
depth.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from matplotlib.figure import Figure

from keras_rwinit import data, model_zoo


class Record(keras.callbacks.Callback):
    """Records loss, accuracy and time after every batch, and appends them to a CSV file.

    Args:
        path: New file, or `None`.
        start: `time.perf_counter()` at the start.
    """

    def __init__(self, path: Path | None, start: float) -> None:
        super().__init__()
        self.path, self.start = path, start
        self.rows: list[dict[str, float]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()  # the logs are then those of this batch, not the mean of the epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        row = {"step": len(self.rows) + 1, "seconds": time.perf_counter() - self.start, **(logs or {})}
        self.rows.append({name: float(value) for name, value in row.items()})
        if self.path:
            with open(self.path, "a" if len(self.rows) > 1 else "x", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.rows[0])
                if len(self.rows) == 1:
                    writer.writeheader()
                writer.writerow(self.rows[-1])


def main(arguments: list[str] | None = None) -> float:
    """Trains, prints times and memory, and returns the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--depth", type=int, default=10_000, help="hidden layers (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="batch size (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate (default: 0.05 / depth)")
    parser.add_argument("--quick", action="store_true", help="train 500 layers for 4 epochs")
    parser.add_argument("--picture", type=Path, help="new PNG file for a picture of the loss")
    parser.add_argument("--record", type=Path, help="new CSV file for the loss of every batch")
    options = parser.parse_args(arguments)
    depth, epochs = (500, 4) if options.quick else (options.depth, options.epochs)
    if depth < 1 or epochs < 1 or options.batch < 1 or (options.learning_rate or 1.0) <= 0.0:
        parser.error("--depth, --epochs, --batch and --learning-rate must be above 0")
    for path in filter(None, (options.record, options.picture)):
        if path.exists() or not path.parent.is_dir():
            parser.error(f"{path} must be a new file in an existing directory; choose another")

    keras.utils.set_random_seed(0)  # for the order of the examples
    digits = data.load("digits")
    steps = -(-len(digits.x_train) // options.batch)
    start = time.perf_counter()
    model = model_zoo.deep_mlp(
        depth, 64, "tanh", input_shape=(64,), distribution="orthogonal", remat="sqrt", seed=0
    )
    print(f"{model.count_params():,} parameters built in {time.perf_counter() - start:.1f} s")
    peak_rate = 0.05 / depth if options.learning_rate is None else options.learning_rate
    rate = keras.optimizers.schedules.CosineDecay(peak_rate, steps * epochs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=True)
    record = Record(options.record, start)
    for epoch in range(epochs):
        model.fit(
            digits.x_train,
            digits.y_train,
            options.batch,
            epoch + 1,
            initial_epoch=epoch,
            callbacks=[record],
            verbose=0,
        )
        _, accuracy = model.evaluate(digits.x_test, digits.y_test, options.batch, verbose=0)
        last = record.rows[-min(steps, 10) :]
        mean = sum(row["loss"] for row in last) / len(last)
        print(
            f"epoch {epoch + 1}: loss {mean:.3f} over its last {len(last)} batches, test accuracy "
            f"{accuracy:.1%}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    first = record.rows[0]["seconds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"time to first step {first:.1f} s; peak memory {peak / 2**30:.2f} GiB")
    if options.picture:
        axes = Figure(figsize=(7, 4), layout="constrained").subplots()
        axes.plot([row["step"] for row in record.rows], [row["loss"] for row in record.rows], lw=1)
        axes.set(
            xlabel="step", ylabel="loss of the batch", title=f"{depth:,} tanh layers of width 64, digits"
        )
        axes.figure.savefig(options.picture, dpi=150)
    return float(accuracy)


if __name__ == "__main__":
    main()
