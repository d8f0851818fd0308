"""The search of a learning rate and a scale on two ladders, the same for every network of a study."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["RATES", "SCALES", "climb"]

# Steps of the two ladders: factors of about 3, and of 2
RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SCALES = tuple(2.0**power for power in range(-6, 7))


def climb(cost: Callable[[float, float], float], first_rate: float = 1e-3) -> tuple[float, float]:
    """Returns the rate and the scale with the smallest cost, compared with all four neighbors.

    It climbs from `first_rate` and 1, and fails at the ends, so that the best is at none.

    Args:
        cost: Function of a rate and a scale. It is called once for each pair; NaN counts as infinite.
        first_rate: One of `RATES`, at which the search begins.

    Raises:
        ValueError: The search came to the end of a ladder.
    """
    known: dict[tuple[int, int], float] = {}

    def at(rate: int, scale: int) -> float:
        if (rate, scale) not in known:
            if rate not in range(len(RATES)) or scale not in range(len(SCALES)):
                raise ValueError("The search came to the end of a ladder. Make `RATES` or `SCALES` longer.")
            value = cost(RATES[rate], SCALES[scale])
            known[rate, scale] = value if np.isfinite(value) else np.inf
        return known[rate, scale]

    best = (RATES.index(first_rate), SCALES.index(1.0))
    while True:
        rate, scale = best
        neighbors = [(rate - 1, scale), (rate + 1, scale), (rate, scale - 1), (rate, scale + 1)]
        better = min([best, *neighbors], key=lambda place: at(*place))
        if better == best:
            return RATES[rate], SCALES[scale]
        best = better
