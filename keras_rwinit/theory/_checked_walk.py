"""Predicts the walk by the expansion in 1 / width, or by simulation where the expansion is off."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._long_walk import walk_layers, walk_totals
from ._mean_field import MISALIGNMENT_LIMIT
from ._random_network import RandomNetwork, draw_chunks
from ._refinement import SEED
from ._trust import LARGEST_SHARE, is_narrow, networks_for_check
from .activation import Activation
from .distributions import Distribution
from .memo import cache_by_value

__all__ = ["WalkMoments", "checked_spread", "checked_walk", "expanded_spread"]

Array: TypeAlias = NDArray[np.float64]

_STD_RATIO = 1.25
"""Factor by which the predicted standard deviation may be off."""

_DEAD = 0.05
"""Error of the probability of dying that is allowed."""

_FEWEST_ALIVE = 30


class WalkMoments(NamedTuple):
    """Mean and standard deviation of `ln(|delta_d| / |delta_depth|)`, and how many gradients die.

    Args:
        mean: Mean over the networks whose gradient lives, shape (depth,).
        std: Standard deviation over the same.
        dead: Probability that some layer passes no gradient.
    """

    mean: Array
    std: Array
    dead: float


@cache_by_value(maxsize=256)
def checked_walk(
    activation: Activation, width: int, depth: int, gain: float, distribution: Distribution
) -> WalkMoments:
    """Returns the walk of the expansion, unless simulated networks contradict it.

    In narrow networks (see `_trust`), and where the gradient lines up with the pre-activations, some hundred
    simulated networks check mean and standard deviation at the first layer and the share that dies. Where
    one of them is off by more than `LARGEST_SHARE` of a standard deviation, `_STD_RATIO` or `_DEAD`, and by
    more than three standard errors, all three are the simulation's.
    """
    walk = walk_layers(activation, gain, width, depth, distribution)
    # The layers are taken to die independently of each other.
    expanded = WalkMoments(walk.mean[0], walk.std[0], 1.0 - float(np.prod(1.0 - walk.dead[0])))
    aligned = not walk.misalignment.max() <= MISALIGNMENT_LIMIT  # nan counts as aligned
    samples = networks_for_check(width, depth, distribution)
    if depth < 2 or not samples or not (aligned or is_narrow(activation, width, depth, distribution)):
        return expanded
    network = RandomNetwork(
        activation=activation, width=width, depth=depth, gain=gain, distribution=distribution
    )
    simulated = _simulate(network, samples)
    return expanded if simulated is None or _agree(expanded, simulated, samples) else simulated


def checked_spread(
    activation: Activation, width: int, depth: int, gain: float, distribution: Distribution
) -> float:
    """Returns the standard deviation of `checked_walk` at the first layer.

    Its memory does not grow with the depth where nothing is simulated.
    """
    with np.errstate(all="ignore"):
        walk = walk_totals(activation, np.array([gain]), width, depth, distribution)
    aligned = not walk.misalignment[0] <= MISALIGNMENT_LIMIT
    checked = aligned or is_narrow(activation, width, depth, distribution)
    if checked and networks_for_check(width, depth, distribution):
        return float(checked_walk(activation, width, depth, gain, distribution).std[0])
    return float(walk.std[0])


def expanded_spread(
    activation: Activation, width: int, depth: int, gain: float, distribution: Distribution
) -> float:
    """Returns what `checked_spread` does, without any simulation."""
    with np.errstate(all="ignore"):
        return float(walk_totals(activation, np.array([gain]), width, depth, distribution).std[0])


def _simulate(network: RandomNetwork, samples: int) -> WalkMoments | None:
    """Returns the walk of simulated networks; None if it leaves the floats or hardly any gradient lives."""
    chunks = []
    for chunk in draw_chunks(network, samples, np.random.default_rng(SEED)):
        if chunk.overflowed:
            return None
        chunks.append(chunk.log_norm)
    walks = np.concatenate(chunks)
    alive = walks[np.isfinite(walks[:, 0])]
    if len(alive) < _FEWEST_ALIVE:
        return None
    return WalkMoments(alive.mean(axis=0), alive.std(axis=0), 1.0 - len(alive) / samples)


def _agree(expanded: WalkMoments, simulated: WalkMoments, samples: int) -> bool:
    """Returns whether the expansion is as good as the simulation can tell."""
    alive = samples * (1.0 - simulated.dead)
    mean, std = float(simulated.mean[0]), float(simulated.std[0])
    mean_error = LARGEST_SHARE * std + 3.0 * std / np.sqrt(alive) + 0.02 * abs(mean)
    std_factor = _STD_RATIO + 3.0 / np.sqrt(2.0 * alive)
    dead_error = _DEAD + 3.0 * np.sqrt(simulated.dead * (1.0 - simulated.dead) / samples)
    # A walk that hardly spreads has no spread worth comparing.
    small = 1e-6 * len(expanded.mean)
    return bool(
        abs(mean - expanded.mean[0]) <= mean_error + small
        and expanded.std[0] <= std_factor * std + small
        and std <= std_factor * expanded.std[0] + small
        and abs(simulated.dead - expanded.dead) <= dead_error
    )
