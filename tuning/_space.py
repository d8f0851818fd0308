"""The axes of the search space, the budget that ties width to depth, and a point of the space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import keras
import keras_tuner

from keras_rwinit._checks import check_count
from keras_rwinit.models.model_zoo import count_parameters

__all__ = [
    "Axis",
    "Domain",
    "HyperparameterValue",
    "Point",
    "check_budget",
    "first_value",
    "geometric_mean",
    "largest_depth",
    "make_search_axis",
    "widths_within",
]

T = TypeVar("T")

HyperparameterValue: TypeAlias = bool | int | float | str
"""What keras-tuner keeps of a hyperparameter."""

Domain: TypeAlias = T | tuple[T, T] | list[T]
"""What a user gives for a hyperparameter: a fixed value, a range (low, high) or a list of choices."""

Kind: TypeAlias = Literal["fixed", "range", "choice"]


@dataclass(frozen=True)
class Point:
    """A network and its training, as a point of the search space."""

    gain_ratio: float
    width: int
    depth: int
    activation: str
    distribution: str
    input_gain_ratio: float
    output_gain_ratio: float
    learning_rate: float
    optimizer: str


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
        >>> make_search_axis("width", (16, 64), check_count, max)
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


def geometric_mean(values: tuple[float | None, ...]) -> float | None:
    """Returns the geometric mean of a range."""
    low, high = values
    assert low is not None
    assert high is not None
    return math.sqrt(low * high)


def check_budget(
    max_parameters: int | None,
    same_parameters_as: tuple[int, int] | keras.Model | None,
    inputs: int,
    classes: int,
) -> int | None:
    """Returns the largest number of parameters that a trial may have; None for no limit."""
    if max_parameters is not None and same_parameters_as is not None:
        raise ValueError(
            "Give one of `max_parameters` and `same_parameters_as`. "
            f"Received: {max_parameters!r} and {same_parameters_as!r}"
        )
    if isinstance(same_parameters_as, keras.Model):
        return int(same_parameters_as.count_params())
    if same_parameters_as is not None:
        try:
            depth, width = same_parameters_as
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`same_parameters_as` must be a pair (depth, width) or a built Keras model. "
                f"Received: {same_parameters_as!r}"
            ) from error
        return count_parameters(check_count("depth", depth), check_count("width", width), inputs, classes)
    return None if max_parameters is None else check_count("max_parameters", max_parameters)


def largest_depth(width: int, inputs: int, classes: int, budget: int) -> int:
    """Returns how many hidden layers of a width fit into `budget` parameters; 0 if not even one does.

    Example:
        >>> largest_depth(64, inputs=64, classes=10, budget=count_parameters(100, 64, 64, 10))
        100
    """
    left = budget - count_parameters(1, width, inputs, classes)
    # Each layer after the first has a square kernel and as many biases as units.
    return 0 if left < 0 else 1 + left // (width * (width + 1))


def widths_within(width: Axis[int], depth: Axis[int], inputs: int, classes: int, budget: int) -> Axis[int]:
    """Returns the part of `width` whose networks keep to the budget.

    At a fixed depth these are the widths that fit. At a range of depths they are the widths whose deepest
    network within the budget has a depth in that range.

    Raises:
        ValueError: There are none.
    """
    shallow, deep = depth.values[0], depth.values[-1]

    def fits(candidate: int) -> bool:
        layers = largest_depth(candidate, inputs, classes, budget)
        return layers >= shallow and (depth.kind == "fixed" or layers <= deep)

    # The depth falls as the width grows, so the widths of a range that fit are a range too.
    candidates = range(width.values[0], width.values[1] + 1) if width.kind == "range" else width.values
    fitting = [candidate for candidate in candidates if fits(candidate)]
    if not fitting:
        low, high = min(width.values), max(width.values)
        layers = f"{shallow:,}" if depth.kind == "fixed" else f"{shallow:,} to {deep:,}"
        most = [largest_depth(end, inputs, classes, budget) for end in (low, high)]
        raise ValueError(
            f"No width of {low:,} to {high:,} gives {layers} hidden layers on a budget of {budget:,} "
            f"parameters: width {low:,} has room for {most[0]:,} layers, width {high:,} for {most[1]:,}. "
            "Change the budget, `width` or `depth`."
        )
    return make_search_axis(
        "width", (fitting[0], fitting[-1]) if width.kind == "range" else fitting, check_count, max
    )
