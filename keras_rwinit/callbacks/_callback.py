"""`GradientWalkCallback`: measures the gradient's walk during `fit` and keeps the records."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from keras_rwinit._checks import check_count
from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._probing.examples import check_examples, first_batch
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit._probing.objective import LossLike, check_targets
from keras_rwinit._tracing.calls import call_model
from keras_rwinit.diagnostics import GradientWalk, gradient_walk

from ._files import WalkFiles
from ._record import WalkRecord
from ._trackers import TrackerName, make_trackers, summary_metrics

__all__ = ["GradientWalkCallback"]

Logs = Mapping[str, float] | None


class GradientWalkCallback(keras.callbacks.Callback):
    """Measures the gradient's walk during `fit`, keeps the verdicts, and writes all of it to a directory.

    At each record `gradient_walk` measures `ln|delta_d|`, the log-norm of the gradient at the
    pre-activations of each layer d, on the same examples. Verdict, drift and the mean walk are kept in
    `history`. Three things go into `log_dir`, if there is one:

    - `gradient_walk.csv`, a row for each record and layer; logarithms are natural. Rows are appended, so
      that a killed training leaves all records before.
    - TensorBoard's events: scalars of the drift and the example spread, and for each layer the mean
      log-norms, the share of dead units, how alike the examples are, and the histogram of `ln|delta|` over
      the examples.
    - `gradient_walk.png`, the history of the walk, at the end of the training.

    With `trackers`, a few numbers of each record go to Weights & Biases or MLflow as well, into the run that
    is active there: `gradient_walk/drift` (nats per layer), `example_spread` (nats), `first_over_last` (the
    mean of `ln(|delta_1| / |delta_D|)`, nats), `dead` (the largest share of dead units in a layer), and, of
    the last layer, `correlation` and `effective_rank` of the examples. `mlflow.log_artifacts(log_dir)` or
    `wandb.save` adds the files.

    The first record is of the model before its first step, and its verdict is about a start of training.
    Those of later records tell what stops a training at any time: dead, not finite, vanishing or exploding
    gradients, and kernels that repeat (`GradientWalk.verdict` with `trained=True`). A second `fit` continues
    the record.

    A measurement or file that fails does not end the training: one warning says why, and `history` and the
    CSV say "not measured" and the reason, at layer 0.

    Args:
        x: Inputs to measure with, the same at every record; some dozens of examples are enough. Of a data
            set, as `fit` takes it, the first batch is used with its targets and weights.
        y: Targets. `None`: the gradient of a random direction of the outputs.
        log_dir: Directory for the files; it is made if it does not exist. `None`: no file is written.
        update_freq: When to record, as in `keras.callbacks.TensorBoard`: `"epoch"`, `"batch"`, or a number
            of batches from one record to the next, at least 1.
        loss: Loss as in `gradient_walk`. `None`: the loss the model is compiled with.
        training: Whether the model is measured as in training, as in `gradient_walk`: set it for a model with
            `BatchNormalization`.
        tensorboard: Whether to write events into `log_dir`; needs the package `tensorboard`.
        picture: Whether to draw the history at the end, in `log_dir`; needs matplotlib.
        trackers: Names of the experiment trackers to log to, of `"wandb"` (call `wandb.init` first) and
            `"mlflow"` (call `mlflow.start_run` first). Each needs its package.
        overwrite: Whether the record of an earlier training in `log_dir` is replaced.

    Attributes:
        history: The list of `WalkRecord`s, with the verdict and the advice at each moment.
        verdict: The verdict of the last record.

    Raises:
        ValueError: An argument is out of range, `y` does not hold as many examples as `x`, there is a loss
            and no `y`, a tracker is unknown or has no active run, or `log_dir` holds a record of an earlier
            training and `overwrite` is False.
        ImportError: A package that is needed is missing; the message names what to install.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import GradientWalkCallback, model_zoo
        >>> x, y = np.random.default_rng(0).normal(size=(32, 8)), np.zeros(32)
        >>> model = model_zoo.deep_mlp(depth=20, width=16, input_shape=(8,), classes=1)
        >>> model.compile("sgd", "mse")
        >>> walk = GradientWalkCallback(x, y)
        >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[walk])
        >>> walk.verdict
        'fine'
        >>> [(record.epoch, record.advice) for record in walk.history]
        [(0, ''), (1, ''), (2, '')]

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
    """

    def __init__(
        self,
        x: ArrayTree,
        y: ArrayTree = None,
        *,
        log_dir: str | Path | None = None,
        update_freq: Literal["epoch", "batch"] | int = "epoch",
        loss: LossLike = None,
        training: bool = False,
        tensorboard: bool = True,
        picture: bool = True,
        trackers: TrackerName | Collection[TrackerName] = (),
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        # Everything that can be wrong is told before the training starts, which nothing here ends later.
        x, y, self._sample_weight = first_batch(x, y)
        self.x, examples = check_examples("x", x)
        self.y, self.loss = check_targets(y, loss, examples)[0], loss
        self.training, self.update_freq = training, update_freq
        self.history: list[WalkRecord] = []
        self._batches_per_record = _batches_per_record(update_freq)
        self._step = self._steps_before_epoch = self._epoch = 0
        self._layer_names: tuple[str, ...] = ()
        self._has_warned = False
        self._trackers = make_trackers(trackers)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._files = (
            None
            if self.log_dir is None
            else WalkFiles(self.log_dir, tensorboard=tensorboard, picture=picture, overwrite=overwrite)
        )

    @property
    def verdict(self) -> str:
        """The verdict of the last record; "not measured" and the reason where there is none."""
        return self.history[-1].verdict if self.history else "not measured: the training has not begun"

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
        files = self._files
        if files is not None:
            self._attempt(lambda: files.finish(self.history))

    def _prepare(self) -> None:
        """Makes the directory, and builds the model."""
        if self._files is not None:
            self._files.prepare()
        if not self.model.built:
            # The first record comes before the first batch, with which Keras would build it.
            call_model(self.model, map_arrays(lambda array: array[:1], self.x), training=False)

    def _record(self) -> None:
        files = self._files
        try:
            walk = self._measure()
        except Exception as error:  # of any back end or of the user's own layers
            reason = self._warn(error)
            record = WalkRecord(self._epoch, self._step, f"not measured: {reason}", np.nan, np.empty(0))
            self.history.append(record)
            if files is not None:
                self._attempt(lambda: files.add_unmeasured(record))
            return
        relative = mean_log_norm(walk.relative)
        relative = np.where(np.isfinite(relative), relative, np.nan)
        record = WalkRecord(self._epoch, self._step, walk.verdict, walk.drift, relative, walk.advice)
        self.history.append(record)
        if self._trackers:
            metrics = summary_metrics(walk)
            for log in self._trackers:
                self._attempt(partial(log, metrics, record.step))
        if files is not None:
            self._attempt(lambda: files.add_rows(record, walk))
            self._attempt(lambda: files.add_events(record, walk))

    def _measure(self) -> GradientWalk:
        walk = gradient_walk(
            self.model,
            self.x,
            self.y,
            self.loss,
            sample_weight=self._sample_weight,
            training=self.training,
            trained=self._step > 0,
        )
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
