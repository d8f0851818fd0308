"""Predicts unseen pixels of the photographs without a network: how much the fitted pixels say of them.

python examples/images/interpolate_pixels.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from _photographs import NAMES, Array, Photograph, load, psnr
from _sine_networks import phase_correlation
from numpy.typing import NDArray

# The table of results and the options are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, parse_options

__all__ = ["KERNELS", "LENGTHS", "METHODS", "NOISES", "filter_neighbors", "krige", "main", "predict"]

# Correlation of brightness as a function of the squared distance over the squared length
Kernel: TypeAlias = Callable[[Array], Array]

KERNELS: dict[str, Kernel] = {
    "exponential kernel": lambda squared: np.exp(-np.sqrt(squared)),
    "Gaussian kernel": lambda squared: np.exp(-squared / 2.0),
    "kernel of 20 layers with phases": lambda squared: phase_correlation(20, squared / 2.0),
}
DISTANCES = {"filter of 4 neighbors": 1, "filter of 16 neighbors": 2}  # of the neighbors, in fitted pixels
METHODS = ("linear", "cubic spline", *KERNELS, *DISTANCES)
# Lengths in pixels, noise as a share of the variance; a noise of 0 may be the best
LENGTHS = tuple(2.0**power for power in range(8))
NOISES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_JITTER = 1e-8  # the Gaussian kernel of neighboring pixels is singular in float64


def krige(photograph: Photograph, kernel: Kernel, length: float, noise: float) -> Array:
    """Returns all pixels as the mean of a Gaussian process, given the fitted ones.

    It is `m + k K^-1 (u - m)`, with the mean m and the values u of the fitted pixels, their correlations K
    with the noise on its diagonal, and their correlations k with all pixels.

    Args:
        photograph: The photograph.
        kernel: Function of the squared distance over the squared length.
        length: Length in pixels.
        noise: Variance of noise at the fitted pixels, as a share of the variance of the process.
    """
    fitted = photograph.fitted.ravel()
    squared = _squared_distances(photograph)
    # Whole numbers: the kernel is computed once for each.
    correlations = kernel(np.arange(squared.max() + 1) / length**2)[squared]
    own = correlations[fitted] + (noise + _JITTER) * np.eye(int(fitted.sum()))
    values = photograph.pixels.ravel()[fitted]
    mean = values.mean()
    found: Array = mean + correlations @ np.linalg.solve(own, values - mean)
    return found.reshape(photograph.pixels.shape)


@functools.lru_cache(maxsize=1)
def _squared_distances(photograph: Photograph) -> NDArray[np.int64]:
    """Returns the squared distances of all pixels from the fitted ones, in pixels."""
    places = np.indices(photograph.pixels.shape).reshape(2, -1).T
    fitted = places[photograph.fitted.ravel()]
    return ((places[:, None] - fitted[None]) ** 2).sum(axis=-1)


def filter_neighbors(photograph: Photograph, reach: int) -> Array:
    """Returns all pixels as weighted sums of the fitted ones next to them, and a constant.

    Pixels in a row of fitted ones, in a column of them, and in neither have weights of their own: those with
    the smallest squared error at the searched pixels. No other method knows more than the fitted pixels.

    Args:
        photograph: The photograph.
        reach: 1 for the nearest 2 rows or columns of fitted pixels, 2 for 4.
    """
    found = photograph.pixels.copy()
    for row, column in ((0, 1), (1, 0), (1, 1)):
        neighbors = _neighbors(photograph, row, column, reach)
        place = np.s_[row::2, column::2]
        learned = photograph.searched[place].ravel()
        values = photograph.pixels[place].ravel()
        weights = np.linalg.lstsq(neighbors[learned], values[learned], rcond=None)[0]
        found[place] = (neighbors @ weights).reshape(found[place].shape)
    return found


def _neighbors(photograph: Photograph, row: int, column: int, reach: int) -> Array:
    """Returns a row for each pixel of a parity: the fitted pixels around it, and 1."""
    fitted = photograph.pixels[::2, ::2]
    padded = np.pad(fitted, reach, mode="edge")
    # An even row has a fitted row on it and the same number on both sides.
    steps = [range(1 - reach, reach + odd) for odd in (row, column)]
    size = len(fitted)
    columns = [
        padded[reach + down : reach + down + size, reach + right : reach + right + size].ravel()
        for down, right in itertools.product(*steps)
    ]
    return np.stack([*columns, np.ones(size * size)], axis=1)


def predict(photograph: Photograph, method: str) -> tuple[Array, Row]:
    """Returns all pixels as a method of `METHODS` predicts them, and its settings.

    Length and noise of a kernel are those with the smallest error at the searched pixels.
    """
    if method in KERNELS:
        return _search_kernel(photograph, KERNELS[method])
    settings: Row = {"length": "", "noise": ""}
    if method.startswith("filter"):
        return filter_neighbors(photograph, DISTANCES[method]), settings
    return photograph.interpolate(3 if method == "cubic spline" else 1), settings


def _search_kernel(photograph: Photograph, kernel: Kernel) -> tuple[Array, Row]:
    def cost(settings: Row) -> float:
        errors = krige(photograph, kernel, **settings) - photograph.pixels
        return float(np.mean(errors[photograph.searched] ** 2))

    pairs = itertools.product(LENGTHS, NOISES)
    settings = min(({"length": length, "noise": noise} for length, noise in pairs), key=cost)
    at_end = settings["length"] in (LENGTHS[0], LENGTHS[-1]) or settings["noise"] == NOISES[-1]
    if at_end:
        raise ValueError(
            f"The best length and noise must be inside their ladders, and are {settings}. "
            "Make `LENGTHS` or `NOISES` longer."
        )
    return krige(photograph, kernel, **settings), settings


def measure(run: Row) -> Row:
    """Returns the PSNR of a method in dB, and its difference from linear interpolation at held-out pixels.

    The standard error of the difference is that of the mean over pixels of the difference of squared errors,
    as if pixels were independent.
    """
    photograph = load(run["photograph"], run["size"])
    found, settings = predict(photograph, run["method"])
    at = photograph.held_out
    squared = (found - photograph.pixels)[at] ** 2
    linear = (photograph.interpolate() - photograph.pixels)[at] ** 2
    error = np.std(squared - linear, ddof=1) / math.sqrt(squared.size) / squared.mean()
    return {
        **settings,
        "searched_db": psnr((found - photograph.pixels)[photograph.searched]),
        "held_out_db": psnr((found - photograph.pixels)[at]),
        "gained_db": float(10.0 * np.log10(linear.mean() / squared.mean())),
        "error_db": float(10.0 / math.log(10.0) * error),
    }


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table and returns its rows."""
    experiment: Experiment = parse_options("interpolation", __doc__, arguments)
    size = 16 if experiment.quick else 64
    names = NAMES[:1] if experiment.quick else NAMES
    runs = [
        {"photograph": name, "size": size, "method": method}
        for name, method in itertools.product(names, METHODS)
    ]
    return experiment.run(runs, measure)


if __name__ == "__main__":
    main()
