"""`presets`: networks that are known to train, each with its training recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit.data.datasets import DATASETS

from ._parameters import count_parameters

__all__ = ["Preset", "TrainingRecipe", "presets"]


@dataclass(frozen=True)
class TrainingRecipe:
    """Hyperparameters that train a preset's network.

    Args:
        dataset: Name of the data set for `keras_rwinit.data.load`.
        optimizer: Keras optimizer id.
        learning_rate: Learning rate of the optimizer, above 0; at the start, if it decays.
        batch_size: Examples per step, at least 1.
        epochs: Passes over the training set, at least 1.
        cosine_decay: Whether the learning rate falls to zero along half a cosine.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> recipe = model_zoo.TrainingRecipe("digits", "adam", 3e-4, batch_size=32, epochs=15)
        >>> recipe.cosine_decay
        False
        >>> model_zoo.presets["digits_tanh_100"].recipe.epochs
        8
    """

    dataset: str
    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    cosine_decay: bool = False

    def __post_init__(self) -> None:
        check_positive("learning_rate", self.learning_rate)
        check_count("batch_size", self.batch_size)
        check_count("epochs", self.epochs)


@dataclass(frozen=True)
class Preset:
    """A network of `deep_mlp` and the recipe that trains it.

    Args:
        description: The network in a sentence.
        parameters: Number of weights and biases.
        config: Arguments of `deep_mlp`, except `classes`, which the recipe's data set has.
        recipe: Hyperparameters of the training.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> preset = model_zoo.presets["digits_tanh_100"]
        >>> preset.parameters, preset.config["depth"], preset.recipe.dataset
        (416650, 100, 'digits')
    """

    description: str
    parameters: int
    config: Mapping[str, Any]
    recipe: TrainingRecipe


def _preset(description: str, recipe: TrainingRecipe, depth: int, width: int, **config: Any) -> Preset:
    dataset = DATASETS[recipe.dataset]
    return Preset(
        description,
        count_parameters(depth, width, dataset.features, dataset.classes),
        MappingProxyType({"depth": depth, "width": width, "input_shape": (dataset.features,), **config}),
        recipe,
    )


# Read-only, so that a preset is the same wherever it is used.
presets: Mapping[str, Preset] = MappingProxyType(
    {
        "digits_tanh_1000": _preset(
            "1000 hidden tanh layers of width 64, orthogonal kernels, on 8x8 digits.",
            TrainingRecipe("digits", "adam", 3e-5, batch_size=32, epochs=12, cosine_decay=True),
            depth=1000,
            width=64,
            activation="tanh",
            distribution="orthogonal",
        ),
        "digits_tanh_100": _preset(
            "100 hidden tanh layers of width 64, orthogonal kernels, on 8x8 digits, in seconds.",
            TrainingRecipe("digits", "adam", 3e-4, batch_size=32, epochs=8, cosine_decay=True),
            depth=100,
            width=64,
            activation="tanh",
            distribution="orthogonal",
            input_gain=0.1,
            output_gain=3.0,
        ),
        "digits_relu_30": _preset(
            "30 hidden ReLU layers of width 200, normal kernels (the paper's), on 8x8 digits.",
            TrainingRecipe("digits", "adam", 3e-4, batch_size=32, epochs=15, cosine_decay=True),
            depth=30,
            width=200,
            activation="relu",
            distribution="normal",
        ),
        "mnist_leaky_relu_1000": _preset(
            "1000 hidden leaky ReLU layers of width 100, slope 0.9, orthogonal kernels, on MNIST: 97 %.",
            TrainingRecipe("mnist", "adam", 2.5e-5, batch_size=128, epochs=20, cosine_decay=True),
            depth=1000,
            width=100,
            activation="leaky_relu(0.9)",
            distribution="orthogonal",
        ),
        "mnist_relu_200": _preset(
            "200 hidden ReLU layers of width 256, normal kernels (the paper's), on MNIST: 96 %.",
            TrainingRecipe("mnist", "adam", 1.5e-5, batch_size=128, epochs=20, cosine_decay=True),
            depth=200,
            width=256,
            activation="relu",
            distribution="normal",
            input_gain=0.01,
            output_gain=100.0,
            bias_stddev=0.1,
        ),
    }
)
