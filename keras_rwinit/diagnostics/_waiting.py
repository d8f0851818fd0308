"""Finds out whether layers without a gradient are dead, or wait for weights that start at zero or near it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.arrays import map_arrays, to_tensor, value_of
from keras_rwinit._keras.autodiff import TapKey, gradients_at_taps
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._probing.measure import ModelMeasurement
from keras_rwinit._probing.measurements import LayerMeasurement
from keras_rwinit._probing.norms import mean_log_norm, to_numpy
from keras_rwinit._probing.objective import Objective
from keras_rwinit._tracing.calls import call_model

__all__ = ["FirstGradients", "find_first_gradients"]

Array = NDArray[np.float64]
Values = dict[int, Tensor]  # of the variables that have left zero, by their number among the trainable ones

_STEP = 1e-3  # the length of Adam's first step, for each weight, at Keras's default learning rate
_TINY = _STEP / 4.0  # the first step makes a smaller weight at least three times as large
_TRIPLED = 0.9 * np.log(3.0)  # of a mean log-norm, with some room for what else the step changes
_FIRST_ENTRIES = 1000
_MOST_STEPS = 16  # each costs a measurement


@dataclass(frozen=True, eq=False)
class FirstGradients:
    """What is measured at each layer when a gradient first reaches it.

    Args:
        waits: Number of steps after which a gradient reaches the layer, or triples there: 0 where
            one does at once, inf where none ever does, 17 where it may do after more than the 16 that are
            tried. Shape (layers,).
        backward: `ln|delta|` after that number of steps, shape (examples, layers).
        dead: Share of the units that are dead or saturated then, shape (layers,).
    """

    waits: Array
    backward: Array
    dead: Array


def find_first_gradients(
    model: keras.Model,
    inputs: ArrayTree,
    objective: Objective,
    training: bool,
    measured: Sequence[LayerMeasurement],
    measure: Callable[[], ModelMeasurement],
) -> FirstGradients:
    """Measures a model with weights that have left zero, for as long as that reaches more layers.

    A gradient of zero stays zero in training unless a weight that is zero and has a gradient of its own
    blocks it: an output layer of zeros, the scale of a normalization at a residual branch's end, the factor
    of a ReZero block. Such weights leave zero with the first step of training, others behind them with the
    second. They alone take each step here, against the sign of their gradient as with Adam, so that a layer
    that the gradient reaches at once is measured as it is. All layers behind one weight get the same factor
    from it; only their differences mean something.

    The same holds for weights that are not zero but all so small that a step swamps them, such as the factors
    of 1e-6 that LayerScale begins with. They take the first step.

    Args:
        model: The model, which does not change.
        inputs: Arrays in the structure of its inputs.
        objective: What is differentiated.
        training: Whether the model runs as in training.
        measured: The measurements with the weights as they are.
        measure: Measures the same layers again, with the weights as they are in the present Keras scope.
    """
    backward = np.stack([one.backward for one in measured], axis=1)
    dead = np.array([one.dead for one in measured])
    waits = np.where(_has_gradient(backward), 0.0, np.inf)
    at_first = mean_log_norm(backward)
    values: Values = {}
    steps = 0
    reached = waits == 0.0
    while np.isinf(waits).any() or (steps == 0 and _has_tiny_weights(model)):
        if steps == _MOST_STEPS:
            # Layers behind each other that start at zero are reached one a step.
            waits[np.isinf(waits) & reached.any()] = steps + 1
            break
        moved = _leave_zero(model, inputs, objective, training, values)
        if not moved:
            break
        values.update(moved)
        steps += 1
        with _scope(model, values):
            measured = measure().layers
        after = np.stack([one.backward for one in measured], axis=1)
        reached = np.isinf(waits) & _has_gradient(after)
        if steps == 1:
            with np.errstate(invalid="ignore"):  # inf - inf
                reached |= (waits == 0.0) & (mean_log_norm(after) - at_first > _TRIPLED)
        waits[reached], backward[:, reached] = steps, after[:, reached]
        dead[reached] = np.array([one.dead for one in measured])[reached]
    return FirstGradients(waits, backward, dead)


def _has_tiny_weights(model: keras.Model) -> bool:
    floats = (one for one in model.trainable_variables if keras.backend.is_float_dtype(one.dtype))
    return any(_is_tiny(to_numpy(value_of(variable))) for variable in floats)


def _is_tiny(values: NDArray[np.floating]) -> bool:
    """Returns whether all entries are so small that a step swamps them, and not all are zero."""
    # Most variables have a large entry among the first.
    if np.abs(values.ravel()[:_FIRST_ENTRIES]).max(initial=0.0) > _TINY:
        return False
    largest = np.abs(values).max(initial=0.0)
    return bool(0.0 < largest <= _TINY)


def _has_gradient(backward: Array) -> NDArray[np.bool_]:
    """Returns at which layers some example has a gradient that is not zero; inf and nan count as such."""
    return np.asarray((backward != -np.inf).any(axis=0))


def _scope(model: keras.Model, values: Mapping[int, Tensor]) -> keras.StatelessScope:
    """Returns a scope in which the trainable variables have other values, and none is assigned to."""
    # A regularizer sees no variable but those in the scope.
    scope = keras.StatelessScope([(variable, to_tensor(variable.value)) for variable in model.variables])
    for number, value in values.items():
        scope.add_update((model.trainable_variables[number], value))
    return scope


def _leave_zero(
    model: keras.Model, inputs: ArrayTree, objective: Objective, training: bool, values: Values
) -> Values:
    """Returns the variables with entries that leave zero, those with a gradient one step on.

    These entries are the zeros, and in the first step all of a variable whose entries are all tiny.
    """
    variables = model.trainable_variables
    present = {
        number: values.get(number, to_tensor(variable.value))
        for number, variable in enumerate(variables)
        if keras.backend.is_float_dtype(variable.dtype)
    }
    arrays = {number: to_numpy(value) for number, value in present.items()}
    leaving = {
        number: np.full(array.shape, True) if not values and _is_tiny(array) else array == 0.0
        for number, array in arrays.items()
    }
    candidates = [number for number, entries in leaving.items() if entries.any()]
    is_double = any(array.dtype == np.float64 for array in arrays.values())
    dtype = "float64" if is_double else "float32"

    def run(tensors: Sequence[Tensor], tap: Callable[[Tensor, TapKey], Tensor], concrete: bool) -> Tensor:
        del tap, concrete  # arguments alone are differentiated
        examples = map_arrays(lambda array: to_tensor(array, dtype), inputs)
        with _scope(model, {**values, **dict(zip(candidates, tensors, strict=True))}):
            return objective(call_model(model, examples, training=training))

    gradients, _ = gradients_at_taps(run, [present[number] for number in candidates])
    moved: Values = {}
    for number, gradient in zip(candidates, gradients, strict=True):
        step = np.where(leaving[number], -_STEP * np.sign(to_numpy(gradient)), 0.0)
        if step.any():
            value = keras.ops.convert_to_tensor((arrays[number] + step).astype(arrays[number].dtype))
            moved[number] = keras.ops.cast(value, variables[number].dtype)
    return moved
