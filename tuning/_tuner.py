"""The tuner: runs a trial, fails what cannot work or diverges, and says why."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError, FatalError, FatalValueError

from keras_rwinit._files import write_json

from ._oracle import LocalSearchOracle
from ._settings import SearchSettings, TrainingSet, run_seed
from .hypermodel import DeepMLPHyperModel, DivergedTrialError

__all__ = ["TRIALS", "WalkTuner", "make_tuner", "outcome_of", "train_and_score"]

TRIALS = "trials"
"""Folder of the trials in a search's folder: keras-tuner's project."""

_CRASHES = 3
_IDLE_SECONDS = 0.2


def train_and_score(
    hypermodel: DeepMLPHyperModel,
    hp: keras_tuner.HyperParameters,
    data: TrainingSet,
    settings: SearchSettings,
    seed: int,
) -> float:
    """The objective after the last epoch of a network trained anew; weights and order follow from `seed`.

    Raises:
        UntrainableTrialError: (a FailedTrialError) Theory rules the network out; nothing was trained.
        DivergedTrialError: (a FailedTrialError) The loss or the score is not finite.
    """
    policy = keras.config.dtype_policy()
    keras.utils.clear_session()  # which forgets the policy as well
    keras.config.set_dtype_policy(policy)
    gc.collect()
    model = hypermodel.build(hp, seed=seed)
    for epoch in range(settings.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(data.x))
        last = epoch + 1 == settings.epochs and settings.objective.startswith("val_")
        history = hypermodel.fit(
            hp,
            model,
            data.x[order],
            data.y[order],
            batch_size=settings.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            validation_data=(data.x_validation, data.y_validation) if last else None,
            validation_batch_size=settings.batch_size,
        ).history
    score = float(history[settings.objective][-1])
    if not math.isfinite(score):
        raise DivergedTrialError(f"diverged: {settings.objective} is {score}")
    return score


class WalkTuner(BaseTuner):
    """keras-tuner's tuner for a search of this package's: see `tuning.search`."""

    def __init__(
        self,
        oracle: LocalSearchOracle,
        hypermodel: DeepMLPHyperModel,
        settings: SearchSettings,
        folder: Path,
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.settings, self.folder, self.on_trial = settings, folder, on_trial
        super().__init__(oracle, hypermodel, directory=str(folder), project_name=TRIALS)

    def _populate_initial_space(self) -> None:
        """Declares the space, without building a network, and takes up the trials there are."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)
        if not self._is_worker():
            self.oracle.reload()

    def save(self) -> None:
        """Nothing: the trials' files are all the state there is."""

    def search(self, data: TrainingSet) -> None:
        """Runs trials until the oracle has no more.

        Raises:
            FatalValueError: (a ValueError) Three trials in a row broke down for reasons of their own.
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
            crashes = crashes + 1 if self._run(trial, data) else 0
            self.on_trial(trial)
            if crashes == _CRASHES:
                raise FatalValueError(f"{crashes} trials in a row broke down, the last by {trial.message}")

    def _run(self, trial: Trial, data: TrainingSet) -> bool:
        """Runs a trial and ends it; whether it broke down in a way that its point does not explain."""
        start, score, crashed = time.perf_counter(), None, False
        trial.message = None
        try:
            score = self.run_trial(trial, data)
        except FatalError:
            raise
        except FailedTrialError as error:
            trial.message = str(error)
        except Exception as error:  # of memory, say: this trial's end, not the search's
            trial.message, crashed = f"{type(error).__name__}: {' '.join(str(error).split())}", True
        trial.status = TrialStatus.FAILED if score is None else TrialStatus.COMPLETED
        # Before the trial ends, so that one that has ended always has it; messages do not travel by gRPC.
        outcome = {"seconds": time.perf_counter() - start, "reason": trial.message, "worker": self.tuner_id}
        write_json(Path(self.get_trial_dir(trial.trial_id)) / "outcome.json", outcome)
        if score is not None:
            self.oracle.update_trial(trial.trial_id, {self.settings.objective: score})
        self.oracle.end_trial(trial)
        return crashed

    def run_trial(self, trial: Trial, data: TrainingSet) -> float:
        """Mean score of the trial's executions."""
        settings = self.settings
        scores = [
            train_and_score(
                self.hypermodel, trial.hyperparameters, data, settings, run_seed(settings.seed, index)
            )
            for index in range(settings.executions_per_trial)
        ]
        return float(np.mean(scores))


def make_tuner(
    settings: SearchSettings,
    folder: Path,
    hypermodel: DeepMLPHyperModel | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> WalkTuner:
    """The tuner of the search in `folder`, with what trials there are."""
    oracle = LocalSearchOracle(
        keras_tuner.Objective(settings.objective, settings.direction), settings.trials, seed=settings.seed
    )
    return WalkTuner(oracle, hypermodel or settings.hypermodel(), settings, folder, on_trial)


def outcome_of(trial: Path) -> dict[str, Any]:
    """Seconds, reason and worker of the trial in a folder; empty if it has not run to an end."""
    try:
        outcome: dict[str, Any] = json.loads((trial / "outcome.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return outcome
