"""What zero padding and shared kernels do to a walk through convolutions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit.theory import Activation

from ._moments import NORMAL, Spectrum, correlation_map, normalized_spectrum, slopes_at, values_at

__all__ = ["Window", "count_windows", "edge_share", "effective_fan_in", "padded_window"]

Array: TypeAlias = NDArray[np.float64]
_LAYERS = 40  # after which the correlations of positions hardly change
_POSITIONS = {1: 48, 2: 10, 3: 4}  # of an image's side, by the number of sides; larger images count as these


@dataclass(frozen=True)
class Window:
    """The window of a convolution padded with zeros, of stride one.

    Args:
        sizes: Sizes of the image; None where they vary.
        window: Sizes of the kernel.
        dilations: Steps between the entries of the window.
    """

    sizes: tuple[int | None, ...]
    window: tuple[int, ...]
    dilations: tuple[int, ...]


def padded_window(context: KernelContext) -> Window | None:
    """Returns the window of a convolution that is padded with zeros and keeps the image's size; else None.

    None as well for a window of one position, which reads nothing beyond the edge, as does the center alone.
    """
    layer, shape = context.kernel.layer, context.step.input_shape
    if (
        context.kernel.center is not None
        or not context.kernel.kind.zero_padded
        or shape is None
        or layer.padding != "same"
    ):
        return None
    rank = len(layer.kernel_size)
    # With strides the image shrinks, and no deep chain of equal layers exists.
    if set(_as_tuple(layer.strides, rank)) != {1} or set(layer.kernel_size) == {1}:
        return None
    sizes = shape[1 : 1 + rank] if layer.data_format == "channels_last" else shape[2 : 2 + rank]
    return Window(tuple(sizes), tuple(layer.kernel_size), _as_tuple(layer.dilation_rate, rank))


def count_windows(contexts: Iterable[KernelContext]) -> Counter[Window]:
    """Returns how many kernels of a model have each window."""
    windows = (padded_window(context) for context in contexts)
    return Counter(window for window in windows if window is not None)


def _as_tuple(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def edge_share(window: Window, layers: int) -> float:
    r"""Returns the share of the variance that zero padding leaves, in the mean over a chain of layers.

    Let e be the variance at each position of an image of P positions. A convolution with zeros beyond the
    edge makes it A e, where A is the mean over the window: with all taps in the image a position has the
    mean of its neighbors, at the edge less. Between the first and the last of n layers the gradient passes
    n - 1 kernels. Its norm sums over positions, and it begins evenly spread, as a Dense layer behind the
    last image or a mean over it sends it, so that the share a layer is

        (1^T A^(n - 1) 1 / P)^(1 / (n - 1))

    The same holds of the forward pass. For many layers it tends to the largest eigenvalue of A, from below:
    until variance has gathered in the middle of the image, more is lost (on 8 x 8 positions 0.11 nats of
    `ln|delta|` in all).
    """
    share = 1.0
    for size, width, dilation in zip(window.sizes, window.window, window.dilations, strict=True):
        if size is not None:
            share *= _share_of_line(int(size), int(width), int(dilation), max(layers - 1, 1))
    return share


@lru_cache(maxsize=256)
def _share_of_line(size: int, window: int, dilation: int, steps: int) -> float:
    """Returns `edge_share` of one axis of the image; an image's is the product of its axes'."""
    if window == 1 or size > 512:  # where the edges no longer matter
        return 1.0
    matrix = sum(_shifts(size, window, dilation)) / window
    # In logarithms: thousands of steps would leave the range of floats.
    spread, total = np.ones(size) / size, 0.0
    for _ in range(steps):
        spread = matrix @ spread
        lost = float(spread.sum())
        spread, total = spread / lost, total + math.log(lost)
    return math.exp(total / steps)


def _shifts(size: int, window: int, dilation: int) -> list[Array]:
    """Returns for each tap of a window the matrix that takes it from a line with zeros beyond its ends."""
    # Keras puts an odd zero behind the image.
    before = dilation * (window - 1) // 2
    return [np.eye(size, k=tap * dilation - before) for tap in range(window)]


def effective_fan_in(
    window: Window, channels: int, shared_channels: float, activation: Activation, layers: int
) -> int:
    r"""Returns the fan-in of the Dense kernel whose step of `ln|delta|` has the mean of a convolution's.

    A Dense kernel of fan-in N has steps of relative variance `(3 k - 1) / N = (k - 1 + 2 k) / N`, with
    `k = E f'^4 / (E f'^2)^2`: the first term from the slopes, the other from the weights. A convolution
    applies one kernel at all positions, and `|delta|^2` sums over them. With C channels, weights w of the
    positions (the squared eigenvector of `edge_share`), positions p and q and `m_pq` the correlation of
    their slopes squared, the variance is

        v = (1 / C) [(k - 1) m + 2 k W + 2 (1 - W) (1 + (k - 1) m) R]
        m = sum_pq w_p w_q m_pq,  W = sum_p w_p^2

    - The positions become alike: m follows from the correlations of the pre-activations, which the forward
      pass maps layer by layer, `c'_pq = mean over the taps t of F(c_(p + t)(q + t))`, F the activation's
      correlation map. With ReLU m tends to 0.55 on 8 x 8 positions, where independent slopes in a window of
      nine would have 1/9. This is the larger part: at 8 channels and 40 layers 0.007 nats a layer.
    - R is the mean square of the correlation of the gradients in two windows. A kernel with c channels of its
      own gives two uncorrelated windows the mean square `(1 + (k - 1) m) / c`. Later kernels average over the
      window, which leaves the share r_n, the probability that a walk of 2 n steps within windows returns, and
      slopes leave `s^2`, `s = E f'_p f'_q / E f'^2`: `R = (1 + (k - 1) m) sum_n r_n s^(2 (n - 1)) / c`.

    `E ln z` is `-v / 2` to first order, so that the fan-in is `(3 k - 1) / v`.

    Args:
        window: The window.
        channels: Number of channels C that the kernels read.
        shared_channels: Number of channels c that one output sums over; fewer than C with groups.
        activation: The activation f that feeds the kernel.
        layers: Number of layers of the chain.
    """
    functions, slopes = values_at(activation, NORMAL), slopes_at(activation, NORMAL)
    signal, slope, squares = (
        normalized_spectrum(of_units) for of_units in (functions, slopes, [values**2 for values in slopes])
    )
    if not (any(signal) and any(slope) and squares[0] > 0.0):
        return max(round(shared_channels * math.prod(window.window)), 1)
    # `E f'^4 / (E f'^2)^2`, and 0 for a slope that is the same everywhere
    k = sum(squares) / squares[0]
    variance = (1.0 - squares[0] / sum(squares)) * k
    alike, slopes_alike = _correlation_of_slopes(window, signal, slope, squares, min(max(layers, 1), _LAYERS))
    gradient_growth = 1.0 + variance * alike
    returns = _return_probabilities(window, min(max(layers, 1), _LAYERS))
    shared = (
        gradient_growth * sum(r * slopes_alike ** (2 * n) for n, r in enumerate(returns)) / shared_channels
    )
    positions = math.prod(_participation(size, window.window[i]) for i, size in enumerate(_sizes(window)))
    pairs = (1.0 - positions) * gradient_growth * min(shared, 1.0)
    v = variance * alike + 2.0 * k * positions + 2.0 * pairs
    return max(round((3.0 * k - 1.0) * channels / v), 1)


def _sizes(window: Window) -> tuple[int, ...]:
    largest = _POSITIONS.get(len(window.sizes), 3)
    return tuple(min(size or largest, largest) for size in window.sizes)


@lru_cache(maxsize=64)
def _correlation_of_slopes(
    window: Window, signal: Spectrum, slope: Spectrum, squares: Spectrum, layers: int
) -> tuple[float, float]:
    """Returns the mean correlation m of two positions' squared slopes, and s of their slopes."""
    sizes = _sizes(window)
    positions = math.prod(sizes)
    axes = [
        _shifts(size, width, dilation)
        for size, width, dilation in zip(sizes, window.window, window.dilations, strict=True)
    ]
    weights: Array = np.ones(1)
    for shifts in axes:
        mean = np.sum(shifts, axis=0)
        _, vectors = np.linalg.eigh(mean + mean.T)
        weights = np.kron(weights, vectors[:, -1] ** 2)
    taps = []
    for tap in itertools.product(*axes):
        matrix: Array = np.ones((1, 1))
        for part in tap:
            matrix = np.asarray(np.kron(matrix, part), np.float64)
        # Which position a tap reads, and whether it is in the image
        taps.append((matrix.argmax(axis=1), matrix.any(axis=1)))
    covariance = np.eye(positions)
    means = []
    for _ in range(layers):
        summed = np.zeros_like(covariance)
        for at, inside in taps:
            summed += covariance[np.ix_(at, at)] * np.outer(inside, inside)
        scale = np.sqrt(np.diag(summed))
        correlation = summed / np.outer(scale, scale)
        squared = (correlation_map(squares, correlation) - squares[0]) / max(1.0 - squares[0], 1e-12)
        means.append([weights @ squared @ weights, weights @ correlation_map(slope, correlation) @ weights])
        covariance = np.outer(scale, scale) * correlation_map(signal, correlation)
        covariance /= np.trace(covariance) / positions
    alike, slopes_alike = np.mean(means, axis=0)
    return float(alike), float(slopes_alike)


def _return_probabilities(window: Window, steps: int) -> list[float]:
    """Returns the probabilities that walks of 2, 4, ... steps, uniform within a window, return."""
    returns = np.ones(steps)
    for width in window.window:
        step = np.ones(width) / width
        line = np.ones(1)
        for n in range(steps):
            line = np.convolve(line, step)
            returns[n] *= float(line @ line)
    return [float(value) for value in returns]


def _participation(size: int, window: int) -> float:
    """Returns the sum of the squared weights of the positions of a line; see `effective_fan_in`."""
    if window == 1:
        return 1.0 / size
    sines = np.sin(np.pi * np.arange(1, size + 1) / (size + 1)) ** 2
    return float((sines**2).sum() / sines.sum() ** 2)
