"""The files of a training's records: a CSV, TensorBoard's events and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_rwinit._files import check_new, write_atomically
from keras_rwinit.diagnostics import GradientWalk
from keras_rwinit.plots import check_matplotlib, new_figure, plot_walk_history

from ._events import SUFFIX, Events
from ._record import WalkRecord
from ._table import GrowingCsv, layer_rows, unmeasured_row

__all__ = ["WalkFiles"]


class WalkFiles:
    """The files of one training in its directory, which `prepare` makes.

    Args:
        log_dir: The directory.
        tensorboard: Whether there are events.
        picture: Whether there is a picture.
        overwrite: Whether the files of an earlier training are replaced.

    Raises:
        ValueError: `log_dir` is a file, or holds files of an earlier training and `overwrite` is False.
        ImportError: A package that is needed is missing.
    """

    def __init__(self, log_dir: Path, *, tensorboard: bool, picture: bool, overwrite: bool) -> None:
        if picture:
            check_matplotlib()
        if log_dir.exists() and not log_dir.is_dir():
            raise ValueError(
                "`log_dir` must be a directory, or a path where one can be made. "
                f"Received: the file {log_dir}"
            )
        self._log_dir, self._picture, self._overwrite = log_dir, picture, overwrite
        self._csv, self._png = log_dir / "gradient_walk.csv", log_dir / "gradient_walk.png"
        for path in (self._csv, self._png):
            check_new(path, "log_dir", overwrite=overwrite)
        self._events = Events(log_dir) if tensorboard else None
        self._table = GrowingCsv(self._csv)

    def prepare(self) -> None:
        """Makes the directory, without the files of an earlier record."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        if self._overwrite:
            for path in (self._csv, self._png, *self._log_dir.glob(f"events.*{SUFFIX}")):
                path.unlink(missing_ok=True)

    def add_rows(self, record: WalkRecord, walk: GradientWalk) -> None:
        """Appends a record to the CSV."""
        self._table.append(layer_rows(record, walk))

    def add_unmeasured(self, record: WalkRecord) -> None:
        """Appends a record that could not be measured to the CSV."""
        self._table.append([unmeasured_row(record)])

    def add_events(self, record: WalkRecord, walk: GradientWalk) -> None:
        """Writes a record's events."""
        if self._events is not None:
            self._events.add(record, walk)

    def finish(self, history: Sequence[WalkRecord]) -> None:
        """Closes the events, and draws the history."""
        if self._events is not None:
            self._events.close()
        if self._picture:
            figure, ax = new_figure()
            plot_walk_history(history, ax)
            write_atomically(self._png, figure.savefig)
