"""What the theory says of a model's walk, from the kernels the model has, where it says anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._probing.norms import log_norm
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import Kernel
from keras_rwinit.layers import DenseStack
from keras_rwinit.theory import Activation, WalkPrediction, predict_walk
from keras_rwinit.theory._two_slopes import log_step_moments
from keras_rwinit.theory.distributions import DISTRIBUTIONS, Distribution

__all__ = ["predict_model_walk"]


def predict_model_walk(contexts: Sequence[KernelContext]) -> WalkPrediction | None:
    """The prediction for a chain of Dense layers, hidden ones of one activation; None for other models.

    Its gains are the kernels' own, `sqrt(fan_in)` times the root mean square of their entries. With two
    slopes the widths may differ; with other activations they must not.
    """
    hidden = contexts[:-1]
    if not hidden or not _is_chain(contexts):
        return None
    activations = {context.signal.activation for context in contexts[1:]}
    activations |= {_own(context) for context in hidden if context.kernel.stacked > 1}
    if len(activations) != 1:
        return None
    activation = activations.pop()
    steps = [pair for context in hidden for pair in _gains(context.kernel)][1:]
    if not all(gain > 0.0 and np.isfinite(gain) for _, gain in steps):
        return None
    depth = len(steps) + 1
    law = _law(max((context.kernel for context in hidden), key=lambda kernel: int(kernel.fan_in)))
    if activation.slopes is not None:
        return _of_two_slopes(activation, steps, law)
    if len({width for width, _ in steps}) > 1:
        return None
    if not steps:
        return WalkPrediction(1.0, np.zeros(1), np.zeros(1), 0.0)
    return predict_walk(activation, steps[0][0], depth, float(np.mean([gain for _, gain in steps])), law.name)


def _own(context: KernelContext) -> Activation:
    from keras_rwinit._keras.activations import theory_activation

    return theory_activation(context.kernel.activation)


def _is_chain(contexts: Sequence[KernelContext]) -> bool:
    """Whether each kernel is a Dense layer's, fed by the one before and by nothing else."""
    for number, context in enumerate(contexts):
        signal = context.signal
        if type(context.step.operation) not in (keras.layers.Dense, DenseStack) or context.call > 1:
            return False
        sources = frozenset([number - 1]) if number else frozenset()
        if signal.sources != sources or signal.normalized or signal.summed or context.followed > 1:
            return False
        if context.normalized_after or context.guessed or signal.embedded:
            return False
    return True


def _gains(kernel: Kernel) -> list[tuple[int, float]]:
    """Fan-in and gain of each layer."""
    values = _values(kernel)
    width, units = values.shape[1:]
    gains = np.exp(log_norm(values)) / np.sqrt(units)  # sqrt(width) times the root mean square
    return [(width, float(gain)) for gain in gains]


def _values(kernel: Kernel) -> NDArray[Any]:
    values: Any = keras.ops.convert_to_numpy(kernel.variable.value)
    return values if kernel.stacked else values[None]


def _law(kernel: Kernel) -> Distribution:
    """The distribution that a kernel's entries look like: their kurtosis tells, or their isometry."""
    value = kernel.variable.value[0] if kernel.stacked else kernel.variable.value
    values = keras.ops.convert_to_numpy(value).astype(np.float64)
    tall = values if values.shape[0] >= values.shape[1] else values.T
    gram = tall.T @ tall
    count = len(gram)
    if count > 1 and np.abs(gram / (np.trace(gram) / count) - np.eye(count)).max() < 1e-3:
        return DISTRIBUTIONS["orthogonal"]
    squares = (values - values.mean()) ** 2
    excess = (squares**2).mean() / max(squares.mean() ** 2, 1e-300) - 3.0
    laws = [law for law in DISTRIBUTIONS.values() if not law.orthogonal]
    return min(laws, key=lambda law: abs(law.excess_kurtosis - excess))


def _of_two_slopes(
    activation: Activation, steps: Sequence[tuple[int, float]], law: Distribution
) -> WalkPrediction:
    assert activation.slopes is not None
    moments = {width: log_step_moments(activation.slopes, width, law) for width, _ in steps}
    means = np.array([np.log(gain) + moments[width][0] / 2.0 for width, gain in steps])
    variances = np.array([moments[width][1] / 4.0 for width, _ in steps])
    survival = sum(np.log1p(-(0.5**width)) for width, _ in steps) if 0.0 in activation.slopes else 0.0
    gain = float(np.exp(np.mean([np.log(gain) for _, gain in steps]))) if steps else 1.0

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.append(np.cumsum(values[::-1])[::-1], 0.0)

    return WalkPrediction(gain, summed(means), np.sqrt(summed(variances)), float(-np.expm1(survival)))
