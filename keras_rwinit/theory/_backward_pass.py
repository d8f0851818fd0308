"""Carries the gradient back over layers that were visited one by one."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._layer_table import WEIGHTS, Layer

__all__ = ["BackwardSteps", "Gradient", "carry_back", "initial_gradient"]

Array: TypeAlias = NDArray[np.float64]


class Gradient(NamedTuple):
    """What the backward recursion carries: `t - 1` and `x_df` of the layer above, and its slope."""

    aligned: Array
    x_df: Array
    slope: Array


class BackwardSteps(NamedTuple):
    """What the backward pass found at each of several layers; every field has the shape (layers, gains).

    Args:
        mean: What the layer adds to the mean of `ln|delta|^2`.
        noise: What it adds to the variance of the same, the fluctuation of its own `y` apart.
        slope: Regression coefficient of `ln|delta|^2` on the layer's `y`.
        misalignment: Mean of `|t - 1|`.
    """

    mean: Array
    noise: Array
    slope: Array
    misalignment: Array


def initial_gradient(last: Layer) -> Gradient:
    """Returns the gradient at the last hidden layer, from which the walk is counted."""
    return Gradient(aligned=last.x_df - 1.0, x_df=last.x_df, slope=np.zeros_like(last.mean_y))


def carry_back(layers: Layer, log_gain2: Array, above: Gradient) -> tuple[BackwardSteps, Gradient]:
    """Returns the steps of consecutive layers, and the gradient at the first of them.

    The alignment follows equation (alignment) of the theory page.

    With `y~` the deviation of `y` from its mean, the walk from layer d is
    `b_d y~_d + sum_{e >= d} (step noise_e + b_{e+1} chain noise_e)`; `slope` is `b_d`.

    Args:
        layers: The layers, along the first axis of each field.
        log_gain2: `2 ln gain`, shape (gains,).
        above: The gradient at the layer that follows them.
    """
    # Both recursions; row d + 1 is the layer above row d.
    aligned = np.concatenate([layers.x_df - 1.0, above.aligned[None]])
    slope = np.concatenate([layers.step_slope, above.slope[None]])
    for d in range(len(layers.mean_y) - 1, -1, -1):
        aligned[d] += aligned[d + 1] * layers.alignment[d]
        slope[d] += slope[d + 1] * layers.chain_slope[d]
    x_df = np.concatenate([layers.x_df, above.x_df[None]])
    # Mean: gain and step, then what the alignment of the layer above adds.
    mean = log_gain2 + layers.step_mean
    mean = mean + (aligned[1:] * layers.aligned + (x_df[1:] - 1.0) * layers.skewed) @ WEIGHTS
    noise = (
        layers.step_variance + 2.0 * slope[1:] * layers.covariance + slope[1:] ** 2 * layers.chain_variance
    )
    steps = BackwardSteps(mean, noise, slope[:-1], np.abs(aligned[:-1]) @ WEIGHTS)
    return steps, Gradient(aligned=aligned[0], x_df=x_df[0], slope=slope[0])
