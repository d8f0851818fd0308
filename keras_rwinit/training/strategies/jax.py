"""Strategies of `keras.distribution` on JAX: devices share the batch, or the kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.sharding import layout_map

from .base import Features, KerasLoop, Labels, Loop, Scores, Strategy, padded_batches

__all__ = ["jax_strategy"]


def jax_strategy(name: str, width: int) -> Strategy:
    """Returns the strategy of a name; ValueError if this machine lacks what it needs."""
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
    # All devices hold parts of one copy of the model: the mesh's batch axis has length 1.
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    distribution = keras.distribution.ModelParallel(layout_map=layout_map(mesh), batch_dim_name="batch")
    return JaxStrategy(name, distribution)


class JaxStrategy(Strategy):
    """A `keras.distribution`, set only in the scope.

    Args:
        name: Name on the command line.
        distribution: The distribution.
    """

    def __init__(self, name: str, distribution: keras.distribution.DataParallel) -> None:
        self.name, self.distribution = name, distribution
        self.devices = int(distribution.device_mesh.devices.size)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Places variables made in it on the devices as the distribution says."""
        with self.distribution.scope():
            yield

    def loop(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> Loop:
        """Returns the loop of a model built in the scope; `batch_size` counts all devices' examples."""
        parts = self.distribution.num_model_replicas
        if parts == 1:
            return KerasLoop(model, batch_size, on_step)
        return _PaddedLoop(model, batch_size, on_step, parts)


class _PaddedLoop(KerasLoop):
    """Keras's `fit` on batches that `parts` devices can share: JAX cuts no axis into unequal parts."""

    def __init__(self, model: keras.Model, batch_size: int, on_step: Callable[[], None], parts: int) -> None:
        super().__init__(model, batch_size, on_step)
        self.parts = parts
        # Gradient and reported loss are means over the examples of weight one. Keras's own report of the
        # loss weighs batches by their size, which counts the others too.
        model.compile(
            model.optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
            weighted_metrics=[
                "accuracy",
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="mean_loss"),
            ],
        )

    def _fit_arguments(self, x: Features, y: Labels) -> dict[str, NDArray[np.generic] | int]:
        batches = padded_batches(x, y, self.batch_size, self.parts)
        flat = [array.reshape(-1, *array.shape[2:]) for array in batches]
        return {"x": flat[0], "y": flat[1], "sample_weight": flat[2], "batch_size": batches[2].shape[1]}

    def _scores(self, logs: Mapping[str, float]) -> Scores:
        return float(logs["mean_loss"]), float(logs["accuracy"])
