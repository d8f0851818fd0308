"""What a worker of a search over several processes does."""

from __future__ import annotations

from pathlib import Path

from keras_tuner.engine.trial import Trial, TrialStatus

from .._settings import SearchSettings, TrainingSet
from .._tuner import make_tuner
from .heartbeat import check_chief, heartbeat
from .role import ProcessRole

__all__ = ["work"]


def _told(trial: Trial) -> None:
    """A line in the worker's log."""
    event = "begins" if trial.status == TrialStatus.RUNNING else f"ends: {trial.status}"
    print(f"trial {trial.trial_id} {event}", flush=True)


def work(settings: SearchSettings, folder: Path, role: ProcessRole, data: TrainingSet) -> None:
    """Runs the chief's trials until there are no more; the data are loaded once, before."""
    check_chief(role.address)
    with heartbeat(role):
        make_tuner(settings, folder, on_trial=_told).search(data)
