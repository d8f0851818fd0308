"""Runs a model once, forward and backward, and measures it at every kernel; the model stays as it was."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import in_precision
from keras_rwinit._keras.autodiff import (
    TapKey,
    Tapped,
    double_precision,
    gradients_at_taps,
    has_value,
    uncompiled,
)
from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.threads import replace_function, replace_policy
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._tracing.calls import call_model, observe
from keras_rwinit._tracing.kernels import activates_kernel_output, hides_sublayers, kernels_of, sublayers

from .forward import dense_call, run_layers
from .measurements import LayerCall, LayerMeasurement
from .norms import Array, Floats, Mask, kernel_log_norms, log_norm, saturated_units, to_numpy, units_last
from .objective import Objective

__all__ = ["ModelMeasurement", "measure_layers", "warn_unseen"]

_FLOAT32_RANGE = 70.0  # nats; the smallest normal number is at -87, and entries are smaller than norms
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ModelMeasurement:
    """What was measured at the layers of a model.

    Args:
        layers: The measurements in the order of the calls.
        dtype: Dtype of the computation.
        unseen: Paths of the layers with a call that could not be measured, and why.
    """

    layers: list[LayerMeasurement]
    dtype: str
    unseen: dict[str, str]


def warn_unseen(measurement: ModelMeasurement, stacklevel: int = 2) -> None:
    """Warns, once for all of them, of the layers that could not be measured."""
    reasons = sorted(set(measurement.unseen.values()))
    for_each = [
        f"{', '.join(path for path, reason in measurement.unseen.items() if reason == one)} ({one})"
        for one in reasons
    ]
    if for_each:
        warnings.warn(
            f"Some layers could not be measured, and the rest is: {'; '.join(for_each)}.",
            stacklevel=stacklevel + 1,
        )


def measure_layers(
    model: keras.Model, inputs: ArrayTree, objective: Objective, *, training: bool = False
) -> ModelMeasurement:
    """Runs `model` on `inputs`, differentiates `objective` of its outputs, and measures every layer call.

    It computes in float32, or in float64 if the model does, so that models of low precision are measured
    without their rounding; again in float64 if a norm comes near the ends of float32. A model with a
    layer that can compute in neither runs as it is. Norms are summed in float64. Nothing is compiled or
    rematerialized, and no variable changes; other threads may use the model meanwhile.

    Args:
        model: A built model.
        inputs: NumPy arrays in the structure of the model's inputs.
        objective: A sum over examples of something of the model's outputs.
        training: Whether the model runs as in training.

    Raises:
        ValueError: The inputs leave the range of the dtype inside the model.
    """

    def run(dtype: str | None) -> ModelMeasurement:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            return _run_inline_if_needed(model, inputs, objective, training, dtype)

    with observe(model):
        dtypes = {str(variable.dtype) for variable in model.trainable_variables}
        own_dtype = "float64" if "float64" in dtypes else str(model.compute_dtype)
        # Quantized kernels are integers, which no other dtype makes more precise.
        if any(getattr(layer.dtype_policy, "quantization_mode", None) for layer in model._flatten_layers()):
            return run(None)
        largest = _largest(inputs)
        dtype = "float64" if own_dtype == "float64" or largest > _FLOAT32_MAX else "float32"
        try:
            measurement = run(dtype)
        except Exception as error:  # of a layer's own code, which may insist on its own dtype
            if own_dtype == dtype:
                raise
            try:
                measurement = run(None)
            except Exception:
                raise error from None
        if dtype == "float32" and any(_is_near_the_ends(one) for one in measurement.layers):
            # A layer that knows no float64 keeps the float32 measurement.
            with contextlib.suppress(Exception):
                measurement = run("float64")
        if largest > _FLOAT32_MAX and not all(np.isfinite(one.forward).all() for one in measurement.layers):
            raise ValueError(
                "`x` must be small enough for the signals to stay within the range of the model's dtype. "
                f"Received: values up to {largest:.3g}; scale them, for example to unit variance."
            )
        return measurement


def _largest(inputs: ArrayTree) -> float:
    arrays = (array for array in keras.tree.flatten(inputs) if array is not None)
    return max((float(np.abs(array).max()) for array in arrays if array.dtype.kind == "f"), default=0.0)


def _is_near_the_ends(measurement: LayerMeasurement) -> bool:
    """Returns whether float32 may have lost a norm; the exact zero of a dead unit (-inf) is no loss."""
    values = np.concatenate([measurement.forward, measurement.backward])
    return bool((np.abs(values[values > -np.inf]) > _FLOAT32_RANGE).any())


def _run_inline_if_needed(
    model: keras.Model, inputs: ArrayTree, objective: Objective, training: bool, dtype: str | None
) -> ModelMeasurement:
    """Measures, and on JAX once more operation by operation if compiled functions hide layers."""

    def run(inline: bool) -> ModelMeasurement:
        with uncompiled(inline=inline):
            probe = _Probe(model, inputs, objective, training, dtype)
            return ModelMeasurement(probe.measure(), dtype or str(model.compute_dtype), probe.unseen)

    if keras.backend.backend() != "jax":
        return run(False)
    try:
        first = run(False)
    except Exception as error:
        # What runs in a loop or a compiled function may not be differentiable there.
        try:
            return run(True)
        except Exception:
            raise error from None
    if first.unseen:
        with contextlib.suppress(Exception):
            return run(True)
    return first


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


@dataclass
class _TappedCall:
    """A call of a layer with a tap.

    Args:
        layer: The layer.
        call: Number of the call.
        shape: Shape of what is tapped.
        activation: The function that follows the tap.
        forward: What the forward pass shows, for each layer of a stack; None before it is known.
    """

    layer: keras.layers.Layer
    call: int
    shape: tuple[int, ...]
    activation: Callable[[Tensor], Tensor]
    forward: list[_ForwardMeasurement] | None = None

    @property
    def stacked(self) -> bool:
        return _is_stack(self.layer)

    @property
    def rows(self) -> int | None:
        """Size of the axis along which examples lie."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[0] if shape else None


_TRACED = "runs inside a function that the back end traces or runs again"
_MIXED = "its examples cannot be told apart"


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
        self.examples = _count(inputs)
        self.layers = _layers_to_tap(model)
        kernels = [kernel for layer in self.layers for kernel in kernels_of(layer)]
        # No gradient exists with respect to the integers of a quantized kernel.
        self.kernels = {
            id(kernel.variable): kernel
            for kernel in kernels
            if keras.backend.is_float_dtype(kernel.variable.dtype)
        }
        self.tapped: dict[TapKey, _TappedCall] = {}
        self.unseen: dict[str, str] = {}
        self.calls: Counter[int] = Counter()
        self.tap: Callable[[Tensor, TapKey], Tensor]
        self.concrete = False

    def measure(self) -> list[LayerMeasurement]:
        """Runs the model forward and backward and combines the measurements of both passes."""
        variables = [kernel.variable for kernel in self.kernels.values()]
        with self._install_taps():
            kernel_gradients, found = gradients_at_taps(self._run, [self._to_tensor(v) for v in variables])
            norms = {
                id(kernel.variable): kernel_log_norms(kernel, gradient)
                for kernel, gradient in zip(self.kernels.values(), kernel_gradients, strict=True)
            }
            # A call whose output nothing uses, beside others of its layer, was made for its shape.
            used = {key.owner for key, tapped in found.items() if tapped is not None and tapped.used}
            seen = {
                key: tapped
                for key, tapped in found.items()
                if tapped is not None and (tapped.used or key.owner not in used)
            }
            for key, tapped in found.items():
                if tapped is None:
                    self._leave_out(key, _TRACED)
            for key in self._mixed(seen):
                self._leave_out(key, _MIXED)
                del seen[key]
        return [one for key, tapped in seen.items() for one in self._complete(key, tapped, norms)]

    def _leave_out(self, key: TapKey, reason: str) -> None:
        self.unseen[self.tapped[key].layer.path] = reason

    def _mixed(self, found: dict[TapKey, Tapped]) -> list[TapKey]:
        """Returns the taps at which the examples do not lie along the first axis, one after another.

        A layer may see windows of each example as examples, shape (examples * windows, ...). They belong to
        the examples in their order if a batch in reverse order gives the same in reverse order.
        """
        sizes = {key: self.tapped[key].rows for key in found}
        apart = [key for key, rows in sizes.items() if rows is None or rows % self.examples or not rows]
        merged = [key for key, rows in sizes.items() if key not in apart and rows != self.examples]
        if not merged or self.examples == 1:
            return apart
        there, back = self._values(merged, reverse=False), self._values(merged, reverse=True)
        for key in merged:
            if key not in there or key not in back or not self._agree(key, there[key], back[key]):
                apart.append(key)
        return apart

    def _agree(self, key: TapKey, there: Floats, back: Floats) -> bool:
        """Returns whether values are those of another run, example by example in reverse order."""
        if there.shape != back.shape:
            return False
        axis = 1 if self.tapped[key].stacked else 0
        shape = (*there.shape[:axis], self.examples, -1, *there.shape[axis + 1 :])
        one, other = there.reshape(shape), np.flip(back.reshape(shape), axis)
        scale = float(np.abs(one).max(initial=0.0))
        return bool(np.allclose(one, other, rtol=0.0, atol=1e-3 * scale))

    def _values(self, keys: Sequence[TapKey], *, reverse: bool) -> dict[TapKey, Floats]:
        """Returns the tapped values of a run at inference."""
        values: dict[TapKey, Floats] = {}

        def look(value: Tensor, key: TapKey) -> Tensor:
            if key in keys and has_value(value):
                values[key] = to_numpy(value)
            return value

        tensors = [self._to_tensor(kernel.variable) for kernel in self.kernels.values()]
        inputs, objective, training = self.inputs, self.objective, self.training
        try:
            if reverse:
                self.inputs = _map_arrays(lambda array: np.ascontiguousarray(array[::-1]), inputs)
            self.objective, self.training = (lambda outputs: outputs), False
            self._run(tensors, look, False)
        finally:
            self.inputs, self.objective, self.training = inputs, objective, training
        return values

    def _run(
        self, tensors: Sequence[Tensor], tap: Callable[[Tensor, TapKey], Tensor], concrete: bool
    ) -> Tensor:
        """Returns the objective, with `tensors` in place of the kernels."""
        self.tap, self.concrete = tap, concrete
        self.calls.clear()
        # The model computes with copies of its variables in `dtype`; none of its own is assigned to. Each run
        # has its own scope, since layers such as Dropout advance their state in it.
        scope = keras.StatelessScope()
        for variable in self.model.variables:
            scope.add_update((variable, self._to_tensor(variable)))
        for kernel, tensor in zip(self.kernels.values(), tensors, strict=True):
            scope.add_update((kernel.variable, tensor))
        inputs = _map_arrays(self._convert_input, self.inputs)
        with scope:
            return self.objective(call_model(self.model, inputs, training=self.training))

    def _to_tensor(self, variable: keras.Variable) -> Tensor:
        if self.dtype and keras.backend.is_float_dtype(variable.dtype):
            return keras.ops.cast(variable.value, self.dtype)
        return keras.ops.convert_to_tensor(variable.value)

    def _convert_input(self, array: NDArray[np.generic]) -> Tensor:
        is_float = np.issubdtype(array.dtype, np.floating)
        return keras.ops.convert_to_tensor(array, self.dtype or "float32" if is_float else str(array.dtype))

    @contextlib.contextmanager
    def _install_taps(self) -> Iterator[None]:
        """Puts the taps in place and the layers into `dtype`, for this thread, and takes all of it back."""
        with contextlib.ExitStack() as stack:

            def replace(layer: keras.layers.Layer, name: str, function: Callable[..., Any]) -> None:
                stack.enter_context(replace_function(layer, name, function))

            for layer in self.model._flatten_layers():
                if layer._remat_mode is not None:
                    replace(layer, "rematerialized_call", lambda call, *args, **kwargs: call)
            # Each layer is replaced as it was made, before any other replacement of its own.
            calls = [(layer, self._tapped_call(layer)) for layer in self.layers]
            if self.dtype:
                policy = keras.DTypePolicy(self.dtype)
                for layer in self.model._flatten_layers():
                    if keras.backend.is_float_dtype(layer.compute_dtype):
                        stack.enter_context(replace_policy(layer, policy))
            for layer, functions in calls:
                for name, function in functions.items():
                    replace(layer, name, function)
            yield

    def _tapped_call(self, layer: keras.layers.Layer) -> dict[str, Callable[..., Tensor]]:
        """Returns the functions of a layer that a tap replaces, by their names."""
        if _is_stack(layer):
            return {"call": self._stack_call(layer)}
        if not activates_kernel_output(layer) or "call" in vars(layer):
            return {"call": self._output_call(layer, layer.call)}
        # The layer itself keeps its activation: other threads use it.
        stand_in = object.__new__(type(layer))
        vars(stand_in).update(vars(layer))
        vars(stand_in)["activation"] = self._activation(layer)
        if self.dtype:
            vars(stand_in)["_dtype_policy"] = keras.DTypePolicy(self.dtype)
        # Keras's own Dense would round the product to float32 on some back ends.
        if self.dtype == "float64" and type(layer) is keras.layers.Dense:
            return {"call": dense_call(stand_in)}
        return {"call": stand_in.call, "quantized_call": stand_in.quantized_call}

    def _key(self, layer: keras.layers.Layer) -> TapKey:
        """Returns the key of the next call of a layer."""
        self.calls[id(layer)] += 1
        return TapKey(id(layer), self.calls[id(layer)])

    def _stack_call(self, layer: keras.layers.Layer) -> Callable[..., Tensor]:
        """Returns the `call` of a stack of Dense layers with a tap at the pre-activations of all of them."""
        (stack,) = kernels_of(layer)
        activation = in_precision(layer.activation, self.dtype)

        def call(inputs: Tensor, training: bool | None = None) -> Tensor:
            key = self._key(layer)
            x = keras.ops.cast(inputs, layer.compute_dtype)
            # Each example gets biases of its own: their gradient is the gradient at its pre-activations.
            shape = (stack.stacked, *x.shape)
            biases = keras.ops.zeros(shape, x.dtype)
            if layer.bias is not None:
                bias = keras.ops.convert_to_tensor(layer.bias)
                between = (1,) * (len(shape) - 2)
                biases = keras.ops.broadcast_to(
                    keras.ops.reshape(bias, (stack.stacked, *between, shape[-1])), shape
                )
            if self.concrete:
                self.tapped[key] = _TappedCall(layer, key.number, shape, activation)
            kernel = keras.ops.convert_to_tensor(layer.kernel)  # with its low-rank update, if it has one
            h, pre_activations = run_layers(x, kernel, self.tap(biases, key), activation)
            if self.concrete and has_value(pre_activations):
                # The loop keeps no outputs; they follow from the pre-activations.
                self._measure_forward(key, pre_activations)
            return h

        return call

    def _activation(self, layer: keras.layers.Layer) -> Callable[[Tensor], Tensor]:
        """Returns the layer's activation with a tap before it."""
        activation = layer.activation or keras.activations.linear

        def tapped(a: Tensor) -> Tensor:
            return self._apply_tapped(layer, a, activation)

        return tapped

    def _output_call(
        self, layer: keras.layers.Layer, original: Callable[..., ArrayTree]
    ) -> Callable[..., ArrayTree]:
        """Returns `layer.call` with a tap at its output, for layers that hide their pre-activations."""

        def call(*args: object, **kwargs: object) -> ArrayTree:
            outputs = original(*args, **kwargs)
            # The others are attention scores, states and the like.
            several = type(outputs) in (list, tuple) and len(outputs) > 0
            first = outputs[0] if several else outputs
            if not keras.ops.is_tensor(first) or not keras.backend.is_float_dtype(first.dtype):
                return outputs
            tapped = self._apply_tapped(layer, first, keras.activations.linear)
            return type(outputs)((tapped, *outputs[1:])) if several else tapped

        return call

    def _apply_tapped(
        self, layer: keras.layers.Layer, a: Tensor, activation: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Taps `a` and applies the activation to it."""
        key = self._key(layer)
        if self.concrete:
            self.tapped[key] = _TappedCall(layer, key.number, tuple(a.shape), activation)
        h = in_precision(activation, self.dtype)(self.tap(a, key))
        if self.concrete and has_value(a):
            self._measure_forward(key, a, h)
        return h

    def _measure_forward(self, key: TapKey, a: Tensor, h: Tensor | None = None) -> None:
        """Notes what the pre-activations, and the outputs where they are known, show."""
        tapped = self.tapped[key]
        if tapped.rows is None or tapped.rows % self.examples:
            return
        activation = tapped.activation
        values = to_numpy(a)
        if activation is keras.activations.linear:
            outputs = values
        elif h is None:
            outputs = to_numpy(in_precision(activation, self.dtype)(keras.ops.convert_to_tensor(values)))
        else:
            outputs = to_numpy(h)
        layers = (
            [(None, values, outputs)]
            if not tapped.stacked
            else list(zip(range(len(values)), values, outputs, strict=True))
        )
        tapped.forward = [
            _ForwardMeasurement(
                LayerCall(tapped.layer, index, tapped.call),
                log_norm(_by_example(output, self.examples)),
                float(np.exp(log_norm(value[None])[0])) / np.sqrt(max(value.size, 1)),
                saturated_units(activation, units_last(tapped.layer, value)),
            )
            for index, value, output in layers
        ]

    def _complete(self, key: TapKey, found: Tapped, norms: dict[int, Array]) -> list[LayerMeasurement]:
        """Completes the forward measurements of a call by the gradient."""
        tapped = self.tapped[key]
        if found.value is not None:
            self._measure_forward(key, found.value)
        if tapped.forward is None:
            self._leave_out(key, _TRACED)
            return []
        deltas = to_numpy(found.gradient)
        # Give every tap the layer axis that the tap of a stack has.
        deltas = deltas if tapped.stacked else deltas[None]
        return [
            _complete(forward, delta, norms, self.examples)
            for forward, delta in zip(tapped.forward, deltas, strict=True)
        ]


def _is_stack(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is a stack; one in a wrapper runs out of sight."""
    return any(kernel.stacked and kernel.layer is layer for kernel in kernels_of(layer))


def _by_example(values: Floats, examples: int) -> Floats:
    """Returns a row for each example, of which there may be several along the first axis."""
    return values.reshape(examples, -1)


def _complete(
    forward: _ForwardMeasurement, delta: Floats, norms: dict[int, Array], examples: int
) -> LayerMeasurement:
    """Completes a forward measurement.

    Args:
        forward: The forward measurement.
        delta: Gradient at the pre-activations.
        norms: The kernels' gradient norms, keyed by the variable's id.
        examples: Number of examples.
    """
    layer_call = forward.layer_call
    kernels = kernels_of(layer_call.layer)
    # A layer with several kernels is tapped behind its last one.
    norm = norms.get(id(kernels[-1].variable)) if kernels else None
    kernel_norm = float("nan") if norm is None else norm[layer_call.key.stack_index]
    no_gradient = ~units_last(layer_call.layer, delta).any(axis=0)
    # A unit is dead if its own slope vanishes, or if no gradient arrives from above.
    dead = no_gradient if forward.flat is None else forward.flat | no_gradient
    return LayerMeasurement(
        layer_call,
        forward.forward,
        log_norm(_by_example(delta, examples)),
        forward.rms,
        # The objective is a sum over examples, the loss a mean.
        float(kernel_norm - np.log(examples)),
        float(dead.mean()),
    )


def _map_arrays(function: Callable[[NDArray[np.generic]], Any], inputs: ArrayTree) -> ArrayTree:
    """Returns `function` of every array; an input that is left out is None."""
    return keras.tree.map_structure(lambda array: None if array is None else function(array), inputs)


def _count(inputs: ArrayTree) -> int:
    return next(len(array) for array in keras.tree.flatten(inputs) if array is not None)


def _layers_to_tap(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that have a kernel, or hide layers that may have one, each once."""
    found: dict[int, keras.layers.Layer] = {}
    # Without recursion: layers nest to any depth.
    pending, visited = [model], {id(model)}
    while pending:
        layer = pending.pop()
        if kernels_of(layer) or layer_kind(layer).measured:
            found[id(layer)] = layer
        if not hides_sublayers(layer):
            below = [x for x in sublayers(layer) if id(x) not in visited]
            visited.update(id(x) for x in below)
            pending.extend(below)
        # Its sublayers are out of reach, so that it is measured as a whole at its output.
        elif layer is not model and sublayers(layer):
            found[id(layer)] = layer
    return list(found.values())
