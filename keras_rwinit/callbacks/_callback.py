"""`GradientWalkCallback`: measures the gradient's walk during `fit` and keeps the records."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from keras_rwinit._checks import check_count
from keras_rwinit._files import check_new, write_atomically
from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._probing.examples import check_examples, first_batch
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit._probing.objective import LossLike, check_targets
from keras_rwinit._tracing.calls import call_model
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.plots import check_matplotlib, new_figure, plot_walk_history

from ._events import SUFFIX, Events
from ._record import WalkRecord
from ._table import GrowingCsv, layer_rows, unmeasured_row

__all__ = ["GradientWalkCallback"]

Logs = Mapping[str, float] | None


class GradientWalkCallback(keras.callbacks.Callback):
    """Measures the gradient's walk during `fit` and writes it to a directory.

    At each record `gradient_walk` measures `ln|delta_d|`, the log-norm of the gradient at the
    pre-activations of each layer d, on the same examples. Three things go into `log_dir`:

    - `gradient_walk.csv`, a row for each record and layer; logarithms are natural. Rows are appended, so
      that a killed training leaves all records before.
    - TensorBoard's events: scalars of the drift and the example spread, and for each layer the mean
      log-norms, the share of dead units, how alike the examples are, and the histogram of `ln|delta|` over
      the examples.
    - `gradient_walk.png`, the history of the walk, at the end of the training.

    The first record is of the model before its first step, and its verdict is about a start of training.
    Those of later records tell what stops a training at any time: dead, not finite, vanishing or exploding
    gradients, and kernels that repeat (`GradientWalk.verdict` with `trained=True`). A second `fit` continues
    the record.

    A measurement or file that fails does not end the training: one warning says why, and `history` and the
    CSV say "not measured" and the reason, at layer 0.

    Args:
        x: Inputs to measure with, the same at every record; some dozens of examples are enough. Of a data
            set, as `fit` takes it, the first batch is used with its targets.
        y: Targets. `None`: the gradient of a random direction of the outputs.
        log_dir: Directory for the files; it is made if it does not exist.
        update_freq: When to record, as in `keras.callbacks.TensorBoard`: `"epoch"`, `"batch"`, or a number
            of batches from one record to the next, at least 1.
        loss: Loss as in `gradient_walk`. `None`: the loss the model is compiled with.
        tensorboard: Whether to write events; needs the package `tensorboard`.
        picture: Whether to draw the history at the end; needs matplotlib.
        overwrite: Whether the record of an earlier training in `log_dir` is replaced.

    Attributes:
        history: The list of `WalkRecord`s, with the verdict and the advice at each moment.

    Raises:
        ValueError: An argument is out of range, `y` does not hold as many examples as `x`, there is a loss
            and no `y`, or `log_dir` holds a record of an earlier training and `overwrite` is False.
        ImportError: A package that is needed is missing; the message names the extra to install.

    Example:
        >>> import tempfile
        >>> import keras, numpy as np
        >>> from keras_rwinit import GradientWalkCallback, model_zoo
        >>> x, y = np.random.default_rng(0).normal(size=(32, 8)), np.zeros(32)
        >>> model = model_zoo.deep_mlp(depth=20, width=16, input_shape=(8,), classes=1)
        >>> model.compile("sgd", "mse")
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     walk = GradientWalkCallback(x, y, log_dir=directory)
        ...     _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[walk])
        >>> [record.epoch for record in walk.history]
        [0, 1, 2]
        >>> walk.history[-1].verdict, walk.history[-1].advice
        ('fine', '')

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
    """

    def __init__(
        self,
        x: ArrayTree,
        y: ArrayTree = None,
        *,
        log_dir: str | Path,
        update_freq: Literal["epoch", "batch"] | int = "epoch",
        loss: LossLike = None,
        tensorboard: bool = True,
        picture: bool = True,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        # Everything that can be wrong is told before the training starts, which nothing here ends later.
        x, y, _ = first_batch(x, y)
        self.x, examples = check_examples("x", x)
        self.y, self.loss = check_targets(y, loss, examples)[0], loss
        self.log_dir, self.update_freq = Path(log_dir), update_freq
        self.history: list[WalkRecord] = []
        self._batches_per_record = _batches_per_record(update_freq)
        self._step = self._steps_before_epoch = self._epoch = 0
        self._layer_names: tuple[str, ...] = ()
        self._has_warned = False
        self._picture = picture
        if picture:
            check_matplotlib()
        if self.log_dir.exists() and not self.log_dir.is_dir():
            raise ValueError(
                "`log_dir` must be a directory, or a path where one can be made. "
                f"Received: the file {log_dir}"
            )
        self._overwrite = overwrite
        for path in (self._csv, self._png):
            check_new(path, "log_dir", overwrite=overwrite)
        self._events = Events(self.log_dir) if tensorboard else None
        self._table = GrowingCsv(self._csv)

    @property
    def _csv(self) -> Path:
        return self.log_dir / "gradient_walk.csv"

    @property
    def _png(self) -> Path:
        return self.log_dir / "gradient_walk.png"

    def on_train_begin(self, logs: Logs = None) -> None:
        # A second `fit` continues the record.
        if not self.history:
            self._attempt(self._prepare)
            self._record()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # With several steps an execution Keras calls once for them all, with the number of the last.
        before, self._step = self._step, self._steps_before_epoch + batch + 1
        freq = self._batches_per_record
        if freq is not None and before // freq < self._step // freq:
            self._record()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._steps_before_epoch = self._step

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = max(self._epoch, epoch) + 1  # another `fit` counts from zero again
        if self._batches_per_record is None:
            self._record()

    def on_train_end(self, logs: Logs = None) -> None:
        self._attempt(self._finish)

    def _prepare(self) -> None:
        """Makes the directory, without the files of an earlier record, and builds the model."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if self._overwrite:
            for path in (self._csv, self._png, *self.log_dir.glob(f"events.*{SUFFIX}")):
                path.unlink(missing_ok=True)
        if not self.model.built:
            # The first record comes before the first batch, with which Keras would build it.
            call_model(self.model, map_arrays(lambda array: array[:1], self.x), training=False)

    def _finish(self) -> None:
        if self._events is not None:
            self._events.close()
        if self._picture:
            figure, ax = new_figure()
            plot_walk_history(self.history, ax)
            write_atomically(self._png, figure.savefig)

    def _record(self) -> None:
        try:
            walk = self._measure()
        except Exception as error:  # of any back end or of the user's own layers
            reason = self._warn(error)
            record = WalkRecord(self._epoch, self._step, f"not measured: {reason}", np.nan, np.empty(0))
            self.history.append(record)
            self._attempt(lambda: self._table.append([unmeasured_row(record)]))
            return
        relative = mean_log_norm(walk.relative)
        relative = np.where(np.isfinite(relative), relative, np.nan)
        record = WalkRecord(self._epoch, self._step, walk.verdict, walk.drift, relative, walk.advice)
        self.history.append(record)
        self._attempt(lambda: self._table.append(layer_rows(record, walk)))
        events = self._events
        if events is not None:
            self._attempt(lambda: events.add(record, walk))

    def _measure(self) -> GradientWalk:
        walk = gradient_walk(self.model, self.x, self.y, self.loss, trained=self._step > 0)
        # The columns of a record and the tags of TensorBoard belong to one model's layers.
        self._layer_names = self._layer_names or walk.layer_names
        if walk.layer_names != self._layer_names:
            raise ValueError(
                "A GradientWalkCallback records one model. Received: another one, with layers "
                f"{', '.join(walk.layer_names[:3])}, ...; make a callback for each model"
            )
        return walk

    def _attempt(self, action: Callable[[], object]) -> None:
        """Does something that may fail without ending the training."""
        try:
            action()
        except Exception as error:  # of the file system, or of a model that cannot be built
            self._warn(error)

    def _warn(self, error: Exception) -> str:
        """Warns once that something failed, and returns the reason in a line."""
        message = " ".join(str(error).split()).removesuffix(".")
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"GradientWalkCallback failed at step {self._step}, and the training goes on. {reason}. "
                "There is no warning of later failures; see `history`.",
                stacklevel=2,
            )
        return reason


def _batches_per_record(update_freq: Literal["epoch", "batch"] | int) -> int | None:
    """Returns the number of batches from one record to the next; None for a record per epoch."""
    if update_freq == "epoch":
        return None
    if update_freq == "batch":
        return 1
    if isinstance(update_freq, str):
        raise ValueError(
            "`update_freq` must be 'epoch', 'batch' or a number of batches. Received: "
            f"update_freq={update_freq!r}"
        )
    return check_count("update_freq", update_freq)
