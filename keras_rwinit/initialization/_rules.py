"""The gain that a kernel's position in a model asks for, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit.theory import Activation, NoGainError
from keras_rwinit.theory._mean_field import unit_step
from keras_rwinit.theory._two_slopes import log_step_moments
from keras_rwinit.theory.distributions import Distribution
from keras_rwinit.theory.gains import gain_or_nearest_width

__all__ = ["GainRule", "gain_rule"]

L = keras.layers
_PADDED = (
    L.Conv1D,
    L.Conv2D,
    L.Conv3D,
    L.DepthwiseConv1D,
    L.DepthwiseConv2D,
    L.SeparableConv1D,
    L.SeparableConv2D,
)


@dataclass(frozen=True)
class GainRule:
    """A gain and the words for it.

    Args:
        gain: To multiply a kernel of entries of variance `1 / fan_in` with.
        share: Part of `gain` that is there for a sum: its square is the share of the sum's variance.
        why: How the gain was found.
    """

    gain: float
    share: float
    why: str


def gain_rule(context: KernelContext, depth: int, sums: int, law: Distribution) -> GainRule:
    """The gain at a position of a model.

    - A kernel fed through an activation gets the activation's gain at its own fan-in, for the model's
      depth; one that is fed linearly, as by the data or a sum, the linear gain.
    - After a normalization, which gives pre-activations unit variance whatever came before, and where an
      activation has no gain for the depth, it is the gain of one step with unit variance,
      `exp(-E ln z / 2)`.
    - The last kernel of a branch that is added to a shortcut is scaled by `1 / sqrt(sums)`, the number of
      such sums in the model: the variance then grows by at most `(1 + 1 / sums)^sums < e` over all of them
      (Hanin & Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1910.09309). Sums of n branches of equal
      depth share the variance, `1 / sqrt(n)` each.
    - A convolution padded with zeros loses what it reads from beyond the edge; the gain makes up for the
      loss of a deep chain of equal layers, the largest eigenvalue of the window's average over the image.
    """
    signal = context.signal
    width = max(round(context.kernel.fan_in), 1)
    activation = signal.activation
    gain, why = _gain(activation, width, None if signal.normalized else max(depth, 1), law)
    if not signal.sources and signal.sources is not None:
        why = "fed by an embedding" if signal.embedded else "reads the data"
    share = 1.0
    if context.terms and not context.normalized_after:
        equal = max(context.terms)
        share = 1.0 / math.sqrt(equal or max(sums, 1))
        why += f"; {'one of' if equal else 'branch of one of'} {equal or sums} {'terms' if equal else 'sums'}"
    padding = _padding_loss(context) if not context.normalized_after else 1.0
    if padding < 1.0 - 1e-12:
        why += "; zero padding"
    return GainRule(gain * share / math.sqrt(padding), share, why)


def _gain(activation: Activation, width: int, depth: int | None, law: Distribution) -> tuple[float, str]:
    """Gain of a step through `activation`; for a `depth` of None, of one step with unit variance."""
    why = f"fed by {activation.name}" if activation.name != "linear" else "fed linearly"
    if activation.slopes is not None:
        if not any(activation.slopes):
            return 1.0, f"{why}, through which no gradient passes"
        return math.exp(-log_step_moments(activation.slopes, width, law)[0] / 2.0), why
    if depth is None:
        return _one_step(activation, width, law), f"{why}, normalized"
    try:
        return gain_or_nearest_width(activation, width, depth, law.name), why
    except NoGainError:
        return _one_step(activation, width, law), f"{why}, which has no gain for {depth} layers: of one step"


@lru_cache(maxsize=1024)
def _one_step(activation: Activation, width: int, law: Distribution) -> float:
    return math.exp(-unit_step(activation, width, law) / 2.0)


def _padding_loss(context: KernelContext) -> float:
    """Share of the variance that zero padding leaves in a deep chain of this layer; 1 for none."""
    layer, shape = context.step.operation, context.step.input_shape
    kernel = context.kernel
    if not isinstance(layer, _PADDED) or shape is None or layer.padding not in ("same", "causal"):
        return 1.0
    rank = len(layer.kernel_size)
    pointwise = isinstance(layer, L.SeparableConv1D | L.SeparableConv2D) and kernel.activation is not None
    if set(_tuple(layer.strides, rank)) != {1} or pointwise or layer.padding == "causal":
        return 1.0
    sizes = shape[1 : 1 + rank] if layer.data_format == "channels_last" else shape[2 : 2 + rank]
    dilations = _tuple(layer.dilation_rate, rank)
    return math.prod(
        _largest_eigenvalue(int(size), int(window), int(dilation))
        for size, window, dilation in zip(sizes, layer.kernel_size, dilations, strict=True)
        if size is not None
    )


def _tuple(value: Any, rank: int) -> Sequence[int]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


@lru_cache(maxsize=256)
def _largest_eigenvalue(size: int, window: int, dilation: int) -> float:
    """Of the mean over `window` places, `dilation` apart, on a line of `size` places with zeros beyond."""
    if window == 1 or size > 512:  # where the edges no longer matter
        return 1.0
    before = dilation * ((window - 1) // 2)
    places = np.arange(size)
    matrix = np.zeros((size, size))
    for tap in range(window):
        at = places + tap * dilation - before
        inside = (at >= 0) & (at < size)
        matrix[places[inside], at[inside]] += 1.0 / window
    return float(np.abs(np.linalg.eigvals(matrix)).max())
