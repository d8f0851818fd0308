"""Cost of `gradient_walk` in training steps of the same model on the same batch.

Calls of both alternate. A step is one call of `train_on_batch` of a compiled model after a first call. The
first call of `gradient_walk` in a process is reported separately, since it also loads libraries.

    python benchmarks/cost_of_a_walk.py --output benchmarks/results/cost_of_a_walk.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
from _output import describe_machine, new_file, write_json

from keras_rwinit import gradient_walk, model_zoo

Build = Callable[[], keras.Model]

MODELS: dict[str, tuple[Build, int]] = {
    "stack 1000 x 100": (
        lambda: model_zoo.deep_mlp(1000, 100, distribution="normal", input_shape=(64,), seed=0),
        128,
    ),
    "stack 100 x 512": (
        lambda: model_zoo.deep_mlp(100, 512, distribution="normal", input_shape=(64,), seed=0),
        256,
    ),
    "100 Dense x 512": (
        lambda: model_zoo.deep_mlp(100, 512, distribution="normal", input_shape=(64,), stacked=False, seed=0),
        256,
    ),
    "ResNet50, 64 x 64": (
        lambda: keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10),
        64,
    ),
    "VGG16, 64 x 64": (
        lambda: keras.applications.VGG16(weights=None, input_shape=(64, 64, 3), classes=10),
        32,
    ),
}


def time_call(call: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(build: Build, batch: int, repeats: int) -> dict[str, float]:
    """Returns the median times of both and their ratio."""
    model = build()
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0  # all steps see the same weights
    x = np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")
    y = np.zeros((batch, 10), "float32")
    model.train_on_batch(x, y)
    first = time_call(lambda: gradient_walk(model, x, y))
    steps, walks = [], []
    for _ in range(repeats):
        steps.append(time_call(lambda: model.train_on_batch(x, y)))
        walks.append(time_call(lambda: gradient_walk(model, x, y)))
    step, walk = statistics.median(steps), statistics.median(walks)
    return {"batch": batch, "step": step, "walk": walk, "first_walk": first, "steps_per_walk": walk / step}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each model and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    results = {}
    for name, (build, batch) in MODELS.items():
        results[name] = row = measure(build, batch, options.repeats)
        print(
            f"{name:20} batch {batch:4}  step {row['step']:6.3f} s  walk {row['walk']:6.3f} s "
            f"(first {row['first_walk']:6.3f})  {row['steps_per_walk']:5.2f} steps",
            flush=True,
        )
    if options.output:
        report = {"machine": describe_machine(), "backend": keras.backend.backend(), "models": results}
        write_json(options.output, report)


if __name__ == "__main__":
    main()
