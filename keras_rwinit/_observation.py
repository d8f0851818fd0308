"""One run of a model, forward and back, seen at every kernel, that leaves the model as it was."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ._activations import theory_activation
from ._autodiff import double_precision, tapped_gradients
from ._kernels import has_own_activation, is_sealed, kernels_of, left_alone, sublayers
from .layers import DenseStack
from .theory import Activation

__all__ = ["Observation", "Site", "log_norm", "observe"]

Array = NDArray[np.float64]
Objective = Callable[[Any], Any]

_FLOAT32_RANGE = 70.0  # nats; the smallest normal number is at -87, and entries are smaller than norms
FLAT = 0.01
"""A unit is dead or saturated where its slope is below this share of the activation's steepest."""


@dataclass(frozen=True)
class Site:
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
    def place(self) -> tuple[int, int]:
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

    site: Site
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


def log_norm(vectors: Any) -> Array:
    """Natural logarithm of the Euclidean norm over all axes but the first, summed in float64; -inf at 0."""
    flat = np.asarray(vectors).reshape(len(vectors), -1)
    with np.errstate(divide="ignore"):
        if flat.dtype != np.float64:
            flat = flat.astype(np.float32, copy=False)  # whose squares float64 can hold, all of them
            return np.asarray(0.5 * np.log(np.einsum("ij,ij->i", flat, flat, dtype=np.float64)))
        largest = np.abs(flat).max(axis=1, initial=0.0)
        scaled = flat / np.where(largest > 0.0, largest, 1.0)[:, None]
        return np.asarray(0.5 * np.log(np.einsum("ij,ij->i", scaled, scaled)) + np.log(largest))


@dataclass
class _Pass:
    """What the way forward showed at a site, before the gradient is known."""

    site: Site
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
            of_kernels, of_taps = tapped_gradients(run, tensors)
        norms = {
            id(variable): _kernel_log_norms(kernel, gradient)
            for (variable, kernel, gradient) in zip(variables, self.kernels.values(), of_kernels, strict=True)
        }
        observations: list[Observation] = []
        for seen, gradient in zip(self.passes, of_taps, strict=True):
            deltas = _to_numpy(gradient)
            deltas = deltas[None] if seen[0].site.index is None else deltas
            observations += [
                self._observation(one, delta, norms) for one, delta in zip(seen, deltas, strict=True)
            ]
        return observations

    def _observation(self, seen: _Pass, delta: Array, norms: dict[int, Array]) -> Observation:
        kernels = kernels_of(seen.site.layer)
        of_kernel = norms[id(kernels[-1].variable)][seen.site.index or 0] if kernels else float("nan")
        units = _units_last(seen.site.layer, delta)
        dead = ~units.any(axis=0) if seen.flat is None else seen.flat | ~units.any(axis=0)
        return Observation(
            seen.site,
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
                        stack.enter_context(_set(layer, "call", _dense_call(layer)))
                else:
                    stack.enter_context(_set(layer, "call", self._call(layer)))
            yield

    def _stack_call(self, layer: DenseStack) -> Callable[..., Any]:
        """`DenseStack.call` with a tap at the pre-activations of all its layers."""
        activation = _in_precision(layer.activation, self.dtype)

        def call(inputs: Any, training: bool | None = None) -> Any:
            self.calls[id(layer)] += 1
            x = keras.ops.cast(inputs, layer.compute_dtype)
            shape = (layer.depth, *x.shape)
            biases = keras.ops.zeros(shape, x.dtype)
            if layer.bias is not None:
                biases = keras.ops.broadcast_to(layer.bias[:, None], shape)
            # Biases of each example's own: their gradient is the gradient at the pre-activations.
            kernel = keras.ops.convert_to_tensor(layer.kernel)
            h, pre_activations = _run_layers(x, kernel, self.tap(biases), activation)
            if self.concrete:
                values = _to_numpy(keras.ops.stack(pre_activations))
                outputs = _to_numpy(activation(keras.ops.convert_to_tensor(values)))
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
        h = _in_precision(activation, self.dtype)(self.tap(a))
        if self.concrete:
            values = _to_numpy(a)
            linear = activation is keras.activations.linear
            outputs = values if linear else _to_numpy(h)
            self.passes.append([self._pass(layer, None, values, outputs, activation)])
        return h

    def _pass(self, layer: Any, index: int | None, a: Any, h: Any, activation: Callable[[Any], Any]) -> _Pass:
        return _Pass(
            Site(layer, index, self.calls[id(layer)]),
            log_norm(h),
            float(np.exp(log_norm(a[None])[0])) / np.sqrt(max(a.size, 1)),
            _flat_units(activation, _units_last(layer, a)),
        )


def _dense_call(layer: Any) -> Callable[..., Any]:
    """`Dense.call` by the tensors' own operators: `keras.ops.matmul` knows no float64 but on TensorFlow."""

    def call(inputs: Any, training: bool | None = None) -> Any:
        a = inputs @ keras.ops.convert_to_tensor(layer.kernel)
        return layer.activation(a if layer.bias is None else a + keras.ops.convert_to_tensor(layer.bias))

    return call


def _run_layers(h: Any, kernels: Any, biases: Any, activation: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Output of the layers of a stack, and their pre-activations, along the first axis."""
    if keras.backend.backend() == "jax":
        import jax

        def step(h: Any, layer: tuple[Any, Any]) -> tuple[Any, Any]:
            a = h @ layer[0] + layer[1]
            return activation(a), a

        output: tuple[Any, Any] = jax.lax.scan(step, h, (kernels, biases))
        return output
    pre_activations = []
    depth = kernels.shape[0]
    for kernel, bias in zip(keras.ops.unstack(kernels, depth), keras.ops.unstack(biases, depth), strict=True):
        pre_activations.append(h @ kernel + bias)
        h = activation(pre_activations[-1])
    return h, pre_activations


def _to_numpy(tensor: Any) -> Any:
    """A tensor as NumPy array of float64 or float32."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


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
        if kernels_of(layer) or (left_alone(layer) and not isinstance(layer, keras.layers.Embedding)):
            found[id(layer)] = layer
        if not is_sealed(layer):
            below = [x for x in sublayers(layer) if id(x) not in seen]
            seen.update(id(x) for x in below)
            pending.extend(below)
        elif layer is not model and sublayers(layer):
            found[id(layer)] = layer
    return list(found.values())


def _kernel_log_norms(kernel: Any, gradient: Any) -> Array:
    if not keras.backend.is_float_dtype(kernel.variable.dtype):  # quantized, and not differentiable
        return np.array([np.nan])
    values = _to_numpy(gradient)
    return log_norm(values if kernel.stacked else values[None])


def _in_precision(activation: Callable[[Any], Any], dtype: str | None) -> Callable[[Any], Any]:
    """`activation` with results of its argument's dtype: on JAX Keras's tanh gives float32 always."""
    if dtype and activation is keras.activations.tanh and keras.backend.backend() == "jax":
        import jax

        return jax.numpy.tanh
    return activation


def _units_last(layer: Any, values: Any) -> Any:
    """A row an example and place, a column a unit or channel."""
    if getattr(layer, "data_format", None) == "channels_first" and values.ndim > 2:
        values = np.moveaxis(values, 1, -1)
    return values.reshape(-1, values.shape[-1])


def _flat_units(activation: Callable[[Any], Any], a: Array) -> NDArray[np.bool_] | None:
    """Which units have next to no slope for any example, at any place; None if nobody knows."""
    if activation is keras.activations.linear:
        return None
    try:
        known = theory_activation(activation)
        steepest = _steepest(known)
    except Exception:  # softmax and others that do not act unit by unit
        return None
    slopes = np.broadcast_to(np.abs(known.slope_at(a)), a.shape)
    return np.asarray((slopes <= FLAT * steepest).all(axis=0))


@lru_cache(maxsize=256)
def _steepest(activation: Activation) -> float:
    return float(np.abs(activation.slope_at(np.linspace(-8.0, 8.0, 1601))).max())
