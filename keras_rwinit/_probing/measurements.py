"""Records of what a model's layers did: which call of which layer, its signals' norms, its dead units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import keras
import numpy as np

from keras_rwinit._keras.types import Tensor
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import Kernel

from .norms import Array, Floats, Mask, log_norm, saturated_units, units_last
from .pairs import gram_matrices, mean_correlations

__all__ = ["CallKey", "ForwardMeasurement", "LayerCall", "LayerMeasurement"]


class CallKey(NamedTuple):
    """Identifies one application of a kernel, in measurements and in the traced model alike.

    Args:
        layer_id: `id` of the layer that has the kernel.
        call: Number of the call of that layer, from 1.
        stack_index: Which layer of a `DenseStack`, from 0; 0 for other layers.
    """

    layer_id: int
    call: int
    stack_index: int = 0

    @classmethod
    def of(cls, context: KernelContext) -> CallKey:
        """Returns the key of a traced kernel."""
        return cls(id(context.step.operation), context.call, context.kernel.index or 0)


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer.

    Args:
        layer: The layer.
        kernels: Its kernels; see `kernels_of`.
        index: Which layer of a `DenseStack`, from 0; None for other layers.
        call: Number of the call of that layer in the model, from 1.
    """

    layer: keras.layers.Layer
    kernels: Sequence[Kernel]
    index: int | None
    call: int

    @property
    def name(self) -> str:
        """The layer's name, then `[index]` in a stack, then `#2` and so on for further calls."""
        return f"{self.layer.name}{self._suffix}"

    @property
    def full_name(self) -> str:
        """`name` with the layer's path, which tells layers of the same name apart."""
        return f"{self.layer.path}{self._suffix}"

    @cached_property
    def key(self) -> CallKey:
        """The key that the same call has in the traced model."""
        # The kernel of a wrapper such as TimeDistributed belongs to the layer inside.
        if not self.kernels:
            return CallKey(id(self.layer), self.call)
        # A wrapped stack is measured at its output, which is the last layer's.
        last = self.kernels[-1]
        index = max(last.stacked - 1, 0) if self.index is None else self.index
        return CallKey(id(last.layer), self.call, index)

    @property
    def _suffix(self) -> str:
        index = "" if self.index is None else f"[{self.index}]"
        return index + (f"#{self.call}" if self.call > 1 else "")


@dataclass(frozen=True, eq=False)
class LayerMeasurement:
    """What was measured at one call of a layer.

    Args:
        layer_call: The call.
        forward: `ln|h|` of the layer's output, shape (examples,).
        backward: `ln|delta|` of the gradient at the pre-activations, shape (examples,).
        rms: Root mean square of the pre-activations over examples and units.
        weight_gradient: ln of the norm of the kernel's gradient of the mean loss.
        dead: Share of the units that are dead or saturated for every example.
        forward_correlation: Mean cosine of different examples' outputs; nan for a single example.
        backward_correlation: The same of their gradients.
        gram: Inner products of the examples' outputs; see `gram_matrices`.
    """

    layer_call: LayerCall
    forward: Array
    backward: Array
    rms: float
    weight_gradient: float
    dead: float
    forward_correlation: float
    backward_correlation: float
    gram: Array


@dataclass(frozen=True, eq=False)
class ForwardMeasurement:
    """What the forward pass shows at some layers of one kind, before the gradient is known.

    The arrays have an axis of the layers, which are those of a stack, or one.

    Args:
        layer_calls: The calls of the layers.
        forward: `ln|h|` of the layers' outputs, shape (layers, examples).
        rms: Root mean square of the pre-activations, shape (layers,).
        flat: Units with next to no slope for any example, shape (layers, units); None where it is unknown.
        correlation: Mean cosine of different examples' outputs, shape (layers,).
        grams: Inner products of the examples' outputs, shape (layers, examples, examples).
    """

    layer_calls: Sequence[LayerCall]
    forward: Array
    rms: Array
    flat: Mask | None
    correlation: Array
    grams: Array

    @classmethod
    def of(
        cls,
        layer_calls: Sequence[LayerCall],
        pre_activations: Floats,
        outputs: Floats,
        activation: Callable[[Tensor], Tensor],
        examples: int,
    ) -> ForwardMeasurement:
        """Measures layers; the arrays hold one or several rows for each example, after the axis of layers."""
        rows = _by_example(outputs, examples)
        forward = log_norm(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:2])
        size = max(pre_activations[0].size, 1)
        return cls(
            layer_calls,
            forward,
            np.exp(log_norm(pre_activations)) / np.sqrt(size),
            saturated_units(activation, units_last(layer_calls[0].layer, pre_activations)),
            mean_correlations(rows, forward),
            gram_matrices(rows, forward),
        )

    def complete(self, deltas: Floats, kernel_norms: Mapping[int, Array]) -> list[LayerMeasurement]:
        """Returns the measurements with the gradient.

        Args:
            deltas: Gradients at the pre-activations, with the axis of layers first.
            kernel_norms: ln of the norm of the gradient of every kernel, layer by layer of a stack, by the
                `id` of its variable.
        """
        layer, examples = self.layer_calls[0].layer, self.forward.shape[1]
        kernels = self.layer_calls[0].kernels
        # A layer with several kernels is tapped behind its last one.
        norms = kernel_norms.get(id(kernels[-1].variable)) if kernels else None
        rows = _by_example(deltas, examples)
        backward = log_norm(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:2])
        # The objective is a sum over examples, the loss a mean.
        log_examples = float(np.log(examples))
        correlation = mean_correlations(rows, backward)
        no_gradient = ~units_last(layer, deltas).any(axis=1)
        # A unit is dead if its own slope vanishes, or if no gradient arrives from above.
        dead = np.asarray(no_gradient if self.flat is None else self.flat | no_gradient)
        return [
            LayerMeasurement(
                layer_call,
                self.forward[number],
                backward[number],
                float(self.rms[number]),
                float("nan") if norms is None else norms[layer_call.key.stack_index] - log_examples,
                float(dead[number].mean()),
                float(self.correlation[number]),
                float(correlation[number]),
                self.grams[number],
            )
            for number, layer_call in enumerate(self.layer_calls)
        ]


def _by_example(values: Floats, examples: int) -> Floats:
    """Returns, for each layer, a row for each example, of which there may be several along the first axis."""
    return values.reshape(len(values), examples, -1)
