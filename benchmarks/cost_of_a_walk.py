"""Cost of `gradient_walk` in training steps of the same model on the same batch: time and memory.

Calls of both alternate. A step is one call of `train_on_batch` of a compiled model after a first call. The
first call of `gradient_walk` in a process is reported separately, since it also loads libraries. A record is
one of `GradientWalkCallback` with the files in `log_dir`, the picture at the end left out: what `fit` takes
longer with it, over the number of records. Memory is what a process that does one of the two twice needs at
most above what it had with the model built; it is measured on Linux.

    python benchmarks/cost_of_a_walk.py --output benchmarks/results/cost_of_a_walk.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from _output import describe_machine, new_file, write_json

from keras_rwinit import GradientWalkCallback, gradient_walk, initialize, model_zoo

Build = Callable[[], keras.Model]

PROCESS = Path("/proc/self")
STEPS, RECORDS = 8, 4  # of a training with the callback


def build_cnn() -> keras.Model:
    """Returns a plain network of 100 convolutions."""
    image = keras.Input((32, 32, 3))
    h = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    for _ in range(99):
        h = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(h)
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(h)))
    initialize(model, seed=0)
    return model


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
    "100 Conv2D x 32": (build_cnn, 32),
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


def prepare(build: Build, batch: int) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Returns a compiled model and its batch."""
    model = build()
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0  # all steps see the same weights
    x = np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")
    return model, x, np.zeros((batch, 10), "float32")


def measure(build: Build, batch: int, repeats: int) -> dict[str, float]:
    """Returns the median times of both and of a record, and the ratios."""
    model, x, y = prepare(build, batch)
    model.train_on_batch(x, y)
    first = time_call(lambda: gradient_walk(model, x, y))
    steps, walks = [], []
    for _ in range(repeats):
        steps.append(time_call(lambda: model.train_on_batch(x, y)))
        walks.append(time_call(lambda: gradient_walk(model, x, y)))
    record = statistics.median(time_record(model, x, y) for _ in range(max(1, repeats // 2)))
    step, walk = statistics.median(steps), statistics.median(walks)
    return {
        "batch": batch,
        "step": step,
        "walk": walk,
        "first_walk": first,
        "record": record,
        "steps_per_walk": walk / step,
        "steps_per_record": record / step,
    }


def time_record(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the seconds that one record of the callback adds to a training."""
    many_x, many_y = np.concatenate([x] * STEPS), np.concatenate([y] * STEPS)

    def fit(*callbacks: keras.callbacks.Callback) -> float:
        return time_call(lambda: model.fit(many_x, many_y, len(x), verbose=0, callbacks=list(callbacks)))

    fit()
    with tempfile.TemporaryDirectory() as folder:
        callback = GradientWalkCallback(x, y, log_dir=folder, update_freq=STEPS // RECORDS, picture=False)
        seconds = fit(callback)
        return (seconds - fit()) / len(callback.history)


def use_memory(name: str, part: str) -> None:
    """Does one thing twice and prints the KiB that this process needed for it at most."""
    model, x, y = prepare(*MODELS[name])
    (PROCESS / "clear_refs").write_text("5")  # the peak begins again
    before = read_status("VmRSS")
    for _ in range(2):
        if part == "step":
            model.train_on_batch(x, y)
        else:
            gradient_walk(model, x, y)
    print(read_status("VmHWM") - before)


def read_status(key: str) -> int:
    """Returns an entry of this process's status, in KiB."""
    lines = (PROCESS / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def measure_memory(name: str) -> dict[str, float]:
    """Returns the memory of a step and of a walk in MiB, and their ratio; nothing but on Linux."""
    if not PROCESS.exists():
        return {}
    needed = {}
    for part in ("step", "walk"):
        command = [sys.executable, __file__, "--memory", name, part]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        needed[part] = int(output.split()[-1]) / 1024
    step, walk = needed.values()
    return {"step_memory": step, "walk_memory": walk, "memory_per_step": walk / step}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each model and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), help="models")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # how this script runs itself
    options = parser.parse_args(arguments)
    if options.memory:
        use_memory(*options.memory)
        return
    results = {}
    for name in options.only:
        build, batch = MODELS[name]
        results[name] = row = {**measure(build, batch, options.repeats), **measure_memory(name)}
        print(
            f"{name:20} batch {batch:4}  step {row['step']:6.3f} s  walk {row['walk']:6.3f} s "
            f"(first {row['first_walk']:6.3f})  {row['steps_per_walk']:5.2f} steps  "
            f"record {row['steps_per_record']:5.2f} steps  memory {row.get('memory_per_step', np.nan):5.2f}",
            flush=True,
        )
    if options.output:
        report = {"machine": describe_machine(), "backend": keras.backend.backend(), "models": results}
        write_json(options.output, report)


if __name__ == "__main__":
    main()
