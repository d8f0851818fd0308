"""Training and scoring of the networks at a point of the space."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass

import keras_tuner
import numpy as np

from ._data import TrainingSet
from ._losses import metric_name
from .hypermodel import DeepMLPHyperModel, DivergedTrialError
from .settings import SearchSettings, run_seed

__all__ = ["NetworkTrainer"]


@dataclass(frozen=True, eq=False)
class NetworkTrainer:
    """Trains the networks of a search.

    Args:
        hypermodel: Space of the search; builds the networks.
        settings: Settings of the search.
        data: Training examples.
    """

    hypermodel: DeepMLPHyperModel
    settings: SearchSettings
    data: TrainingSet

    def train(self, hp: keras_tuner.HyperParameters, seed: int) -> float:
        """Trains a new network and returns the objective after the last epoch.

        The weights and the order of the examples follow from `seed`.

        Raises:
            UntrainableTrialError: (a FailedTrialError) Theory rules the network out; nothing was trained.
            DivergedTrialError: (a FailedTrialError) The loss or the score is not finite.
        """
        settings, data = self.settings, self.data
        # Frees the network before, whose layers refer to each other. Not `keras.utils.clear_session`, which
        # also resets the caller's Keras: policy, traceback filtering, logging and custom object scopes.
        gc.collect()
        model = self.hypermodel.build(hp, seed=seed)
        metric = metric_name(settings.objective)
        if metric not in ("loss", "accuracy"):
            # As keras-tuner's own tuners do with their `metrics`.
            model.compile(model.optimizer, model.loss, metrics=[metric])
        for epoch in range(settings.epochs):
            # A function of seed and epoch alone: a repeated trial gives the same score.
            order = np.random.default_rng([seed, epoch]).permutation(len(data.x))
            # Only the score after the last epoch counts.
            validate = epoch + 1 == settings.epochs and settings.objective.startswith("val_")
            history = self.hypermodel.fit(
                hp,
                model,
                data.x[order],
                data.y[order],
                batch_size=settings.batch_size,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                validation_data=(data.x_validation, data.y_validation) if validate else None,
                validation_batch_size=settings.batch_size,
            ).history
        score = float(history[settings.objective][-1])
        if not math.isfinite(score):
            raise DivergedTrialError(f"diverged: {settings.objective} is {score}")
        return score

    def score(self, hp: keras_tuner.HyperParameters) -> float:
        """Returns the mean objective of a trial's executions."""
        settings = self.settings
        seeds = [run_seed(settings.seed, index) for index in range(settings.executions_per_trial)]
        return float(np.mean([self.train(hp, seed) for seed in seeds]))
