"""The axes of the search space, the budget under which width and depth trade, and a point of the space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import keras_tuner
from keras_rwinit.models.model_zoo import count_parameters

from keras_rwinit._checks import check_count, check_positive

__all__ = ["Axis", "Point", "axis", "check_budget", "deepest", "widths_within"]


@dataclass(frozen=True)
class Axis:
    """One hyperparameter: a fixed value, a range from low to high, or a choice.

    Args:
        name: Of the hyperparameter.
        kind: `"fixed"`, `"range"` or `"choice"`.
        values: The value; low and high; or the choices.
        default: The value of the first trial.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    default: Any

    def value(self, hp: keras_tuner.HyperParameters, always: bool = False) -> Any:
        """Registers the hyperparameter with `hp` and returns its value.

        A fixed one leaves the space as it is, unless `always`; what a user has put into `hp` under its
        name counts all the same. In a conditional scope that is not active the value is the default.
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
    def given(self) -> Any:
        """The axis as it was given to `axis`."""
        return {"fixed": self.default, "range": self.values, "choice": list(self.values)}[self.kind]


def axis(
    name: str, given: Any, check: Callable[[str, Any], Any], default: Callable[[tuple[Any, ...]], Any]
) -> Axis:
    """The axis that `given` describes.

    Args:
        name: Of the hyperparameter.
        given: A value (fixed), a tuple `(low, high)` (a range) or a list (a choice).
        check: Returns a value, or raises ValueError.
        default: Picks the first trial's value, out of low and high or out of the choices.

    Raises:
        ValueError: A value is wrong, the range or the list is empty, or the default is not in it.

    Example:
        >>> axis("width", (16, 64), check_count, max)
        Axis(name='width', kind='range', values=(16, 64), default=64)
    """
    if isinstance(given, list):
        values = tuple(dict.fromkeys(check(name, value) for value in given))
        if not values:
            raise ValueError(f"`{name}` must offer at least one value. Received: {name}=[]")
        kind = "choice" if len(values) > 1 else "fixed"
    elif isinstance(given, tuple):
        if len(given) != 2 or any(isinstance(value, str) for value in given):
            raise ValueError(
                f"A range is a tuple (low, high) of numbers, a choice a list. Received: {name}={given!r}"
            )
        values = tuple(check(name, value) for value in given)
        if values[0] > values[1]:
            raise ValueError(
                f"`{name}` is an empty range: low must be at most high. Received: {name}={given}"
            )
        kind = "range" if values[0] < values[1] else "fixed"
        values = values if kind == "range" else values[:1]
    else:
        kind, values = "fixed", (check(name, given),)
    first = values[0] if kind == "fixed" else default(values)
    inside = values[0] <= first <= values[1] if kind == "range" else first in values
    if not inside:
        raise ValueError(
            f"`{name}` must contain {first:g}, the analytic optimum that the search starts from. "
            f"Received: {name}={given!r}"
        )
    return Axis(name, kind, values, first)


def check_budget(max_parameters: Any, same_parameters_as: Any, inputs: int, classes: int) -> int | None:
    """The largest number of parameters a trial may have; None for no limit."""
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


def deepest(width: int, inputs: int, classes: int, budget: int) -> int:
    """Most hidden layers of a width within `budget` parameters; 0 if not even one fits.

    Example:
        >>> deepest(64, inputs=64, classes=10, budget=count_parameters(100, 64, 64, 10))
        100
    """
    left = budget - count_parameters(1, width, inputs, classes)
    return 0 if left < 0 else 1 + left // (width * (width + 1))


def widths_within(width: Axis, depth: Axis, inputs: int, classes: int, budget: int) -> Axis:
    """The part of `width` whose networks keep to the budget.

    At a fixed depth these are the widths that fit. At a range of depths they are the widths whose deepest
    network within the budget has a depth in that range.

    Raises:
        ValueError: There are none.
    """
    shallow, deep = depth.values[0], depth.values[-1]

    def fits(candidate: int) -> bool:
        layers = deepest(candidate, inputs, classes, budget)
        return layers >= shallow and (depth.kind == "fixed" or layers <= deep)

    candidates = range(width.values[0], width.values[1] + 1) if width.kind == "range" else width.values
    fitting = [candidate for candidate in candidates if fits(candidate)]
    if not fitting:
        low, high = min(width.values), max(width.values)
        layers = f"{shallow:,}" if depth.kind == "fixed" else f"{shallow:,} to {deep:,}"
        raise ValueError(
            f"No width of {low:,} to {high:,} gives {layers} hidden layers on a budget of {budget:,} "
            f"parameters: width {low:,} has room for {deepest(low, inputs, classes, budget):,} layers, width "
            f"{high:,} for {deepest(high, inputs, classes, budget):,}. Change the budget, `width` or `depth`."
        )
    ends = (fitting[0], fitting[-1])
    return axis("width", ends if width.kind == "range" else fitting, check_count, max)


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


def center(values: tuple[Any, ...]) -> float:
    """The geometric mean of a range, the first of a choice."""
    return math.sqrt(values[0] * values[1]) if len(values) == 2 else float(values[0])


def check_learning_rate(name: str, value: Any) -> float | None:
    """A positive number, or None."""
    return None if value is None else check_positive(name, value)
