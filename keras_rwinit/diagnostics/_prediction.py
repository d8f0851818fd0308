"""Predicts a model's walk from the kernels that the model has, where the theory covers it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.arrays import value_of
from keras_rwinit._probing.norms import log_norm, to_numpy
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import Kernel
from keras_rwinit.layers import DenseStack
from keras_rwinit.theory import Activation, WalkPrediction
from keras_rwinit.theory.correlation import CorrelationPrediction, predict_correlation
from keras_rwinit.theory.distributions import DISTRIBUTIONS, Distribution
from keras_rwinit.theory.walk import predict_chain

__all__ = ["ModelPrediction", "predict_model"]

_ORTHOGONAL_WITHIN = 1e-3  # of the unit matrix; a float32 kernel of a thousand units is within 1e-5


class ModelPrediction(NamedTuple):
    """What theory says of a model.

    Args:
        walk: Prediction for the walk, None where the theory has none.
        correlation: The same for the correlation of the examples.
        reason: Why there is no prediction for the walk; empty if there is one.
    """

    walk: WalkPrediction | None = None
    correlation: CorrelationPrediction | None = None
    reason: str = ""


class _NoPredictionError(ValueError):
    """The theory does not cover a model; the message says why."""


def predict_model(contexts: Sequence[KernelContext], correlation: float, measured: int) -> ModelPrediction:
    """Predicts the walk and the examples' correlation in a chain of Dense layers, hidden ones of one kind.

    Its gains are the kernels' own, `sqrt(fan_in)` times the root mean square of their entries. With two
    slopes the widths may differ for the walk. The correlation is predicted for two slopes and one width.

    Args:
        contexts: The contexts of the model's kernels.
        correlation: Mean correlation of the inputs; nan where it is unknown.
        measured: Number of layers that were measured; a prediction for other layers would mislead.
    """
    try:
        chain = _find_chain(contexts)
        if len(chain.widths) + 1 != measured:
            raise _NoPredictionError(f"only {measured} of {len(chain.widths) + 1} layers were measured")
    except _NoPredictionError as error:
        return ModelPrediction(reason=str(error))
    predicted = _predict_correlation(chain, correlation)
    try:
        return ModelPrediction(_predict_walk(chain), predicted)
    except _NoPredictionError as error:
        return ModelPrediction(None, predicted, str(error))


def _predict_walk(chain: _Chain) -> WalkPrediction:
    name, kernels = chain.activation.name, chain.distribution.name
    if chain.activation.slopes is None and len(set(chain.widths)) > 1:
        raise _NoPredictionError(f"the widths differ, and {name} is not made of two straight lines")
    try:
        return predict_chain(chain.activation, chain.widths, chain.gains, distribution=kernels)
    except ValueError as error:  # such kernels and this activation are no chain of the theory's
        raise _NoPredictionError(f"theory has no walk of {name} with {kernels} kernels") from error


def _predict_correlation(chain: _Chain, correlation: float) -> CorrelationPrediction | None:
    # That of other activations takes seconds, many times the measurement.
    slopes = chain.activation.slopes
    if slopes is None or len(slopes) != 2 or len(set(chain.widths)) != 1 or not np.isfinite(correlation):
        return None
    try:
        # With two slopes the gain does not matter, and one number for it finds the last result again.
        prediction = predict_correlation(
            chain.activation,
            chain.widths[0],
            len(chain.widths) + 1,
            correlation=correlation,
            gain=1.0,
            distribution=chain.distribution.name,
        )
    except ValueError:
        return None
    return dataclasses.replace(prediction, gain=float(np.exp(np.mean(np.log(chain.gains)))))


class _Chain(NamedTuple):
    """A chain of hidden Dense layers.

    Args:
        activation: The activation of all of them.
        widths: Fan-in of each kernel but the first.
        gains: Gain of each of these.
        distribution: Distribution of the kernels.
    """

    activation: Activation
    widths: list[int]
    gains: list[float]
    distribution: Distribution


def _find_chain(contexts: Sequence[KernelContext]) -> _Chain:
    """Returns the chain that a model is; `_NoPredictionError` for other models."""
    hidden = contexts[:-1]
    if not hidden:
        raise _NoPredictionError("no hidden layer is of a kind that theory knows")
    _check_chain(contexts)
    activations = {context.signal.activation for context in contexts[1:]}
    if len(activations) != 1:
        names = ", ".join(sorted({activation.name for activation in activations}))
        raise _NoPredictionError(f"the hidden layers have different activations: {names}")
    kernels = [context.kernel for context in hidden]
    # The first kernel reads the data, and the gradient at the first layer has not passed it.
    steps = _widths_and_gains(kernels)[1:]
    if not all(gain > 0.0 and np.isfinite(gain) for _, gain in steps):
        raise _NoPredictionError("a kernel is zero or not finite")
    widths, gains = [width for width, _ in steps], [gain for _, gain in steps]
    return _Chain(activations.pop(), widths, gains, _guess_distribution(kernels))


def _check_chain(contexts: Sequence[KernelContext]) -> None:
    """Raises `_NoPredictionError` unless each kernel is a Dense layer's, fed by the one before alone."""
    for number, context in enumerate(contexts):
        reason = _reason_against(context, frozenset([number - 1]) if number else frozenset())
        if reason:
            raise _NoPredictionError(f"{context.step.operation.name} {reason}")


def _reason_against(context: KernelContext, sources: frozenset[int]) -> str:
    """Returns why a kernel is not part of a plain chain; empty if it is.

    Args:
        context: The kernel's context.
        sources: The kernel before it in the chain, which alone is to feed it.
    """
    signal, operation = context.signal, context.step.operation
    if type(operation) not in (keras.layers.Dense, DenseStack):
        return f"is no Dense layer but of type {type(operation).__name__}"
    if context.call > 1:
        return "is applied more than once"
    if signal.unknown or signal.mixed:
        return "is fed by an activation that theory does not know"
    if context.guessed:
        return "is fed in a way that could not be traced"
    if signal.summed:
        return "is fed by a sum, as behind a shortcut"
    if context.followed > 1:
        return "feeds more than one layer, as before a shortcut"
    if signal.sources != sources:
        return "is not fed by the layer before it alone"
    if signal.normalized or context.normalized_after:
        return "has a normalization next to it"
    if signal.embedded or signal.factors or signal.gates or signal.scale != 1.0:
        return "is fed through dropout, a gate, a constant factor or an embedding"
    # The integers of a quantized kernel are no weights: scales of their own belong to them.
    if not keras.backend.is_float_dtype(context.kernel.variable.dtype):
        return "has a quantized kernel"
    return ""


def _widths_and_gains(kernels: Sequence[Kernel]) -> list[tuple[int, float]]:
    """Returns fan-in and gain of each kernel."""
    gains: dict[int, NDArray[np.float64]] = {}
    fan_ins: dict[int, int] = {}
    for kernel in kernels:
        # The layers of a stack at once: it may have thousands.
        if id(kernel.variable) not in gains:
            values = _values(kernel)
            # sqrt(fan-in) times the root mean square
            gains[id(kernel.variable)] = np.exp(log_norm(values)) / np.sqrt(values.shape[-1])
            fan_ins[id(kernel.variable)] = int(kernel.fan_in)
    return [
        (fan_ins[id(kernel.variable)], float(gains[id(kernel.variable)][kernel.index or 0]))
        for kernel in kernels
    ]


def _values(kernel: Kernel) -> NDArray[np.floating]:
    """Returns the values with an axis of layers before the two of the kernel."""
    values = to_numpy(value_of(kernel.variable))
    return values if kernel.stacked else values[None]


def _guess_distribution(kernels: Sequence[Kernel]) -> Distribution:
    """Tells which distribution drew kernels: by mirrored blocks, by their isometry, or by the kurtosis."""
    # The widest kernel has the most entries to tell the distribution by. The first one may have other blocks.
    one_of_each = {id(kernel.variable): kernel for kernel in reversed(kernels)}
    widest = max(one_of_each.values(), key=lambda kernel: int(kernel.fan_in))
    if any(_is_mirrored(_first_layer(kernel)) for kernel in (*kernels[1:2], widest)):
        return DISTRIBUTIONS["looks_linear"]
    values = _first_layer(widest)
    # An orthogonal kernel has orthogonal columns, or rows if it is wide, of equal length.
    tall = values if values.shape[0] >= values.shape[1] else values.T
    gram = tall.T @ tall
    count = len(gram)
    if count > 1 and np.abs(gram / (np.trace(gram) / count) - np.eye(count)).max() < _ORTHOGONAL_WITHIN:
        return DISTRIBUTIONS["orthogonal"]
    squares = (values - values.mean()) ** 2
    excess = (squares**2).mean() / max(squares.mean() ** 2, 1e-300) - 3.0
    unstructured = [
        distribution
        for distribution in DISTRIBUTIONS.values()
        if distribution.structure in ("gaussian", "independent")
    ]
    return min(unstructured, key=lambda distribution: abs(distribution.excess_kurtosis - excess))


def _first_layer(kernel: Kernel) -> NDArray[np.float64]:
    """Returns the kernel of the first layer, which is enough: do not copy a whole stack off the device."""
    value = value_of(kernel.variable)[0] if kernel.stacked else value_of(kernel.variable)
    return np.asarray(keras.ops.convert_to_numpy(value).astype(np.float64))


def _is_mirrored(values: NDArray[np.float64]) -> bool:
    """Returns whether a kernel has the blocks `[[M, -M], [-M, M]]` of `draw_kernel`."""
    rows, columns = values.shape[0] // 2, values.shape[1] // 2
    block = values[:rows, :columns]
    pairs = np.block([[block, -block], [-block, block]])
    return bool(block.any()) and np.array_equal(values[: 2 * rows, : 2 * columns], pairs)
