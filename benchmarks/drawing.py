"""Time that drawing kernels takes, against one `numpy.linalg.qr` after the other.

Each row gives the least of the repeats, in wall-clock seconds and in processor seconds. `ratio` divides the
seconds of the clock by those of the row that `against` names, which was timed in the same run: the QR
decompositions of as many matrices on one thread, or building the model. Other processes slow down both.

    python benchmarks/drawing.py --output benchmarks/results/drawing.json
    python benchmarks/drawing.py --quick
    python benchmarks/drawing.py --large
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
from _output import describe_machine, new_file, write_json
from threadpoolctl import threadpool_limits

from keras_rwinit import initialize, model_zoo
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack

STACKS = ((1_000, 64), (10_000, 64), (1_000, 100), (100, 256))
LARGE_STACK = (100_000, 64)
ACTIVATIONS = ("relu", "tanh", "gelu")
SAMPLE = 200  # matrices that the reference decomposes; more would take the same time each
BUSY = "while True: sum(range(100_000))"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        name: What was timed.
        seconds: Least seconds of the clock.
        processor_seconds: Least seconds of all processors together.
        against: What `ratio` compares with; empty where there is nothing.
        ratio: `seconds` over those of `against`.
    """

    name: str
    seconds: float
    processor_seconds: float
    against: str = ""
    ratio: float | None = None


def measure(name: str, call: Callable[[], object], repeats: int) -> Row:
    """Returns the least times of a call."""
    clocks, processors = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        result = call()
        clocks.append(time.perf_counter() - clock)
        processors.append(time.process_time() - processor)
        del result  # before the next call takes as much memory again
    return Row(name, min(clocks), min(processors))


def compare(row: Row, reference: Row, scale: float = 1.0) -> Row:
    """Returns the row with its ratio to `scale` times another one."""
    return Row(
        row.name, row.seconds, row.processor_seconds, reference.name, row.seconds / reference.seconds / scale
    )


def draw_stack(count: int, width: int) -> DenseStack:
    """Returns a stack with an orthogonal kernel for each of its layers."""
    initializer = RandomWalk("tanh", "orthogonal", gain=1.0, seed=1)
    stack = DenseStack(count, "tanh", kernel_initializer=initializer)
    stack.build((None, width))
    return stack


def decompose(count: int, width: int) -> None:
    """Draws and decomposes matrices one after the other."""
    for seed in range(count):
        np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))


def stack_rows(stacks: Sequence[tuple[int, int]], repeats: int) -> Iterator[Row]:
    """Yields the times of drawing stacks of orthogonal kernels."""
    for count, width in stacks:
        sample = min(count, SAMPLE)
        with threadpool_limits(limits=1, user_api="blas"):
            reference = measure(
                f"numpy.linalg.qr, one after the other, width {width}",
                functools.partial(decompose, sample, width),
                max(repeats, 3),
            )
        name = f"{count:,} orthogonal kernels of width {width}"
        drawn = measure(name, functools.partial(draw_stack, count, width), repeats)
        yield compare(drawn, reference, count / sample)


def build_row(depth: int, activation: str, repeats: int) -> Row:
    """Returns the time of building `deep_mlp`."""
    build = functools.partial(model_zoo.deep_mlp, depth, activation=activation, seed=1)
    return measure(f"deep_mlp({depth:,}, activation={activation!r})", build, repeats)


def initialize_rows(depth: int, activation: str, repeats: int) -> Iterator[Row]:
    """Yields the times of `initialize` beside that of building the model; its first call is left out."""
    x = np.random.default_rng(0).standard_normal((128, 784)).astype(np.float32)
    built = build_row(depth, activation, repeats)
    yield built
    model = model_zoo.deep_mlp(depth, activation=activation, seed=1)
    for data, argument in ((None, "model"), (x, "model, x")):
        call = functools.partial(initialize, model, data, seed=1)
        call()
        yield compare(measure(f"initialize({argument}) of {built.name}", call, repeats), built)


def busy_row(width: int, repeats: int) -> Row:
    """Returns the time of one kernel beside a process that computes all the time, against that without it."""

    def draw() -> object:
        return RandomWalk("tanh", "orthogonal", gain=1.0, seed=1)((width, width))

    draw()
    alone = measure(f"one orthogonal kernel of width {width}", draw, repeats)
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        beside = measure(f"{alone.name} beside a busy process", draw, repeats)
    finally:
        process.kill()
        process.wait()
    return compare(beside, alone)


def measure_all(quick: bool, large: bool, repeats: int) -> Iterator[Row]:
    """Yields every measurement."""
    depth, deep = (10, 20) if quick else (1_000, 10_000)
    yield from stack_rows(((20, 16),) if quick else STACKS, repeats)
    if large:
        yield from stack_rows([LARGE_STACK], 1)
    for activation in ACTIVATIONS:
        yield build_row(deep, activation, repeats)
    for activation in ("relu", "tanh"):
        yield from initialize_rows(depth, activation, repeats)
    yield busy_row(32 if quick else 200, repeats)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints a line for each measurement and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each")
    parser.add_argument(
        "--large", action="store_true", help="also 100,000 kernels of width 64, 5 GB of memory"
    )
    parser.add_argument("--quick", action="store_true", help="small stacks and models, once each")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    repeats = 1 if options.quick else options.repeats
    rows = []
    # The first model of a process also loads libraries.
    model_zoo.deep_mlp(2, 8, input_shape=(8,))
    for row in measure_all(options.quick, options.large, repeats):
        rows.append(row)
        ratio = "" if row.ratio is None else f"  {row.ratio:7.2f} x {row.against}"
        print(
            f"{row.name:65} {row.seconds:8.3f} s {row.processor_seconds:8.3f} s of processors{ratio}",
            flush=True,
        )
    if options.output:
        report = {
            "machine": describe_machine(),
            "backend": keras.backend.backend(),
            "rows": [asdict(row) for row in rows],
        }
        write_json(options.output, report)
    return rows


if __name__ == "__main__":
    main()
