"""Helpers of the tests of the tuner: a few digits, small spaces, and the files of a search."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_rwinit import data, tuning

FEW = 192
TINY = ("tune", "--depth", 3, "--width", "8:16", "--epochs", 1, "--batch", 512, "--seeds", 2)
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 64, "seeds": 0}
DIVERGING: dict[str, Any] = {"activation": "linear", "optimizer": "sgd", "learning_rate": 1e30}
"""Arguments of `small_space` whose networks leave the finite numbers at the first step."""


def few_digits() -> data.Dataset:
    """Returns the first digits."""
    digits = data.load("digits")
    parts = (digits.x_train, digits.y_train, digits.x_test, digits.y_test)
    return data.Dataset("few", *(part[:FEW] for part in parts), classes=10)


def small_space(**changed: Any) -> tuning.DeepMLPHyperModel:
    """Returns a space of three ReLU layers of 8 to 16 units, but for the arguments in `changed`."""
    arguments: dict[str, Any] = {
        "depth": 3,
        "width": (8, 16),
        "activation": "relu",
        "distribution": "orthogonal",
        **changed,
    }
    return tuning.DeepMLPHyperModel((64,), 10, **arguments)


def table_of(directory: Path) -> list[dict[str, str]]:
    """Returns the rows of `trials.csv` without their seconds, which differ from run to run."""
    with open(directory / "trials.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def trial_starts(directory: Path) -> list[str]:
    """Returns every begin of a trial in the logs of a search's workers, as `worker-1 0`."""
    lines = []
    for log in sorted((directory / "logs").glob("worker-*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        lines += [f"{log.stem} {line.split()[1]}" for line in text.splitlines() if line.endswith(" begins")]
    return lines


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Returns once `condition` holds; fails if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds:g} s"
        time.sleep(0.02)
