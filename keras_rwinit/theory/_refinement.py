"""Refines the gain by simulation, for networks too narrow for the expansion in 1 / width."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ._analytic_gain import NoGainError, analytic_gain
from ._mean_field import mean_field_walk
from .activations import Activation
from .distributions import Distribution
from .simulation import RandomNetwork, draw_chunks

__all__ = ["refined_gain"]

_SAMPLES = 10_000
_SEED = 1412_6558
_FURTHER_BATCHES = 4
_WIDTHS_TO_START_FROM = (16, 24, 32, 48, 64)


class _Point(NamedTuple):
    """The simulated mean of the walk at a gain, and half its standard error."""

    log_gain: float
    mean: float
    tolerance: float


def _simulate(network: RandomNetwork, log_gain: float, batch: int = 0) -> _Point:
    """Simulates the mean of the walk at a gain; the draws of a batch are the same at every gain."""
    rng = np.random.default_rng(_SEED + batch)
    network = replace(network, gain=float(np.exp(log_gain)))
    drawn = list(draw_chunks(network, _SAMPLES, rng))
    total = np.concatenate([chunk.log_norm[:, 0] for chunk in drawn])
    alive = np.isfinite(total)
    if alive.sum() < _SAMPLES // 10:
        raise NoGainError(
            f"{network.activation.name} at width {network.width} and depth {network.depth}: the gradient "
            f"dies in {1.0 - alive.mean():.0%} of the networks. Use a larger width."
        )
    # Regression on the control variates, whose expectation is zero, removes most of the variance.
    backward = np.concatenate([chunk.backward_control for chunk in drawn])
    forward = np.concatenate([chunk.forward_control for chunk in drawn])
    design = np.column_stack([np.ones(len(total)), backward, forward])[alive]
    total = total[alive]
    intercept = float(np.linalg.lstsq(design, total, rcond=None)[0][0])
    half_error = float(total.std() / np.sqrt(len(total)) / 2.0)
    return _Point(log_gain=log_gain, mean=intercept, tolerance=half_error)


def refined_gain(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the root of the simulated mean of the walk, from draws that are the same at every gain.

    Raises:
        NoGainError: The mean does not change sign within a factor of five of the analytic gain.
    """
    start_gain = _starting_gain(activation, width, depth, distribution)
    network = RandomNetwork(
        activation=activation, width=width, depth=depth, gain=start_gain, distribution=distribution
    )
    start = _simulate(network, np.log(start_gain))
    below, above = _bracket(network, start)
    # Regula falsi, kept off the ends of the bracket.
    best = min(below, above, key=lambda point: abs(point.mean))
    while abs(best.mean) > best.tolerance:
        share = np.clip(below.mean / (below.mean - above.mean), 0.1, 0.9)
        best = _simulate(network, below.log_gain + share * (above.log_gain - below.log_gain))
        below, above = (best, above) if best.mean < 0 else (below, best)
    return float(np.exp(best.log_gain + _correction(network, best)))


def _bracket(network: RandomNetwork, start: _Point) -> tuple[_Point, _Point]:
    """Returns a point with a mean below zero and one above, to within their tolerances."""
    below = above = start
    # The walk's mean changes by about depth - 1 times the change of the log-gain.
    step = max(abs(start.mean) / (network.depth - 1), 1e-3)
    while below.mean > below.tolerance or above.mean < -above.tolerance:
        if below.mean > 0:
            above, below = below, _simulate(network, below.log_gain - step)
            edge = below.log_gain
        else:
            below, above = above, _simulate(network, above.log_gain + step)
            edge = above.log_gain
        step *= 2.0
        if abs(edge - start.log_gain) > np.log(5.0):
            raise NoGainError(
                f"No gain within a factor of five of {np.exp(start.log_gain):.4g} makes the simulated walk "
                f"unbiased for {network.activation.name} at width {network.width} and depth {network.depth}. "
                "Use a larger width or orthogonal kernels."
            )
    return below, above


def _correction(network: RandomNetwork, best: _Point) -> float:
    """Returns the correction of the log-gain for the sampling error of the one batch that gave it.

    Further batches at the same gain estimate the mean that is left, and the expansion gives its slope.
    """
    around = np.exp(best.log_gain + np.array([-1e-3, 1e-3]))
    walk = mean_field_walk(network.activation, around, network.width, network.depth, network.distribution)
    low, high = walk.mean[:, 0]
    if not high > low:
        return 0.0
    further = [_simulate(network, best.log_gain, batch + 1).mean for batch in range(_FURTHER_BATCHES)]
    correction = -float(np.mean([best.mean, *further])) * 2e-3 / (high - low)
    return float(np.clip(correction, -0.05, 0.05))


def _starting_gain(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the analytic gain, at the nearest larger width that has one where `width` has none."""
    try:
        return analytic_gain(activation, width, depth, distribution)
    except NoGainError as error:
        last = error
    for wider in _WIDTHS_TO_START_FROM:
        if wider > width:
            try:
                return analytic_gain(activation, wider, depth, distribution)
            except NoGainError as error:
                last = error
    raise last
