"""Finds the activation of a name, a callable or a record; see `ACTIVATIONS` for the names."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np

from keras_rwinit._checks import check_count, did_you_mean

from ._shape_solver import Shape, smooth_shape, two_slope_shape
from .activation import Activation, ActivationLike, NotElementwiseError
from .activations import ACTIVATIONS, FAMILIES, NOT_ELEMENTWISE, SHAPED, short_number
from .own_activations import check_own_activation, own_activation

__all__ = ["check_can_be_shaped", "resolve_activation", "shaped_activation"]

_DEFAULT_CORRELATION = 0.9

_WITH_PARAMETER = re.compile(r"(\w+)\(([^()]+)\)")
_SHAPED_NAME = re.compile(r"shaped\((\w+)((?:,[^(),]+)*)\)")


def resolve_activation(activation: ActivationLike, depth: int | None = None) -> Activation:
    """Returns the `Activation` of a name, a callable or an `Activation`.

    Args:
        activation: A key of `ACTIVATIONS`; a family's name with its parameter, as in
            `"leaky_relu(0.01)"` (families: leaky_relu, elu, celu, squareplus); a shaped one, as in
            `"shaped(gelu)"`, `"shaped(gelu, depth=200)"` or `"shaped(gelu, depth=200, correlation=0.5)"`,
            see `shape_activation` (Keras's own layers do not know the names that only this package has; they
            take what `keras_rwinit.layers.get_activation` returns); any function of arrays, written
            with NumPy or `keras.ops`, or a layer of Keras, whose derivative is then taken by central
            differences (less exactly where it computes in float32); or an `Activation`, which is returned
            as it is if it is one of the table's.
        depth: Number of hidden layers, for which `"shaped(gelu)"` is shaped. The name of what is returned
            gives the parameters instead of the depth, and is known everywhere.

    Returns:
        The `Activation`. Of a callable, and of an `Activation` of the user's, it is a new object at each
        call: what they compute may have changed.

    Raises:
        ValueError: The name is not known, or it needs a depth and there is none.
        NotElementwiseError: (a ValueError) The activation does not act element by element.
        ActivationError: (a ValueError) A callable fails on arrays, or does not return real numbers.

    Example:
        >>> resolve_activation("shaped(relu)", depth=200)
        ... # doctest: +ELLIPSIS
        Activation(name='leaky_relu(0.6796)', ...)
        >>> resolve_activation("leaky_relu(0.01)").slopes
        (0.01, 1.0)
    """
    if isinstance(activation, Activation):
        return activation if activation.constant else check_own_activation(activation)
    if callable(activation):
        return own_activation(activation)
    if isinstance(activation, str):
        shaped = _SHAPED_NAME.fullmatch(activation)
        if shaped is not None:
            return _resolve_shaped(activation, shaped[1], shaped[2], depth)
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
        f"parameter: {', '.join(f'{name}(x)' for name in FAMILIES)}; shaped for the depth: "
        f"{', '.join(f'shaped({name})' for name in SHAPED)}. Received: {activation!r}{_suggest(activation)}"
    )


def _suggest(activation: object) -> str:
    """Returns the question whether a name that is near was meant, with the same argument."""
    if not isinstance(activation, str):
        return ""
    name, bracket, argument = activation.partition("(")
    if not bracket:
        return did_you_mean(name, (*ACTIVATIONS, *NOT_ELEMENTWISE))
    # relu(0.1) is no mistyped elu(0.1).
    return "" if name in ACTIVATIONS else did_you_mean(name, (*FAMILIES, "shaped"), bracket + argument)


def _resolve_shaped(text: str, name: str, arguments: str, depth: int | None) -> Activation:
    """Returns the activation of `shaped(name, ...)`, whose arguments are a depth or the parameters.

    Raises:
        ValueError: The name or an argument is not known, or there is no depth.
    """
    check_can_be_shaped(name)
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
        if parameters and (given or len(parameters) != len(Shape._fields) or SHAPED[name] is None):
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


def check_can_be_shaped(name: object) -> None:
    """Raises ValueError unless `name` is that of an activation that can be shaped."""
    if not isinstance(name, str) or name not in SHAPED:
        raise ValueError(
            f"`name` must be an activation that can be shaped: {', '.join(SHAPED)}. Received: {name!r}"
            f"{did_you_mean(name, SHAPED)}"
        )


@lru_cache(maxsize=256)
def shaped_activation(name: str, depth: int, correlation: float) -> Activation:
    """Returns `shape_activation` of the same arguments, of which `depth` is a count."""
    check_can_be_shaped(name)
    if not 0.01 <= correlation <= 0.99:
        raise ValueError(f"`correlation` must be from 0.01 to 0.99. Received: correlation={correlation!r}")
    if SHAPED[name] is None:
        slope = two_slope_shape(depth, correlation)
        return resolve_activation(f"leaky_relu({short_number(slope)})" if slope else "relu")
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
        f"shaped({name}, {', '.join(map(short_number, shape))})",
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
    if match is None or match[1] not in FAMILIES:
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
    return replace(FAMILIES[family](parameter), constant=True)
