"""Refines the gain by simulation, for networks too narrow for the expansion in 1 / width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ._analytic_gain import NoGainError, analytic_gain
from ._mean_field import mean_field_walk
from .activations import Activation
from .distributions import Distribution
from .simulation import chunks

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


@dataclass(frozen=True)
class _Network:
    """The network whose gain is refined."""

    activation: Activation
    width: int
    depth: int
    law: Distribution

    def simulate(self, log_gain: float, batch: int = 0) -> _Point:
        """Simulates the mean of the walk; the draws of a batch are the same at every gain."""
        rng = np.random.default_rng(_SEED + batch)
        gain = float(np.exp(log_gain))
        drawn = list(chunks(self.activation, self.width, self.depth, gain, _SAMPLES, self.law, rng))
        total = np.concatenate([chunk.log_norm[:, 0] for chunk in drawn])
        alive = np.isfinite(total)
        if alive.sum() < _SAMPLES // 10:
            raise NoGainError(
                f"{self.activation.name} at width {self.width} and depth {self.depth}: the gradient dies in "
                f"{1.0 - alive.mean():.0%} of the networks. Use a larger width."
            )
        # Regression on the control variates, whose expectation is zero, removes most of the variance.
        total, controls = total[alive], np.concatenate([chunk.controls for chunk in drawn])[alive]
        design = np.column_stack([np.ones(len(total)), controls])
        mean = float(np.linalg.lstsq(design, total, rcond=None)[0][0])
        return _Point(log_gain, mean, float(total.std() / np.sqrt(len(total)) / 2.0))


def refined_gain(activation: Activation, width: int, depth: int, law: Distribution) -> float:
    """Returns the root of the simulated mean of the walk, from draws that are the same at every gain.

    Raises:
        NoGainError: The mean does not change sign within a factor of five of the analytic gain.
    """
    network = _Network(activation, width, depth, law)
    start = network.simulate(np.log(_starting_gain(activation, width, depth, law)))
    below, above = _bracket(network, start)
    # Regula falsi, kept off the ends of the bracket.
    best = min(below, above, key=lambda point: abs(point.mean))
    while abs(best.mean) > best.tolerance:
        share = np.clip(below.mean / (below.mean - above.mean), 0.1, 0.9)
        best = network.simulate(below.log_gain + share * (above.log_gain - below.log_gain))
        below, above = (best, above) if best.mean < 0 else (below, best)
    return float(np.exp(best.log_gain + _correction(network, best)))


def _bracket(network: _Network, start: _Point) -> tuple[_Point, _Point]:
    """Returns a point with a mean below zero and one above, to within their tolerances."""
    below = above = start
    # The walk's mean changes by about depth - 1 times the change of the log-gain.
    step = max(abs(start.mean) / (network.depth - 1), 1e-3)
    while below.mean > below.tolerance or above.mean < -above.tolerance:
        if below.mean > 0:
            above, below = below, network.simulate(below.log_gain - step)
            edge = below.log_gain
        else:
            below, above = above, network.simulate(above.log_gain + step)
            edge = above.log_gain
        step *= 2.0
        if abs(edge - start.log_gain) > np.log(5.0):
            raise NoGainError(
                f"No gain within a factor of five of {np.exp(start.log_gain):.4g} makes the simulated walk "
                f"unbiased for {network.activation.name} at width {network.width} and depth {network.depth}. "
                "Use a larger width or orthogonal kernels."
            )
    return below, above


def _correction(network: _Network, best: _Point) -> float:
    """Returns what to add to the log-gain for the sampling error of the one batch of draws behind it.

    Further batches at the same gain estimate the mean that is left, and the expansion gives its slope.
    """
    around = np.exp(best.log_gain + np.array([-1e-3, 1e-3]))
    walk = mean_field_walk(network.activation, around, network.width, network.depth, network.law)
    low, high = walk.mean[:, 0]
    if not high > low:
        return 0.0
    further = [network.simulate(best.log_gain, batch + 1).mean for batch in range(_FURTHER_BATCHES)]
    correction = -float(np.mean([best.mean, *further])) * 2e-3 / (high - low)
    return float(np.clip(correction, -0.05, 0.05))


def _starting_gain(activation: Activation, width: int, depth: int, law: Distribution) -> float:
    """Returns the analytic gain, at the nearest larger width that has one where `width` has none."""
    try:
        return analytic_gain(activation, width, depth, law)
    except NoGainError as error:
        last = error
    for wider in _WIDTHS_TO_START_FROM:
        if wider > width:
            try:
                return analytic_gain(activation, wider, depth, law)
            except NoGainError as error:
                last = error
    raise last
