"""Strategies of `tf.distribute`: several devices, several machines, TPUs.

Keras's `fit` averages the replicas' mean losses, which weighs examples unequally where a batch does not
divide among the replicas, and does not run under MultiWorkerMirroredStrategy (Keras 3.15). So these
strategies have a loop of their own, in which every example of a batch weighs the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from .base import Features, Labels, Loop, Scores, Strategy, padded_batches

__all__ = ["tensorflow_strategy"]

_Step: TypeAlias = Callable[..., tf.Tensor]

_EXAMPLE = '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'


def tensorflow_strategy(name: str) -> Strategy:
    """Returns the strategy of a name; ValueError if this machine lacks what it needs."""
    if name == "mirrored":
        return TensorFlowStrategy(name, _mirrored())
    if name == "tpu":
        return TensorFlowStrategy(name, _tpu())
    # TensorFlow reads TF_CONFIG itself; the check says what is wrong with it.
    chief = _is_chief(os.environ.get("TF_CONFIG"))
    try:
        return TensorFlowStrategy(name, tf.distribute.MultiWorkerMirroredStrategy(), chief)
    except (RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"The worker could not join the cluster of TF_CONFIG: {_first_line(error)} Start one process "
            "per worker, each with its own address."
        ) from error


def _mirrored() -> tf.distribute.Strategy:
    # Several logical processors, too, which the tests use.
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise ValueError(
            "The strategy mirrored needs at least two devices on this machine. "
            f"Received: {', '.join(device.name for device in devices)}; train without --strategy"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _tpu() -> tf.distribute.Strategy:
    address = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"The strategy tpu needs a TPU, and none is reached at {address!r}: {_first_line(error)} "
            "Name it in the environment variable TPU_NAME; on the TPU's own machine leave that unset."
        ) from error


def _is_chief(config: str | None) -> bool:
    """Returns whether TF_CONFIG's task is the chief; ValueError if it describes no cluster."""
    try:
        content = json.loads(config or "")
        cluster = {kind: list(content["cluster"][kind]) for kind in content["cluster"]}
        kind, index = content["task"]["type"], int(content["task"]["index"])
        workers = cluster.get("chief", []) + cluster.get("worker", [])
        usable = kind in ("chief", "worker") and 0 <= index < len(cluster.get(kind, ())) and len(workers) > 1
    except (AttributeError, KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(
            "The strategy multi-worker needs a cluster of two workers or more, and this process's place in "
            f"it, in the environment variable TF_CONFIG, as in {_EXAMPLE}. Received: {config or 'none'}"
        )
    # Without a task of type "chief" the first worker is the chief.
    return kind == "chief" or (index == 0 and not cluster.get("chief"))


class TensorFlowStrategy(Strategy):
    """A `tf.distribute` strategy.

    Args:
        name: Name on the command line.
        strategy: The strategy.
        chief: Whether this process writes the run's files.
    """

    def __init__(self, name: str, strategy: tf.distribute.Strategy, chief: bool = True) -> None:
        self.name, self.strategy, self.chief = name, strategy, chief
        self.devices = strategy.num_replicas_in_sync
        # Made once: TensorFlow warns of functions that are traced again and again.
        self._gather = tf.function(lambda own: strategy.gather(strategy.run(lambda: own), axis=0))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Gives variables made in it a copy on every device."""
        with self.strategy.scope(), self._name_lost_workers():
            yield

    def loop(self, model: keras.Model, batch_size: int, on_step: Callable[[], None]) -> Loop:
        """Returns the loop of a model built in the scope; `batch_size` counts all devices' examples."""
        return _ReplicaLoop(model, self.strategy, batch_size, on_step)

    def check_same(self, value: int, what: str) -> None:
        """Waits for all workers; raises ValueError in each of them unless `value` is the same in all."""
        values = self._values_of_all(value)
        if len(set(values)) > 1:
            raise ValueError(
                f"All workers must see the same run, but {what} differs among them. Received: {values}; "
                "give every worker the same options, and a directory --output that they share"
            )

    def barrier(self) -> None:
        """Waits for all workers."""
        self._values_of_all(0)

    def _values_of_all(self, value: int) -> list[int]:
        """Waits for all workers and returns the values that they give."""
        if self.name != "multi-worker":
            return [value]
        with self._name_lost_workers():
            values: list[int] = self._gather(tf.constant([value])).numpy().tolist()
        return values

    @contextlib.contextmanager
    def _name_lost_workers(self) -> Iterator[None]:
        """Turns TensorFlow's errors about a lost connection into one that says what to do."""
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if self.name != "multi-worker":
                raise
            raise ConnectionError(
                f"A worker left the cluster: {_first_line(error)} Start all workers again, with --resume."
            ) from error


class _ReplicaLoop:
    """Steps in which each replica takes its part of the batch.

    The loss of a batch is the mean over its examples, so a replica contributes its sum over the number
    of examples in the whole batch, and the optimizer adds up the replicas' gradients.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        on_step: Callable[[], None],
    ) -> None:
        self.model, self.strategy = model, strategy
        self.batch_size, self.on_step = batch_size, on_step
        self._train = tf.function(self._on_replicas(self._training_step))
        self._test = tf.function(self._on_replicas(self._test_step))

    def fit(self, x: Features, y: Labels, epoch: int) -> Scores:
        """Trains on every example once, in the order given."""
        sums = []
        for batch in self._batches(x, y):
            # The sums are read after the epoch: reading each would make the devices wait.
            sums.append(self._train(*batch))
            self.on_step()
        return self._means(sums, len(x))

    def evaluate(self, x: Features, y: Labels) -> Scores:
        """Returns the scores; leaves the model unchanged."""
        return self._means([self._test(*batch) for batch in self._batches(x, y)], len(x))

    def _batches(self, x: Features, y: Labels) -> tf.distribute.DistributedDataset:
        replicas = self.strategy.num_replicas_in_sync
        batches = padded_batches(x, y, self.batch_size, replicas)
        # An example's share in its batch's mean, which no replica knows by itself.
        size = np.maximum(batches[2].sum(axis=1, keepdims=True), 1.0)
        arrays = (*batches, np.broadcast_to(1.0 / size, batches[2].shape).astype("float32"))

        def dataset_of_this_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
            """Returns the batches for this process's replicas, replica by replica."""
            local = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            cut = (a.reshape(len(a), replicas, -1, *a.shape[2:])[:, first : first + local] for a in arrays)
            return tf.data.Dataset.from_tensor_slices(tuple(a.reshape(-1, *a.shape[2:]) for a in cut))

        return self.strategy.distribute_datasets_from_function(dataset_of_this_process)

    def _on_replicas(self, step: _Step) -> _Step:
        def run(*batch: tf.Tensor) -> tf.Tensor:
            return self.strategy.reduce("SUM", self.strategy.run(step, args=batch), axis=None)

        return run

    def _training_step(self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses, correct = self._score_examples(x, y, weight, training=True)
            loss = tf.reduce_sum(losses * share)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, variables)
        # The optimizer sums the replicas' gradients.
        self.model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct)])

    def _test_step(self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        losses, correct = self._score_examples(x, y, weight, training=False)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct)])

    def _score_examples(
        self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each example's loss, and 1.0 where its class is right; both 0.0 at weight zero."""
        outputs = self.model(x, training=training)
        losses = keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)
        correct = keras.metrics.sparse_categorical_accuracy(y, outputs)
        return losses * weight, tf.cast(correct, weight.dtype) * weight

    def _means(self, sums: list[tf.Tensor], examples: int) -> Scores:
        # In float64: a long float32 sum loses digits.
        loss, correct = np.sum([step.numpy() for step in sums], axis=0, dtype="float64") / examples
        return float(loss), float(correct)


def _first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, ending in a full stop."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rstrip(".") + "."
