"""Profile of a training step of a DenseStack, and its compile time at several depths (TensorFlow).

    python benchmarks/where_a_step_goes.py --depth 1000 --width 256 --output profile.json
    python benchmarks/where_a_step_goes.py --depth 300 --width 100 --activations relu "shaped(relu)"

From "forward" on, each row of the table includes the work of the row before. The steps of all rows
alternate. With `--activations` the rows are steps of `deep_mlp` with these activations instead.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from _contenders import CONTENDERS, stack_builder
from _output import new_file, write_json
from rich.console import Console
from rich.table import Table

from keras_rwinit.layers.dense_stack import run_stack


def build_rows(depth: int, width: int, batch: int, jit_compile: bool) -> dict[str, Callable[[], object]]:
    """Returns the function of each row: parts of the loop over tanh layers with biases."""
    initializer = keras.initializers.RandomNormal(stddev=1.1 / width**0.5, seed=0)
    weights = [
        keras.Variable(initializer((depth, width, width))),
        keras.Variable(tf.zeros((depth, width))),
    ]
    x = tf.random.stateless_normal((batch, width), (0, 0))
    optimizers = {"SGD": keras.optimizers.SGD(1e-9), "Adam": keras.optimizers.Adam(1e-9)}
    for optimizer in optimizers.values():
        optimizer.build(weights)

    def forward() -> tf.Tensor:
        h = run_stack(x, weights[0].value, weights[1].value, keras.activations.tanh)
        return tf.reduce_sum(h)

    def linear() -> tf.Tensor:
        with tf.GradientTape() as tape:
            h = run_stack(x, weights[0].value, None, keras.activations.linear)
            value = tf.reduce_sum(h)
        return tf.reduce_sum(tape.gradient(value, weights[0].value))

    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = forward()
        return tape.gradient(value, [weight.value for weight in weights])

    def with_update(name: str) -> Callable[[], tf.Tensor]:
        def step() -> tf.Tensor:
            found = gradients()
            optimizers[name].apply(found, weights)
            return tf.reduce_sum(found[1])

        return step

    compiled = {
        "linear layers without biases, forward and backward": linear,
        "forward": forward,
        "forward and backward": lambda: [tf.reduce_sum(gradient) for gradient in gradients()],
        "with SGD's update": with_update("SGD"),
        "with Adam's update": with_update("Adam"),
    }
    return {
        "bare matmuls": CONTENDERS["bare matmuls, TensorFlow"](depth, width, batch, "float32"),
        "matmuls of different kernels": CONTENDERS["matmuls of different kernels, TensorFlow"](
            depth, width, batch, "float32"
        ),
        **{name: tf.function(step, jit_compile=jit_compile) for name, step in compiled.items()},
    }


def time_alternately(steps: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Returns the median seconds of each step; all take turns `count` times, after one that compiles."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(count):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def make_table(medians: dict[str, float], title: str) -> Table:
    """Returns the times, and their ratios to the first."""
    first = next(iter(medians))
    table = Table(title=title)
    for column in ("", "time per step (median)", f"x {first}"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in medians.items():
        table.add_row(name, f"{1e3 * seconds:.1f} ms", f"{seconds / medians[first]:.2f}")
    return table


def time_to_first_step(depth: int, jit_compile: bool) -> float:
    """Returns the seconds until the first step of a narrow stack, most of which is compile time."""
    step = build_rows(depth, 4, 4, jit_compile)["with Adam's update"]
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table and the compile times and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--depth", type=int, default=1000, help="hidden layers")
    parser.add_argument("--width", type=int, default=256, help="units")
    parser.add_argument("--batch", type=int, default=128, help="batch size")
    parser.add_argument("--steps", type=int, default=10, help="number of timed steps")
    parser.add_argument("--no-xla", action="store_true", help="compile without XLA")
    parser.add_argument("--activations", nargs="+", help="compare the steps of these activations")
    parser.add_argument("--output", type=new_file, help="new JSON file for the times")
    options = parser.parse_args()
    xla = not options.no_xla
    title = f"depth {options.depth:,}, width {options.width:,}, XLA {'on' if xla else 'off'}"
    kept = {name: value for name, value in vars(options).items() if name != "output"}
    console = Console()
    if options.activations:
        steps = {
            name: stack_builder(xla, activation=name, distribution=None)(
                options.depth, options.width, options.batch, "float32"
            )
            for name in options.activations
        }
        medians = time_alternately(steps, options.steps)
        console.print(make_table(medians, title))
        if options.output:
            write_json(options.output, {**kept, "seconds": medians})
        return
    rows = build_rows(options.depth, options.width, options.batch, xla)
    medians = time_alternately(rows, options.steps)
    time_to_first_step(30, xla)  # starts TensorFlow, and is not counted
    first = {depth: time_to_first_step(depth, xla) for depth in (100, 1000, 10_000)}
    console.print(make_table(medians, title))
    console.print(
        "time to first step at width 4: " + ", ".join(f"{s:.2f} s at depth {d:,}" for d, s in first.items())
    )
    if options.output:
        write_json(options.output, {**kept, "seconds": medians, "first_step_of_width_4": first})


if __name__ == "__main__":
    main()
