"""Where a training run computes: on one device, or on several under a strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

__all__ = ["Batches", "Features", "KerasLoop", "Labels", "Loop", "Scores", "Strategy", "padded_batches"]

Features: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int32]
Scores: TypeAlias = tuple[float, float]
"""Mean loss and accuracy."""

Batches: TypeAlias = tuple[Features, Labels, NDArray[np.float32]]
"""Inputs, labels and weights, a batch along the first axis."""


class Loop(Protocol):
    """Passes over data with one compiled model, which return mean loss and accuracy of all examples."""

    def fit(self, x: Features, y: Labels, epoch: int) -> Scores:
        """Trains on every example once, in the order given."""

    def evaluate(self, x: Features, y: Labels) -> Scores:
        """Returns the scores; leaves the model unchanged."""


class KerasLoop:
    """Keras's own `fit` and `evaluate`.

    Args:
        model: The compiled model.
        batch_size: Examples per step.
        on_step: Called after every step of training.
    """

    def __init__(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> None:
        self.model, self.batch_size = model, batch_size
        self.callback = _StepCounter(on_step)

    def fit(self, x: Features, y: Labels, epoch: int) -> Scores:
        """Trains on every example once, in the order given."""
        history = self.model.fit(
            **self._fit_arguments(x, y),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[self.callback],
        ).history
        return self._scores({name: values[-1] for name, values in history.items()})

    def evaluate(self, x: Features, y: Labels) -> Scores:
        """Returns the scores; leaves the model unchanged."""
        return self._scores(self.model.evaluate(**self._fit_arguments(x, y), verbose=0, return_dict=True))

    def _fit_arguments(self, x: Features, y: Labels) -> dict[str, NDArray[np.generic] | int]:
        return {"x": x, "y": y, "batch_size": self.batch_size}

    def _scores(self, logs: Mapping[str, float]) -> Scores:
        return float(logs["loss"]), float(logs["accuracy"])


class _StepCounter(keras.callbacks.Callback):
    """Calls `on_step` for every step, though Keras calls back after several."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        super().__init__()
        self.on_step, self.done = on_step, 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        # Keras counts `steps_per_execution` steps for the last call, even where fewer were left.
        done = min(batch + 1, self.params["steps"])
        for _ in range(self.done, done):
            self.on_step()
        self.done = done


class Strategy:
    """One device; the base class of the strategies for several."""

    name = "none"
    devices = 1
    chief = True
    """Whether this process writes the run's files."""

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Places models that are built, compiled and trained in it on the strategy's devices."""
        yield

    def loop(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> Loop:
        """Returns the loop of a model built in the scope; `batch_size` counts all devices' examples."""
        return KerasLoop(model, batch_size, on_step)

    def check_same(self, value: int, what: str) -> None:
        """Waits for all processes; raises ValueError in each of them unless `value` is the same in all."""

    def barrier(self) -> None:
        """Waits for all processes."""


def padded_batches(x: Features, y: Labels, batch_size: int, parts: int) -> Batches:
    """Returns batches that `parts` devices can share evenly, in the order given.

    A batch that `parts` does not divide, and the last one of an epoch, is filled up with examples of
    weight zero. So all batches have one shape, and no device is left without data.

    Returns:
        `x`, `y` and weights of 1.0, or 0.0 where an example only fills up; the first two axes are
        (steps, examples per step), the second a multiple of `parts`.

    Example:
        >>> import numpy as np
        >>> x, y, weight = padded_batches(np.arange(5.0), np.arange(5), batch_size=3, parts=2)
        >>> y.tolist(), weight.tolist()
        ([[0, 1, 2, 0], [3, 4, 0, 0]], [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    """
    steps, size = -(-len(x) // batch_size), -(-batch_size // parts) * parts
    slot = np.arange(size)
    index = np.arange(steps)[:, np.newaxis] * batch_size + slot
    counts = (slot < batch_size) & (index < len(x))
    index = np.where(counts, index, 0)  # any example will do where the weight is zero
    return x[index], y[index], counts.astype("float32")
