"""Training that can be killed at any moment and resumes from the last finished epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np

from keras_rwinit._files import DAMAGE, write_atomically
from keras_rwinit.data import Dataset

from .strategies.base import Strategy

__all__ = [
    "Row",
    "compile_classifier",
    "compile_options",
    "reset_compile_options",
    "restore_checkpoint",
    "steps_per_execution",
    "train_classifier",
]

Row: TypeAlias = dict[str, float]
"""An epoch: its number, from 1, and the losses and accuracies after it."""

# Both limits are in floating-point operations; two cores did some 3e10 per second at width 64.
_WORTH_COMPILING = 1e12  # of a whole run
_SHORT_STEP = 2e8
_STEPS_AT_ONCE = 8


def compile_classifier(
    model: keras.Model,
    optimizer: str,
    learning_rate: float,
    decay_steps: int | None = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
) -> keras.Model:
    """Compiles a classifier with logits and returns it.

    Args:
        model: The model.
        optimizer: Keras optimizer id.
        learning_rate: Learning rate at the start.
        decay_steps: Steps over which the learning rate falls to zero along half a cosine. `None`: it is
            constant.
        batch_size: Examples per step, for `compile_options`. `None`: Keras's own options.
        steps: Steps of the run, for `compile_options`. `None`: Keras's own options.
    """
    rate: float | keras.optimizers.schedules.LearningRateSchedule = learning_rate
    if decay_steps is not None:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps)
    made = keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}})
    options = compile_options(model, batch_size, steps) if batch_size and steps else {}
    _compile(model, made, **options)
    # A checkpoint is restored before the first step, which would build it.
    made.build(model.trainable_variables)
    return model


def reset_compile_options(model: keras.Model) -> keras.Model:
    """Compiles with Keras's own options again: those of the run would be saved with the model."""
    return _compile(model, model.optimizer)


def _compile(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, **options: bool | str | int
) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def compile_options(model: keras.Model, batch_size: int, steps: int) -> dict[str, bool | str | int]:
    """Returns the options of `compile` that make a run short: `steps_per_execution`, and XLA on TensorFlow.

    Both rules were measured on two cores. XLA, which Keras does not use on processors, makes Adam's update
    one pass over the weights. It takes two to four seconds more than TensorFlow's own graphs to compile
    full and part batches for training and test, so it pays in runs of half a minute and more.
    """
    options: dict[str, bool | str | int] = {
        "steps_per_execution": steps_per_execution(model, batch_size, steps)
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpus_only = all(device.device_type == "CPU" for device in tf.config.list_physical_devices())
        work = _operations(model, batch_size) * steps
        options["jit_compile"] = True if cpus_only and work > _WORTH_COMPILING else "auto"
    return options


def steps_per_execution(model: keras.Model, batch_size: int, steps: int) -> int:
    """Returns how many steps Keras should take between two callbacks: 8 short ones, otherwise 1.

    The numbers of the training stay the same. Callbacks see every eighth step.

    Measured on two busy cores with relu layers of width 100 at batch 32, in milliseconds of processor time
    per step, the least of 15 epochs, with a callback that reads the loss: 20 layers on TensorFlow 5.9 with 1
    and 4.7 with 8 (4.8 with 5, 4.4 with 20), on JAX 1.14 and 1.04 (1.10, 1.07). 100 layers on JAX took 6.3
    and 6.4 (5.9, 5.8), a difference within the noise, and 5.9 in a loop without Keras. On JAX, Keras makes
    the steps one after another, so that nothing is compiled in addition.

    Args:
        model: The model.
        batch_size: Examples per step.
        steps: Steps of the run.

    Returns:
        1 on PyTorch, where Keras takes no other number.
    """
    short = _operations(model, batch_size) < _SHORT_STEP
    return min(_STEPS_AT_ONCE, steps) if short and keras.backend.backend() != "torch" else 1


def _operations(model: keras.Model, batch_size: int) -> float:
    """Returns the floating-point operations of a step: 2 per weight and example forward, 4 backward."""
    return 6.0 * model.count_params() * batch_size


def train_classifier(
    model: keras.Model,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoint: Path | None,
    strategy: Strategy,
    on_step: Callable[[], None],
    on_epoch: Callable[[Row], None],
) -> list[Row]:
    """Trains a compiled model, from `checkpoint` on if that file is there.

    An interrupted run ends with the same numbers as an undisturbed one: the order of the examples depends
    on `seed` and the number of the epoch alone, and the checkpoint holds all weights and optimizer
    variables as they are.

    Args:
        model: Built and compiled in the strategy's scope.
        data: The data set.
        epochs: Passes over the training set, those of the checkpoint included.
        batch_size: Examples per step, on all devices together.
        seed: Seed of the order of the examples.
        checkpoint: The file, which every process reads and the chief writes. `None`: start from scratch,
            and write nothing.
        strategy: The devices.
        on_step: Called after every step.
        on_epoch: Called after every epoch with its row.

    Returns:
        A row for each epoch: `epoch` (from 1), `loss`, `accuracy`, `test_loss`, `test_accuracy`. Training
        stops early if the loss is not finite.
    """
    rows = restore_checkpoint(model, checkpoint) if checkpoint else []
    # Workers at different epochs would wait for each other forever.
    strategy.check_same(len(rows), "the number of epochs in the checkpoint")
    loop = strategy.loop(model, batch_size, on_step)
    for epoch in range(len(rows), epochs):
        if rows and not np.isfinite(rows[-1]["loss"]):
            break  # it has diverged, perhaps before an interruption
        # From the epoch's number, not from one generator for all epochs: a resumed run draws the same order.
        order = np.random.default_rng([seed, epoch]).permutation(len(data.x_train))
        loss, accuracy = loop.fit(data.x_train[order], data.y_train[order], epoch)
        test_loss, test_accuracy = loop.evaluate(data.x_test, data.y_test)
        row = {
            "epoch": epoch + 1,
            "loss": loss,
            "accuracy": accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }
        rows.append(row)
        if checkpoint and strategy.chief:
            _save_checkpoint(model, rows, checkpoint)
        on_epoch(row)
    return rows


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns what a checkpoint holds, in the order of its arrays."""
    return [*model.variables, *model.optimizer.variables]


def _save_checkpoint(model: keras.Model, rows: list[Row], checkpoint: Path) -> None:
    values = [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, *values, rows=np.array(json.dumps(rows)))

    write_atomically(checkpoint, write)


def restore_checkpoint(model: keras.Model, checkpoint: Path) -> list[Row]:
    """Puts a checkpoint's values into a compiled model and returns its rows, none if there is no file."""
    if not checkpoint.exists():
        return []
    try:
        with open(checkpoint, "rb") as file, np.load(file) as values:
            for index, variable in enumerate(_variables(model)):
                variable.assign(values[f"arr_{index}"])
            rows: list[Row] = json.loads(str(values["rows"]))
    except DAMAGE as error:
        raise ValueError(
            f"The checkpoint {checkpoint} is damaged. Delete it to train that network again."
        ) from error
    return rows
