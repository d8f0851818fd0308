"""Evaluates an activation that is no name of the table, with its slopes, and says what each unit computes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import keras
import numpy as np

from keras_rwinit.theory import Activation
from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.own_activations import activation_from_callable

from .evaluators import find_evaluator, first_line
from .execution import call_outside_traces
from .types import Tensor
from .units import evaluate_any_shape, tabulate_units, units_are_equal

__all__ = ["built_layer", "evaluate_activation"]

TensorFunction: TypeAlias = Callable[[Tensor], Tensor]

_FEW_UNITS = 5
"""Units of an activation whose layer is not known."""


def evaluate_activation(
    name: str, activation: Callable[[Tensor], Tensor], units: int | None = None
) -> Activation:
    """Returns the theory's view of a callable or a layer, from its values and slopes as they are now.

    It is called with tensors of the back end, in float64 and then in float32, and last with NumPy arrays. The
    slopes of a function of tensors are those of the back end's differentiation. The layer is left as it was;
    a copy stands for a layer that is not built. Units that differ are averaged in the theory.

    Args:
        name: The name for messages.
        activation: A callable, or a layer.
        units: Number of units of the layer that it activates, where it matters and is known.

    Raises:
        ActivationError: (a ValueError) It cannot be evaluated.
        NotElementwiseError: (a ValueError) It mixes the elements of an array.
    """
    function: TensorFunction = activation
    axes: tuple[int, ...] = (units if units and units > 1 else _FEW_UNITS,)
    if isinstance(activation, keras.layers.Layer):
        layer = built_layer(activation, units)
        function, axes = partial(_call_layer, layer), _built_axes(layer) or axes
    count = int(np.prod(axes))
    points = np.linspace(-4.1, 4.3, int(np.clip(2**20 // count, 8, 64)))
    evaluator = find_evaluator(name, function, points, axes)
    if units_are_equal(name, evaluator, points, axes):
        return activation_from_callable(
            name,
            partial(evaluate_any_shape, evaluator.values, axes),
            evaluator.slopes and partial(evaluate_any_shape, evaluator.slopes, axes),
        )
    return tabulate_units(name, evaluator, axes)


def built_layer(layer: keras.layers.Layer, units: int | None = None) -> keras.layers.Layer:
    """Returns a layer that is built, or a built copy of one that is not.

    Args:
        layer: The layer, which stays as it is.
        units: Number of units to build a copy for.
    """
    if layer.built:
        return layer
    state = random.getstate()  # Keras draws seeds from it
    try:
        return call_outside_traces(partial(_build_copy, layer, (1, units or _FEW_UNITS)))
    except Exception as error:
        raise ActivationError(
            f"The activation layer {layer.name!r} is not built, and a copy of it cannot be: "
            f"{first_line(error)}. Build the layer, or give it a `get_config`."
        ) from error
    finally:
        random.setstate(state)


def _build_copy(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.layers.Layer:
    try:
        twin = type(layer).from_config(layer.get_config())
    except Exception:  # a layer of the user's without a config
        twin = copy.deepcopy(layer)
    if type(layer).build is keras.layers.Layer.build:
        twin(keras.ops.zeros(shape))  # which builds what its `call` applies
    else:
        twin.build(shape)
    return twin


def _built_axes(layer: keras.layers.Layer) -> tuple[int, ...] | None:
    """Returns the axes of one input of a built layer, of length 1 where any length will do."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if not shape or len(shape) < 2 or not layer.variables:
        return None
    return tuple(size or 1 for size in shape[1:])


def _call_layer(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    """Returns the layer's values without what `__call__` records and casts."""
    arguments = {"training": False} if getattr(layer, "_call_has_training_arg", False) else {}
    return layer.call(x, **arguments)
