"""What a training run leaves for the reader: tables on the console, a CSV, two pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from keras_rwinit._files import write_atomically
from keras_rwinit._memory import format_bytes
from keras_rwinit.diagnostics import GradientWalk
from keras_rwinit.plots import new_figure, plot_histories, plot_walk
from keras_rwinit.theory import WalkPrediction

if TYPE_CHECKING:
    from .run import TrainingRun

__all__ = ["RANDOM_WALK", "draw_training", "draw_walks", "plan_table", "result_table", "write_history"]

RANDOM_WALK = "random_walk"
"""What the command line calls the package's own initializer with the gain for the run's depth."""

_COLUMNS = ("network", "training loss", "training", "test", "gradient drift, nats a layer")


def plan_table(run: TrainingRun, folder: Path) -> Table:
    """What a run is going to do, before it does it."""
    settings, prediction, devices = run.settings, run.prediction, run.strategy.devices
    rows = {
        "network": f"{settings.depth:,} hidden {settings.activation} layers of width {settings.width:,}, "
        f"{run.parameters:,} parameters",
        "kernels": settings.initializer,
    }
    if settings.initializer == RANDOM_WALK and prediction:
        rows["kernels"] += f", {settings.distribution}, gain {prediction.gain:.5f}"
        rows["predicted spread"] = (
            f"{prediction.std[0]:.2f} nats of the gradient's log-norm over all layers, one standard deviation"
        )
        if prediction.dead_probability > 1e-3:
            rows["dead networks"] = f"{prediction.dead_probability:.1%} pass no gradient"
    rows |= {
        "data": f"{settings.dataset}, {len(run.data.x_train):,} training and {len(run.data.x_test):,} test "
        "examples",
        "training": f"{settings.epochs:,} epochs of {run.steps:,} steps, {settings.optimizer} at "
        f"{settings.learning_rate:.3g}{', cosine decay' if settings.cosine_decay else ''}",
        "strategy": settings.strategy + (f", {devices} devices" if devices > 1 else ""),
        "memory": f"about {format_bytes(run.memory)}",
        "comparison": settings.compare or "none",
        "output": str(folder),
    }
    table = Table(title="Plan", title_justify="left", show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}", value)
    return table


def result_table(report: Mapping[str, Any]) -> Table:
    """A row a network out of `report.json`."""
    table = Table(title="Result", title_justify="left", box=None)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, row in report["networks"].items():
        loss = "diverged" if row["diverged"] else f"{row['loss']:.4f}"
        drift = row["measured_drift_nats_per_layer"]
        drift = "no gradient" if drift is None or not math.isfinite(drift) else f"{drift:+.5f}"
        table.add_row(name, loss, f"{row['accuracy']:.2%}", f"{row['test_accuracy']:.2%}", drift)
    return table


def write_history(path: Path, histories: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Writes a line an epoch and network."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            fields = list(next(iter(histories.values()))[0])
            writer.writerow(["network", *fields])
            for name, rows in histories.items():
                writer.writerows([name, *(row[field] for field in fields)] for row in rows)

    write_atomically(path, write)


def draw_training(path: Path, histories: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Writes the picture of the training curves."""
    figure, axes = new_figure(columns=2, width=9.0)
    figure.suptitle(title)
    plot_histories(histories, axes)
    write_atomically(path, figure.savefig)


def draw_walks(
    path: Path,
    walks: Mapping[str, GradientWalk],
    predictions: Mapping[str, WalkPrediction],
    title: str,
) -> None:
    """Writes the picture of the measured walks, inside the predicted band where there is one."""
    figure, ax = new_figure()
    for index, (name, walk) in enumerate(walks.items()):
        label = f"{name}, mean of {len(walk.backward)} examples"
        plot_walk(walk, predictions.get(name), ax, label=label, color=f"C{index}")
    ax.set_title(title)
    write_atomically(path, figure.savefig)
