"""The walk through padded convolutions: by brute force, without Keras and without the theory."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras_helpers import initialize_normal as initialize
from numpy.typing import NDArray

from keras_rwinit import gain
from keras_rwinit.initialization._convolutions import Window, edge_share, effective_fan_in
from keras_rwinit.theory.activation_names import resolve_activation

L = keras.layers

Array = NDArray[np.float32]
SIZE, CHANNELS, DEPTH = 8, 8, 30


def chain(activation: str, layers: int = DEPTH) -> keras.Model:
    convolutions = [L.Conv2D(CHANNELS, 3, padding="same", activation=activation) for _ in range(layers)]
    return keras.Sequential([keras.Input((SIZE, SIZE, CHANNELS)), *convolutions, L.Flatten(), L.Dense(3)])


def windows(x: Array) -> Array:
    """Windows of three by three of (networks, side, side, channels), zeros beyond the edge."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + SIZE, j : j + SIZE] for i in range(3) for j in range(3)]
    return np.concatenate(shifted, axis=-1).reshape(len(x), SIZE * SIZE, -1)


def drifts(scale: float, relu: bool, networks: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The mean step of `ln|delta|` between the layers of each network."""
    shape = (networks, SIZE, SIZE, CHANNELS)
    fan_in = 9 * CHANNELS
    h = rng.normal(size=shape).astype(np.float32)
    layers: list[tuple[Array, Array]] = []
    for _ in range(DEPTH):
        w = rng.normal(size=(networks, fan_in, CHANNELS)).astype(np.float32) * (scale / math.sqrt(fan_in))
        a = (windows(h) @ w).reshape(shape)
        slopes = (a > 0.0).astype(np.float32) if relu else np.ones_like(a)
        h = a * slopes
        h /= np.linalg.norm(h.reshape(networks, -1), axis=1)[:, None, None, None] / math.sqrt(h[0].size)
        layers.append((w, slopes))
    delta = rng.normal(size=shape).astype(np.float32) * layers[-1][1]
    start = np.log(np.linalg.norm(delta.reshape(networks, -1), axis=1))
    for (w, _), (_, slopes) in zip(layers[:0:-1], layers[-2::-1], strict=True):
        # The transposed kernel has its window turned around.
        turned = w.reshape(networks, 9, CHANNELS, CHANNELS)[:, ::-1].swapaxes(2, 3)
        turned = np.ascontiguousarray(turned).reshape(networks, fan_in, CHANNELS)
        delta = (windows(delta) @ turned).reshape(shape) * slopes
    steps = np.log(np.linalg.norm(delta.reshape(networks, -1), axis=1)) - start
    return np.asarray(steps / (DEPTH - 1), np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_padded_convolutions_have_no_drift(activation: str) -> None:
    """Within three standard errors and a tenth of what the walk's spread makes of the gain."""
    networks = 150
    scale = initialize(chain(activation), seed=0).kernels[DEPTH // 2].gain
    found = drifts(scale, activation == "relu", networks, np.random.default_rng(0))
    error = found.std(ddof=1) / math.sqrt(networks)
    assert abs(found.mean()) < 3.0 * error + 0.002
    # The fan-in of a Dense layer and the loss of endless layers, as the rule once was.
    eigenvalue = ((1.0 + 2.0 * math.cos(math.pi / (SIZE + 1))) / 3.0) ** 2
    former = gain(activation, 9 * CHANNELS) / math.sqrt(eigenvalue)
    if activation == "relu":
        assert found.mean() + math.log(former / scale) < -3.0 * error - 0.002


def test_the_loss_at_the_edges() -> None:
    """In the limit the largest eigenvalue, `(1 + 2 cos(pi / (n + 1))) / 3` a side; at first the mean."""
    window = Window((8, 5), (3, 3), (1, 1))
    eigenvalue = math.prod((1 + 2 * math.cos(math.pi / (n + 1))) / 3 for n in (8, 5))
    assert edge_share(window, 2) == pytest.approx((22 / 24) * (13 / 15))
    assert edge_share(window, 1) == edge_share(window, 2)
    assert edge_share(window, 2_000) == pytest.approx(eigenvalue, rel=1e-3)
    assert edge_share(Window((None, 5000), (3, 3), (1, 1)), 10) == 1.0


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_fan_in_of_many_channels(activation: str) -> None:
    """It grows with them, and the walk's variance vanishes as one over their number."""
    window = Window((8, 8), (3, 3), (1, 1))
    few, many = (effective_fan_in(window, n, n, resolve_activation(activation), 30) for n in (64, 6400))
    assert 50.0 < many / few < 200.0
    # Grouped kernels of one channel each are no worse than one of 64 with a window of its own.
    assert effective_fan_in(window, 64, 1, resolve_activation(activation), 30) > 9


def test_unusual_windows() -> None:
    relu = resolve_activation("relu")
    for window in (
        Window((None,), (4,), (3,)),
        Window((1, 1), (3, 3), (1, 1)),
        Window((3, 300), (1, 7), (1, 2)),
        Window((9, 9, 9), (3, 3, 3), (1, 1, 1)),
    ):
        assert effective_fan_in(window, 16, 16, relu, 10_000) >= 16
    # No gradient passes: any fan-in will do.
    assert effective_fan_in(Window((5,), (3,), (1,)), 4, 4, resolve_activation("leaky_relu(0)"), 3) > 0


@pytest.mark.parametrize(("window", "dilation"), [(3, 1), (2, 1), (4, 1), (3, 2), (2, 2), (4, 2), (2, 3)])
def test_positions_that_a_window_reads(window: int, dilation: int) -> None:
    """Two layers of ones: `edge_share` is what Keras's own convolution leaves of an image of ones."""
    image = np.ones((1, 7, 1), np.float32)
    kernel = np.full((window, 1, 1), 1.0 / window, np.float32)
    read = keras.ops.conv(image, kernel, padding="same", dilation_rate=dilation)
    twice = keras.ops.conv(read, kernel, padding="same", dilation_rate=dilation)
    share = edge_share(Window((7,), (window,), (dilation,)), 3) ** 2
    assert share == pytest.approx(float(keras.ops.mean(twice)), rel=1e-6)
