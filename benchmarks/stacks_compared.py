"""Compares very deep networks on every engine with each other and with bare matrix multiplications.

Each contender runs in its own process, which gives its own time to first step and peak memory. All contenders
of one size are alive at the same time and take turns in making steps, so that a change of the machine's
speed affects all of them. If they do not fit into memory together, they run one after the other. Imports and
the start of the back end are not counted. The ratios are comparable between machines; the times are not.

    python benchmarks/stacks_compared.py --output benchmarks/results/stacks_compared_cpu.json
    python benchmarks/stacks_compared.py --depth 1000 --width 2048 --batch 4096 --dtype bfloat16 --only JAX
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _contenders import CONTENDERS
from _output import describe_machine, new_file, write_json
from rich.console import Console
from rich.table import Table

from keras_rwinit.models.model_zoo import count_parameters

# Weights, gradient, Adam's two moments, and a second copy of the weights while they are drawn.
_BYTES_PER_PARAMETER = 20
_SHARE_OF_MEMORY = 0.8

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
            times.append(time.perf_counter() - start)
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
        )
        self.result: Record = {**self._read_answer(), "steps": []}

    def make_steps(self, count: int) -> None:
        """Makes `count` steps and records their times."""
        if self.process.stdin and "error" not in self.result:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            answer = self._read_answer()
            self.result["steps"] += answer.pop("steps", [])
            self.result |= answer

    def close(self) -> Record:
        """Ends the process and returns the record, with the median time per step."""
        self.process.kill()
        self.process.wait()
        times = self.result["steps"]
        return {**self.result, **({"step": statistics.median(times)} if times else {})}

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
    memory = _BYTES_PER_PARAMETER * count_parameters(depth, width, 64, 10)
    room = _SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    records: dict[str, Record] = {}
    alive: list[Contender] = []
    size = [str(value) for value in (depth, width, options.batch, options.dtype)]
    together = memory * len(names) < room
    for name in names:
        if "matmuls" not in name and memory > room:
            records[name] = {"left_out": f"does not fit: {memory / 2**30:.0f} GiB"}
        elif "Dense" in name and depth > options.deepest_dense:
            records[name] = {
                "left_out": f"compiles for minutes to hours beyond {options.deepest_dense} layers"
            }
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


def make_table(depth: int, width: int, batch: int, records: dict[str, Record]) -> Table:
    """Returns the records as a table; times are compared with the same engine's matrix multiplications.

    PyTorch is compared with those of TensorFlow.
    """
    table = Table(title=f"depth {depth:,}, width {width:,}, batch {batch:,}")
    for column in ("", "time to first step", "time per step (median)", "x bare matmuls", "peak memory"):
        table.add_column(column, justify="left" if not column else "right")
    for name, record in records.items():
        if "step" not in record or "error" in record:
            table.add_row(name, record.get("left_out") or record.get("error", ""), "", "", "")
            continue
        engine = "JAX" if "JAX" in name or "Equinox" in name else "TensorFlow"
        floor = records.get(f"bare matmuls, {engine}", {}).get("step")
        table.add_row(
            name,
            f"{record['first_step']:.2f} s",
            f"{1e3 * record['step']:.1f} ms",
            f"{record['step'] / floor:.2f}" if floor else "",
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
    parser.add_argument("--deepest-dense", type=int, default=1000, help="most layers for Keras Dense")
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
            Console(width=110).print(make_table(depth, width, options.batch, records))
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

    packages = ("tensorflow", "keras", "jax", "torch", "equinox", "numpy")
    return {
        "batch": options.batch,
        "dtype": options.dtype,
        "steps": options.steps,
        "machine": describe_machine(),
        "versions": {name: installed(name) for name in packages},
    }


if __name__ == "__main__":
    main()
