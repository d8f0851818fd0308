"""Finds the gain by simulation, for networks too narrow for the expansion in 1 / width."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ._analytic_gain import NoGainError, analytic_gain, at_nearest_width, narrow_advice
from ._long_walk import walk_totals
from ._random_network import RandomNetwork, draw_chunks
from .activation import Activation
from .distributions import Distribution

__all__ = ["SEED", "Point", "find_root", "refined_gain", "simulate_mean"]

SEED = 1412_6558
"""Seed of every simulation that decides on a gain or a prediction."""

_SAMPLES = 10_000
_FURTHER_BATCHES = 4
_NARROWEST = 1e-9  # bracket of the log-gain
_UNITS_AN_HOUR = 3.6e10  # at about 0.1 microseconds each
_LARGEST_STEP = 0.25  # of the log-gain: far above the root most gradients may die
_WIDTHS_TO_START_FROM = (16, 24, 32, 48, 64)


class Point(NamedTuple):
    """The simulated mean of the walk at a gain, and half its standard error."""

    log_gain: float
    mean: float
    tolerance: float


def simulate_mean(network: RandomNetwork, log_gain: float, samples: int, batch: int = 0) -> Point:
    """Simulates the mean of the walk at a gain; the draws of a batch are the same at every gain."""
    rng = np.random.default_rng(SEED + batch)
    network = replace(network, gain=float(np.exp(log_gain)))
    drawn = list(draw_chunks(network, samples, rng))
    total = np.concatenate([chunk.log_norm[:, 0] for chunk in drawn])
    alive = np.isfinite(total)
    if alive.sum() < samples // 10:
        raise NoGainError(
            f"{network.activation.name} at width {network.width} and depth {network.depth}: the gradient "
            f"dies in {1.0 - alive.mean():.0%} of the networks. Use a larger width."
        )
    mean = float(total[alive].mean())
    if alive.all():
        # Regression on the control variates removes most of the variance. Their expectation is zero over all
        # networks, and not over those that survive.
        backward = np.concatenate([chunk.backward_control for chunk in drawn])
        forward = np.concatenate([chunk.forward_control for chunk in drawn])
        design = np.column_stack([np.ones(len(total)), backward, forward])
        mean = float(np.linalg.lstsq(design, total, rcond=None)[0][0])
    half_error = float(total[alive].std() / np.sqrt(alive.sum()) / 2.0)
    # At width 1 an orthogonal kernel is a sign, and the walk does not spread.
    return Point(log_gain=log_gain, mean=mean, tolerance=max(half_error, 1e-9 * network.depth))


def refined_gain(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the root of the simulated mean of the walk, from draws that are the same at every gain.

    Raises:
        NoGainError: The mean does not change sign within a factor of five of the analytic gain.
        ValueError: The simulation would take more than an hour.
    """
    kernels = width if distribution.structure == "independent" else 1
    hours = _SAMPLES * width * depth * kernels / _UNITS_AN_HOUR
    if hours > 1.0:
        raise ValueError(
            f"`refine=True` simulates {_SAMPLES:,} networks, which takes about {hours:,.0f} hours here. "
            f"Leave it out. Received: width={width}, depth={depth}"
        )
    start_gain = _starting_gain(activation, width, depth, distribution)
    network = RandomNetwork(
        activation=activation, width=width, depth=depth, gain=start_gain, distribution=distribution
    )
    best = find_root(network, _SAMPLES)
    return float(np.exp(best.log_gain + _correction(network, best)))


def find_root(network: RandomNetwork, samples: int) -> Point:
    """Returns a gain near `network.gain` at which the simulated mean is zero within its tolerance."""
    below, above = _bracket(network, simulate_mean(network, np.log(network.gain), samples), samples)
    # Regula falsi, kept off the ends of the bracket.
    best = min(below, above, key=lambda point: abs(point.mean))
    while abs(best.mean) > best.tolerance:
        if above.log_gain - below.log_gain < _NARROWEST:
            raise NoGainError(
                f"{network.activation.name} at width {network.width} and depth {network.depth}: the "
                f"simulated mean of the walk jumps through zero at a gain of {np.exp(best.log_gain):.4g}, "
                f"from {below.mean:.3g} to {above.mean:.3g} nats. Use a larger width."
            )
        share = np.clip(below.mean / (below.mean - above.mean), 0.1, 0.9)
        log_gain = below.log_gain + share * (above.log_gain - below.log_gain)
        best = simulate_mean(network, log_gain, samples)
        below, above = (best, above) if best.mean < 0 else (below, best)
    return best


def _bracket(network: RandomNetwork, start: Point, samples: int) -> tuple[Point, Point]:
    """Returns a point with a mean below zero and one above, to within their tolerances."""
    below = above = start
    # The walk's mean changes by about depth - 1 times the change of the log-gain.
    step = float(np.clip(abs(start.mean) / (network.depth - 1), 1e-3, _LARGEST_STEP))
    while below.mean > below.tolerance or above.mean < -above.tolerance:
        if below.mean > 0:
            above, below = below, simulate_mean(network, below.log_gain - step, samples)
            edge = below.log_gain
        else:
            below, above = above, simulate_mean(network, above.log_gain + step, samples)
            edge = above.log_gain
        step = min(2.0 * step, _LARGEST_STEP)
        if abs(edge - start.log_gain) > np.log(5.0):
            raise NoGainError(
                f"No gain within a factor of five of {np.exp(start.log_gain):.4g} makes the simulated walk "
                f"unbiased for {network.activation.name} at width {network.width} and depth {network.depth}. "
                + narrow_advice(network.distribution)
            )
    return below, above


def _correction(network: RandomNetwork, best: Point) -> float:
    """Returns the correction of the log-gain for the sampling error of the one batch that gave it.

    Further batches at the same gain estimate the mean that is left, and the expansion gives its slope.
    """
    around = np.exp(best.log_gain + np.array([-1e-3, 1e-3]))
    walk = walk_totals(network.activation, around, network.width, network.depth, network.distribution)
    low, high = walk.mean
    if not high > low:
        return 0.0
    further = [
        simulate_mean(network, best.log_gain, _SAMPLES, batch + 1).mean for batch in range(_FURTHER_BATCHES)
    ]
    correction = -float(np.mean([best.mean, *further])) * 2e-3 / (high - low)
    return float(np.clip(correction, -0.05, 0.05))


def _starting_gain(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the analytic gain, at the nearest larger width that has one where `width` has none."""
    return at_nearest_width(
        lambda tried: analytic_gain(activation, tried, depth, distribution), width, _WIDTHS_TO_START_FROM
    )
