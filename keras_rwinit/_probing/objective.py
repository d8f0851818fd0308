"""Makes the scalar whose gradient is measured: a model's loss, or a random direction of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.types import ArrayTree, Tensor

from .examples import check_examples

__all__ = ["DIRECTION_SEED", "LossLike", "Objective", "make_objective", "random_direction"]

T = TypeVar("T")

Targets: TypeAlias = NDArray[np.integer | np.floating]

PerOutput: TypeAlias = T | Sequence[T | None] | Mapping[str, T | None] | None
"""A value for all outputs, or one for each of them in a list or by name."""

OutputLoss: TypeAlias = str | keras.losses.Loss | Callable[[Tensor, Tensor], Tensor] | None
"""Keras loss of one output, or its name; None for an output that no loss is computed of."""

LossLike: TypeAlias = OutputLoss | Sequence[OutputLoss] | Mapping[str, OutputLoss]
"""Loss of all outputs, or one for each of them in a list or by name, as `keras.Model.compile` takes it."""

Objective: TypeAlias = Callable[[ArrayTree], Tensor]
"""Scalar of a model's outputs, the sum over the examples of something of each of them."""

DIRECTION_SEED = 1412_6558
"""Seed of the direction that `random_direction` draws."""


def make_objective(model: keras.Model, y: ArrayTree, loss: LossLike, examples: int) -> Objective:
    """Returns a scalar of the outputs whose gradient at an example's signals is that of its own loss.

    Args:
        model: The model.
        y: Targets in the structure of its outputs, or None for a random direction of every output, the
            same for all examples.
        loss: A Keras loss, one for each output, or None for what the model was compiled with.
        examples: Number of examples that `y` must hold.
    """
    if y is None:
        if loss is not None:
            raise ValueError("A loss needs targets: pass `y=`, or leave `loss` out.")
        return random_direction
    weights: PerOutput[float] = None
    if loss is None:
        # Keras has no public name for the loss weights of a compiled model.
        loss = getattr(model, "loss", None)
        weights = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
    if loss is None:
        raise ValueError("Targets need a loss: pass `loss=`, compile the model with one, or leave `y` out.")
    targets, count = check_examples("y", y)
    if count != examples:
        raise ValueError(f"`x` and `y` must hold equally many examples. Received: {examples} and {count}.")

    def objective(outputs: ArrayTree) -> Tensor:
        return _sum_losses(outputs, targets, loss, weights, _output_names(model, outputs))

    return objective


def random_direction(outputs: ArrayTree) -> Tensor:
    """Returns the sum over the examples of a random projection of their outputs, the same for all of them."""
    # A generator of its own leaves the seeds of the model, Keras and NumPy alone.
    rng = np.random.default_rng(DIRECTION_SEED)
    total: Tensor = 0.0
    for output in keras.tree.flatten(outputs):
        dtype = keras.backend.standardize_dtype(output.dtype)
        if keras.backend.is_float_dtype(dtype):
            direction = keras.ops.convert_to_tensor(rng.standard_normal(tuple(output.shape[1:])), dtype)
            total = total + keras.ops.sum(output * direction)
    return total


class _BadTargetsError(ValueError):
    """`y` does not fit the loss or the outputs."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"`y` does not fit the loss and the model's outputs: {reason}. Pass `y` and `loss` as you would "
            "to `fit` and `compile`, or leave both out."
        )


def _sum_losses(
    outputs: ArrayTree, targets: ArrayTree, loss: LossLike, weights: PerOutput[float], names: list[str]
) -> Tensor:
    """Returns the sum over outputs and examples of the weighted losses."""
    outputs, targets = _split_by_output(outputs, names), _split_by_output(targets, names)
    if len(targets) != len(outputs):
        raise _BadTargetsError(f"the model has {len(outputs)} outputs, and `y` holds {len(targets)} arrays")
    losses = _one_per_output(loss, names, len(outputs))
    if all(one is None for one in losses):
        raise _BadTargetsError("no output has a loss")
    factors = _one_per_output(weights, names, len(outputs))
    total: Tensor = 0.0
    for output, target, one, factor in zip(outputs, targets, losses, factors, strict=True):
        if one is not None:
            total = total + (1.0 if factor is None else factor) * _sum_loss(one, target, output)
    return total


def _output_names(model: keras.Model, outputs: ArrayTree) -> list[str]:
    if isinstance(outputs, dict):
        return sorted(outputs)  # the order in which `keras.tree.flatten` takes them
    return list(getattr(model, "output_names", None) or [])


def _split_by_output(values: ArrayTree, names: list[str]) -> list[Tensor]:
    if isinstance(values, dict):
        _check_names(values, names)
        return [values[name] for name in names if name in values]
    return keras.tree.flatten(values)


def _one_per_output(value: PerOutput[T], names: list[str], count: int) -> list[T | None]:
    """Returns one of `value` for each output, whether it was given once, in a list or by name."""
    if isinstance(value, dict):
        _check_names(value, names)
        return [value.get(name) for name in names]
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise _BadTargetsError(f"there are {count} outputs and {len(value)} losses or weights")
        return list(value)
    return [value] * count  # type: ignore[list-item]


def _check_names(given: Mapping[str, object], names: list[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise _BadTargetsError(
            f"there is no output {', '.join(unknown)}; the outputs are {', '.join(names) or 'unnamed'}"
        )


def _sum_loss(loss: OutputLoss, target: Targets, output: Tensor) -> Tensor:
    """Returns the sum over examples of one output's loss; refuses targets that Keras would broadcast."""
    resolved: keras.losses.Loss = keras.losses.get(loss)
    # `call` gives a loss for each example, where the object itself would give their mean.
    function = getattr(resolved, "call", resolved)
    name = str(getattr(resolved, "name", None) or getattr(resolved, "__name__", repr(resolved)))
    target = _check_target(resolved, name, target, tuple(output.shape))
    is_float = target.dtype.kind == "f"
    dtype = keras.backend.standardize_dtype(output.dtype) if is_float else str(target.dtype)
    try:
        value = function(keras.ops.convert_to_tensor(target, dtype), output)
    except (ValueError, TypeError) as error:
        raise _BadTargetsError(f"{name} says {error}") from error
    if len(value.shape) == 0:  # a mean over the batch
        return value * output.shape[0]
    return keras.ops.sum(value)


def _check_target(loss: keras.losses.Loss, name: str, target: Targets, shape: tuple[int, ...]) -> Targets:
    """Returns the targets in the shape that a Keras loss takes for outputs of that shape."""
    owner = type(loss).__module__ if isinstance(loss, keras.losses.Loss) else getattr(loss, "__module__", "")
    if not str(owner).startswith("keras."):  # only its author knows what it takes
        return target
    if "sparse" in name:
        _check_labels(name, target, shape, getattr(loss, "ignore_class", None))
        return target
    # Keras would broadcast other shapes silently, into another loss.
    if target.shape != shape and target.shape != tuple(size for size in shape if size != 1):
        raise _BadTargetsError(f"{name} of outputs of shape {shape} received targets of shape {target.shape}")
    return target.reshape(shape) if target.ndim == len(shape) - 1 else target


def _check_labels(name: str, target: Targets, shape: tuple[int, ...], ignored: int | None) -> None:
    classes = shape[-1]
    labels = target[target != ignored] if ignored is not None else target
    # Not every back end refuses a label that is out of range.
    whole = labels.size == 0 or ((labels == np.round(labels)) & (labels >= 0) & (labels < classes)).all()
    if target.shape not in (shape[:-1], (*shape[:-1], 1)) or not whole:
        raise _BadTargetsError(
            f"{name} of {classes} classes needs whole numbers from 0 to {classes - 1}, of shape "
            f"{shape[:-1]}; it has shape {target.shape} and holds {target.min()} to {target.max()}"
        )
