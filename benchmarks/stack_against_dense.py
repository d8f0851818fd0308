"""`deep_mlp` with a DenseStack against the same network as plain Keras Dense layers, side by side.

Both are built, compiled and stepped in one process; their steps alternate, so that a drift of the machine's
speed meets both alike. Quote the ratios.

    python benchmarks/stack_against_dense.py --depth 1000 --width 100 --batch 128
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_rwinit import model_zoo
from keras_rwinit._files import write_json

_INPUTS, _CLASSES = 784, 10


def dense_network(depth: int, width: int) -> keras.Model:
    """The network as a Keras user would write it: one functional node a layer."""
    inputs = outputs = keras.Input((_INPUTS,))
    for _ in range(depth):
        outputs = keras.layers.Dense(width, "relu", kernel_initializer="random_walk_relu")(outputs)
    return keras.Model(inputs, keras.layers.Dense(_CLASSES)(outputs))


def first_step(build: Callable[[], keras.Model], x: Any, y: Any) -> tuple[keras.Model, float, float]:
    """Builds, compiles and makes a step; returns the model and seconds to the built model and the step."""
    start = time.perf_counter()
    model = build()
    built = time.perf_counter() - start
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(x, y)
    return model, built, time.perf_counter() - start


def measure(depth: int, width: int, batch: int, steps: int) -> dict[str, Any]:
    """Times of both networks, in seconds."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, _INPUTS)).astype("float32")
    y = rng.integers(0, _CLASSES, batch)
    first_step(lambda: dense_network(2, 8), x, y)  # the back end's own start-up belongs to neither

    builders: dict[str, Callable[[], keras.Model]] = {
        "DenseStack": lambda: model_zoo.deep_mlp(depth, width, seed=0),
        "Dense layers": lambda: dense_network(depth, width),
    }
    models, results = {}, {}
    for name, build in builders.items():
        models[name], built, first = first_step(build, x, y)
        results[name] = {"build": built, "first_step": first, "steps": []}
    for _ in range(steps):
        for name, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(x, y)
            results[name]["steps"].append(time.perf_counter() - start)
    for result in results.values():
        result["step"] = statistics.median(result["steps"])
    return results


def in_deep_thread(work: Callable[[], Any]) -> Any:
    """Runs `work` with the recursion limit and the stack that a functional model of this depth needs."""
    box: list[Any] = []
    sys.setrecursionlimit(1_000_000)
    threading.stack_size(512 * 2**20)
    thread = threading.Thread(target=lambda: box.append(work()))
    thread.start()
    thread.join()
    return box[0]


def main() -> None:
    """Prints the table and, with --output, writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results = in_deep_thread(lambda: measure(options.depth, options.width, options.batch, options.steps))
    stack, dense = results["DenseStack"], results["Dense layers"]
    ratios = {key: stack[key] / dense[key] for key in ("build", "first_step", "step")}
    backend = keras.backend.backend()
    table = Table(
        title=f"depth {options.depth}, width {options.width}, batch {options.batch}, {backend}, seconds"
    )
    for column in ("", "built", "first step done", "a step (median)"):
        table.add_column(column, justify="left" if not column else "right")
    for name, result in results.items():
        table.add_row(name, *(f"{result[key]:.3f}" for key in ratios))
    table.add_row(
        "ratio", *(f"1 / {1 / ratio:.1f}" if ratio < 0.5 else f"{ratio:.3f}" for ratio in ratios.values())
    )
    Console().print(table)
    if options.output:
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
        write_json(
            options.output,
            {
                **{k: v for k, v in vars(options).items() if k != "output"},
                "backend": backend,
                "machine": machine,
                "results": results,
                "ratios": ratios,
            },
        )


if __name__ == "__main__":
    main()
