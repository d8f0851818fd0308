"""Strategies of `keras.distribution` on JAX: the batch, or the kernels, cut among devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_rwinit.sharding import layout_map

from .base import KerasLoop, Loop, Scores, Strategy, padded_batches

__all__ = ["jax_strategy"]


def jax_strategy(name: str, width: int) -> Strategy:
    """The strategy of a name; ValueError if this machine has not what it needs."""
    devices = keras.distribution.list_devices()
    if len(devices) < 2:
        raise ValueError(
            f"The strategy {name} needs two JAX devices or more. Received: {', '.join(devices)}; train "
            "without --strategy, or on processors set "
            "XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    if name == "data-parallel":
        return JaxStrategy(name, keras.distribution.DataParallel(devices=devices))
    if width % len(devices):
        raise ValueError(
            "The strategy model-parallel cuts the units of every hidden layer into equal parts: --width "
            f"must be a multiple of the {len(devices)} devices. Received: {width}"
        )
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    distribution = keras.distribution.ModelParallel(layout_map=layout_map(mesh), batch_dim_name="batch")
    return JaxStrategy(name, distribution)


class JaxStrategy(Strategy):
    """A `keras.distribution`, set only in the scope.

    Args:
        name: On the command line.
        distribution: That does the work.
    """

    def __init__(self, name: str, distribution: Any) -> None:
        self.name, self.distribution = name, distribution
        self.devices = int(distribution.device_mesh.devices.size)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Variables made in it lie on the devices as the distribution says."""
        with self.distribution.scope():
            yield

    def loop(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> Loop:
        """What trains a model that was built in the scope; `batch_size` is of all devices together."""
        parts = self.distribution.num_model_replicas
        return (
            KerasLoop(model, batch_size, on_step) if parts == 1 else _Loop(model, batch_size, on_step, parts)
        )


class _Loop(KerasLoop):
    """Keras's `fit` on batches that `parts` devices can share: JAX cuts no axis into unequal parts."""

    def __init__(self, model: keras.Model, batch_size: int, on_step: Callable[[], None], parts: int) -> None:
        super().__init__(model, batch_size, on_step)
        self.parts = parts
        # A mean over the examples that count, in the gradient and in what is reported: Keras's own
        # report of the loss goes by the size of a batch.
        model.compile(
            model.optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
            weighted_metrics=[
                "accuracy",
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="mean_loss"),
            ],
        )

    def _batches(self, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        arrays = padded_batches(x, y, self.batch_size, self.parts)
        size = arrays[2].shape[1]
        x, y, weight = (array.reshape(-1, *array.shape[2:]) for array in arrays)
        return {"x": x, "y": y, "sample_weight": weight, "batch_size": size}

    def _scores(self, logs: dict[str, Any]) -> Scores:
        return float(logs["mean_loss"]), float(logs["accuracy"])
