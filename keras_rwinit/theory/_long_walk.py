"""The walk of a network of any depth: every layer is visited up to 256 layers, and segments beyond.

`_segments` follows the forward chain, and `_segment_gradient` carries the gradient back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._backward_pass import Gradient, initial_gradient
from ._collocation import divide
from ._layer_table import WEIGHTS, Layer
from ._mean_field import MeanFieldWalk, mean_field_walk
from ._segment_gradient import LAYER_FIELDS, Part, pass_back_smooth, pass_back_walked
from ._segments import FINE, Accuracy, Chain, Segment, State
from .activation import Activation
from .distributions import Distribution

__all__ = ["WalkTotals", "walk_layers", "walk_totals"]

Array: TypeAlias = NDArray[np.float64]

_LONGEST_WALKED = 256
"""Depth up to which every layer is visited."""


@dataclass(frozen=True)
class WalkTotals:
    """The walk from the last to the first layer at each of several gains; every field has the shape (gains,).

    Args:
        mean: Mean of `ln(|delta_1| / |delta_depth|)`, in nats; nan where the state never becomes smooth.
        std: Standard deviation of the same over networks, in nats.
        log_variance_change: Change of the mean of `y` from the first layer to the last.
        misalignment: Largest `|t_d - 1|` of all layers.
    """

    mean: Array
    std: Array
    log_variance_change: Array
    misalignment: Array


class _LongWalk(NamedTuple):
    """The walk at some gains.

    Args:
        parts: The parts of the network in order, but for its last layer, which takes no step.
        last: The last layer.
        escaped: 1 for chains that left the floats upwards, -1 downwards, 0 for all others.
    """

    parts: list[Part]
    last: Layer
    escaped: Array


def _follow(
    activation: Activation,
    log_gain2: Array,
    width: int,
    depth: int,
    distribution: Distribution,
    accuracy: Accuracy = FINE,
) -> _LongWalk:
    chain = Chain(activation, log_gain2, width, distribution, accuracy)
    segments: list[Segment] = []
    state = State(log_gain2, np.zeros_like(log_gain2))
    for stretch in divide(depth - 1, accuracy.growth):
        more, state = chain.segments(state, stretch)
        segments += more
    last = chain.table.describe(state.mean_y, np.maximum(state.var_y, 0.0))
    above = initial_gradient(last)
    parts: list[Part] = []
    for segment in reversed(segments):
        if segment.rule is None:
            part, above = pass_back_walked(segment, log_gain2, above)
        else:
            part, above = pass_back_smooth(segment, segment.rule, log_gain2, above)
        parts.append(part)
        if chain.escaped.any():
            # Below the layer where a chain left the floats the recursion starts anew.
            above = Gradient(*(np.where(np.isnan(field), 0.0, field) for field in above))
    parts.reverse()
    return _LongWalk(
        _fill_escaped(chain.escaped, parts) if chain.escaped.any() else parts, last, chain.escaped
    )


def _fill_escaped(escaped: Array, parts: list[Part]) -> list[Part]:
    """Returns the parts with the last step of each chain that left the floats repeated to the end."""
    filled = parts[:1]
    for part in parts[1:]:
        lost = (escaped != 0.0)[:, None] & np.isnan(part.mean_y)
        known = {
            name: np.where(lost, getattr(filled[-1], name)[:, -1:], getattr(part, name))
            for name in LAYER_FIELDS
        }
        filled.append(Part(part.segment, **known))
    return filled


def walk_totals(
    activation: Activation,
    gains: Array,
    width: int,
    depth: int,
    distribution: Distribution,
    *,
    accuracy: Accuracy = FINE,
) -> WalkTotals:
    """Returns the whole walk at each of `gains`, in memory that does not grow with the depth.

    Args:
        activation: The activation.
        gains: The gains.
        width: Units of a layer.
        depth: Number of hidden layers.
        distribution: Distribution of the kernels.
        accuracy: How exactly segments are solved beyond 256 layers.
    """
    if depth <= _LONGEST_WALKED:
        walk = mean_field_walk(activation, gains, width, depth, distribution)
        return WalkTotals(
            mean=walk.mean[:, 0],
            std=walk.std[:, 0],
            log_variance_change=walk.log_variance[:, -1] - walk.log_variance[:, 0],
            misalignment=walk.misalignment.max(axis=1),
        )
    log_gain2 = 2.0 * np.log(np.asarray(gains, np.float64))
    parts, last, escaped = _follow(activation, log_gain2, width, depth, distribution, accuracy)
    noise = sum(part.sum(part.noise) for part in parts)
    variance = noise + parts[0].slope[:, 0] ** 2 * parts[0].var_y[:, 0]
    largest = np.max([part.misalignment.max(axis=1) for part in parts], axis=0)
    return WalkTotals(
        mean=np.asarray(sum(part.sum(part.mean) for part in parts)) / 2.0,
        std=np.sqrt(np.maximum(variance, 0.0)) / 2.0,
        log_variance_change=np.where(escaped != 0.0, np.copysign(np.inf, escaped), last.mean_y - log_gain2),
        misalignment=largest,
    )


def walk_layers(
    activation: Activation, gain: float, width: int, depth: int, distribution: Distribution
) -> MeanFieldWalk:
    """Returns the walk at one gain at every layer; the arrays have the shape (1, depth)."""
    if depth <= _LONGEST_WALKED:
        return mean_field_walk(activation, np.array([gain]), width, depth, distribution)
    log_gain2 = 2.0 * np.log(np.array([gain]))
    parts, last, escaped = _follow(activation, log_gain2, width, depth, distribution)
    # A chain that left the floats stays where it left them.
    last = last._replace(
        mean_y=np.where(escaped != 0.0, parts[-1].mean_y[:, -1], last.mean_y),
        var_y=np.where(escaped != 0.0, parts[-1].var_y[:, -1], last.var_y),
        flat=np.where(escaped != 0.0, parts[-1].flat[:, -1], last.flat),
    )

    found = [part.at_layers() for part in parts]

    def join(name: str, of_last: Array) -> Array:
        return np.concatenate([*(fields[name] for fields in found), of_last])

    def sum_from_the_last(steps: Array) -> Array:
        return np.asarray(np.cumsum(steps[::-1])[::-1])

    zero = np.zeros(1)
    var_y = np.maximum(join("var_y", last.var_y), 0.0)
    variance = sum_from_the_last(join("noise", zero)) + join("slope", zero) ** 2 * var_y
    flat = np.clip(join("flat", last.flat), 0.0, 1.0)
    walk = MeanFieldWalk(
        mean=sum_from_the_last(join("mean", zero)) / 2.0,
        std=np.sqrt(np.maximum(variance, 0.0)) / 2.0,
        log_variance=join("mean_y", last.mean_y),
        fluctuation=np.sqrt(var_y),
        misalignment=join("misalignment", np.abs(last.x_df - 1.0) @ WEIGHTS),
        dead=flat**width if flat.any() else flat,
    )
    return MeanFieldWalk(**{name: values[None] for name, values in vars(walk).items()})
