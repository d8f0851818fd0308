"""Chooses the gain of a kernel by its context in a model, and says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keras_rwinit._tracing.contexts import KernelContext, Signal
from keras_rwinit.theory import NoGainError
from keras_rwinit.theory.distributions import Distribution
from keras_rwinit.theory.gains import gain_or_nearest_width, one_layer_gain

from ._convolutions import Window, edge_share, effective_fan_in, padded_window
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


def gain_rule(
    context: KernelContext,
    depth: int,
    output: Signal,
    distribution: Distribution,
    windows: Mapping[Window, int],
) -> GainRule:
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
      mean loss over the model's convolutions of the same window and image; see `edge_share`. Its kernel
      is the same at all positions, so that its steps vary as those of another fan-in; see
      `effective_fan_in`.

    Args:
        context: The kernel in its context.
        depth: Number of hidden layers of the model.
        output: The deepest of the model's output signals.
        distribution: Distribution that the kernel is drawn from.
        windows: Number of the model's kernels with each window.
    """
    window = padded_window(context)
    width = max(round(context.kernel.fan_in), 1)
    if window is not None:
        activation, channels = context.signal.activation, context.kernel.channels
        width = effective_fan_in(window, *channels, activation, windows.get(window, 1))
    gain, why = _activation_gain(context, max(depth, 1), distribution, width)
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
    padding = 1.0 if window is None else edge_share(window, windows.get(window, 1))
    padding_reason = "; zero padding" if padding < 1.0 - 1e-12 else ""
    return GainRule(gain * share / math.sqrt(padding), share, why + share_reason + padding_reason)


def repeated_rule(rules: Sequence[GainRule], contexts: Sequence[KernelContext]) -> GainRule:
    """Returns the rule of a kernel that is applied in several contexts, by their rules.

    The step of `ln|delta|` through the u-th application is `ln s - ln s_u` off, where s_u is the standard
    deviation of the entries that its context requires, so that their geometric mean leaves no drift: the
    gain g_u at the fan-in N_u asks for `g_u / sqrt(N_u)`, and a tied decoder sums over the other axis than
    its encoder does. Applications that read the data are the first of a chain: the gradient passes through no
    kernel before them, and they do not count if there are others; nor does a tied kernel that gives the
    outputs, whose scale is free.
    """
    if len(rules) == 1:
        return rules[0]
    pairs = list(zip(rules, contexts, strict=True))
    used = (
        [pair for pair in pairs if not (pair[1].signal.reads_data or _is_tied_output(pair[1]))]
        or [pair for pair in pairs if not _is_tied_output(pair[1])]
        or pairs
    )
    first, fan_in = used[0][0], contexts[0].kernel.fan_in
    gains = [rule.gain * math.sqrt(fan_in / context.kernel.fan_in) for rule, context in used]
    gain, share = (
        math.exp(sum(math.log(value) for value in values) / len(used))
        for values in (gains, [rule.share for rule, _ in used])
    )
    why = f"{first.why}; applied {len(rules)} times"
    if any(context.kernel.turned for context in contexts):
        why += ", also used transposed"
    return replace(first, gain=gain, share=share, why=why)


def _is_tied_output(context: KernelContext) -> bool:
    return context.kernel.turned and not context.followed


def _activation_gain(
    context: KernelContext, depth: int, distribution: Distribution, width: int
) -> tuple[float, str]:
    """Returns the gain for the activation that feeds a kernel, and the reason."""
    signal, activation = context.signal, context.signal.activation
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
