"""Kernels of convolutions that are drawn at their center alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, to_numpy

from keras_rwinit.initializers import RandomWalk
from keras_rwinit.theory import gain

backends = pytest.mark.backends

layers = keras.layers
CENTERED = ("delta_orthogonal", "looks_linear")


# A convolution with `filters` outputs, the shape of one input, and the entry of its window that is drawn.
CASES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "Conv1D": (layers.Conv1D, {"kernel_size": 3}, (5, 6), (1,)),
    "causal": (layers.Conv1D, {"kernel_size": 3, "padding": "causal", "dilation_rate": 2}, (5, 6), (2,)),
    "Conv2D": (layers.Conv2D, {"kernel_size": (3, 5)}, (4, 5, 6), (1, 2)),
    "even": (layers.Conv2D, {"kernel_size": (2, 4)}, (4, 5, 6), (0, 1)),
    "groups": (layers.Conv2D, {"kernel_size": 3, "groups": 3}, (4, 5, 18), (1, 1)),
    "dilated": (layers.Conv2D, {"kernel_size": 3, "dilation_rate": 2}, (4, 5, 6), (1, 1)),
    "one position": (layers.Conv2D, {"kernel_size": 1}, (4, 5, 6), (0, 0)),
    "Conv3D": (layers.Conv3D, {"kernel_size": (3, 1, 2)}, (2, 3, 2, 6), (1, 0, 0)),
}


@backends
@pytest.mark.parametrize("distribution", CENTERED)
@pytest.mark.parametrize("case", CASES)
def test_a_convolution_is_one_matrix_at_every_position(case: str, distribution: str) -> None:
    """Entry by entry of its kernel, and in what the layer computes up to the image's edges."""
    cls, options, shape, center = CASES[case]
    groups = options.get("groups", 1)
    initializer = RandomWalk("relu", distribution, seed=1)
    layer = cls(12, **{"padding": "same", **options}, kernel_initializer=initializer)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    y = to_numpy(layer(x))
    kernel = to_numpy(layer.kernel).astype(np.float64)
    drawn = kernel[center]
    assert (kernel != 0.0).sum() == drawn.size
    expected = [
        x[..., group * 6 : group * 6 + 6] @ drawn[:, group * 12 // groups : (group + 1) * 12 // groups]
        for group in range(groups)
    ]
    np.testing.assert_allclose(y, np.concatenate(expected, axis=-1), atol=1e-5)
    # The matrix of each group, as a Dense layer of its size has it
    dense = RandomWalk("relu", distribution, seed=1)((6, 12 // groups))
    np.testing.assert_allclose(drawn[:, : 12 // groups], to_numpy(dense), rtol=1e-6)


@backends
@pytest.mark.parametrize("shape", [(9, 4), (9, 9, 4)])
def test_images_with_the_channels_first(shape: tuple[int, ...]) -> None:
    """The kernel has the same axes, and the same values."""
    cls = layers.Conv1D if len(shape) == 2 else layers.Conv2D
    kernels = []
    for data_format, of_layer in (("channels_last", shape), ("channels_first", shape[::-1])):
        initializer = RandomWalk("relu", "delta_orthogonal", seed=1)
        layer = cls(6, 3, data_format=data_format, kernel_initializer=initializer)
        layer.build((None, *of_layer))
        kernels.append(to_numpy(layer.kernel))
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strides_keep_one_position_of_each(stride: int) -> None:
    layer = layers.Conv1D(
        4, 3, stride, padding="same", kernel_initializer=RandomWalk("linear", "delta_orthogonal")
    )
    x = np.random.default_rng(0).normal(size=(1, 9, 4)).astype("float32")
    norms = np.linalg.norm(to_numpy(layer(x)), axis=-1)[0]
    of_inputs = np.linalg.norm(x, axis=-1)[0]
    first = (stride > 1) * int(stride == 3)  # Keras pads nine positions by 2, 2 and 0 zeros
    np.testing.assert_allclose(norms, of_inputs[first::stride], rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gain_is_that_of_the_channels(activation: str) -> None:
    layer = layers.Conv2D(
        8,
        3,
        groups=2,
        kernel_initializer=RandomWalk(activation, "delta_orthogonal", 20, seed=keras.random.SeedGenerator(1)),
    )
    layer.build((None, 5, 5, 32))
    found = np.linalg.norm(to_numpy(layer.kernel)[1, 1], axis=0)
    expected = gain(activation, 16, 20, distribution="orthogonal")
    np.testing.assert_allclose(found, np.full(8, expected), rtol=1e-5)


@backends
@pytest.mark.parametrize(("activation", "channels"), [("relu", 8), ("leaky_relu", 9), ("gelu", 7)])
def test_mirrored_convolutions_are_linear(activation: str, channels: int) -> None:
    """First, hidden and last kernel, of odd numbers of channels too; the sum of two images is kept."""

    def kernel(seed: int, **options: Any) -> RandomWalk:
        return RandomWalk(activation, "looks_linear", seed=seed, **options)

    stack = [
        layers.Conv2D(channels, 3, 1, "same", kernel_initializer=kernel(1, mirrored="outputs")),
        layers.Conv2D(channels, (2, 3), 1, "same", kernel_initializer=kernel(2)),
        layers.Conv2D(channels, 3, 1, "same", dilation_rate=2, kernel_initializer=kernel(3)),
    ]
    last = layers.Conv2D(3, 3, 1, "same", kernel_initializer=kernel(4, mirrored="inputs"))
    x, y = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 3)).astype("float32")

    def signals(values: Array) -> list[Array]:
        """The first half of each layer's pre-activations, position by position, and the outputs."""
        halves = []
        for layer in stack:
            before = layer(values)
            halves.append(to_numpy(before)[..., : channels // 2])
            values = keras.activations.get(activation)(before)
        return [*halves, to_numpy(last(values))]

    of_x, of_y = signals(x), signals(y)
    np.testing.assert_allclose(of_x[-1] + of_y[-1], signals(x + y)[-1], atol=1e-5)
    inner = [np.einsum("bijc,bijc->bij", one, other) for one, other in zip(of_x, of_y, strict=True)]
    for found in inner[1:-1]:
        np.testing.assert_allclose(found, inner[0], atol=1e-5)


def test_groups_have_their_own_pairs() -> None:
    layer = layers.Conv1D(8, 3, groups=2, kernel_initializer=RandomWalk("relu", "looks_linear", seed=1))
    layer.build((None, 5, 8))
    for block in np.split(to_numpy(layer.kernel)[1], 2, axis=1):
        np.testing.assert_array_equal(block[:2], -block[2:])
        np.testing.assert_array_equal(block[:, :2], -block[:, 2:])


def test_kernels_without_a_window() -> None:
    """The second kernel of a separable convolution is a matrix; one of an EinsumDense has no center."""
    first = "glorot_uniform"
    for distribution in CENTERED:
        initializer = RandomWalk("relu", distribution, seed=1)
        layer = layers.SeparableConv2D(4, 3, depthwise_initializer=first, pointwise_initializer=initializer)
        layer.build((None, 5, 5, 6))
        expected = to_numpy(RandomWalk("relu", distribution, seed=1)((6, 4)))
        np.testing.assert_allclose(to_numpy(layer.pointwise_kernel)[0, 0], expected, rtol=1e-6)
    for equation, output, shape in (
        ("abc,cde->abde", (3, 2, 4), (3, 6)),
        ("abcd,cde->abe", (3, 4), (3, 2, 6)),
    ):
        drawn = []
        for distribution in ("delta_orthogonal", "orthogonal"):
            initializer = RandomWalk("relu", distribution, seed=1)
            layer = layers.EinsumDense(equation, output, kernel_initializer=initializer)
            layer.build((None, *shape))
            drawn.append(to_numpy(layer.kernel))
        np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("distribution", CENTERED)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda kernel: layers.DepthwiseConv2D(3, depthwise_initializer=kernel),
            "keeps the channels apart; use 'orthogonal' .*in DepthwiseConv2D",
        ),
        (
            lambda kernel: layers.SeparableConv2D(4, 3, depthwise_initializer=kernel),
            "keeps the channels apart.*in SeparableConv2D",
        ),
        (
            lambda kernel: layers.Conv2DTranspose(4, 3, kernel_initializer=kernel),
            "a transposed convolution has no entry for that; use 'orthogonal'",
        ),
        (
            lambda kernel: layers.Conv2D(
                4, (3, 2), padding="same", dilation_rate=(1, 2), kernel_initializer=kernel
            ),
            r"an even window with a dilation.*Received: shape=\(3, 2, 4, 4\) in Conv2D",
        ),
    ],
)
def test_kernels_without_a_center(make: Any, message: str, distribution: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(RandomWalk("relu", distribution)).build((None, 5, 5, 4))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda kernel: layers.EinsumDense("abc,cde->abde", (3, 2, 4), kernel_initializer=kernel),
            (3, 6),
            "two axes, inputs and outputs, and for convolutions",
        ),
        (
            lambda kernel: layers.Conv1D(8, 3, groups=4, kernel_initializer=kernel),
            (5, 4),
            "width of at least 2",
        ),
        (
            lambda kernel: layers.Conv1D(4, 3, groups=4, kernel_initializer=kernel),
            (5, 8),
            "at least two of them",
        ),
    ],
)
def test_kernels_without_pairs(make: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(RandomWalk("relu", "looks_linear")).build((None, *shape))
