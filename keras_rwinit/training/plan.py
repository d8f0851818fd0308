"""`TrainingPlan`: what a training run is going to do, known before anything is computed or written."""

from __future__ import annotations

from dataclasses import dataclass

from keras_rwinit._keras.names import (
    RANDOM_WALK,
    check_activation_name,
    check_initializer_name,
    check_optimizer_name,
)
from keras_rwinit._limits import check_fits
from keras_rwinit.data import Dataset
from keras_rwinit.models.model_zoo import count_parameters
from keras_rwinit.theory import WalkPrediction, predict_walk
from keras_rwinit.theory.distributions import resolve_distribution

from .settings import Settings

__all__ = ["TrainingPlan", "make_plan"]


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What a run is going to do.

    Args:
        settings: Settings of the run.
        training_examples: Number of training examples.
        test_examples: Number of test examples.
        steps: Steps per epoch.
        parameters: Weights and biases of each network.
        memory: Estimated memory of the training, in bytes.
        devices: Number of devices that compute.
        prediction: Predicted walk of the random-walk network. `None`: the run has no such network.
    """

    settings: Settings
    training_examples: int
    test_examples: int
    steps: int
    parameters: int
    memory: int
    devices: int
    prediction: WalkPrediction | None


def make_plan(settings: Settings, dataset: Dataset, devices: int) -> TrainingPlan:
    """Returns the plan of a run; ValueError if a name is misspelled or the memory is too small."""
    _check_names(settings)
    # Memory before the prediction, whose arrays have the depth's length.
    parameters = count_parameters(settings.depth, settings.width, dataset.features, dataset.classes)
    # Weights, gradients and Adam's two moments; activations and their gradients. 4 bytes each.
    memory = 4 * (4 * parameters + 2 * settings.batch_size * settings.depth * settings.width)
    check_fits(
        memory,
        f"Training {parameters:,} parameters (depth {settings.depth:,}, width {settings.width:,}, batch "
        f"{settings.batch_size:,})",
    )
    return TrainingPlan(
        settings=settings,
        training_examples=len(dataset.x_train),
        test_examples=len(dataset.x_test),
        steps=-(-len(dataset.x_train) // settings.batch_size),
        parameters=parameters,
        memory=memory,
        devices=devices,
        prediction=_predict(settings),
    )


def _check_names(settings: Settings) -> None:
    """Finds misspelled names now: some would be read only after the first network has been trained."""
    check_initializer_name(settings.initializer)
    if settings.compare:
        check_initializer_name(settings.compare, "compare")
    check_activation_name(settings.activation)
    resolve_distribution(settings.distribution)
    check_optimizer_name(settings.optimizer)


def _predict(settings: Settings) -> WalkPrediction | None:
    if RANDOM_WALK not in settings.networks:
        return None
    return predict_walk(
        settings.activation, settings.width, settings.depth, distribution=settings.distribution
    )
