"""The one table of activations: for each its NumPy function, derivative, kinks, slopes and forms in Keras.

`ACTIVATIONS` holds every element-wise activation that Keras has by name, and a few that it does not have
(`erf`, `sin`, `gelu_tanh`). `FAMILIES` holds those with a parameter. To add an activation, add an entry to
one of them: theory, layers, models, training and tuning then take its name. `SHAPED` lists those that can be
shaped for a depth (see `shaping`), with their form in the operations of a module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from .activation import Activation, KerasLayer, TensorFunction, two_slope_activation

__all__ = [
    "ACTIVATIONS",
    "FAMILIES",
    "NOT_ELEMENTWISE",
    "SELU_ALPHA",
    "SELU_SCALE",
    "SHAPED",
    "short_number",
]

Array: TypeAlias = NDArray[np.float64]


def short_number(value: float) -> str:
    """Returns the shortest text that reads as exactly `value`."""
    text = f"{value:g}"
    return text if float(text) == value else repr(float(value))


# Families: activations with a parameter, in the order in which messages list them.


def _leaky_relu(slope: float = 0.2) -> Activation:
    known = two_slope_activation(f"leaky_relu({short_number(slope)})", slope, 1.0)
    # Keras's LeakyReLU takes no negative slope, with which the output does not have the input's sign either.
    if slope < 0.0:
        return known
    return replace(
        known,
        keras_layer=KerasLayer("LeakyReLU", "negative_slope", slope),
        gradient_from_output=lambda ops, h, upstream: ops.LeakyReluGrad(
            gradients=upstream, features=h, alpha=slope
        ),
    )


def _elu(alpha: float = 1.0) -> Activation:
    return Activation(
        f"elu({short_number(alpha)})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0))),
        lambda a: np.where(a > 0, 1.0, alpha * np.exp(np.minimum(a, 0.0))),
        keras=lambda ops, a: ops.where(a > 0, a, alpha * ops.expm1(-ops.relu(-a))),
        keras_layer=KerasLayer("ELU", "alpha", alpha),
    )


def _celu(alpha: float = 1.0) -> Activation:
    return Activation(
        f"celu({short_number(alpha)})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0) / alpha)),
        lambda a: np.where(a > 0, 1.0, np.exp(np.minimum(a, 0.0) / alpha)),
        keras=lambda ops, a: ops.where(a > 0, a, alpha * ops.expm1(-ops.relu(-a) / alpha)),
    )


def _squareplus(b: float = 4.0) -> Activation:
    return Activation(
        f"squareplus({short_number(b)})",
        lambda a: 0.5 * (a + np.sqrt(a * a + b)),
        lambda a: 0.5 * (1.0 + a / np.sqrt(a * a + b)),
        kinks=(),
        keras=lambda ops, a: 0.5 * (a + ops.sqrt(a * a + b)),
    )


FAMILIES: dict[str, Callable[..., Activation]] = {
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "squareplus": _squareplus,
}


# Functions and derivatives that are too long for a line of the table.

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_GELU_C, _GELU_B = np.sqrt(2.0 / np.pi), 0.044715  # Hendrycks & Gimpel, arXiv:1606.08415, section 2


def _normal_pdf(a: Array) -> Array:
    return np.exp(-0.5 * a * a) / np.sqrt(2.0 * np.pi)


def _gelu_tanh(a: Array) -> Array:
    return 0.5 * a * (1.0 + np.tanh(_GELU_C * (a + _GELU_B * a**3)))


def _gelu_tanh_slope(a: Array) -> Array:
    t = np.tanh(_GELU_C * (a + _GELU_B * a**3))
    return 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * _GELU_C * (1.0 + 3.0 * _GELU_B * a * a)


def _sigmoid_slope(a: Array) -> Array:
    return special.expit(a) * special.expit(-a)


def _silu() -> Activation:
    return Activation(
        "silu",
        lambda a: a * special.expit(a),
        lambda a: special.expit(a) + a * _sigmoid_slope(a),
        kinks=(),
        keras="silu",
        gate="sigmoid",
    )


def _softplus(a: Array) -> Array:
    return np.logaddexp(0.0, a)


def _sech2(a: Array) -> Array:
    return 4.0 * _sigmoid_slope(2.0 * a)


def _mish_slope(a: Array) -> Array:
    s = _softplus(a)
    return np.tanh(s) + a * _sech2(s) * special.expit(a)


def _piecewise_linear(name: str, knots: list[float], values: list[float]) -> Activation:
    """Returns `f` that is linear between the knots and constant beyond the outer ones."""
    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(knots), [0.0]])
    return Activation(
        name,
        lambda a: np.interp(a, knots, values),
        lambda a: slopes[np.searchsorted(knots, a)],
        kinks=tuple(knots),
        keras=name,
    )


def _hard_silu() -> Activation:
    return Activation(
        "hard_silu",
        lambda a: a * np.clip(a / 6.0 + 0.5, 0.0, 1.0),
        lambda a: np.where(np.abs(a) < 3.0, a / 3.0 + 0.5, 1.0 * (a > 0)),
        kinks=(-3.0, 3.0),
        keras="hard_silu",
        gate="hard_sigmoid",
    )


_TABLE: dict[str, Activation] = {
    "linear": replace(
        two_slope_activation("linear", 1.0, 1.0),
        keras="linear",
        gradient_from_output=lambda ops, h, upstream: upstream,
    ),
    "relu": replace(
        two_slope_activation("relu", 0.0, 1.0),
        keras="relu",
        gradient_from_output=lambda ops, h, upstream: ops.ReluGrad(gradients=upstream, features=h),
    ),
    **{name: replace(family(), keras=name) for name, family in FAMILIES.items()},
    "relu6": _piecewise_linear("relu6", [0.0, 6.0], [0.0, 6.0]),
    "hard_tanh": _piecewise_linear("hard_tanh", [-1.0, 1.0], [-1.0, 1.0]),
    "hard_sigmoid": _piecewise_linear("hard_sigmoid", [-3.0, 3.0], [0.0, 1.0]),
    "sparse_sigmoid": _piecewise_linear("sparse_sigmoid", [-1.0, 1.0], [0.0, 1.0]),
    "selu": Activation(
        "selu",
        lambda a: SELU_SCALE * np.where(a > 0, a, SELU_ALPHA * np.expm1(np.minimum(a, 0.0))),
        lambda a: SELU_SCALE * np.where(a > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(a, 0.0))),
        keras="selu",
        gradient_from_output=lambda ops, h, upstream: ops.SeluGrad(gradients=upstream, outputs=h),
    ),
    "gelu": Activation(
        "gelu",
        lambda a: a * special.ndtr(a),
        lambda a: special.ndtr(a) + a * _normal_pdf(a),
        kinks=(),
        keras="gelu",
    ),
    "gelu_tanh": Activation(
        "gelu_tanh",
        _gelu_tanh,
        _gelu_tanh_slope,
        kinks=(),
        keras=lambda ops, a: ops.gelu(a, approximate=True),
    ),
    "silu": _silu(),
    "swish": _silu(),
    "hard_silu": _hard_silu(),
    "hard_swish": _hard_silu(),
    "mish": Activation("mish", lambda a: a * np.tanh(_softplus(a)), _mish_slope, kinks=(), keras="mish"),
    "softplus": Activation("softplus", _softplus, special.expit, kinks=(), keras="softplus"),
    "sparse_plus": Activation(
        "sparse_plus",
        lambda a: np.where(a >= 1.0, a, 0.25 * np.maximum(a + 1.0, 0.0) ** 2),
        lambda a: np.clip(0.5 * (a + 1.0), 0.0, 1.0),
        kinks=(-1.0, 1.0),
        keras="sparse_plus",
    ),
    "log_sigmoid": Activation(
        "log_sigmoid",
        lambda a: -_softplus(-a),
        lambda a: special.expit(-a),
        kinks=(),
        keras="log_sigmoid",
    ),
    "softsign": Activation(
        "softsign",
        lambda a: a / (1.0 + np.abs(a)),
        lambda a: (1.0 + np.abs(a)) ** -2,
        keras="softsign",
    ),
    "sigmoid": Activation(
        "sigmoid",
        special.expit,
        _sigmoid_slope,
        kinks=(),
        keras="sigmoid",
        gradient_from_output=lambda ops, h, upstream: ops.SigmoidGrad(y=h, dy=upstream),
    ),
    "tanh": Activation(
        "tanh",
        np.tanh,
        _sech2,
        kinks=(),
        keras="tanh",
        gradient_from_output=lambda ops, h, upstream: ops.TanhGrad(y=h, dy=upstream),
    ),
    "erf": Activation(
        "erf",
        special.erf,
        lambda a: 2.0 / np.sqrt(np.pi) * np.exp(-a * a),
        kinks=(),
        keras=lambda ops, a: ops.erf(a),
    ),
    "sin": Activation("sin", np.sin, np.cos, kinks=(), keras=lambda ops, a: ops.sin(a)),
    "exponential": Activation("exponential", np.exp, np.exp, kinks=(), keras="exponential"),
    "tanh_shrink": Activation(
        "tanh_shrink",
        lambda a: a - np.tanh(a),
        lambda a: np.tanh(a) ** 2,
        kinks=(),
        keras="tanh_shrink",
    ),
    "hard_shrink": Activation(
        "hard_shrink",
        lambda a: a * (np.abs(a) > 0.5),
        lambda a: 1.0 * (np.abs(a) > 0.5),
        kinks=(-0.5, 0.5),
        keras="hard_shrink",
    ),
    "soft_shrink": Activation(
        "soft_shrink",
        lambda a: np.sign(a) * np.maximum(np.abs(a) - 0.5, 0.0),
        lambda a: 1.0 * (np.abs(a) > 0.5),
        kinks=(-0.5, 0.5),
        keras="soft_shrink",
    ),
}

ACTIVATIONS = {name: replace(activation, constant=True) for name, activation in _TABLE.items()}

SHAPED: dict[str, TensorFunction | None] = {
    "relu": None,
    "leaky_relu": None,
    "gelu": lambda ops, a: ops.gelu(a, approximate=False),
    "gelu_tanh": lambda ops, a: ops.gelu(a, approximate=True),
    "silu": lambda ops, a: ops.silu(a),
    "swish": lambda ops, a: ops.silu(a),
    "mish": lambda ops, a: a * ops.tanh(ops.softplus(a)),
    "softplus": lambda ops, a: ops.softplus(a),
    "tanh": lambda ops, a: ops.tanh(a),
    "sigmoid": lambda ops, a: ops.sigmoid(a),
    "elu": lambda ops, a: ops.elu(a),
}
"""The activations that can be shaped for a depth; None: by their slopes."""

NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
"""Activations of Keras's that mix the units of a layer."""
