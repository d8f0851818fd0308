"""Element-wise activations as NumPy functions: value, derivative, kinks, slopes.

One table, `ACTIVATIONS`, holds every element-wise activation that Keras ships by name (and `sin` and
`erf`, which it does not). Theory and simulation read this table and nothing else about an activation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["ACTIVATIONS", "Activation", "ActivationLike", "activation_from_callable", "resolve_activation"]

Array = NDArray[np.float64]
Function = Callable[[Array], Any]


@dataclass(frozen=True)
class Activation:
    """An element-wise activation `f` with its derivative.

    Args:
        name: What messages and reports call it.
        function: `f`, vectorized over a float64 array.
        derivative: `f'`, vectorized likewise. `None`: central differences of `function`.
        kinks: Points where `f` or one of its first two derivatives jumps. Quadrature puts panel
            edges there; a kink that is not listed costs accuracy, not validity.
        slopes: `(slope below 0, slope above 0)` when `f` is linear on either side of zero, else
            `None`. Two slopes make the theory exact at every width.

    Example:
        >>> from keras_rwinit.theory import Activation, gain
        >>> cube_root = Activation("signed_log", lambda a: np.sign(a) * np.log1p(abs(a)))
        >>> 1.0 < gain(cube_root, width=100, depth=50) < 1.5
        True
    """

    name: str
    function: Function
    derivative: Function | None = None
    kinks: tuple[float, ...] = (0.0,)
    slopes: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinks", tuple(float(kink) for kink in self.kinks))
        if self.slopes is not None:
            slopes = tuple(float(slope) for slope in self.slopes)
            if len(slopes) != 2 or not all(s == 0.0 or 1e-60 < abs(s) < 1e60 for s in slopes):
                raise ValueError(
                    "`slopes` must be two finite numbers, each 0 or of size 1e-60 to 1e60. "
                    f"Received: slopes={self.slopes!r}"
                )
            object.__setattr__(self, "slopes", slopes)

    def slope_at(self, a: Array) -> Any:
        """Returns `f'(a)`, by central differences where no derivative was given."""
        if self.derivative is not None:
            return self.derivative(a)
        # The step balances truncation (h^2) against rounding (eps / h): h = eps^(1/3).
        step = 6e-6 * np.maximum(1.0, np.abs(a))
        return (self.function(a + step) - self.function(a - step)) / (2.0 * step)


ActivationLike = str | Activation | Function


def _two_slopes(name: str, below: float, above: float) -> Activation:
    return Activation(
        name,
        lambda a: np.where(a > 0, above * a, below * a),
        lambda a: np.where(a > 0, above, below),
        slopes=(below, above),
    )


def _leaky_relu(slope: float = 0.2) -> Activation:
    return _two_slopes(f"leaky_relu({slope:g})", slope, 1.0)


def _elu(alpha: float = 1.0) -> Activation:
    return Activation(
        f"elu({alpha:g})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0))),
        lambda a: np.where(a > 0, 1.0, alpha * np.exp(np.minimum(a, 0.0))),
    )


def _celu(alpha: float = 1.0) -> Activation:
    return Activation(
        f"celu({alpha:g})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0) / alpha)),
        lambda a: np.where(a > 0, 1.0, np.exp(np.minimum(a, 0.0) / alpha)),
    )


def _selu() -> Activation:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    unit = _elu(alpha)
    return Activation("selu", lambda a: scale * unit.function(a), lambda a: scale * unit.slope_at(a))


def _normal_pdf(a: Array) -> Array:
    return np.exp(-0.5 * a * a) / np.sqrt(2.0 * np.pi)


def _gelu() -> Activation:
    return Activation(
        "gelu",
        lambda a: a * special.ndtr(a),
        lambda a: special.ndtr(a) + a * _normal_pdf(a),
        kinks=(),
    )


def _gelu_tanh() -> Activation:
    c, b = np.sqrt(2.0 / np.pi), 0.044715

    def derivative(a: Array) -> Array:
        t = np.tanh(c * (a + b * a**3))
        return 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * c * (1.0 + 3.0 * b * a * a)

    return Activation(
        "gelu_tanh", lambda a: 0.5 * a * (1.0 + np.tanh(c * (a + b * a**3))), derivative, kinks=()
    )


def _sigmoid_slope(a: Array) -> Array:
    return special.expit(a) * special.expit(-a)


def _silu() -> Activation:
    return Activation(
        "silu",
        lambda a: a * special.expit(a),
        lambda a: special.expit(a) + a * _sigmoid_slope(a),
        kinks=(),
    )


def _softplus(a: Array) -> Array:
    return np.logaddexp(0.0, a)


def _sech2(a: Array) -> Array:
    return 4.0 * _sigmoid_slope(2.0 * a)


def _mish() -> Activation:
    def derivative(a: Array) -> Array:
        s = _softplus(a)
        return np.tanh(s) + a * _sech2(s) * special.expit(a)

    return Activation("mish", lambda a: a * np.tanh(_softplus(a)), derivative, kinks=())


def _piecewise_linear(name: str, knots: list[float], values: list[float]) -> Activation:
    """`f` constant beyond the outer knots and linear between them."""
    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(knots), [0.0]])
    return Activation(
        name,
        lambda a: np.interp(a, knots, values),
        lambda a: slopes[np.searchsorted(knots, a)],
        kinks=tuple(knots),
    )


def _gate(name: str, function: Function, kinks: tuple[float, ...]) -> Activation:
    """`f(a) = a` where `function` says so and 0 elsewhere."""
    return Activation(name, lambda a: a * function(a), lambda a: 1.0 * function(a), kinks=kinks)


def _hard_silu() -> Activation:
    def derivative(a: Array) -> Array:
        return np.where(np.abs(a) < 3.0, a / 3.0 + 0.5, 1.0 * (a > 0))

    return Activation(
        "hard_silu", lambda a: a * np.clip(a / 6.0 + 0.5, 0.0, 1.0), derivative, kinks=(-3.0, 3.0)
    )


def _squareplus(b: float = 4.0) -> Activation:
    return Activation(
        f"squareplus({b:g})",
        lambda a: 0.5 * (a + np.sqrt(a * a + b)),
        lambda a: 0.5 * (1.0 + a / np.sqrt(a * a + b)),
        kinks=(),
    )


def _sparse_plus() -> Activation:
    return Activation(
        "sparse_plus",
        lambda a: np.where(a >= 1.0, a, 0.25 * np.maximum(a + 1.0, 0.0) ** 2),
        lambda a: np.clip(0.5 * (a + 1.0), 0.0, 1.0),
        kinks=(-1.0, 1.0),
    )


_FAMILIES: dict[str, Callable[..., Activation]] = {
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "squareplus": _squareplus,
}

ACTIVATIONS: dict[str, Activation] = {
    "linear": _two_slopes("linear", 1.0, 1.0),
    "relu": _two_slopes("relu", 0.0, 1.0),
    **{name: family() for name, family in _FAMILIES.items()},
    "relu6": _piecewise_linear("relu6", [0.0, 6.0], [0.0, 6.0]),
    "hard_tanh": _piecewise_linear("hard_tanh", [-1.0, 1.0], [-1.0, 1.0]),
    "hard_sigmoid": _piecewise_linear("hard_sigmoid", [-3.0, 3.0], [0.0, 1.0]),
    "sparse_sigmoid": _piecewise_linear("sparse_sigmoid", [-1.0, 1.0], [0.0, 1.0]),
    "selu": _selu(),
    "gelu": _gelu(),
    "gelu_tanh": _gelu_tanh(),
    "silu": _silu(),
    "swish": _silu(),
    "hard_silu": _hard_silu(),
    "hard_swish": _hard_silu(),
    "mish": _mish(),
    "softplus": Activation("softplus", _softplus, special.expit, kinks=()),
    "sparse_plus": _sparse_plus(),
    "log_sigmoid": Activation("log_sigmoid", lambda a: -_softplus(-a), lambda a: special.expit(-a), kinks=()),
    "softsign": Activation("softsign", lambda a: a / (1.0 + np.abs(a)), lambda a: (1.0 + np.abs(a)) ** -2),
    "sigmoid": Activation("sigmoid", special.expit, _sigmoid_slope, kinks=()),
    "tanh": Activation("tanh", np.tanh, _sech2, kinks=()),
    "erf": Activation("erf", special.erf, lambda a: 2.0 / np.sqrt(np.pi) * np.exp(-a * a), kinks=()),
    "sin": Activation("sin", np.sin, np.cos, kinks=()),
    "exponential": Activation("exponential", np.exp, np.exp, kinks=()),
    "tanh_shrink": Activation("tanh_shrink", lambda a: a - np.tanh(a), lambda a: np.tanh(a) ** 2, kinks=()),
    "hard_shrink": _gate("hard_shrink", lambda a: np.abs(a) > 0.5, (-0.5, 0.5)),
    "soft_shrink": Activation(
        "soft_shrink",
        lambda a: np.sign(a) * np.maximum(np.abs(a) - 0.5, 0.0),
        lambda a: 1.0 * (np.abs(a) > 0.5),
        kinks=(-0.5, 0.5),
    ),
}

_NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
_WITH_PARAMETER = re.compile(r"(\w+)\(([^()]+)\)")


def resolve_activation(activation: ActivationLike) -> Activation:
    """Turns a name, a callable or an `Activation` into an `Activation`.

    Args:
        activation: A key of `ACTIVATIONS`; a family's name with its parameter, as in
            `"leaky_relu(0.01)"` (families: leaky_relu, elu, celu, squareplus); any vectorized
            NumPy callable, whose derivative is then taken by central differences; or an
            `Activation`, which is returned as it is.

    Returns:
        The `Activation`.

    Raises:
        ValueError: The name is not known, or the activation does not act element by element.

    Example:
        >>> resolve_activation("leaky_relu(0.01)").slopes
        (0.01, 1.0)
    """
    if isinstance(activation, Activation):
        return activation
    if callable(activation):
        return activation_from_callable(getattr(activation, "__name__", "activation"), activation)
    if isinstance(activation, str):
        if activation in ACTIVATIONS:
            return ACTIVATIONS[activation]
        match = _WITH_PARAMETER.fullmatch(activation)
        if match and match[1] in _FAMILIES:
            return _member(match[1], _parameter(activation, match[2]))
        if activation in _NOT_ELEMENTWISE:
            raise ValueError(
                f"`activation` must act element by element, and {activation!r} mixes the units of "
                "a layer, so it has no gain. Use it on the output layer, with a linear gain there."
            )
    raise ValueError(
        "`activation` must be the name of an element-wise activation, a NumPy callable or a "
        f"`keras_rwinit.theory.Activation`. Names: {', '.join(sorted(ACTIVATIONS))}; with a "
        f"parameter: {', '.join(f'{name}(x)' for name in _FAMILIES)}. Received: {activation!r}"
    )


@lru_cache(maxsize=256)
def _member(family: str, parameter: float) -> Activation:
    """One object for one activation, so that what is computed of it is found again."""
    return _FAMILIES[family](parameter)


def activation_from_callable(name: str, function: Function) -> Activation:
    """The `Activation` of a callable, with two exact slopes where it has them.

    Args:
        name: What messages call it.
        function: Of a float64 array, element by element.

    Returns:
        An activation of two slopes if `function` is linear on either side of zero as far as can be
        seen (from 2^-20 to 2^20), else one that is differentiated numerically.
    """
    if not isinstance(function, Hashable):
        unhashable = function
        function = lambda a: unhashable(a)  # noqa: E731
    magnitudes = 2.0 ** np.arange(-20.0, 21.0)
    try:
        with np.errstate(all="ignore"):
            below, above = np.asarray(function(np.outer([-1.0, 1.0], magnitudes)), np.float64) / magnitudes
        slopes = 0.0 - float(below[20]), float(above[20])
        linear = any(slopes) and bool(np.isfinite(slopes).all())
        linear = (
            linear
            and np.allclose(below, -slopes[0], 1e-6, 1e-9)
            and np.allclose(above, slopes[1], 1e-6, 1e-9)
        )
    except Exception:  # a callable that fails on arrays is told so when its moments are taken
        linear = False
    if not linear:
        return Activation(name, function)
    # Slopes that a back end computed in float32 are meant as the decimal numbers they print as.
    return _two_slopes(name, *(float(f"{slope:.7g}") for slope in slopes))


def _parameter(activation: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"The parameter of an activation must be a finite number. Received: {activation!r}")
    return value
