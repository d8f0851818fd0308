"""Predicts a model's walk from the kernels that the model has, where the theory covers it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit._probing.norms import log_norm
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import Kernel
from keras_rwinit.layers import DenseStack
from keras_rwinit.theory import WalkPrediction
from keras_rwinit.theory.distributions import DISTRIBUTIONS, Distribution
from keras_rwinit.theory.walk import predict_chain

__all__ = ["predict_model_walk"]

_ORTHOGONAL_WITHIN = 1e-3  # of the unit matrix; a float32 kernel of a thousand units is within 1e-5


def predict_model_walk(contexts: Sequence[KernelContext]) -> WalkPrediction | None:
    """Predicts the walk of a chain of Dense layers, hidden ones of one activation; None for other models.

    Its gains are the kernels' own, `sqrt(fan_in)` times the root mean square of their entries. With two
    slopes the widths may differ; with other activations they must not.
    """
    hidden = contexts[:-1]
    if not hidden or not _is_chain(contexts):
        return None
    # A signal knows the last layer of a stack; the layers inside feed each other.
    activations = {context.signal.activation for context in contexts[1:]}
    activations |= {
        theory_activation(context.kernel.activation) for context in hidden if context.kernel.stacked > 1
    }
    if len(activations) != 1:
        return None
    activation = activations.pop()
    # The first kernel reads the data, and the gradient at the first layer has not passed it.
    steps = [step for context in hidden for step in _widths_and_gains(context.kernel)][1:]
    if not all(gain > 0.0 and np.isfinite(gain) for _, gain in steps):
        return None
    widths, gains = [width for width, _ in steps], [gain for _, gain in steps]
    if activation.slopes is None and len(set(widths)) > 1:
        return None
    # The widest kernel has the most entries to tell the distribution by.
    widest = max((context.kernel for context in hidden), key=lambda kernel: int(kernel.fan_in))
    return predict_chain(activation, widths, gains, distribution=_guess_distribution(widest).name)


def _is_chain(contexts: Sequence[KernelContext]) -> bool:
    """Returns whether each kernel is a Dense layer's, fed by the one before and by nothing else."""
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


def _widths_and_gains(kernel: Kernel) -> list[tuple[int, float]]:
    """Returns fan-in and gain of each layer."""
    values = _values(kernel)
    width, units = values.shape[1:]
    gains = np.exp(log_norm(values)) / np.sqrt(units)  # sqrt(width) times the root mean square
    return [(width, float(gain)) for gain in gains]


def _values(kernel: Kernel) -> NDArray[np.floating]:
    """Returns the values with an axis of layers before the two of the kernel."""
    values: NDArray[np.floating] = keras.ops.convert_to_numpy(kernel.variable.value)
    return values if kernel.stacked else values[None]


def _guess_distribution(kernel: Kernel) -> Distribution:
    """Tells from a kernel's entries which distribution drew it: by its isometry, or by their kurtosis."""
    # The first layer of a stack is enough; do not copy the whole of it off the device.
    value = kernel.variable.value[0] if kernel.stacked else kernel.variable.value
    values = keras.ops.convert_to_numpy(value).astype(np.float64)
    # An orthogonal kernel has orthogonal columns, or rows if it is wide, of equal length.
    tall = values if values.shape[0] >= values.shape[1] else values.T
    gram = tall.T @ tall
    count = len(gram)
    if count > 1 and np.abs(gram / (np.trace(gram) / count) - np.eye(count)).max() < _ORTHOGONAL_WITHIN:
        return DISTRIBUTIONS["orthogonal"]
    squares = (values - values.mean()) ** 2
    excess = (squares**2).mean() / max(squares.mean() ** 2, 1e-300) - 3.0
    independent = [law for law in DISTRIBUTIONS.values() if not law.orthogonal]
    return min(independent, key=lambda law: abs(law.excess_kurtosis - excess))
