"""What the theory says of a model's walk, from the kernels the model has, where it says anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ._kernels import Kernel
from ._norms import log_norm
from ._positions import Position
from .layers import DenseStack
from .theory import Activation, WalkPrediction, predict_walk
from .theory._distributions import DISTRIBUTIONS, Distribution
from .theory._two_slopes import log_step_moments

__all__ = ["predict_for"]


def predict_for(positions: Sequence[Position]) -> WalkPrediction | None:
    """The prediction for a chain of Dense layers, hidden ones of one activation; None for other models.

    Its gains are the kernels' own, `sqrt(fan_in)` times the root mean square of their entries. With two
    slopes the widths may differ; with other activations they must not.
    """
    hidden = positions[:-1]
    if not hidden or not _is_chain(positions):
        return None
    activations = {position.signal.activation for position in positions[1:]}
    activations |= {_own(position) for position in hidden if position.kernel.stacked > 1}
    if len(activations) != 1:
        return None
    activation = activations.pop()
    steps = [pair for position in hidden for pair in _gains(position.kernel)][1:]
    if not all(gain > 0.0 and np.isfinite(gain) for _, gain in steps):
        return None
    depth = len(steps) + 1
    law = _law(max((position.kernel for position in hidden), key=lambda kernel: int(kernel.fan_in)))
    if activation.slopes is not None:
        return _of_two_slopes(activation, steps, law)
    if len({width for width, _ in steps}) > 1:
        return None
    if not steps:
        return WalkPrediction(1.0, np.zeros(1), np.zeros(1), 0.0)
    return predict_walk(activation, steps[0][0], depth, float(np.mean([gain for _, gain in steps])), law.name)


def _own(position: Position) -> Activation:
    from ._activations import theory_activation

    return theory_activation(position.kernel.activation)


def _is_chain(positions: Sequence[Position]) -> bool:
    """Whether each kernel is a Dense layer's, fed by the one before and by nothing else."""
    for number, position in enumerate(positions):
        signal = position.signal
        if type(position.step.operation) not in (keras.layers.Dense, DenseStack) or position.call > 1:
            return False
        sources = frozenset([number - 1]) if number else frozenset()
        if signal.sources != sources or signal.normalised or signal.summed or position.followed > 1:
            return False
        if position.normalised_after or position.guessed or signal.embedded:
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
