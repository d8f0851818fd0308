"""Divides the layers of a deep network into stretches, in each of which polynomials describe them.

A polynomial in a stretch is one of `Stretch.variable`, which is linear in the logarithm of the distance from
the nearer end of the network. It is known by its values at Chebyshev nodes or, with one degree less, at
collocation points.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

__all__ = ["WALKED", "Rule", "Stretch", "collocation_rule", "divide"]

Array: TypeAlias = NDArray[np.float64]

WALKED = 16
"""Layers at either end of a network that are visited one by one, and length of the shortest segment."""

_LONGEST_SUM = 4096
"""Layers up to which a sum over a segment visits each of them."""


class Stretch(NamedTuple):
    """Consecutive layers of a network, and the variable in which a polynomial describes them.

    Args:
        before: Number of layers before them.
        length: Number of layers.
        after: Number of layers after them.
    """

    before: int
    length: int
    after: int

    @property
    def _near(self) -> int:
        """Distance of the end of the network from which the logarithm is counted."""
        return max(min(self.before, self.after), WALKED)

    @property
    def log_growth(self) -> float:
        """Logarithm of the factor by which that distance grows."""
        return math.log1p(self.length / self._near)

    def variable(self, layer: Array) -> Array:
        """Returns the variable at a layer of the stretch: -1 at layer 0, and 1 at layer `length`."""
        if self.before <= self.after:
            return np.asarray(2.0 * np.log1p(layer / self._near) / self.log_growth - 1.0)
        return np.asarray(1.0 - 2.0 * np.log1p((self.length - layer) / self._near) / self.log_growth)

    def layer(self, variable: Array) -> Array:
        """Returns the layer at which the variable has a value."""
        if self.before <= self.after:
            return np.asarray(self._near * np.expm1((1.0 + variable) / 2.0 * self.log_growth))
        return np.asarray(self.length - self._near * np.expm1((1.0 - variable) / 2.0 * self.log_growth))

    def layers_per_unit(self, variable: Array) -> Array:
        """Returns the derivative of `layer`."""
        share = (1.0 + variable if self.before <= self.after else 1.0 - variable) / 2.0
        return np.asarray(self._near * np.exp(share * self.log_growth) * self.log_growth / 2.0)

    def halves(self) -> tuple[Stretch, Stretch]:
        """Returns two stretches of the same growth."""
        middle = round(float(self.layer(np.zeros(()))))
        rest = self.length - middle
        first = Stretch(self.before, middle, self.after + rest)
        return first, Stretch(self.before + middle, rest, self.after)


def divide(depth: int, growth: float) -> list[Stretch]:
    """Returns stretches of `depth` layers in all: one at each end that is walked, the others growing inwards.

    Args:
        depth: Number of layers, at least `2 * WALKED`.
        growth: Largest factor by which the distance from the nearer end grows in a stretch.
    """
    middle = depth // 2
    count = math.ceil(math.log(middle / WALKED) / math.log(growth))
    first = np.rint(np.geomspace(WALKED, middle, count + 1)).astype(int).tolist()
    edges = [0, *first, *(depth - edge for edge in first[-2::-1]), depth]
    return [Stretch(low, high - low, depth - high) for low, high in pairwise(edges)]


class Rule(NamedTuple):
    """Matrices of a segment, from its nodes or its collocation points to other places in it.

    Args:
        at_points: From the values of a polynomial at the nodes to those at the points.
        after_points: Likewise to those one layer after each point.
        at_checks: Likewise to places between the points.
        after_checks: Likewise to one layer after those.
        check_layers: Number of layers for which each of the first places stands.
        shift: From values at the points to values one layer after each point.
        first: From values at the points to the value at the first layer.
        series: From values at the points to the coefficients of Chebyshev polynomials of the variable.
        weights: From values at the points to the sum over the layers of the segment.
    """

    at_points: Array
    after_points: Array
    at_checks: Array
    after_checks: Array
    check_layers: Array
    shift: Array
    first: Array
    series: Array
    weights: Array


@lru_cache(maxsize=16)
def _node_series(count: int) -> tuple[Array, Array]:
    """Returns Chebyshev nodes and the matrix from values there to coefficients of Chebyshev polynomials."""
    nodes = chebyshev.chebpts2(count)
    return nodes, np.asarray(np.linalg.inv(chebyshev.chebvander(nodes, count - 1)), np.float64)


@lru_cache(maxsize=256)
def collocation_rule(stretch: Stretch, count: int) -> Rule:
    """Returns the matrices of a segment with `count` collocation points."""
    nodes, node_series = _node_series(count + 1)
    last = stretch.variable(np.array(stretch.length - 1.0))
    # The points, and the places between them with both ends
    places = np.concatenate([chebyshev.chebpts1(count), nodes])
    inside = (places + 1.0) * (last + 1.0) / 2.0 - 1.0
    layers = stretch.layer(inside)
    at, after = chebyshev.chebvander(np.stack([inside, stretch.variable(layers + 1.0)]), count)
    series = np.linalg.inv(at[:count, :count])
    return Rule(
        at_points=at[:count] @ node_series,
        after_points=after[:count] @ node_series,
        at_checks=at[count:] @ node_series,
        after_checks=after[count:] @ node_series,
        check_layers=np.diff(np.concatenate([[0.0], layers[:count], [stretch.length]])),
        shift=after[:count, :count] @ series,
        first=at[count, :count] @ series,
        series=series,
        weights=_series_sums(stretch, count) @ series,
    )


@lru_cache(maxsize=1)
def _gauss_rule() -> tuple[Array, Array]:
    """Returns nodes and weights that integrate polynomials of degree 63 from -1 to 1."""
    return np.polynomial.legendre.leggauss(32)


def _series_sums(stretch: Stretch, count: int) -> Array:
    """Returns the sum of each of the first Chebyshev polynomials over the layers of a stretch."""
    if stretch.length <= _LONGEST_SUM:
        places = stretch.variable(np.arange(stretch.length, dtype=np.float64))
        return np.asarray(chebyshev.chebvander(places, count - 1).sum(axis=0))
    # Euler-Maclaurin: the integral, the ends, and the derivatives there, where T_k = (+-1)^k and T_k' is
    # (+-1)^(k+1) k^2. The next term is at most 5e-5, for T_17 in 4,097 layers, and polynomials of a solved
    # segment have small coefficients there.
    places, weights = _gauss_rule()
    integral = weights * stretch.layers_per_unit(places) @ chebyshev.chebvander(places, count - 1)
    k = np.arange(count)
    odd, sign = k % 2, 1.0 - 2.0 * (k % 2)
    first, last = stretch.layers_per_unit(np.array([-1.0, 1.0]))
    return np.asarray(integral - odd + k * k * (1.0 / last + sign / first) / 12.0)
