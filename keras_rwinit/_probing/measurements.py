"""Records of what a model's layers did: which call of which layer, its signals' norms, its dead units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import kernels_of

__all__ = ["CallKey", "LayerCall", "LayerMeasurement"]

Array = NDArray[np.float64]


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
        index: Which layer of a `DenseStack`, from 0; None for other layers.
        call: Number of the call of that layer in the model, from 1.
    """

    layer: keras.layers.Layer
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

    @property
    def key(self) -> CallKey:
        """The key that the same call has in the traced model."""
        # The kernel of a wrapper such as TimeDistributed belongs to the layer inside.
        kernels = kernels_of(self.layer)
        if not kernels:
            return CallKey(id(self.layer), self.call)
        # A wrapped stack is measured at its output, which is the last layer's.
        index = max(kernels[-1].stacked - 1, 0) if self.index is None else self.index
        return CallKey(id(kernels[-1].layer), self.call, index)

    @property
    def _suffix(self) -> str:
        index = "" if self.index is None else f"[{self.index}]"
        return index + (f"#{self.call}" if self.call > 1 else "")


@dataclass(frozen=True)
class LayerMeasurement:
    """What was measured at one call of a layer.

    Args:
        layer_call: The call.
        forward: `ln|h|` of the layer's output, shape (examples,).
        backward: `ln|delta|` of the gradient at the pre-activations, shape (examples,).
        rms: Root mean square of the pre-activations over examples and units.
        weight_gradient: ln of the norm of the kernel's gradient of the mean loss.
        dead: Share of the units that are dead or saturated for every example.
    """

    layer_call: LayerCall
    forward: Array
    backward: Array
    rms: float
    weight_gradient: float
    dead: float
