r"""Simulates the gradient's walk exactly, mostly without drawing a weight matrix.

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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keras_rwinit._checks import check_count, check_positive, check_seed, deprecate_positional
from keras_rwinit._memory import check_fits

from ._analytic_gain import analytic_gain
from ._moments import apply_elementwise
from .activations import Activation, ActivationLike, resolve_activation
from .distributions import Distribution, draw_kernel, resolve_distribution
from .mirrored import check_mirrored, mirrored_level, pair_weight

__all__ = ["Chunk", "RandomNetwork", "draw_chunks", "simulate_walk"]

Array: TypeAlias = NDArray[np.float64]

_CHUNK_BYTES = 32 * 2**20  # of pre-activations, activations and kernels


@deprecate_positional("gain", "samples", "distribution", "seed")
def simulate_walk(
    activation: ActivationLike,
    width: int,
    depth: int,
    *,
    gain: float | None = None,
    samples: int = 1000,
    distribution: str = "normal",
    seed: int | None = None,
) -> Array:
    r"""Draws the gradient's log-norm at every hidden layer of random networks, exactly.

    Each sample is an independent network. Its input has `|x|^2` equal to its fan-in, and the gradient
    from above is normally distributed (that of a mirrored kernel has passed one more of its kind). A sample
    takes O(depth * width) for normal, orthogonal and mirrored kernels, of which no matrix is drawn, and
    O(depth * width^2) for all others.

    Args:
        activation: Name, NumPy callable or `Activation`; see `resolve_activation`.
        width: Units of a hidden layer, at least 1.
        depth: Number of hidden layers, at least 1.
        gain: Gain of the kernels. `None`: `keras_rwinit.gain` of the other arguments.
        samples: Number of networks, at least 1.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.
        seed: Seed of NumPy's generator. `None`: other networks at each call.

    Returns:
        `ln(|delta_d| / |delta_depth|)` in nats, float64, shape (samples, depth). Column 0 is the first
        hidden layer, the last column is 0. Where a gradient dies, its row is -inf from there down
        to the first layer; a row is nan if no gradient passes the last layer.

    Raises:
        ValueError: An argument is out of range or unknown, `gain` is None and none exists, the activations
            leave the floating-point numbers, or the result does not fit into this machine's memory.

    Example:
        >>> walks = simulate_walk("relu", width=100, depth=50, samples=2000, seed=0)
        >>> walks.shape
        (2000, 50)
        >>> standard_error = walks[:, 0].std() / 2000**0.5
        >>> bool(abs(walks[:, 0].mean()) < 3 * standard_error)
        True
    """
    resolved_activation = resolve_activation(activation)
    resolved_distribution = resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    samples = check_count("samples", samples)
    per_network = 8 * width * (2 * depth + (width if resolved_distribution.structure == "independent" else 0))
    needed = 16 * samples * depth + per_network
    check_fits(needed, f"A simulation of `samples`={samples:,}, `width`={width:,} and `depth`={depth:,}")
    if gain is None:
        gain = analytic_gain(resolved_activation, width, max(depth, 2), resolved_distribution)
    else:
        gain = check_positive("gain", gain)
    if resolved_distribution.mirrored:
        check_mirrored(resolved_activation, width)
    seed = check_seed(seed)
    rng = np.random.default_rng(None if seed is None else seed % 2**64)
    network = RandomNetwork(
        activation=resolved_activation,
        width=width,
        depth=depth,
        gain=gain,
        distribution=resolved_distribution,
    )
    if not resolved_activation.constant:
        probe = np.linspace(-2.0, 2.0, 28)[None]
        for function in (resolved_activation.function, resolved_activation.slope_at):
            apply_elementwise(resolved_activation, function, probe)
    chunks = []
    for chunk in draw_chunks(network, samples, rng):
        if chunk.overflowed:
            raise ValueError(
                f"The activations or the gradient of {resolved_activation.name} leave the floating-point "
                f"numbers over `depth`={depth} layers at `gain`={gain:.4g}. Use a smaller gain or fewer "
                "layers."
            )
        chunks.append(chunk.log_norm)
    return np.concatenate(chunks)


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


def draw_chunks(network: RandomNetwork, samples: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Draws the samples in chunks, so that memory stays small at any depth and width."""
    width, depth = network.width, network.depth
    with_matrices = network.distribution.structure == "independent"
    per_sample = 8 * width * (2 * depth + (width if with_matrices else 0))
    size = max(1, _CHUNK_BYTES // per_sample)
    if network.distribution.mirrored:
        draw = _draw_mirrored
    else:
        draw = _draw_with_matrices if with_matrices else _draw_without_matrices
    for start in range(0, samples, size):
        # Dead gradients: log 0 and 0 / 0. Exploding activations: inf, and nan in the walk.
        with np.errstate(all="ignore"):
            chunk = draw(network, min(size, samples - start), rng)
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


def _draw_without_matrices(network: RandomNetwork, count: int, rng: np.random.Generator) -> Chunk:
    layers, forward_control = _draw_forward(network, count, rng)
    backward_control = np.zeros(count)
    slope_at, depth = network.activation.slope_at, network.depth
    delta = slope_at(layers[-1].a) * rng.standard_normal((count, network.width))
    length = _norm(delta)
    log_norm = _start_log_norm(length, depth)
    for d in range(depth - 2, -1, -1):
        xi, control = _draw_vectors(network, count, rng)
        backward_control += control
        back = _propagate_back(network, layers[d].h, layers[d + 1].a, _unit(delta, length), xi)
        delta = slope_at(layers[d].a) * back
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
    overflowed = not all(np.isfinite(layer.a).all() and np.isfinite(layer.h).all() for layer in layers)
    return Chunk(
        log_norm=log_norm,
        forward_control=forward_control,
        backward_control=backward_control,
        overflowed=overflowed or _has_overflowed(log_norm),
    )


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
    # E ln(chi^2_n / n)
    expected = float(special.digamma(width / 2) - np.log(width / 2))
    return xi, np.log(_dot(xi, xi)[:, 0] / width) - expected


def _draw_forward(network: RandomNetwork, count: int, rng: np.random.Generator) -> tuple[list[_Layer], Array]:
    """Returns the layers of `count` networks and the control variate of the vectors drawn for them."""
    layers: list[_Layer] = []
    total_control = np.zeros(count)
    rms = np.ones((count, 1))
    for _ in range(network.depth):
        a, control = _draw_vectors(network, count, rng)
        total_control += control
        if network.distribution.orthogonal:
            # An isometry keeps the length.
            a *= np.sqrt(network.width) / _norm(a)
        a *= network.gain * rms
        h = _activate(network.activation, a)
        rms = _norm(h) / np.sqrt(network.width)
        layers.append(_Layer(a, h))
    return layers, total_control


def _propagate_back(network: RandomNetwork, h: Array, a_above: Array, unit: Array, xi: Array) -> Array:
    """Returns `g W^T unit` given `h` and `a_above = g W h`; see the module's docstring."""
    h_length = _norm(h)
    h_unit = _unit(h, h_length)
    # The part along h is known; the part across it comes from the normal vector xi.
    along = _dot(a_above, unit) / np.where(h_length > 0, h_length, np.inf)
    across = xi - h_unit * _dot(h_unit, xi)
    if network.distribution.orthogonal:
        across = _unit(across, _norm(across)) * np.sqrt(np.maximum(network.gain**2 - along**2, 0.0))
    else:
        across *= network.gain / np.sqrt(network.width)
    return h_unit * along + across


def _start_log_norm(last_length: Array, depth: int) -> Array:
    """Returns the walk before its first step: 0 at the last layer, or nan where no gradient passes that."""
    log_norm = np.zeros((len(last_length), depth))
    log_norm[:, -1] = np.where(last_length[:, 0] > 0, 0.0, np.nan)
    return log_norm


def _draw_with_matrices(network: RandomNetwork, count: int, rng: np.random.Generator) -> Chunk:
    slope_at, depth, width = network.activation.slope_at, network.depth, network.width
    # Each layer's kernels are drawn twice from one seed, in the forward and in the backward pass. Keeping
    # them would take depth times the memory.
    seeds = np.random.SeedSequence(rng.integers(2**63)).spawn(depth)
    # Forward
    h = rng.standard_normal((count, width))
    h *= np.sqrt(width) / _norm(h)
    pre_activations: list[Array] = []
    for seed in seeds:
        a = np.einsum("si,sij->sj", h, _draw_kernels(network, count, seed), optimize=True)
        pre_activations.append(a)
        h = _activate(network.activation, a)
    # Backward
    delta = slope_at(pre_activations[-1]) * rng.standard_normal((count, width))
    length = _norm(delta)
    log_norm = _start_log_norm(length, depth)
    for d in range(depth - 2, -1, -1):
        kernels = _draw_kernels(network, count, seeds[d + 1])
        delta = slope_at(pre_activations[d]) * np.einsum(
            "sj,sij->si", _unit(delta, length), kernels, optimize=True
        )
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
    overflowed = not all(np.isfinite(a).all() for a in pre_activations) or not np.isfinite(h).all()
    return Chunk(
        log_norm=log_norm,
        forward_control=np.zeros(count),
        backward_control=np.zeros(count),
        overflowed=overflowed or _has_overflowed(log_norm),
    )


def _draw_kernels(network: RandomNetwork, count: int, seed: np.random.SeedSequence) -> Array:
    """Returns a kernel for each of `count` networks, shape (count, width, width)."""
    width = network.width
    entries = draw_kernel(network.distribution, np.random.default_rng(seed), width, count * width)
    return network.gain * entries.reshape(width, count, width).transpose(1, 0, 2)
