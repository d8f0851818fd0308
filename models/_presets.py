"""Networks that are known to train, with the recipe that trains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keras_rwinit._memory import count_parameters

__all__ = ["Preset", "Recipe", "presets"]


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained.

    Args:
        dataset: Name for `keras_rwinit.data.load`.
        optimizer: Keras optimizer id.
        learning_rate: Of the optimizer; at the start, if it decays.
        batch_size: Examples a step.
        epochs: Passes over the training set.
        cosine_decay: Whether the learning rate falls to zero along half a cosine.
    """

    dataset: str
    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    cosine_decay: bool = False


@dataclass(frozen=True)
class Preset:
    """A network and its recipe.

    Args:
        description: What it is, and what the recipe reached.
        parameters: Weights and biases of the network.
        config: Arguments of `deep_mlp`.
        recipe: How to train it.
    """

    description: str
    parameters: int
    config: Mapping[str, Any]
    recipe: Recipe


def _digits(description: str, recipe: Recipe, depth: int, width: int, **config: Any) -> Preset:
    return Preset(
        description,
        count_parameters(depth, width, inputs=64, classes=10),
        MappingProxyType({"depth": depth, "width": width, "input_shape": (64,), **config}),
        recipe,
    )


presets: Mapping[str, Preset] = MappingProxyType(
    {
        "digits_tanh_1000": _digits(
            "1000 hidden tanh layers of width 64, orthogonal kernels, on 8x8 digits.",
            Recipe("digits", "adam", 3e-5, batch_size=32, epochs=12, cosine_decay=True),
            depth=1000,
            width=64,
            activation="tanh",
            distribution="orthogonal",
        ),
        "digits_tanh_100": _digits(
            "100 hidden tanh layers of width 64, orthogonal kernels, on 8x8 digits: 95 to 97 % in seconds.",
            Recipe("digits", "adam", 3e-4, batch_size=32, epochs=8, cosine_decay=True),
            depth=100,
            width=64,
            activation="tanh",
            distribution="orthogonal",
        ),
        "digits_relu_30": _digits(
            "30 hidden ReLU layers of width 200, normal kernels (the paper's), on 8x8 digits: 93 to 95 %.",
            Recipe("digits", "adam", 3e-4, batch_size=32, epochs=15, cosine_decay=True),
            depth=30,
            width=200,
            activation="relu",
            distribution="normal",
        ),
    }
)
