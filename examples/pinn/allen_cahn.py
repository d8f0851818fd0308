"""Physics-informed networks on the Allen-Cahn equation.

python examples/pinn/allen_cahn.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

from collections.abc import Sequence

from _comparison import Plan, Row, compare

NETWORKS = ("mirrored, sines", "walk, sines", "near_identity, sines", "gated, sines", "glorot")
PLANS = (Plan(8, NETWORKS, points=512, steps=1000, iterations=5000, seeds=5, search_iterations=200),)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns the rows behind the results."""
    return compare("allen_cahn", PLANS, __doc__, arguments)


if __name__ == "__main__":
    main()
