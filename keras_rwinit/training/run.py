"""The work of `keras-rwinit train`: plan, train, compare, measure, report, in one run directory."""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_rwinit import data
from keras_rwinit._files import DAMAGE, has_settings, locked, read_json, write_atomically, write_json
from keras_rwinit._keras.names import RANDOM_WALK
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.models.model_zoo import deep_mlp

from .loop import Row, compile_classifier, reset_compile_options, train_classifier
from .plan import make_plan
from .progress import format_epoch, show_progress
from .report import draw_training, draw_walks, make_report, plan_table, result_table, write_history
from .settings import Settings
from .strategies.select import make_strategy

__all__ = ["TrainingRun"]

_REPORT = "report.json"
_MEASURED_EXAMPLES = 50


class TrainingRun:
    """One run of `keras-rwinit train`.

    Args:
        settings: What to do.
        console: Where to print, as text: a path may have Rich's brackets in it.
        draw: Whether to draw the pictures, which need matplotlib.

    Raises:
        ValueError: The data or a setting is unusable, or the run does not fit into memory. Nothing
            has been written then.
    """

    def __init__(self, settings: Settings, console: Console, *, draw: bool = True) -> None:
        _check_backend(settings)
        _check_two_networks(settings)
        self.settings, self.console, self.draw = settings, console, draw
        # First of all that computes: a worker cannot join its cluster later.
        self.strategy = make_strategy(settings.strategy, settings.width)
        self.data = data.load(settings.dataset, settings.data_dir)
        self.plan = make_plan(settings, self.data, self.strategy.devices)

    def execute(self, directory: Path | None, new: bool = False) -> None:
        """Does the run, or resumes it. Every process trains, and only the chief writes.

        Args:
            directory: Directory of the run. `None`: a worker's part in a new run, for which it reads nothing.
            new: Whether the run begins now.

        Raises:
            ValueError: Another process is at work in the directory, another run began in it, or the workers
                do not see the same run.
            ConnectionError: A worker is lost.
        """
        self._check_same_state(directory, new)
        output = directory if self.strategy.chief else None
        with self._claim(output, new):
            finished = _is_finished(directory)
            if not finished:
                self._train_networks(directory, output)
            if output is not None:
                self._delete_checkpoints(output)
                self._show_results(output, finished)

    def _check_same_state(self, directory: Path | None, new: bool) -> None:
        """Checks, before anything is written, that all processes begin or resume the same run."""
        state = 1  # begun
        if new:
            state = 0
        elif _is_finished(directory):
            state = 2
        # Each worker may have the data in another place.
        options = {**dataclasses.asdict(self.settings), "data_dir": None}
        labels = np.concatenate([self.data.y_train, self.data.y_test])
        for value, what in (
            (state, "whether it is new, begun or finished"),
            (_digest(json.dumps(options, sort_keys=True).encode()), "the digest of the options"),
            (_digest(labels.astype("<i8").tobytes()), "the digest of the data's labels"),
        ):
            self.strategy.check_same(value, what)

    @contextmanager
    def _claim(self, output: Path | None, new: bool) -> Iterator[None]:
        """Locks the directory that this process writes to, and leaves the settings of a new run in it."""
        if output is None:
            yield
            return
        with locked(output):
            if new:
                # Two commands started together can both have found the directory empty.
                if has_settings(output):
                    raise ValueError(f"{output} is not empty: it holds another run. Choose another --output.")
                self.settings.save(output)
            yield

    def _train_networks(self, directory: Path | None, output: Path | None) -> None:
        """Trains all networks, from their checkpoints in `directory`; writes everything to `output`."""
        if output is None:
            self.console.print("This worker trains; the chief reports, and writes.")
        else:
            self.console.print(plan_table(self.plan, output))
        started = time.perf_counter()
        histories: dict[str, list[Row]] = {}
        for name in self.settings.networks:
            model, histories[name] = self._train(name, directory)
            if output is not None and name == self.settings.initializer:
                write_atomically(output / "model.keras", reset_compile_options(model).save)
        if output is not None:
            self._write_results(output, histories, started)
        # Without it a worker would leave, and the chief, still at work, would report a lost worker.
        self.strategy.barrier()

    def _train(self, name: str, directory: Path | None) -> tuple[keras.Model, list[Row]]:
        """Trains one network, from its checkpoint in `directory` if there is one."""
        settings, strategy = self.settings, self.strategy

        def on_epoch(row: Row) -> None:
            if strategy.chief:
                self.console.print(format_epoch(name, row, settings.epochs), soft_wrap=True)

        steps = self.plan.steps * settings.epochs
        with strategy.scope():
            model = self._compile(name, steps)
            with show_progress(self.console, name, steps) as advance:
                rows = train_classifier(
                    model,
                    self.data,
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    checkpoint=None if directory is None else _checkpoint(directory, name),
                    strategy=strategy,
                    on_step=advance,
                    on_epoch=on_epoch,
                )
        return model, rows

    def _write_results(self, output: Path, histories: dict[str, list[Row]], started: float) -> None:
        """Measures the walks and writes all results; the report comes last, it marks a finished run."""
        walks = {name: self._measure(name) for name in self.settings.networks}
        report = make_report(self.plan, histories, walks, time.perf_counter() - started)
        write_history(output / "history.csv", histories)
        if self.draw:
            draw_training(output / "training.png", self.plan, histories)
            draw_walks(output / "gradient_walk.png", self.plan, walks)
        write_json(output / _REPORT, report)

    def _show_results(self, output: Path, finished_before: bool) -> None:
        if finished_before:
            self.console.print(f"The run in {output} is finished; nothing is left to do.", soft_wrap=True)
        self.console.print(_read_result_table(output / _REPORT))
        if not finished_before:
            self.console.print(f"Written to {output}", soft_wrap=True)

    def _delete_checkpoints(self, directory: Path) -> None:
        for name in self.settings.networks:
            _checkpoint(directory, name).unlink(missing_ok=True)

    def _build(self, name: str) -> keras.Model:
        """Returns the untrained network of an initializer."""
        settings = self.settings
        walk = name == RANDOM_WALK
        # Other initializers take neither a distribution nor gains.
        return deep_mlp(
            settings.depth,
            settings.width,
            settings.activation,
            input_shape=(self.data.features,),
            classes=self.data.classes,
            kernel_initializer=None if walk else name,
            distribution=settings.distribution if walk else None,
            input_gain=settings.input_gain if walk else None,
            output_gain=settings.output_gain if walk else None,
            bias_stddev=settings.bias_stddev,
            seed=settings.seed,
        )

    def _compile(self, name: str, steps: int) -> keras.Model:
        """Returns the network of an initializer, compiled for a training of `steps` steps."""
        settings = self.settings
        return compile_classifier(
            self._build(name),
            settings.optimizer,
            settings.learning_rate,
            steps if settings.cosine_decay else None,
            batch_size=settings.batch_size,
            steps=steps,
        )

    def _measure(self, name: str) -> GradientWalk:
        """Returns the walk of a network as it was before training."""
        # Built again: the trained network is no longer as it was.
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x, y = self.data.x_test[:_MEASURED_EXAMPLES], self.data.y_test[:_MEASURED_EXAMPLES]
        return gradient_walk(self._build(name), x, y, loss)


def _check_backend(settings: Settings) -> None:
    backend = keras.backend.backend()
    if settings.backend != backend:
        raise ValueError(
            f"The run was started on the {settings.backend} back end of Keras. Received: {backend}; set "
            f"KERAS_BACKEND={settings.backend}"
        )


def _check_two_networks(settings: Settings) -> None:
    if settings.compare == settings.initializer:
        raise ValueError(
            "A network is compared with one of another initializer. "
            f"Received: {settings.initializer!r} twice; choose another, or pass --no-compare"
        )


def _read_result_table(path: Path) -> Table:
    try:
        return result_table(read_json(path))
    except DAMAGE as error:
        raise ValueError(f"The report {path} is damaged. Delete it to measure and write it again.") from error


def _is_finished(directory: Path | None) -> bool:
    return directory is not None and (directory / _REPORT).exists()


def _digest(content: bytes) -> int:
    return zlib.crc32(content) & 0x7FFFFFFF  # fits the int32 that workers exchange


def _checkpoint(directory: Path, name: str) -> Path:
    return directory / f"checkpoint-{name}.npz"
