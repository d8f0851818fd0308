"""Puts taps at the kernels of a live model, for one thread, and measures what passes them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_rwinit._keras.activations import in_precision
from keras_rwinit._keras.autodiff import TapKey
from keras_rwinit._keras.execution import has_value
from keras_rwinit._keras.layer_kinds import activates_kernel_output, layer_kind
from keras_rwinit._keras.threads import replace_function, replace_policy
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._tracing.kernels import kernels_of, sublayers

from .forward import dense_call, layer_groups, run_layers, run_quantized_layers
from .measurements import ForwardMeasurement, LayerCall
from .norms import Floats, to_numpy

__all__ = ["TappedCall", "Taps", "layers_to_tap"]

Tap = Callable[[Tensor, TapKey], Tensor]


@dataclass(eq=False)
class TappedCall:
    """A call of a layer with a tap.

    Args:
        layer: The layer.
        call: Number of the call.
        shape: Shape of what is tapped.
        activation: The function that follows the tap.
        forward: What the forward pass shows, group by group of a stack's layers; None before it is known.
    """

    layer: keras.layers.Layer
    call: int
    shape: tuple[int, ...]
    activation: Callable[[Tensor], Tensor]
    forward: list[ForwardMeasurement] | None = None

    @property
    def stacked(self) -> bool:
        """Whether the first axis of what is tapped counts layers."""
        return _is_stack(self.layer)

    @property
    def rows(self) -> int | None:
        """Size of the axis along which examples lie."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[0] if shape else None


class Taps:
    """Taps at the calls of layers: intermediate values at which a gradient is taken.

    Args:
        model: The model.
        layers: The layers to tap; see `layers_to_tap`.
        dtype: Dtype in which the model runs; None for its own.
        examples: Number of examples.
    """

    def __init__(
        self, model: keras.Model, layers: Sequence[keras.layers.Layer], dtype: str | None, examples: int
    ) -> None:
        self.model, self.layers, self.dtype, self.examples = model, layers, dtype, examples
        self.calls: dict[TapKey, TappedCall] = {}
        self.called: set[int] = set()
        """Ids of the layers that were called, with a tap or without."""
        self._counts: Counter[int] = Counter()
        self._tap: Tap
        self._concrete = False

    def begin(self, tap: Tap, *, concrete: bool) -> None:
        """Begins a run of the model.

        Args:
            tap: What each tapped value passes through.
            concrete: Whether the run shows shapes and values, which `calls` then keeps.
        """
        self._tap, self._concrete = tap, concrete
        self._counts.clear()

    @contextlib.contextmanager
    def install(self) -> Iterator[None]:
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

    def measure_forward(self, key: TapKey, a: Tensor, h: Tensor | None = None, first: int = 0) -> None:
        """Notes what the pre-activations, and the outputs where they are known, show.

        Args:
            key: The tapped call.
            a: Pre-activations; of a stack, those of its layers from `first` on.
            h: Outputs; None for the activation of `a`.
            first: The first layer of a stack; those before it have been noted.
        """
        call = self.calls[key]
        if call.rows is None or call.rows % self.examples:
            return
        values = to_numpy(a)
        outputs = None if h is None else to_numpy(h)
        if not call.stacked:
            outputs = self._activate(call.activation, values) if outputs is None else outputs
            values, outputs = values[None], outputs[None]
        kernels = kernels_of(call.layer)
        if call.forward is None or not first:
            call.forward = []
        for layers in layer_groups(values.shape):
            indices = range(first, first + len(values))[layers] if call.stacked else (None,)
            calls = [LayerCall(call.layer, kernels, index, call.call) for index in indices]
            seen = values[layers]
            activated = self._activate(call.activation, seen) if outputs is None else outputs[layers]
            call.forward.append(ForwardMeasurement.of(calls, seen, activated, call.activation, self.examples))

    def _activate(self, activation: Callable[[Tensor], Tensor], values: Floats) -> Floats:
        """Returns the outputs of layers by their pre-activations."""
        if activation is keras.activations.linear:
            return values
        return to_numpy(in_precision(activation, self.dtype)(keras.ops.convert_to_tensor(values)))

    def _tapped_call(self, layer: keras.layers.Layer) -> dict[str, Callable[..., Tensor]]:
        """Returns the functions of a layer that a tap replaces, by their names."""
        if _is_stack(layer):
            call = self._stack_call(layer)
            return {"call": call, "quantized_call": call}
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

    def _next_key(self, layer: keras.layers.Layer) -> TapKey:
        """Returns the key of the next call of a layer."""
        self.called.add(id(layer))
        self._counts[id(layer)] += 1
        return TapKey(id(layer), self._counts[id(layer)])

    def _stack_call(self, layer: keras.layers.Layer) -> Callable[..., Tensor]:
        """Returns the call of a stack of Dense layers with a tap at the pre-activations of all of them."""
        (stack,) = kernels_of(layer)
        activation = in_precision(layer.activation, self.dtype)

        def call(inputs: Tensor, training: bool | None = None) -> Tensor:
            key = self._next_key(layer)
            x = keras.ops.cast(inputs, layer.compute_dtype)
            # Each example gets biases of its own: their gradient is the gradient at its pre-activations.
            shape = (stack.stacked, *x.shape)
            if layer.bias is None:
                biases = keras.ops.zeros(shape, x.dtype)
            else:
                bias = keras.ops.cast(layer.bias, x.dtype)
                between = (1,) * (len(shape) - 2)
                biases = keras.ops.broadcast_to(
                    keras.ops.reshape(bias, (stack.stacked, *between, shape[-1])), shape
                )
            if self._concrete:
                self.calls[key] = TappedCall(layer, key.number, shape, activation)
            biases = self._tap(biases, key)
            if layer.quantization_mode:
                h, parts = run_quantized_layers(layer, x, biases, activation)
            else:
                kernel = keras.ops.convert_to_tensor(layer.kernel)  # with its low-rank update, if it has one
                h, parts = run_layers(x, kernel, biases, activation)
            if self._concrete and has_value(h):
                # The loop keeps no outputs; they follow from the pre-activations.
                measured = 0
                for part in parts:
                    self.measure_forward(key, part, first=measured)
                    measured += len(part)
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
            self.called.add(id(layer))
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
        key = self._next_key(layer)
        if self._concrete:
            self.calls[key] = TappedCall(layer, key.number, tuple(a.shape), activation)
        h = in_precision(activation, self.dtype)(self._tap(a, key))
        if self._concrete and has_value(a):
            self.measure_forward(key, a, h)
        return h


def _is_stack(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is a stack; one in a wrapper runs out of sight."""
    return any(kernel.stacked and kernel.layer is layer for kernel in kernels_of(layer))


def layers_to_tap(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers that have a kernel, or hide layers that may have one, each once."""
    found: dict[int, keras.layers.Layer] = {}
    # Without recursion: layers nest to any depth.
    pending, visited = [model], {id(model)}
    while pending:
        layer = pending.pop()
        if kernels_of(layer) or layer_kind(layer).measured:
            found[id(layer)] = layer
        if not layer_kind(layer).hides_sublayers:
            below = [x for x in sublayers(layer) if id(x) not in visited]
            visited.update(id(x) for x in below)
            pending.extend(below)
        # Its sublayers are out of reach, so that it is measured as a whole at its output.
        elif layer is not model and sublayers(layer):
            found[id(layer)] = layer
    return list(found.values())
