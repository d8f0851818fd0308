"""Very deep networks on every engine, against each other and against bare matrix products, in one run.

Each contender has a process of its own, so that time to the first step and peak memory are its own; all
those of one size are alive together and make their steps in turn, so that a drift of the machine's speed
meets them alike. Where they would not fit into memory together, they come one after the other. Imports and
the back end's start-up are not counted. Quote the ratios.

    python benchmarks/stacks_compared.py --output benchmarks/results/stacks_compared_cpu.json
    python benchmarks/stacks_compared.py --depth 1000 --width 2048 --batch 4096 --dtype bfloat16 --only JAX
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _contenders import CONTENDERS
from keras_rwinit.models.model_zoo import count_parameters
from rich.console import Console
from rich.table import Table

from keras_rwinit._files import write_json
from keras_rwinit._memory import physical_memory

# Weights, gradient and Adam's moments, and once the weights again while they are drawn.
_BYTES_A_PARAMETER = 20
_SHARE_OF_MEMORY = 0.8


def serve(name: str, depth: int, width: int, batch: int, dtype: str) -> None:
    """A contender's process: makes the first step, then as many as each line of input says."""
    answer, sys.stdout = sys.stdout, sys.stderr
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
    """The parent's end of a contender's process."""

    def __init__(self, name: str, size: list[str]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that nobody reads would fill up)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, *size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.result: dict[str, Any] = {**self._answer(), "steps": []}

    def steps(self, count: int) -> None:
        """Makes `count` steps and notes their times."""
        if self.process.stdin and "error" not in self.result:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            answer = self._answer()
            self.result["steps"] += answer.pop("steps", [])
            self.result |= answer

    def close(self) -> dict[str, Any]:
        """Ends the process; returns the record."""
        self.process.kill()
        self.process.wait()
        times = self.result["steps"]
        return {**self.result, **({"step": statistics.median(times)} if times else {})}

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return {"error": (lines[-1] if lines else f"ended with {self.process.wait()}")[:200]}


def compared(depth: int, width: int, options: argparse.Namespace) -> dict[str, Any]:
    """Records of all contenders at one size, by name."""
    memory = _BYTES_A_PARAMETER * count_parameters(depth, width, 64, 10)
    room = _SHARE_OF_MEMORY * (physical_memory() or 2**40)
    names = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    records: dict[str, Any] = {}
    alive: list[Contender] = []
    size = [str(value) for value in (depth, width, options.batch, options.dtype)]
    together = memory * len(names) < room
    for name in names:
        if "matrix" not in name and memory > room:
            records[name] = {"left_out": f"{memory / 2**30:.0f} GiB do not fit"}
        elif "Dense" in name and depth > options.deepest_dense:
            records[name] = {
                "left_out": f"minutes to hours of compiling beyond {options.deepest_dense} layers"
            }
        else:
            alive.append(Contender(name, size))
            if not together:
                alive[-1].steps(options.steps)
                records[name] = alive.pop().close()
    if alive:
        for done in range(0, options.steps, 2):
            for contender in alive:
                contender.steps(min(2, options.steps - done))
        records |= {contender.name: contender.close() for contender in alive}
    return {name: records[name] for name in names}


def table_of(depth: int, width: int, batch: int, records: dict[str, Any]) -> Table:
    """Seconds, GiB, and steps as multiples of the same engine's matrix products (PyTorch: TensorFlow's)."""
    table = Table(title=f"depth {depth:,}, width {width:,}, batch {batch:,}")
    for column in ("", "first step done", "a step (median)", "of matrix products", "peak memory"):
        table.add_column(column, justify="left" if not column else "right")
    for name, record in records.items():
        if "step" not in record or "error" in record:
            table.add_row(name, record.get("left_out") or record.get("error", ""), "", "", "")
            continue
        engine = "JAX" if "JAX" in name or "Equinox" in name else "TensorFlow"
        floor = records.get(f"matrix products, {engine}", {}).get("step")
        table.add_row(
            name,
            f"{record['first_step']:.2f} s",
            f"{1e3 * record['step']:.1f} ms",
            f"{record['step'] / floor:.2f}" if floor else "",
            f"{record['peak_memory'] / 2**30:.2f} GiB",
        )
    return table


def main() -> None:
    """Prints a table for every size and, with --output, writes them as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--width", type=int, nargs="+", default=[64, 100, 256, 1024])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", nargs="+", help="Parts of names.")
    parser.add_argument("--deepest-dense", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, depth, width, batch, dtype = options.serve
        serve(name, int(depth), int(width), int(batch), dtype)
        return
    if options.output and options.output.exists():
        parser.error(f"{options.output} is there already; choose another --output")
    sizes: list[dict[str, Any]] = []
    for depth in options.depth:
        for width in options.width:
            records = compared(depth, width, options)
            Console(width=110).print(table_of(depth, width, options.batch, records))
            sizes.append({"depth": depth, "width": width, "contenders": records})
            if options.output:
                write_json(options.output, {**_conditions(options), "sizes": sizes})


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
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
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} processors",
        "versions": {name: installed(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
