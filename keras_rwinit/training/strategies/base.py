"""Where a training run computes: on one device, or on several under a strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np

__all__ = ["KerasLoop", "Loop", "Strategy", "padded_batches"]


Scores = tuple[float, float]


class Loop(Protocol):
    """Passes over data with one compiled model: mean loss and accuracy of all examples."""

    def fit(self, x: np.ndarray, y: np.ndarray, epoch: int) -> Scores:
        """Trains on every example once, in the order given."""

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> Scores:
        """Changes nothing of the model."""


class KerasLoop:
    """Keras's own `fit` and `evaluate`.

    Args:
        model: The compiled model.
        batch_size: Examples a step.
        on_step: Called after every step of training.
    """

    def __init__(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> None:
        self.model, self.batch_size = model, batch_size
        self.callback = _Steps(on_step)

    def fit(self, x: np.ndarray, y: np.ndarray, epoch: int) -> Scores:
        """Trains on every example once, in the order given."""
        history = self.model.fit(
            **self._batches(x, y),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[self.callback],
        ).history
        return self._scores({name: values[-1] for name, values in history.items()})

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> Scores:
        """Changes nothing of the model."""
        return self._scores(self.model.evaluate(**self._batches(x, y), verbose=0, return_dict=True))

    def _batches(self, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        return {"x": x, "y": y, "batch_size": self.batch_size}

    def _scores(self, logs: dict[str, Any]) -> Scores:
        return float(logs["loss"]), float(logs["accuracy"])


class _Steps(keras.callbacks.Callback):
    """Calls `on_step` for every step, though Keras calls back after several."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        super().__init__()
        self.on_step, self.done = on_step, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = min(batch + 1, self.params["steps"])  # Keras counts the last call's steps as if all were there
        for _ in range(self.done, done):
            self.on_step()
        self.done = done


class Strategy:
    """One device; the base of those that use several."""

    name = "none"
    devices = 1
    chief = True
    """Whether this process is the one that writes."""

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Models that are built, compiled and trained in it compute on the strategy's devices."""
        yield

    def loop(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> Loop:
        """What trains a model that was built in the scope; `batch_size` is of all devices together."""
        return KerasLoop(model, batch_size, on_step)

    def check_same(self, value: int, what: str) -> None:
        """Waits for all processes; ValueError in each of them if `value` is not the same in all."""


def padded_batches(
    x: np.ndarray, y: np.ndarray, batch_size: int, parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches that `parts` devices can share evenly, in the order given.

    A batch whose examples do not go around, as the last of an epoch, is filled up with examples
    that count nothing, so that all batches have one shape and no device is left without data.

    Returns:
        `x`, `y` and weights, 1.0 or, of what fills up, 0.0; the first two axes are
        (steps, examples a step), the second a multiple of `parts`.

    Example:
        >>> import numpy as np
        >>> x, y, weight = padded_batches(np.arange(5.0), np.arange(5), batch_size=3, parts=2)
        >>> y.tolist(), weight.tolist()
        ([[0, 1, 2, 0], [3, 4, 0, 0]], [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    """
    steps, size = -(-len(x) // batch_size), -(-batch_size // parts) * parts
    place = np.arange(size)
    index = np.arange(steps)[:, np.newaxis] * batch_size + place
    counts = (place < batch_size) & (index < len(x))
    index = np.where(counts, index, 0)
    return x[index], y[index], counts.astype("float32")
