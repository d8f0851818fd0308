"""Runs `gradient_walk` and `initialize` on every architecture of `keras.applications`, with random weights.

For each architecture it prints and saves the number of kernels drawn, the skipped weights by reason, the time
of both functions, the gradient's walk in training mode before and after, whether all values are finite, and
whether the report lists every weight.

    python benchmarks/every_application.py --output benchmarks/results/every_application.json
    python benchmarks/every_application.py --only MobileNetV2 VGG16
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from _output import describe_machine, new_file, write_json

from keras_rwinit import gradient_walk, initialize

LEAST_SIZE = {"Inception": 75, "Xception": 71}
BATCH = 4


def architectures() -> list[str]:
    """Returns the names of all models of `keras.applications`."""
    return sorted(name for name, value in vars(keras.applications).items() if inspect.isfunction(value))


def build(name: str) -> keras.Model:
    """Builds an architecture for small images and ten classes."""
    size = next((least for prefix, least in LEAST_SIZE.items() if name.startswith(prefix)), 32)
    shape = (size, size, 3)
    return getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10)


def examine(name: str) -> dict[str, Any]:
    """Runs both functions on one architecture and returns what they found."""
    model = build(name)
    x = np.random.default_rng(0).uniform(0.0, 255.0, (BATCH, *model.input_shape[1:])).astype("float32")
    started = time.perf_counter()
    before = gradient_walk(model, x, training=True)
    measured = time.perf_counter()
    report = initialize(model, x, seed=0)
    drawn = time.perf_counter()
    after = gradient_walk(model, x, training=True)
    named = {kernel.path for kernel in report.kernels} | {path for path, _ in report.skipped}
    outputs = keras.ops.convert_to_numpy(model(x, training=True))
    return {
        "parameters": model.count_params(),
        "layers": len(model.layers),
        "kernels": len(report.kernels),
        "skipped": dict(Counter(reason for _, reason in report.skipped)),
        "walk_seconds": measured - started,
        "initialize_seconds": drawn - measured,
        "verdict_before": before.verdict,
        "verdict_after": after.verdict,
        "drift_before": before.drift,
        "drift_after": after.drift,
        "finite": bool(np.isfinite(outputs).all() and np.isfinite(after.backward).all()),
        "complete": {v.path for v in model.weights if len(v.shape) > 1} <= named,
        "guessed": sum("guess" in kernel.why for kernel in report.kernels),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines the architectures, prints a line for each and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=architectures(), help="examine only these architectures")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    results = {}
    for name in options.only or architectures():
        results[name] = row = examine(name)
        print(
            f"{name:20} {row['kernels']:4} kernels, {sum(row['skipped'].values())} skipped  "
            f"walk {row['walk_seconds']:5.1f} s  initialize {row['initialize_seconds']:5.1f} s  "
            f"drift {row['drift_before']:+.4f} -> {row['drift_after']:+.4f}  "
            f"finite {row['finite']}  complete {row['complete']}",
            flush=True,
        )
        keras.utils.clear_session()
    if options.output:
        report = {"machine": describe_machine(), "keras": keras.__version__, "architectures": results}
        write_json(options.output, report)


if __name__ == "__main__":
    main()
