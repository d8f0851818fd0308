"""The budget of parameters, which ties width to depth."""

from __future__ import annotations

import bisect

import keras

from keras_rwinit._checks import check_count
from keras_rwinit.models.model_zoo import count_parameters

from ._axes import Axis, make_search_axis

__all__ = ["check_budget", "largest_depth", "widths_within"]


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
        sizes = [check_count("same_parameters_as", size) for size in (depth, width)]
        return count_parameters(*sizes, inputs, classes)
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

    def shallowness(candidate: int) -> int:
        return -largest_depth(candidate, inputs, classes, budget)

    # In order of falling depth, so that the widths that fit follow one another.
    in_range = width.kind == "range"
    candidates = range(width.values[0], width.values[1] + 1) if in_range else sorted(width.values)
    first = 0 if depth.kind == "fixed" else bisect.bisect_left(candidates, -deep, key=shallowness)
    fitting = candidates[first : bisect.bisect_right(candidates, -shallow, key=shallowness)]
    if not fitting:
        low, high = min(width.values), max(width.values)
        layers = f"{shallow:,}" if depth.kind == "fixed" else f"{shallow:,} to {deep:,}"
        most = [largest_depth(end, inputs, classes, budget) for end in (low, high)]
        raise ValueError(
            f"No width of {low:,} to {high:,} gives {layers} hidden layers on a budget of {budget:,} "
            f"parameters: width {low:,} has room for {most[0]:,} layers, width {high:,} for {most[1]:,}. "
            "Change the budget, `width` or `depth`."
        )
    # Choices stay in the user's order.
    chosen = [value for value in width.values if value in fitting]
    domain: object = (fitting[0], fitting[-1]) if in_range else chosen
    return make_search_axis("width", domain, check_count, max)
