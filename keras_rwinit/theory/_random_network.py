r"""Draws the gradient's walk through random networks exactly, mostly without drawing a weight matrix.

Given `h`, the pre-activations `a = g W h` of normal kernels are independent with variance
`g^2 |h|^2 / n`. Given `a` as well, `W = a h^T / (g |h|^2) + W P`. Here `P` projects onto the complement of
`h`, and `W P` is independent of everything else. With `xi ~ N(0, I)` therefore

    g W^T delta = h (a . delta) / |h|^2 + g |delta| / sqrt(n) * (xi - hhat (hhat . xi)).

An orthogonal kernel maps `hhat` to a uniformly distributed `ahat`, and the complement of `hhat` uniformly
onto the complement of `ahat`. So `g W^T delta` is `hhat g (ahat . delta)` plus a uniformly distributed vector
orthogonal to `h`, whose length makes the sum as long as `g |delta|`. In both cases a sample costs O(depth *
width). With mirrored kernels the network is linear: z and u (see `mirrored`) keep their lengths and their
angle, and each orthogonal kernel turns both to new directions, uniformly. Entries of other distributions have
no such form: there the matrices are drawn, and a sample costs O(depth * width^2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_seed

from ._two_slopes import log_chi_square_mean
from .activation import Activation
from .distributions import Distribution, draw_kernel
from .mirrored import mirrored_level, pair_weight

__all__ = [
    "Chunk",
    "RandomNetwork",
    "chunk_bytes",
    "chunk_sizes",
    "draw_chunks",
    "seeded_generator",
    "simulation_seconds",
]

Array: TypeAlias = NDArray[np.float64]

_CHUNK_BYTES = 32 * 2**20  # of pre-activations, activations and kernels
_VECTORS = 16  # of a layer's width that the computation of one layer takes at a time

# What a layer takes at least, and a weight or, where no matrix is drawn, a unit, measured
_LAYER_SECONDS, _UNIT_SECONDS = 2e-4, 1e-7


@dataclass(frozen=True, kw_only=True)
class RandomNetwork:
    """A network of equal hidden layers with random kernels.

    Args:
        activation: Activation of every hidden layer.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        gain: Gain of the kernels.
        distribution: Distribution of the kernels.
    """

    activation: Activation
    width: int
    depth: int
    gain: float
    distribution: Distribution


@dataclass(frozen=True)
class Chunk:
    """Samples of the walk with their control variates.

    A control variate is the sum over the layers of `ln(|xi|^2 / n)` less its expectation, where the `xi`
    are the normal vectors drawn. It has the shape (samples,) and is zero where matrices are drawn.

    Args:
        log_norm: `ln(|delta_d| / |delta_depth|)`, shape (samples, depth).
        forward_control: Control variate of the vectors drawn in the forward pass.
        backward_control: Control variate of the vectors drawn in the backward pass.
        overflowed: Whether activations or gradient left the floats in any of the networks.
    """

    log_norm: Array
    forward_control: Array
    backward_control: Array
    overflowed: bool = False


def _bytes_per_sample(network: RandomNetwork) -> int:
    """Returns the bytes of all layers of one network, and of a kernel where kernels are drawn."""
    kernel = network.width if network.distribution.structure == "independent" else 0
    return 8 * network.width * (2 * network.depth + kernel)


def chunk_bytes(network: RandomNetwork) -> int:
    """Returns about how many bytes `draw_chunks` takes beside its results."""
    one = _bytes_per_sample(network)
    if network.distribution.structure != "independent":
        one = min(one, _CHUNK_BYTES)
    return one + 8 * _VECTORS * network.width


def simulation_seconds(network: RandomNetwork, samples: int) -> float:
    """Returns about how long it takes to draw so many networks."""
    kernel = network.width if network.distribution.structure == "independent" else 1
    return network.depth * max(_LAYER_SECONDS, _UNIT_SECONDS * samples * network.width * kernel)


def seeded_generator(seed: int | None) -> np.random.Generator:
    """Returns NumPy's generator for a seed of the user's, which may be any integer or None."""
    seed = check_seed(seed)
    return np.random.default_rng(None if seed is None else seed % 2**64)


def chunk_sizes(samples: int, bytes_per_sample: int, limit: int) -> Iterator[int]:
    """Yields how many samples to draw at a time, so that they take at most `limit` bytes."""
    size = max(1, limit // bytes_per_sample)
    for start in range(0, samples, size):
        yield min(size, samples - start)


def draw_chunks(network: RandomNetwork, samples: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Draws the samples in chunks, so that memory stays small at any depth and width."""
    draw: Callable[[RandomNetwork, int, np.random.Generator], Chunk] = _draw_without_matrices
    if network.distribution.mirrored:
        draw = _draw_mirrored
    elif network.distribution.structure == "independent":
        draw = _draw_with_matrices
    for size in chunk_sizes(samples, _bytes_per_sample(network), _CHUNK_BYTES):
        # Dead gradients: log 0 and 0 / 0. Exploding activations: inf, and nan in the walk.
        with np.errstate(all="ignore"):
            chunk = draw(network, size, rng)
        yield chunk


def _norm(vectors: Array) -> Array:
    return np.asarray(np.sqrt(_dot(vectors, vectors)))


def _dot(a: Array, b: Array) -> Array:
    """Returns the product of each vector of `a` with that of `b`, shape (samples, 1)."""
    return np.asarray(np.einsum("sn,sn->s", a, b)[:, None])


def _unit(vectors: Array, length: Array) -> Array:
    return vectors / np.where(length > 0, length, 1.0)


def _activate(activation: Activation, a: Array) -> Array:
    """Returns `f(a)`, for two slopes scaled to a root mean square of one.

    The slopes do not depend on the scale, and without it the activations would leave the floats at great
    depth.
    """
    h = activation.function(a)
    return _unit(h, _norm(h) / np.sqrt(h.shape[1])) if activation.slopes is not None else h


class _Layer(NamedTuple):
    """Pre-activations and activations of one layer, each of shape (samples, width)."""

    a: Array
    h: Array


class _Block(NamedTuple):
    """Consecutive layers of the forward pass.

    Args:
        layers: The layers, in order.
        rms: Root mean square of the activations of the last one, shape (samples, 1).
        control: Control variate of the vectors drawn, shape (samples,).
    """

    layers: list[_Layer]
    rms: Array
    control: Array

    @property
    def finite(self) -> bool:
        """Whether no value has left the floats."""
        return all(np.isfinite(layer.a).all() and np.isfinite(layer.h).all() for layer in self.layers)

    @property
    def ended(self) -> bool:
        """Whether every network has left the floats, so that no further layer was drawn."""
        return not np.isfinite(self.rms).any()


class _BlockStart(NamedTuple):
    """What a block can be drawn from once more: the generator as it was, and the RMS of the inputs."""

    rng: np.random.Generator
    rms: Array


class _Forward:
    """The forward pass of some networks, of whose layers one block at a time is in memory.

    It ends where every network has left the floats.

    Args:
        network: The network.
        count: Number of networks.
        rng: Generator.
    """

    def __init__(self, network: RandomNetwork, count: int, rng: np.random.Generator) -> None:
        self.network = network
        self.control, self.finite, self.ended = np.zeros(count), True, False
        # One block, unless a single network is larger than a chunk.
        self._length = max(1, _CHUNK_BYTES // (16 * network.width * count))
        self._starts: list[_BlockStart] = []
        rms = np.ones((count, 1))
        for first in range(0, network.depth, self._length):
            self._starts.append(_BlockStart(copy.deepcopy(rng), rms))
            block = _draw_block(network, rms, min(self._length, network.depth - first), rng)
            self.control += block.control
            self.finite = self.finite and block.finite
            self.ended = block.ended
            if self.ended:
                break
            rms = block.rms
        self._last = block.layers

    def from_the_last(self) -> Iterator[_Layer]:
        """Yields the layers from the last to the first; draws all blocks but the last one again."""
        yield from reversed(self._last)
        self._last = []
        for start in reversed(self._starts[:-1]):
            yield from reversed(_draw_block(self.network, start.rms, self._length, start.rng).layers)


def _draw_without_matrices(network: RandomNetwork, count: int, rng: np.random.Generator) -> Chunk:
    forward = _Forward(network, count, rng)
    backward_control = np.zeros(count)
    if forward.ended:
        return _overflowed(count)
    slope_at, depth = network.activation.slope_at, network.depth
    layers = forward.from_the_last()
    above = next(layers)
    delta = slope_at(above.a) * rng.standard_normal((count, network.width))
    length = _norm(delta)
    log_norm = _start_log_norm(length, depth)
    for d, layer in zip(range(depth - 2, -1, -1), layers, strict=True):
        xi, control = _draw_vectors(network, count, rng)
        backward_control += control
        back = _propagate_back(network, layer.h, above.a, _unit(delta, length), xi)
        delta = slope_at(layer.a) * back
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
        above = layer
    return Chunk(
        log_norm=log_norm,
        forward_control=forward.control,
        backward_control=backward_control,
        overflowed=not forward.finite or _has_overflowed(log_norm),
    )


def _overflowed(count: int) -> Chunk:
    """Returns a chunk of networks that have all left the floats."""
    none = np.zeros(count)
    return Chunk(np.full((count, 1), np.nan), none, none, overflowed=True)


def _has_overflowed(log_norm: Array) -> bool:
    """Returns whether a gradient became infinite, or nan below the last layer."""
    below = log_norm[np.isfinite(log_norm[:, -1])]
    return bool(np.isposinf(below).any() or np.isnan(below).any())


def _draw_mirrored(network: RandomNetwork, count: int, rng: np.random.Generator) -> Chunk:
    pairs = network.width // 2
    level = mirrored_level(network.activation, network.width, network.depth, network.gain)
    # z is the first axis and u, a random direction, has this cosine with it; each layer turns both.
    start = rng.standard_normal((count, pairs))
    cosine = start[:, :1] / _norm(start)
    log_norm = np.zeros((count, network.depth))
    for d in range(network.depth):
        z, across = rng.standard_normal((2, count, pairs))
        z = _unit(z, _norm(z))
        across = across - z * _dot(z, across)
        u = z * cosine + _unit(across, _norm(across)) * np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
        weight = pair_weight(network.activation, z * np.sqrt(pairs) * np.exp(level[d]))
        log_norm[:, d] = np.log((weight * u * u).sum(axis=1)) / 2.0 - level[d]
    log_norm -= log_norm[:, -1:]
    return Chunk(log_norm=log_norm, forward_control=np.zeros(count), backward_control=np.zeros(count))


def _draw_vectors(network: RandomNetwork, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns normal vectors, and for each `ln(|xi|^2 / n)` less its expectation."""
    width = network.width
    xi = rng.standard_normal((count, width))
    return xi, np.log(_dot(xi, xi)[:, 0] / width) - log_chi_square_mean(width)


def _draw_block(network: RandomNetwork, rms: Array, length: int, rng: np.random.Generator) -> _Block:
    """Draws consecutive layers of networks, the first of whose inputs have a root mean square of `rms`.

    A layer by which every network has left the floats is the last one.
    """
    layers: list[_Layer] = []
    total_control = np.zeros(len(rms))
    for _ in range(length):
        a, control = _draw_vectors(network, len(rms), rng)
        total_control += control
        if network.distribution.orthogonal:
            # An isometry keeps the length.
            a *= np.sqrt(network.width) / _norm(a)
        a *= network.gain * rms
        h = _activate(network.activation, a)
        rms = _norm(h) / np.sqrt(network.width)
        layers.append(_Layer(a, h))
        if not np.isfinite(rms).any():
            break
    return _Block(layers, rms, total_control)


def _propagate_back(network: RandomNetwork, h: Array, a_above: Array, unit: Array, xi: Array) -> Array:
    """Returns `g W^T unit` given `h` and `a_above = g W h`; see the module's docstring.

    For normal kernels it evaluates equation (simulation) of the theory page, for a gradient of length one.
    """
    h_length = _norm(h)
    h_unit = _unit(h, h_length)
    # The part along h is known; the part across it comes from the normal vector xi.
    along = _dot(a_above, unit) / np.where(h_length > 0, h_length, np.inf)
    across = xi - h_unit * _dot(h_unit, xi)
    if network.distribution.orthogonal:
        # NumPy's square is infinite where Python's raises.
        rest = np.maximum(np.square(network.gain) - along**2, 0.0)
        across = _unit(across, _norm(across)) * np.sqrt(rest)
    else:
        across *= network.gain / np.sqrt(network.width)
    return h_unit * along + across


def _start_log_norm(last_length: Array, depth: int) -> Array:
    """Returns the walk before its first step: 0 at the last layer, or nan where no gradient passes that."""
    log_norm = np.zeros((len(last_length), depth))
    log_norm[:, -1] = np.where(last_length[:, 0] > 0, 0.0, np.nan)
    return log_norm


def _draw_with_matrices(network: RandomNetwork, count: int, rng: np.random.Generator) -> Chunk:
    """Draws samples of the walk with the kernels themselves.

    The forward pass computes equation (forward) of the theory page. The backward pass computes
    equation (backward) of the theory page for a gradient that each layer scales to length one.
    """
    slope_at, depth, width = network.activation.slope_at, network.depth, network.width
    entropy = int(rng.integers(2**63))

    def draw_kernels(layer: int) -> Array:
        """Draws a layer's kernels from one seed in both passes; to keep them takes depth times the memory."""
        return _draw_kernels(network, count, np.random.SeedSequence(entropy, spawn_key=(layer,)))

    # Forward
    h = rng.standard_normal((count, width))
    h *= np.sqrt(width) / _norm(h)
    pre_activations: list[Array] = []
    finite = True
    for d in range(depth):
        a = np.einsum("si,sij->sj", h, draw_kernels(d), optimize=True)
        h = _activate(network.activation, a)
        finite = finite and bool(np.isfinite(a).all() and np.isfinite(h).all())
        if not np.isfinite(h).all(axis=1).any():
            return _overflowed(count)
        pre_activations.append(a)
    # Backward
    delta = slope_at(pre_activations[-1]) * rng.standard_normal((count, width))
    length = _norm(delta)
    log_norm = _start_log_norm(length, depth)
    for d in range(depth - 2, -1, -1):
        delta = slope_at(pre_activations[d]) * np.einsum(
            "sj,sij->si", _unit(delta, length), draw_kernels(d + 1), optimize=True
        )
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
    return Chunk(
        log_norm=log_norm,
        forward_control=np.zeros(count),
        backward_control=np.zeros(count),
        overflowed=not finite or _has_overflowed(log_norm),
    )


def _draw_kernels(network: RandomNetwork, count: int, seed: np.random.SeedSequence) -> Array:
    """Returns a kernel for each of `count` networks, shape (count, width, width)."""
    width = network.width
    entries = draw_kernel(network.distribution, np.random.default_rng(seed), width, count * width)
    return network.gain * entries.reshape(width, count, width).transpose(1, 0, 2)
