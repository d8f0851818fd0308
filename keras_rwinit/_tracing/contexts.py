"""The context of every kernel of a model: what feeds it, through what, and which sums it is a term of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import keras
import numpy as np

from keras_rwinit._keras.activations import remember_activations, theory_activation
from keras_rwinit._keras.layer_kinds import Effect, layer_kind
from keras_rwinit._keras.types import ActivationLike
from keras_rwinit.theory import Activation
from keras_rwinit.theory.activation import NotElementwiseError

from .composition import compose, evaluate_step, multiply_functions
from .graph import Graph, Step
from .kernels import Kernel
from .signals import (
    LINEAR,
    MAX_SOURCES,
    NEW_ORIGIN,
    Gate,
    Signal,
    SumTerm,
    have_same_origin,
    is_open_at_zero,
    merge_signals,
    scale_and_shift,
    with_factors,
)

__all__ = ["KernelContext", "trace_contexts"]


@dataclass(eq=False)
class KernelContext:
    """One kernel with its surroundings in the model.

    Args:
        kernel: The kernel; one of its layers' for a `DenseStack`, which has a context for each.
        step: The operation it belongs to.
        call: Number of this call of its layer, counted from 1.
        signal: The tensor that feeds it.
        terms: The sums that its output is a term of, with no other kernel in between.
        gate_of: The gates that its output became, with no other kernel in between.
        followers: The kernels that it feeds.
        normalized_after: Whether its output is normalized before any other kernel sees it.
    """

    kernel: Kernel
    step: Step
    call: int
    signal: Signal
    terms: list[SumTerm] = field(default_factory=list)
    gate_of: list[Gate] = field(default_factory=list)
    followers: list[KernelContext] = field(default_factory=list, repr=False)
    normalized_after: bool = False

    @property
    def followed(self) -> int:
        """Number of kernels that it feeds."""
        return len(self.followers)

    @property
    def guessed(self) -> bool:
        """Whether an operation could not be looked into, so that the context is not certain."""
        signal = self.signal
        return self.step.guessed or signal.guessed or bool(signal.unknown or signal.mixed)


def trace_contexts(graph: Graph) -> tuple[list[KernelContext], Signal]:
    """Returns the context of every kernel of every step, and the deepest of the model's output signals.

    A `DenseStack` has the contexts of as many Dense layers in a chain.
    """
    tracer = _ContextTracer()
    signals = {number: Signal(origin=number) for number in graph.inputs}
    with remember_activations():
        for step in graph.steps:
            incoming = [signals[number] for number in step.inputs]
            signal = tracer.pass_through(step, incoming)
            for number in step.outputs:
                is_new = signal.origin == NEW_ORIGIN
                signals[number] = replace(signal, origin=number) if is_new else signal
    outputs = [signals[number] for number in graph.outputs if number in signals]
    return tracer.contexts, max(outputs, key=lambda signal: signal.layers, default=Signal())


class _ContextTracer:
    """Follows signals through the steps of a model and collects the contexts of the kernels on the way."""

    def __init__(self) -> None:
        self.contexts: list[KernelContext] = []
        self.calls: Counter[int] = Counter()
        # Kept for one model only: the functions of a user's activations may change between two.
        self.composed: dict[tuple[Activation, Activation, float, float], Activation] = {}
        self.multiplied: dict[tuple[Activation, Activation], Activation] = {}
        self.evaluated: dict[Hashable, tuple[Activation | None, str]] = {}

    def pass_through(self, step: Step, incoming: Sequence[Signal]) -> Signal:
        """Returns the signal that leaves a step."""
        if not incoming:
            return Signal()
        kernels = step.kernels
        if kernels:
            return self._apply_kernels(step, kernels, merge_signals(incoming))
        kind = layer_kind(step.operation)
        effect = kind.effect
        if effect is Effect.EMBEDDING:
            rms = _table_rms(step.operation)
            return replace(incoming[0], embedded=True, scale=rms, first_scale=rms, origin=NEW_ORIGIN)
        if step.guessed:
            return replace(merge_signals(incoming), guessed=True, origin=NEW_ORIGIN)
        if effect is Effect.NORMALIZATION:
            return self._normalize(incoming[0], 1.0)
        if effect is Effect.UNIT_LENGTH:
            return self._normalize(incoming[0], 1.0 / math.sqrt(_normalized_units(step)))
        known = _operation_activation(step)
        if known.unknown:
            return _unknown_signal(incoming[0], known.unknown)
        if known.mixed:
            return replace(incoming[0], activation=LINEAR, origin=NEW_ORIGIN, mixed=known.mixed)
        if known.activation is not None:
            return self._activate(incoming[0], known.activation)
        if effect is Effect.FUNCTION:
            return self._apply_function(step, incoming)
        if len(incoming) == 1:
            factor = None if kind.factor is None else kind.factor(step.operation)
            if factor is not None:
                return with_factors(incoming[0], (factor,))
            if effect in (Effect.SUM, Effect.PRODUCT, Effect.QUOTIENT):
                scaled = scale_and_shift(incoming[0], step)
                # A number over the signal is no scale.
                is_function = effect is Effect.QUOTIENT and scaled is incoming[0]
                return self._apply_function(step, incoming) if is_function else scaled
            # Reshaping, maximum pooling and the like
            return replace(incoming[0], origin=NEW_ORIGIN)
        if effect is Effect.PRODUCT:
            return self._multiply(incoming)
        if effect in (Effect.SUM, Effect.MEAN, Effect.QUOTIENT) and have_same_origin(incoming):
            return self._apply_function(step, incoming)
        if effect is Effect.QUOTIENT:
            return _unknown_signal(merge_signals(incoming), "It is a quotient of several tensors.")
        if effect is Effect.SUM:
            return self._sum(incoming)
        if effect is Effect.MEAN:
            weight = 1.0 / len(incoming)
            return self._sum([replace(term, scale=weight * term.scale) for term in incoming])
        merged = replace(merge_signals(incoming), origin=NEW_ORIGIN)
        # What combines several signals else, such as a matrix product, is linear in one of them.
        return merged if effect is Effect.CONCATENATION else replace(merged, activation=LINEAR)

    def _apply_kernels(self, step: Step, kernels: Sequence[Kernel], signal: Signal) -> Signal:
        self.calls[id(step.operation)] += 1
        call = self.calls[id(step.operation)]
        for kernel in kernels:
            known = _look_up(kernel.activation, kernel.units)
            for one in kernel.oriented(step.input_shape).unstack():
                context = KernelContext(one, step, call, signal)
                for source in (*(signal.sources or ()), *signal.gate_sources):
                    self.contexts[source].followers.append(context)
                index = len(self.contexts)
                self.contexts.append(context)
                signal = Signal(
                    frozenset([index]),
                    activation=known.activation or LINEAR,
                    layers=signal.layers + 1,
                    sums=signal.sums,
                    products=signal.products,
                    guessed=step.guessed,
                    unknown=known.unknown,
                    mixed=known.mixed,
                )
        return signal

    def _normalize(self, signal: Signal, scale: float) -> Signal:
        for source in signal.sources or ():
            # Behind a sum, the scales of its terms still matter relative to each other.
            if not signal.summed:
                self.contexts[source].normalized_after = True
        return replace(
            signal,
            activation=LINEAR,
            scale=scale,
            shift=0.0,
            first_scale=scale,
            factors=(),
            gates=(),
            origin=NEW_ORIGIN,
            normalized=True,
            unknown="",
        )

    def _activate(self, signal: Signal, activation: Activation) -> Signal:
        """Returns an activation of a signal, which may be an activation already."""
        inner = (signal.activation, signal.scale, signal.shift)
        if inner != (LINEAR, 1.0, 0.0):
            key = (activation, *inner)
            if key not in self.composed:
                self.composed[key] = compose(*key)
            activation = self.composed[key]
        return replace(signal, activation=activation, scale=1.0, shift=0.0, first_scale=1.0)

    def _apply_function(self, step: Step, incoming: Sequence[Signal]) -> Signal:
        """Returns the signal behind an operation of which the table says nothing but that it has values."""
        merged = merge_signals(incoming)
        # What is done to the data before the first kernel is up to the user.
        if merged.reads_data:
            return replace(merged, origin=NEW_ORIGIN)
        name = type(step.operation).__name__
        if len(incoming) > 1 and not have_same_origin(incoming):
            return _unknown_signal(merged, f"{name!r} is a function of several tensors.")
        inputs = [LINEAR]
        if len(incoming) > 1:
            inputs = [self._activate(signal, LINEAR).activation for signal in incoming]
        activation, unknown = self._evaluate(step, inputs)
        if activation is None:
            return _unknown_signal(merged, unknown)
        if len(incoming) > 1:
            return replace(incoming[0], activation=activation, scale=1.0, shift=0.0, first_scale=1.0)
        if activation.slopes is not None and len(set(activation.slopes)) == 1:
            slope = activation.slopes[0]
            return replace(incoming[0], scale=slope * incoming[0].scale, shift=slope * incoming[0].shift)
        return self._activate(incoming[0], activation)

    def _evaluate(self, step: Step, inputs: Sequence[Activation]) -> tuple[Activation | None, str]:
        """Returns what an operation computes; None and the reason where that is not to be found out."""
        key = _call_key(step, inputs)
        if key is not None and key in self.evaluated:
            return self.evaluated[key]
        found: tuple[Activation | None, str]
        try:
            found = evaluate_step(step, inputs), ""
        except ValueError as error:
            found = None, str(error)
        if key is not None:
            self.evaluated[key] = found
        return found

    def _sum(self, terms: Sequence[Signal]) -> Signal:
        # The term with the fewest kernels is the shortcut, unless all have equally many.
        depths = [term.layers for term in terms]
        shortest = min(depths)
        has_shortcut = max(depths) > shortest
        shortcut = terms[depths.index(shortest)] if has_shortcut else Signal()
        # What constants made of the shortcut since the last sum, the branches supply.
        stream_scale = abs(shortcut.first_scale)
        shortcut_scale = abs(shortcut.scale) / stream_scale
        scaled = False
        for term in terms:
            is_shortcut = has_shortcut and term.layers == shortest
            # A normalized term has unit variance whatever its kernels are; a sum's terms were scaled before.
            if is_shortcut or term.normalized or term.summed:
                continue
            for source in term.sources or ():
                scaled = True
                self.contexts[source].terms.append(
                    SumTerm(len(terms), has_shortcut, term, shortcut.gates, shortcut_scale, stream_scale)
                )
        merged = merge_signals(terms)
        scale = abs(shortcut.scale) if shortcut_scale > 1.0 or not scaled else stream_scale
        if not has_shortcut and not scaled and all(term.embedded for term in terms):
            scale = math.sqrt(sum(term.scale**2 for term in terms))
        # The branches make up for their own factors and for the gates of the shortcut; see `SumTerm`.
        return replace(
            merged,
            activation=LINEAR,
            scale=scale,
            shift=shortcut.shift,
            first_scale=scale,
            factors=shortcut.factors,
            gates=(),
            origin=NEW_ORIGIN,
            summed=True,
            unknown="",
            sums=merged.sums + has_shortcut,
        )

    def _multiply(self, factors: Sequence[Signal]) -> Signal:
        """Returns the product of signals.

        One of them carries the signal: not one that is a constant plus something at zero, as a sigmoid is,
        and of the others the one with the fewest kernels. The others are its gates. Factors of the same
        origin are one activation, such as a * sigmoid(a).
        """
        signal, *others = sorted(factors, key=lambda factor: (is_open_at_zero(factor), factor.layers))
        for other in others:
            if have_same_origin([signal, other]):
                signal = self._multiply_activations(signal, other)
            else:
                signal = self._apply_gate(signal, other)
        return signal

    def _multiply_activations(self, signal: Signal, other: Signal) -> Signal:
        one = self._activate(signal, LINEAR).activation
        two = self._activate(other, LINEAR).activation
        if (one, two) not in self.multiplied:
            self.multiplied[one, two] = multiply_functions(one, two)
        # Constant factors may stand outside: their product is recognized by its name.
        return replace(signal, activation=self.multiplied[one, two], scale=1.0, shift=0.0, first_scale=1.0)

    def _apply_gate(self, signal: Signal, other: Signal) -> Signal:
        gate_kernels = other.sources or frozenset()
        biases = [self.contexts[source].kernel.mean_bias for source in gate_kernels]
        bias = 0.0 if other.normalized or not biases else sum(biases) / len(biases)
        # Halves of one kernel's output: its scale is the signal's.
        is_shared = bool(gate_kernels & (signal.sources or frozenset()))
        gate = Gate(other.activation, other.scale, other.shift, bias, other.normalized or is_shared)
        for source in () if is_shared else gate_kernels:
            self.contexts[source].gate_of.append(gate)
        # Data that multiply a signal, such as a mask, have an unknown scale.
        known = () if other.reads_data else (gate,)
        sources = gate_kernels | other.gate_sources | signal.gate_sources
        return replace(
            signal,
            gate_sources=sources if len(sources) <= MAX_SOURCES else signal.gate_sources,
            factors=signal.factors + other.factors,
            gates=signal.gates + other.gates + known,
            origin=NEW_ORIGIN,
            sums=max(signal.sums, other.sums),
            products=max(signal.products, other.products) + bool(known),
            guessed=signal.guessed or other.guessed,
            unknown=signal.unknown or other.unknown,
        )


def _unknown_signal(signal: Signal, reason: str) -> Signal:
    """Returns the signal behind an operation of which nothing is known."""
    return replace(
        signal,
        activation=LINEAR,
        scale=1.0,
        shift=0.0,
        first_scale=1.0,
        origin=NEW_ORIGIN,
        unknown=reason,
    )


def _table_rms(layer: keras.Operation) -> float:
    """Returns the root mean square of an embedding's table; 1 where there is none."""
    table = getattr(layer, "embeddings", None)
    if table is None:
        return 1.0
    values = keras.ops.convert_to_numpy(table).astype(np.float64)
    rms = math.sqrt(float(np.mean(values**2))) if values.size else 1.0
    return rms if 0.0 < rms < math.inf else 1.0


def _normalized_units(step: Step) -> int:
    """Returns over how many units a layer of unit length sums the squares."""
    axes = getattr(step.operation, "axis", -1)
    shape = step.input_shape or ()
    try:
        sizes = [shape[axis] for axis in ([axes] if isinstance(axes, int) else axes)]
    except IndexError:
        return 1
    return math.prod(size or 1 for size in sizes)


def _call_key(step: Step, inputs: Sequence[Activation]) -> Hashable | None:
    """Returns what an operation computes, as a key; None where one of its constants is an array."""
    try:
        config = {name: value for name, value in step.operation.get_config().items() if name != "name"}
    except Exception:  # an operation of the user's without a config
        return None
    arguments = [
        "tensor" if isinstance(value, keras.KerasTensor) else value
        for value in keras.tree.flatten((step.arguments, dict(step.keywords)))
    ]
    constants = [*keras.tree.flatten(config), *arguments]
    if not all(value is None or isinstance(value, bool | int | float | str) for value in constants):
        return None
    return type(step.operation), repr(config), repr(arguments), step.units, tuple(inputs)


class _Known(NamedTuple):
    """What is known of an activation.

    Args:
        activation: The theory's view of it; None without one.
        unknown: Why it cannot be evaluated; else empty.
        mixed: Why it has no gain though it can be: it mixes the units, as softmax does; else empty.
    """

    activation: Activation | None = None
    unknown: str = ""
    mixed: str = ""


def _operation_activation(step: Step) -> _Known:
    """Returns what is known of the activation that a step is; nothing if it is none."""
    kind = layer_kind(step.operation)
    if kind.activation is None:
        return _Known()
    return _look_up(kind.activation(step.operation), step.units)


def _look_up(activation: ActivationLike, units: int | None) -> _Known:
    """Returns what is known of a Keras activation.

    Args:
        activation: The activation.
        units: Number of units that it acts on, if known.
    """
    try:
        return _Known(theory_activation(activation, units))
    except NotElementwiseError as error:
        return _Known(mixed=str(error))
    except ValueError as error:  # an `ActivationError`, or what a user's layer calls its activation
        return _Known(unknown=str(error))
