"""The choice of the point to try next: the analytic optimum first, then around the best so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import keras_tuner
import numpy as np
from keras_tuner import HyperParameters
from keras_tuner.engine.hyperparameters import Boolean, Fixed, HyperParameter
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FatalValueError

from keras_rwinit._checks import check_count
from keras_rwinit._files import DAMAGE, delete_partial_files, read_json, write_json

from ._axes import HyperparameterValue

__all__ = ["ENDED", "LocalSearchOracle", "check_trials_exist", "has_ended"]

Values: TypeAlias = dict[str, HyperparameterValue]
"""Values of the hyperparameters by name."""

# Shortest and longest step, as fractions of a hyperparameter's range.
_SHORTEST, _LONGEST = 0.02, 0.5
_ATTEMPTS = 200
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class LocalSearchOracle(keras_tuner.Oracle):
    """A keras-tuner oracle that starts from the hyperparameters' defaults and searches around the best.

    The first trial has the default values, which for `DeepMLPHyperModel` are the analytic optimum. Each later
    one is a random step away from the best so far. The length of a step is log-uniform between 2 % and 50 %
    of the ranges, so that some trials refine and others explore, and every point of the space can be
    reached. A step is a pure function of the seed, the number of the trial and the trials that have ended.

    The trials' own files hold all state, and each is written atomically. If a process is killed, trials that
    have ended are kept and the others run again.

    Args:
        objective: What to minimize or maximize, as keras-tuner takes it.
        max_trials: Number of trials, failed ones included, at least 1.
        hyperparameters: See `keras_tuner.Oracle`.
        seed: Random seed of the steps, at least 0.

    Raises:
        ValueError: A number is out of range, or keras-tuner does not know whether to minimize or to maximize
            `objective`.

    Example:
        >>> from keras_rwinit import tuning
        >>> oracle = tuning.LocalSearchOracle("val_loss", max_trials=20, seed=1)
        >>> oracle.remaining_trials()
        20
    """

    def __init__(
        self,
        objective: str | keras_tuner.Objective,
        max_trials: int,
        hyperparameters: HyperParameters | None = None,
        seed: int = 0,
    ) -> None:
        max_trials, seed = check_count("max_trials", max_trials), check_count("seed", seed, minimum=0)
        # keras-tuner ends a search after so many failed trials in a row. Untrainable trials must not end it.
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            seed=seed,
            max_consecutive_failed_trials=max_trials + 1,
        )
        self.seed = seed  # keras-tuner replaces a seed of 0 by a random one
        self.verbose = 0

    @property
    def finished(self) -> bool:
        """Whether `max_trials` trials have ended."""
        return len(self.end_order) >= self.max_trials and not self.ongoing_trials

    # Choosing a point

    def populate_space(self, trial_id: str) -> dict[str, str | Values | None]:
        """Returns the status and the values of the next trial; `STOPPED` if the space is exhausted.

        Args:
            trial_id: Number of the trial in decimal digits, from "0"; "0" has the default values.

        Returns:
            `"status"` and `"values"`, the values by the name of the hyperparameter.

        Raises:
            ValueError: `trial_id` is not a number.

        Example:
            >>> import keras_tuner
            >>> from keras_rwinit import tuning
            >>> hp = keras_tuner.HyperParameters()
            >>> hp.Float("gain_ratio", 0.8, 1.25, sampling="log", default=1.0)
            1.0
            >>> oracle = tuning.LocalSearchOracle("val_loss", max_trials=20, hyperparameters=hp)
            >>> oracle.populate_space("0")
            {'status': 'RUNNING', 'values': {'gain_ratio': 1.0}}
        """
        number = int(trial_id)
        center = self._best_values() if number else self._default_values()
        generator = np.random.default_rng([self.seed, number])
        for attempt in range(_ATTEMPTS):
            values = self._step_from(center, generator) if number or attempt else center
            if attempt > _ATTEMPTS // 2:  # hardly a point near the center is untried: go further away
                values = self._step_from(self._step_from(values, generator), generator)
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def _best_values(self) -> Values:
        completed = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        if not completed:
            return self._default_values()
        sign = -1.0 if self.objective.direction == "max" else 1.0
        best = min(completed, key=lambda trial: (sign * trial.score, trial.trial_id))
        return dict(best.hyperparameters.values)

    def _default_values(self) -> Values:
        hps = HyperParameters()
        for hp in self.hyperparameters.space:
            # In order: values before this hyperparameter decide whether it is active.
            hps.merge([hp])
            if hps.is_active(hp):
                hps.values[hp.name] = hp.default
        return dict(hps.values)

    def _step_from(self, center: Values, generator: np.random.Generator) -> Values:
        length = math.exp(generator.uniform(math.log(_SHORTEST), math.log(_LONGEST)))
        hps = HyperParameters()
        for hp in self.hyperparameters.space:
            hps.merge([hp])
            if hps.is_active(hp):
                hps.values[hp.name] = _step(hp, center.get(hp.name, hp.default), length, generator)
        return dict(hps.values)

    # Trials

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial.

        If all trials are taken it is an `IDLE` one: a trial comes back if its worker is lost.
        """
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Records the metrics of a trial that has not ended; its file gets them when it ends."""
        if trial_id in self.end_order:
            return self.trials[trial_id]
        return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Ends a trial; one that another worker has ended already stays as it is."""
        recorded = self.trials[trial.trial_id]
        if trial.trial_id in self.end_order:
            self._remove_ongoing(trial.trial_id)
            return
        if trial.trial_id in self._retry_queue:  # its worker was taken for lost, but was only slow
            self._retry_queue.remove(trial.trial_id)
        if trial.metrics.metrics:  # those of `SearchTuner` come with the status
            recorded.metrics = trial.metrics
        trial.hyperparameters.values |= recorded.hyperparameters.values
        super().end_trial(trial)
        self._remove_ongoing(trial.trial_id)

    @keras_tuner.synchronized
    def release(self, tuner_id: str) -> None:
        """Takes the trial of a lost worker back, for the next worker that asks."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None and trial.trial_id not in self.end_order:
            self._queue_again(trial)

    def _queue_again(self, trial: Trial) -> None:
        trial.status, trial.score, trial.metrics = TrialStatus.RUNNING, None, type(trial.metrics)()
        if trial.trial_id not in self._retry_queue:
            self._retry_queue.append(trial.trial_id)

    def _remove_ongoing(self, trial_id: str) -> None:
        for tuner_id in [key for key, trial in self.ongoing_trials.items() if trial.trial_id == trial_id]:
            self.ongoing_trials.pop(tuner_id)

    # Files

    def save(self) -> None:
        """Does nothing: a trial's file is written when the trial changes, and the rest follows from those."""

    @property
    def _project_dir(self) -> str:
        """Directory of the trials. keras-tuner's property makes a deleted one again, without its trials."""
        return str(Path(self._directory) / self._project_name)

    def _set_project_dir(self, directory: str, project_name: str) -> None:
        super()._set_project_dir(directory, project_name)
        Path(self._project_dir).mkdir(parents=True, exist_ok=True)

    def _trial_file(self, trial_id: str) -> Path:
        return Path(self._project_dir) / f"trial_{trial_id}" / "trial.json"

    def _save_trial(self, trial: Trial) -> None:
        state = trial.get_state()
        # keras-tuner changes and saves a trial step by step; its end is one write, with the score.
        if trial.trial_id not in self.end_order:
            state |= {"status": TrialStatus.RUNNING, "score": None, "metrics": {"metrics": {}}}
        path = self._trial_file(trial.trial_id)
        path.parent.mkdir(exist_ok=True)
        write_json(path, state)

    def reload(self) -> None:
        """Loads the trials in the project's directory.

        Raises:
            FatalValueError: (a ValueError) A trial's file is damaged, or a trial before the last is missing.
        """
        project = Path(self._project_dir)
        for path in sorted(project.glob("trial_*/trial.json")):
            delete_partial_files(path.parent)
            self._add_ended_or_queued(_load_trial(path))
        _check_none_missing(sorted(int(trial_id) for trial_id in self.trials), project)
        for trial in reversed(self.trials.values()):  # the queue is emptied from its end
            if trial.trial_id not in self.end_order:
                self._queue_again(trial)

    def _add_ended_or_queued(self, trial: Trial) -> None:
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self.update_space(trial.hyperparameters)
        self._record_values(trial)
        if has_ended(trial.status, trial.score):
            self.end_order.append(trial.trial_id)
            self._run_times[trial.trial_id] = 1


def has_ended(status: str, score: object) -> bool:
    """Returns whether a trial has ended: a status is trusted with a finite score, or that of a failure.

    Files of earlier versions may say that a trial is completed without its score.
    """
    if status == TrialStatus.COMPLETED:
        return isinstance(score, float | int) and math.isfinite(score)
    return status in ENDED


def check_trials_exist(oracle: LocalSearchOracle) -> None:
    """Raises FileNotFoundError if the file of one of the oracle's trials has been deleted."""
    for trial_id in list(oracle.start_order):
        path = oracle._trial_file(trial_id)
        if not path.exists():
            raise FileNotFoundError(f"{path} was deleted while the search ran.")


def _load_trial(path: Path) -> Trial:
    try:
        trial = Trial.from_state(read_json(path))
        if path.parent.name != f"trial_{trial.trial_id}":
            raise ValueError(trial.trial_id)
        dict(trial.hyperparameters.values)  # what a search reads of it
        return trial
    except DAMAGE as error:
        raise FatalValueError(
            f"The trial in {path} is damaged. Restore the file, or begin a new search in another directory."
        ) from error


def _check_none_missing(numbers: list[int], project: Path) -> None:
    """Raises FatalValueError if a number is missing: keras-tuner would give it to the next trial."""
    missing = sorted(set(range(len(numbers))) - set(numbers))
    if missing:
        raise FatalValueError(
            f"Trial {missing[0]} in {project} is missing, though later ones exist. Restore its directory, "
            "or begin a new search in another directory."
        )


def _step(
    hp: HyperParameter, value: HyperparameterValue, length: float, generator: np.random.Generator
) -> HyperparameterValue:
    """Returns a value of `hp` about `length` of its range away from `value`, reflected at the ends."""
    # All three are drawn for every kind, so that a hyperparameter's kind does not change the draws of others.
    draw, normal, anywhere = generator.random(), generator.normal(), generator.random()
    if isinstance(hp, Fixed):
        return hp.value
    if not getattr(hp, "ordered", True) or isinstance(hp, Boolean):
        return hp.prob_to_value(anywhere) if draw < length else value
    # A normal step on [0, 1), reflected at both ends.
    place = abs(hp.value_to_prob(value) + length * normal) % 2.0
    place = min(2.0 - place if place > 1.0 else place, 1.0 - 1e-9)  # at 1, keras-tuner's integers overflow
    stepped = hp.prob_to_value(place)
    if hasattr(hp, "min_value"):
        return min(max(stepped, hp.min_value), hp.max_value)
    return stepped
