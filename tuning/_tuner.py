"""The tuner: runs trials, and records why a trial failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError, FatalError, FatalValueError
from keras_tuner.src import protos

from ._oracle import LocalSearchOracle
from ._trainer import NetworkTrainer
from ._trial_files import TRIALS, TrialOutcome, write_outcome
from .hypermodel import DeepMLPHyperModel
from .settings import SearchSettings

__all__ = ["SearchTuner", "make_tuner"]

_MOST_CRASHES = 3
_IDLE_SECONDS = 0.2


class SearchTuner(BaseTuner):
    """keras-tuner's tuner for `tuning.search`.

    Args:
        oracle: Chooses the points to try.
        hypermodel: The space.
        settings: Settings of the search.
        directory: Directory of the search.
        on_trial: Called with a trial when it begins and when it has ended.
        channel: Channel to the chief, for a worker.
    """

    def __init__(
        self,
        oracle: LocalSearchOracle,
        hypermodel: DeepMLPHyperModel,
        settings: SearchSettings,
        directory: Path,
        on_trial: Callable[[Trial], None] = lambda trial: None,
        channel: grpc.Channel | None = None,
    ) -> None:
        self.settings, self.on_trial = settings, on_trial
        super().__init__(oracle, hypermodel, directory=str(directory), project_name=TRIALS)
        if channel is not None:  # keras-tuner's own client calls without the search's token
            self.oracle.stub = protos.get_service_grpc().OracleStub(channel)

    @property
    def project_dir(self) -> str:
        """Directory of the trials. keras-tuner's property makes a deleted one again, without its trials."""
        return str(Path(self.directory) / self.project_name)

    def get_trial_dir(self, trial_id: str) -> str:
        """Returns the directory of a trial, and makes none."""
        return str(Path(self.project_dir) / f"trial_{trial_id}")

    def _populate_initial_space(self) -> None:
        """Declares the space without building a network, as keras-tuner would, and loads existing trials."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)
        if not self._is_worker():
            self.oracle.reload()

    def save(self) -> None:
        """Does nothing: the trials' files hold all state."""

    def search(self, trainer: NetworkTrainer) -> None:
        """Runs trials until the oracle has no more.

        Raises:
            FatalValueError: (a ValueError) Three trials in a row crashed.
        """
        crashes = 0
        while True:
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.IDLE:
                time.sleep(_IDLE_SECONDS)
                continue
            self.on_trial(trial)
            crashes = crashes + 1 if self._run(trial, trainer) else 0
            self.on_trial(trial)
            if crashes == _MOST_CRASHES:
                raise FatalValueError(f"{crashes} trials in a row crashed, the last by {trial.message}")

    def _run(self, trial: Trial, trainer: NetworkTrainer) -> bool:
        """Runs a trial and ends it; returns whether it crashed, which its point does not explain."""
        start, score, crashed = time.perf_counter(), None, False
        trial.message = None
        try:
            score = trainer.score(trial.hyperparameters)
        except FatalError:
            raise
        except FailedTrialError as error:
            trial.message = str(error)
        except Exception as error:  # such as MemoryError: it ends this trial, not the search
            trial.message, crashed = f"{type(error).__name__}: {' '.join(str(error).split())}", True
        trial.status = TrialStatus.FAILED if score is None else TrialStatus.COMPLETED
        # The outcome is written before the trial ends: every trial that has ended has one. It is a file
        # because gRPC does not carry messages.
        outcome = TrialOutcome(time.perf_counter() - start, trial.message, self.tuner_id)
        write_outcome(Path(self.get_trial_dir(trial.trial_id)), outcome)
        # Score and status go to the oracle in one call, and to the trial's file in one write.
        trial.metrics = type(trial.metrics)()
        if score is not None:
            trial.metrics.register(self.settings.objective, self.settings.direction)
            trial.metrics.update(self.settings.objective, score)
        self.oracle.end_trial(trial)
        return crashed


def make_tuner(
    settings: SearchSettings,
    directory: Path,
    hypermodel: DeepMLPHyperModel | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    channel: grpc.Channel | None = None,
) -> SearchTuner:
    """Returns the tuner of the search in `directory`, with the trials that exist."""
    objective = keras_tuner.Objective(settings.objective, settings.direction)
    oracle = LocalSearchOracle(objective, settings.trials, seed=settings.seed)
    return SearchTuner(
        oracle, hypermodel or settings.make_hypermodel(), settings, directory, on_trial, channel
    )
