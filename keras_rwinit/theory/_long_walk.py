r"""Follows the walk of a very deep network without visiting every layer.

Past the first layers the state of the forward chain (mean and variance of `y`, see `_mean_field`) changes
slowly: it is a smooth function of the layer. The layers are therefore divided into segments that are short
at both ends of the network and double in length towards its middle. In a segment of `length` layers from
`start` on, the state is a polynomial p of degree `_POINTS` in the layer, which obeys the recursion
`p(d + 1) = F(p(d))` at `_POINTS` Chebyshev points (collocation), and begins with the state in which the
segment before it ends. Newton's method solves these equations, for all gains at once. The backward
recursions are linear, and are solved on the same points.

A solution p(1/d) or p(exp(-d)) has its nearest singularity in the complex plane at layer 0, which is as far
from a segment's start as the segment is long. So the interpolation error falls at least by a factor of
`3 + sqrt 8` with each point. The equations are checked between the points as well. Where they fail a segment
is halved, down to `_WALKED` layers, which are walked.

Sums over the layers of a segment are sums of polynomials over integers, for which the Euler-Maclaurin
formula is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import special

from ._mean_field import WEIGHTS, Layer, MeanFieldWalk, follow_layer, mean_field_walk
from ._moments import MomentTable, moment_table
from .activations import Activation
from .distributions import Distribution

__all__ = ["WalkTotals", "walk_layers", "walk_totals"]

Array: TypeAlias = NDArray[np.float64]

_LONGEST_WALKED = 256
"""Depth up to which every layer is visited."""

_WALKED = 32
_POINTS = 14
_NEWTON_STEPS = 12
_BEYOND = 1500.0  # log-variance at which pre-activations have left the floats, and the chain is not followed
_BLOCK = 4096  # layers evaluated at a time
_TOLERANCE = 3e-8
"""Error of the state at the end of a segment, in nats, that its equations may leave."""

_MOST_WALKED = 512
_MOST_FAILED = 16
"""Layers that are walked, and segments that are halved, before a state counts as never smooth."""


class _Rule(NamedTuple):
    """Matrices of a segment, from its 15 nodes or its 14 collocation points to other places in it.

    Args:
        at_points: From the values of a polynomial at the nodes to those at the points.
        after_points: Likewise to those one layer after each point.
        at_checks: Likewise to places between the points.
        after_checks: Likewise to one layer after those.
        shift: From values at the points to values one layer after each point.
        weights: From values at the points to the sum over the layers of the segment.
    """

    at_points: Array
    after_points: Array
    at_checks: Array
    after_checks: Array
    shift: Array
    weights: Array


def _points(length: int) -> Array:
    """Returns the collocation points, in layers from the segment's start."""
    return (length - 1) * (1.0 - np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS)) / 2.0


def _matrix(at: Array, of: Array, last: float) -> Array:
    """Returns the matrix from values of a polynomial at `of` to values at `at`, in an interval [0, last]."""
    degree = len(of) - 1
    known = chebyshev.chebvander(2.0 * of / last - 1.0, degree)
    wanted = chebyshev.chebvander(2.0 * at / last - 1.0, degree)
    return np.asarray(np.linalg.solve(known.T, wanted.T).T, np.float64)


@lru_cache(maxsize=256)
def _rule(length: int) -> _Rule:
    nodes = length * (1.0 - np.cos(np.pi * np.arange(_POINTS + 1) / _POINTS)) / 2.0
    points = _points(length)
    checks = np.concatenate([[0.0], (points[1:] + points[:-1]) / 2.0, [length - 1.0]])
    vandermonde = chebyshev.chebvander(2.0 * points / (length - 1) - 1.0, _POINTS - 1)
    return _Rule(
        at_points=_matrix(points, nodes, length),
        after_points=_matrix(points + 1.0, nodes, length),
        at_checks=_matrix(checks, nodes, length),
        after_checks=_matrix(checks + 1.0, nodes, length),
        shift=_matrix(points + 1.0, points, length - 1),
        weights=np.asarray(np.linalg.solve(vandermonde.T, _chebyshev_sums(length)), np.float64),
    )


def _chebyshev_sums(length: int) -> Array:
    """Returns the sum of each Chebyshev polynomial over `length` equidistant places from -1 to 1."""
    k = np.arange(_POINTS, dtype=np.float64)
    if length <= 4096:
        places = np.linspace(-1.0, 1.0, length)
        return np.asarray(chebyshev.chebvander(places, _POINTS - 1).sum(axis=0))
    # Euler-Maclaurin: integral, ends, and odd derivatives at the ends, which cancel for odd k.
    even = k % 2 == 0
    total = np.where(even, (length - 1) / (1.0 - k * k + ~even), 0.0) + even
    derivative, spacing = np.ones(_POINTS), 2.0 / (length - 1)
    for order, bernoulli in enumerate(special.bernoulli(8)[2:], start=1):
        derivative = derivative * (k * k - (order - 1) ** 2) / (2 * order - 1)
        if order % 2:
            total = total + even * 2.0 * derivative * bernoulli * spacing**order / special.factorial(
                order + 1
            )
    return np.asarray(total)


@dataclass(frozen=True)
class _Segment:
    """Consecutive layers: all of them if walked, else those at the collocation points.

    Args:
        layers: The layers, in order. Those of a smooth segment are one `Layer` of shape (gains, points).
        rule: Matrices of a smooth segment; None if walked.
        length: Number of layers.
    """

    layers: list[Layer]
    rule: _Rule | None
    length: int


class _State(NamedTuple):
    """Mean and variance of `y`, each of shape (gains,)."""

    mean_y: Array
    var_y: Array


class _Chain:
    """The recursion of the state for some gains."""

    def __init__(
        self, activation: Activation, log_gain2: Array, width: int, distribution: Distribution
    ) -> None:
        self.table: MomentTable = moment_table(activation)
        self.log_gain2, self.width, self.distribution = log_gain2, width, distribution
        self.walked = self.failed = 0
        self.escaped = np.zeros_like(log_gain2)

    def follow(self, mean_y: Array, var_y: Array) -> tuple[Layer, Array, Array]:
        """Returns the layer and the next state of states of shape (gains,) or (gains, points)."""
        log_gain2 = np.broadcast_to(self.log_gain2[(...,) + (None,) * (mean_y.ndim - 1)], mean_y.shape)
        layer, *after = follow_layer(
            self.table,
            mean_y.ravel(),
            np.maximum(var_y, 0.0).ravel(),
            log_gain2.ravel(),
            self.width,
            self.distribution,
        )
        shaped = Layer(*(field.reshape(mean_y.shape + field.shape[1:]) for field in layer))
        return shaped, after[0].reshape(mean_y.shape), after[1].reshape(mean_y.shape)

    def segments(self, state: _State, length: int) -> tuple[list[_Segment], _State]:
        """Returns the segments of `length` layers from a state on, and the state after them."""
        beyond = np.abs(state.mean_y) > _BEYOND
        self.escaped = np.where(beyond, np.sign(state.mean_y), self.escaped)
        state = _State(np.where(beyond, np.nan, state.mean_y), np.where(beyond, np.nan, state.var_y))
        if length <= _WALKED:
            return self._walk(state, length)
        solved = self._solve(state, _rule(length), length)
        if solved is not None:
            return [solved[0]], solved[1]
        first, middle = self.segments(state, length // 2)
        second, end = self.segments(middle, length - length // 2)
        return first + second, end

    def _walk(self, state: _State, length: int) -> tuple[list[_Segment], _State]:
        layers = []
        for _ in range(length):
            layer, *after = self.follow(*state)
            layers.append(layer)
            state = _State(*after)
        self.walked += length
        return [_Segment(layers, None, length)], state

    def _solve(self, start: _State, rule: _Rule, length: int) -> tuple[_Segment, _State] | None:
        """Returns the segment and the state after it; None if the state is not smooth in it."""
        # Values at the nodes, shape (gains, 2, nodes); the first node is known.
        state = np.repeat(np.stack(start, axis=1)[:, :, None], _POINTS + 1, axis=2)
        for _ in range(_NEWTON_STEPS):
            change = self._newton_step(state, rule)
            state[:, :, 1:] += change
            if not np.nanmax(np.abs(change / (1.0 + np.abs(state[:, :, 1:]))), initial=0.0) > 1e-9:
                break
        at, after = state @ rule.at_checks.T, state @ rule.after_checks.T
        _, *expected = self.follow(at[:, 0], at[:, 1])
        error = np.abs(np.stack(expected, axis=1) - after).max(axis=(1, 2))
        # The second part is for rounding.
        tolerance = _TOLERANCE / length + 1e-13 * (1.0 + np.abs(state).max(axis=(1, 2)))
        rough = np.isfinite(start.mean_y) & ~(error <= tolerance)
        if rough.any():
            if self.walked < _MOST_WALKED and self.failed < _MOST_FAILED:
                self.failed += 1
                return None
            state[rough] = np.nan
        at = state @ rule.at_points.T
        layer, _, _ = self.follow(at[:, 0], at[:, 1])
        return _Segment([layer], rule, length), _State(state[:, 0, -1], state[:, 1, -1])

    def _newton_step(self, state: Array, rule: _Rule) -> Array:
        at, after = state @ rule.at_points.T, state @ rule.after_points.T
        # The recursion and its derivatives by differences, in one call
        small = 1e-6 * np.maximum(np.abs(at[:, 1]), 1e-6)
        mean_y = np.concatenate([at[:, 0], at[:, 0] + 1e-6, at[:, 0]], axis=1)
        var_y = np.concatenate([at[:, 1], at[:, 1], at[:, 1] + small], axis=1)
        _, *following = self.follow(mean_y, var_y)
        here, by_mean, by_var = np.split(np.stack(following, axis=1), 3, axis=2)
        slopes = np.stack([(by_mean - here) / 1e-6, (by_var - here) / small[:, None]], axis=2)
        # Linear equations for the nodes but the first, shape (gains, 2 * points, 2 * points)
        matrix = -slopes[..., None] * rule.at_points[:, 1:]
        matrix[:, 0, 0] += rule.after_points[:, 1:]
        matrix[:, 1, 1] += rule.after_points[:, 1:]
        matrix = matrix.transpose(0, 1, 3, 2, 4).reshape(len(state), 2 * _POINTS, 2 * _POINTS)
        right = (here - after).reshape(len(state), 2 * _POINTS)
        usable = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(right).all(axis=1)
        change = np.full(right.shape, np.nan)
        if usable.any():
            change[usable] = np.linalg.solve(matrix[usable], right[usable][:, :, None])[:, :, 0]
        return change.reshape(len(state), 2, _POINTS)


def _lengths(depth: int) -> list[int]:
    """Returns lengths that add up to `depth`: short at both ends, doubling towards the middle."""
    ends, length, left = [_WALKED], _WALKED, depth - 2 * _WALKED
    while left > 4 * length:
        ends.append(length)
        left -= 2 * length
        length *= 2
    return [*ends, left // 2, left - left // 2, *ends[::-1]]


@dataclass(frozen=True)
class WalkTotals:
    """The walk from the last to the first layer at each of several gains; every field has the shape (gains,).

    Args:
        mean: Mean of `ln(|delta_1| / |delta_depth|)`, in nats; nan where the state never becomes smooth.
        std: Standard deviation of the same over networks, in nats.
        log_variance_change: Change of the mean of `y` from the first layer to the last.
        misalignment: Largest `|t_d - 1|` of all layers.
        fluctuation: Largest standard deviation of `y` over networks of all layers.
    """

    mean: Array
    std: Array
    log_variance_change: Array
    misalignment: Array
    fluctuation: Array


@dataclass(frozen=True)
class _Part:
    """What the backward pass found in a segment; arrays of shape (gains, layers or collocation points).

    Args:
        segment: The segment.
        mean: What each layer adds to the mean of `ln|delta|^2`.
        noise: What it adds to the variance of the same, the fluctuation of its own `y` apart.
        slope: Regression coefficient of `ln|delta|^2` on the layer's `y`.
        mean_y: Mean of `y`.
        var_y: Variance of `y`.
        misalignment: `|t - 1|`.
        flat: Probability that a unit has slope 0.
    """

    segment: _Segment
    mean: Array
    noise: Array
    slope: Array
    mean_y: Array
    var_y: Array
    misalignment: Array
    flat: Array

    def sum(self, values: Array) -> Array:
        """Returns the sum over all layers of the segment."""
        rule = self.segment.rule
        return np.asarray(values.sum(axis=1) if rule is None else values @ rule.weights)

    def at_layers(self, values: Array) -> Array:
        """Returns the values of all layers, shape (gains, length)."""
        if self.segment.rule is None:
            return values
        length = self.segment.length
        blocks = [
            np.arange(first, min(first + _BLOCK, length), dtype=np.float64)
            for first in range(0, length, _BLOCK)
        ]
        points = _points(length)
        return np.concatenate([values @ _matrix(block, points, length - 1).T for block in blocks], axis=1)


class _Gradient(NamedTuple):
    """What the backward recursion carries: `t - 1` and `x_df` of the layer above, and its slope."""

    aligned: Array
    x_df: Array
    slope: Array


def _pass_back_walked(segment: _Segment, log_gain2: Array, above: _Gradient) -> tuple[_Part, _Gradient]:
    found = []
    for layer in reversed(segment.layers):
        mean = log_gain2 + layer.step_mean
        mean = mean + (above.aligned * layer.aligned + (above.x_df - 1.0) * layer.skewed) @ WEIGHTS
        noise = layer.step_variance + 2.0 * above.slope * layer.covariance
        noise = noise + above.slope**2 * layer.chain_variance
        above = _Gradient(
            aligned=layer.x_df - 1.0 + above.aligned * layer.alignment,
            x_df=layer.x_df,
            slope=layer.step_slope + layer.chain_slope * above.slope,
        )
        misalignment = np.abs(above.aligned) @ WEIGHTS
        found.append((mean, noise, above.slope, layer.mean_y, layer.var_y, misalignment, layer.flat))
    columns = [np.stack(column, axis=1) for column in zip(*reversed(found), strict=True)]
    return _Part(segment, *columns), above


def _pass_back_smooth(
    segment: _Segment, rule: _Rule, log_gain2: Array, above: _Gradient
) -> tuple[_Part, _Gradient]:
    layer = segment.layers[0]
    aligned = _solve_backward(
        rule, np.swapaxes(layer.alignment, 1, 2), np.swapaxes(layer.x_df, 1, 2) - 1.0, above.aligned
    )
    slope = _solve_backward(rule, layer.chain_slope, layer.step_slope, above.slope)
    next_aligned = np.swapaxes(aligned @ rule.after_points.T, 1, 2)
    next_x_df = rule.shift @ layer.x_df
    next_slope = slope @ rule.after_points.T
    mean = log_gain2[:, None] + layer.step_mean
    mean = mean + (next_aligned * layer.aligned + (next_x_df - 1.0) * layer.skewed) @ WEIGHTS
    noise = layer.step_variance + 2.0 * next_slope * layer.covariance + next_slope**2 * layer.chain_variance
    part = _Part(
        segment=segment,
        mean=mean,
        noise=noise,
        slope=slope @ rule.at_points.T,
        mean_y=layer.mean_y,
        var_y=layer.var_y,
        misalignment=np.abs(np.swapaxes(aligned @ rule.at_points.T, 1, 2)) @ WEIGHTS,
        flat=layer.flat,
    )
    first = _Gradient(aligned=aligned[..., 0], x_df=layer.x_df[:, 0], slope=slope[..., 0])
    return part, first


def _solve_backward(rule: _Rule, factor: Array, added: Array, end: Array) -> Array:
    """Returns the values at the nodes of p with `p(d) = added(d) + factor(d) p(d + 1)` and p = `end` behind.

    Args:
        rule: Matrices of the segment.
        factor: The factor at the points, shape (..., points).
        added: What is added there, same shape.
        end: p behind the last layer, shape (...).
    """
    matrix = rule.at_points - factor[..., None] * rule.after_points
    right = added - matrix[..., -1] * end[..., None]
    usable = np.isfinite(matrix).all(axis=(-1, -2)) & np.isfinite(right).all(axis=-1)
    values = np.full((*end.shape, _POINTS + 1), np.nan)
    values[usable, :-1] = np.linalg.solve(matrix[usable][..., :-1], right[usable][..., None])[..., 0]
    values[usable, -1] = end[usable]
    return values


class _LongWalk(NamedTuple):
    """The walk at some gains.

    Args:
        parts: The parts of the network in order, but for its last layer, which takes no step.
        last: The last layer.
        escaped: 1 for chains that left the floats upwards, -1 downwards, 0 for all others.
    """

    parts: list[_Part]
    last: Layer
    escaped: Array


def _follow(
    activation: Activation, log_gain2: Array, width: int, depth: int, distribution: Distribution
) -> _LongWalk:
    chain = _Chain(activation, log_gain2, width, distribution)
    segments: list[_Segment] = []
    state = _State(log_gain2, np.zeros_like(log_gain2))
    for length in _lengths(depth - 1):
        more, state = chain.segments(state, length)
        segments += more
    last, _, _ = chain.follow(*state)
    above = _Gradient(aligned=last.x_df - 1.0, x_df=last.x_df, slope=np.zeros_like(log_gain2))
    parts: list[_Part] = []
    for segment in reversed(segments):
        if segment.rule is None:
            part, above = _pass_back_walked(segment, log_gain2, above)
        else:
            part, above = _pass_back_smooth(segment, segment.rule, log_gain2, above)
        parts.append(part)
        # Below the layer where a chain left the floats the recursion starts anew.
        above = _Gradient(*(np.where(np.isnan(field), 0.0, field) for field in above))
    return _LongWalk(_fill_escaped(chain.escaped, parts[::-1]), last, chain.escaped)


def _fill_escaped(escaped: Array, parts: list[_Part]) -> list[_Part]:
    """Returns the parts with the last step of each chain that left the floats repeated to the end."""
    filled = parts[:1]
    for part in parts[1:]:
        lost = (escaped != 0.0)[:, None] & np.isnan(part.mean_y)
        known = {
            name: np.where(lost, getattr(filled[-1], name)[:, -1:], getattr(part, name))
            for name in ("mean", "noise", "slope", "mean_y", "var_y", "misalignment", "flat")
        }
        filled.append(_Part(part.segment, **known))
    return filled


def walk_totals(
    activation: Activation, gains: Array, width: int, depth: int, distribution: Distribution
) -> WalkTotals:
    """Returns the whole walk at each of `gains`, in memory that does not grow with the depth."""
    if depth <= _LONGEST_WALKED:
        walk = mean_field_walk(activation, gains, width, depth, distribution)
        return WalkTotals(
            mean=walk.mean[:, 0],
            std=walk.std[:, 0],
            log_variance_change=walk.log_variance[:, -1] - walk.log_variance[:, 0],
            misalignment=walk.misalignment.max(axis=1),
            fluctuation=walk.fluctuation.max(axis=1),
        )
    log_gain2 = 2.0 * np.log(np.asarray(gains, np.float64))
    parts, last, escaped = _follow(activation, log_gain2, width, depth, distribution)
    noise = sum(part.sum(part.noise) for part in parts)
    variance = noise + parts[0].slope[:, 0] ** 2 * parts[0].var_y[:, 0]
    largest = np.max([part.misalignment.max(axis=1) for part in parts], axis=0)
    widest = np.max([part.var_y.max(axis=1) for part in parts], axis=0)
    return WalkTotals(
        mean=np.asarray(sum(part.sum(part.mean) for part in parts)) / 2.0,
        std=np.sqrt(np.maximum(variance, 0.0)) / 2.0,
        log_variance_change=np.where(escaped != 0.0, np.copysign(np.inf, escaped), last.mean_y - log_gain2),
        misalignment=largest,
        fluctuation=np.sqrt(widest),
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

    def join(name: str, of_last: Array) -> Array:
        values = [part.at_layers(getattr(part, name)) for part in parts]
        return np.concatenate([*values, of_last[:, None]], axis=1)

    def sum_from_the_last(steps: Array) -> Array:
        return np.asarray(np.cumsum(steps[:, ::-1], axis=1)[:, ::-1])

    zero = np.zeros(1)
    var_y = np.maximum(join("var_y", last.var_y), 0.0)
    variance = sum_from_the_last(join("noise", zero)) + join("slope", zero) ** 2 * var_y
    return MeanFieldWalk(
        mean=sum_from_the_last(join("mean", zero)) / 2.0,
        std=np.sqrt(np.maximum(variance, 0.0)) / 2.0,
        log_variance=join("mean_y", last.mean_y),
        fluctuation=np.sqrt(var_y),
        misalignment=join("misalignment", np.abs(last.x_df - 1.0) @ WEIGHTS),
        dead=np.clip(join("flat", last.flat), 0.0, 1.0) ** width,
    )
