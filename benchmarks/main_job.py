"""Runs `keras-rwinit train`, the README's first command, for several seeds and against several initializers.

    python benchmarks/main_job.py --output benchmarks/results/main_job.csv
    python benchmarks/main_job.py --quick

Each line of the table is one network of one run: 1000 tanh layers of width 64 on the 8x8 digits by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from _output import new_file, write_csv

COLUMNS = ("network", "seed", "depth", "epochs", "training_accuracy", "test_accuracy", "drift")
BASELINES = ("glorot_uniform", "orthogonal")


def run(seed: int, baselines: Sequence[str], options: Sequence[str]) -> Iterator[dict[str, object]]:
    """Trains the random walk once and each baseline, and yields a line for each network."""
    for number, baseline in enumerate(baselines):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "run"
            command = ("train", "--seed", str(seed), "--compare", baseline, "--output", str(output))
            subprocess.run(
                [sys.executable, "-m", "keras_rwinit", *command, *options],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            report = json.loads((output / "report.json").read_text(encoding="utf-8"))
        networks = report["networks"]
        for name in networks if number == 0 else (baseline,):
            yield describe(name, seed, report["settings"], networks[name])


def describe(
    name: str, seed: int, settings: dict[str, object], network: dict[str, float]
) -> dict[str, object]:
    """Returns the line of one network."""
    values = (
        name,
        seed,
        settings["depth"],
        settings["epochs"],
        f"{network['accuracy']:.4f}",
        f"{network['test_accuracy']:.4f}",
        f"{network['measured_drift_nats_per_layer']:.5f}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def main(arguments: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Runs the job, prints a line for each network and, with --output, writes them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, 20 layers, one epoch")
    parser.add_argument("--output", type=new_file, help="new CSV file for the results")
    options = parser.parse_args(arguments)
    small = ("--depth", "20", "--epochs", "1") if options.quick else ()
    rows: list[dict[str, object]] = []
    for seed in range(1 if options.quick else options.seeds):
        for row in run(seed, BASELINES[:1] if options.quick else BASELINES, small):
            rows.append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.output:
        command = " ".join(["python benchmarks/main_job.py", *(arguments or sys.argv[1:])])
        write_csv(options.output, command, COLUMNS, rows)
    return rows


if __name__ == "__main__":
    main()
