"""The gain polished by simulation, where the expansion in 1 / width is not enough."""

from __future__ import annotations

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


def refined_gain(activation: Activation, width: int, depth: int, law: Distribution) -> float:
    """Root of the simulated mean of the walk, over draws that stay the same from gain to gain.

    Raises:
        NoGainError: The mean does not change sign within a factor of five of the analytic gain.
    """
    start = np.log(_starting_gain(activation, width, depth, law))

    def mean_and_tolerance(log_gain: float, batch: int = 0) -> tuple[float, float]:
        rng = np.random.default_rng(_SEED + batch)
        drawn = list(chunks(activation, width, depth, float(np.exp(log_gain)), _SAMPLES, law, rng))
        total = np.concatenate([chunk.log_norm[:, 0] for chunk in drawn])
        alive = np.isfinite(total)
        if alive.sum() < _SAMPLES // 10:
            raise NoGainError(
                f"{activation.name} at width {width} and depth {depth}: the gradient dies in "
                f"{1.0 - alive.mean():.0%} of the networks. Use a larger width."
            )
        total, controls = total[alive], np.concatenate([chunk.controls for chunk in drawn])[alive]
        design = np.column_stack([np.ones(len(total)), controls])
        mean = float(np.linalg.lstsq(design, total, rcond=None)[0][0])
        return mean, float(total.std() / np.sqrt(len(total)) / 2.0)

    below = above = (start, *mean_and_tolerance(start))
    step = max(abs(below[1]) / (depth - 1), 1e-3)
    while below[1] > below[2] or above[1] < -above[2]:
        if below[1] > 0:
            above, edge = below, below[0] - step
            below = (edge, *mean_and_tolerance(edge))
        else:
            below, edge = above, above[0] + step
            above = (edge, *mean_and_tolerance(edge))
        step *= 2.0
        if abs(edge - start) > np.log(5.0):
            raise NoGainError(
                f"No gain within a factor of five of {np.exp(start):.4g} makes the simulated walk "
                f"unbiased for {activation.name} at width {width} and depth {depth}. "
                "Use a larger width or orthogonal kernels."
            )
    best = min(below, above, key=lambda point: abs(point[1]))
    while abs(best[1]) > best[2]:
        share = np.clip(below[1] / (below[1] - above[1]), 0.1, 0.9)
        middle = below[0] + share * (above[0] - below[0])
        best = (middle, *mean_and_tolerance(middle))
        below, above = (best, above) if best[1] < 0 else (below, best)
    # The root of one batch of draws is off by that batch's sampling error; further batches at the same
    # gain, and the expansion's slope there, take most of it away.
    around = np.exp(best[0] + np.array([-1e-3, 1e-3]))
    low, high = mean_field_walk(activation, around, width, depth, law).mean[:, 0]
    means = [best[1], *(mean_and_tolerance(best[0], batch + 1)[0] for batch in range(_FURTHER_BATCHES))]
    correction = -float(np.mean(means)) * 2e-3 / (high - low) if high > low else 0.0
    return float(np.exp(best[0] + np.clip(correction, -0.05, 0.05)))


def _starting_gain(activation: Activation, width: int, depth: int, law: Distribution) -> float:
    """The analytic gain, from the nearest larger width that has one where `width` has none."""
    for wider in (width, 16, 24, 32, 48, 64):
        if wider >= width:
            try:
                return analytic_gain(activation, wider, depth, law)
            except NoGainError as error:
                last = error
    raise last
