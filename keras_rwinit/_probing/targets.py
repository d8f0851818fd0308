"""Checks that targets and losses fit a model's outputs, as Keras pairs them."""

from __future__ import annotations

from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.types import ArrayTree

__all__ = ["BadTargetsError", "ObjectiveError", "check_losses", "check_target"]

Targets: TypeAlias = NDArray[np.integer | np.floating]


class ObjectiveError(ValueError):
    """There is no scalar to differentiate, however the model runs."""


class BadTargetsError(ObjectiveError):
    """`y` does not fit the loss or the outputs."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"`y` does not fit the loss and the model's outputs: {reason}. Pass `y` and `loss` as you would "
            "to `fit` and `compile`, or leave both out."
        )


def check_losses(loss: ArrayTree, outputs: ArrayTree, targets: ArrayTree, names: list[str]) -> None:
    """Refuses losses and targets that no output fits, some of which Keras would leave out.

    Args:
        loss: A loss, or losses in a list or a dictionary.
        outputs: The model's outputs.
        targets: The targets.
        names: Names of the outputs.

    Raises:
        BadTargetsError: They do not fit.
    """
    count = len(keras.tree.flatten(outputs))
    for given in (loss, targets):
        unknown = sorted(set(given) - set(names)) if isinstance(given, dict) else []
        if unknown:
            raise BadTargetsError(
                f"there is no output {', '.join(unknown)}; the outputs are {', '.join(names) or 'unnamed'}"
            )
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    if not losses:
        raise BadTargetsError("no output has a loss")
    if isinstance(loss, list | tuple) and len(keras.tree.flatten(loss)) != count:
        raise BadTargetsError(f"there are {count} outputs and {len(loss)} losses or weights")
    arrays = len([target for target in keras.tree.flatten(targets) if target is not None])
    if arrays != count and not (keras.tree.is_nested(loss) and arrays == len(losses)):
        raise BadTargetsError(f"the model has {count} outputs, and `y` holds {arrays} arrays")


_LABELS = "sparse_categorical_crossentropy"
"""Loss of Keras whose targets are the numbers of classes."""

_UNLIKE_OUTPUTS = ("circle", "ctc", "categorical_generalized_cross_entropy")
"""Losses of Keras whose targets have shapes of their own, which the losses check themselves."""


def check_target(loss: keras.losses.Loss, y_true: ArrayTree, y_pred: ArrayTree) -> None:
    """Raises BadTargetsError for targets that a loss of Keras would take for others than they are."""
    function = getattr(loss, "fn", loss)
    # Only its author knows what another loss takes.
    if not (_is_of_keras(function) and _is_of_keras(type(loss).call)):
        return
    if keras.tree.is_nested(y_true) or keras.tree.is_nested(y_pred):
        return
    # The name of a loss object is the user's to choose.
    kind = str(getattr(function, "__name__", type(function).__name__))
    if kind == _LABELS:
        _check_labels(np.asarray(keras.ops.convert_to_numpy(y_true)), tuple(y_pred.shape), loss)
    elif kind not in _UNLIKE_OUTPUTS and not _have_one_shape(tuple(y_true.shape), tuple(y_pred.shape)):
        # Keras would broadcast them silently, into another loss.
        raise BadTargetsError(
            f"{kind} of outputs of shape {tuple(y_pred.shape)} received targets of shape "
            f"{tuple(y_true.shape)}"
        )


def _is_of_keras(function: object) -> bool:
    module = getattr(function, "__module__", None) or type(function).__module__
    return str(module).startswith("keras.")


def _have_one_shape(target: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Returns whether Keras gives targets and outputs one shape: it adds or drops a last axis of length 1."""
    longer, shorter = sorted((target, output), key=len, reverse=True)
    # `squeeze_or_expand_to_same_rank` of keras.src.losses.loss, which is not public
    return longer == shorter or longer == (*shorter, 1)


def _check_labels(target: Targets, shape: tuple[int, ...], loss: keras.losses.Loss) -> None:
    options = getattr(loss, "_fn_kwargs", {})
    ignored = options.get("ignore_class", getattr(loss, "ignore_class", None))
    axis = options.get("axis", -1) % len(shape)
    classes = shape[axis]
    without = (*shape[:axis], *shape[axis + 1 :])
    labels = target[target != ignored] if ignored is not None else target
    # Not every back end refuses a label that is out of range.
    whole = labels.size == 0 or ((labels == np.round(labels)) & (labels >= 0) & (labels < classes)).all()
    if target.shape not in (without, (*without, 1)) or not whole:
        raise BadTargetsError(
            f"{_LABELS} of {classes} classes needs whole numbers from 0 to {classes - 1}, of shape "
            f"{without}; it has shape {target.shape} and holds {_number(target.min())} to "
            f"{_number(target.max())}"
        )


def _number(value: float) -> str:
    return f"{value:g}"
