"""What several tests of `keras_rwinit.theory` share: standard errors and brute-force networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]


def drift_in_standard_errors(first_layer: Array) -> float:
    """Mean of column 0 of a simulation, in standard errors; networks whose gradient died left out."""
    alive = first_layer[np.isfinite(first_layer)]
    return float(alive.mean() / alive.std(ddof=1) * np.sqrt(len(alive)))


def std_relative_error(values: Array) -> float:
    """Standard error of `values.std()`, relative to it: sqrt((kurtosis - 1) / (4 n))."""
    deviation = values - values.mean()
    kurtosis = (deviation**4).mean() / (deviation**2).mean() ** 2
    return float(np.sqrt((kurtosis - 1.0) / (4.0 * len(values))))


def draw_matrices(rng: np.random.Generator, count: int, width: int, distribution: str) -> Array:
    """`count` kernels of shape (width, width), entries of variance 1 / width."""
    if distribution == "uniform":
        return rng.uniform(-1.0, 1.0, (count, width, width)) * np.sqrt(3.0 / width)
    entries = rng.standard_normal((count, width, width))
    if distribution == "normal":
        return entries / np.sqrt(width)
    q, r = np.linalg.qr(entries)
    return q * np.sign(np.einsum("sii->si", r))[:, None, :]


def brute_force_walk(
    functions: tuple[Function, Function],
    width: int,
    depth: int,
    gain: float,
    samples: int,
    distribution: str,
    seed: int,
) -> Array:
    """`ln(|delta_d| / |delta_depth|)`, shape (samples, depth), from networks with real matrices.

    Nothing but the definition: `h = f(a)`, `a = g W h`, `delta = f'(a) * (g W^T delta)`, one input of
    squared norm `width` and one normal vector from above for each network.
    """
    function, derivative = functions
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, width))
    h = x * np.sqrt(width) / np.linalg.norm(x, axis=1, keepdims=True)
    kernels, layers = [], []
    for _ in range(depth):
        kernels.append(gain * draw_matrices(rng, samples, width, distribution))
        layers.append(np.einsum("sij,sj->si", kernels[-1], h))
        h = function(layers[-1])
    delta = derivative(layers[-1]) * rng.standard_normal((samples, width))
    norms = [np.linalg.norm(delta, axis=1)]
    for d in range(depth - 2, -1, -1):
        delta = derivative(layers[d]) * np.einsum("sij,si->sj", kernels[d + 1], delta)
        norms.insert(0, np.linalg.norm(delta, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):  # dead gradients: log 0 and 0 / 0
        return np.asarray(np.log(np.stack(norms, axis=1) / norms[-1][:, None]))
