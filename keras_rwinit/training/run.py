"""The work of `keras-rwinit train`: plan, train, compare, measure, report, in one run folder."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_rwinit import data
from keras_rwinit._files import locked, write_atomically, write_json
from keras_rwinit._keras.activations import keras_activation
from keras_rwinit._memory import check_fits
from keras_rwinit._version import __version__
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.models.model_zoo import count_parameters
from keras_rwinit.plots import check_matplotlib
from keras_rwinit.theory import WalkPrediction, predict_walk
from keras_rwinit.theory.distributions import resolve_distribution

from .loop import Row, compile_classifier, reset_compile_options, train_classifier
from .report import RANDOM_WALK, draw_training, draw_walks, plan_table, result_table, write_history
from .settings import Settings
from .strategies.select import make_strategy

__all__ = ["TrainingRun"]

Build = Callable[..., keras.Model]

_MEASURED_EXAMPLES = 50


class TrainingRun:
    """One run of `keras-rwinit train`.

    Args:
        settings: What to do.
        build: `deep_mlp`, or what takes the same arguments.
        console: Where to print.

    Raises:
        ValueError: The data or a setting is unusable, or the run does not fit into memory. Nothing
            has been written then.
    """

    def __init__(self, settings: Settings, build: Build, console: Console) -> None:
        check_matplotlib()
        self.settings, self.build, self.console = settings, build, console
        if settings.backend != keras.backend.backend():
            raise ValueError(
                f"The run was started on the {settings.backend} back end of Keras. "
                f"Received: {keras.backend.backend()}; set KERAS_BACKEND={settings.backend}"
            )
        if len(set(settings.networks)) < len(settings.networks):
            raise ValueError(
                "A network is compared with one of another initializer. "
                f"Received: {settings.initializer!r} twice; choose another, or pass --no-compare"
            )
        self.strategy = make_strategy(settings.strategy, settings.width)
        self.data = data.load(settings.dataset, settings.data_dir)
        self.steps = -(-len(self.data.x_train) // settings.batch_size)
        self._check_names()
        self.parameters = self._check_memory()
        self.prediction = self._prediction()

    def run_worker(self, folder: Path | None) -> None:
        """What a process that is not the chief does of a run: all of the training, and no writing.

        Args:
            folder: Of the run to go on with, which it reads. `None`: of a new one.
        """
        self._check_same_state(folder)
        if folder is not None and (folder / "report.json").exists():
            return
        self.console.print("This worker trains; the chief reports, and writes.")
        for name in self.settings.networks:
            with self.strategy.scope():
                self._train(name, self._compiled(name), folder)
        self.strategy.check_same(1, "the end")  # until then the chief needs this process

    def _check_same_state(self, folder: Path | None) -> None:
        """Before anything is written: do all processes begin the same run, or go on with it?"""
        state = 0 if folder is None else 2 if (folder / "report.json").exists() else 1
        options = {**dataclasses.asdict(self.settings), "data_dir": None}
        labels = np.concatenate([self.data.y_train, self.data.y_test])
        for value, what in (
            (state, "whether it is new, begun or finished"),
            (_digest(json.dumps(options, sort_keys=True).encode()), "the digest of the options"),
            (_digest(labels.astype("<i8").tobytes()), "the digest of the data's labels"),
        ):
            self.strategy.check_same(value, what)

    def execute(self, folder: Path, new: bool = False) -> Any:
        """Does, or goes on with, the run in `folder`; returns its report, the last file written."""
        self._check_same_state(None if new else folder)
        with locked(folder):
            if new:
                if (folder / "settings.json").exists():
                    raise ValueError(
                        f"{folder} is not empty: another run began in it. Choose another --output."
                    )
                self.settings.save(folder)
            if (folder / "report.json").exists():
                self.console.print("This run is finished; nothing is left to do.")
                self._delete_checkpoints(folder)
                report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
                self.console.print(result_table(report), highlight=False)
                return report
            self.console.print(plan_table(self, folder), highlight=False)
            started = time.perf_counter()
            histories: dict[str, list[Row]] = {}
            for name in self.settings.networks:
                with self.strategy.scope():
                    model = self._compiled(name)
                    histories[name] = self._train(name, model, folder)
                if name == self.settings.initializer:
                    write_atomically(folder / "model.keras", reset_compile_options(model).save)
            walks = {name: self._measured(name) for name in self.settings.networks}
            report = self._report(histories, walks, time.perf_counter() - started)
            write_history(folder / "history.csv", histories)
            title = f"{self.settings.depth} {self.settings.activation} layers of width {self.settings.width}"
            draw_training(folder / "training.png", histories, f"{title}, {self.settings.dataset}")
            predictions = {RANDOM_WALK: self.prediction} if self.prediction else {}
            draw_walks(
                folder / "gradient_walk.png", walks, predictions, f"The gradient before training: {title}"
            )
            write_json(folder / "report.json", report)
            self._delete_checkpoints(folder)
            self.strategy.check_same(1, "the end")
            self.console.print(result_table(report), highlight=False)
            self.console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
        return report

    def _delete_checkpoints(self, folder: Path) -> None:
        for name in self.settings.networks:
            _checkpoint(folder, name).unlink(missing_ok=True)

    def _untrained(self, name: str) -> keras.Model:
        settings = self.settings
        chosen: dict[str, Any] = {"kernel_initializer": name}
        if name == RANDOM_WALK:
            chosen = {
                "distribution": settings.distribution,
                "input_gain": settings.input_gain,
                "output_gain": settings.output_gain,
            }
        return self.build(
            depth=settings.depth,
            width=settings.width,
            activation=settings.activation,
            input_shape=(self.data.features,),
            classes=self.data.classes,
            bias_stddev=settings.bias_stddev,
            seed=settings.seed,
            **chosen,
        )

    def _compiled(self, name: str) -> keras.Model:
        settings = self.settings
        steps = self.steps * settings.epochs
        return compile_classifier(
            self._untrained(name),
            settings.optimizer,
            settings.learning_rate,
            steps if settings.cosine_decay else None,
            batch_size=settings.batch_size,
            steps=steps,
        )

    def _check_names(self) -> None:
        """A misspelled name should not wait until its turn."""
        for name in self.settings.networks:
            try:
                if name != RANDOM_WALK:
                    keras.initializers.get(name)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    "An initializer is random_walk or one of Keras's, such as he_normal, glorot_uniform or "
                    f"orthogonal. Received: {name!r}"
                ) from error
        try:
            keras.activations.get(keras_activation(self.settings.activation))
        except ValueError as error:
            raise ValueError(
                "`activation` must be one of Keras's, such as relu, tanh, elu or selu. "
                f"Received: {self.settings.activation!r}"
            ) from error
        resolve_distribution(self.settings.distribution)
        try:
            keras.optimizers.get(self.settings.optimizer)
        except ValueError as error:
            raise ValueError(
                "`optimizer` must be one of Keras's, such as adam, sgd, rmsprop or lion. "
                f"Received: {self.settings.optimizer!r}"
            ) from error

    def _prediction(self) -> WalkPrediction | None:
        """What to expect of the random walk's network; None if there is none in the run."""
        settings = self.settings
        if RANDOM_WALK not in settings.networks:
            return None
        return predict_walk(
            settings.activation, settings.width, settings.depth, distribution=settings.distribution
        )

    def _check_memory(self) -> int:
        settings = self.settings
        parameters = count_parameters(settings.depth, settings.width, self.data.features, self.data.classes)
        # Weights, gradients and Adam's two moments; activations and their gradients.
        self.memory = 4 * (4 * parameters + 2 * settings.batch_size * settings.depth * settings.width)
        check_fits(
            self.memory,
            f"Training {parameters:,} parameters (depth {settings.depth:,}, width "
            f"{settings.width:,}, batch {settings.batch_size:,})",
        )
        return parameters

    def _train(self, name: str, model: keras.Model, folder: Path | None) -> list[Row]:
        settings = self.settings
        with _progress(self.console, name, self.steps * settings.epochs) as advance:

            def on_epoch(row: Row) -> None:
                if not self.strategy.chief:
                    return
                self.console.print(
                    f"  {name:>14}  epoch {row['epoch']:>{len(str(settings.epochs))}}"
                    f"/{settings.epochs}  loss {row['loss']:.4f}  "
                    f"training {row['accuracy']:7.2%}  test {row['test_accuracy']:7.2%}",
                    highlight=False,
                )

            return train_classifier(
                model,
                self.data,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                seed=settings.seed,
                checkpoint=None if folder is None else _checkpoint(folder, name),
                strategy=self.strategy,
                on_step=advance,
                on_epoch=on_epoch,
            )

    def _measured(self, name: str) -> GradientWalk:
        """The walk of the network as it was before training."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x, y = self.data.x_test[:_MEASURED_EXAMPLES], self.data.y_test[:_MEASURED_EXAMPLES]
        return gradient_walk(self._untrained(name), x, y, loss)

    def _report(
        self, histories: dict[str, list[Row]], walks: dict[str, GradientWalk], seconds: float
    ) -> dict[str, Any]:
        return {
            "settings": dataclasses.asdict(self.settings),
            "plan": {
                **(
                    {
                        "gain": self.prediction.gain,
                        "predicted_spread_nats": float(self.prediction.std[0]),
                        "dead_probability": self.prediction.dead_probability,
                    }
                    if self.prediction
                    else {}
                ),
                "parameters": self.parameters,
                "memory_bytes": self.memory,
            },
            "networks": {
                name: {
                    **rows[-1],
                    "diverged": not math.isfinite(rows[-1]["loss"]),
                    "measured_drift_nats_per_layer": walks[name].drift,
                }
                for name, rows in histories.items()
            },
            "seconds_of_this_process": seconds,
            "versions": {
                "keras_rwinit": __version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "devices": self.strategy.devices,
            "machine": f"{platform.system()} {platform.machine()}",
        }


def _digest(content: bytes) -> int:
    return zlib.crc32(content) & 0x7FFFFFFF


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / f"checkpoint-{name}.npz"


@contextmanager
def _progress(console: Console, name: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar where there is a terminal to draw it on."""
    columns = (
        TextColumn("  {task.description:>14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)
