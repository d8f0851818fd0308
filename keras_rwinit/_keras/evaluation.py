"""Evaluates an activation that is no name of the table, with its slopes, and says what each unit computes."""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from keras_rwinit.theory import Activation
from keras_rwinit.theory.activations import (
    ActivationError,
    NotElementwiseError,
    activation_from_callable,
    average_activation,
)

from .autodiff import double_precision
from .types import Tensor

__all__ = ["built_layer", "choose_units", "evaluate_activation"]

Array: TypeAlias = NDArray[np.float64]
TensorFunction: TypeAlias = Callable[[Tensor], Tensor]
R = TypeVar("R")

_FEW_UNITS = 5
"""Units of an activation whose layer is not known."""

_SMOOTH_UNITS = 16
"""Number of units with different activations that are followed, unless each has two slopes."""

_TWO_SLOPE_UNITS = 1024

# Where units that differ are tabulated: 64 points to a factor of two, and the powers of two themselves.
_MAGNITUDES = 2.0 ** (np.arange(-20 * 64, 20 * 64 + 1) / 64.0)
_TABLE = np.concatenate([-_MAGNITUDES[::-1], [0.0], _MAGNITUDES])
_CHUNK = 2**22  # numbers to a tensor


class _Evaluator(NamedTuple):
    """A way to evaluate an activation.

    Args:
        values: Returns `f(a)` of an array.
        slopes: Returns `f'(a)`; None if only central differences give it.
    """

    values: Callable[[Array], Array]
    slopes: Callable[[Array], Array] | None


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
    evaluator = _find_evaluator(name, function, points, axes)
    if _look_at_units(name, evaluator, points, axes):
        return activation_from_callable(
            name,
            partial(_evaluate_any_shape, evaluator.values, axes),
            evaluator.slopes and partial(_evaluate_any_shape, evaluator.slopes, axes),
        )
    return _tabulate(name, evaluator, axes)


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
        return _outside_traces(partial(_build_copy, layer, (1, units or _FEW_UNITS)))
    except Exception as error:
        raise ActivationError(
            f"The activation layer {layer.name!r} is not built, and a copy of it cannot be: "
            f"{_first_line(error)}. Build the layer, or give it a `get_config`."
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
    """Returns the layer's values without what `__call__` records and casts; no variable changes."""
    arguments = {"training": False} if getattr(layer, "_call_has_training_arg", False) else {}
    with keras.StatelessScope():
        return layer.call(x, **arguments)


# Evaluation in the back end's tensors


def _outside_traces(call: Callable[[], R]) -> R:
    """Calls a function outside the graph or trace that the caller may be in, so that tensors have values."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.ensure_compile_time_eval():
            return call()
    if backend == "torch":
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            return call()
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            # `tf.init_scope` would do, but takes no gradients. A new thread begins without a graph.
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(call).result()
    return call()


def _evaluate_tensors(function: TensorFunction, dtype: str, a: Array) -> tuple[Array, Array]:
    """Returns values and slopes; the slopes are the gradient of the sum of an element-wise function."""

    def evaluate() -> tuple[Array, Array]:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            value, slopes = _DIFFERENTIATE[keras.backend.backend()](
                function, keras.ops.convert_to_tensor(a, dtype)
            )
            if not keras.ops.is_tensor(value):
                raise TypeError(f"it returned {type(value).__name__} for a tensor")
            value = _to_numpy(value)
            return value, np.zeros(value.shape) if slopes is None else _to_numpy(slopes)

    return _outside_traces(evaluate)


def _to_numpy(tensor: Tensor) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def _differentiate_tensorflow(function: TensorFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x) if tf.is_tensor(y) else None


def _differentiate_jax(function: TensorFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    import jax

    y, pull_back = jax.vjp(function, x)
    return y, pull_back(jax.numpy.ones_like(y))[0]


def _differentiate_torch(function: TensorFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    x = x.detach().clone().requires_grad_()
    y = function(x)
    if not torch.is_tensor(y) or not y.requires_grad:
        return y, None
    return y.detach(), torch.autograd.grad(y.sum(), x, allow_unused=True)[0]


_DIFFERENTIATE = {
    "tensorflow": _differentiate_tensorflow,
    "jax": _differentiate_jax,
    "torch": _differentiate_torch,
}


def _evaluate_arrays(function: Callable[[Array], Array], a: Array) -> Array:
    def evaluate() -> Array:
        with double_precision():
            value = function(a)
            return np.asarray(value if isinstance(value, np.ndarray) else _to_numpy(value), np.float64)

    return _outside_traces(evaluate)


def _find_evaluator(name: str, function: TensorFunction, points: Array, axes: Sequence[int]) -> _Evaluator:
    """Returns the first way to evaluate the activation that succeeds."""
    a = np.broadcast_to(points.reshape(-1, *[1] * len(axes)), (len(points), *axes)).copy()
    cause: Exception | None = None
    if keras.backend.backend() in _DIFFERENTIATE:
        for dtype in ("float64", "float32"):
            evaluate = partial(_evaluate_tensors, function, dtype)
            try:
                if _is_written_for_tensors(function, dtype, a, evaluate):
                    return _Evaluator(partial(_first, evaluate), partial(_second, evaluate))
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
            f"arrays: {_first_line(cause)}. Its gain is not known; pass `gain=`, or an activation that takes "
            f"an array of shape {a.shape}."
        ) from cause
    return _Evaluator(partial(_evaluate_arrays, function), None)


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
        tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(a.shape, dtype))
    except Exception:
        return False
    return True


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": ")


# What the units compute


def _look_at_units(name: str, evaluator: _Evaluator, points: Array, axes: Sequence[int]) -> bool:
    """Returns whether all units compute the same.

    Raises:
        NotElementwiseError: An element's value depends on other elements, or on the call.
    """
    count, rows = int(np.prod(axes)), len(points)
    row, unit = np.arange(rows)[:, None], np.arange(count)
    at = (row + unit) % rows
    values = _evaluate_units(name, evaluator, points[at], axes)
    aligned = np.empty_like(values)  # a row for each point
    np.put_along_axis(aligned, at, values, axis=0)
    # Other neighbors, and half of the rows
    elsewhere = ((row + 3 * unit + 1) % rows)[: rows // 2]
    again = _evaluate_units(name, evaluator, points[elsewhere], axes)
    scale = 1e-6 * float(np.nan_to_num(np.abs(values), posinf=0.0).max(initial=0.0)) + 1e-30
    if not np.allclose(np.take_along_axis(aligned, elsewhere, axis=0), again, 1e-5, scale, equal_nan=True):
        raise NotElementwiseError(
            "`activation` must act element by element: its value at an element depends on other elements, or "
            f"changes from call to call, so that it has no gain. Received: {name!r}"
        )
    return np.allclose(aligned, aligned[:, :1], 1e-6, scale, equal_nan=True)


def _evaluate_units(name: str, evaluator: _Evaluator, a: Array, axes: Sequence[int]) -> Array:
    """Returns the values at an array with a column for each unit."""
    shape = (len(a), *axes)
    with np.errstate(all="ignore"):
        values = evaluator.values(a.reshape(shape))
    if values.shape != shape:
        raise NotElementwiseError(
            f"`activation` must act element by element: it returned an array of shape {values.shape} for one "
            f"of shape {shape}. Received: {name!r}"
        )
    return values.reshape(a.shape)


def _evaluate_any_shape(evaluate: Callable[[Array], Array], axes: Sequence[int], a: Array) -> Array:
    """Evaluates a function of arrays of shape `(any, *axes)`, all of whose units are equal, at any array."""
    count = int(np.prod(axes))
    # Few lengths: JAX compiles for each.
    rows = 16 ** math.ceil(math.log(max(-(-a.size // count), 64) / 64, 16)) * 64
    flat = np.zeros(rows * count)
    flat[: a.size] = np.ravel(a)
    return evaluate(flat.reshape(-1, *axes)).ravel()[: a.size].reshape(a.shape)


def choose_units(values: Array, limit: int) -> NDArray[np.intp]:
    """Returns the indices of at most `limit` units, every so manyth in the order of a value of each."""
    order = np.argsort(values, kind="stable")
    if len(order) <= limit:
        return np.arange(len(order))
    return order[(2 * np.arange(limit) + 1) * len(order) // (2 * limit)]


def _tabulate(name: str, evaluator: _Evaluator, axes: Sequence[int]) -> Activation:
    """Returns the average of units that differ, each as a table of values and slopes."""
    count = int(np.prod(axes))
    step = max(_CHUNK // count, 1)
    half = _evaluate_units(name, evaluator, np.full((1, count), 0.5), axes)[0]
    chosen = choose_units(half, _TWO_SLOPE_UNITS)
    values, slopes = np.empty((2, len(_TABLE), len(chosen)))
    for start in range(0, len(_TABLE), step):
        points = _TABLE[start : start + step]
        a = np.repeat(points[:, None], count, axis=1).reshape(-1, *axes)
        with np.errstate(all="ignore"):
            values[start : start + step] = evaluator.values(a).reshape(-1, count)[:, chosen]
            slopes[start : start + step] = _slopes_of(evaluator, a).reshape(-1, count)[:, chosen]
    units = [_tabulated_unit(name, *columns) for columns in zip(values.T, slopes.T, strict=True)]
    if any(unit.slopes is None for unit in units):
        units = [units[index] for index in choose_units(half[chosen], _SMOOTH_UNITS)]
    return average_activation(name, units)


def _slopes_of(evaluator: _Evaluator, a: Array) -> Array:
    if evaluator.slopes is not None:
        return evaluator.slopes(a)
    return np.asarray(Activation("", evaluator.values).slope_at(a))


def _tabulated_unit(name: str, values: Array, slopes: Array) -> Activation:
    finite = np.isfinite(values) & np.isfinite(slopes)
    # Tables end where the values leave the floats, and are extended as straight lines.
    points, values, slopes = _TABLE[finite], values[finite], slopes[finite]
    if len(points) < 2:
        raise ActivationError(f"The activation {name!r} is not finite anywhere.")
    table = CubicHermiteSpline(points, values, slopes, extrapolate=False)
    # The slope of a table of float32 values would be a hundred times less precise than the slopes are.
    slope_table = PchipInterpolator(points, slopes, extrapolate=False)

    def function(a: Array) -> Array:
        inside = np.clip(a, points[0], points[-1])
        return np.asarray(table(inside) + (a - inside) * np.where(a < 0, slopes[0], slopes[-1]))

    def derivative(a: Array) -> Array:
        return np.asarray(slope_table(np.clip(a, points[0], points[-1])))

    return activation_from_callable(name, function, derivative)
