"""Runs a model once, forward and backward, and measures it at every kernel; the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import keras
import numpy as np

from keras_rwinit._keras.arrays import map_arrays, to_tensor
from keras_rwinit._keras.autodiff import TapKey, Tapped, gradients_at_taps
from keras_rwinit._keras.execution import has_value
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._tracing.calls import call_model
from keras_rwinit._tracing.kernels import kernels_of

from .batching import find_mixed_examples
from .measurements import LayerMeasurement
from .norms import Array, Floats, kernel_log_norms, to_numpy
from .objective import Objective
from .taps import Taps, layers_to_tap

__all__ = ["Probe"]

_TRACED = "runs inside a function that the back end traces or runs again"
_MIXED = "its examples cannot be told apart"


class Probe:
    """One forward and backward pass of a model whose layers with kernels are tapped.

    On JAX the model runs twice, first with values (`concrete`) and then traced; the forward measurements are
    those of the first run.

    Args:
        model: A built model.
        inputs: NumPy arrays in the structure of its inputs.
        objective: What is differentiated.
        training: Whether the model runs as in training.
        dtype: Dtype in which it runs; None for its own.
    """

    def __init__(
        self, model: keras.Model, inputs: ArrayTree, objective: Objective, training: bool, dtype: str | None
    ) -> None:
        self.model, self.inputs, self.objective, self.training = model, inputs, objective, training
        self.dtype = dtype
        self.unseen: dict[str, str] = {}
        """Paths of the layers with a call that could not be measured, and why."""
        self.not_called: list[keras.layers.Layer] = []
        """The layers to measure that no call reached."""
        self._examples = _count(inputs)
        layers = layers_to_tap(model)
        self._taps = Taps(model, layers, dtype, self._examples)
        # No gradient exists with respect to the integers of a quantized kernel.
        self._kernels = {
            id(kernel.variable): kernel
            for layer in layers
            for kernel in kernels_of(layer)
            if keras.backend.is_float_dtype(kernel.variable.dtype)
        }

    def measure(self) -> list[LayerMeasurement]:
        """Runs the model forward and backward and combines the measurements of both passes."""
        with self._taps.install():
            kernel_gradients, found = gradients_at_taps(self._run, self._kernel_tensors())
            norms = {
                number: kernel_log_norms(kernel, gradient)
                for (number, kernel), gradient in zip(self._kernels.items(), kernel_gradients, strict=True)
            }
            # A call whose output nothing uses, beside others of its layer, was made for its shape.
            used = {key.owner for key, tapped in found.items() if tapped is not None and tapped.used}
            seen = {
                key: tapped
                for key, tapped in found.items()
                if tapped is not None and (tapped.used or key.owner not in used)
            }
            self._leave_out((key for key, tapped in found.items() if tapped is None), _TRACED)
            calls = {key: self._taps.calls[key] for key in seen}
            mixed = find_mixed_examples(calls, self._examples, self._tapped_values)
            self._leave_out(mixed, _MIXED)
        self.not_called = [layer for layer in self._taps.layers if id(layer) not in self._taps.called]
        return [
            one
            for key, tapped in seen.items()
            if key not in mixed
            for one in self._complete(key, tapped, norms)
        ]

    def _leave_out(self, keys: Iterable[TapKey], reason: str) -> None:
        for key in keys:
            self.unseen[self._taps.calls[key].layer.path] = reason

    def _run(
        self, kernels: Iterable[Tensor], tap: Callable[[Tensor, TapKey], Tensor], concrete: bool
    ) -> Tensor:
        """Returns the objective, with tensors in place of the kernels."""
        self._taps.begin(tap, concrete=concrete)
        with self._scope(kernels):
            return self.objective(call_model(self.model, self._convert(self.inputs), training=self.training))

    def _tapped_values(self, keys: Collection[TapKey], reverse: bool) -> dict[TapKey, Floats]:
        """Returns tapped values of a run at inference, with the examples in reverse order or not."""
        values: dict[TapKey, Floats] = {}

        def look(value: Tensor, key: TapKey) -> Tensor:
            if key in keys and has_value(value):
                values[key] = to_numpy(value)
            return value

        inputs = self.inputs
        if reverse:
            inputs = map_arrays(lambda array: np.ascontiguousarray(array[::-1]), inputs)
        self._taps.begin(look, concrete=False)
        with self._scope(self._kernel_tensors()):
            call_model(self.model, self._convert(inputs), training=False)
        return values

    def _scope(self, kernels: Iterable[Tensor]) -> keras.StatelessScope:
        """Returns a scope in which the model computes with copies of its variables in `dtype`.

        None of its own is assigned to. Each run has its own scope, since layers such as Dropout advance
        their state in it.
        """
        scope = keras.StatelessScope()
        for variable in self.model.variables:
            scope.add_update((variable, to_tensor(variable.value, self.dtype)))
        for kernel, tensor in zip(self._kernels.values(), kernels, strict=True):
            scope.add_update((kernel.variable, tensor))
        return scope

    def _kernel_tensors(self) -> list[Tensor]:
        return [to_tensor(kernel.variable.value, self.dtype) for kernel in self._kernels.values()]

    def _convert(self, inputs: ArrayTree) -> ArrayTree:
        return map_arrays(lambda array: to_tensor(array, self.dtype or "float32"), inputs)

    def _complete(self, key: TapKey, found: Tapped, norms: dict[int, Array]) -> list[LayerMeasurement]:
        """Completes the forward measurements of a call by the gradient."""
        if found.value is not None:
            self._taps.measure_forward(key, found.value)
        call = self._taps.calls[key]
        if call.forward is None:
            self._leave_out([key], _TRACED)
            return []
        deltas = to_numpy(found.gradient)
        # Give every tap the layer axis that the tap of a stack has.
        deltas = deltas if call.stacked else deltas[None]
        measured: list[LayerMeasurement] = []
        for forward in call.forward:
            layers = slice(len(measured), len(measured) + len(forward.layer_calls))
            measured += forward.complete(deltas[layers], norms)
        return measured


def _count(inputs: ArrayTree) -> int:
    return next(len(array) for array in keras.tree.flatten(inputs) if array is not None)
