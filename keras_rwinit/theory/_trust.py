"""Says where the expansion in 1 / width is checked by simulation, and with how many networks."""

from __future__ import annotations

from .activation import Activation
from .distributions import Distribution

__all__ = ["LARGEST_SHARE", "is_narrow", "networks_for_check", "possible_drift"]

LARGEST_SHARE = 0.25
"""Drift that the expansion may leave, as a share of the walk's spread, before a simulation replaces it."""

# The expansion leaves out terms of order depth / width^2. `benchmarks/expansion_region.py` measures them:
# from width 64 on they are below the limit above at depths up to 300 (relu6 excepted).
_WIDE = 64
_SECOND_ORDER = 0.05
_NATS = 8.0  # times depth / width^2: the largest drift measured, of hard_sigmoid at width 16

_MOST_WORK = 4_000_000  # units of all networks, each of which takes about 0.1 microseconds
_FEWEST, _MOST = 50, 500


def is_narrow(activation: Activation, width: int, depth: int, distribution: Distribution) -> bool:
    """Returns whether terms of second order in 1 / width may matter for a walk that is not exact."""
    if activation.slopes is not None or distribution.mirrored:
        return False
    return width < _WIDE and depth > _SECOND_ORDER * width**2


def networks_for_check(width: int, depth: int, distribution: Distribution) -> int:
    """Returns how many networks are simulated in less than a second; 0 if they are too few to judge by."""
    kernels = width if distribution.structure == "independent" else 1
    affordable = _MOST_WORK // (width * depth * kernels)
    return min(affordable, _MOST) if affordable >= _FEWEST else 0


def possible_drift(width: int, depth: int) -> float:
    """Returns the drift in nats that the expansion may leave in a narrow network, from what was measured."""
    return _NATS * depth / width**2
