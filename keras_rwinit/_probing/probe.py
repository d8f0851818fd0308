"""One run of a model, forward and back, seen at every kernel, that leaves the model as it was."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.autodiff import double_precision, gradients_at_taps
from keras_rwinit._tracing.kernels import (
    has_own_activation,
    hides_sublayers,
    kernels_of,
    skip_reason,
    sublayers,
)
from keras_rwinit.layers import DenseStack

from .layer_calls import dense_call, in_precision, run_layers
from .norms import flat_units, kernel_log_norms, log_norm, to_numpy, units_last

__all__ = ["LayerCall", "Observation", "observe"]

Array = NDArray[np.float64]
Objective = Callable[[Any], Any]

_FLOAT32_RANGE = 70.0  # nats; the smallest normal number is at -87, and entries are smaller than norms


@dataclass(frozen=True)
class LayerCall:
    """Where in a model a kernel was applied: the layer, which of a stack, the how-manieth call."""

    layer: Any
    index: int | None
    call: int

    @property
    def name(self) -> str:
        """The layer's name, `[index]` in a stack, `#2` and so on for further calls of a shared layer."""
        return f"{self.layer.name}{self._suffix}"

    @property
    def full_name(self) -> str:
        """Likewise with the layer's path, which tells layers of the same name apart."""
        return f"{self.layer.path}{self._suffix}"

    @property
    def step_key(self) -> tuple[int, int]:
        """What a step of the model's graph is known by: the layer that has the kernel, and the call."""
        kernels = kernels_of(self.layer)
        return id(kernels[-1].layer if kernels else self.layer), self.call

    @property
    def _suffix(self) -> str:
        index = "" if self.index is None else f"[{self.index}]"
        return index + (f"#{self.call}" if self.call > 1 else "")


@dataclass(frozen=True)
class Observation:
    """What was seen at one site.

    Args:
        site: Where.
        forward: `ln|h|` of the layer's output, shape (examples,).
        backward: `ln|delta|` of the gradient at the pre-activations, shape (examples,).
        scale: Root mean square of the pre-activations over everything.
        weight_gradient: ln of the norm of the kernel's gradient of the mean loss.
        dead: Share of the units that are dead or saturated for every example.
    """

    layer_call: LayerCall
    forward: Array
    backward: Array
    scale: float
    weight_gradient: float
    dead: float


def observe(
    model: keras.Model, inputs: Any, objective: Objective, training: bool = False
) -> tuple[list[Observation], str]:
    """Runs `model` on `inputs`, differentiates `objective` of its outputs, and says what it saw.

    In float32, or float64 if the model is, so that low-precision models are seen without their rounding;
    again in float64 if a norm comes near the ends of float32. A model with a layer that can compute in
    neither runs as it is. Norms are summed in float64. Nothing is compiled, and no variable changes.

    Args:
        model: A built model.
        inputs: NumPy arrays in the structure of the model's inputs.
        objective: A sum over examples of something of the model's outputs.
        training: Whether the model runs as in training.

    Returns:
        The observations in the order of the calls, and the dtype of the computation.
    """

    def run(dtype: str | None) -> list[Observation]:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            return _Run(model, inputs, objective, training, dtype).observations()

    dtypes = {str(variable.dtype) for variable in model.trainable_variables}
    own = "float64" if "float64" in dtypes else str(model.compute_dtype)
    if any(getattr(layer.dtype_policy, "quantization_mode", None) for layer in model._flatten_layers()):
        return run(None), own
    dtype = "float64" if own == "float64" else "float32"
    try:
        seen = run(dtype)
    except Exception as error:  # of a layer's own code, which may insist on its own dtype
        if own == dtype:
            raise
        try:
            return run(None), own
        except Exception:
            raise error from None
    if dtype == "float32" and any(_near_the_ends(one) for one in seen):
        with contextlib.suppress(Exception):
            return run("float64"), "float64"
    return seen, dtype


def _near_the_ends(seen: Observation) -> bool:
    """Whether float32 may have lost a norm; a dead unit's zero, which comes at once, is none of those."""
    values = np.concatenate([seen.forward, seen.backward])
    return bool((np.abs(values[values > -np.inf]) > _FLOAT32_RANGE).any())


@dataclass
class _Pass:
    """What the way forward showed at a site, before the gradient is known."""

    layer_call: LayerCall
    forward: Array
    scale: float
    flat: NDArray[np.bool_] | None


class _Run:
    """One forward and backward pass with the kernels' layers wrapped."""

    def __init__(
        self, model: keras.Model, inputs: Any, objective: Objective, training: bool, dtype: str | None
    ) -> None:
        self.model, self.inputs, self.objective, self.training = model, inputs, objective, training
        self.dtype = dtype
        self.layers = _watched(model)
        kernels = [kernel for layer in self.layers for kernel in kernels_of(layer)]
        self.kernels = {id(kernel.variable): kernel for kernel in kernels}
        self.passes: list[list[_Pass]] = []  # by tap; that of a stack is of all its layers
        self.calls: Counter[int] = Counter()
        self.tap: Any = None
        self.concrete = False

    def observations(self) -> list[Observation]:
        variables = [kernel.variable for kernel in self.kernels.values()]
        scope = keras.StatelessScope()
        for variable in self.model.variables:
            if self.dtype and keras.backend.is_float_dtype(variable.dtype):
                scope.add_update((variable, self._tensor(variable)))
        tensors = [scope.get_current_value(v) if self.dtype else self._tensor(v) for v in variables]
        inputs = keras.tree.map_structure(self._input, self.inputs)

        def run(tensors: Sequence[Any], tap: Any, concrete: bool) -> Any:
            self.tap, self.concrete = tap, concrete
            self.calls.clear()
            for variable, tensor in zip(variables, tensors, strict=True):
                scope.add_update((variable, tensor))
            with scope:
                return self.objective(self.model(inputs, training=self.training))

        with self._wrapped():
            of_kernels, of_taps = gradients_at_taps(run, tensors)
        norms = {
            id(variable): kernel_log_norms(kernel, gradient)
            for (variable, kernel, gradient) in zip(variables, self.kernels.values(), of_kernels, strict=True)
        }
        observations: list[Observation] = []
        for seen, gradient in zip(self.passes, of_taps, strict=True):
            deltas = to_numpy(gradient)
            deltas = deltas[None] if seen[0].layer_call.index is None else deltas
            observations += [
                self._observation(one, delta, norms) for one, delta in zip(seen, deltas, strict=True)
            ]
        return observations

    def _observation(self, seen: _Pass, delta: Array, norms: dict[int, Array]) -> Observation:
        kernels = kernels_of(seen.layer_call.layer)
        of_kernel = norms[id(kernels[-1].variable)][seen.layer_call.index or 0] if kernels else float("nan")
        units = units_last(seen.layer_call.layer, delta)
        dead = ~units.any(axis=0) if seen.flat is None else seen.flat | ~units.any(axis=0)
        return Observation(
            seen.layer_call,
            seen.forward,
            log_norm(delta),
            seen.scale,
            float(of_kernel - np.log(len(delta))),
            float(dead.mean()),
        )

    def _tensor(self, variable: Any) -> Any:
        floats = keras.backend.is_float_dtype(variable.dtype)
        return keras.ops.cast(variable.value, self.dtype if self.dtype and floats else variable.dtype)

    def _input(self, array: NDArray[Any]) -> Any:
        floats = np.issubdtype(array.dtype, np.floating)
        return keras.ops.convert_to_tensor(array, self.dtype or "float32" if floats else str(array.dtype))

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Puts the taps in place and the layers into `dtype`, and takes all of it back."""
        with contextlib.ExitStack() as stack:
            if self.dtype:
                policy = keras.DTypePolicy(self.dtype)
                for layer in self.model._flatten_layers():
                    if keras.backend.is_float_dtype(layer.compute_dtype):
                        stack.enter_context(_set(layer, "_dtype_policy", policy))
            for layer in self.layers:
                if isinstance(layer, DenseStack):
                    stack.enter_context(_set(layer, "call", self._stack_call(layer)))
                elif has_own_activation(layer):
                    stack.enter_context(_set(layer, "activation", self._activation(layer)))
                    if self.dtype == "float64" and type(layer) is keras.layers.Dense:
                        stack.enter_context(_set(layer, "call", dense_call(layer)))
                else:
                    stack.enter_context(_set(layer, "call", self._call(layer)))
            yield

    def _stack_call(self, layer: DenseStack) -> Callable[..., Any]:
        """`DenseStack.call` with a tap at the pre-activations of all its layers."""
        activation = in_precision(layer.activation, self.dtype)

        def call(inputs: Any, training: bool | None = None) -> Any:
            self.calls[id(layer)] += 1
            x = keras.ops.cast(inputs, layer.compute_dtype)
            shape = (layer.depth, *x.shape)
            biases = keras.ops.zeros(shape, x.dtype)
            if layer.bias is not None:
                biases = keras.ops.broadcast_to(layer.bias[:, None], shape)
            # Biases of each example's own: their gradient is the gradient at the pre-activations.
            kernel = keras.ops.convert_to_tensor(layer.kernel)
            h, pre_activations = run_layers(x, kernel, self.tap(biases), activation)
            if self.concrete:
                values = to_numpy(keras.ops.stack(pre_activations))
                outputs = to_numpy(activation(keras.ops.convert_to_tensor(values)))
                self.passes.append(
                    [
                        self._pass(layer, index, values[index], outputs[index], layer.activation)
                        for index in range(layer.depth)
                    ]
                )
            return h

        return call

    def _activation(self, layer: Any) -> Callable[[Any], Any]:
        activation = layer.activation or keras.activations.linear

        def tapped(a: Any) -> Any:
            self.calls[id(layer)] += 1
            return self._at(layer, a, activation)

        return tapped

    def _call(self, layer: Any) -> Callable[..., Any]:
        """A layer whose pre-activations cannot be had is tapped at its output."""
        original = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            if not keras.ops.is_tensor(outputs):
                return outputs
            self.calls[id(layer)] += 1
            return self._at(layer, outputs, keras.activations.linear)

        return call

    def _at(self, layer: Any, a: Any, activation: Callable[[Any], Any]) -> Any:
        h = in_precision(activation, self.dtype)(self.tap(a))
        if self.concrete:
            values = to_numpy(a)
            linear = activation is keras.activations.linear
            outputs = values if linear else to_numpy(h)
            self.passes.append([self._pass(layer, None, values, outputs, activation)])
        return h

    def _pass(self, layer: Any, index: int | None, a: Any, h: Any, activation: Callable[[Any], Any]) -> _Pass:
        return _Pass(
            LayerCall(layer, index, self.calls[id(layer)]),
            log_norm(h),
            float(np.exp(log_norm(a[None])[0])) / np.sqrt(max(a.size, 1)),
            flat_units(activation, units_last(layer, a)),
        )


@contextlib.contextmanager
def _set(layer: Any, name: str, value: Any) -> Iterator[None]:
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


def _watched(model: keras.Model) -> list[Any]:
    """The layers to tap, each once: all that have a kernel and are not inside a sealed layer."""
    found: dict[int, Any] = {}
    pending, seen = [model], {id(model)}
    while pending:
        layer = pending.pop()
        if kernels_of(layer) or (skip_reason(layer) and not isinstance(layer, keras.layers.Embedding)):
            found[id(layer)] = layer
        if not hides_sublayers(layer):
            below = [x for x in sublayers(layer) if id(x) not in seen]
            seen.update(id(x) for x in below)
            pending.extend(below)
        elif layer is not model and sublayers(layer):
            found[id(layer)] = layer
    return list(found.values())
