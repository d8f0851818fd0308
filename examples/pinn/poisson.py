"""Physics-informed networks on Poisson's equation in one dimension.

python examples/pinn/poisson.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

from collections.abc import Sequence

from _comparison import Plan, Row, compare

NETWORKS = (
    "mirrored, sines",
    "mirrored slow, sines",
    "walk, sines",
    "near_identity, sines",
    "glorot, sines",
    "gated, sines",
    "walk",
    "near_identity",
    "glorot",
    "adaptive",
)
ALL_SINES = ("walk, all sines", "siren", "siren, signal")
AT_4 = ("mirrored, sines", "walk, sines", "near_identity, sines", "glorot, sines", "near_identity")
PLANS = (
    Plan(4, AT_4, points=64, steps=1000, iterations=200, seeds=10),
    Plan(20, NETWORKS, points=64, steps=1000, iterations=200, seeds=10),
    Plan(20, ALL_SINES, points=64, steps=1000, iterations=200, seeds=5),
    Plan(40, NETWORKS, points=64, steps=1000, iterations=200, seeds=10),
)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns the rows behind the results."""
    return compare("poisson", PLANS, __doc__, arguments)


if __name__ == "__main__":
    main()
