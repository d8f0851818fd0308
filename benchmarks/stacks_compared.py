"""Compares very deep networks on every engine with each other and with a floor that none can go below.

Each contender runs in its own process, which gives its own time to first step and peak memory. The contenders
of one size take turns in making steps, so that a change of the machine's speed affects all of them. All but
one are stopped (SIGSTOP), since idle threads of some libraries go on to use the processors. If they do not
fit into memory together, they run one after the other. Imports and the start of the back end are not counted.
The ratios are comparable between machines; the times are not.

There are two floors. Bare matmuls are the three products of each layer with one kernel, which stays in the
cache. The true floor has the same products with a kernel of its own for each layer, and the time in which the
machine copies as many bytes as Adam must read and write.

    python benchmarks/stacks_compared.py --output benchmarks/results/stacks_compared_cpu.json
    python benchmarks/stacks_compared.py --depth 1000 --width 2048 --batch 4096 --dtype bfloat16 --only JAX
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Nothing here imports Keras: a process begins with the peak memory of the one that started it.
import numpy as np
from _contenders import ADAM, CONTENDERS, EPOCH, Epoch, backend_of
from _output import describe_machine, new_file, write_json
from rich.console import Console
from rich.table import Table

# Weights, gradient, Adam's two moments, and a second copy of the weights while they are drawn.
_BYTES_PER_PARAMETER = 20
_SHARE_OF_MEMORY = 0.8
_LARGEST_EPOCH = 30_000  # hidden units of a network of which whole epochs are measured

# Times in seconds, sizes in bytes and texts by name, as in the JSON file.
Record: TypeAlias = dict[str, Any]


def serve(name: str, depth: int, width: int, batch: int, dtype: str) -> None:
    """Runs a contender's process: makes the first step, then as many as each line of input asks for."""
    # Libraries print to stdout, which here carries only the answers.
    answer, sys.stdout = sys.stdout, sys.stderr
    # A small network first, so that imports and start-up are not counted.
    CONTENDERS[name](2, 64, batch, dtype)()
    start = time.perf_counter()
    step = CONTENDERS[name](depth, width, batch, dtype)
    step()
    print(json.dumps({"first_step": time.perf_counter() - start}), file=answer, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) / (step.steps if isinstance(step, Epoch) else 1))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"steps": times, "peak_memory": peak}), file=answer, flush=True)


class Contender:
    """A contender's process, as seen from the parent."""

    def __init__(self, name: str, size: list[str]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that is not read would fill up)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, *size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={
                **os.environ,
                # Before anything imports Keras
                **({"KERAS_BACKEND": backend} if (backend := backend_of(name)) else {}),
                # Else PyTorch finds on disk what an earlier run has compiled.
                "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            },
        )
        self.result: Record = {**self._read_answer(), "steps": []}
        self._signal(signal.SIGSTOP)

    def make_steps(self, count: int) -> None:
        """Makes `count` steps and records their times, but for those of a first step after a stop."""
        if self.process.stdin and "error" not in self.result:
            self._signal(signal.SIGCONT)
            with contextlib.suppress(BrokenPipeError):  # it has ended, as its answer will say
                self.process.stdin.write(f"{count + 1}\n")
                self.process.stdin.flush()
            answer = self._read_answer()
            self._signal(signal.SIGSTOP)
            # The first step finds the caches filled by another process.
            self.result["steps"] += answer.pop("steps", [])[1:]
            self.result |= answer

    def close(self) -> Record:
        """Ends the process and returns the record, with the quartiles of the time per step."""
        self.process.kill()
        self.process.wait()
        times = self.result["steps"]
        if not times:
            return self.result
        low, step, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
        return {**self.result, "step": step, "quartiles": [low, high]}

    def _signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def _read_answer(self) -> Record:
        """Returns the next answer of the process, or its last line of output as an error."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return {"error": (lines[-1] if lines else f"ended with {self.process.wait()}")[:200]}


def measure_size(depth: int, width: int, options: argparse.Namespace) -> dict[str, Record]:
    """Measures all contenders at one size and returns their records by name."""
    memory = _BYTES_PER_PARAMETER * depth * width**2
    room = _SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    records: dict[str, Record] = {}
    alive: list[Contender] = []
    size = [str(value) for value in (depth, width, options.batch, options.dtype)]
    together = memory * len(names) < room and not options.one_by_one
    for name in names:
        # Of the floors, bare products have one kernel, and the others two arrays of the weights' size.
        needed = memory
        if is_floor(name):
            needed = 0 if name.startswith("bare") else 8 * depth * width**2
        if needed > room:
            records[name] = {"left_out": f"does not fit: {needed / 2**30:.0f} GiB"}
        elif depth > (deepest := deepest_of(name, options)):
            records[name] = {"left_out": f"compiles for minutes to hours beyond {deepest} layers"}
        elif name.endswith("fit") and depth * width > _LARGEST_EPOCH:
            records[name] = {"left_out": f"{EPOCH} steps at a time take long"}
        else:
            alive.append(Contender(name, size))
            if not together:
                alive[-1].make_steps(options.steps)
                records[name] = alive.pop().close()
    if alive:
        for done in range(0, options.steps, 2):
            for contender in alive:
                contender.make_steps(min(2, options.steps - done))
        records |= {contender.name: contender.close() for contender in alive}
    return {name: records[name] for name in names}


def is_floor(name: str) -> bool:
    """Returns whether a contender is part of a floor, and no network."""
    return "matmuls" in name or name == ADAM


def deepest_of(name: str, options: argparse.Namespace) -> float:
    """Returns the number of layers up to which a contender is measured."""
    if "torch.compile" in name or "Dense, JAX" in name:
        return float(options.deepest_compiled)
    return float(options.deepest_dense) if "Dense" in name else math.inf


def floors_of(name: str, records: dict[str, Record]) -> tuple[float, float]:
    """Returns the seconds of both floors on the contender's engine, NaN if unknown.

    PyTorch is compared with those of TensorFlow.
    """
    engine = "JAX" if "JAX" in name or "Equinox" in name else "TensorFlow"
    bare, different, adam = (
        float(records.get(part, {}).get("step", math.nan))
        for part in (f"bare matmuls, {engine}", f"matmuls of different kernels, {engine}", ADAM)
    )
    return bare, different + adam


def make_table(depth: int, width: int, batch: int, records: dict[str, Record]) -> Table:
    """Returns the records as a table."""
    table = Table(title=f"depth {depth:,}, width {width:,}, batch {batch:,}")
    for column in ("", "first step", "step (median)", "quartiles", "x bare", "x floor", "memory"):
        table.add_column(column, justify="left" if not column else "right")
    for name, record in records.items():
        if "step" not in record or "error" in record:
            table.add_row(name, record.get("left_out") or record.get("error", ""), *[""] * 5)
            continue
        low, high = record["quartiles"]
        ratios = [] if is_floor(name) else [record["step"] / floor for floor in floors_of(name, records)]
        table.add_row(
            name,
            f"{record['first_step']:.2f} s",
            f"{1e3 * record['step']:.1f} ms",
            f"{1e3 * low:.1f}-{1e3 * high:.1f}",
            *([f"{ratio:.2f}" if ratio == ratio else "" for ratio in ratios] or ["", ""]),
            f"{record['peak_memory'] / 2**30:.2f} GiB",
        )
    return table


def main() -> None:
    """Prints a table for every size and, with --output, writes all records as JSON after each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, nargs="+", default=[100, 1000, 10_000], help="hidden layers")
    parser.add_argument("--width", type=int, nargs="+", default=[64, 100, 256, 1024], help="units")
    parser.add_argument("--batch", type=int, default=128, help="batch size")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="dtype"
    )
    parser.add_argument("--steps", type=int, default=10, help="number of timed steps")
    parser.add_argument("--only", nargs="+", help="measure only contenders whose name contains one of these")
    parser.add_argument(
        "--one-by-one", action="store_true", help="never keep two contenders alive, as on one GPU"
    )
    parser.add_argument("--deepest-dense", type=int, default=1000, help="most Dense layers, TensorFlow")
    parser.add_argument(
        "--deepest-compiled", type=int, default=100, help="most for torch.compile and Dense, JAX"
    )
    parser.add_argument("--output", type=new_file, help="new JSON file for the records")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, depth, width, batch, dtype = options.serve
        serve(name, int(depth), int(width), int(batch), dtype)
        return
    sizes: list[Record] = []
    for depth in options.depth:
        for width in options.width:
            records = measure_size(depth, width, options)
            Console(width=120).print(make_table(depth, width, options.batch, records))
            sizes.append({"depth": depth, "width": width, "contenders": records})
            if options.output:
                write_json(options.output, {**_conditions(options), "sizes": sizes})


def _conditions(options: argparse.Namespace) -> Record:
    """Returns the settings, the machine and the versions of the packages."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("tensorflow", "keras", "jax", "torch", "equinox", "optax", "numpy")
    return {
        "batch": options.batch,
        "dtype": options.dtype,
        "steps": options.steps,
        "machine": describe_machine(),
        "versions": {name: installed(name) for name in packages},
    }


if __name__ == "__main__":
    main()
