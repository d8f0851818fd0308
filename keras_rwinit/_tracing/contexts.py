"""The context of every kernel of a model: what feeds it, through what, and which sums it is a term of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import keras

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit._keras.layer_kinds import Effect, layer_kind
from keras_rwinit._keras.types import ActivationLike
from keras_rwinit.theory import ACTIVATIONS, Activation

from .kernels import Kernel, kernels_of
from .trace import Graph, Step

__all__ = ["KernelContext", "Signal", "SumTerm", "trace_contexts"]

LINEAR = ACTIVATIONS["linear"]
_MANY = 64  # a signal lists no more sources: unions of long lists would cost time quadratic in the layers


@dataclass(frozen=True)
class Signal:
    """What is known of a tensor.

    Args:
        sources: Indices of the contexts of the nearest kernels before it; None if there are too many.
        activation: The activation between these kernels and the tensor.
        normalized: Whether a normalization is between these kernels and the tensor.
        summed: Whether the tensor is a sum with these kernels' outputs among its terms.
        layers: Number of kernels on the longest path from the input.
        sums: Number of sums of a shortcut and branches on the path that has most of them.
        embedded: Whether it comes from an embedding, with no kernel in between.
        guessed: Whether an operation between these kernels and the tensor could not be looked into.
    """

    sources: frozenset[int] | None = frozenset()
    activation: Activation = LINEAR
    normalized: bool = False
    summed: bool = False
    layers: int = 0
    sums: int = 0
    embedded: bool = False
    guessed: bool = False


class SumTerm(NamedTuple):
    """One sum that the output of a kernel is a term of.

    Args:
        size: Number of terms of the sum.
        beside_shortcut: Whether another term has fewer kernels, so that the kernel ends a branch beside a
            shortcut. Otherwise all terms are equally deep.
    """

    size: int
    beside_shortcut: bool


@dataclass(eq=False)
class KernelContext:
    """One kernel with its surroundings in the model.

    Args:
        kernel: The kernel; for a `DenseStack`, all its layers' kernels.
        step: The operation it belongs to.
        call: Number of this call of its layer, counted from 1.
        signal: The tensor that feeds it.
        terms: The sums that its output is a term of, with no other kernel in between.
        followed: Number of kernels that it feeds.
        normalized_after: Whether its output is normalized before any other kernel sees it.
    """

    kernel: Kernel
    step: Step
    call: int
    signal: Signal
    terms: list[SumTerm] = field(default_factory=list)
    followed: int = 0
    normalized_after: bool = False

    @property
    def guessed(self) -> bool:
        """Whether an operation could not be looked into, so that the context is not certain."""
        return self.step.guessed or self.signal.guessed


def trace_contexts(graph: Graph) -> tuple[list[KernelContext], Signal]:
    """Returns the context of every kernel of every step, and the deepest of the model's output signals.

    A `DenseStack` has one context, which counts all its layers.
    """
    tracer = _ContextTracer()
    signals = {number: Signal() for number in graph.inputs}
    for step in graph.steps:
        incoming = [signals[number] for number in step.inputs]
        signal = tracer.pass_through(step, incoming)
        signals.update((number, signal) for number in step.outputs)
    outputs = [signals[number] for number in graph.outputs if number in signals]
    return tracer.contexts, max(outputs, key=lambda signal: signal.layers, default=Signal())


class _ContextTracer:
    """Follows signals through the steps of a model and collects the contexts of the kernels on the way."""

    def __init__(self) -> None:
        self.contexts: list[KernelContext] = []
        self.calls: Counter[int] = Counter()

    def pass_through(self, step: Step, incoming: Sequence[Signal]) -> Signal:
        """Returns the signal that leaves a step."""
        if not incoming:
            return Signal()
        kernels = kernels_of(step.operation)
        if kernels:
            return self._apply_kernels(step, kernels, _merge(incoming))
        effect = layer_kind(step.operation).effect
        if effect is Effect.EMBEDDING:
            return replace(incoming[0], embedded=True)
        if step.guessed:
            return replace(_merge(incoming), guessed=True)
        if effect is Effect.NORMALIZATION:
            return self._normalize(incoming[0])
        activation = _operation_activation(step.operation)
        if activation is not None:
            return replace(incoming[0], activation=activation)
        # Reshaping, pooling, dropout and the like
        if len(incoming) == 1:
            return incoming[0]
        if effect is Effect.SUM:
            return self._sum(incoming)
        if effect is Effect.PRODUCT:
            return _multiply(incoming)
        if effect is Effect.CONCATENATION:
            return _merge(incoming)
        # An unknown function of several signals, which is taken to be linear.
        return replace(_merge(incoming), activation=LINEAR)

    def _apply_kernels(self, step: Step, kernels: Sequence[Kernel], signal: Signal) -> Signal:
        self.calls[id(step.operation)] += 1
        for kernel in kernels:
            for source in signal.sources or ():
                self.contexts[source].followed += 1
            index = len(self.contexts)
            self.contexts.append(KernelContext(kernel, step, self.calls[id(step.operation)], signal))
            signal = Signal(
                frozenset([index]),
                _elementwise(kernel.activation) or LINEAR,
                layers=signal.layers + max(kernel.stacked, 1),
                sums=signal.sums,
                guessed=step.guessed,
            )
        return signal

    def _normalize(self, signal: Signal) -> Signal:
        for source in signal.sources or ():
            # Behind a sum, the scales of its terms still matter relative to each other.
            if not signal.summed:
                self.contexts[source].normalized_after = True
        return replace(signal, activation=LINEAR, normalized=True)

    def _sum(self, terms: Sequence[Signal]) -> Signal:
        # The term with the fewest kernels is the shortcut, unless all have equally many.
        depths = [term.layers for term in terms]
        shortest = min(depths)
        has_shortcut = max(depths) > shortest
        for term in terms:
            is_shortcut = has_shortcut and term.layers == shortest
            # A normalized term has unit variance whatever its kernels are; a sum's terms were scaled before.
            if is_shortcut or term.normalized or term.summed:
                continue
            for source in term.sources or ():
                self.contexts[source].terms.append(SumTerm(len(terms), has_shortcut))
        merged = _merge(terms)
        return replace(merged, activation=LINEAR, summed=True, sums=merged.sums + has_shortcut)


def _merge(signals: Sequence[Signal]) -> Signal:
    """Returns several signals as one: most properties must hold for all of them, some for any."""
    if len(signals) == 1:
        return signals[0]
    sources: frozenset[int] | None = frozenset()
    for signal in signals:
        sources = None if sources is None or signal.sources is None else sources | signal.sources
    if sources is not None and len(sources) > _MANY:
        sources = None
    # The most frequent activation; in a tie, the first.
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


def _multiply(factors: Sequence[Signal]) -> Signal:
    """Returns the product of signals.

    A gate does not change what is known of the signal it acts on, the one with fewer kernels. Factors that
    come from the same kernels are one activation, such as a * sigmoid(a).
    """
    first, *others = sorted(factors, key=lambda signal: signal.layers)
    if len(others) != 1 or others[0].sources != first.sources or others[0].layers != first.layers:
        return first
    one, other = first.activation, others[0].activation
    gate = other if one is LINEAR else one
    gated = [known for known in ACTIVATIONS.values() if known.gate == gate.name]
    if LINEAR not in (one, other) or not gated:  # an activation without a name in the table
        return replace(first, guessed=True)
    return replace(first, activation=gated[0])


def _operation_activation(operation: keras.Operation) -> Activation | None:
    """Returns the activation that an operation is; None if it is none, or mixes the units."""
    kind = layer_kind(operation)
    return None if kind.activation is None else _elementwise(kind.activation(operation))


def _elementwise(activation: ActivationLike) -> Activation | None:
    """Returns the theory's view of a Keras activation; None for softmax and others that mix the units."""
    try:
        return theory_activation(activation)
    except Exception:  # a function of the user's may raise anything
        return None
