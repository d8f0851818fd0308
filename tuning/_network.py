"""The network at a point of a space: its kernels, as a seed draws them, and how it is compiled."""

from __future__ import annotations

import math
from typing import Protocol

import keras

from keras_rwinit._checks import check_fits_dtype
from keras_rwinit._keras.activations import concrete_activation, theory_activation
from keras_rwinit.models import model_zoo
from keras_rwinit.models.kernel_defaults import kernel_defaults
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.training.loop import compile_classifier

from ._forecast import TrialForecast, UntrainableTrialError
from ._point import Point

__all__ = ["compile_network", "draw_network"]


class Space(Protocol):
    """What a network has from its space: `DeepMLPHyperModel`."""

    input_shape: tuple[int, ...]
    classes: int
    loss: str | None
    dtype: str | None
    seed: int | None

    def forecast(self, point: Point) -> TrialForecast:
        """Returns what theory predicts at a point."""


def draw_network(space: Space, point: Point, seed: int | None) -> keras.Model:
    """Returns the network at a point, with new kernels.

    Args:
        space: The space that the point belongs to.
        point: The network.
        seed: Random seed of the kernels. `None`: that of the space.

    Raises:
        UntrainableTrialError: (a FailedTrialError and ValueError) Theory rules the point out. Nothing is
            built.
    """
    forecast = space.forecast(point)
    if forecast.reason is not None:
        raise UntrainableTrialError(forecast.reason)
    activation = theory_activation(concrete_activation(point.activation, point.depth))
    defaults = kernel_defaults(activation, point.width, point.distribution)
    input_gain, output_gain = defaults.input_gain, defaults.output_gain
    if input_gain is None:
        input_gain = forecast.gain
    if output_gain is None:
        output_gain = computed_gain("linear", point.width, None, distribution=defaults.distribution)
    input_gain, output_gain = input_gain * point.input_gain_ratio, output_gain * point.output_gain_ratio
    # Under the names that a user knows here
    weights = str(keras.dtype_policies.get(space.dtype).variable_dtype)
    for name, ratio, gain, fan_in in (
        ("input_gain_ratio", point.input_gain_ratio, input_gain, math.prod(space.input_shape)),
        ("output_gain_ratio", point.output_gain_ratio, output_gain, point.width),
    ):
        check_fits_dtype(name, ratio, weights, number=gain / math.sqrt(fan_in))
    return model_zoo.deep_mlp(
        point.depth,
        point.width,
        point.activation,
        input_shape=space.input_shape,
        classes=space.classes,
        distribution=defaults.distribution,
        gain=forecast.gain,
        input_gain=input_gain,
        output_gain=output_gain,
        seed=space.seed if seed is None else seed,
        dtype=space.dtype,
    )


def compile_network(space: Space, point: Point, network: keras.Model) -> keras.Model:
    """Compiles the network at a point, with Keras's own options, and returns it."""
    compile_classifier(network, point.optimizer, point.learning_rate)
    if space.loss is not None:
        network.compile(network.optimizer, space.loss)
    return network
