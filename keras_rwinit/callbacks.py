"""`GradientWalkCallback`: the gradient's walk while a model trains."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count
from keras_rwinit._files import check_new, write_atomically
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.plots import check_matplotlib, new_figure, plot_walk_history

__all__ = ["GradientWalkCallback", "WalkRecord"]

Array = NDArray[np.float64]

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
)


@dataclass(frozen=True)
class WalkRecord:
    """The walk at one moment of the training.

    Args:
        epoch: Epochs that were finished.
        step: Steps that were finished.
        verdict: `GradientWalk.verdict`.
        drift: `GradientWalk.drift`, nats a layer.
        relative: Mean over the examples of `ln(|delta_d| / |delta_last|)`, shape (layers,).
    """

    epoch: int
    step: int
    verdict: str
    drift: float
    relative: Array


class GradientWalkCallback(keras.callbacks.Callback):
    """Measures the gradient's walk during `fit` and writes it down.

    Into `directory` go `gradient_walk.csv` (a row a record and layer; logarithms in nats), TensorBoard's
    events (scalars of drift and spread; of each layer the mean log-norms, the share of dead units and the
    histogram of `ln|delta|` over the examples) and, at the end, `gradient_walk.png`, the history of the
    walk. The first record is of the model before its first step. Calling `fit` again goes on.

    Args:
        x: Inputs to measure with, the same at every record; some dozens of examples are enough.
        y: Targets. `None`: the gradient of a random direction of the outputs.
        directory: Folder for the files, made if need be. It must not hold a record already.
        every: Epochs, or steps, from one record to the next; at least 1.
        unit: `"epoch"` or `"step"`.
        loss: As in `gradient_walk`. `None`: the loss the model is compiled with.
        tensorboard: Whether to write events; needs the package `tensorboard`.
        picture: Whether to draw the history at the end; needs matplotlib.

    Attributes:
        history: The `WalkRecord`s.

    Raises:
        ValueError: An argument is out of range, or `directory` holds a record of an earlier run.
        ImportError: A package that is needed is missing; the message names the extra to install.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> from keras_rwinit import GradientWalkCallback, model_zoo
        >>> x, y = np.random.default_rng(0).normal(size=(32, 8)), np.zeros(32)
        >>> model = model_zoo.deep_mlp(depth=20, width=16, input_shape=(8,), classes=1)
        >>> model.compile("sgd", "mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     walk = GradientWalkCallback(x, y, directory=folder)
        ...     _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[walk])
        >>> [record.epoch for record in walk.history]
        [0, 1, 2]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        directory: str | Path,
        every: int = 1,
        unit: str = "epoch",
        loss: Any = None,
        tensorboard: bool = True,
        picture: bool = True,
    ) -> None:
        super().__init__()
        if unit not in ("epoch", "step"):
            raise ValueError(f"`unit` must be 'epoch' or 'step'. Received: unit={unit!r}")
        self.x, self.y, self.loss = x, y, loss
        self.every, self.unit = check_count("every", every), unit
        self.directory = Path(directory)
        self.history: list[WalkRecord] = []
        self._rows: list[Sequence[Any]] = []
        self._step = self._epoch = self._epochs_seen = 0
        self._layer_names: tuple[str, ...] = ()
        self._picture = picture
        if picture:
            check_matplotlib()
        self._events = _Events(self.directory) if tensorboard else None
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(
                f"`directory` must be a folder, or be yet to make. Received: the file {directory}"
            )
        check_new(self._csv)
        check_new(self._png)

    @property
    def _csv(self) -> Path:
        return self.directory / "gradient_walk.csv"

    @property
    def _png(self) -> Path:
        return self.directory / "gradient_walk.png"

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.history:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not self.model.built:
                self.model(keras.tree.map_structure(lambda array: np.asarray(array)[:1], self.x))
            self._record()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With several steps an execution Keras calls once for them all, with the number of the last.
        before, self._step = self._step, self._steps_before_epoch + batch + 1
        if self.unit == "step" and before // self.every < self._step // self.every:
            self._record()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._steps_before_epoch = self._step

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._epoch = max(self._epoch, epoch) + 1  # another `fit` counts from zero again
        self._epochs_seen += 1
        if self.unit == "epoch" and self._epochs_seen % self.every == 0:
            self._record()

    def on_train_end(self, logs: Any = None) -> None:
        if self._events is not None:
            self._events.close()
        if self._picture:
            figure, ax = new_figure()
            plot_walk_history(self.history, ax)
            write_atomically(self._png, figure.savefig)

    def _record(self) -> None:
        walk = gradient_walk(self.model, self.x, self.y, self.loss)
        self._layer_names = self._layer_names or walk.layer_names
        if walk.layer_names != self._layer_names:
            raise ValueError(
                "A GradientWalkCallback records one model. Received: another one, with layers "
                f"{', '.join(walk.layer_names[:3])}, ...; make a callback for each model"
            )
        alive = np.where(np.isfinite(walk.relative), walk.relative, np.nan)
        record = WalkRecord(self._epoch, self._step, walk.verdict, walk.drift, _mean(alive))
        self.history.append(record)
        self._rows += _rows(record, walk)
        write_atomically(self._csv, self._write_rows)
        if self._events is not None:
            self._events.add(record, walk)

    def _write_rows(self, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(self._rows)


def _mean(values: Array) -> Array:
    """Mean over the examples that have a value, layer by layer; nan where none has."""
    count = np.isfinite(values).sum(axis=0)
    return np.asarray(np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan))


def _rows(record: WalkRecord, walk: GradientWalk) -> list[Sequence[Any]]:
    with np.errstate(invalid="ignore"):  # a dead gradient is at -inf
        mean, std = walk.backward.mean(axis=0), walk.backward.std(axis=0)
        columns = (mean, std, record.relative, walk.forward.mean(axis=0), walk.weight_gradient, walk.dead)
    return [
        (record.epoch, record.step, number, name, *(f"{value:.9g}" for value in values))
        for number, (name, *values) in enumerate(zip(walk.layer_names, *columns, strict=True), start=1)
    ]


class _Events:
    """TensorBoard's event file; it needs no TensorFlow."""

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                'TensorBoard\'s events need tensorboard: pip install "keras-rwinit[plots]", or pass '
                "`tensorboard=False`"
            ) from error
        self._writer_of: Any = EventFileWriter
        self._directory = str(directory)
        self._writer: Any = None

    def add(self, record: WalkRecord, walk: GradientWalk) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.histogram.summary import histogram_pb
        from tensorboard.plugins.scalar.summary import scalar_pb

        if self._writer is None:
            self._writer = self._writer_of(self._directory)
        with np.errstate(invalid="ignore"):
            scalars = {
                "gradient_walk/drift": walk.drift,
                "gradient_walk/spread": walk.spread,
                **{f"ln_gradient/{n}": v for n, v in _named(walk, walk.backward.mean(axis=0))},
                **{f"ln_activation/{n}": v for n, v in _named(walk, walk.forward.mean(axis=0))},
                **{f"ln_weight_gradient/{n}": v for n, v in _named(walk, walk.weight_gradient)},
                **{f"dead/{n}": v for n, v in _named(walk, walk.dead)},
            }
        summaries = [scalar_pb(tag, value) for tag, value in scalars.items() if np.isfinite(value)]
        for name, values in _named(walk, walk.backward.T):
            finite = values[np.isfinite(values)]
            if finite.size:
                summaries.append(histogram_pb(f"gradient/{name}", finite))
        for summary in summaries:
            self._writer.add_event(Event(wall_time=time.time(), step=record.step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _named(walk: GradientWalk, values: Array) -> zip[tuple[str, Any]]:
    return zip(walk.layer_names, values, strict=True)
