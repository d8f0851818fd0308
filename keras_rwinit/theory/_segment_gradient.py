"""Carries the gradient back over the segments of a very deep network.

The recursions of `_backward_pass` are linear. In a smooth segment (see `_segments`) they are solved on the
collocation points of the forward chain; in one that is walked they are followed layer by layer. Sums over the
layers of a segment are sums of its polynomials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from ._backward_pass import Gradient, carry_back
from ._collocation import Rule
from ._layer_table import WEIGHTS
from ._segments import Segment

__all__ = ["LAYER_FIELDS", "Part", "pass_back_smooth", "pass_back_walked"]

Array: TypeAlias = NDArray[np.float64]

_BLOCK = 4096  # layers evaluated at a time
LAYER_FIELDS = ("mean", "noise", "slope", "mean_y", "var_y", "misalignment", "flat")
"""The fields of a `Part` that have a value for each layer."""


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

    def at_layers(self) -> dict[str, Array]:
        """Returns the fields at all layers, of shape (length,), for the first gain."""
        fields = {name: getattr(self, name)[0] for name in LAYER_FIELDS}
        if self.segment.rule is None:
            return fields
        # The higher coefficients vanish where the chain has settled.
        values = np.stack(list(fields.values()), axis=1)
        coefficients = self.segment.rule.series @ values
        large = np.abs(coefficients) > 1e-16 * np.abs(values).max(axis=0)
        degree = int(np.flatnonzero(large.any(axis=1)).max(initial=0))
        stretch = self.segment.stretch
        at = np.empty((stretch.length, len(fields)))
        for first in range(0, stretch.length, _BLOCK):
            block = np.arange(first, min(first + _BLOCK, stretch.length), dtype=np.float64)
            wanted = chebyshev.chebvander(stretch.variable(block), degree)
            at[first : first + _BLOCK] = wanted @ coefficients[: degree + 1]
        return dict(zip(fields, at.T, strict=True))


def pass_back_walked(segment: Segment, log_gain2: Array, above: Gradient) -> tuple[Part, Gradient]:
    layers = segment.layers
    steps, first = carry_back(layers, log_gain2, above)
    part = Part(
        segment=segment,
        mean=steps.mean.T,
        noise=steps.noise.T,
        slope=steps.slope.T,
        mean_y=layers.mean_y.T,
        var_y=layers.var_y.T,
        misalignment=steps.misalignment.T,
        flat=layers.flat.T,
    )
    return part, first


def pass_back_smooth(
    segment: Segment, rule: Rule, log_gain2: Array, above: Gradient
) -> tuple[Part, Gradient]:
    layer = segment.layers
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
    first = Gradient(aligned=aligned[..., 0], x_df=rule.first @ layer.x_df, slope=slope[..., 0])
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
    values = np.full((*end.shape, matrix.shape[-1]), np.nan)
    values[usable, :-1] = np.linalg.solve(matrix[usable][..., :-1], right[usable][..., None])[..., 0]
    values[usable, -1] = end[usable]
    return values
