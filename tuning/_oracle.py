"""Which point to try next: the analytic optimum first, then around the best so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FatalValueError

from keras_rwinit._files import write_atomically

__all__ = ["LocalSearchOracle"]

_NEAREST, _FARTHEST = 0.02, 0.5  # of a hyperparameter's range
_ATTEMPTS = 200
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class LocalSearchOracle(keras_tuner.Oracle):
    """A keras-tuner oracle that starts from the hyperparameters' defaults and searches around the best.

    The first trial has the default values, which for `DeepMLPHyperModel` are the analytic optimum. Each
    later one is a random step away from the best so far: a step's length is drawn between 2 % and 50 % of
    the ranges, every order of magnitude alike, so that some trials polish and others explore, and none of
    the space is out of reach. It is a pure function of the seed, the number of the trial and the trials that
    have ended.

    The trials' own files, each written as a whole, are all the state there is: whatever moment a process is
    killed at, a trial that has ended is kept, and one that has not runs again.

    Args:
        objective: What to minimize or maximize, as keras-tuner takes it.
        max_trials: Number of trials, failed ones included.
        hyperparameters: See `keras_tuner.Oracle`.
        seed: Of the steps.

    Example:
        >>> from keras_rwinit import tuning
        >>> oracle = tuning.LocalSearchOracle("val_loss", max_trials=20, seed=1)
        >>> oracle.remaining_trials()
        20
    """

    def __init__(
        self,
        objective: Any,
        max_trials: int,
        hyperparameters: HyperParameters | None = None,
        seed: int = 0,
    ) -> None:
        # One trial more than there are: hopeless trials, however many in a row, do not end a search.
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            seed=seed,
            max_consecutive_failed_trials=max_trials + 1,
        )
        self.seed = seed  # keras-tuner takes 0 for none
        self.verbose = 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial; `STOPPED` if the space is exhausted."""
        number = int(trial_id)
        center = self._center() if number else self._defaults()
        generator = np.random.default_rng([self.seed, number])
        for attempt in range(_ATTEMPTS):
            values = self._around(center, generator) if number or attempt else center
            if attempt > _ATTEMPTS // 2:  # next to nothing is left near the center
                values = self._around(self._around(values, generator), generator)
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def _center(self) -> dict[str, Any]:
        completed = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        if completed:
            sign = -1.0 if self.objective.direction == "max" else 1.0
            return dict(
                min(completed, key=lambda trial: (sign * trial.score, trial.trial_id)).hyperparameters.values
            )
        return self._defaults()

    def _defaults(self) -> dict[str, Any]:
        hps = HyperParameters()
        for hp in self.hyperparameters.space:
            hps.merge([hp])
            if hps.is_active(hp):
                hps.values[hp.name] = hp.default
        return dict(hps.values)

    def _around(self, center: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        radius = math.exp(generator.uniform(math.log(_NEAREST), math.log(_FARTHEST)))
        hps = HyperParameters()
        for hp in self.hyperparameters.space:
            hps.merge([hp])
            if hps.is_active(hp):
                value = center.get(hp.name, hp.default)
                hps.values[hp.name] = _step(hp, value, radius, generator)
        return dict(hps.values)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial. A worker waits (`IDLE`) while others are at work, in case one of them dies.

        keras-tuner numbers a trial by how many there are; one whose folder was deleted comes first here.
        """
        deleted = self._deleted()
        if deleted is not None and tuner_id not in self.ongoing_trials and not self._retry_queue:
            return self._create(tuner_id, deleted)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Ends a trial; one that has ended already, on another worker, stays as it is."""
        own = self.trials[trial.trial_id]
        if trial.trial_id in self.end_order:
            self._forget(trial.trial_id)
            return
        if trial.trial_id in self._retry_queue:  # its worker was given up, but was only slow
            self._retry_queue.remove(trial.trial_id)
        trial.hyperparameters.values |= own.hyperparameters.values
        super().end_trial(trial)
        self._forget(trial.trial_id)

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Records the metrics of a trial that has not ended."""
        if trial_id in self.end_order:
            return self.trials[trial_id]
        return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def release(self, tuner_id: str) -> None:
        """Takes back what a worker that has died was at, for the next worker that asks."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None and trial.trial_id not in self.end_order:
            self._again(trial)

    def _deleted(self) -> str | None:
        """The first number without a trial, if there are trials beyond it."""
        for number, trial_id in enumerate(sorted(self.trials, key=int)):
            if int(trial_id) != number:
                return f"{number:0{len(str(self.max_trials))}d}"
        return None

    def _create(self, tuner_id: str, trial_id: str) -> Trial:
        response = self.populate_space(trial_id)
        if response["values"] is None:
            raise FatalValueError(f"The search space has no untried point left for trial {trial_id}.")
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = response["values"]
        trial = Trial(hyperparameters=hyperparameters, trial_id=trial_id, status=TrialStatus.RUNNING)
        self.tuner_ids.add(tuner_id)
        self._record_values(trial)
        self.ongoing_trials[tuner_id] = self.trials[trial_id] = trial
        self.start_order.append(trial_id)
        self._save_trial(trial)
        return trial

    @property
    def finished(self) -> bool:
        """Whether every trial there is to be has ended."""
        return len(self.end_order) >= self.max_trials and not self.ongoing_trials

    def _again(self, trial: Trial) -> None:
        trial.metrics = type(trial.metrics)()
        if trial.trial_id not in self._retry_queue:
            self._retry_queue.append(trial.trial_id)

    def _forget(self, trial_id: str) -> None:
        for tuner_id in [key for key, trial in self.ongoing_trials.items() if trial.trial_id == trial_id]:
            self.ongoing_trials.pop(tuner_id)

    def save(self) -> None:
        """Nothing: a trial's file is written when the trial changes, and the rest follows from those."""

    def _save_trial(self, trial: Trial) -> None:
        write_atomically(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.save)

    def reload(self) -> None:
        """Takes up the trials in the project's folder."""
        for left in Path(self._project_dir).glob("trial_*/.partial-*"):  # by a process killed while it wrote
            left.unlink(missing_ok=True)
        for path in sorted(Path(self._project_dir).glob("trial_*/trial.json")):
            try:
                trial = Trial.load(str(path))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise FatalValueError(
                    f"The trial in {path} is damaged. Delete its folder to run it again."
                ) from error
            self.trials[trial.trial_id] = trial
            self.start_order.append(trial.trial_id)
            self.update_space(trial.hyperparameters)
            self._record_values(trial)
            if trial.status in _ENDED:
                self.end_order.append(trial.trial_id)
                self._run_times[trial.trial_id] = 1
        for trial in reversed(self.trials.values()):  # the queue is taken from its end
            if trial.status not in _ENDED:
                self._again(trial)


def _step(hp: Any, value: Any, radius: float, generator: np.random.Generator) -> Any:
    """A value of `hp` about `radius` of its range away from `value`, reflected at the ends."""
    draw, normal, anywhere = generator.random(), generator.normal(), generator.random()
    if isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
        return hp.value
    if not getattr(hp, "ordered", True) or isinstance(hp, keras_tuner.engine.hyperparameters.Boolean):
        return hp.prob_to_value(anywhere) if draw < radius else value
    place = abs(hp.value_to_prob(value) + radius * normal) % 2.0
    place = min(2.0 - place if place > 1.0 else place, 1.0 - 1e-9)  # at 1, keras-tuner's integers overflow
    stepped = hp.prob_to_value(place)
    if hasattr(hp, "min_value"):
        return min(max(stepped, hp.min_value), hp.max_value)
    return stepped
