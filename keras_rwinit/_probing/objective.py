"""Makes the scalar whose gradient is measured: a model's loss, or a random direction of its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_rwinit._keras.arrays import map_arrays, to_tensor
from keras_rwinit._keras.types import ArrayTree, Tensor

from .examples import check_equally_many
from .targets import BadTargetsError, ObjectiveError, check_losses, check_target

__all__ = ["DIRECTION_SEED", "LossLike", "Objective", "check_targets", "make_objective", "random_direction"]

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
    targets, weights = check_targets(y, loss, examples, sample_weight)
    if targets is None:
        return random_direction
    compute = _LossOfModel(model, loss, training)

    def objective(outputs: ArrayTree) -> Tensor:
        return examples * compute(x, targets, outputs, weights)

    return objective


def check_targets(
    y: ArrayTree, loss: LossLike, examples: int, sample_weight: ArrayTree = None
) -> tuple[ArrayTree, ArrayTree]:
    """Returns targets and weights of the examples as NumPy arrays, both None without targets.

    Raises:
        ValueError: They do not hold as many examples as the inputs, or there is a loss or weights and no
            targets.
    """
    if y is None:
        if loss is not None:
            raise ValueError("A loss needs targets: pass `y=`, or leave `loss` out.")
        if sample_weight is not None:
            raise ValueError("Weights of examples need targets: pass `y=`, or leave `sample_weight` out.")
        return None, None
    weights = sample_weight
    if weights is not None:
        weights = check_equally_many("sample_weight", weights, examples)
    return check_equally_many("y", y, examples), weights


def random_direction(outputs: ArrayTree) -> Tensor:
    """Returns the sum over the examples of a random projection of their outputs, the same for all of them.

    Raises:
        ObjectiveError: (a ValueError) No output is of a floating dtype.
    """
    _check_float(outputs)
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


def _dtypes(outputs: ArrayTree) -> list[str]:
    return [keras.backend.standardize_dtype(o.dtype) for o in keras.tree.flatten(outputs) if o is not None]


def _check_float(outputs: ArrayTree) -> None:
    """Raises ObjectiveError if no output is of a floating dtype: integers have no gradient."""
    dtypes = _dtypes(outputs)
    if not any(keras.backend.is_float_dtype(dtype) for dtype in dtypes):
        raise ObjectiveError(
            "The model's outputs must have a gradient, and integers have none: pass a model that ends before "
            f"them, for example before an argmax. Received: outputs of dtype {', '.join(dtypes) or None}"
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
            raise ObjectiveError(
                "Targets need a loss: pass `loss=`, compile the model with one, or leave `y` out."
            )
        if not self.is_own and not self.model.losses:
            _check_float(outputs)
        dtype = _loss_dtype(outputs)
        x, y, sample_weight = (
            map_arrays(lambda array: to_tensor(array, dtype), values) for values in (x, y, sample_weight)
        )
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
        except BadTargetsError:
            raise
        except Exception as error:  # of a loss of the user's, or of any back end
            raise BadTargetsError(f"{type(error).__name__}: {error}") from error
        # A loss without reduction has a value for each example; Keras reports their mean.
        return keras.ops.mean(value) if len(value.shape) else value

    def _build_loss(self, outputs: ArrayTree, targets: ArrayTree, dtype: str) -> Any:
        """Returns Keras's own pairing of losses, targets and outputs."""
        if self.loss is None:
            return None
        names = _output_names(self.model, outputs)
        check_losses(self.loss, outputs, targets, names)
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
    dtypes = _dtypes(outputs)
    return "float64" if "float64" in dtypes else keras.config.floatx()


def _leave_out_none(values: ArrayTree) -> ArrayTree:
    """Returns a list or tuple without the members that are None; if one remains, that member itself."""
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


def _prepare_loss(loss: keras.losses.Loss, dtype: str) -> keras.losses.Loss:
    """Returns a copy of a loss that computes in `dtype` and refuses targets that Keras would broadcast."""
    # `copy.copy` would save and load it.
    prepared = object.__new__(type(loss))
    vars(prepared).update(vars(loss))
    if dtype == "float64":
        prepared._dtype_policy, prepared._dtype = keras.DTypePolicy(dtype), dtype
    call = prepared.call

    def checked_call(y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_target(loss, y_true, y_pred)
        return call(y_true, y_pred)

    prepared.call = checked_call
    return prepared
