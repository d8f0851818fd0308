"""Runs the benchmarks of speed in short forms, and compares their ratios with the recorded ones.

    python benchmarks/compare.py
    python benchmarks/compare.py --only theory drawing

Only ratios are compared: times of one run against each other, or against a fixed piece of NumPy's work. A
ratio that has grown by more than `--slower` (a half by default) is marked, and the command then ends with 1.
A busy machine can do that to any of them: run it again on an idle one before you look for the reason.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rich.console import Console
from rich.table import Table
from stacks_compared import floors_of, is_floor

HERE = Path(__file__).parent
RESULTS = HERE / "results"

# Ratios by name; smaller is faster.
Ratios: TypeAlias = dict[str, float]


def read_stacks(path: Path) -> Ratios:
    """Returns each network's time per step over the true floor, by size."""
    ratios = {}
    for size in _load(path)["sizes"]:
        for name, record in size["contenders"].items():
            floor = floors_of(name, size["contenders"])[1]
            if "step" in record and not is_floor(name) and floor == floor:
                ratios[f"{name}, depth {size['depth']:,}, width {size['width']}"] = record["step"] / floor
    return ratios


def read_walks(path: Path) -> Ratios:
    """Returns the cost of a measured walk in training steps, by model."""
    return {name: model["steps_per_walk"] for name, model in _load(path)["models"].items()}


def read_theory(path: Path) -> Ratios:
    """Returns the time of each call in multiples of a piece of NumPy's work."""
    calls: dict[str, dict[str, float]] = _load(path)["calls"]
    return {
        f"{name}, {kind.replace('_', ' ')}": call[f"{kind}_ratio"]
        for name, call in calls.items()
        for kind in ("first_call", "another_width")
    }


def read_drawing(path: Path) -> Ratios:
    """Returns the times of drawing against NumPy's, and those of `initialize` against drawing."""
    return {row["name"]: row["ratio"] for row in _load(path)["rows"] if row["ratio"] is not None}


def read_trials(path: Path) -> Ratios:
    """Returns a later trial's time over that of its passes over the data, by back end."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {
        f"{row['backend']}, {row['models']} models": float(row["later_trial_s"]) / float(row["passes_s"])
        for row in csv.DictReader(lines)
    }


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


class Benchmark(NamedTuple):
    """A script, and how its results are read.

    Args:
        script: Its file.
        options: Its options for a short run.
        recorded: Its recorded results.
        read: Returns the ratios of its results.
    """

    script: str
    options: tuple[str, ...]
    recorded: str
    read: Callable[[Path], Ratios]


BENCHMARKS = {
    "stacks": Benchmark(
        "stacks_compared.py",
        ("--depth", "100", "1000", "--width", "100", "--deepest-dense", "100", "--deepest-compiled", "1"),
        "stacks_compared_cpu.json",
        read_stacks,
    ),
    "walks": Benchmark("cost_of_a_walk.py", ("--repeats", "3"), "cost_of_a_walk.json", read_walks),
    "theory": Benchmark("theory.py", ("--repeats", "2"), "theory.json", read_theory),
    "drawing": Benchmark("drawing.py", ("--repeats", "2"), "drawing.json", read_drawing),
    "trials": Benchmark(
        "time_between_trials.py", ("--trials", "4", "--rounds", "1"), "time_between_trials.csv", read_trials
    ),
}


def run(benchmark: Benchmark) -> Ratios:
    """Runs a script and returns its ratios."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / benchmark.recorded
        command = [sys.executable, str(HERE / benchmark.script), *benchmark.options, "--output", str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return benchmark.read(output)


def compare(found: Ratios, recorded: Ratios, slower: float) -> Iterator[tuple[str, float, float, bool]]:
    """Yields name, ratio, recorded ratio, and whether it has grown too much, for what both have."""
    for name, ratio in found.items():
        if name in recorded:
            yield name, ratio, recorded[name], ratio > (1.0 + slower) * recorded[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each benchmark; returns 1 if a ratio has grown too much, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="benchmarks to run (default: all)")
    parser.add_argument("--slower", type=float, default=0.5, help="growth to mark (default: %(default)s)")
    options = parser.parse_args(arguments)
    grown = False
    for name in options.only or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        table = Table("", "ratio", "recorded", "ratio / recorded", title=f"{name}: {benchmark.script}")
        recorded = benchmark.read(RESULTS / benchmark.recorded)
        compared = list(compare(run(benchmark), recorded, options.slower))
        if not compared:
            raise SystemExit(f"{name}: no row has a recorded ratio; record {benchmark.recorded} again")
        for row, ratio, before, marked in compared:
            grown |= marked
            table.add_row(
                row, f"{ratio:.2f}", f"{before:.2f}", f"{ratio / before:.2f}{' !' if marked else ''}"
            )
        Console(width=120).print(table)
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
