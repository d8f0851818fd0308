"""The experiment trackers that a training's records can go to: Weights & Biases and MLflow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol, TypeAlias

import numpy as np

from keras_rwinit._checks import did_you_mean
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit.diagnostics import GradientWalk

__all__ = ["Tracker", "TrackerName", "make_trackers", "summary_metrics"]

TrackerName: TypeAlias = Literal["wandb", "mlflow"]


class Tracker(Protocol):
    """What takes numbers by name."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs the metrics of one step of training."""


class WandbTracker:
    """The active run of Weights & Biases, which draws the metrics over `gradient_walk/step`.

    Its own step counts every call of `log`: what another callback logs with `step=` may come too late.

    Raises:
        ImportError: The package is missing.
        ValueError: There is no active run.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("The tracker 'wandb' needs Weights & Biases: pip install wandb") from error
        if wandb.run is None:
            raise ValueError("The tracker 'wandb' needs an active run: call wandb.init() first.")
        wandb.run.define_metric("gradient_walk/*", step_metric="gradient_walk/step")
        self._log: Callable[[dict[str, float]], object] = wandb.run.log

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs the metrics of one step of training."""
        self._log({**metrics, "gradient_walk/step": step})


class MlflowTracker:
    """The active run of MLflow.

    Raises:
        ImportError: The package is missing.
        ValueError: There is no active run.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("The tracker 'mlflow' needs MLflow: pip install mlflow") from error
        if mlflow.active_run() is None:
            raise ValueError("The tracker 'mlflow' needs an active run: call mlflow.start_run() first.")
        self._log_metrics: Callable[..., object] = mlflow.log_metrics

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs the metrics of one step of training."""
        self._log_metrics(dict(metrics), step=step)


_TRACKERS: Mapping[str, Callable[[], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}


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
