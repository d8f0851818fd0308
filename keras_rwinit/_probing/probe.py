"""Runs a model once, forward and backward, and measures it at every kernel; the model stays as it was."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import in_precision
from keras_rwinit._keras.autodiff import double_precision, gradients_at_taps
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._tracing.kernels import (
    activates_kernel_output,
    hides_sublayers,
    kernels_of,
    skip_reason,
    sublayers,
)
from keras_rwinit.layers import DenseStack

from .forward import dense_call, run_layers
from .measurements import LayerCall, LayerMeasurement
from .norms import Array, Floats, Mask, kernel_log_norms, log_norm, saturated_units, to_numpy, units_last
from .objective import Objective

__all__ = ["measure_layers"]

_FLOAT32_RANGE = 70.0  # nats; the smallest normal number is at -87, and entries are smaller than norms


def measure_layers(
    model: keras.Model, inputs: ArrayTree, objective: Objective, *, training: bool = False
) -> tuple[list[LayerMeasurement], str]:
    """Runs `model` on `inputs`, differentiates `objective` of its outputs, and measures every layer call.

    It computes in float32, or in float64 if the model does, so that models of low precision are measured
    without their rounding; again in float64 if a norm comes near the ends of float32. A model with a
    layer that can compute in neither runs as it is. Norms are summed in float64. Nothing is compiled, and
    no variable changes.

    Args:
        model: A built model.
        inputs: NumPy arrays in the structure of the model's inputs.
        objective: A sum over examples of something of the model's outputs.
        training: Whether the model runs as in training.

    Returns:
        The measurements in the order of the calls, and the dtype of the computation.
    """

    def run(dtype: str | None) -> list[LayerMeasurement]:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            return _Probe(model, inputs, objective, training, dtype).measure()

    dtypes = {str(variable.dtype) for variable in model.trainable_variables}
    own_dtype = "float64" if "float64" in dtypes else str(model.compute_dtype)
    # Quantized kernels are integers, which no other dtype makes more precise.
    if any(getattr(layer.dtype_policy, "quantization_mode", None) for layer in model._flatten_layers()):
        return run(None), own_dtype
    dtype = "float64" if own_dtype == "float64" else "float32"
    try:
        measurements = run(dtype)
    except Exception as error:  # of a layer's own code, which may insist on its own dtype
        if own_dtype == dtype:
            raise
        try:
            return run(None), own_dtype
        except Exception:
            raise error from None
    if dtype == "float32" and any(_is_near_the_ends(one) for one in measurements):
        # A layer that knows no float64 keeps the float32 measurement.
        with contextlib.suppress(Exception):
            return run("float64"), "float64"
    return measurements, dtype


def _is_near_the_ends(measurement: LayerMeasurement) -> bool:
    """Returns whether float32 may have lost a norm; the exact zero of a dead unit (-inf) is no loss."""
    values = np.concatenate([measurement.forward, measurement.backward])
    return bool((np.abs(values[values > -np.inf]) > _FLOAT32_RANGE).any())


@dataclass
class _ForwardMeasurement:
    """What the forward pass shows at a layer call, before the gradient is known.

    Args:
        layer_call: The call.
        forward: `ln|h|` of the layer's output, shape (examples,).
        rms: Root mean square of the pre-activations.
        flat: Units with next to no slope for any example; None where it is unknown.
    """

    layer_call: LayerCall
    forward: Array
    rms: float
    flat: Mask | None


class _Probe:
    """One forward and backward pass of a model whose layers with kernels are tapped.

    A tap is an intermediate value of the forward pass at which the gradient is taken. On JAX the model runs
    twice, first with values (`concrete`) and then traced; the forward measurements are those of the first
    run.
    """

    def __init__(
        self, model: keras.Model, inputs: ArrayTree, objective: Objective, training: bool, dtype: str | None
    ) -> None:
        self.model, self.inputs, self.objective, self.training = model, inputs, objective, training
        self.dtype = dtype
        self.layers = _layers_to_tap(model)
        kernels = [kernel for layer in self.layers for kernel in kernels_of(layer)]
        self.kernels = {id(kernel.variable): kernel for kernel in kernels}
        # One list for each tap; the tap of a stack has one measurement for each of its layers.
        self.forward: list[list[_ForwardMeasurement]] = []
        self.calls: Counter[int] = Counter()
        self.tap: Callable[[Tensor], Tensor]
        self.concrete = False

    def measure(self) -> list[LayerMeasurement]:
        """Runs the model forward and backward and combines the measurements of both passes."""
        kernel_gradients, tap_gradients = self._gradients()
        norms = {
            id(kernel.variable): kernel_log_norms(kernel, gradient)
            for kernel, gradient in zip(self.kernels.values(), kernel_gradients, strict=True)
        }
        measurements: list[LayerMeasurement] = []
        for tapped, gradient in zip(self.forward, tap_gradients, strict=True):
            deltas = to_numpy(gradient)
            # Give every tap the layer axis that the tap of a stack has.
            deltas = deltas[None] if tapped[0].layer_call.index is None else deltas
            measurements += [_complete(one, delta, norms) for one, delta in zip(tapped, deltas, strict=True)]
        return measurements

    def _gradients(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Returns the gradients with respect to the kernels, and at the taps."""
        variables = [kernel.variable for kernel in self.kernels.values()]
        # The model computes with copies of its variables in `dtype`; none of its own is assigned to.
        scope = keras.StatelessScope()
        for variable in self.model.variables:
            if self.dtype and keras.backend.is_float_dtype(variable.dtype):
                scope.add_update((variable, self._to_tensor(variable)))
        tensors = [scope.get_current_value(v) if self.dtype else self._to_tensor(v) for v in variables]
        inputs = keras.tree.map_structure(self._convert_input, self.inputs)

        def run(tensors: Sequence[Tensor], tap: Callable[[Tensor], Tensor], concrete: bool) -> Tensor:
            self.tap, self.concrete = tap, concrete
            self.calls.clear()
            for variable, tensor in zip(variables, tensors, strict=True):
                scope.add_update((variable, tensor))
            with scope:
                return self.objective(self.model(inputs, training=self.training))

        with self._install_taps():
            return gradients_at_taps(run, tensors)

    def _to_tensor(self, variable: keras.Variable) -> Tensor:
        is_float = keras.backend.is_float_dtype(variable.dtype)
        return keras.ops.cast(variable.value, self.dtype if self.dtype and is_float else variable.dtype)

    def _convert_input(self, array: NDArray[np.generic]) -> Tensor:
        is_float = np.issubdtype(array.dtype, np.floating)
        return keras.ops.convert_to_tensor(array, self.dtype or "float32" if is_float else str(array.dtype))

    @contextlib.contextmanager
    def _install_taps(self) -> Iterator[None]:
        """Puts the taps in place and the layers into `dtype`, and takes all of it back."""
        with contextlib.ExitStack() as stack:
            if self.dtype:
                policy = keras.DTypePolicy(self.dtype)
                for layer in self.model._flatten_layers():
                    if keras.backend.is_float_dtype(layer.compute_dtype):
                        stack.enter_context(_replace_attribute(layer, "_dtype_policy", policy))
            for layer in self.layers:
                if isinstance(layer, DenseStack):
                    stack.enter_context(_replace_attribute(layer, "call", self._stack_call(layer)))
                elif activates_kernel_output(layer):
                    stack.enter_context(_replace_attribute(layer, "activation", self._activation(layer)))
                    # Keras's own Dense would round the product to float32 on some back ends.
                    if self.dtype == "float64" and type(layer) is keras.layers.Dense:
                        stack.enter_context(_replace_attribute(layer, "call", dense_call(layer)))
                else:
                    stack.enter_context(_replace_attribute(layer, "call", self._output_call(layer)))
            yield

    def _stack_call(self, layer: DenseStack) -> Callable[..., Tensor]:
        """Returns `DenseStack.call` with a tap at the pre-activations of all its layers."""
        activation = in_precision(layer.activation, self.dtype)

        def call(inputs: Tensor, training: bool | None = None) -> Tensor:
            self.calls[id(layer)] += 1
            x = keras.ops.cast(inputs, layer.compute_dtype)
            # Each example gets biases of its own: their gradient is the gradient at its pre-activations.
            shape = (layer.depth, *x.shape)
            biases = keras.ops.zeros(shape, x.dtype)
            if layer.bias is not None:
                biases = keras.ops.broadcast_to(layer.bias[:, None], shape)
            kernel = keras.ops.convert_to_tensor(layer.kernel)
            h, pre_activations = run_layers(x, kernel, self.tap(biases), activation)
            if self.concrete:
                values = to_numpy(pre_activations)
                # The loop keeps no outputs; they follow from the pre-activations.
                outputs = to_numpy(activation(keras.ops.convert_to_tensor(values)))
                self.forward.append(
                    [
                        self._measure_forward(layer, index, values[index], outputs[index], layer.activation)
                        for index in range(layer.depth)
                    ]
                )
            return h

        return call

    def _activation(self, layer: keras.layers.Layer) -> Callable[[Tensor], Tensor]:
        """Returns the layer's activation with a tap before it."""
        activation = layer.activation or keras.activations.linear

        def tapped(a: Tensor) -> Tensor:
            self.calls[id(layer)] += 1
            return self._apply_tapped(layer, a, activation)

        return tapped

    def _output_call(self, layer: keras.layers.Layer) -> Callable[..., Tensor]:
        """Returns `layer.call` with a tap at its output, for layers that hide their pre-activations."""
        original = layer.call

        def call(*args: object, **kwargs: object) -> Tensor:
            outputs = original(*args, **kwargs)
            if not keras.ops.is_tensor(outputs):
                return outputs
            self.calls[id(layer)] += 1
            return self._apply_tapped(layer, outputs, keras.activations.linear)

        return call

    def _apply_tapped(
        self, layer: keras.layers.Layer, a: Tensor, activation: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Taps `a` and applies the activation to it."""
        h = in_precision(activation, self.dtype)(self.tap(a))
        if self.concrete:
            values = to_numpy(a)
            linear = activation is keras.activations.linear
            outputs = values if linear else to_numpy(h)
            self.forward.append([self._measure_forward(layer, None, values, outputs, activation)])
        return h

    def _measure_forward(
        self,
        layer: keras.layers.Layer,
        index: int | None,
        a: Floats,
        h: Floats,
        activation: Callable[[Tensor], Tensor],
    ) -> _ForwardMeasurement:
        return _ForwardMeasurement(
            LayerCall(layer, index, self.calls[id(layer)]),
            log_norm(h),
            float(np.exp(log_norm(a[None])[0])) / np.sqrt(max(a.size, 1)),
            saturated_units(activation, units_last(layer, a)),
        )


def _complete(forward: _ForwardMeasurement, delta: Floats, norms: dict[int, Array]) -> LayerMeasurement:
    """Completes a forward measurement.

    Args:
        forward: The forward measurement.
        delta: Gradient at the pre-activations.
        norms: The kernels' gradient norms, keyed by the variable's id.
    """
    layer_call = forward.layer_call
    kernels = kernels_of(layer_call.layer)
    # A layer with several kernels is tapped behind its last one.
    kernel_norm = norms[id(kernels[-1].variable)][layer_call.index or 0] if kernels else float("nan")
    no_gradient = ~units_last(layer_call.layer, delta).any(axis=0)
    # A unit is dead if its own slope vanishes, or if no gradient arrives from above.
    dead = no_gradient if forward.flat is None else forward.flat | no_gradient
    return LayerMeasurement(
        layer_call,
        forward.forward,
        log_norm(delta),
        forward.rms,
        # The objective is a sum over examples, the loss a mean.
        float(kernel_norm - np.log(len(delta))),
        float(dead.mean()),
    )


@contextlib.contextmanager
def _replace_attribute(layer: keras.layers.Layer, name: str, value: object) -> Iterator[None]:
    """Sets an attribute of a layer, around Keras's bookkeeping, and puts it back as it was."""
    missing = object()
    before = layer.__dict__.get(name, missing)
    layer.__dict__[name] = value
    try:
        yield
    finally:
        if before is missing:
            del layer.__dict__[name]
        else:
            layer.__dict__[name] = before


def _layers_to_tap(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that have a kernel, or hide layers that may have one, each once."""
    found: dict[int, keras.layers.Layer] = {}
    # Without recursion: layers nest to any depth.
    pending, visited = [model], {id(model)}
    while pending:
        layer = pending.pop()
        if kernels_of(layer) or (skip_reason(layer) and not isinstance(layer, keras.layers.Embedding)):
            found[id(layer)] = layer
        if not hides_sublayers(layer):
            below = [x for x in sublayers(layer) if id(x) not in visited]
            visited.update(id(x) for x in below)
            pending.extend(below)
        # Its sublayers are out of reach, so that it is measured as a whole at its output.
        elif layer is not model and sublayers(layer):
            found[id(layer)] = layer
    return list(found.values())
