"""The encoders that the study compares: plain networks and residual blocks with normalization."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_rwinit import model_zoo

__all__ = ["EMBEDDING", "LABELS", "NETWORKS", "ResidualBlocks", "build_encoder"]

EMBEDDING = 64  # outputs of an encoder, as in arXiv:2503.14858
LAYERS = 4  # in a residual block
VARIANCE = 1.0 / 3.0  # times the fan-in, of the residual network's kernels: those of the paper's code

# Names in tables and pictures
LABELS = {
    "mirrored relu": "plain relu, mirrored kernels",
    "shaped silu": "plain shaped(silu), orthogonal kernels",
    "residual": "residual, LayerNorm, swish",
    "glorot swish": "plain swish, Glorot (Keras's default)",
}

# Arguments of `deep_mlp` for each plain network
_PLAIN: dict[str, dict[str, Any]] = {
    "mirrored relu": {"activation": "relu", "output_gain": 1.0},
    "shaped silu": {"activation": "shaped(silu)", "output_gain": 1.0},
    "glorot swish": {"activation": "silu", "kernel_initializer": "glorot_uniform"},
}
NETWORKS = tuple(LABELS)


@keras.saving.register_keras_serializable("keras_rwinit_goal_reaching")
class ResidualBlocks(keras.layers.Layer):
    """Blocks of four times Dense, LayerNormalization and swish, each block with a skip connection.

    The blocks run in a loop, so that the graph is as large at any depth.

    Args:
        blocks: Number of blocks.
        seed: Random seed of the kernels.
    """

    def __init__(self, blocks: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks, self.seed = blocks, seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights of all blocks along the first axis."""
        width = input_shape[-1]
        assert width is not None
        limit = math.sqrt(3.0 * VARIANCE / width)
        shape = (self.blocks, LAYERS, width)
        kernels = np.random.default_rng(self.seed).uniform(-limit, limit, (*shape, width))
        self.kernel = self.add_weight(shape=kernels.shape, initializer="zeros", name="kernel")
        self.kernel.assign(kernels)
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")
        self.scale = self.add_weight(shape=shape, initializer="ones", name="scale")
        self.shift = self.add_weight(shape=shape, initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        """Returns the last block's outputs."""

        def block(h: Any, weights: tuple[Any, ...]) -> tuple[Any, None]:
            kernels, biases, scales, shifts = weights
            a = h
            for layer in range(LAYERS):
                a = normalize(keras.ops.matmul(a, kernels[layer]) + biases[layer])
                a = keras.ops.silu(scales[layer] * a + shifts[layer])
            return h + a, None

        of_blocks = tuple(
            keras.ops.convert_to_tensor(weight) for weight in (self.kernel, self.bias, self.scale, self.shift)
        )
        return keras.ops.scan(block, inputs, of_blocks)[0]


def normalize(h: Any) -> Any:
    """Returns activations with mean 0 and variance 1 over the units."""
    centered = h - keras.ops.mean(h, axis=-1, keepdims=True)
    return centered * keras.ops.rsqrt(keras.ops.mean(centered**2, axis=-1, keepdims=True) + 1e-6)


def build_encoder(name: str, inputs: int, depth: int, width: int, seed: int) -> keras.Model:
    """Returns an encoder with a first layer, `depth` layers of `width` units, and a linear layer.

    Args:
        name: One of `NETWORKS`.
        inputs: Number of inputs.
        depth: Number of hidden layers after the first; a multiple of four for the residual network.
        width: Units of a hidden layer.
        seed: Random seed.
    """
    if name == "residual":
        return _build_residual(inputs, depth, width, seed)
    arguments = {"depth": depth + 1, "width": width, **_PLAIN[name]}
    return model_zoo.deep_mlp(**arguments, input_shape=(inputs,), classes=EMBEDDING, seed=seed)


def _build_residual(inputs: int, depth: int, width: int, seed: int) -> keras.Model:
    if depth % LAYERS:
        raise ValueError(
            f"`depth` must be a multiple of {LAYERS}, the layers of a residual block. Received: depth={depth}"
        )
    seeds = np.random.SeedSequence(seed).generate_state(3)

    def draw(layer: int) -> keras.initializers.Initializer:
        return keras.initializers.VarianceScaling(VARIANCE, "fan_in", "uniform", seed=int(seeds[layer]))

    x = keras.Input((inputs,))
    h = keras.layers.Dense(width, kernel_initializer=draw(0))(x)
    h = keras.layers.Activation("silu")(keras.layers.LayerNormalization(epsilon=1e-6)(h))
    h = ResidualBlocks(depth // LAYERS, int(seeds[1]), name="blocks")(h)
    return keras.Model(x, keras.layers.Dense(EMBEDDING, kernel_initializer=draw(2))(h))
