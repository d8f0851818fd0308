"""Where every kernel of a model stands: what feeds it, through what, and in which sums it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit.theory import ACTIVATIONS, Activation

from .kernels import Kernel, kernels_of
from .trace import Graph, Step

__all__ = ["KernelContext", "Signal", "trace_contexts"]

L = keras.layers
LINEAR = ACTIVATIONS["linear"]
_MANY = 64  # sources of one signal that are told apart; more would cost time quadratic in the layers

_SUMS = ("Add", "Average", "Subtract")
_CONCATENATIONS = ("Concatenate", "Stack", "Hstack", "Vstack")
_NORMALIZATIONS = (
    L.BatchNormalization,
    L.LayerNormalization,
    L.GroupNormalization,
    L.RMSNormalization,
    L.UnitNormalization,
)
_ACTIVATION_OPERATIONS = frozenset(
    [
        "Relu",
        "Relu6",
        "Gelu",
        "Silu",
        "HardSilu",
        "Tanh",
        "Sigmoid",
        "HardSigmoid",
        "Softplus",
        "Softsign",
        "Elu",
        "Selu",
        "Celu",
        "HardTanh",
        "LogSigmoid",
        "TanhShrink",
        "SoftShrink",
        "HardShrink",
        "SparsePlus",
        "Squareplus",
    ]
)


@dataclass(frozen=True)
class Signal:
    """What is known of a tensor.

    Args:
        sources: The positions of the kernels it comes from, the nearest ones; None if there are too many.
        activation: What acted on it since them.
        normalized: Whether it was normalized since them.
        summed: Whether it is a sum that they are terms of.
        layers: Number of kernels on the longest way from the input.
        sums: Number of sums of a shortcut and branches on the way with most of them.
        embedded: Whether it comes from an embedding, with no kernel since.
        guessed: Whether something acted on it since the kernels that nobody could look into.
    """

    sources: frozenset[int] | None = frozenset()
    activation: Activation = LINEAR
    normalized: bool = False
    summed: bool = False
    layers: int = 0
    sums: int = 0
    embedded: bool = False
    guessed: bool = False


@dataclass(eq=False)
class KernelContext:
    """One kernel in its place.

    Args:
        kernel: The kernel, stacked in a `DenseStack`.
        step: The operation it belongs to.
        call: The how-manieth call of its layer this is.
        signal: What feeds it.
        terms: For each sum that it ends as a term of, without a kernel after it: the number of equally
            deep terms, or 0 if it ends the branch beside a shortcut.
        followed: Number of kernels that it feeds.
        normalized_after: Whether its output is normalized before any other kernel sees it.
    """

    kernel: Kernel
    step: Step
    call: int
    signal: Signal
    terms: list[int] = field(default_factory=list)
    followed: int = 0
    normalized_after: bool = False

    @property
    def guessed(self) -> bool:
        """Whether what is said of its place is not certain."""
        return self.step.guessed or self.signal.guessed


def trace_contexts(graph: Graph) -> tuple[list[KernelContext], Signal]:
    """The position of every kernel of every step, and the deepest of the model's output signals.

    A `DenseStack`, one weight, is one position of as many layers as it has.
    """
    tracer = _ContextTracer()
    signals = {number: Signal() for number in graph.inputs}
    for step in graph.steps:
        incoming = [signals[number] for number in step.inputs]
        signal = tracer.after(step, incoming)
        signals.update((number, signal) for number in step.outputs)
    outputs = [signals[number] for number in graph.outputs if number in signals]
    return tracer.contexts, max(outputs, key=lambda signal: signal.layers, default=Signal())


class _ContextTracer:
    def __init__(self) -> None:
        self.contexts: list[KernelContext] = []
        self.calls: Counter[int] = Counter()

    def after(self, step: Step, incoming: Sequence[Signal]) -> Signal:
        """The signal that leaves a step."""
        if not incoming:
            return Signal()
        operation, kind = step.operation, type(step.operation).__name__
        kernels = kernels_of(operation)
        if kernels:
            return self._through_kernels(step, kernels, _merged(incoming))
        if isinstance(operation, L.Embedding):
            return _replace(incoming[0], embedded=True)
        if step.guessed:
            return _replace(_merged(incoming), guessed=True)
        if isinstance(operation, _NORMALIZATIONS):
            return self._normalized(incoming[0])
        activation = _operation_activation(operation)
        if activation is not None:
            return _replace(incoming[0], activation=activation)
        if len(incoming) == 1:
            return incoming[0]
        if kind in _SUMS:
            return self._sum(incoming)
        if kind == "Multiply":
            return _product(incoming)
        if kind in _CONCATENATIONS:
            return _merged(incoming)
        return _replace(_merged(incoming), activation=LINEAR)

    def _through_kernels(self, step: Step, kernels: Sequence[Kernel], signal: Signal) -> Signal:
        self.calls[id(step.operation)] += 1
        for kernel in kernels:
            for source in signal.sources or ():
                self.contexts[source].followed += 1
            number = len(self.contexts)
            self.contexts.append(KernelContext(kernel, step, self.calls[id(step.operation)], signal))
            signal = Signal(
                frozenset([number]),
                _elementwise(kernel.activation) or LINEAR,
                layers=signal.layers + max(kernel.stacked, 1),
                sums=signal.sums,
                guessed=step.guessed,
            )
        return signal

    def _normalized(self, signal: Signal) -> Signal:
        for source in signal.sources or ():
            if not signal.summed:
                self.contexts[source].normalized_after = True
        return _replace(signal, activation=LINEAR, normalized=True)

    def _sum(self, terms: Sequence[Signal]) -> Signal:
        depths = [term.layers for term in terms]
        shortest = min(depths)
        equal = max(depths) == shortest
        for term in terms:
            branch = equal or term.layers > shortest
            if branch and not term.normalized and not term.summed:
                for source in term.sources or ():
                    self.contexts[source].terms.append(len(terms) if equal else 0)
        merged = _merged(terms)
        return _replace(merged, activation=LINEAR, summed=True, sums=merged.sums + (not equal))


def _replace(signal: Signal, **changes: Any) -> Signal:
    return Signal(**{**signal.__dict__, **changes})


def _merged(signals: Sequence[Signal]) -> Signal:
    """Several signals side by side: most of what is said of one of them must hold for all."""
    if len(signals) == 1:
        return signals[0]
    sources: frozenset[int] | None = frozenset()
    for signal in signals:
        sources = None if sources is None or signal.sources is None else sources | signal.sources
    if sources is not None and len(sources) > _MANY:
        sources = None
    activation, _ = Counter(signal.activation for signal in signals).most_common(1)[0]
    return Signal(
        sources,
        activation,
        normalized=all(signal.normalized for signal in signals),
        summed=any(signal.summed for signal in signals),
        layers=max(signal.layers for signal in signals),
        sums=max(signal.sums for signal in signals),
        embedded=any(signal.embedded for signal in signals),
        guessed=any(signal.guessed for signal in signals),
    )


def _product(factors: Sequence[Signal]) -> Signal:
    """A gate leaves the signal it acts on, the one with fewer kernels, what it was.

    Factors that come from the same kernels are one activation, such as a * sigmoid(a).
    """
    first, *others = sorted(factors, key=lambda signal: signal.layers)
    if len(others) != 1 or others[0].sources != first.sources or others[0].layers != first.layers:
        return first
    one, other = first.activation, others[0].activation
    gate = other if one is LINEAR else one
    known = (
        {"sigmoid": "silu", "hard_sigmoid": "hard_silu"}.get(gate.name) if LINEAR in (one, other) else None
    )
    if known is None:  # an activation that nobody here has a name for
        return _replace(first, guessed=True)
    return _replace(first, activation=theory_activation(known))


def _operation_activation(operation: Any) -> Activation | None:
    """The activation that an operation is; None if it is none."""
    if isinstance(operation, L.PReLU):
        return (
            theory_activation("relu")
            if not _mean(operation.alpha)
            else theory_activation(f"leaky_relu({_mean(operation.alpha)!r})")
        )
    if isinstance(operation, L.ReLU):
        return _relu(
            float(operation.negative_slope or 0.0), operation.max_value, operation.threshold, operation
        )
    if isinstance(operation, L.Activation | L.LeakyReLU | L.ELU):
        return _elementwise(operation)
    kind = type(operation).__name__
    if kind == "LeakyRelu":
        return theory_activation(f"leaky_relu({float(operation.negative_slope)!r})")
    if kind in _ACTIVATION_OPERATIONS and not isinstance(operation, L.Layer):
        return _elementwise(_named(kind) or operation)
    return None


def _relu(slope: float, highest: float | None, threshold: float, layer: Any) -> Activation | None:
    if threshold or (highest is not None and (slope or highest != 6.0)):
        return _elementwise(layer)
    if highest is not None:
        return theory_activation("relu6")
    return theory_activation(f"leaky_relu({slope!r})" if slope else "relu")


def _mean(weight: Any) -> float:
    return float(keras.ops.convert_to_numpy(weight.value).mean())


def _named(kind: str) -> Any:
    """Keras's function of an operation's name: `keras.activations.hard_silu` of `HardSilu`."""
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind).strip("_")
    return getattr(keras.activations, name, None)


def _elementwise(activation: Any) -> Activation | None:
    """The theory's view of a Keras activation; None for softmax and others that mix the units."""
    try:
        return theory_activation(activation)
    except Exception:  # of somebody's own function
        return None
