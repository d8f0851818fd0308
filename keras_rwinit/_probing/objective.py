"""Makes the scalar whose gradient is measured: a model's loss, or a random direction of its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.types import ArrayTree, Tensor

from .examples import check_examples

__all__ = ["DIRECTION_SEED", "LossLike", "Objective", "make_objective", "random_direction"]

T = TypeVar("T")

Targets: TypeAlias = NDArray[np.integer | np.floating]

OutputLoss: TypeAlias = str | keras.losses.Loss | Callable[[Tensor, Tensor], Tensor] | None
"""Keras loss of one output, or its name; None for an output that no loss is computed of."""

LossLike: TypeAlias = OutputLoss | Sequence[OutputLoss] | Mapping[str, OutputLoss]
"""Loss of all outputs, or one for each of them in a list or by name, as `keras.Model.compile` takes it."""

Objective: TypeAlias = Callable[[ArrayTree], Tensor]
"""Scalar of a model's outputs, the sum over the examples of something of each of them."""

DIRECTION_SEED = 1412_6558
"""Seed of the direction that `random_direction` draws."""


def make_objective(
    model: keras.Model,
    y: ArrayTree,
    loss: LossLike,
    examples: int,
    *,
    x: ArrayTree = None,
    sample_weight: ArrayTree = None,
    training: bool = False,
) -> Objective:
    """Returns a scalar of the outputs whose gradient at an example's signals is that of its own loss.

    It is the number of examples times the loss that Keras computes of the batch, with the losses that layers
    add and the regularization of weights. Keras's loss is a mean over examples, so that it is a sum over
    them.

    Args:
        model: The model.
        y: Targets in the structure of its outputs, or None for a random direction of every output, the
            same for all examples.
        loss: A Keras loss, one for each output, or None for what the model was compiled with.
        examples: Number of examples that `y` must hold.
        x: Inputs of the model, for a `compute_loss` of its own.
        sample_weight: Weights of the examples, as `fit` takes them.
        training: Whether the loss is one in training, for a `compute_loss` of its own.
    """
    if y is None:
        if loss is not None or sample_weight is not None:
            name = "A loss needs" if loss is not None else "Weights of examples need"
            raise ValueError(
                f"{name} targets: pass `y=`, or leave `{'loss' if loss else 'sample_weight'}` out."
            )
        return random_direction
    targets = _check_batch("y", y, examples)
    weights = None if sample_weight is None else _check_batch("sample_weight", sample_weight, examples)
    compute = _LossOfModel(model, loss, training)

    def objective(outputs: ArrayTree) -> Tensor:
        return examples * compute(x, targets, outputs, weights)

    return objective


def _check_batch(name: str, value: ArrayTree, examples: int) -> ArrayTree:
    arrays, count = check_examples(name, value)
    if count != examples:
        raise ValueError(
            f"`x` and `{name}` must hold equally many examples. Received: {examples} and {count}."
        )
    return arrays


def random_direction(outputs: ArrayTree) -> Tensor:
    """Returns the sum over the examples of a random projection of their outputs, the same for all of them."""
    # A generator of its own leaves the seeds of the model, Keras and NumPy alone.
    rng = np.random.default_rng(DIRECTION_SEED)
    total: Tensor = 0.0
    for output in keras.tree.flatten(outputs):
        if output is None:
            continue
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


class _Compiled(keras.Model):
    """A model without layers, compiled with the losses of another one: Keras pairs them with its outputs."""

    def __init__(self, loss: LossLike, weights: ArrayTree, output_names: list[str]) -> None:
        super().__init__(name="compiled")
        self.output_names = output_names
        self.compile(optimizer=None, loss=loss, loss_weights=weights, jit_compile=False)


class _LossOfModel:
    """Computes the loss of a batch as Keras would, and leaves what the model is compiled with alone.

    Args:
        model: The model.
        loss: Losses in place of those that it is compiled with.
        training: Whether the loss is one in training.
    """

    def __init__(self, model: keras.Model, loss: LossLike, training: bool) -> None:
        self.model, self.training = model, training
        # With `loss=`, the loss is that and not one of the model's own making.
        self.compute = keras.Model.compute_loss if loss is not None else type(model).compute_loss
        self.is_own = self.compute is not keras.Model.compute_loss
        self.weights: ArrayTree = None
        if loss is None:
            # Keras has no public name for the loss weights of a compiled model.
            loss = getattr(model, "loss", None)
            self.weights = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
        self.loss = loss

    def __call__(self, x: ArrayTree, y: ArrayTree, outputs: ArrayTree, sample_weight: ArrayTree) -> Tensor:
        """Returns the loss of a batch, a scalar."""
        if self.loss is None and not self.is_own and not self.model.losses:
            raise ValueError(
                "Targets need a loss: pass `loss=`, compile the model with one, or leave `y` out."
            )
        dtype = _loss_dtype(outputs)
        x, y, sample_weight = (_to_tensors(values, dtype) for values in (x, y, sample_weight))
        options = {"x": x, "y": y, "y_pred": outputs, "sample_weight": sample_weight}
        if not self.is_own:
            options["y_pred"], options["y"] = _leave_out_none(outputs), _leave_out_none(y)
        # A stand-in: a loss that is compiled but was never used would be built by its first use.
        stand_in = object.__new__(type(self.model))
        vars(stand_in).update(vars(self.model))
        vars(stand_in)["_compile_loss"] = self._build_loss(options["y_pred"], options["y"], dtype)
        if "training" in inspect.signature(self.compute).parameters:
            options["training"] = self.training
        try:
            value = self.compute(stand_in, **options)
        except _BadTargetsError:
            raise
        except Exception as error:  # of a loss of the user's, or of any back end
            raise _BadTargetsError(f"{type(error).__name__}: {error}") from error
        # A loss without reduction has a value for each example; Keras reports their mean.
        return keras.ops.mean(value) if len(value.shape) else value

    def _build_loss(self, outputs: ArrayTree, targets: ArrayTree, dtype: str) -> Any:
        """Returns Keras's own pairing of losses, targets and outputs."""
        if self.loss is None:
            return None
        names = _output_names(self.model, outputs)
        _check_losses(self.loss, outputs, targets, names)
        compiled = _Compiled(self.loss, self.weights, names)._compile_loss
        build = compiled.build

        def build_and_prepare(y_true: ArrayTree, y_pred: ArrayTree) -> None:
            build(y_true, y_pred)
            compiled._flat_losses = [
                one._replace(loss=_prepare_loss(one.loss, dtype)) for one in compiled._flat_losses
            ]

        compiled.build = build_and_prepare
        return compiled


def _loss_dtype(outputs: ArrayTree) -> str:
    """Returns the dtype in which losses are computed: Keras's, or float64 where the outputs are."""
    dtypes = [keras.backend.standardize_dtype(o.dtype) for o in keras.tree.flatten(outputs) if o is not None]
    return "float64" if "float64" in dtypes else keras.config.floatx()


def _to_tensors(values: ArrayTree, dtype: str) -> ArrayTree:
    def convert(array: Targets | None) -> Tensor:
        if array is None:
            return None
        return keras.ops.convert_to_tensor(array, dtype if array.dtype.kind == "f" else str(array.dtype))

    return keras.tree.map_structure(convert, values)


def _leave_out_none(values: ArrayTree) -> ArrayTree:
    """Returns a list or tuple without the members that are None; a single one that is left alone."""
    if not isinstance(values, list | tuple) or all(value is not None for value in values):
        return values
    kept = [value for value in values if value is not None]
    return kept[0] if len(kept) == 1 else kept


def _output_names(model: keras.Model, outputs: ArrayTree) -> list[str]:
    if isinstance(outputs, dict):
        return sorted(outputs)  # the order in which `keras.tree.flatten` takes them
    names = list(getattr(model, "output_names", None) or [])
    count = len(keras.tree.flatten(outputs))
    return names if len(names) == count else [f"output_{number}" for number in range(count)]


def _check_losses(loss: LossLike, outputs: ArrayTree, targets: ArrayTree, names: list[str]) -> None:
    """Refuses losses and targets that no output fits, some of which Keras would leave out."""
    count = len(keras.tree.flatten(outputs))
    for given in (loss, targets):
        unknown = sorted(set(given) - set(names)) if isinstance(given, dict) else []
        if unknown:
            raise _BadTargetsError(
                f"there is no output {', '.join(unknown)}; the outputs are {', '.join(names) or 'unnamed'}"
            )
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    if not losses:
        raise _BadTargetsError("no output has a loss")
    if isinstance(loss, list | tuple) and len(keras.tree.flatten(loss)) != count:
        raise _BadTargetsError(f"there are {count} outputs and {len(loss)} losses or weights")
    arrays = len([target for target in keras.tree.flatten(targets) if target is not None])
    if arrays != count and not (keras.tree.is_nested(loss) and arrays == len(losses)):
        raise _BadTargetsError(f"the model has {count} outputs, and `y` holds {arrays} arrays")


def _prepare_loss(loss: keras.losses.Loss, dtype: str) -> keras.losses.Loss:
    """Returns a copy of a loss that computes in `dtype` and refuses targets that Keras would broadcast."""
    # `copy.copy` would save and load it.
    prepared = object.__new__(type(loss))
    vars(prepared).update(vars(loss))
    if dtype == "float64":
        prepared._dtype_policy, prepared._dtype = keras.DTypePolicy(dtype), dtype
    call = prepared.call

    def checked_call(y_true: Tensor, y_pred: Tensor) -> Tensor:
        _check_target(loss, y_true, y_pred)
        return call(y_true, y_pred)

    prepared.call = checked_call
    return prepared


_LABELS = ("sparse", "circle", "ctc", "generalized")  # in the names of losses whose targets are not outputs


def _check_target(loss: keras.losses.Loss, y_true: ArrayTree, y_pred: ArrayTree) -> None:
    """Raises an error for targets that a Keras loss would take for others than they are."""
    function = getattr(loss, "fn", loss)
    owner = getattr(function, "__module__", None) or type(function).__module__
    # Only its author knows what another loss takes.
    if not str(owner).startswith("keras.") or keras.tree.is_nested(y_true) or keras.tree.is_nested(y_pred):
        return
    name, target, shape = str(loss.name), tuple(y_true.shape), tuple(y_pred.shape)
    if "sparse" in name:
        _check_labels(name, np.asarray(keras.ops.convert_to_numpy(y_true)), shape, loss)
    elif any(word in name for word in _LABELS):
        return
    # Keras would broadcast other shapes silently, into another loss.
    elif target != shape and target != tuple(size for size in shape if size != 1):
        raise _BadTargetsError(f"{name} of outputs of shape {shape} received targets of shape {target}")


def _check_labels(name: str, target: Targets, shape: tuple[int, ...], loss: keras.losses.Loss) -> None:
    ignored = getattr(loss, "ignore_class", None)
    ignored = getattr(loss, "_fn_kwargs", {}).get("ignore_class", ignored)
    axis = getattr(loss, "_fn_kwargs", {}).get("axis", -1)
    classes = shape[axis]
    axis %= len(shape)
    without = (*shape[:axis], *shape[axis + 1 :])
    labels = target[target != ignored] if ignored is not None else target
    # Not every back end refuses a label that is out of range.
    whole = labels.size == 0 or ((labels == np.round(labels)) & (labels >= 0) & (labels < classes)).all()
    if target.shape not in (without, (*without, 1)) or not whole:
        raise _BadTargetsError(
            f"{name} of {classes} classes needs whole numbers from 0 to {classes - 1}, of shape "
            f"{without}; it has shape {target.shape} and holds {_number(target.min())} to "
            f"{_number(target.max())}"
        )


def _number(value: float) -> str:
    return f"{value:g}"
