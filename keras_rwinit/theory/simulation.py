r"""Simulates the gradient's walk exactly, mostly without drawing a weight matrix.

Given `h`, the pre-activations `a = g W h` of normal kernels are independent with variance
`g^2 |h|^2 / n`. Given `a` as well, `W = a h^T / (g |h|^2) + W P`. Here `P` projects onto the complement of
`h`, and `W P` is independent of everything else. With `xi ~ N(0, I)` therefore

    g W^T delta = h (a . delta) / |h|^2 + g |delta| / sqrt(n) * (xi - hhat (hhat . xi)).

An orthogonal kernel maps `hhat` to a uniformly distributed `ahat`, and the complement of `hhat` uniformly
onto the complement of `ahat`. So `g W^T delta` is `hhat g (ahat . delta)` plus a uniformly distributed
vector orthogonal to `h`, whose length makes the sum as long as `g |delta|`. In both cases a sample costs
O(depth * width). Entries of other distributions have no such form: there the matrices are drawn, and a
sample costs O(depth * width^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keras_rwinit._checks import check_count, check_positive, check_seed, deprecate_positional

from ._analytic_gain import analytic_gain
from .activations import Activation, ActivationLike, resolve_activation
from .distributions import Distribution, draw_kernel, resolve_distribution

__all__ = ["Chunk", "chunks", "simulate_walk"]

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
    from above is normally distributed. A sample takes O(depth * width) for normal and orthogonal kernels,
    of which no matrix is drawn, and O(depth * width^2) for all others.

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
        ValueError: An argument is out of range or unknown, or `gain` is None and none exists.

    Example:
        >>> walks = simulate_walk("relu", width=100, depth=50, samples=2000, seed=0)
        >>> walks.shape
        (2000, 50)
        >>> standard_error = walks[:, 0].std() / 2000**0.5
        >>> bool(abs(walks[:, 0].mean()) < 3 * standard_error)
        True
    """
    resolved, law = resolve_activation(activation), resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    samples = check_count("samples", samples)
    if gain is None:
        gain = analytic_gain(resolved, width, max(depth, 2), law)
    else:
        gain = check_positive("gain", gain)
    seed = check_seed(seed)
    rng = np.random.default_rng(None if seed is None else seed % 2**64)
    drawn = chunks(resolved, width, depth, gain, samples, law, rng)
    return np.concatenate([chunk.log_norm for chunk in drawn])


@dataclass(frozen=True)
class Chunk:
    """Samples of the walk with their control variates.

    Args:
        log_norm: `ln(|delta_d| / |delta_depth|)`, shape (samples, depth).
        controls: Sums over the layers of `ln(|xi|^2 / n)`, less the expectation, of the backward draws
            (column 0) and of the forward draws (column 1). Zeros where matrices are drawn.
    """

    log_norm: Array
    controls: Array


def chunks(
    activation: Activation,
    width: int,
    depth: int,
    gain: float,
    samples: int,
    law: Distribution,
    rng: np.random.Generator,
) -> Iterator[Chunk]:
    """Draws the samples in chunks, so that memory stays small at any depth and width."""
    with_matrices = law.structure == "independent"
    per_sample = 8 * width * (2 * depth + (width if with_matrices else 0))
    size = max(1, _CHUNK_BYTES // per_sample)
    draw = _draw_with_matrices if with_matrices else _draw_without_matrices
    for start in range(0, samples, size):
        # Dead gradients: log 0 and 0 / 0. Exploding activations: inf, and nan in the walk.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            chunk = draw(activation, width, depth, gain, min(size, samples - start), law, rng)
        yield chunk


def _norm(vectors: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("sn,sn->s", vectors, vectors))[:, None])


def _unit(vectors: Array, length: Array) -> Array:
    return vectors / np.where(length > 0, length, 1.0)


def _activate(activation: Activation, a: Array) -> Array:
    """Returns `f(a)`, for two slopes scaled to a root mean square of one.

    The slopes do not depend on the scale, and without it the activations would leave the floats at great
    depth.
    """
    h = activation.function(a)
    return _unit(h, _norm(h) / np.sqrt(h.shape[1])) if activation.slopes is not None else h


def _draw_without_matrices(
    activation: Activation,
    width: int,
    depth: int,
    gain: float,
    count: int,
    law: Distribution,
    rng: np.random.Generator,
) -> Chunk:
    # E ln(chi^2_n / n); subtracting it gives the control variates the mean zero.
    expected = float(special.digamma(width / 2) - np.log(width / 2))
    controls = np.zeros((count, 2))

    def draw(control: int) -> Array:
        values = rng.standard_normal((count, width))
        controls[:, control] += np.log(np.einsum("sn,sn->s", values, values) / width) - expected
        return values

    # Forward: pre-activations and activations of every layer.
    layers: list[tuple[Array, Array]] = []
    rms = np.ones((count, 1))
    for _ in range(depth):
        a = draw(1)
        if law.orthogonal:
            # An isometry keeps the length.
            a *= np.sqrt(width) / _norm(a)
        a *= gain * rms
        h = _activate(activation, a)
        rms = _norm(h) / np.sqrt(width)
        layers.append((a, h))

    # Backward: each layer's part along `h` is known, the part across it is drawn.
    a, _ = layers.pop()
    delta = activation.slope_at(a) * rng.standard_normal((count, width))
    length = _norm(delta)
    log_norm = np.zeros((count, depth))
    log_norm[:, -1] = np.where(length[:, 0] > 0, 0.0, np.nan)
    for d in range(depth - 2, -1, -1):
        unit, above = _unit(delta, length), a
        a, h = layers.pop()
        h_length = _norm(h)
        h_unit = _unit(h, h_length)
        along = np.einsum("sn,sn->s", above, unit)[:, None] / np.where(h_length > 0, h_length, np.inf)
        across = draw(0)
        across -= h_unit * np.einsum("sn,sn->s", h_unit, across)[:, None]
        if law.orthogonal:
            across = _unit(across, _norm(across)) * np.sqrt(np.maximum(gain**2 - along**2, 0.0))
        else:
            across *= gain / np.sqrt(width)
        delta = activation.slope_at(a) * (h_unit * along + across)
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
    return Chunk(log_norm, controls)


def _draw_with_matrices(
    activation: Activation,
    width: int,
    depth: int,
    gain: float,
    count: int,
    law: Distribution,
    rng: np.random.Generator,
) -> Chunk:
    # Each layer's kernels are drawn twice from one seed, in the forward and in the backward pass. Keeping
    # them would take depth times the memory.
    seeds = np.random.SeedSequence(rng.integers(2**63)).spawn(depth)

    def kernels(d: int) -> Array:
        entries = draw_kernel(law, np.random.default_rng(seeds[d]), width, count * width)
        return gain * entries.reshape(width, count, width).transpose(1, 0, 2)

    # Forward
    h = rng.standard_normal((count, width))
    h *= np.sqrt(width) / _norm(h)
    layers: list[Array] = []
    for d in range(depth):
        a = np.einsum("si,sij->sj", h, kernels(d), optimize=True)
        layers.append(a)
        h = _activate(activation, a)
    # Backward
    delta = activation.slope_at(layers[-1]) * rng.standard_normal((count, width))
    length = _norm(delta)
    log_norm = np.zeros((count, depth))
    log_norm[:, -1] = np.where(length[:, 0] > 0, 0.0, np.nan)
    for d in range(depth - 2, -1, -1):
        back = np.einsum("sj,sij->si", _unit(delta, length), kernels(d + 1), optimize=True)
        delta = activation.slope_at(layers[d]) * back
        length = _norm(delta)
        log_norm[:, d] = log_norm[:, d + 1] + np.log(length[:, 0])
    return Chunk(log_norm, np.zeros((count, 2)))
