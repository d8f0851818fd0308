"""Options of the experiments, and a table of results that is filled run by run and can be resumed."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_rwinit import data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Experiment",
    "Row",
    "distinct",
    "fill_marks",
    "markdown_table",
    "mean_and_deviation",
    "parse_options",
    "read",
    "select",
]

# One row of a table: numbers and text by column.
Row: TypeAlias = dict[str, Any]

_TABLE = "results.csv"


@dataclass(frozen=True)
class Experiment:
    """The options of one experiment.

    Args:
        name: Name of the experiment and of its directory.
        directory: Directory of its tables and pictures.
        quick: Whether to run a small form on small data, which takes less than two minutes.
        data_dir: Directory of prepared tensorflow-datasets sets. `None`: their default directory.
        dataset: Name of the data set, if there is a choice.
    """

    name: str
    directory: Path
    quick: bool
    data_dir: str | None
    dataset: str

    def load_images(self) -> data.Dataset:
        """Loads MNIST, or in the quick form the 8x8 digits, which need no download."""
        return data.load("digits") if self.quick else data.load("mnist", self.data_dir)

    def run(
        self, runs: Iterable[Row], work: Callable[[Row], Mapping[str, Any]], table: str = _TABLE
    ) -> list[Row]:
        """Returns the results of `runs` in their order; runs already in the table are not repeated.

        Args:
            runs: Settings of each run, by column. Runs with different settings are different runs.
            work: Function of one of `runs` that returns its results, by column.
            table: File in the directory. The whole file is written again after every run.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path, runs = self.directory / table, list(runs)
        done = {_key(row, runs[0]): row for row in read(path) if runs[0].keys() <= row.keys()}
        results = []
        for number, run in enumerate(runs, start=1):
            row = done.get(_key(run, run))
            if row is None:
                started = time.perf_counter()
                row = {**run, **work(run)}
                row |= {"seconds": round(time.perf_counter() - started, 2), "machine": _machine()}
                # Read again: another process may have added rows meanwhile.
                write(path, [*read(path), row])
                shown = ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k != "machine")
                print(f"{self.name} {number}/{len(runs)}: {shown}", flush=True)
            results.append(row)
        return results

    def save_picture(self, figure: Figure, picture: str = "picture.png") -> None:
        """Writes a picture into the directory."""
        figure.savefig(self.directory / picture, format="png")
        print(f"{self.name}: {self.directory / picture}", flush=True)


def parse_options(
    name: str, description: str | None, arguments: Sequence[str] | None, datasets: Sequence[str] = ("mnist",)
) -> Experiment:
    """Returns the experiment that a command line describes.

    Args:
        name: Name of the experiment.
        description: Docstring of its script; the first line is the help text.
        arguments: The command line, without the script. `None`: `sys.argv[1:]`.
        datasets: Data sets to choose from, the default first.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="run a small form that takes less than two minutes"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="directory for the results (default: runs/paper; with --quick runs/paper-quick)",
    )
    parser.add_argument("--data-dir", help="directory of prepared tensorflow-datasets sets")
    if len(datasets) > 1:
        parser.add_argument(
            "--dataset", choices=datasets, default=datasets[0], help="data set (default: %(default)s)"
        )
    options = parser.parse_args(arguments)
    output = options.output or Path("runs") / ("paper-quick" if options.quick else "paper")
    dataset = getattr(options, "dataset", datasets[0])
    return Experiment(name, output / name, options.quick, options.data_dir, dataset)


def read(path: Path) -> list[Row]:
    """Returns the rows of a table, with numbers converted; none if the file does not exist."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def fill_marks(template: str, values: Mapping[str, str]) -> str:
    """Returns a text with the value in place of each `{{name}}`, whose words may stand on several lines."""
    return re.sub(r"\{\{([^{}]+)\}\}", lambda mark: values[" ".join(mark[1].split())], template)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table; columns that a row does not have stay empty."""
    # Renamed when it is whole: a process that is killed while it writes leaves the old table.
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        table.writeheader()
        table.writerows(rows)
    os.replace(temporary, path)


def select(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Returns the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def distinct(rows: Iterable[Row], column: str) -> list[str | int | float]:
    """Returns the values of a column in the order of their first rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def mean_and_deviation(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """Returns mean and standard deviation of a column; NaN if a run diverged.

    The deviation divides by n - 1; it is NaN for a single row.
    """
    values = np.array([row[column] for row in rows], float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return float(values.mean()), deviation


def _key(row: Row, run: Row) -> tuple[str, ...]:
    """Returns what identifies a row as the result of a run with the columns of `run`."""
    return tuple(str(row[name]) for name in run)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    plural = "" if cores == 1 else "s"
    return (
        f"{cores} {platform.machine()} core{plural}, Python {platform.python_version()}, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
