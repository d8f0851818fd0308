"""The table of a search, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras_tuner

from ._results import Comparison, SearchResult, TrialRow
from ._settings import SearchSettings
from ._tuner import TRIALS, outcome_of
from .hypermodel import DeepMLPHyperModel

__all__ = ["read_result", "values_of"]


def read_result(
    settings: SearchSettings,
    folder: Path,
    hypermodel: DeepMLPHyperModel | None = None,
    comparison: Comparison | None = None,
) -> SearchResult:
    """The table of the trials in a search's folder."""
    hypermodel = hypermodel or settings.hypermodel()
    rows = []
    for path in sorted((folder / TRIALS).glob("trial_*/trial.json"), key=_number):
        state = _state(path)
        values = state["hyperparameters"]["values"]
        known, outcome = hypermodel.describe(values), outcome_of(path.parent)
        ended = state["status"] in ("COMPLETED", "FAILED")
        names = ("gain_ratio", "gain", "width", "depth", "parameters", "drift", "spread")
        rows.append(
            TrialRow(
                trial=_number(path),
                **{name: known[name] for name in names},
                score=state["score"] if state["status"] == "COMPLETED" else None,
                seconds=outcome.get("seconds") if ended else None,
                status=state["status"],
                reason=outcome.get("reason") if ended else None,
                others={name: known[name] for name in hypermodel.tuned if name not in names},
            )
        )
    return SearchResult(tuple(rows), settings.objective, settings.direction, comparison)


def values_of(folder: Path, trial: int) -> keras_tuner.HyperParameters:
    """The hyperparameters of a trial of the search in `folder`."""
    (path,) = (item for item in (folder / TRIALS).glob("trial_*/trial.json") if _number(item) == trial)
    hp = keras_tuner.HyperParameters()
    hp.values = _state(path)["hyperparameters"]["values"]
    return hp


def _state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        state["status"], state["score"], state["hyperparameters"]["values"]["gain_ratio"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The trial in {path} is damaged. Delete its folder to run it again.") from error
    return state


def _number(path: Path) -> int:
    return int(path.parent.name.removeprefix("trial_"))
