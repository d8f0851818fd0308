"""Training and scoring of the networks at a point of the space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import keras
import keras_tuner
import numpy as np

from ._compiled_models import CompiledModels
from ._data import TrainingSet
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
        with self.models.lend(hp, seed) as model:
            return self._fit(hp, model, seed)

    @cached_property
    def models(self) -> CompiledModels:
        """The compiled models of the trials so far."""
        steps = -(-len(self.data.x) // self.settings.batch_size)
        return CompiledModels(self.hypermodel, self.settings, steps)

    def _fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, seed: int) -> float:
        settings, data = self.settings, self.data
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
