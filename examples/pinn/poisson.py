"""Physics-informed networks on Poisson's equation in one dimension.

python examples/pinn/poisson.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

from collections.abc import Sequence

from _comparison import Plan, Row, compare

NETWORKS = (
    "walk, sines",
    "near_identity, sines",
    "glorot, sines",
    "gated, sines",
    "walk",
    "near_identity",
    "glorot",
    "adaptive",
)
FEW = ("walk, sines", "near_identity, sines", "glorot, sines", "near_identity")
PLANS = (
    Plan(4, FEW, points=64, steps=1000, iterations=200, seeds=5),
    Plan(20, NETWORKS, points=64, steps=1000, iterations=200, seeds=5),
)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns the rows behind the results."""
    return compare("poisson", PLANS, __doc__, arguments)


if __name__ == "__main__":
    main()
