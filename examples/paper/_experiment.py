"""What the experiments share: their options, and a table that is filled run by run and can be resumed."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_rwinit import data
from keras_rwinit._files import locked, write_atomically

__all__ = ["Experiment", "Row", "mean_and_deviation", "of", "parsed"]

Row = dict[str, Any]

_TABLE = "results.csv"


@dataclass(frozen=True)
class Experiment:
    """The options of one experiment.

    Args:
        name: Of its folder.
        folder: Where its table and pictures are.
        quick: Whether to show in under two minutes that it works, on small data, rather than to find out.
        data_dir: Folder of prepared tensorflow-datasets sets. `None`: their own.
        dataset: The data set, where there is a choice.
    """

    name: str
    folder: Path
    quick: bool
    data_dir: str | None
    dataset: str

    def images(self) -> data.Dataset:
        """MNIST, and where the experiment is to be quick the 8x8 digits, which need no download."""
        return data.load("digits") if self.quick else data.load("mnist", self.data_dir)

    def rows(
        self, runs: Iterable[Row], work: Callable[[Row], Mapping[str, Any]], table: str = _TABLE
    ) -> list[Row]:
        """Results of `runs`, in their order; those in the table already are not run again.

        Args:
            runs: What determines each run, by column. Another value of any of them is another run.
            work: Called with one of `runs`; returns its results, by column.
            table: File in the folder. It is written anew, whole, after every run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, runs = self.folder / table, list(runs)
        with locked(self.folder):
            found = read(path)
            done = {_key(row, runs[0]): row for row in found if runs[0].keys() <= row.keys()}
            results = []
            for number, run in enumerate(runs, start=1):
                row = done.get(_key(run, run))
                if row is None:
                    started = time.perf_counter()
                    row = {**run, **work(run)}
                    row |= {"seconds": round(time.perf_counter() - started, 2), "machine": _machine()}
                    found.append(row)
                    write(path, found)
                    shown = ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k != "machine")
                    print(f"{self.name} {number}/{len(runs)}: {shown}", flush=True)
                results.append(row)
        return results

    def save(self, figure: Any, picture: str = "picture.png") -> None:
        """Writes a picture into the folder."""
        write_atomically(self.folder / picture, lambda path: figure.savefig(path, format="png"))
        print(f"{self.name}: {self.folder / picture}", flush=True)


def parsed(
    name: str, description: str | None, arguments: Sequence[str] | None, datasets: Sequence[str] = ("mnist",)
) -> Experiment:
    """Reads an experiment's command line. `datasets`: those to choose from, the default first."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes, to see that it works")
    parser.add_argument("--output", type=Path, help="folder of folders; runs/paper, or runs/paper-quick")
    parser.add_argument("--data-dir", help="folder of prepared tensorflow-datasets sets")
    if len(datasets) > 1:
        parser.add_argument("--dataset", choices=datasets, default=datasets[0])
    options = parser.parse_args(arguments)
    output = options.output or Path("runs") / ("paper-quick" if options.quick else "paper")
    dataset = getattr(options, "dataset", datasets[0])
    return Experiment(name, output / name, options.quick, options.data_dir, dataset)


def read(path: Path) -> list[Row]:
    """Rows of a table, numbers as numbers; none if the file is not there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table, atomically; what a row does not have is left empty."""

    def fill(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
            table.writeheader()
            table.writerows(rows)

    write_atomically(path, fill)


def of(rows: Iterable[Row], **values: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def mean_and_deviation(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """Mean and standard deviation (over n - 1; NaN of one) of a column; NaN where a run diverged."""
    values = np.array([row[column] for row in rows], float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return float(values.mean()), deviation


def _key(row: Row, run: Row) -> tuple[Any, ...]:
    return tuple(str(row[name]) for name in run)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} {platform.machine()} core{'s'[: cores != 1]}, Python {platform.python_version()}, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
