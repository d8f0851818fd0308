"""Finds a way to evaluate an activation of any kind, with its slopes: in tensors, or in NumPy arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.own_functions import suggest_instead

from .autodiff import can_differentiate, value_and_slopes
from .execution import call_outside_traces, double_precision
from .types import Tensor

__all__ = ["Evaluator", "find_evaluator", "first_line"]

Array: TypeAlias = NDArray[np.float64]
TensorFunction: TypeAlias = Callable[[Tensor], Tensor]


class Evaluator(NamedTuple):
    """A way to evaluate an activation.

    Args:
        values: Returns `f(a)` of an array.
        slopes: Returns `f'(a)`; None if only central differences give it.
    """

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array] | None


def _evaluate_tensors(function: TensorFunction, dtype: str, a: Array) -> tuple[Array, Array]:
    """Returns values and slopes; the slopes are the gradient of the sum of an element-wise function."""

    def evaluate() -> tuple[Array, Array]:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            value, slopes = value_and_slopes(
                partial(_call_without_assignments, function), keras.ops.convert_to_tensor(a, dtype)
            )
            if not keras.ops.is_tensor(value):
                raise TypeError(f"it returned {type(value).__name__} for a tensor")
            value = _to_numpy(value)
            return value, np.zeros(value.shape) if slopes is None else _to_numpy(slopes)

    return call_outside_traces(evaluate)


def _call_without_assignments(function: Callable[[Any], Any], a: object) -> Any:
    """Calls a function that may change variables of its own, such as the state of random numbers."""
    # Leaving a scope initializes the variables that wait for it, perhaps the one that is being drawn.
    with keras.StatelessScope(initialize_variables=False):
        return function(a)


def _to_numpy(tensor: Tensor) -> Array:
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    if array.dtype.kind in "cOSUM":  # NumPy makes NaN of None, and the real part of a complex number
        raise TypeError(f"it returned {array.dtype if array.dtype.kind == 'c' else type(tensor).__name__}")
    return array.astype(np.float64)


def _evaluate_arrays(function: Callable[[Array], Array], a: Array) -> Array:
    def evaluate() -> Array:
        with double_precision():
            return _to_numpy(_call_without_assignments(function, a))

    return call_outside_traces(evaluate)


def find_evaluator(name: str, function: TensorFunction, points: Array, axes: Sequence[int]) -> Evaluator:
    """Returns the first way to evaluate the activation that succeeds."""
    a = np.broadcast_to(points.reshape(-1, *[1] * len(axes)), (len(points), *axes)).copy()
    cause: Exception | None = None
    if can_differentiate():
        for dtype in ("float64", "float32"):
            evaluate = partial(_evaluate_tensors, function, dtype)
            try:
                if _is_written_for_tensors(function, dtype, a, evaluate):
                    return Evaluator(partial(_first, evaluate), partial(_second, evaluate))
                break
            except Exception as error:  # a function of the user's may raise anything
                cause = error
    try:
        with np.errstate(all="ignore"):
            _evaluate_arrays(function, a)
    except Exception as error:
        cause = cause or error
        raise ActivationError(
            f"The activation {name!r} cannot be evaluated, on tensors of float64 or float32 or on NumPy "
            f"arrays: {first_line(cause)}. "
            + (suggest_instead(name, function, "keras.ops") or f"It must take an array of shape {a.shape}.")
            + " To draw kernels all the same, pass their `gain`."
        ) from cause
    return Evaluator(partial(_evaluate_arrays, function), None)


def _first(evaluate: Callable[[Array], tuple[Array, Array]], a: Array) -> Array:
    return evaluate(a)[0]


def _second(evaluate: Callable[[Array], tuple[Array, Array]], a: Array) -> Array:
    return evaluate(a)[1]


def _is_written_for_tensors(
    function: TensorFunction, dtype: str, a: Array, evaluate: Callable[[Array], tuple[Array, Array]]
) -> bool:
    """Returns whether the back end differentiates all of a function.

    TensorFlow's eager tensors turn into arrays where a function calls NumPy, and their gradient ends there.
    """
    _, slopes = evaluate(a)
    if keras.backend.backend() != "tensorflow":
        return True
    step = 1e-3
    with np.errstate(all="ignore"):
        differences = (evaluate(a + step)[0] - evaluate(a - step)[0]) / (2.0 * step)
    if np.allclose(slopes, differences, rtol=1e-2, atol=1e-2, equal_nan=True):
        return True
    import tensorflow as tf

    # A graph has no arrays: what it takes has a gradient of its own, such as a straight-through estimator.
    try:
        stateless = partial(_call_without_assignments, function)
        tf.function(stateless, autograph=False).get_concrete_function(tf.TensorSpec(a.shape, dtype))
    except Exception:
        return False
    return True


def first_line(error: Exception) -> str:
    """Returns the kind of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": ")
