"""The context of every kernel of a model: what feeds it, through what, and which sums it is a term of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import remember_activations, theory_activation
from keras_rwinit._keras.layer_kinds import Effect, Factor, layer_kind
from keras_rwinit._keras.types import ActivationLike
from keras_rwinit.theory import ACTIVATIONS, Activation
from keras_rwinit.theory.activations import NotElementwiseError, activation_from_callable

from .kernels import Kernel, kernels_of
from .trace import Graph, Step

__all__ = ["Gate", "KernelContext", "Signal", "SumTerm", "trace_contexts"]

Array: TypeAlias = NDArray[np.float64]

LINEAR = ACTIVATIONS["linear"]
_OPEN = 1e-3
_MANY = 64  # a signal lists no more sources: unions of long lists would cost time quadratic in the layers


class Gate(NamedTuple):
    """A factor of a product that does not carry the signal: `scale * f(a) + shift` of pre-activations a.

    Args:
        activation: f.
        scale, shift: What constants of the model make of it.
        bias: Mean bias of the kernels that it comes from.
        normalized: Whether a normalization gives a unit variance.
    """

    activation: Activation
    scale: float
    shift: float
    bias: float
    normalized: bool

    @property
    def is_open(self) -> bool:
        """Whether it is far from zero where its pre-activations are zero, as a sigmoid is."""
        return bool(abs(float(self(np.zeros(1))[0])) > _OPEN)

    def __call__(self, a: Array) -> Array:
        return np.asarray(self.scale * self.activation.function(a + self.bias) + self.shift, np.float64)


@dataclass(frozen=True)
class Signal:
    """What is known of a tensor: it is `scale * f(a) + shift` of pre-activations a, times factors and gates.

    Args:
        sources: Indices of the contexts of the nearest kernels before it; None if there are too many.
        gate_sources: Indices of the contexts of the kernels that its gates come from.
        activation: The activation f between these kernels and the tensor.
        scale, shift: What constants of the model make of it.
        factors: What layers without kernels multiply it with, between these kernels and the tensor.
        gates: What it was multiplied with there, from other kernels.
        normalized: Whether a normalization is between these kernels and the tensor.
        summed: Whether the tensor is a sum with these kernels' outputs among its terms.
        layers: Number of kernels on the longest path from the input.
        sums: Number of sums of a shortcut and branches on the path that has most of them.
        products: Number of products with a gate on the path that has most of them.
        embedded: Whether it comes from an embedding, with no kernel in between.
        guessed: Whether an operation between these kernels and the tensor could not be looked into.
        unknown: Why nothing is known of an activation there, which is then taken to be linear; else empty.
    """

    sources: frozenset[int] | None = frozenset()
    gate_sources: frozenset[int] = frozenset()
    activation: Activation = LINEAR
    scale: float = 1.0
    shift: float = 0.0
    factors: tuple[Factor, ...] = ()
    gates: tuple[Gate, ...] = ()
    normalized: bool = False
    summed: bool = False
    layers: int = 0
    sums: int = 0
    products: int = 0
    embedded: bool = False
    guessed: bool = False
    unknown: str = ""

    @property
    def reads_data(self) -> bool:
        """Whether no kernel comes before it."""
        return self.sources == frozenset() and not self.gate_sources


class SumTerm(NamedTuple):
    """One sum that the output of a kernel is a term of.

    Args:
        size: Number of terms of the sum.
        beside_shortcut: Whether another term has fewer kernels, so that the kernel ends a branch beside a
            shortcut. Otherwise all terms are equally deep.
        signal: The term.
        shortcut_gates: The gates that the shortcut passed since the last sum.
    """

    size: int
    beside_shortcut: bool
    signal: Signal
    shortcut_gates: tuple[Gate, ...] = ()


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
        followed: Number of kernels that it feeds.
        normalized_after: Whether its output is normalized before any other kernel sees it.
    """

    kernel: Kernel
    step: Step
    call: int
    signal: Signal
    terms: list[SumTerm] = field(default_factory=list)
    gate_of: list[Gate] = field(default_factory=list)
    followed: int = 0
    normalized_after: bool = False

    @property
    def guessed(self) -> bool:
        """Whether an operation could not be looked into, so that the context is not certain."""
        return self.step.guessed or self.signal.guessed or bool(self.signal.unknown)


def trace_contexts(graph: Graph) -> tuple[list[KernelContext], Signal]:
    """Returns the context of every kernel of every step, and the deepest of the model's output signals.

    A `DenseStack` has the contexts of as many Dense layers in a chain.
    """
    tracer = _ContextTracer()
    signals = {number: Signal() for number in graph.inputs}
    with remember_activations():
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
        # Kept for one model only: the functions of a user's activations may change between two.
        self.composed: dict[tuple[Activation, Activation, float, float], Activation] = {}
        self.multiplied: dict[tuple[Activation, Activation], Activation] = {}

    def pass_through(self, step: Step, incoming: Sequence[Signal]) -> Signal:
        """Returns the signal that leaves a step."""
        if not incoming:
            return Signal()
        kernels = kernels_of(step.operation) if step.kernel is None else [step.kernel]
        if kernels:
            return self._apply_kernels(step, kernels, _merge(incoming))
        kind = layer_kind(step.operation)
        effect = kind.effect
        if effect is Effect.EMBEDDING:
            return replace(incoming[0], embedded=True)
        if step.guessed:
            return replace(_merge(incoming), guessed=True)
        if effect is Effect.NORMALIZATION:
            return self._normalize(incoming[0])
        activation, unknown = _operation_activation(step)
        if unknown:
            return replace(incoming[0], activation=LINEAR, scale=1.0, shift=0.0, unknown=unknown)
        if activation is not None:
            return self._activate(incoming[0], activation)
        if len(incoming) == 1:
            factor = None if kind.factor is None else kind.factor(step.operation)
            if factor is not None:
                return _with_factors(incoming[0], (factor,))
            if effect in (Effect.SUM, Effect.PRODUCT, Effect.QUOTIENT):
                return _scale_and_shift(incoming[0], step)
            # Reshaping, maximum pooling and the like
            return incoming[0]
        if effect is Effect.SUM:
            return self._sum(incoming)
        if effect is Effect.PRODUCT:
            return self._multiply(incoming)
        if effect is Effect.CONCATENATION:
            return _merge(incoming)
        # An unknown function of several signals, which is taken to be linear.
        return replace(_merge(incoming), activation=LINEAR)

    def _apply_kernels(self, step: Step, kernels: Sequence[Kernel], signal: Signal) -> Signal:
        self.calls[id(step.operation)] += 1
        call = self.calls[id(step.operation)]
        for kernel in kernels:
            activation, unknown = _elementwise(kernel.activation, kernel.units)
            for one in kernel.oriented(step.input_shape).unstack():
                for source in (*(signal.sources or ()), *signal.gate_sources):
                    self.contexts[source].followed += 1
                index = len(self.contexts)
                self.contexts.append(KernelContext(one, step, call, signal))
                signal = Signal(
                    frozenset([index]),
                    activation=activation or LINEAR,
                    layers=signal.layers + 1,
                    sums=signal.sums,
                    products=signal.products,
                    guessed=step.guessed,
                    unknown=unknown,
                )
        return signal

    def _normalize(self, signal: Signal) -> Signal:
        for source in signal.sources or ():
            # Behind a sum, the scales of its terms still matter relative to each other.
            if not signal.summed:
                self.contexts[source].normalized_after = True
        return replace(
            signal,
            activation=LINEAR,
            scale=1.0,
            shift=0.0,
            factors=(),
            gates=(),
            normalized=True,
            unknown="",
        )

    def _activate(self, signal: Signal, activation: Activation) -> Signal:
        """Returns an activation of a signal, which may be an activation already."""
        inner = (signal.activation, signal.scale, signal.shift)
        if inner == (LINEAR, 1.0, 0.0):
            return replace(signal, activation=activation)
        key = (activation, *inner)
        if key not in self.composed:
            self.composed[key] = _compose(*key)
        return replace(signal, activation=self.composed[key], scale=1.0, shift=0.0)

    def _sum(self, terms: Sequence[Signal]) -> Signal:
        # The term with the fewest kernels is the shortcut, unless all have equally many.
        depths = [term.layers for term in terms]
        shortest = min(depths)
        has_shortcut = max(depths) > shortest
        shortcut = terms[depths.index(shortest)] if has_shortcut else Signal()
        for term in terms:
            is_shortcut = has_shortcut and term.layers == shortest
            # A normalized term has unit variance whatever its kernels are; a sum's terms were scaled before.
            if is_shortcut or term.normalized or term.summed:
                continue
            for source in term.sources or ():
                self.contexts[source].terms.append(SumTerm(len(terms), has_shortcut, term, shortcut.gates))
        merged = _merge(terms)
        # The branches make up for their own factors and for the gates of the shortcut; see `SumTerm`.
        return replace(
            merged,
            activation=LINEAR,
            scale=shortcut.scale,
            shift=shortcut.shift,
            factors=shortcut.factors,
            gates=(),
            summed=True,
            unknown="",
            sums=merged.sums + has_shortcut,
        )

    def _multiply(self, factors: Sequence[Signal]) -> Signal:
        """Returns the product of signals.

        One of them carries the signal: not one that is a constant plus something at zero, as a sigmoid is,
        and of the others the one with the fewest kernels. The others are its gates. Factors that come from
        the same kernels are one activation, such as a * sigmoid(a).
        """
        signal, *others = sorted(factors, key=lambda factor: (_is_open_at_zero(factor), factor.layers))
        for other in others:
            if _same_origin(signal, other):
                signal = self._multiply_activations(signal, other)
            else:
                signal = self._apply_gate(signal, other)
        return signal

    def _multiply_activations(self, signal: Signal, other: Signal) -> Signal:
        one = self._activate(signal, LINEAR).activation
        two = self._activate(other, LINEAR).activation
        if (one, two) not in self.multiplied:
            self.multiplied[one, two] = _multiply_functions(one, two)
        # Constant factors may stand outside: their product is recognized by its name.
        return replace(signal, activation=self.multiplied[one, two], scale=1.0, shift=0.0)

    def _apply_gate(self, signal: Signal, other: Signal) -> Signal:
        biases = [self.contexts[source].kernel.mean_bias for source in other.sources or ()]
        bias = 0.0 if other.normalized or not biases else sum(biases) / len(biases)
        gate = Gate(other.activation, other.scale, other.shift, bias, other.normalized)
        for source in other.sources or ():
            self.contexts[source].gate_of.append(gate)
        # Data that multiply a signal, such as a mask, have an unknown scale.
        known = () if other.reads_data else (gate,)
        sources = (other.sources or frozenset()) | other.gate_sources | signal.gate_sources
        return replace(
            signal,
            gate_sources=sources if len(sources) <= _MANY else signal.gate_sources,
            factors=signal.factors + other.factors,
            gates=signal.gates + other.gates + known,
            sums=max(signal.sums, other.sums),
            products=max(signal.products, other.products) + bool(known),
            guessed=signal.guessed or other.guessed,
            unknown=signal.unknown or other.unknown,
        )


def _merge(signals: Sequence[Signal]) -> Signal:
    """Returns several signals as one: most properties must hold for all of them, some for any."""
    if len(signals) == 1:
        return signals[0]
    sources: frozenset[int] | None = frozenset()
    gate_sources: frozenset[int] = frozenset()
    for signal in signals:
        sources = None if sources is None or signal.sources is None else sources | signal.sources
        gate_sources |= signal.gate_sources
    if sources is not None and len(sources) > _MANY:
        sources = None
    # The most frequent activation; in a tie, the first.
    activation, _ = Counter(signal.activation for signal in signals).most_common(1)[0]
    first = next(signal for signal in signals if signal.activation == activation)
    alike = all(
        (signal.scale, signal.shift, signal.factors, signal.gates)
        == (first.scale, first.shift, first.factors, first.gates)
        for signal in signals
    )
    return Signal(
        sources,
        gate_sources if len(gate_sources) <= _MANY else frozenset(),
        activation,
        scale=first.scale if alike else 1.0,
        shift=first.shift if alike else 0.0,
        factors=first.factors if alike else (),
        gates=first.gates if alike else (),
        normalized=all(signal.normalized for signal in signals),
        summed=any(signal.summed for signal in signals),
        layers=max(signal.layers for signal in signals),
        sums=max(signal.sums for signal in signals),
        products=max(signal.products for signal in signals),
        embedded=any(signal.embedded for signal in signals),
        guessed=any(signal.guessed for signal in signals),
        unknown=next((signal.unknown for signal in signals if signal.unknown), ""),
    )


def _with_factors(signal: Signal, factors: tuple[Factor, ...]) -> Signal:
    """Returns a signal times factors; data keep their scale, which is the user's or the calibration's."""
    return signal if signal.reads_data else replace(signal, factors=signal.factors + factors)


def _scale_and_shift(signal: Signal, step: Step) -> Signal:
    """Returns a signal times, over, plus or minus a number."""
    if signal.reads_data:
        return signal
    try:
        numbers = [
            0.0 if isinstance(argument, keras.KerasTensor) else float(argument)  # type: ignore[arg-type]
            for argument in step.arguments
        ]
        tensors = [isinstance(argument, keras.KerasTensor) for argument in step.arguments]
        if sum(tensors) != 1 or len(numbers) != 2:
            return signal
        # The operation itself says what it makes of 0 and of 1.
        ones = [1.0 if is_tensor else number for is_tensor, number in zip(tensors, numbers, strict=True)]
        at_zero, at_one = (
            float(keras.ops.convert_to_numpy(step.operation.call(*values))) for values in (numbers, ones)
        )
    except (TypeError, ValueError, ArithmeticError):  # arrays, or 1 / x
        return signal
    slope = at_one - at_zero
    if not np.isfinite([slope, at_zero]).all() or slope == 0.0:
        return signal
    return replace(signal, scale=slope * signal.scale, shift=slope * signal.shift + at_zero)


def _same_origin(one: Signal, other: Signal) -> bool:
    """Returns whether two signals are functions of the same pre-activations, unit by unit."""
    if one.reads_data or one.gates or other.gates or one.summed or other.summed:
        return False
    return one.sources == other.sources and one.layers == other.layers


def _is_open_at_zero(signal: Signal) -> bool:
    """Returns whether a signal is far from zero where its pre-activations are zero, as a sigmoid's."""
    try:
        return Gate(signal.activation, signal.scale, signal.shift, 0.0, False).is_open
    except Exception:  # a function of the user's may raise anything
        return False


def _compose(outer: Activation, inner: Activation, scale: float, shift: float) -> Activation:
    """Returns `outer(scale * inner(a) + shift)`."""

    def between(a: Array) -> Array:
        return np.asarray(scale * inner.function(a) + shift, np.float64)

    argument = "a" if inner is LINEAR else f"{inner.name}(a)"
    argument = argument if scale == 1.0 else f"{scale:g} {argument}"
    argument = argument if shift == 0.0 else f"{argument} {'-' if shift < 0 else '+'} {abs(shift):g}"
    if outer is LINEAR:
        name, function = argument, between
    else:
        name = f"{outer.name}({argument})"
        function = lambda a: np.asarray(outer.function(between(a)), np.float64)  # noqa: E731
    kinks = set(inner.kinks)
    if inner is LINEAR:
        kinks = {(kink - shift) / scale for kink in outer.kinks}
    return _recognize(
        name,
        function,
        lambda a: outer.slope_at(between(a)) * scale * inner.slope_at(a),
        tuple(sorted(kinks)),
    )


def _multiply_functions(one: Activation, other: Activation) -> Activation:
    """Returns `one(a) * other(a)`."""
    return _recognize(
        f"{one.name} * {other.name}",
        lambda a: np.asarray(one.function(a) * other.function(a), np.float64),
        lambda a: one.slope_at(a) * other.function(a) + one.function(a) * other.slope_at(a),
        tuple(sorted({*one.kinks, *other.kinks})),
    )


_GRID = np.linspace(-7.0, 7.0, 57)


def _recognize(
    name: str,
    function: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    kinks: tuple[float, ...],
) -> Activation:
    """Returns the activation of the theory's table that `function` is, or a new one."""
    values = function(_GRID)
    for known in ACTIVATIONS.values():
        with np.errstate(all="ignore"):
            if np.allclose(known.function(_GRID), values, rtol=1e-6, atol=1e-6):
                return known
    with_slopes = activation_from_callable(name, function)
    return with_slopes if with_slopes.slopes else Activation(name, function, derivative, kinks)


def _operation_activation(step: Step) -> tuple[Activation | None, str]:
    """Returns what `_elementwise` says of the activation that a step is; None and "" if it is none."""
    kind = layer_kind(step.operation)
    if kind.activation is None:
        return None, ""
    units = step.input_shape[-1] if step.input_shape else None
    return _elementwise(kind.activation(step.operation), units)


def _elementwise(activation: ActivationLike, units: int | None) -> tuple[Activation | None, str]:
    """Returns the theory's view of a Keras activation, and why nothing is known of it.

    Args:
        activation: The activation.
        units: Number of units that it acts on, if known.

    Returns:
        The activation and ""; None and "" for softmax and others that mix the units; None and the reason for
        one that cannot be evaluated.
    """
    try:
        return theory_activation(activation, units), ""
    except NotElementwiseError:
        return None, ""
    except ValueError as error:  # an `ActivationError`, or what a user's layer calls its activation
        return None, str(error)
