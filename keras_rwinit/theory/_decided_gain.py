"""Decides on the gain: by the expansion in 1 / width, or by simulation where that fails or is off."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from ._analytic_gain import NoGainError, UndecidedGainError, analytic_gain, leaves_range
from ._long_walk import walk_totals
from ._random_network import RandomNetwork
from ._refinement import find_root, simulate_mean
from ._trust import LARGEST_SHARE, is_narrow, networks_for_check, possible_drift
from .activation import Activation
from .distributions import Distribution
from .memo import cache_by_value

__all__ = ["Decision", "decide_gain", "decided_gain"]

_SAMPLES = 2_000
_LARGEST_NETWORK = 1_000  # units in all layers of a network that is searched without a gain to start from


class Decision(NamedTuple):
    """A gain and what speaks against it.

    Args:
        gain: The gain.
        doubt: Why it may leave a drift; None if it is exact, or if nothing is known against it.
    """

    gain: float
    doubt: str | None = None


def decided_gain(activation: Activation, width: int, depth: int | None, distribution: Distribution) -> float:
    """Returns the gain of `decide_gain`; UserWarning if there is a doubt about it."""
    gain, doubt = decide_gain(activation, width, depth, distribution)
    if doubt is not None:
        warnings.warn(
            f"The gain {gain:.5g} of {activation.name} at width {width} and depth {depth:,} with "
            f"{distribution.name} kernels: {doubt}",
            UserWarning,
            stacklevel=3,
        )
    return gain


@cache_by_value(maxsize=4096)
def decide_gain(
    activation: Activation, width: int, depth: int | None, distribution: Distribution
) -> Decision:
    """Returns `gain` of checked arguments; a depth of None is the limit of great depth.

    In narrow networks (see `_trust`) some hundred simulated ones check the gain of the expansion. It is
    kept unless they drift by more than a quarter of their spread.
    """
    try:
        found = analytic_gain(activation, width, depth, distribution)
    except UndecidedGainError as error:
        searched = None
        if depth is not None and error.start is not None:
            searched = _search(activation, width, depth, distribution, error.start)
        if searched is None:
            raise
        return Decision(searched)
    if depth is None or not is_narrow(activation, width, depth, distribution):
        return Decision(found)
    samples = networks_for_check(width, depth, distribution)
    if not samples:
        return Decision(
            found,
            "it is of first order in 1 / width, and a simulation that checks it would take too long. The "
            f"gradient's log-norm may drift by as much as {possible_drift(width, depth):.2g} nats. "
            "`keras_rwinit.gain(..., refine=True)` simulates it all the same.",
        )
    network = RandomNetwork(
        activation=activation, width=width, depth=depth, gain=found, distribution=distribution
    )
    return _check(network, samples)


def _search(
    activation: Activation, width: int, depth: int, distribution: Distribution, start: float
) -> float | None:
    """Returns the gain that 2,000 simulated networks find near `start`.

    Returns None if they find none, if the gain lets the activations leave their range, or if the simulation
    would take more than a second or two: the network is large, or its kernels have to be drawn.
    """
    if width * depth > _LARGEST_NETWORK or distribution.structure == "independent":
        return None
    network = RandomNetwork(
        activation=activation, width=width, depth=depth, gain=start, distribution=distribution
    )
    return _root(network, _SAMPLES)


def _check(network: RandomNetwork, samples: int) -> Decision:
    """Returns the network's gain if simulated networks do not drift at it, else the one they find."""
    try:
        point = simulate_mean(network, np.log(network.gain), samples)
    except NoGainError as error:  # most gradients die
        return Decision(network.gain, str(error))
    standard_error = 2.0 * point.tolerance
    spread = standard_error * np.sqrt(samples)
    if abs(point.mean) <= LARGEST_SHARE * spread + 3.0 * standard_error:
        return Decision(network.gain)
    root = _root(network, samples)
    if root is not None:
        return Decision(root)
    return Decision(
        network.gain, f"simulated networks drift by {point.mean:+.2g} nats, and no better gain is found."
    )


def _root(network: RandomNetwork, samples: int) -> float | None:
    """Returns the root of the simulated mean; None if there is none or the activations leave their range."""
    try:
        found = float(np.exp(find_root(network, samples).log_gain))
    except NoGainError:
        return None
    with np.errstate(all="ignore"):
        walk = walk_totals(
            network.activation, np.array([found]), network.width, network.depth, network.distribution
        )
    return None if leaves_range(float(walk.log_variance_change[0]), network.depth) else found
