"""What the tests of the tuner share: a few digits, a small space, searches in processes of their own."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_rwinit import data, tuning

FEW = 192
TINY = ("tune", "--depth", 3, "--width", "8:16", "--epochs", 1, "--batch", 512, "--seeds", 2)


def few_digits(nan: bool = False) -> data.Dataset:
    """The first digits; with `nan`, one pixel that no loss survives."""
    digits = data.load("digits")
    x = digits.x_train[:FEW].copy()
    if nan:
        x[::7, 3] = np.nan
    dataset = data.Dataset(
        "few", digits.x_train[:FEW], digits.y_train[:FEW], digits.x_test[:FEW], digits.y_test[:FEW], 10
    )
    object.__setattr__(dataset, "x_train", x)  # the loaders would refuse it
    return dataset


def small_space(**changed: Any) -> tuning.DeepMLPHyperModel:
    """Three ReLU layers of 8 to 16 units."""
    arguments: dict[str, Any] = {
        "depth": 3,
        "width": (8, 16),
        "activation": "relu",
        "distribution": "orthogonal",
        **changed,
    }
    return tuning.DeepMLPHyperModel((64,), 10, **arguments)


SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 64, "seeds": 0}


def table_of(folder: Path) -> list[dict[str, str]]:
    """`trials.csv` without what takes its own time."""
    with open(folder / "trials.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def begun(folder: Path) -> list[str]:
    """Every beginning of a trial that the logs of a search's workers tell of, as `worker-1 0`."""
    lines = []
    for log in sorted((folder / "logs").glob("worker-*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        lines += [f"{log.stem} {line.split()[1]}" for line in text.splitlines() if line.endswith(" begins")]
    return lines


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns once `condition` holds; fails if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes that name a folder in their command line, this one left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in command and int(entry.name) != os.getpid() and alive(int(entry.name)):
            found.append(int(entry.name))
    return found
