r"""Follows the forward chain of a very deep network without visiting every layer.

Past the first layers the state of the forward chain (mean and variance of `y`, see `_mean_field`) changes
slowly: like 1/d or exp(-d) at layer d, and what travels back from the last layer likewise. Both are smooth
functions of the logarithm of the distance from the nearer end of the network. The layers are therefore
divided into segments in which that distance grows by a factor. In a segment the state is a polynomial p of
that logarithm, which obeys the recursion `p(d + 1) = F(p(d))` at Chebyshev points (collocation), and begins
with the state in which the segment before it ends. Newton's method solves these equations, for all gains at
once.

The equations are checked between the points as well. Where they fail a segment is halved, down to `WALKED`
layers, which are walked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._collocation import WALKED, Rule, Stretch, collocation_rule
from ._layer_table import Layer, layer_table
from .activation import Activation
from .distributions import Distribution

__all__ = ["FINE", "Accuracy", "Chain", "Segment", "State"]

Array: TypeAlias = NDArray[np.float64]

_NEWTON_STEPS = 12
_BEYOND = 1500.0  # log-variance at which pre-activations have left the floats, and the chain is not followed
_MOST_WALKED = 512
_MOST_FAILED = 16
"""Layers that are walked, and segments that are halved, before a state counts as never smooth."""


class Accuracy(NamedTuple):
    """How exactly segments are solved.

    Args:
        points: Collocation points of a segment.
        growth: Largest factor by which the distance from the nearer end of the network grows in a segment.
        tolerance: Error of the state at the end of a segment, in nats, that its equations may leave.
    """

    points: int
    growth: float
    tolerance: float


FINE = Accuracy(points=18, growth=16.0, tolerance=1e-7)
"""The mean of the walk is then found to within 1e-7 nats or so."""


@dataclass(frozen=True)
class Segment:
    """Consecutive layers: all of them if walked, else those at the collocation points.

    Args:
        layers: The layers. The fields have the shape (length, gains) if walked, else (gains, points).
        stretch: Where they stand in the network.
        rule: Matrices of a smooth segment; None if walked.
    """

    layers: Layer
    stretch: Stretch
    rule: Rule | None = None


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
        accuracy: How exactly segments are solved.
    """

    def __init__(
        self,
        activation: Activation,
        log_gain2: Array,
        width: int,
        distribution: Distribution,
        accuracy: Accuracy,
    ) -> None:
        self.table = layer_table(activation, width, distribution)
        self.log_gain2, self.accuracy = log_gain2, accuracy
        self.walked = self.failed = 0
        self.escaped = np.zeros_like(log_gain2)

    def segments(self, state: State, stretch: Stretch) -> tuple[list[Segment], State]:
        """Returns the segments of a stretch from a state on, and the state after them."""
        beyond = np.abs(state.mean_y) > _BEYOND
        self.escaped = np.where(beyond, np.sign(state.mean_y), self.escaped)
        state = State(np.where(beyond, np.nan, state.mean_y), np.where(beyond, np.nan, state.var_y))
        if stretch.length <= WALKED:
            return self._walk(state, stretch)
        solved = self._solve(state, stretch)
        if solved is not None:
            return [solved[0]], solved[1]
        first, second = stretch.halves()
        segments, state = self.segments(state, first)
        more, state = self.segments(state, second)
        return segments + more, state

    def _walk(self, state: State, stretch: Stretch) -> tuple[list[Segment], State]:
        states = []
        state = State(state.mean_y, np.maximum(state.var_y, 0.0))  # a polynomial may end below 0
        for _ in range(stretch.length):
            states.append(state)
            mean_y, var_y = self.table.advance(*state)
            state = State(mean_y + self.log_gain2, var_y)
        self.walked += stretch.length
        layers = self.table.describe(*np.stack(states, axis=1))
        return [Segment(layers, stretch)], state

    def _solve(self, start: State, stretch: Stretch) -> tuple[Segment, State] | None:
        """Returns the segment and the state after it; None if the state is not smooth in it."""
        points, _, tolerance = self.accuracy
        rule = collocation_rule(stretch, points)
        # Values at the nodes, shape (gains, 2, nodes); the first node is known.
        state = np.repeat(np.stack(start, axis=1)[:, :, None], points + 1, axis=2)
        small = min(100.0 * tolerance, 1e-2)
        for _ in range(_NEWTON_STEPS):
            change = self._newton_step(state, rule)
            state[:, :, 1:] += change
            # Newton's method squares the error: the next change would be below the tolerance.
            if not np.nanmax(np.abs(change / (1.0 + np.abs(state[:, :, 1:]))), initial=0.0) > small:
                break
        at, after = state @ rule.at_checks.T, state @ rule.after_checks.T
        mean_y, var_y = self.table.advance(at[:, 0], np.maximum(at[:, 1], 0.0))
        expected = np.stack([mean_y + self.log_gain2[:, None], var_y], axis=1)
        # The errors of all layers add up; the second part of the tolerance is for rounding.
        error = (np.abs(expected - after) @ rule.check_layers).max(axis=1)
        allowed = (tolerance + 1e-13 * stretch.length) * (1.0 + np.abs(state).max(axis=(1, 2)))
        rough = np.isfinite(start.mean_y) & ~(error <= allowed)
        if rough.any():
            if self.walked < _MOST_WALKED and self.failed < _MOST_FAILED:
                self.failed += 1
                return None
            state[rough] = np.nan
        at = state @ rule.at_points.T
        layer = self.table.describe(at[:, 0], np.maximum(at[:, 1], 0.0))
        return Segment(layer, stretch, rule), State(state[:, 0, -1], state[:, 1, -1])

    def _newton_step(self, state: Array, rule: Rule) -> Array:
        points = self.accuracy.points
        at, after = state @ rule.at_points.T, state @ rule.after_points.T
        following, slopes = self.table.linearize(at[:, 0], np.maximum(at[:, 1], 0.0))
        following[0] += self.log_gain2[:, None]
        # Linear equations for the nodes but the first, shape (gains, 2 * points, 2 * points)
        matrix = -slopes.transpose(2, 0, 1, 3)[..., None] * rule.at_points[:, 1:]
        matrix[:, 0, 0] += rule.after_points[:, 1:]
        matrix[:, 1, 1] += rule.after_points[:, 1:]
        matrix = matrix.transpose(0, 1, 3, 2, 4).reshape(len(state), 2 * points, 2 * points)
        right = (following.transpose(1, 0, 2) - after).reshape(len(state), 2 * points)
        usable = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(right).all(axis=1)
        change = np.full(right.shape, np.nan)
        with suppress(np.linalg.LinAlgError):  # a singular matrix: the state is not smooth
            change[usable] = np.linalg.solve(matrix[usable], right[usable][:, :, None])[:, :, 0]
        return change.reshape(len(state), 2, points)
