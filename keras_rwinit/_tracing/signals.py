"""What is known of the tensors between the kernels of a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.arrays import value_of
from keras_rwinit._keras.layer_kinds import Factor
from keras_rwinit.theory import ACTIVATIONS, Activation

from .graph import Step

__all__ = [
    "LINEAR",
    "MAX_SOURCES",
    "NEW_ORIGIN",
    "Gate",
    "Signal",
    "SumTerm",
    "have_same_origin",
    "is_open_at_zero",
    "merge_signals",
    "scale_and_shift",
    "with_factors",
]

Array: TypeAlias = NDArray[np.float64]

LINEAR = ACTIVATIONS["linear"]
MAX_SOURCES = 64
"""A signal lists no more sources: unions of long lists would cost time quadratic in the layers."""
NEW_ORIGIN = -1
"""Origin of a signal whose tensor has no number yet."""
_OPEN = 1e-3


class Gate(NamedTuple):
    """A factor of a product that does not carry the signal: `scale * f(a) + shift` of pre-activations a.

    Args:
        activation: f.
        scale, shift: What constants of the model make of it.
        bias: Mean bias of the kernels that it comes from.
        normalized: Whether the pre-activations have unit variance whatever the rules say, as behind a
            normalization, or where their kernels carry the signal too.
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
        first_scale: `scale` behind the last kernel, sum, normalization or table.
        factors: What layers without kernels multiply it with, between these kernels and the tensor.
        gates: What it was multiplied with there, from other kernels.
        origin: Number of the tensor of which it is a function unit by unit. Two signals of one origin are one
            activation when they meet.
        normalized: Whether a normalization is between these kernels and the tensor.
        summed: Whether the tensor is a sum with these kernels' outputs among its terms.
        layers: Number of kernels on the longest path from the input.
        sums: Number of sums of a shortcut and branches on the path that has most of them.
        products: Number of products with a gate on the path that has most of them.
        embedded: Whether it comes from an embedding, with no kernel in between.
        guessed: Whether an operation between these kernels and the tensor could not be looked into.
        unknown: Why nothing is known of an activation there, which is then taken to be linear; else empty.
        mixed: Why an activation there has no gain, which is then taken to be linear; else empty. Empty where
            several signals meet: softmax has its place where attention weighs another signal by it.
    """

    sources: frozenset[int] | None = frozenset()
    gate_sources: frozenset[int] = frozenset()
    activation: Activation = LINEAR
    scale: float = 1.0
    shift: float = 0.0
    first_scale: float = 1.0
    factors: tuple[Factor, ...] = ()
    gates: tuple[Gate, ...] = ()
    origin: int = NEW_ORIGIN
    normalized: bool = False
    summed: bool = False
    layers: int = 0
    sums: int = 0
    products: int = 0
    embedded: bool = False
    guessed: bool = False
    unknown: str = ""
    mixed: str = ""

    @property
    def reads_data(self) -> bool:
        """Whether no kernel comes before it."""
        return self.sources == frozenset() and not self.gate_sources

    @property
    def situation(self) -> Signal:
        """The signal without its place in the model: in a deep chain most kernels have the same."""
        return replace(
            self, sources=None, gate_sources=frozenset(), layers=0, sums=0, products=0, origin=NEW_ORIGIN
        )


class SumTerm(NamedTuple):
    """One sum that the output of a kernel is a term of.

    Args:
        size: Number of terms of the sum.
        beside_shortcut: Whether another term has fewer kernels, so that the kernel ends a branch beside a
            shortcut. Otherwise all terms are equally deep.
        signal: The term.
        shortcut_gates: The gates that the shortcut passed since the last sum.
        shortcut_scale: What constants multiplied the shortcut with since then.
        stream_scale: The scale of the shortcut before that.
    """

    size: int
    beside_shortcut: bool
    signal: Signal
    shortcut_gates: tuple[Gate, ...] = ()
    shortcut_scale: float = 1.0
    stream_scale: float = 1.0


def merge_signals(signals: Sequence[Signal]) -> Signal:
    """Returns several signals as one: most properties must hold for all of them, some for any."""
    if len(signals) == 1:
        return signals[0]
    sources: frozenset[int] | None = frozenset()
    gate_sources: frozenset[int] = frozenset()
    for signal in signals:
        sources = None if sources is None or signal.sources is None else sources | signal.sources
        gate_sources |= signal.gate_sources
    if sources is not None and len(sources) > MAX_SOURCES:
        sources = None
    # The most frequent activation; in a tie, the first.
    activation, _ = Counter(signal.activation for signal in signals).most_common(1)[0]
    first = next(signal for signal in signals if signal.activation == activation)
    alike = all(
        (signal.scale, signal.shift, signal.first_scale, signal.factors, signal.gates)
        == (first.scale, first.shift, first.first_scale, first.factors, first.gates)
        for signal in signals
    )
    return Signal(
        sources,
        gate_sources if len(gate_sources) <= MAX_SOURCES else frozenset(),
        activation,
        scale=first.scale if alike else 1.0,
        shift=first.shift if alike else 0.0,
        first_scale=first.first_scale if alike else 1.0,
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


def with_factors(signal: Signal, factors: tuple[Factor, ...]) -> Signal:
    """Returns a signal times factors; data keep their scale, which is the user's or the calibration's."""
    return signal if signal.reads_data else replace(signal, factors=signal.factors + factors)


def scale_and_shift(signal: Signal, step: Step) -> Signal:
    """Returns a signal times, over, plus or minus a number."""
    if signal.reads_data and not signal.embedded:
        return signal
    try:
        numbers = [
            0.0 if isinstance(argument, keras.KerasTensor) else _number_of(argument)
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
    if not math.isfinite(slope) or not math.isfinite(at_zero) or slope == 0.0:
        return signal
    return replace(signal, scale=slope * signal.scale, shift=slope * signal.shift + at_zero)


def _number_of(argument: Any) -> float:
    """Returns a number, or a variable's; PyTorch warns where one that takes gradients becomes a float."""
    is_scalar = isinstance(argument, keras.Variable) and not argument.shape
    return float(value_of(argument) if is_scalar else argument)


def have_same_origin(signals: Sequence[Signal]) -> bool:
    """Returns whether signals are functions of the same pre-activations, unit by unit."""
    first = signals[0]
    if first.reads_data or first.origin == NEW_ORIGIN:
        return False
    return all(
        (signal.origin, signal.factors, signal.gates) == (first.origin, first.factors, first.gates)
        for signal in signals
    )


def is_open_at_zero(signal: Signal) -> bool:
    """Returns whether a signal is far from zero where its pre-activations are zero, as a sigmoid's."""
    try:
        return Gate(signal.activation, signal.scale, signal.shift, 0.0, False).is_open
    except Exception:  # a function of the user's may raise anything
        return False
