"""`simulate_walk`: the walk of the gradient's log-norm in random networks, drawn exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_positive, deprecate_positional
from keras_rwinit._limits import check_duration, check_fits

from ._decided_gain import decided_gain
from ._random_network import RandomNetwork, chunk_bytes, draw_chunks, seeded_generator, simulation_seconds
from .activation import ActivationLike
from .activation_names import resolve_activation
from .distributions import resolve_distribution
from .mirrored import check_mirrored

__all__ = ["simulate_walk"]

Array: TypeAlias = NDArray[np.float64]


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

    The networks follow equation (forward) of the theory page. Their gradients follow equation (backward) of
    the theory page, and with normal kernels each step is drawn by equation (simulation) of the theory page.

    Each sample is an independent network. Its input has `|x|^2` equal to its fan-in, and the gradient
    from above is normally distributed (that of a mirrored kernel has passed one more of its kind). A sample
    takes O(depth * width) for normal, orthogonal and mirrored kernels, of which no matrix is drawn, and
    O(depth * width^2) for all others.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
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
            leave the floating-point numbers, the result does not fit into this machine's memory, or it would
            take more than an hour.

    Example:
        >>> walks = simulate_walk("relu", width=100, depth=50, samples=2000, seed=0)
        >>> walks.shape
        (2000, 50)
        >>> standard_error = walks[:, 0].std() / 2000**0.5
        >>> bool(abs(walks[:, 0].mean()) < 3 * standard_error)
        True
    """
    resolved_activation = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    samples = check_count("samples", samples)
    network = RandomNetwork(
        activation=resolved_activation,
        width=width,
        depth=depth,
        gain=1.0 if gain is None else check_positive("gain", gain),
        distribution=resolved_distribution,
    )
    what = f"A simulation of `samples`={samples:,}, `width`={width:,} and `depth`={depth:,}"
    check_fits(16 * samples * depth + chunk_bytes(network), what)
    check_duration(simulation_seconds(network, samples), what)
    if gain is None:
        computed = decided_gain(resolved_activation, width, max(depth, 2), resolved_distribution)
        network = replace(network, gain=computed)
    if resolved_distribution.mirrored:
        check_mirrored(resolved_activation, width)
    rng = seeded_generator(seed)
    chunks = []
    for chunk in draw_chunks(network, samples, rng):
        if chunk.overflowed:
            raise ValueError(
                f"The activations or the gradient of {resolved_activation.name} leave the floating-point "
                f"numbers over `depth`={depth} layers at `gain`={network.gain:.4g}. Use a smaller gain or "
                "fewer layers."
            )
        chunks.append(chunk.log_norm)
    return np.concatenate(chunks)
