"""The CSV of a training's records, which grows by one record at a time."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit.diagnostics import GradientWalk

from ._record import WalkRecord

__all__ = ["GrowingCsv", "Row", "layer_rows", "pair_columns", "unmeasured_row"]

Array = NDArray[np.float64]
Row: TypeAlias = Sequence[object]

_COLUMNS = (
    "epoch",
    "step",
    "layer",
    "name",
    "ln_gradient",
    "ln_gradient_std",
    "ln_gradient_relative",
    "ln_activation",
    "ln_weight_gradient",
    "dead",
    "correlation",
    "gradient_correlation",
    "effective_rank",
)
_NO_NUMBERS = ("nan",) * 9  # the columns from `ln_gradient` on


class GrowingCsv:
    """A CSV that records are appended to; a process that is killed leaves all that were whole.

    Args:
        path: The file, which the first record makes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size: int | None = None  # in bytes, of the records that are whole

    def append(self, rows: Sequence[Row]) -> None:
        """Writes the rows of one record at once."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if self._size is None:
            writer.writerow(_COLUMNS)
        writer.writerows(rows)
        content = text.getvalue().encode("utf-8")
        with open(self._path, "wb" if self._size is None else "r+b", buffering=0) as file:
            # A record that a full disk cut short is written over.
            size = file.truncate(self._size or 0)
            file.seek(size)
            if file.write(content) != len(content):
                raise OSError(f"{self._path} could not be written whole: the disk may be full.")
            os.fsync(file.fileno())
        self._size = size + len(content)


def layer_rows(record: WalkRecord, walk: GradientWalk) -> list[Row]:
    """Returns a row for each layer of a walk."""
    columns = (
        mean_log_norm(walk.backward),
        _deviation(walk.backward),
        record.relative,
        mean_log_norm(walk.forward),
        walk.weight_gradient,
        walk.dead,
        *pair_columns(walk).values(),
    )
    return [
        (record.epoch, record.step, number, name, *(f"{value:.9g}" for value in values))
        for number, (name, *values) in enumerate(zip(walk.layer_names, *columns, strict=True), start=1)
    ]


def pair_columns(walk: GradientWalk) -> dict[str, Array]:
    """Returns what a walk says of how alike examples are, layer by layer; nan where it was not measured."""
    correlation = walk.correlation
    if correlation is None:
        unknown = np.full(len(walk.layer_names), np.nan)
        return dict.fromkeys(("correlation", "gradient_correlation", "effective_rank"), unknown)
    return {
        "correlation": correlation.forward,
        "gradient_correlation": correlation.backward,
        "effective_rank": correlation.effective_rank,
    }


def unmeasured_row(record: WalkRecord) -> Row:
    """Returns the row of a record that could not be measured, which has no layer."""
    return (record.epoch, record.step, 0, record.verdict, *_NO_NUMBERS)


def _deviation(values: Array) -> Array:
    """Returns the standard deviation over the examples with a finite value, nan where there is none."""
    centered = np.where(np.isfinite(values), values, np.nan) - mean_log_norm(values)
    return np.asarray(np.sqrt(mean_log_norm(centered**2)))
