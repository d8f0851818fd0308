"""Names that users give: of optimizers, initializers, losses and activations."""

from __future__ import annotations

import numbers
import random

import keras

from keras_rwinit._checks import did_you_mean

from .activations import concrete_activation, get_activation, theory_activation
from .types import Initializer

__all__ = [
    "RANDOM_WALK",
    "check_activation_name",
    "check_initializer_name",
    "check_loss_name",
    "check_optimizer_name",
    "get_initializer",
]

RANDOM_WALK = "random_walk"
"""Name of the package's own initializer."""


def check_optimizer_name(name: str, argument: str = "optimizer") -> str:
    """Returns the name of an optimizer; ValueError unless Keras has an optimizer of that name.

    Args:
        name: The name.
        argument: Name of the argument, for the message.
    """
    _check_string(name, argument, "adam")
    try:
        optimizer = keras.optimizers.get({"class_name": name, "config": {"learning_rate": 1e-3}})
        # Keras finds its abstract base class too.
        if type(optimizer).update_step is keras.optimizers.Optimizer.update_step:
            raise TypeError(name)
    except (KeyError, TypeError, ValueError) as error:  # LossScaleOptimizer lacks an optimizer to wrap
        raise ValueError(
            f"`{argument}` must be a Keras optimizer, such as adam, sgd, rmsprop or lion. Received: {name!r}"
            f"{did_you_mean(name, [other.lower() for other in dir(keras.optimizers)])}"
        ) from error
    return name


def check_initializer_name(name: str, argument: str = "initializer") -> str:
    """Returns the name of an initializer; ValueError unless it is one of Keras's or of this package's.

    Args:
        name: The name.
        argument: Name of the argument, for the message.
    """
    _check_string(name, argument, RANDOM_WALK)
    state = random.getstate()  # Keras draws the seeds of unseeded initializers from it
    try:
        initializer = keras.initializers.get(name)
        # A kernel is drawn, since the base class, an initializer of vectors or one of windows draw none.
        initializer((3, 2))
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        if name == RANDOM_WALK:  # registered by `keras_rwinit.initializers`, which may not be imported yet
            return name
        raise ValueError(
            f"`{argument}` must be {RANDOM_WALK} or a Keras initializer, such as he_normal, "
            f"glorot_uniform or orthogonal. Received: {name!r}"
            f"{_suggest_initializer(name)}"
        ) from error
    finally:
        random.setstate(state)
    return name


def get_initializer(initializer: Initializer | str, argument: str) -> Initializer:
    """Returns what `keras.initializers.get` does of an initializer, its name or its config.

    Args:
        initializer: The initializer.
        argument: Name of the argument, for the message.

    Raises:
        ValueError: There is no such initializer, or it is a number, which Keras takes for a tensor.
    """
    message = (
        f"`{argument}` must be a Keras initializer, its name or its config. Received: "
        f"{argument}={initializer!r}"
    )
    if isinstance(initializer, numbers.Number):
        raise ValueError(f"{message}; for equal weights take keras.initializers.Constant({initializer!r})")
    try:
        return keras.initializers.get(initializer)
    except ValueError as error:
        suggestion = _suggest_initializer(initializer) if isinstance(initializer, str) else f"; {error}"
        raise ValueError(message + suggestion) from error


def _suggest_initializer(name: str) -> str:
    return did_you_mean(name, [RANDOM_WALK, *filter(str.islower, dir(keras.initializers))])


def check_loss_name(name: str) -> str:
    """Returns the name of a loss; ValueError unless Keras has a loss of that name."""
    try:
        keras.losses.get(name)
    except ValueError as error:
        names = [other for other in dir(keras.losses) if other.islower()]
        raise ValueError(
            f"`loss` must be a Keras loss or its name. Received: loss={name!r}{did_you_mean(name, names)}"
        ) from error
    return name


def check_activation_name(name: str, argument: str = "activation", *, depth: int | None = None) -> str:
    """Returns the name of an activation; ValueError unless `keras_rwinit.gain` and Keras's layers take it.

    Args:
        name: The name, as in `"tanh"`, `"erf"` or `"leaky_relu(0.1)"`.
        argument: Name of the argument, for the message.
        depth: Number of hidden layers, which `"shaped(gelu)"` needs.
    """
    _check_string(name, argument, "tanh")
    concrete = concrete_activation(name, depth)
    theory_activation(concrete)
    get_activation(concrete)
    return name


def _check_string(name: str, argument: str, example: str) -> None:
    if not isinstance(name, str):
        raise ValueError(f"`{argument}` must be a name, as in {example!r}. Received: {name!r}")
