"""`TrialRow`: one trial in the table of a search."""

from __future__ import annotations

from dataclasses import dataclass

from ._axes import HyperparameterValue

__all__ = ["TrialRow"]


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Args:
        trial: Number of the trial, from 0; 0 is the analytic optimum.
        gain_ratio: Gain over the analytic one, above 0.
        gain: Gain of the hidden kernels; NaN where none exists.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        parameters: Number of weights and biases.
        drift: Predicted mean step of the gradient's log-norm, in nats of `|delta|` per layer.
        spread: Predicted standard deviation of the log-norm over all layers, in nats of `|delta|`.
        score: The objective, finite; None unless the trial was completed.
        seconds: Time that the trial took, in seconds; None unless it has ended.
        status: keras-tuner's status: `"COMPLETED"`, `"FAILED"` or `"RUNNING"`.
        reason: Why it failed; None if it did not.
        others: The other hyperparameters that were tuned, by name.

    Example:
        >>> from keras_rwinit import tuning
        >>> row = tuning.TrialRow(
        ...     trial=0, gain_ratio=1.0, gain=1.41, width=8, depth=3, parameters=754, drift=0.0, spread=0.6,
        ...     score=0.4, seconds=2.5, status="COMPLETED", reason=None, others={"optimizer": "adam"},
        ... )
        >>> row.score, row.as_dict()["optimizer"]
        (0.4, 'adam')
    """

    trial: int
    gain_ratio: float
    gain: float
    width: int
    depth: int
    parameters: int
    drift: float
    spread: float
    score: float | None
    seconds: float | None
    status: str
    reason: str | None
    others: dict[str, HyperparameterValue]

    def as_dict(self) -> dict[str, object]:
        """Returns the row by column, the other hyperparameters last."""
        row = dict(vars(self))
        others = row.pop("others")
        return {**row, **others}
