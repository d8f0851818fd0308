"""The experiment trackers that a training's records can go to: Weights & Biases and MLflow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeAlias

import numpy as np

from keras_rwinit._checks import did_you_mean
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit.diagnostics import GradientWalk

__all__ = ["Tracker", "TrackerName", "make_trackers", "summary_metrics"]

TrackerName: TypeAlias = Literal["wandb", "mlflow"]


Tracker: TypeAlias = Callable[[dict[str, float], int], object]
"""Logs the metrics of one step of training, by their names."""


def _wandb_tracker() -> Tracker:
    """Returns the active run of Weights & Biases, which draws the metrics over `gradient_walk/step`.

    Its own step counts every call of `log`: what another callback logs with `step=` may come too late.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("The tracker 'wandb' needs Weights & Biases: pip install wandb") from error
    run = wandb.run
    if run is None:
        raise ValueError("The tracker 'wandb' needs an active run: call wandb.init() first.")
    run.define_metric("gradient_walk/*", step_metric="gradient_walk/step")
    return lambda metrics, step: run.log({**metrics, "gradient_walk/step": step})


def _mlflow_tracker() -> Tracker:
    """Returns the active run of MLflow."""
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("The tracker 'mlflow' needs MLflow: pip install mlflow") from error
    if mlflow.active_run() is None:
        raise ValueError("The tracker 'mlflow' needs an active run: call mlflow.start_run() first.")
    return lambda metrics, step: mlflow.log_metrics(metrics, step=step)


_TRACKERS: Mapping[str, Callable[[], Tracker]] = {"wandb": _wandb_tracker, "mlflow": _mlflow_tracker}


def make_trackers(names: TrackerName | Collection[TrackerName]) -> list[Tracker]:
    """Returns the trackers of these names, each once.

    Raises:
        ImportError: The package of one of them is missing.
        ValueError: There is no tracker of that name, or it needs a run that has begun.
    """
    several = [names] if isinstance(names, str) or not isinstance(names, Collection) else list(names)
    for name in several:
        if not isinstance(name, str) or name not in _TRACKERS:
            raise ValueError(
                f"`trackers` must be of {sorted(_TRACKERS)}. Received: {name!r}"
                f"{did_you_mean(name, _TRACKERS)}"
            )
    return [_TRACKERS[name]() for name in dict.fromkeys(several)]


def summary_metrics(walk: GradientWalk) -> dict[str, float]:
    """Returns the numbers of a walk that are worth a curve each, if finite, by their names in a tracker.

    The layers one by one are in the CSV and in TensorBoard's events: trackers draw no thousands of curves.
    """
    correlation = walk.correlation
    metrics = {
        "drift": walk.drift,
        "example_spread": walk.example_spread,
        "first_over_last": mean_log_norm(walk.relative)[0],
        "dead": walk.dead.max(),
        "correlation": np.nan if correlation is None else correlation.forward[-1],
        "effective_rank": np.nan if correlation is None else correlation.effective_rank[-1],
    }
    return {f"gradient_walk/{name}": float(value) for name, value in metrics.items() if np.isfinite(value)}
