"""The losses that a search can train with, and the objectives that it can compare trials by."""

from __future__ import annotations

from typing import Literal

__all__ = ["REGRESSION_LOSSES", "check_loss", "check_objective", "direction", "metric_name"]

REGRESSION_LOSSES = (
    "mse",
    "mae",
    "mape",
    "msle",
    "huber",
    "log_cosh",
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
)
"""Names of Keras's losses for real targets; each is a metric too."""

_LABEL_METRICS = ("loss", "accuracy")
_REGRESSION_METRICS = ("loss", *REGRESSION_LOSSES, "root_mean_squared_error", "r2_score")
_LARGER_IS_BETTER = ("accuracy", "r2_score")


def check_loss(loss: object) -> str | None:
    """Returns the name of a regression loss, or None for labels; ValueError unless it is one of these."""
    if loss is not None and (not isinstance(loss, str) or loss not in REGRESSION_LOSSES):
        raise ValueError(
            f"`loss` must be one of {', '.join(REGRESSION_LOSSES)}, or None for labels, which are trained by "
            f"crossentropy. Received: loss={loss!r}"
        )
    return loss


def metric_name(objective: str) -> str:
    """Returns the metric of an objective, without what says that it is that of the held-out examples."""
    return objective.removeprefix("val_")


def direction(objective: str) -> Literal["min", "max"]:
    """Returns whether an objective is minimized or maximized."""
    return "max" if metric_name(objective) in _LARGER_IS_BETTER else "min"


def check_objective(objective: object, loss: str | None) -> None:
    """Raises ValueError unless networks that train with `loss` can be compared by `objective`."""
    metrics = _LABEL_METRICS if loss is None else _REGRESSION_METRICS
    if not isinstance(objective, str) or metric_name(objective) not in metrics:
        allowed = ", ".join(f"{prefix}{name}" for name in metrics for prefix in ("val_", ""))
        targets = "labels" if loss is None else f"real targets (loss={loss!r})"
        raise ValueError(f"`objective` must be one of {allowed} for {targets}. Received: {objective!r}")
