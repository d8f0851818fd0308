"""Carries the gradient back over the segments of a very deep network.

The backward recursions of `_mean_field` are linear. In a smooth segment (see `_segments`) they are solved on
the collocation points of the forward chain; in one that is walked they are followed layer by layer. Sums
over the layers of a segment are sums of polynomials over integers, for which the Euler-Maclaurin formula is
exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._mean_field import WEIGHTS
from ._segments import POINTS, Rule, Segment, collocation_points, interpolation_matrix

__all__ = ["Gradient", "Part", "pass_back_smooth", "pass_back_walked"]

Array: TypeAlias = NDArray[np.float64]

_BLOCK = 4096  # layers evaluated at a time


@dataclass(frozen=True)
class Part:
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

    segment: Segment
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
        points = collocation_points(length)
        return np.concatenate(
            [values @ interpolation_matrix(block, points, length - 1).T for block in blocks], axis=1
        )


class Gradient(NamedTuple):
    """What the backward recursion carries: `t - 1` and `x_df` of the layer above, and its slope."""

    aligned: Array
    x_df: Array
    slope: Array


def pass_back_walked(segment: Segment, log_gain2: Array, above: Gradient) -> tuple[Part, Gradient]:
    found = []
    for layer in reversed(segment.layers):
        mean = log_gain2 + layer.step_mean
        mean = mean + (above.aligned * layer.aligned + (above.x_df - 1.0) * layer.skewed) @ WEIGHTS
        noise = layer.step_variance + 2.0 * above.slope * layer.covariance
        noise = noise + above.slope**2 * layer.chain_variance
        above = Gradient(
            aligned=layer.x_df - 1.0 + above.aligned * layer.alignment,
            x_df=layer.x_df,
            slope=layer.step_slope + layer.chain_slope * above.slope,
        )
        misalignment = np.abs(above.aligned) @ WEIGHTS
        found.append((mean, noise, above.slope, layer.mean_y, layer.var_y, misalignment, layer.flat))
    columns = [np.stack(column, axis=1) for column in zip(*reversed(found), strict=True)]
    return Part(segment, *columns), above


def pass_back_smooth(
    segment: Segment, rule: Rule, log_gain2: Array, above: Gradient
) -> tuple[Part, Gradient]:
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
    part = Part(
        segment=segment,
        mean=mean,
        noise=noise,
        slope=slope @ rule.at_points.T,
        mean_y=layer.mean_y,
        var_y=layer.var_y,
        misalignment=np.abs(np.swapaxes(aligned @ rule.at_points.T, 1, 2)) @ WEIGHTS,
        flat=layer.flat,
    )
    first = Gradient(aligned=aligned[..., 0], x_df=layer.x_df[:, 0], slope=slope[..., 0])
    return part, first


def _solve_backward(rule: Rule, factor: Array, added: Array, end: Array) -> Array:
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
    values = np.full((*end.shape, POINTS + 1), np.nan)
    values[usable, :-1] = np.linalg.solve(matrix[usable][..., :-1], right[usable][..., None])[..., 0]
    values[usable, -1] = end[usable]
    return values
