"""The one table of activations: for each its NumPy function, derivative, kinks, slopes and forms in Keras.

`ACTIVATIONS` holds every element-wise activation that Keras has by name, and a few that it does not have
(`erf`, `sin`, `gelu_tanh`). `_FAMILIES` holds those with a parameter. To add an activation, add an entry to
one of them: theory, layers, models, training and tuning then take its name. `SHAPED` lists those that can be
shaped for a depth (see `shaping`), with their form in the operations of a module.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keras_rwinit._checks import check_count

from ._shape_solver import Shape, smooth_shape, two_slope_shape

__all__ = [
    "ACTIVATIONS",
    "NOT_ELEMENTWISE",
    "SELU_ALPHA",
    "SELU_SCALE",
    "SHAPED",
    "Activation",
    "ActivationError",
    "ActivationLike",
    "NotElementwiseError",
    "activation_from_callable",
    "average_activation",
    "resolve_activation",
    "shaped_activation",
]

Array: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Any]

TensorFunction: TypeAlias = Callable[[Any, Any], Any]
"""An activation written in the operations of a module, `f(ops, a)`; the package passes `keras.ops`."""

OutputGradient: TypeAlias = Callable[[Any, Any, Any], Any]
"""An activation's gradient in the operations of a module, `g(ops, h, upstream)` with `h = f(a)`."""


# Where functions are compared: all magnitudes, and the middle densely, off the numbers that users write.
_MAGNITUDES = 2.0 ** np.arange(-20.0, 20.5, 0.5)
_COMPARED = np.concatenate([-_MAGNITUDES, [0.0], _MAGNITUDES, np.linspace(-8.1, 8.2, 201)])[None]


class NotElementwiseError(ValueError):
    """The activation mixes the units of a layer, as softmax does, and has no gain."""


class ActivationError(ValueError):
    """The activation could not be evaluated, so that nothing is known of it."""


class KerasLayer(NamedTuple):
    """A layer of Keras's that is an activation, such as `keras.layers.ELU(alpha=0.5)`.

    Args:
        name: Name of the class in `keras.layers`.
        argument: Name of the parameter, as argument and as attribute.
        value: Value of the parameter.
    """

    name: str
    argument: str
    value: float


@dataclass(frozen=True, eq=False)
class Activation:
    """An element-wise activation `f` with its derivative.

    Args:
        name: The name in messages and reports.
        function: `f`, vectorized over a float64 array.
        derivative: `f'`, vectorized likewise. `None`: central differences of `function`.
        kinks: Points where `f` or one of its first two derivatives jumps. Quadrature puts panel
            edges there; a kink that is not listed costs accuracy, not validity.
        slopes: `(slope below 0, slope above 0)` when `f` is linear on either side of zero, else
            `None`. Two slopes make the theory exact at every width. Units with slopes of their own have
            those of one unit after another, `(below_1, above_1, below_2, above_2, ...)`.
        keras: The name of the function in `keras.activations`. For an activation that Keras does not have, a
            function `f(ops, a)` of `keras.ops` and a tensor. `None`: Keras's layers do not take it.
        keras_layer: The layer of Keras's that is `f`, for a family with a parameter.
        gate: The name of `g` where `f(a) = a * g(a)`, as a model may write `f`.
        gradient_from_output: `f'(a) * upstream` where it follows from `h = f(a)`, as a function
            `g(ops, h, upstream)` of TensorFlow's `tf.raw_ops`. Its loop of layers then keeps outputs alone.
            `None`: the loop keeps pre-activations too.
        units: The activations of a layer's units where they differ, each of as many units as the others.
            `function` and `derivative` then take arrays with the units along the last axis.
        constant: Whether `function` never changes, so that what was computed for it holds for good.

    Two activations are equal if they compute the same: they have equal values (and slopes, where a derivative
    is given) from -2^20 to 2^20, equal kinks and equal `slopes`.

    Example:
        >>> from keras_rwinit.theory import Activation, gain
        >>> signed_log = Activation("signed_log", lambda a: np.sign(a) * np.log1p(abs(a)))
        >>> 1.0 < gain(signed_log, width=100, depth=50) < 1.5
        True
    """

    name: str
    function: Function
    derivative: Function | None = None
    kinks: tuple[float, ...] = (0.0,)
    slopes: tuple[float, ...] | None = None
    keras: str | TensorFunction | None = field(default=None, kw_only=True)
    keras_layer: KerasLayer | None = field(default=None, kw_only=True)
    gate: str | None = field(default=None, kw_only=True)
    gradient_from_output: OutputGradient | None = field(default=None, kw_only=True)
    units: tuple[Activation, ...] = field(default=(), kw_only=True, repr=False)
    constant: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinks", tuple(float(kink) for kink in self.kinks))
        if self.slopes is not None:
            slopes = tuple(float(slope) for slope in self.slopes)
            numbers = 2 * max(len(self.units), 1)
            if len(slopes) != numbers or not all(s == 0.0 or 1e-60 < abs(s) < 1e60 for s in slopes):
                raise ValueError(
                    "`slopes` must be two finite numbers, each 0 or of size 1e-60 to 1e60. "
                    f"Received: slopes={self.slopes!r}"
                )
            object.__setattr__(self, "slopes", slopes)

    @cached_property
    def key(self) -> Hashable:
        """What the activation computes, as a key of caches that holds no reference to its functions.

        It is taken once for each object; `resolve_activation` makes new objects of what may have changed.
        """
        if self.slopes is not None:
            return self.slopes
        if self.units:
            return tuple(unit.key for unit in self.units)
        digest = hashlib.blake2b(digest_size=16)
        try:
            with np.errstate(all="ignore"):
                for function in (self.function, self.derivative):
                    if function is not None:
                        digest.update(np.asarray(function(_COMPARED), np.float64).tobytes())
        except Exception:  # a function of the user's, which raises its error when its moments are taken
            return object()
        return self.kinks, self.derivative is None, digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and (self is other or self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def slope_at(self, a: Array) -> Any:
        """Returns `f'(a)`, by central differences where no derivative was given."""
        if self.derivative is not None:
            return self.derivative(a)
        # The step balances truncation (h^2) against rounding (eps / h): h = eps^(1/3).
        step = 6e-6 * np.maximum(1.0, np.abs(a))
        return (self.function(a + step) - self.function(a - step)) / (2.0 * step)


ActivationLike = str | Activation | Function


def _number(value: float) -> str:
    """Returns the shortest text that reads as exactly `value`."""
    text = f"{value:g}"
    return text if float(text) == value else repr(float(value))


# Families: activations with a parameter, in the order in which messages list them.


def _two_slopes(name: str, below: float, above: float) -> Activation:
    return Activation(
        name,
        lambda a: np.where(a > 0, above * a, below * a),
        lambda a: np.where(a > 0, above, below),
        slopes=(below, above),
        keras=lambda ops, a: ops.where(a > 0, above * a, below * a),
    )


def _leaky_relu(slope: float = 0.2) -> Activation:
    known = _two_slopes(f"leaky_relu({_number(slope)})", slope, 1.0)
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
        f"elu({_number(alpha)})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0))),
        lambda a: np.where(a > 0, 1.0, alpha * np.exp(np.minimum(a, 0.0))),
        keras=lambda ops, a: ops.where(a > 0, a, alpha * ops.expm1(-ops.relu(-a))),
        keras_layer=KerasLayer("ELU", "alpha", alpha),
    )


def _celu(alpha: float = 1.0) -> Activation:
    return Activation(
        f"celu({_number(alpha)})",
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0.0) / alpha)),
        lambda a: np.where(a > 0, 1.0, np.exp(np.minimum(a, 0.0) / alpha)),
        keras=lambda ops, a: ops.where(a > 0, a, alpha * ops.expm1(-ops.relu(-a) / alpha)),
    )


def _squareplus(b: float = 4.0) -> Activation:
    return Activation(
        f"squareplus({_number(b)})",
        lambda a: 0.5 * (a + np.sqrt(a * a + b)),
        lambda a: 0.5 * (1.0 + a / np.sqrt(a * a + b)),
        kinks=(),
        keras=lambda ops, a: 0.5 * (a + ops.sqrt(a * a + b)),
    )


_FAMILIES: dict[str, Callable[..., Activation]] = {
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
        _two_slopes("linear", 1.0, 1.0),
        keras="linear",
        gradient_from_output=lambda ops, h, upstream: upstream,
    ),
    "relu": replace(
        _two_slopes("relu", 0.0, 1.0),
        keras="relu",
        gradient_from_output=lambda ops, h, upstream: ops.ReluGrad(gradients=upstream, features=h),
    ),
    **{name: replace(family(), keras=name) for name, family in _FAMILIES.items()},
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

_DEFAULT_CORRELATION = 0.9

NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
"""Activations of Keras's that mix the units of a layer."""

_WITH_PARAMETER = re.compile(r"(\w+)\(([^()]+)\)")
_SHAPED_NAME = re.compile(r"shaped\((\w+)((?:,[^(),]+)*)\)")


def resolve_activation(activation: ActivationLike, depth: int | None = None) -> Activation:
    """Returns the `Activation` of a name, a callable or an `Activation`.

    Args:
        activation: A key of `ACTIVATIONS`; a family's name with its parameter, as in
            `"leaky_relu(0.01)"` (families: leaky_relu, elu, celu, squareplus); a shaped one, as in
            `"shaped(gelu)"`, `"shaped(gelu, depth=200)"` or `"shaped(gelu, depth=200, correlation=0.5)"`,
            see `shape_activation`; any vectorized NumPy callable, whose derivative is then taken by central
            differences; or an `Activation`, which is returned as it is if it is one of the table's.
        depth: Number of hidden layers, for which `"shaped(gelu)"` is shaped. The name of what is returned
            gives the parameters instead of the depth, and is known everywhere.

    Returns:
        The `Activation`. Of a callable, and of an `Activation` of the user's, it is a new object at each
        call: what they compute may have changed.

    Raises:
        ValueError: The name is not known, or it needs a depth and there is none.
        NotElementwiseError: (a ValueError) The activation does not act element by element.

    Example:
        >>> resolve_activation("shaped(relu)", depth=200)
        ... # doctest: +ELLIPSIS
        Activation(name='leaky_relu(0.6796)', ...)
        >>> resolve_activation("leaky_relu(0.01)").slopes
        (0.01, 1.0)
    """
    if isinstance(activation, Activation):
        return activation if activation.constant else replace(activation)
    if callable(activation):
        return activation_from_callable(getattr(activation, "__name__", "activation"), activation)
    if isinstance(activation, str):
        shaped = _SHAPED_NAME.fullmatch(activation)
        if shaped is not None:
            return _resolve_shaped(activation, shaped[1], shaped[2] or "", depth)
        name, parameter = _split_name(activation)
        if parameter is not None:
            return _member(name, parameter)
        if name in ACTIVATIONS:
            return ACTIVATIONS[name]
        if activation in NOT_ELEMENTWISE:
            raise NotElementwiseError(
                f"`activation` must act element by element, and {activation!r} mixes the units of "
                "a layer, so it has no gain. Use it on the output layer, with a linear gain there."
            )
    raise ValueError(
        "`activation` must be the name of an element-wise activation, a NumPy callable or a "
        f"`keras_rwinit.theory.Activation`. Names: {', '.join(sorted(ACTIVATIONS))}; with a "
        f"parameter: {', '.join(f'{name}(x)' for name in _FAMILIES)}; shaped for the depth: "
        f"{', '.join(f'shaped({name})' for name in SHAPED)}. Received: {activation!r}"
    )


def _resolve_shaped(text: str, name: str, arguments: str, depth: int | None) -> Activation:
    """Returns the activation of `shaped(name, ...)`, whose arguments are a depth or the parameters.

    Raises:
        ValueError: The name or an argument is not known, or there is no depth.
    """
    _check_can_be_shaped(name)
    given: dict[str, float] = {}
    parameters: list[float] = []
    try:
        for argument in arguments.split(",")[1:]:
            key, equals, value = argument.rpartition("=")
            if not equals:
                parameters.append(float(value))
            elif key.strip() in ("depth", "correlation"):
                given[key.strip()] = float(value)
            else:
                raise ValueError
        if parameters and (given or len(parameters) != len(Shape._fields) or SHAPED.get(name) is None):
            raise ValueError
        if not np.isfinite(parameters).all() or parameters[:1] == [0.0]:
            raise ValueError
        if "depth" in given:
            depth = int(given["depth"])
            if depth != given["depth"]:
                raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(
            "A shaped activation is written shaped(name), shaped(name, depth=200, correlation=0.9) or, of a "
            f"smooth one, shaped(name, {', '.join(Shape._fields)}). Received: {text!r}"
        ) from None
    if parameters:
        return _with_shape(name, Shape(*parameters))
    if depth is None:
        raise ValueError(
            f"`activation` {text!r} is shaped for a depth, which is not known here. Pass `depth`, or write "
            f"the depth into the name, as in 'shaped({name}, depth=200)'."
        )
    return shaped_activation(
        name, check_count("depth", depth), given.get("correlation", _DEFAULT_CORRELATION)
    )


def _check_can_be_shaped(name: str) -> None:
    if name not in SHAPED:
        raise ValueError(
            f"`name` must be an activation that can be shaped: {', '.join(SHAPED)}. Received: {name!r}"
        )


@lru_cache(maxsize=256)
def shaped_activation(name: str, depth: int, correlation: float) -> Activation:
    """Returns `shape_activation` of the same arguments, of which `depth` is a count."""
    _check_can_be_shaped(name)
    if not 0.01 <= correlation <= 0.99:
        raise ValueError(f"`correlation` must be from 0.01 to 0.99. Received: correlation={correlation!r}")
    if SHAPED[name] is None:
        slope = two_slope_shape(depth, correlation)
        return resolve_activation(f"leaky_relu({_number(slope)})" if slope else "relu")
    base = ACTIVATIONS[name]
    return _with_shape(name, smooth_shape(base.function, base.slope_at, base.kinks, depth, correlation))


@lru_cache(maxsize=256)
def _with_shape(name: str, shape: Shape) -> Activation:
    """Returns `c (f(a x + b) + d)`, whose name gives the parameters."""
    base, in_ops = ACTIVATIONS[name], SHAPED[name]
    assert in_ops is not None
    a, b, c, d = shape
    from_output = base.gradient_from_output
    return Activation(
        f"shaped({name}, {', '.join(map(_number, shape))})",
        lambda x: c * (base.function(a * x + b) + d),
        lambda x: a * c * base.slope_at(a * x + b),
        kinks=tuple((kink - b) / a for kink in base.kinks),
        keras=lambda ops, x: c * (in_ops(ops, a * x + b) + d),
        gradient_from_output=None
        if from_output is None
        else lambda ops, h, upstream: from_output(ops, h / c - d, a * c * upstream),
        constant=True,
    )


def _split_name(name: str) -> tuple[str, float | None]:
    """Splits the name of a family's member into the family's name and the parameter.

    Args:
        name: Any name.

    Returns:
        `("leaky_relu", 0.1)` of `"leaky_relu(0.1)"`; the name itself and None where it has no parameter or no
        family has the name.

    Raises:
        ValueError: The parameter is not a finite number.
    """
    match = _WITH_PARAMETER.fullmatch(name)
    if match is None or match[1] not in _FAMILIES:
        return name, None
    try:
        parameter = float(match[2])
    except ValueError:
        parameter = np.nan
    if not np.isfinite(parameter):
        raise ValueError(f"The parameter of an activation must be a finite number. Received: {name!r}")
    return match[1], parameter


@lru_cache(maxsize=256)
def _member(family: str, parameter: float) -> Activation:
    """Returns the same object for the same activation, whose `key` is then taken once."""
    return replace(_FAMILIES[family](parameter), constant=True)


def activation_from_callable(name: str, function: Function, derivative: Function | None = None) -> Activation:
    """Returns the `Activation` of a callable, with two exact slopes where it has them.

    Args:
        name: The name for messages.
        function: A map of float64 arrays that acts element by element.
        derivative: Its derivative, vectorized likewise. `None`: central differences.

    Returns:
        An activation of two slopes if `function` is linear on either side of zero, from 2^-20 to 2^20.
    """
    try:
        slopes = _find_two_slopes(function)
    except Exception:  # the error of a callable that fails on arrays is raised when its moments are taken
        slopes = None
    if slopes is None:
        return Activation(name, function, derivative)
    # A back end computes in float32: seven digits restore the decimal number that the user wrote.
    below, above = (float(f"{slope:.7g}") for slope in slopes)
    return _two_slopes(name, below, above)


def average_activation(name: str, units: Sequence[Activation]) -> Activation:
    """Returns the activation of a layer whose units have activations of their own.

    In the theory each expectation over a unit is then the mean over the units as well. Equal units are one
    activation.

    Args:
        name: The name for messages.
        units: The activation of every unit.
    """
    if len(set(units)) == 1:
        return replace(units[0], name=name, constant=False)
    slopes = [unit.slopes for unit in units if unit.slopes is not None]
    if len(slopes) == len(units):
        pairs = np.array(slopes)
        return Activation(
            name,
            lambda a: a * _unit_slopes(pairs, a),
            lambda a: _unit_slopes(pairs, a),
            slopes=tuple(pairs.ravel()),
            units=tuple(units),
        )
    functions = [unit.function for unit in units]
    derivatives = [unit.slope_at for unit in units]
    return Activation(
        name, lambda a: _apply_units(functions, a), lambda a: _apply_units(derivatives, a), units=tuple(units)
    )


def _unit_numbers(count: int, a: Array) -> NDArray[np.intp]:
    """Returns which of `count` activations each unit of `a` has: as many units each, as nearly as it goes."""
    return np.arange(a.shape[-1]) * count // a.shape[-1]


def _unit_slopes(pairs: Array, a: Array) -> Array:
    below, above = pairs[_unit_numbers(len(pairs), a)].T
    return np.where(a > 0, above, below)


def _apply_units(functions: Sequence[Function], a: Array) -> Array:
    numbers, values = _unit_numbers(len(functions), a), np.empty(a.shape)
    for number in np.unique(numbers):
        columns = numbers == number
        values[..., columns] = functions[number](a[..., columns])
    return values


def _find_two_slopes(function: Function) -> tuple[float, float] | None:
    """Returns the slopes below and above zero; None if `function` is not linear there, or 0 everywhere."""
    magnitudes = 2.0 ** np.arange(-20.0, 21.0)
    with np.errstate(all="ignore"):
        below, above = np.asarray(function(np.outer([-1.0, 1.0], magnitudes)), np.float64) / magnitudes
    at_one = len(magnitudes) // 2
    slopes = 0.0 - float(below[at_one]), float(above[at_one])  # `0.0 -` gives no negative zero
    if not any(slopes) or not np.isfinite(slopes).all():
        return None
    linear_below = np.allclose(below, -slopes[0], rtol=1e-6, atol=1e-9)
    linear_above = np.allclose(above, slopes[1], rtol=1e-6, atol=1e-9)
    return slopes if linear_below and linear_above else None
