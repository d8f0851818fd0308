"""The events of a training's records, which TensorBoard draws."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit.diagnostics import GradientWalk

from ._record import WalkRecord
from ._table import pair_columns

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

__all__ = ["SUFFIX", "Events"]

SUFFIX = ".gradient_walk"
"""End of the name of an event file, which tells it from those of others in the directory."""


class Events:
    """TensorBoard's event file, written without TensorFlow and made at the first record.

    Args:
        log_dir: Directory of the file.

    Raises:
        ImportError: The package `tensorboard` is missing.
    """

    def __init__(self, log_dir: Path) -> None:
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ImportError as error:
            raise ImportError(
                'TensorBoard\'s events need tensorboard: pip install "keras-rwinit[plots]", or pass '
                "`tensorboard=False`"
            ) from error
        self._log_dir = str(log_dir)
        self._writer: EventFileWriter | None = None

    def add(self, record: WalkRecord, walk: GradientWalk) -> None:
        """Writes the scalars and histograms of one record."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.histogram.summary import histogram_pb
        from tensorboard.plugins.scalar.summary import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(self._log_dir, filename_suffix=SUFFIX)
        # TensorBoard draws no curve through values that are not finite.
        summaries = [scalar_pb(tag, value) for tag, value in _scalars(walk) if np.isfinite(value)]
        for name, values in zip(walk.layer_names, walk.backward.T, strict=True):
            finite = values[np.isfinite(values)]
            if finite.size:
                summaries.append(histogram_pb(f"gradient/{name}", finite))
        if not summaries:
            return
        # One event for all: each event is a message to the writer's thread.
        event = Event(wall_time=time.time(), step=record.step)
        for summary in summaries:
            event.summary.value.extend(summary.value)
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file; another record makes another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _scalars(walk: GradientWalk) -> Iterator[tuple[str, float]]:
    """Yields tag and value of every curve that TensorBoard is to show."""
    yield "gradient_walk/drift", walk.drift
    yield "gradient_walk/example_spread", walk.example_spread
    layers = {
        "ln_gradient": mean_log_norm(walk.backward),
        "ln_activation": mean_log_norm(walk.forward),
        "ln_weight_gradient": walk.weight_gradient,
        "dead": walk.dead,
        **pair_columns(walk),
    }
    for kind, values in layers.items():
        for name, value in zip(walk.layer_names, values, strict=True):
            yield f"{kind}/{name}", float(value)
