"""The files of a search's trials, and the table that is read from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_rwinit._files import DAMAGE, read_json, write_json

from ._oracle import has_ended
from ._results import SearchResult
from ._trial_row import TrialRow
from .hypermodel import DeepMLPHyperModel
from .settings import SearchSettings

__all__ = ["TRIALS", "TrialOutcome", "read_hyperparameters", "read_result", "trial_files", "write_outcome"]

TRIALS = "trials"
"""Directory of the trials in a search's directory: keras-tuner's project."""

# What `DeepMLPHyperModel.describe` gives for every trial.
_COLUMNS = ("gain_ratio", "gain", "width", "depth", "parameters", "drift", "spread")


@dataclasses.dataclass(frozen=True)
class TrialOutcome:
    """What keras-tuner does not keep of a trial that has ended; saved as `outcome.json`.

    Args:
        seconds: Time that the trial took.
        reason: Why it failed; None if it did not.
        worker: Name of the process that ran it.
    """

    seconds: float
    reason: str | None
    worker: str


def trial_files(directory: Path) -> list[Path]:
    """Returns the `trial.json` of every trial of a search, in the order of the trials."""
    return sorted((directory / TRIALS).glob("trial_*/trial.json"), key=_number)


def write_outcome(trial: Path, outcome: TrialOutcome) -> None:
    """Writes the outcome of the trial in a directory."""
    write_json(trial / "outcome.json", dataclasses.asdict(outcome))


def read_result(settings: SearchSettings, directory: Path, hypermodel: DeepMLPHyperModel) -> SearchResult:
    """Returns the table of the trials in a search's directory."""
    rows = tuple(_read_row(path, hypermodel) for path in trial_files(directory))
    return SearchResult(rows, settings.objective, settings.direction)


def read_hyperparameters(directory: Path, trial: int) -> keras_tuner.HyperParameters:
    """Returns the hyperparameters of a trial of the search in `directory`."""
    (path,) = (path for path in trial_files(directory) if _number(path) == trial)
    hp = keras_tuner.HyperParameters()
    hp.values = read_json(path)["hyperparameters"]["values"]
    return hp


def _read_row(path: Path, hypermodel: DeepMLPHyperModel) -> TrialRow:
    state, outcome = read_json(path), _read_outcome(path.parent)
    described = hypermodel.describe(state["hyperparameters"]["values"])
    ended = has_ended(state["status"], state["score"])
    row = TrialRow(
        trial=_number(path),
        **{name: described[name] for name in _COLUMNS},
        score=state["score"] if ended and state["status"] == TrialStatus.COMPLETED else None,
        seconds=None,
        status=state["status"] if ended else TrialStatus.RUNNING,
        reason=None,
        others={name: described[name] for name in hypermodel.tuned if name not in _COLUMNS},
    )
    # The outcome of a trial that was killed before it ended does not count: the trial runs again.
    if outcome is None or not ended:
        return row
    return dataclasses.replace(row, seconds=outcome.seconds, reason=outcome.reason)


def _read_outcome(trial: Path) -> TrialOutcome | None:
    """Returns the outcome of the trial in a directory; None if the file is missing or damaged."""
    try:
        return TrialOutcome(**read_json(trial / "outcome.json"))
    except (OSError, *DAMAGE):
        return None


def _number(path: Path) -> int:
    return int(path.parent.name.removeprefix("trial_"))
