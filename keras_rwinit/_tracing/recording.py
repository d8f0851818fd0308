"""Runs a model on arrays and records which layers it calls, with what, inside which other layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import get_activation
from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.execution import has_value
from keras_rwinit._keras.threads import replace_function
from keras_rwinit._keras.types import ArrayTree, Tensor

from .calls import call_model

__all__ = ["Origin", "RecordedCall", "find_origin", "record_calls"]


@dataclass(eq=False)
class RecordedCall:
    """One call of a layer on tensors with values.

    Args:
        layer: The layer.
        args, kwargs: Its arguments.
        outputs: Its outputs; None until it returns.
        inside: The calls that it made.
    """

    layer: keras.layers.Layer
    args: ArrayTree = ()
    kwargs: ArrayTree = field(default_factory=dict)
    outputs: ArrayTree = None
    inside: list[RecordedCall] = field(default_factory=list)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return _tensors((self.args, self.kwargs))

    @property
    def results(self) -> list[Tensor]:
        """The tensors among its outputs."""
        return _tensors(self.outputs)


def _tensors(values: ArrayTree) -> list[Tensor]:
    return [value for value in keras.tree.flatten(values) if keras.ops.is_tensor(value)]


def record_calls(model: keras.Model, inputs: ArrayTree) -> dict[int, list[RecordedCall]]:
    """Returns the calls of every layer of `model` in a run at inference, by the layer's id."""
    calls: dict[int, list[RecordedCall]] = {}
    stack: list[RecordedCall] = []

    def recording(layer: keras.layers.Layer) -> Callable[..., ArrayTree]:
        original = layer.call

        def call(*args: Any, **kwargs: Any) -> ArrayTree:
            record = RecordedCall(layer, args, kwargs)
            calls.setdefault(id(layer), []).append(record)
            if stack:
                stack[-1].inside.append(record)
            stack.append(record)
            try:
                record.outputs = original(*args, **kwargs)
            finally:
                stack.pop()
            return record.outputs

        return call

    tensors = map_arrays(keras.ops.convert_to_tensor, inputs)
    with contextlib.ExitStack() as replaced, keras.StatelessScope():
        for layer in model._flatten_layers():
            replaced.enter_context(replace_function(layer, "call", recording(layer)))
        call_model(model, tensors, training=False)
    return calls


@dataclass(frozen=True)
class Origin:
    """How a tensor follows from tensors that are known.

    Args:
        sources: Their numbers.
        operation: The operation between them; None where there is none to speak of, as in a cast.
    """

    sources: tuple[int, ...]
    operation: keras.Operation | None = None


_LAST = 8  # of the tensors before it, those that are compared
_ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "gelu", "elu", "selu", "softplus", "relu6")


def find_origin(tensor: Tensor, known: Sequence[tuple[int, Tensor]]) -> Origin | None:
    """Returns how the values of a tensor follow from those of the last known ones; None if they do not.

    Between two layers a model may compute in a way that leaves no trace. What leaves the values as they are,
    an activation of the usual ones, and a sum of two tensors are told by the values.
    """
    if not has_value(tensor):
        return None
    wanted = _values(tensor)
    candidates = [(number, _values(one)) for number, one in reversed(known[-_LAST:]) if has_value(one)]
    # Constant values follow from anything.
    candidates = [(number, values) for number, values in candidates if values.size and np.ptp(values) > 0.0]
    if not wanted.size or np.ptp(wanted) == 0.0:
        return None
    for number, values in candidates:
        if _is_close(values.ravel(), wanted.ravel()):
            return Origin((number,))
    same = [(number, values) for number, values in candidates if values.shape == wanted.shape]
    for number, values in same:
        for name in _ACTIVATIONS:
            outputs = keras.ops.convert_to_numpy(get_activation(name)(keras.ops.convert_to_tensor(values)))
            if _is_close(outputs, wanted):
                return Origin((number,), keras.layers.Activation(name, name=name))
    for position, (number, values) in enumerate(same):
        for other, others in same[position:]:
            if _is_close(values + others, wanted):
                return Origin((other, number), keras.layers.Add(name="sum"))
    return None


def _values(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(np.float32)


def _is_close(values: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    scale = float(np.abs(wanted).max(initial=0.0))
    return values.shape == wanted.shape and bool(np.allclose(values, wanted, rtol=0.0, atol=1e-4 * scale))
