"""What constants, dropout, pooling and gates between an activation and the next kernel ask of its gain."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from keras_rwinit._keras.layer_kinds import Factor
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.signals import Gate

from ._moments import NORMAL, WEIGHTS, slope_kurtosis
from ._recursions import alpha_dropout_gain

__all__ = ["DEGREE_TWO", "compensation", "gate_moments", "gate_scale"]

DEGREE_TWO = "a product of degree two"


def compensation(context: KernelContext, products: int, depth: int) -> tuple[float, str]:
    r"""Returns the factor of the gain for what multiplies the activation on its way to the kernel.

    Let each unit be multiplied by an independent factor m with mean square M and fourth moment K M^2: a
    constant, a dropout mask, or a gate s(v) from other kernels. Forward, `E (m f(a))^2 = M E f(a)^2`;
    backward, `delta = m f'(a) (W^T delta')` has M times the mean square as well. The gain takes
    `1 / sqrt(M)`. With normal kernels of fan-in N the squared norm `sum (m_i f'_i x_i)^2` has the relative
    variance `(3 k K - 1) / N`, where `k = E f'^4 / (E f'^2)^2`, and the mean of its logarithm falls by half
    of what it grew: the gain takes about `exp(3 k (K - 1) / (4 N))` besides. It is computed exactly for
    dropout behind an activation of two slopes, and for equal k and K for everything else.

    A product `y = u s(v)` sends the gradient back through v as well, `delta_v = delta_y u s'(v)`, which
    reaches the common source with `r = E v^2 E s'(v)^2 / E s(v)^2` times the square of what u sends. The
    forward pass needs `1 / E s^2`, the gradient `1 / (E s^2 (1 + r))`. For a gate with `s(0) = c != 0` and
    pre-activations of variance `1 / products`, `r = (s'(0) / c)^2 / products` to first order, so that all
    products together leave `(s'(0) / c)^2 / 2` nats, which is 1/8 for the sigmoid. For a gate that is zero at
    zero (linear, SiLU) the product is of second degree, and by Euler's theorem `<delta_h, h> = 2 <delta_y,
    y>`: no scale keeps both signal and gradient. A deviation of `ln|h|` doubles at each product, and with r =
    1 the gradient grows by `ln(2) / 2` nats towards the input where the signal is kept. A normalization
    before the product holds the signal, but not the gradient (24 blocks of SwiGLU, width 64: 0.32 nats a
    block); with a shortcut around it as well both hold (0.03 nats).

    Alpha dropout moves the signal, and with it the slopes of a smooth activation; see `alpha_dropout_gain`.

    Args:
        context: The kernel in its context.
        products: Number of the model's products with a gate in a row.
        depth: Number of hidden layers of the model.
    """
    signal = context.signal
    mean_square, kurtosis, reason = signal.scale**2, 1.0, ""
    if signal.scale != 1.0:
        reason += f"; times {signal.scale:g}"
    for factor in signal.factors:
        moved = factor.mean_square
        # Two slopes are the same wherever the signal is moved to.
        if factor.dropped_value and signal.activation.slopes is None:
            moved = alpha_dropout_gain(signal.activation, factor, depth) ** -2.0
        mean_square, kurtosis = mean_square * moved, kurtosis * factor.kurtosis
        reason += f"; {factor.reason}"
    for gate in signal.gates:
        moments = gate_moments(gate, products)
        mean_square, kurtosis = mean_square * moments.mean_square, kurtosis * moments.kurtosis
        reason += f"; {moments.reason}"
        # Beside a shortcut, what the product does to the gradient is a small part of it.
        if not (gate.is_open or gate.normalized or signal.normalized or context.terms):
            reason += f", {DEGREE_TWO}"
    if not mean_square > 0.0 or not math.isfinite(mean_square):
        return 1.0, f"{reason}, through which nothing passes"
    correction = _width_correction(
        slope_kurtosis(signal.activation), kurtosis, max(round(context.kernel.fan_in), 1)
    )
    return math.exp(correction) / math.sqrt(mean_square), reason


@lru_cache(maxsize=1024)
def _width_correction(slope_kurtosis: float, kurtosis: float, width: int) -> float:
    """Returns what independent factors of a kurtosis add to ln of the gain; see `compensation`."""
    if kurtosis <= 1.0:
        return 0.0
    with_factors = _log_mean(slope_kurtosis, kurtosis, width)
    return (_log_mean(slope_kurtosis, 1.0, width) - with_factors) / 2.0


def _log_mean(slope_kurtosis: float, kurtosis: float, width: int) -> float:
    """Returns `E ln` of a mean of `width` terms `m^2 s^2 x^2` of mean one, x normal, given that it is not 0.

    The slopes s have two values of equal probability, and `m^2` is 0 or `kurtosis`, as of dropout. By
    Frullani's integral, as in `theory._two_slopes`.
    """
    # Slopes of a larger kurtosis than ReLU's count as partly switched off.
    kurtosis, slope_kurtosis = kurtosis * max(slope_kurtosis / 2.0, 1.0), min(slope_kurtosis, 2.0)
    spread = math.sqrt(max(slope_kurtosis - 1.0, 0.0))
    squares = np.array([1.0 - spread, 1.0 + spread])
    s = np.arange(-50.0, 90.0, 1.0 / 16.0)
    t = np.exp(s) / width
    phi_minus_1 = (
        0.5 * np.expm1(-0.5 * np.log1p(2.0 * kurtosis * squares[:, None] * t)).sum(axis=0) / kurtosis
    )
    with np.errstate(divide="ignore"):  # phi below 1e-16 counts as 0
        survival = np.exp(width * np.log1p(phi_minus_1))
    switched_off = 0.5 * float((squares == 0.0).sum())
    dead = (1.0 - (1.0 - switched_off) / kurtosis) ** width
    survival = (survival - dead) / (1.0 - dead)
    return float((np.exp(-np.exp(s)) - survival).sum() / 16.0)


def gate_moments(gate: Gate, products: int) -> Factor:
    """Returns the moments of a gate with normal pre-activations; see `gate_scale` for their variance."""
    scale = 1.0 if gate.normalized else gate_scale(gate, products)
    values = gate(scale * NORMAL) ** 2
    mean_square = float(WEIGHTS @ values)
    kurtosis = float(WEIGHTS @ values**2) / mean_square**2 if mean_square > 0.0 else 1.0
    return Factor(mean_square, kurtosis, f"gated by {gate.activation.name}")


def gate_scale(gate: Gate, products: int) -> float:
    """Returns the standard deviation that a gate's pre-activations should have; see `compensation`."""
    return 1.0 / math.sqrt(max(products, 1)) if gate.is_open else 1.0
