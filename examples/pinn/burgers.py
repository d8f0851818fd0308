"""Physics-informed networks on Burgers' equation with a shock.

python examples/pinn/burgers.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

from collections.abc import Sequence

from _comparison import Plan, Row, compare

NETWORKS = ("walk, sines", "near_identity, sines", "glorot")
PLANS = (Plan(8, NETWORKS, points=512, steps=1000, iterations=200, seeds=3),)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns the rows behind the results."""
    return compare("burgers", PLANS, __doc__, arguments)


if __name__ == "__main__":
    main()
