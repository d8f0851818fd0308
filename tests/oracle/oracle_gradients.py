"""Gradients at a model's pre-activations by plain automatic differentiation, without the package.

Each layer with a kernel gets zeros added to its pre-activations, a tensor of their own shape for each call: a
bias of every example's own. The gradient at these zeros is `delta`. The model is changed for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras_helpers import BACKEND
from numpy.typing import NDArray
from oracle_cases import OUTPUT, OwnKernel, Problem

Floats = NDArray[Any]
L = keras.layers
_BEFORE_ACTIVATION = (
    L.Dense,
    L.EinsumDense,
    keras.src.layers.convolutional.base_conv.BaseConv,
    keras.src.layers.convolutional.base_conv_transpose.BaseConvTranspose,
    keras.src.layers.convolutional.base_depthwise_conv.BaseDepthwiseConv,
    keras.src.layers.convolutional.base_separable_conv.BaseSeparableConv,
)
_AT_OUTPUT = (L.RNN, L.Bidirectional, L.TimeDistributed, OwnKernel)


@dataclass
class Tap:
    """One call of a layer: its pre-activations, its output, and the gradient at the former."""

    layer: keras.layers.Layer
    pre_activations: Floats
    outputs: Floats
    delta: Floats | None = None

    @property
    def name(self) -> str:
        return str(self.layer.name)

    def rms(self) -> float:
        return float(np.sqrt(np.mean(np.square(self.pre_activations, dtype=np.float64))))

    def norms(self, values: Floats, examples: int) -> Floats:
        """Norm of each example's part, of which there may be several along the first axis."""
        return np.linalg.norm(values.reshape(examples, -1).astype(np.float64), axis=1)


def tapped_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers with a kernel, those inside a recurrent or wrapped one left out; some more than once."""
    if isinstance(layer, _BEFORE_ACTIVATION + _AT_OUTPUT):
        yield layer
    else:
        for below in layer._flatten_layers(recursive=False, include_self=False):
            yield from tapped_layers(below)


class Oracle:
    """Runs a model with taps and differentiates `examples * model.compute_loss(...)`.

    Args:
        problem: A model, which is changed, with its inputs, targets and weights of examples.
        training: Whether it runs as in training.
    """

    def __init__(self, problem: Problem, *, training: bool = False) -> None:
        self.problem, self.training = problem, training
        self.taps: list[Tap] = []
        self.zeros: list[Any] = []
        self.given: list[Any] | None = None
        layers = {id(layer): layer for layer in tapped_layers(problem.model)}
        for layer in layers.values():
            if isinstance(layer, _AT_OUTPUT):
                layer.call = self._at_output(layer, layer.call)
            else:
                layer.activation = self._before(layer, layer.activation)

    def run(self) -> list[Tap]:
        """The calls of all layers but the output layers, in their order."""
        deltas = _RUNS[BACKEND](self)
        for tap, delta in zip(self.taps, deltas, strict=True):
            tap.delta = np.asarray(keras.ops.convert_to_numpy(delta))
        return [tap for tap in self.taps if not tap.name.startswith(OUTPUT)]

    def loss(self) -> Any:
        model, x, y, sample_weight = self.problem.tensors()
        self.taps.clear()
        self.zeros.clear()
        args = x if self.problem.several_arguments else (x,)
        outputs = model(*args, training=self.training)
        loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight)
        return self.problem.examples * loss

    def _shift(self, a: Any) -> Any:
        """Adds the next zeros."""
        number = len(self.zeros)
        zeros = _ZEROS[BACKEND](a) if self.given is None else self.given[number]
        self.zeros.append(zeros)
        return a + zeros

    def _note(self, layer: keras.layers.Layer, a: Any, h: Any) -> None:
        if self.given is None:
            self.taps.append(Tap(layer, *(np.asarray(keras.ops.convert_to_numpy(value)) for value in (a, h))))

    def _before(self, layer: keras.layers.Layer, activation: Callable[..., Any] | None) -> Callable[..., Any]:
        def tapped(a: Any) -> Any:
            a = self._shift(a)
            h = a if activation is None else activation(a)
            self._note(layer, a, h)
            return h

        return tapped

    def _at_output(self, layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            first = self._shift(outputs[0] if isinstance(outputs, list | tuple) else outputs)
            self._note(layer, first, first)
            return (first, *outputs[1:]) if isinstance(outputs, list | tuple) else first

        return tapped


def _run_tensorflow(oracle: Oracle) -> Sequence[Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        _ZEROS["tensorflow"] = lambda a: _watch(tape, tf.zeros_like(a))
        loss = oracle.loss()
    return tape.gradient(loss, oracle.zeros, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _watch(tape: Any, zeros: Any) -> Any:
    tape.watch(zeros)
    return zeros


def _run_torch(oracle: Oracle) -> Sequence[Any]:
    import torch

    gradients = torch.autograd.grad(oracle.loss(), oracle.zeros, allow_unused=True)
    return [torch.zeros_like(z) if g is None else g for g, z in zip(gradients, oracle.zeros, strict=True)]


def _zeros_torch(a: Any) -> Any:
    import torch

    return torch.zeros_like(a, requires_grad=True)


def _run_jax(oracle: Oracle) -> Sequence[Any]:
    import jax

    model = oracle.problem.model

    def loss(zeros: Any) -> Any:
        oracle.given = zeros
        # What a layer assigns while it is traced stays in the scope; regularizers see variables there alone.
        with keras.StatelessScope([(v, v.value) for v in model.variables], collect_losses=True):
            return oracle.loss()

    with keras.StatelessScope([(v, v.value) for v in model.variables], collect_losses=True):
        oracle.loss()
    taps, zeros = list(oracle.taps), list(oracle.zeros)
    deltas = jax.grad(loss)(zeros)
    oracle.taps, oracle.given = taps, None
    return list(deltas)


_RUNS: dict[str, Callable[[Oracle], Sequence[Any]]] = {
    "tensorflow": _run_tensorflow,
    "jax": _run_jax,
    "torch": _run_torch,
}
_ZEROS: dict[str, Callable[[Any], Any]] = {
    "tensorflow": keras.ops.zeros_like,
    "jax": keras.ops.zeros_like,
    "torch": _zeros_torch,
}
