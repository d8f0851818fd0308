"""Chooses the gain of a kernel by its context in a model, and says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit.theory import NoGainError
from keras_rwinit.theory.distributions import Distribution
from keras_rwinit.theory.gains import gain_or_nearest_width, one_layer_gain

__all__ = ["GainRule", "gain_rule"]


@dataclass(frozen=True)
class GainRule:
    """A gain and its reason.

    Args:
        gain: Factor for a kernel of entries of variance `1 / fan_in`.
        share: Factor of `gain` that is there for a sum; its square is the share of the sum's variance.
        why: How the gain was found.
    """

    gain: float
    share: float
    why: str


def gain_rule(context: KernelContext, depth: int, sums: int, law: Distribution) -> GainRule:
    """Returns the gain of a kernel in its context.

    - A kernel fed through an activation gets the activation's gain at its own fan-in, for the model's
      depth. A kernel that is fed linearly, as by the data or a sum, gets the linear gain.
    - After a normalization, which gives pre-activations unit variance whatever came before, and where an
      activation has no gain for the depth, it is the gain of one step with unit variance,
      `exp(-E ln z / 2)`.
    - The last kernel of a branch that is added to a shortcut is scaled by `1 / sqrt(sums)`, the number of
      such sums in the model: the variance then grows by at most `(1 + 1 / sums)^sums < e` over all of them
      (Hanin & Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1910.09309). The n branches of a sum of equal
      depth share the variance, `1 / sqrt(n)` each.
    - A convolution padded with zeros loses what it reads from beyond the edge. The gain makes up for the
      loss of a deep chain of equal layers, the largest eigenvalue of the window's average over the image.

    Args:
        context: The kernel in its context.
        depth: Number of hidden layers of the model.
        sums: Number of sums of a shortcut and branches on the model's longest way.
        law: Distribution that the kernel is drawn from.
    """
    gain, why = _activation_gain(context, max(depth, 1), law)
    if context.signal.sources == frozenset():
        why = "fed by an embedding" if context.signal.embedded else "reads the data"
    # A normalization after the kernel undoes any scale; sum and padding need none.
    if context.normalized_after:
        return GainRule(gain, 1.0, why)
    share, share_reason = _share_of_sums(context, sums)
    padding = _padding_loss(context)
    padding_reason = "; zero padding" if padding < 1.0 - 1e-12 else ""
    return GainRule(gain * share / math.sqrt(padding), share, why + share_reason + padding_reason)


def _activation_gain(context: KernelContext, depth: int, law: Distribution) -> tuple[float, str]:
    """Returns the gain for the activation that feeds a kernel, and the reason."""
    signal, activation = context.signal, context.signal.activation
    width = max(round(context.kernel.fan_in), 1)
    why = f"fed by {activation.name}" if activation.name != "linear" else "fed linearly"
    if activation.slopes is not None:
        if not any(activation.slopes):
            return 1.0, f"{why}, through which no gradient passes"
        return one_layer_gain(activation, width, law), why
    if signal.normalized:
        return one_layer_gain(activation, width, law), f"{why}, normalized"
    try:
        return gain_or_nearest_width(activation, width, depth, law.name), why
    except NoGainError:
        why += f", which has no gain for {depth} layers: gain of one step"
        return one_layer_gain(activation, width, law), why


def _share_of_sums(context: KernelContext, sums: int) -> tuple[float, str]:
    """Returns the factor of a kernel whose output is a term of sums, and the reason."""
    if not context.terms:
        return 1.0, ""
    # With equally deep terms in one sum and a shortcut in another, the share of the equal terms holds.
    equal = max((term.size for term in context.terms if not term.beside_shortcut), default=0)
    if equal:
        return 1.0 / math.sqrt(equal), f"; one of {equal} terms"
    return 1.0 / math.sqrt(max(sums, 1)), f"; branch of one of {sums} sums"


def _padding_loss(context: KernelContext) -> float:
    """Returns the share of the variance that zero padding leaves in a deep chain of this layer."""
    layer, shape = context.step.operation, context.step.input_shape
    if not context.kernel.kind.zero_padded or shape is None or layer.padding != "same":
        return 1.0
    rank = len(layer.kernel_size)
    # With strides the image shrinks, and no deep chain of equal layers exists.
    if set(_tuple(layer.strides, rank)) != {1}:
        return 1.0
    sizes = shape[1 : 1 + rank] if layer.data_format == "channels_last" else shape[2 : 2 + rank]
    dilations = _tuple(layer.dilation_rate, rank)
    return math.prod(
        _largest_eigenvalue(int(size), int(window), int(dilation))
        for size, window, dilation in zip(sizes, layer.kernel_size, dilations, strict=True)
        if size is not None
    )


def _tuple(value: int | Sequence[int], rank: int) -> Sequence[int]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


@lru_cache(maxsize=256)
def _largest_eigenvalue(size: int, window: int, dilation: int) -> float:
    """Returns the largest eigenvalue of a window's mean on `size` places with zeros beyond their ends."""
    if window == 1 or size > 512:  # where the edges no longer matter
        return 1.0
    # Keras puts the odd zero of an even window behind the image.
    before = dilation * ((window - 1) // 2)
    places = np.arange(size)
    matrix: NDArray[np.float64] = np.zeros((size, size))
    for tap in range(window):
        at = places + tap * dilation - before
        inside = (at >= 0) & (at < size)
        matrix[places[inside], at[inside]] += 1.0 / window
    return float(np.abs(np.linalg.eigvals(matrix)).max())
