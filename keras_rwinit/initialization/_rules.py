"""Chooses the gain of a kernel by its context in a model, and says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._tracing.contexts import KernelContext, Signal
from keras_rwinit.theory import NoGainError
from keras_rwinit.theory.distributions import Distribution
from keras_rwinit.theory.gains import gain_or_nearest_width, one_layer_gain

from ._factors import compensation, gate_moments, gate_scale, mean_share, slope_mean_square

__all__ = ["GainRule", "gain_rule", "repeated_rule"]


@dataclass(frozen=True)
class GainRule:
    """A gain and its reason.

    Args:
        gain: Factor for a kernel of entries of variance `1 / fan_in`.
        share: Factor of `gain` that is there for a sum or a gate; its square is the share of the sum's
            variance, or the variance of the gate's pre-activations.
        why: How the gain was found.
    """

    gain: float
    share: float
    why: str


def gain_rule(context: KernelContext, depth: int, output: Signal, distribution: Distribution) -> GainRule:
    """Returns the gain of a kernel in its context.

    - A kernel fed through an activation gets the activation's gain at its own fan-in, for the model's
      depth. A kernel that is fed linearly, as by the data or a sum, gets the linear gain.
    - After a normalization, which gives pre-activations unit variance whatever came before, and where an
      activation has no gain for the depth, it is the gain of one step with unit variance,
      `exp(-E ln z / 2)`.
    - Constants, dropout, average pooling and gates between the activation and the kernel multiply squared
      gradients by a mean square m, which a factor `1 / sqrt(m)` makes up for; see `compensation`.
    - The last kernel of a branch that is added to a shortcut is scaled by `1 / sqrt(sums)`, the number of
      such sums in the model: the variance then grows by at most `(1 + 1 / sums)^sums < e` over all of them
      (Hanin & Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1910.09309). The n branches of a sum of equal
      depth share the variance, `1 / sqrt(n)` each. A branch beside a shortcut through gates, as in a
      highway network, makes up for what the gates take away; see `_share_of_sums`.
    - The kernel of a gate is scaled by `1 / sqrt(products)`; see `_share_of_gate`.
    - A convolution padded with zeros loses what it reads from beyond the edge. The gain makes up for the
      loss of a deep chain of equal layers, the largest eigenvalue of the window's average over the image.

    Args:
        context: The kernel in its context.
        depth: Number of hidden layers of the model.
        output: The deepest of the model's output signals.
        distribution: Distribution that the kernel is drawn from.
    """
    gain, why = _activation_gain(context, max(depth, 1), distribution)
    if context.signal.unknown:
        why = f"taken to be fed linearly, which is a guess. {context.signal.unknown}"
    if context.signal.reads_data:
        why = "fed by an embedding" if context.signal.embedded else "reads the data"
    factor, factor_reason = compensation(context, output.products)
    gain, why = gain * factor, why + factor_reason
    # A normalization after the kernel undoes any scale; sum and padding need none.
    if context.normalized_after:
        return GainRule(gain, 1.0, why)
    share, share_reason = _share_of_sums(context, output)
    if not context.terms:
        share, share_reason = _share_of_gate(context, output.products)
    padding = _padding_loss(context)
    padding_reason = "; zero padding" if padding < 1.0 - 1e-12 else ""
    return GainRule(gain * share / math.sqrt(padding), share, why + share_reason + padding_reason)


def repeated_rule(rules: Sequence[GainRule], contexts: Sequence[KernelContext]) -> GainRule:
    """Returns the rule of a kernel that is applied in several contexts, by their rules.

    The step of `ln|delta|` through the u-th application is `ln g - ln g_u` off, where g_u is the gain that
    its context requires, so that the geometric mean of the g_u leaves no drift. Applications that read the
    data are the first of a chain: the gradient passes through no kernel before them, and they do not count
    if there are others.
    """
    used = [
        rule for rule, context in zip(rules, contexts, strict=True) if not context.signal.reads_data
    ] or list(rules)
    if len(rules) == 1:
        return rules[0]
    gain, share = (
        math.exp(sum(math.log(value) for value in values) / len(used))
        for values in ([rule.gain for rule in used], [rule.share for rule in used])
    )
    return replace(used[0], gain=gain, share=share, why=f"{used[0].why}; applied {len(rules)} times")


def _activation_gain(context: KernelContext, depth: int, distribution: Distribution) -> tuple[float, str]:
    """Returns the gain for the activation that feeds a kernel, and the reason."""
    signal, activation = context.signal, context.signal.activation
    width = max(round(context.kernel.fan_in), 1)
    why = f"fed by {activation.name}" if activation.name != "linear" else "fed linearly"
    if activation.slopes is not None:
        if not any(activation.slopes):
            return 1.0, f"{why}, through which no gradient passes"
        return one_layer_gain(activation, width, distribution), why
    if signal.normalized:
        return one_layer_gain(activation, width, distribution), f"{why}, normalized"
    try:
        return gain_or_nearest_width(activation, width, depth, distribution.name), why
    except NoGainError:
        why += f", which has no gain for {depth} layers: gain of one step"
        return one_layer_gain(activation, width, distribution), why


def _share_of_gate(context: KernelContext, products: int) -> tuple[float, str]:
    """Returns the factor of a kernel whose output becomes a gate, and the reason.

    Pre-activations of variance `1 / products` bound the gradient that all gates together send back; see
    `compensation`. A gate that is zero at zero gains nothing by it.
    """
    if not context.gate_of:
        return 1.0, ""
    scale = max(gate_scale(gate, products) for gate in context.gate_of)
    return scale, "; a gate" if scale == 1.0 else f"; gate of one of {products} products"


def _share_of_sums(context: KernelContext, output: Signal) -> tuple[float, str]:
    """Returns the factor of a kernel whose output is a term of sums, and the reason.

    A shortcut through gates of mean square c keeps the share c of its variance, as `(1 - t) x` does in a
    highway network, and the branch H supplies `1 - c`, where that is more than its share of the sums. Both
    terms together then keep variance and gradient, since `E f^2 = E f'^2` for the branch's own activation f
    if it has two slopes; any other counts as one of slope 1. What multiplies the branch itself, such as
    the gate t or dropout, is made up for.

    If f has a mean, as ReLU has, the terms correlate: with gates of little variance the mean of x becomes
    that of H, and `x^2 (1 - c) = t^2 H^2 + 2 t (1 - t) k H^2` with `k = (E f)^2 / E f^2`. The signal is kept
    then, and the gradient falls, by at most `ln(c + t^2 H^2 / x^2) / 2` nats a layer.
    """
    if not context.terms:
        return 1.0, ""
    # With equally deep terms in one sum and a shortcut in another, the share of the equal terms holds.
    equal = max((term.size for term in context.terms if not term.beside_shortcut), default=0)
    if equal:
        share, reason = 1.0 / math.sqrt(equal), f"; one of {equal} terms"
    else:
        share = 1.0 / math.sqrt(max(output.sums, 1))
        reason = f"; branch of one of {output.sums} sums"
    term = context.terms[0]
    factors = [factor for factor in term.signal.factors if not factor.only_backward]
    factors += [gate_moments(gate, output.products) for gate in term.signal.gates]
    reason += "".join(f"; {factor.reason}" for factor in factors)
    mean_square = math.prod(factor.mean_square for factor in factors)
    if term.shortcut_gates:
        kept = math.prod(gate_moments(gate, output.products).mean_square for gate in term.shortcut_gates)
        missing = (1.0 - kept) / (slope_mean_square(term.signal.activation) or 1.0)
        if mean_square > 0.0:
            missing /= 1.0 + 2.0 * mean_share(term.signal.activation) * math.sqrt(kept / mean_square)
        share = max(share, math.sqrt(max(missing, 0.0)))
        reason += f"; beside a shortcut gated by {term.shortcut_gates[0].activation.name}"
    return (share / math.sqrt(mean_square) if mean_square > 0.0 else share), reason


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
