"""The axes of the search space: what may vary, and where a search starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import keras_tuner

__all__ = ["Axis", "Domain", "HyperparameterValue", "first_value", "geometric_mean", "make_search_axis"]

T = TypeVar("T")

HyperparameterValue: TypeAlias = bool | int | float | str
"""What keras-tuner keeps of a hyperparameter."""

Domain: TypeAlias = T | tuple[T, T] | list[T]
"""What a user gives for a hyperparameter: a fixed value, a range (low, high) or a list of choices."""

Kind: TypeAlias = Literal["fixed", "range", "choice"]


@dataclass(frozen=True)
class Axis(Generic[T]):
    """One hyperparameter: a fixed value, a range from low to high, or a choice.

    Args:
        name: Name of the hyperparameter.
        kind: `"fixed"`, `"range"` or `"choice"`.
        values: The value; low and high; or the choices.
        default: Value of the first trial.
    """

    name: str
    kind: Kind
    values: tuple[T, ...]
    default: T

    def declare(self, hp: keras_tuner.HyperParameters, always: bool = False) -> T:
        """Registers the hyperparameter with `hp` and returns its value.

        A fixed one is registered only if `always` is set. A value that a user has put into `hp` under its
        name is used all the same. In a conditional scope that is not active the value is the default.
        """
        if self.kind == "choice":
            value = hp.Choice(self.name, list(self.values), default=self.default)
        elif self.kind == "fixed":
            if not (always or self.name in hp):
                return self.default
            value = hp.Fixed(self.name, self.default) if always else hp.get(self.name)
        elif isinstance(self.default, int):
            value = hp.Int(self.name, *self.values, default=self.default)
        else:
            value = hp.Float(self.name, *self.values, sampling="log", default=self.default)
        return self.default if value is None else value

    @property
    def domain(self) -> T | tuple[T, ...] | list[T]:
        """The domain from which `make_search_axis` rebuilds this axis."""
        if self.kind == "fixed":
            return self.default
        return self.values if self.kind == "range" else list(self.values)


def make_search_axis(
    name: str,
    domain: object,
    check: Callable[[str, Any], T],
    choose_default: Callable[[tuple[T, ...]], T],
) -> Axis[T]:
    """Returns the axis that `domain` describes.

    Args:
        name: Name of the hyperparameter.
        domain: A value (fixed), a tuple `(low, high)` (a range) or a list (a choice).
        check: Returns a value, or raises ValueError.
        choose_default: Returns the first trial's value, given low and high or the choices.

    Raises:
        ValueError: A value is wrong, the range or the list is empty, or the default is not in it.

    Example:
        >>> make_search_axis("width", (16, 64), lambda name, value: value, max)
        Axis(name='width', kind='range', values=(16, 64), default=64)
    """
    kind: Kind = "fixed"
    if isinstance(domain, list):
        values = tuple(dict.fromkeys(check(name, value) for value in domain))
        if not values:
            raise ValueError(f"`{name}` must offer at least one value. Received: {name}=[]")
        kind = "choice" if len(values) > 1 else "fixed"
    elif isinstance(domain, tuple):
        values = tuple(dict.fromkeys(_check_range(name, domain, check)))
        kind = "range" if len(values) == 2 else "fixed"
    else:
        values = (check(name, domain),)
    default: Any = values[0] if kind == "fixed" else choose_default(values)
    low, high = values[0], values[-1]
    if not (low <= default <= high if kind == "range" else default in values):
        raise ValueError(
            f"`{name}` must contain {default:g}, the analytic optimum that the search starts from. "
            f"Received: {name}={domain!r}"
        )
    return Axis(name, kind, values, default)


def _check_range(name: str, domain: tuple[Any, ...], check: Callable[[str, Any], T]) -> tuple[T, T]:
    if len(domain) != 2 or any(isinstance(value, str) for value in domain):
        raise ValueError(
            f"A range is a tuple (low, high) of numbers, a choice a list. Received: {name}={domain!r}"
        )
    low, high = check(name, domain[0]), check(name, domain[1])
    if domain[0] > domain[1]:
        raise ValueError(f"`{name}` is an empty range: low must be at most high. Received: {name}={domain}")
    return low, high


def first_value(values: tuple[T, ...]) -> T:
    """Returns the first choice."""
    return values[0]


def geometric_mean(values: tuple[float, ...]) -> float:
    """Returns the geometric mean of a range."""
    low, high = values
    return math.sqrt(low * high)
