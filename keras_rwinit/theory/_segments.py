r"""Follows the forward chain of a very deep network without visiting every layer.

Past the first layers the state of the forward chain (mean and variance of `y`, see `_mean_field`) changes
slowly: it is a smooth function of the layer. The layers are therefore divided into segments that are short
at both ends of the network and double in length towards its middle. In a segment of `length` layers from
`start` on, the state is a polynomial p of degree `POINTS` in the layer, which obeys the recursion
`p(d + 1) = F(p(d))` at `POINTS` Chebyshev points (collocation), and begins with the state in which the
segment before it ends. Newton's method solves these equations, for all gains at once.

A solution p(1/d) or p(exp(-d)) has its nearest singularity in the complex plane at layer 0, which is as far
from a segment's start as the segment is long. So the interpolation error falls at least by a factor of
`3 + sqrt 8` with each point. The equations are checked between the points as well. Where they fail a segment
is halved, down to `_WALKED` layers, which are walked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import special

from ._layer_table import Layer, layer_table
from .activation import Activation
from .distributions import Distribution

__all__ = [
    "POINTS",
    "TOLERANCE",
    "Chain",
    "Rule",
    "Segment",
    "State",
    "collocation_points",
    "segment_lengths",
]

Array: TypeAlias = NDArray[np.float64]

_WALKED = 32
POINTS = 14
"""Collocation points of a segment."""

_NEWTON_STEPS = 12
_BEYOND = 1500.0  # log-variance at which pre-activations have left the floats, and the chain is not followed
TOLERANCE = 1e-6
"""Error of the state at the end of a segment, in nats, that its equations may leave."""

_MOST_WALKED = 512
_MOST_FAILED = 16
"""Layers that are walked, and segments that are halved, before a state counts as never smooth."""


class Rule(NamedTuple):
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


def collocation_points(length: int) -> Array:
    """Returns the collocation points, in layers from the segment's start."""
    return (length - 1) * (1.0 - np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)) / 2.0


def _interpolation_matrix(at: Array, of: Array, last: float) -> Array:
    """Returns the matrix from values of a polynomial at `of` to values at `at`, in an interval [0, last]."""
    degree = len(of) - 1
    known = chebyshev.chebvander(2.0 * of / last - 1.0, degree)
    wanted = chebyshev.chebvander(2.0 * at / last - 1.0, degree)
    return np.asarray(np.linalg.solve(known.T, wanted.T).T, np.float64)


@lru_cache(maxsize=256)
def _rule(length: int) -> Rule:
    nodes = length * (1.0 - np.cos(np.pi * np.arange(POINTS + 1) / POINTS)) / 2.0
    points = collocation_points(length)
    checks = np.concatenate([[0.0], (points[1:] + points[:-1]) / 2.0, [length - 1.0]])
    vandermonde = chebyshev.chebvander(2.0 * points / (length - 1) - 1.0, POINTS - 1)
    return Rule(
        at_points=_interpolation_matrix(points, nodes, length),
        after_points=_interpolation_matrix(points + 1.0, nodes, length),
        at_checks=_interpolation_matrix(checks, nodes, length),
        after_checks=_interpolation_matrix(checks + 1.0, nodes, length),
        shift=_interpolation_matrix(points + 1.0, points, length - 1),
        weights=np.asarray(np.linalg.solve(vandermonde.T, _chebyshev_sums(length)), np.float64),
    )


def _chebyshev_sums(length: int) -> Array:
    """Returns the sum of each Chebyshev polynomial over `length` equidistant places from -1 to 1."""
    k = np.arange(POINTS, dtype=np.float64)
    if length <= 4096:
        places = np.linspace(-1.0, 1.0, length)
        return np.asarray(chebyshev.chebvander(places, POINTS - 1).sum(axis=0))
    # Euler-Maclaurin: integral, ends, and odd derivatives at the ends, which cancel for odd k.
    even = k % 2 == 0
    total = np.where(even, (length - 1) / (1.0 - k * k + ~even), 0.0) + even
    derivative, spacing = np.ones(POINTS), 2.0 / (length - 1)
    for order, bernoulli in enumerate(special.bernoulli(8)[2:], start=1):
        derivative = derivative * (k * k - (order - 1) ** 2) / (2 * order - 1)
        if order % 2:
            total = total + even * 2.0 * derivative * bernoulli * spacing**order / special.factorial(
                order + 1
            )
    return np.asarray(total)


@dataclass(frozen=True)
class Segment:
    """Consecutive layers: all of them if walked, else those at the collocation points.

    Args:
        layers: The layers. The fields have the shape (length, gains) if walked, else (gains, points).
        rule: Matrices of a smooth segment; None if walked.
        length: Number of layers.
    """

    layers: Layer
    rule: Rule | None
    length: int


class State(NamedTuple):
    """Mean and variance of `y`, each of shape (gains,)."""

    mean_y: Array
    var_y: Array


class Chain:
    """The recursion of the state for some gains.

    Args:
        activation: The activation.
        log_gain2: `2 ln gain`, shape (gains,).
        width: Units of a layer.
        distribution: Distribution of the kernels.
        tolerance: Error of the state, in nats, that a segment may leave.
    """

    def __init__(
        self,
        activation: Activation,
        log_gain2: Array,
        width: int,
        distribution: Distribution,
        tolerance: float,
    ) -> None:
        self.table = layer_table(activation, width, distribution)
        self.log_gain2, self.tolerance = log_gain2, tolerance
        self.walked = self.failed = 0
        self.escaped = np.zeros_like(log_gain2)

    def segments(self, state: State, length: int) -> tuple[list[Segment], State]:
        """Returns the segments of `length` layers from a state on, and the state after them."""
        beyond = np.abs(state.mean_y) > _BEYOND
        self.escaped = np.where(beyond, np.sign(state.mean_y), self.escaped)
        state = State(np.where(beyond, np.nan, state.mean_y), np.where(beyond, np.nan, state.var_y))
        if length <= _WALKED:
            return self._walk(state, length)
        solved = self._solve(state, _rule(length), length)
        if solved is not None:
            return [solved[0]], solved[1]
        first, middle = self.segments(state, length // 2)
        second, end = self.segments(middle, length - length // 2)
        return first + second, end

    def _walk(self, state: State, length: int) -> tuple[list[Segment], State]:
        states = []
        state = State(state.mean_y, np.maximum(state.var_y, 0.0))  # a polynomial may end below 0
        for _ in range(length):
            states.append(state)
            mean_y, var_y = self.table.advance(*state)
            state = State(mean_y + self.log_gain2, var_y)
        self.walked += length
        layers = self.table.describe(*np.stack(states, axis=1))
        return [Segment(layers, None, length)], state

    def _solve(self, start: State, rule: Rule, length: int) -> tuple[Segment, State] | None:
        """Returns the segment and the state after it; None if the state is not smooth in it."""
        # Values at the nodes, shape (gains, 2, nodes); the first node is known.
        state = np.repeat(np.stack(start, axis=1)[:, :, None], POINTS + 1, axis=2)
        small = max(1e-9, 1e-2 * self.tolerance)
        for _ in range(_NEWTON_STEPS):
            change = self._newton_step(state, rule)
            state[:, :, 1:] += change
            # Newton's method squares the error: the next change would be far below the tolerance.
            if not np.nanmax(np.abs(change / (1.0 + np.abs(state[:, :, 1:]))), initial=0.0) > small:
                break
        at, after = state @ rule.at_checks.T, state @ rule.after_checks.T
        mean_y, var_y = self.table.advance(at[:, 0], np.maximum(at[:, 1], 0.0))
        expected = np.stack([mean_y + self.log_gain2[:, None], var_y], axis=1)
        error = np.abs(expected - after).max(axis=(1, 2))
        # The second part is for rounding.
        tolerance = self.tolerance / length + 1e-13 * (1.0 + np.abs(state).max(axis=(1, 2)))
        rough = np.isfinite(start.mean_y) & ~(error <= tolerance)
        if rough.any():
            if self.walked < _MOST_WALKED and self.failed < _MOST_FAILED:
                self.failed += 1
                return None
            state[rough] = np.nan
        at = state @ rule.at_points.T
        layer = self.table.describe(at[:, 0], np.maximum(at[:, 1], 0.0))
        return Segment(layer, rule, length), State(state[:, 0, -1], state[:, 1, -1])

    def _newton_step(self, state: Array, rule: Rule) -> Array:
        at, after = state @ rule.at_points.T, state @ rule.after_points.T
        following, slopes = self.table.linearize(at[:, 0], np.maximum(at[:, 1], 0.0))
        following[0] += self.log_gain2[:, None]
        # Linear equations for the nodes but the first, shape (gains, 2 * points, 2 * points)
        matrix = -slopes.transpose(2, 0, 1, 3)[..., None] * rule.at_points[:, 1:]
        matrix[:, 0, 0] += rule.after_points[:, 1:]
        matrix[:, 1, 1] += rule.after_points[:, 1:]
        matrix = matrix.transpose(0, 1, 3, 2, 4).reshape(len(state), 2 * POINTS, 2 * POINTS)
        right = (following.transpose(1, 0, 2) - after).reshape(len(state), 2 * POINTS)
        usable = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(right).all(axis=1)
        change = np.full(right.shape, np.nan)
        if usable.any():
            change[usable] = np.linalg.solve(matrix[usable], right[usable][:, :, None])[:, :, 0]
        return change.reshape(len(state), 2, POINTS)


def segment_lengths(depth: int) -> list[int]:
    """Returns lengths that add up to `depth`: short at both ends, doubling towards the middle."""
    ends, length, left = [_WALKED], _WALKED, depth - 2 * _WALKED
    while left > 4 * length:
        ends.append(length)
        left -= 2 * length
        length *= 2
    return [*ends, left // 2, left - left // 2, *ends[::-1]]
