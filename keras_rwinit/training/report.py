"""What a training run leaves for the reader: tables on the console, a report, a CSV and two pictures."""

from __future__ import annotations

import csv
import dataclasses
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from rich.table import Table
from rich.text import Text

from keras_rwinit._files import write_atomically
from keras_rwinit._keras.names import RANDOM_WALK
from keras_rwinit._limits import format_bytes
from keras_rwinit._version import __version__
from keras_rwinit.diagnostics import GradientWalk
from keras_rwinit.plots import new_figure, plot_histories, plot_walk
from keras_rwinit.theory import WalkPrediction

from .plan import TrainingPlan

__all__ = [
    "History",
    "Report",
    "draw_training",
    "draw_walks",
    "make_report",
    "plan_table",
    "result_table",
    "write_history",
]

History: TypeAlias = Sequence[Mapping[str, float]]
"""A network's epochs: number, losses and accuracies."""

Report: TypeAlias = Mapping[str, Any]
"""Content of `report.json`."""

_COLUMNS = ("network", "training loss", "training", "test", "gradient drift, nats per layer")


def plan_table(plan: TrainingPlan, directory: Path) -> Table:
    """Returns a table of what a run is going to do."""
    settings = plan.settings
    decay = ", cosine decay" if settings.cosine_decay else ""
    rows = {
        "network": f"{settings.depth:,} hidden {settings.activation} layers of width {settings.width:,}, "
        f"{plan.parameters:,} parameters",
        **_kernel_rows(plan),
        "data": f"{settings.dataset}, {plan.training_examples:,} training and {plan.test_examples:,} test "
        "examples",
        "training": f"{settings.epochs:,} epochs of {plan.steps:,} steps, {settings.optimizer} at "
        f"{settings.learning_rate:.3g}{decay}",
        "strategy": settings.strategy + (f", {plan.devices} devices" if plan.devices > 1 else ""),
        "memory": f"about {format_bytes(plan.memory)}",
        "comparison": settings.compare or "none",
        "output": str(directory),
    }
    # `Text`, here and below: a path or name with brackets in it is not Rich's markup, whatever the console.
    table = Table(title="Plan", title_justify="left", show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(Text(key, "bold"), Text(value))
    return table


def _kernel_rows(plan: TrainingPlan) -> dict[str, str]:
    settings, prediction = plan.settings, plan.prediction
    if settings.initializer != RANDOM_WALK or prediction is None:
        return {"kernels": settings.initializer}
    rows = {
        "kernels": f"{RANDOM_WALK}, {settings.distribution}, gain {prediction.gain:.5f}",
        "predicted spread": f"{prediction.spread:.2f} nats of the gradient's log-norm over all layers, one "
        "standard deviation",
    }
    if prediction.dead_probability > 1e-3:  # below, it is not worth a line
        rows["dead networks"] = f"{prediction.dead_probability:.1%} pass no gradient"
    return rows


def make_report(
    plan: TrainingPlan, histories: Mapping[str, History], walks: Mapping[str, GradientWalk], seconds: float
) -> Report:
    """Returns the content of `report.json`.

    Args:
        plan: The run's plan.
        histories: Epochs of each network.
        walks: Walk of each network before training.
        seconds: Time that this process took for the run.
    """
    return {
        "settings": dataclasses.asdict(plan.settings),
        "plan": {
            **_prediction_entries(plan.prediction),
            "parameters": plan.parameters,
            "memory_bytes": plan.memory,
        },
        "networks": {
            name: {
                **history[-1],
                "diverged": not math.isfinite(history[-1]["loss"]),
                "measured_drift_nats_per_layer": walks[name].drift,
            }
            for name, history in histories.items()
        },
        "seconds_of_this_process": seconds,
        "versions": {
            "keras_rwinit": __version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "devices": plan.devices,
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _prediction_entries(prediction: WalkPrediction | None) -> dict[str, float]:
    if prediction is None:
        return {}
    return {
        "gain": prediction.gain,
        "predicted_spread_nats": prediction.spread,
        "dead_probability": prediction.dead_probability,
    }


def result_table(report: Report) -> Table:
    """Returns a table of the networks in a report, which may have been read from `report.json`."""
    table = Table(title="Result", title_justify="left", box=None)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, row in report["networks"].items():
        loss = "diverged" if row["diverged"] else f"{row['loss']:.4f}"
        drift = row["measured_drift_nats_per_layer"]  # None if read from a file, where NaN is null
        drift = "no gradient" if drift is None or not math.isfinite(drift) else f"{drift:+.5f}"
        table.add_row(Text(name), loss, f"{row['accuracy']:.2%}", f"{row['test_accuracy']:.2%}", drift)
    return table


def write_history(path: Path, histories: Mapping[str, History]) -> None:
    """Writes a CSV with a line for each network and epoch."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            fields = list(next(iter(histories.values()))[0])
            writer.writerow(["network", *fields])
            for name, history in histories.items():
                writer.writerows([name, *(row[field] for field in fields)] for row in history)

    write_atomically(path, write)


def draw_training(path: Path, plan: TrainingPlan, histories: Mapping[str, History]) -> None:
    """Writes the picture of the training curves."""
    figure, axes = new_figure(columns=2, width=9.0)
    figure.suptitle(f"{_describe_network(plan)}, {plan.settings.dataset}")
    plot_histories(histories, axes)
    write_atomically(path, figure.savefig)


def draw_walks(path: Path, plan: TrainingPlan, walks: Mapping[str, GradientWalk]) -> None:
    """Writes the picture of the measured walks, the random walk's with its predicted band."""
    figure, ax = new_figure()
    for index, (name, walk) in enumerate(walks.items()):
        prediction = plan.prediction if name == RANDOM_WALK else None
        label = f"{name}, mean of {len(walk.backward)} examples"
        plot_walk(walk, prediction, ax, label=label, color=f"C{index}")
    ax.set_title(f"The gradient before training: {_describe_network(plan)}")
    write_atomically(path, figure.savefig)


def _describe_network(plan: TrainingPlan) -> str:
    settings = plan.settings
    return f"{settings.depth} {settings.activation} layers of width {settings.width}"
