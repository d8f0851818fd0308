"""Rules for expectations over normal variables of many variances at once.

The function is evaluated once, at the nodes of Gauss-Legendre rules on panels of `|a|` that grow with it and
whose edges include the kinks. Every variance weights these nodes by its own normal density.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["LOG_VARIANCE", "SCALE", "NormalQuadrature"]

Array: TypeAlias = NDArray[np.float64]

LOG_VARIANCE = np.arange(-200, 161) / 10.0
SCALE = np.exp(LOG_VARIANCE / 2.0)
_REACH = 9.0  # standard deviations of x; what lies beyond weighs 2e-19
_ROWS = 7
"""Log-variances of the grid over which the standard deviation grows as much as from one panel to the next."""

# Panels from less than the smallest standard deviation of a to beyond the reach of the largest
_EDGES = np.append(0.0, np.exp(_ROWS / 20.0 * np.arange(-32, 31)))
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_BLOCK = 64  # rows of weights at a time


def _panel_weights(low: Array, size: Array) -> Array:
    """Returns the normal density at the nodes of panels times their weights, along a new last axis.

    Args:
        low: Lower edge of each panel, in standard deviations.
        size: Size of each, likewise.
    """
    half = size[..., None] / 2.0
    x = low[..., None] + half * (1.0 + _NODES)
    return np.asarray(
        np.where(x < _REACH, np.exp(-0.5 * x * x), 0.0) * half * _WEIGHTS / np.sqrt(2.0 * np.pi)
    )


@lru_cache(maxsize=1)
def _weights_of_edges() -> Array:
    """Returns the weights of all panels of `_EDGES` but the first, shape (rows, nodes, panels).

    They depend only on how much the panel has grown more than the standard deviation, so that all rows are
    windows of one array.
    """
    panels, rows = len(_EDGES) - 2, len(SCALE)
    growth = (np.arange(_ROWS * (panels - 1) + rows) - rows + 1) / 20.0
    low = _EDGES[1] / SCALE[0] * np.exp(growth)
    windows = sliding_window_view(
        _panel_weights(low, low * np.expm1(_ROWS / 20.0)), _ROWS * (panels - 1) + 1, axis=0
    )
    return windows[::-1, :, ::_ROWS]


class NormalQuadrature:
    """Rules for expectations over a normal variable, one for each log-variance of the grid.

    Args:
        kinks: Where the integrand is not smooth.
    """

    def __init__(self, kinks: tuple[float, ...]) -> None:
        edges = np.unique(np.append(_EDGES, np.fmin(np.abs(kinks), _EDGES[-1])))
        low, size = edges[:-1], np.diff(edges)
        self.a = low + size * (1.0 + _NODES[:, None]) / 2.0
        """Nodes of `|a|`, shape (nodes, panels)."""
        # Most panels are those of `_EDGES`: the first one and those that a kink divides are not.
        panel = np.searchsorted(_EDGES, low, side="right") - 1
        self._whole = (panel > 0) & (size == np.diff(_EDGES)[panel])
        self._panel = panel[self._whole] - 1
        low, size = low[~self._whole], size[~self._whole]
        weights = _panel_weights(low / SCALE[:, None], size / SCALE[:, None])
        self._other = weights.swapaxes(1, 2).reshape(len(SCALE), -1)

    def mean(self, values: Array) -> Array:
        """Returns the expectation for each log-variance of values at the nodes, along a last axis."""
        weights, count = _weights_of_edges(), values.shape[-1]
        whole = np.zeros((*weights.shape[1:], count))
        whole[:, self._panel] = values[:, self._whole]
        mean = self._other @ values[:, ~self._whole].reshape(-1, count)
        # In blocks: the weights of all rows are megabytes.
        for first in range(0, len(mean), _BLOCK):
            block = weights[first : first + _BLOCK]
            mean[first : first + _BLOCK] += block.reshape(len(block), -1) @ whole.reshape(-1, count)
        return np.asarray(mean)
