"""Chooses the gain of a kernel by its context in a model, and says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.signals import LINEAR, Gate, Signal
from keras_rwinit.theory import Activation, NoGainError
from keras_rwinit.theory.distributions import Distribution
from keras_rwinit.theory.gains import gain_or_nearest_width, one_layer_gain
from keras_rwinit.theory.mirrored import mirrored_gain

from ._convolutions import Window, edge_share, effective_fan_in, padded_window
from ._factors import compensation, gate_moments, gate_scale
from ._mirroring import Mirroring
from ._moments import slope_mean_square, squared_mean_ratio
from ._recursions import Multiplier, branch_scale

__all__ = ["GainRule", "gain_rule", "repeated_rule"]

# Nats over all layers of a chain below which a report does not speak of what no scale keeps.
_NOTABLE_DRIFT = 1.0


@dataclass(frozen=True)
class GainRule:
    """A gain and its reason.

    Args:
        gain: Factor for a kernel of entries of variance `1 / fan_in`.
        share: Factor of `gain` that is there for a sum, for a gate, or for the activation of a kernel that
            reads the data: the root mean square that the kernel's output then has.
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
    mirroring: Mirroring,
) -> GainRule:
    """Returns the gain of a kernel in its context.

    - A kernel fed through an activation gets the activation's gain at its own fan-in, for the model's
      depth. A kernel that is fed linearly, as by the data or a sum, gets the linear gain.
    - The gain of a smooth activation counts on first pre-activations of variance gain^2; see
      `theory.gains.gain`. A kernel that reads the data and feeds such an activation gets that gain: at the
      linear one, `tanh(10 a)`, whose gain is 0.12, would saturate in every layer.
    - After a normalization, which gives pre-activations unit variance whatever came before, and where an
      activation has no gain for the depth, it is the gain of one step with unit variance,
      `exp(-E ln z / 2)`.
    - Constants, dropout, average pooling and gates between the activation and the kernel multiply squared
      gradients by a mean square m, which a factor `1 / sqrt(m)` makes up for; see `compensation`.
    - The last kernel of a branch that is added to a shortcut is scaled by `1 / sqrt(sums)`, the number of
      such sums in the model: the variance then grows by at most `(1 + 1 / sums)^sums < e` over all of them
      (Hanin & Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1906.02341). The n terms of a sum of equal
      depth share the variance. A branch beside a shortcut through gates, as in a highway network, makes up
      for what the gates take away; see `_share_of_sums`.
    - The factors of the last two points are equation (branches) of the theory page, to leading order.
    - The kernel of a gate is scaled by `1 / sqrt(products)`; see `_share_of_gate`.
    - A convolution padded with zeros loses what it reads from beyond the edge. The gain makes up for the
      mean loss over the model's convolutions of the same window and image; see `edge_share`. Its kernel
      is the same at all positions, so that its steps vary as those of another fan-in; see
      `effective_fan_in`. A convolution that is drawn at its center alone reads its channels only.
    - A kernel with mirrored inputs undoes the activation: it gets `sqrt(2) / |c|`; see `theory.mirrored`.

    Args:
        context: The kernel in its context.
        depth: Number of hidden layers of the model.
        output: The deepest of the model's output signals.
        distribution: Distribution that the kernel, or the matrix that it is mirrored from, is drawn from.
        windows: Number of the model's kernels with each window.
        mirroring: Which of its units come in pairs.
    """
    depth = max(depth, 1)
    window = padded_window(context)
    width = _width(context, windows)
    if mirroring.inputs is None:
        gain, why = _activation_gain(context, depth, distribution, width)
    else:
        activation = context.signal.activation
        gain, why = mirrored_gain(activation, mirroring.inputs.size), f"fed by {activation.name}"
    share = 1.0
    unknown = context.signal.unknown or context.signal.mixed
    if unknown:
        why = f"taken to be fed linearly, which is a guess. {unknown}"
    if context.signal.reads_data:
        why = "fed by an embedding" if context.signal.embedded else "reads the data"
        first = None if mirroring.outputs else _first_gain(context, depth, distribution, windows)
        if first is not None:
            gain = share = first
            why += f", for the {context.followers[0].signal.activation.name} that follows"
    factor, factor_reason = compensation(context, output.products, depth)
    gain, why = gain * factor, why + factor_reason + mirroring.reason
    # A normalization after the kernel undoes any scale; sum and padding need none.
    if context.normalized_after:
        return GainRule(gain, 1.0, why)
    if context.terms:
        own_share, share_reason = _share_of_sums(context, output, depth, distribution, width)
    else:
        own_share, share_reason = _share_of_gate(context, output.products)
    padding = 1.0 if window is None else edge_share(window, windows.get(window, 1))
    padding_reason = "; zero padding" if padding < 1.0 - 1e-12 else ""
    return GainRule(
        gain * own_share / math.sqrt(padding), share * own_share, why + share_reason + padding_reason
    )


def _width(context: KernelContext, windows: Mapping[Window, int]) -> int:
    """Returns the fan-in that the theory is asked for."""
    window = padded_window(context)
    if window is None:
        return max(round(context.kernel.fan_in), 1)
    activation, channels = context.signal.activation, context.kernel.channels
    return effective_fan_in(window, *channels, activation, windows.get(window, 1))


def _first_gain(
    context: KernelContext, depth: int, distribution: Distribution, windows: Mapping[Window, int]
) -> float | None:
    """Returns the gain of a kernel that reads the data for the smooth activation that it feeds.

    None where any scale will do, as with two slopes, or where unit variance is right: in a sum, in a gate,
    around a normalization, and where the activation has no gain for the depth.
    """
    signal = context.signal
    if signal.activation.name != "linear" or context.terms or context.gate_of or context.normalized_after:
        return None
    activations = {follower.signal.activation for follower in context.followers}
    if len(activations) != 1:
        return None
    (activation,) = activations
    follower = context.followers[0]
    if activation.slopes is not None or follower.signal.normalized or follower.signal.unknown:
        return None
    try:
        return gain_or_nearest_width(activation, _width(follower, windows), depth, distribution.name)
    except ValueError:  # a `NoGainError`, or a function that is constant nearly everywhere
        return None


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
    try:
        if signal.normalized:
            return one_layer_gain(activation, width, distribution), f"{why}, normalized"
        try:
            return gain_or_nearest_width(activation, width, depth, distribution.name), why
        except NoGainError:
            gain = one_layer_gain(activation, width, distribution)
            return gain, f"{why}, which has no gain for {depth} layers: gain of one step"
    except ValueError:  # the function is constant nearly everywhere, as a rounding is
        return 1.0, f"{why}, through which no gradient passes"


def _share_of_gate(context: KernelContext, products: int) -> tuple[float, str]:
    """Returns the factor of a kernel whose output becomes a gate, and the reason.

    Pre-activations of variance `1 / products` bound the gradient that all gates together send back; see
    `compensation`. A gate that is zero at zero gains nothing by it.
    """
    if not context.gate_of:
        return 1.0, ""
    scale = max(gate_scale(gate, products) for gate in context.gate_of)
    return scale, "; a gate" if scale == 1.0 else f"; gate of one of {products} products"


def _share_of_sums(
    context: KernelContext, output: Signal, depth: int, distribution: Distribution, width: int
) -> tuple[float, str]:
    """Returns the factor of a kernel whose output is a term of sums, and the reason.

    Terms of equal depth, `sum_i c f_i(W_i x)`, are one step of the walk: n of them have n times the gradient
    of one, and each has f behind its kernel, whose gain it gets besides, and c = 1 / n in a mean. With `r =
    (E f)^2 / E f^2` the mean that the terms have in common multiplies the mean square of the sum by
    `1 + (n - 1) r`, and not that of the gradient. Of the two drifts, by half of its logarithm, signal and
    gradient get one half each: for two terms of ReLU 0.07 nats a layer.

    A shortcut through constants and gates of mean square c keeps the share c of its variance, as `(1 - t) x`
    does in a highway network and `x / 2` in a mean of two, and the branch supplies the rest, where that is
    more than its share of the sums; see `branch_scale`. What multiplies the branch itself, such as the gate t
    or dropout, is made up for; a constant beside a shortcut that is whole is the user's choice of its weight.
    """
    # With equally deep terms in one sum and a shortcut in another, the share of the equal terms holds. Of
    # several sums of one kind, as in dense connections, the first is the nearest.
    term = next((term for term in context.terms if not term.beside_shortcut), context.terms[0])
    signal, products = term.signal, output.products
    factors = [factor for factor in signal.factors if not factor.only_backward]
    factors += [gate_moments(gate, products) for gate in signal.gates]
    reason = "".join(f"; {factor.reason}" for factor in factors)
    mean_square = math.prod(factor.mean_square for factor in factors)
    if not mean_square > 0.0:
        mean_square = 1.0
    if not term.beside_shortcut:
        size = max(term.size for term in context.terms if not term.beside_shortcut)
        gain = _gain_inside_term(signal.activation, depth, distribution, width)
        scale = abs(signal.scale) or 1.0
        common = 1.0 + (size - 1) * squared_mean_ratio(signal.activation)
        share = gain / scale / math.sqrt(size * mean_square * math.sqrt(common))
        return share, f"; one of {size} terms{reason}"
    share = term.stream_scale / math.sqrt(max(output.sums, 1) * mean_square)
    reason = f"; branch of one of {output.sums} sums{reason}"
    shortcut = _multiplier(term.shortcut_scale, 1.0, term.shortcut_gates, products)
    if shortcut.moments(1.0).mean_square < 1.0 - 1e-9:
        random = math.prod(factor.mean_square for factor in signal.factors if not factor.only_backward)
        branch = _multiplier(signal.scale, random, signal.gates, products)
        supplied = branch_scale(signal.activation, shortcut, branch, output.sums)
        share = max(share, supplied.scale * term.stream_scale)
        names = [gate.activation.name for gate in term.shortcut_gates]
        reason += f"; beside a shortcut gated by {names[0]}" if names else "; beside a part of the shortcut"
        if supplied.drift > _NOTABLE_DRIFT:
            reason += f", where no scale keeps signal and gradient: about {supplied.drift:.1f} nats are left"
    return share, reason


def _multiplier(constant: float, random: float, gates: Sequence[Gate], products: int) -> Multiplier:
    scaled = [(gate, 1.0 if gate.normalized else gate_scale(gate, products)) for gate in gates]
    return Multiplier(constant, random, tuple(scaled))


def _gain_inside_term(activation: Activation, depth: int, distribution: Distribution, width: int) -> float:
    """Returns what an activation between a kernel and an equally deep sum asks of the kernel's gain."""
    if activation.slopes is not None:
        # The gain's correction for the width is that of N units, and a sum of terms has more of them.
        return 1.0 / math.sqrt(slope_mean_square(activation) or 1.0)
    linear = gain_or_nearest_width(LINEAR, width, depth, distribution.name)
    try:
        try:
            return gain_or_nearest_width(activation, width, depth, distribution.name) / linear
        except NoGainError:
            return one_layer_gain(activation, width, distribution) / linear
    except ValueError:  # no gradient passes
        return 1.0
