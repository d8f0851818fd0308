r"""Draws the correlation of two inputs' activations through random networks exactly.

Given the activations h1, h2 of two inputs, the pre-activations of the next layer under a normal kernel are
independent pairs of normal variables with the Gram matrix `g^2 / n (h1.h1, h1.h2; h1.h2, h2.h2)`. So only
the two lengths and the angle pass from a layer to the next, and with u, v two vectors of independent normal
entries

    a1 = g r1 u,    a2 = g r2 (cos(theta) u + sin(theta) v),    r_i = |h_i| / sqrt(n).

An orthogonal kernel takes two orthonormal vectors to two orthonormal vectors, uniformly: u and v are then
made orthogonal and of length sqrt(n). No matrix is drawn, and a sample costs O(depth * width). With
mirrored kernels (see `mirrored`) lengths and angle of the pairs' pre-activations z never change, and each
layer turns both z to new directions, uniformly. Kernels of independent entries of any other distribution
are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._random_network import RandomNetwork, chunk_sizes
from .activation import Activation
from .distributions import draw_kernel
from .mirrored import mirrored_level

__all__ = ["draw_correlations", "pair_bytes"]

Array: TypeAlias = NDArray[np.float64]

_CHUNK_BYTES = 16 * 2**20
_VECTORS = 10  # of a layer's width that a sample takes at a time


def pair_bytes(network: RandomNetwork) -> int:
    """Returns about how many bytes one sample takes while it is drawn."""
    kernel = network.width if network.distribution.structure == "independent" else 0
    return 8 * network.width * (_VECTORS + 2 * kernel)


def draw_correlations(
    network: RandomNetwork, correlation: float, samples: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Yields the correlation of the activations at every layer, in arrays of shape (some samples, depth).

    It is nan from the layer on that passes nothing of an input.

    Raises:
        ValueError: The activations leave the floating-point numbers.
    """
    draw: Callable[[RandomNetwork, float, int, np.random.Generator], Array] = _draw_pairs
    if network.distribution.mirrored:
        draw = _draw_mirrored_pairs
    elif network.distribution.structure == "independent":
        draw = _draw_with_matrices
    for size in chunk_sizes(samples, pair_bytes(network), _CHUNK_BYTES):
        # Dead activations: 0 / 0
        with np.errstate(all="ignore"):
            drawn = draw(network, correlation, size, rng)
        # A function may give numbers for the nan of a dead layer.
        drawn[np.logical_or.accumulate(np.isnan(drawn), axis=1)] = np.nan
        yield drawn


class _Pair(NamedTuple):
    """Two vectors, each of root mean square one, and their lengths and angle; fields of shape (samples, 1).

    Args:
        rms: Root mean square of each.
        cosine: Their correlation.
        sine: Sine of the angle between them, exact for close vectors too.
    """

    rms: tuple[Array, Array]
    cosine: Array
    sine: Array


def _compare(h1: Array, h2: Array) -> _Pair:
    # Powers of two are exact, and keep the squares within the floats.
    exponents = [np.frexp(np.abs(h).max(axis=1, keepdims=True))[1] for h in (h1, h2)]
    h1, h2 = (np.ldexp(h, -exponent) for h, exponent in zip((h1, h2), exponents, strict=True))
    length1, length2 = (np.sqrt(np.einsum("sn,sn->s", h, h))[:, None] for h in (h1, h2))
    unit1, unit2 = h1 / length1, h2 / length2
    cosine = np.einsum("sn,sn->s", unit1, unit2)[:, None]
    across = unit2 - cosine * unit1
    sine = np.sqrt(np.einsum("sn,sn->s", across, across))[:, None]
    root = np.sqrt(h1.shape[1])
    rms1, rms2 = (
        np.ldexp(length / root, exponent)
        for length, exponent in zip((length1, length2), exponents, strict=True)
    )
    return _Pair((rms1, rms2), np.clip(cosine, -1.0, 1.0), np.minimum(sine, 1.0))


def _check_range(network: RandomNetwork, before: _Pair, activations: tuple[Array, Array]) -> None:
    """Raises ValueError if activations of two inputs that passed the layer before are not finite."""
    passed = np.isfinite(before.cosine[:, 0])
    if not all(np.isfinite(h[passed]).all() for h in activations):
        raise ValueError(
            f"The activations of {network.activation.name} leave the floating-point numbers over `depth`="
            f"{network.depth} layers at `gain`={network.gain:.4g}. Use a smaller gain or fewer layers."
        )


def _start(correlation: float, count: int) -> _Pair:
    cosine = np.full((count, 1), correlation)
    return _Pair((np.ones((count, 1)), np.ones((count, 1))), cosine, np.sqrt(1.0 - cosine**2))


def _orthonormal(u: Array, v: Array) -> tuple[Array, Array]:
    """Returns two orthogonal vectors with a root mean square of one, in the plane of u and v."""
    root = np.sqrt(u.shape[1])
    u = u * (root / np.linalg.norm(u, axis=1, keepdims=True))
    if u.shape[1] == 1:  # one dimension has no second direction
        return u, np.zeros_like(v)
    v = v - u * (np.einsum("sn,sn->s", u, v)[:, None] / u.shape[1])
    return u, v * (root / np.linalg.norm(v, axis=1, keepdims=True))


def _scaled(activation: Activation, pair: _Pair) -> tuple[Array, Array]:
    """Returns the root mean squares; ones for two slopes, whose scale has no effect but may overflow."""
    return pair.rms if activation.slopes is None else (np.ones_like(pair.cosine), np.ones_like(pair.cosine))


def _draw_pairs(network: RandomNetwork, correlation: float, count: int, rng: np.random.Generator) -> Array:
    activation, width = network.activation, network.width
    pair, drawn = _start(correlation, count), np.empty((count, network.depth))
    for d in range(network.depth):
        u, v = rng.standard_normal((2, count, width))
        if network.distribution.orthogonal:
            u, v = _orthonormal(u, v)
        rms1, rms2 = _scaled(activation, pair)
        h1 = activation.function(network.gain * rms1 * u)
        h2 = activation.function(network.gain * rms2 * (pair.cosine * u + pair.sine * v))
        _check_range(network, pair, (h1, h2))
        pair = _compare(h1, h2)
        drawn[:, d] = pair.cosine[:, 0]
    return drawn


def _draw_mirrored_pairs(
    network: RandomNetwork, correlation: float, count: int, rng: np.random.Generator
) -> Array:
    pairs, function = network.width // 2, network.activation.function
    level = mirrored_level(network.activation, network.width, network.depth, network.gain)
    start, drawn = _start(correlation, count), np.empty((count, network.depth))
    for d in range(network.depth):
        u, v = _orthonormal(*rng.standard_normal((2, count, pairs)))
        both = []
        for z in (u, start.cosine * u + start.sine * v):
            z = z * np.exp(level[d])
            # A unit without a partner reads what the first one reads.
            both.append(function(np.concatenate([z, -z, z[:, : network.width % 2]], axis=1)))
        _check_range(network, start, (both[0], both[1]))
        drawn[:, d] = _compare(*both).cosine[:, 0]
    return drawn


def _draw_with_matrices(
    network: RandomNetwork, correlation: float, count: int, rng: np.random.Generator
) -> Array:
    width = network.width
    start, drawn = _start(correlation, count), np.empty((count, network.depth))
    u, v = _orthonormal(*rng.standard_normal((2, count, width)))
    h = np.stack([u, start.cosine * u + start.sine * v])
    pair = start
    for d in range(network.depth):
        kernels = draw_kernel(network.distribution, rng, width, count * width).reshape(width, count, width)
        h = network.activation.function(network.gain * np.einsum("psi,isj->psj", h, kernels, optimize=True))
        _check_range(network, pair, (h[0], h[1]))
        pair = _compare(h[0], h[1])
        drawn[:, d] = pair.cosine[:, 0]
        if network.activation.slopes is not None:
            h = h / np.stack(pair.rms)
    return drawn
