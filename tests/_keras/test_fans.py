"""Fan-ins, layer by layer: the axes that one output unit sums over."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, run, to_numpy

from keras_rwinit._keras.fans import assemble_kernel, fan_in_axes, layer_being_built
from keras_rwinit.initializers import RandomWalk, RandomWalkReLU
from keras_rwinit.theory import gain

backends = pytest.mark.backends  # where a back end's layers take part

layers = keras.layers
GAIN = 1.25


def initializer(**kwargs: Any) -> RandomWalk:
    """Orthogonal: its norms show the fan-in of a single kernel exactly."""
    return RandomWalk("relu", "orthogonal", gain=GAIN, **kwargs)


def einsum(equation: str, output_shape: Any) -> Any:
    return lambda init: layers.EinsumDense(equation, output_shape, kernel_initializer=init)


# A layer, the shape of one input, and the fan-in axes of its kernels in the order of its weights.
CASES = {
    "Dense": (lambda init: layers.Dense(7, kernel_initializer=init), (5,), [(0,)]),
    "Dense wide": (lambda init: layers.Dense(3, kernel_initializer=init), (4, 9), [(0,)]),
    "Conv1D": (lambda init: layers.Conv1D(6, 3, kernel_initializer=init), (9, 4), [(0, 1)]),
    "Conv2D": (lambda init: layers.Conv2D(6, 3, kernel_initializer=init), (9, 9, 4), [(0, 1, 2)]),
    "Conv2D groups": (
        lambda init: layers.Conv2D(6, 3, groups=2, kernel_initializer=init),
        (9, 9, 4),
        [(0, 1, 2)],
    ),
    "Conv3D": (lambda init: layers.Conv3D(6, 2, kernel_initializer=init), (5, 5, 5, 3), [(0, 1, 2, 3)]),
    "Conv2DTranspose": (
        lambda init: layers.Conv2DTranspose(6, 3, kernel_initializer=init),
        (9, 9, 4),
        [(0, 1, 3)],
    ),
    "DepthwiseConv1D": (
        lambda init: layers.DepthwiseConv1D(3, depth_multiplier=2, depthwise_initializer=init),
        (9, 4),
        [(0,)],
    ),
    "DepthwiseConv2D": (
        lambda init: layers.DepthwiseConv2D(3, depthwise_initializer=init),
        (9, 9, 4),
        [(0, 1)],
    ),
    "SeparableConv1D": (
        lambda init: layers.SeparableConv1D(5, 3, depthwise_initializer=init, pointwise_initializer=init),
        (9, 4),
        [(0,), (0, 1)],
    ),
    "SeparableConv2D": (
        lambda init: layers.SeparableConv2D(
            5, 3, depth_multiplier=2, depthwise_initializer=init, pointwise_initializer=init
        ),
        (9, 9, 4),
        [(0, 1), (0, 1, 2)],
    ),
    "Einsum ab,bc->ac": (einsum("ab,bc->ac", 6), (5,), [(0,)]),
    "Einsum reversed": (einsum("abc,dc->abd", (None, 7)), (3, 5), [(1,)]),
    "Einsum heads": (einsum("abc,cde->abde", (None, 2, 7)), (3, 5), [(0,)]),
    "Einsum two sums": (einsum("abcd,cde->abe", (None, 7)), (3, 4, 5), [(0, 1)]),
    "Einsum sums apart": (einsum("abcd,dec->abe", (None, 7)), (3, 4, 5), [(0, 2)]),
    "Einsum ellipsis": (einsum("...x,xy->...y", 7), (3, 5), [(0,)]),
    "Einsum batched": (einsum("abc,bcd->abd", (3, 7)), (3, 5), [(1,)]),
    "LSTM": (
        lambda init: layers.LSTM(4, kernel_initializer=init, recurrent_initializer=init),
        (3, 6),
        [(0,), (0,)],
    ),
}


def kernels_of(layer: keras.layers.Layer) -> list[Array]:
    return [to_numpy(weight) for weight in layer.weights if "bias" not in weight.name]


def as_matrix(kernel: Array, axes: tuple[int, ...]) -> Array:
    """The kernel with its fan-in axes in front, as a (fan-in, fan-out) matrix."""
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    fan_in = int(np.prod([kernel.shape[axis] for axis in axes]))
    return kernel.transpose(axes + others).reshape(fan_in, -1).astype(np.float64)


def assert_isometry(matrix: Array) -> None:
    """Columns of length g, or rows of length g sqrt(fan_out / fan_in); either way orthogonal."""
    fan_in, fan_out = matrix.shape
    if fan_out <= fan_in:
        gram, scale = matrix.T @ matrix, GAIN**2
    else:
        gram, scale = matrix @ matrix.T, GAIN**2 * fan_out / fan_in
    np.testing.assert_allclose(gram, scale * np.eye(len(gram)), atol=1e-6 * scale)
    assert (matrix**2).mean() * fan_in == pytest.approx(GAIN**2, rel=1e-6)


@backends
@pytest.mark.parametrize("case", CASES)
def test_orthogonal_kernels_are_isometries_from_fan_in_to_fan_out(case: str) -> None:
    make, shape, contracted = CASES[case]
    layer = make(initializer())
    layer.build((None, *shape))
    kernels = kernels_of(layer)
    assert len(kernels) == len(contracted)
    for kernel, axes in zip(kernels, contracted, strict=True):
        assert_isometry(as_matrix(kernel, axes))


@pytest.mark.parametrize("case", CASES)
def test_the_computed_gain_is_that_of_the_fan_in(case: str) -> None:
    """One seed, with and without gain 1: the ratio is the gain of the fan-in, entry by entry."""
    make, shape, contracted = CASES[case]
    drawn = []
    for fixed in (None, 1.0):
        layer = make(RandomWalkReLU(gain=fixed, seed=keras.random.SeedGenerator(1)))
        layer.build((None, *shape))
        drawn.append(kernels_of(layer))
    for kernel, unit, axes in zip(*drawn, contracted, strict=True):
        fan_in = int(np.prod([kernel.shape[axis] for axis in axes]))
        np.testing.assert_allclose(kernel / unit, gain("relu", fan_in), rtol=1e-6)


@backends
@pytest.mark.parametrize("attention", [layers.MultiHeadAttention, layers.GroupQueryAttention])
def test_attention(attention: Any) -> None:
    """Queries, keys and values sum over the features; the output over heads and their features."""
    heads = (2, 4) if attention is layers.MultiHeadAttention else (4, 2, 2)
    layer = attention(*heads, kernel_initializer=initializer())
    layer.build((None, 3, 6), (None, 3, 6))
    kernels = [kernel for kernel in kernels_of(layer) if kernel.ndim == 3]
    assert len(kernels) == 4
    for kernel in kernels[:3]:
        assert kernel.shape[0] == 6
        assert_isometry(as_matrix(kernel, (0,)))
    assert kernels[3].shape[2] == 6
    assert_isometry(as_matrix(kernels[3], (0, 1)))


@backends
def test_layers_within_layers() -> None:
    """The initializer sees the innermost layer that is being built."""
    inner = layers.DepthwiseConv2D(3, depthwise_initializer=initializer())
    keras.Sequential([keras.Input((4, 9, 9, 2)), layers.TimeDistributed(inner)])
    assert_isometry(as_matrix(to_numpy(inner.kernel), (0, 1)))
    dense = layers.Dense(4, kernel_initializer=initializer())
    keras.Sequential([keras.Sequential([dense])]).build((None, 6))
    assert_isometry(to_numpy(dense.kernel).astype(np.float64))
    assert layer_being_built() is None


@pytest.mark.parametrize(
    ("shape", "fan_in", "axes"),
    [
        ((3, 3, 4, 6), None, (0, 1, 2)),
        ((3, 3, 4, 6), 3, (0,)),
        ((3, 3, 4, 6), 9, (0, 1)),
        ((3, 3, 4, 6), 36, (0, 1, 2)),
        ((5, 2, 7), 5, (0,)),
        ((1, 5, 7), 5, (0, 1)),
    ],
)
def test_a_given_fan_in(shape: tuple[int, ...], fan_in: int | None, axes: tuple[int, ...]) -> None:
    assert fan_in_axes(shape, fan_in) == axes
    assert_isometry(as_matrix(to_numpy(initializer(fan_in=fan_in)(shape)), axes))


@backends
def test_a_given_fan_in_goes_before_the_layer() -> None:
    layer = layers.DepthwiseConv2D(3, depthwise_initializer=initializer(fan_in=36))
    layer.build((None, 9, 9, 4))
    assert_isometry(as_matrix(to_numpy(layer.kernel), (0, 1, 2)))


@pytest.mark.parametrize("fan_in", [1, 2, 12, 216, 217])
def test_a_fan_in_that_no_leading_axes_have(fan_in: int) -> None:
    with pytest.raises(
        ValueError, match=rf"product of the kernel's leading axes.*Received: fan_in={fan_in} "
    ):
        initializer(fan_in=fan_in)((3, 3, 4, 6))


def test_a_kernel_is_laid_out_by_its_axes() -> None:
    matrix = np.arange(24.0).reshape(8, 3)
    np.testing.assert_array_equal(assemble_kernel(matrix, (2, 4, 3), (0, 1)), matrix.reshape(2, 4, 3))
    kernel = assemble_kernel(matrix, (4, 3, 2), (0, 2))
    np.testing.assert_array_equal(as_matrix(kernel, (0, 2)), matrix)


def test_depthwise_layers_keep_the_scale_of_white_noise() -> None:
    """What the fan-in is for: read as a convolution's, 288, each layer would divide the variance by 32."""
    keras.utils.set_random_seed(1)
    h = np.random.default_rng(1).standard_normal((1, 32, 32, 32)).astype(np.float32)
    for _ in range(3):
        h = run(layers.DepthwiseConv2D(3, use_bias=False, depthwise_initializer=initializer()), h)
        assert 0.5 < (h**2).mean() / GAIN**2 < 2.0
        h /= GAIN


@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform", "orthogonal"])
@pytest.mark.parametrize("fan_in", [1, 2, 3, 9])
def test_tiny_fan_in(distribution: str, fan_in: int) -> None:
    """A tanh chain of a few units has no gain; a kernel that reads a few features gets a wider one's."""
    scale = np.sqrt(fan_in) * RandomWalk("tanh", distribution, depth=50, seed=1)((fan_in, 4000))
    assert 0.9 < to_numpy(scale).std() < 3.0
    assert np.isfinite(to_numpy(RandomWalk("tanh", distribution, depth=50)((fan_in, 1)))).all()


@pytest.mark.parametrize("activation", ["tanh", layers.ELU(2.0)], ids=["tanh", "elu"])
def test_a_gain_is_computed_once(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain takes a tenth of a second at fan-in 3, and a model has a thousand kernels of it."""
    RandomWalk(activation, depth=7)((3, 3))

    def computed_again(*arguments: Any) -> float:
        raise AssertionError("the gain was computed again")

    monkeypatch.setattr("keras_rwinit.theory._analytic_gain._gain_at_depth", computed_again)
    again = RandomWalk(activation, depth=7)
    again((3, 3))
    RandomWalk.from_config(again.get_config())((3, 3))


@backends
def test_a_shape_may_be_that_of_a_variable() -> None:
    """TensorFlow's variables have a `TensorShape`, PyTorch's a `torch.Size`."""
    layer = layers.Dense(3)
    layer.build((None, 4))
    assert tuple(RandomWalk()(layer.kernel.shape).shape) == (4, 3)
