"""The networks that are compared, each built with Keras's layers and initializers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from _photographs import Array

from keras_rwinit import theory
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack

__all__ = [
    "FORMS",
    "LABELS",
    "OMEGA",
    "WIDTH",
    "Form",
    "build_siren",
    "far_distance",
    "phase_correlation",
    "phase_gain",
    "phase_input_gain",
    "sine_gain",
]

WIDTH = 64
OMEGA = 30.0  # omega_0 of SIREN

# What a form is built from: depth, frequency of the picture, scale of the first layer, seeds
Build = Callable[[int, float, float, Callable[[], int]], keras.Model]


@dataclass(frozen=True)
class Form:
    """A network with a distribution of its weights.

    Args:
        build: Function of number of hidden layers, the picture's frequency in radians per unit, the scale of
            the first layer as a multiple of the computed or usual one, and a function that gives seeds.
        first_rate: Learning rate at which the search begins.
        scale_compiled: Whether the scale is a constant of the graph, and not one of the weights.
    """

    build: Build
    first_rate: float
    scale_compiled: bool = False


def sine_gain(depth: int, distribution: str = "orthogonal") -> float:
    """Returns the gain of sine layers without biases."""
    return theory.gain("sin", WIDTH, depth, distribution=distribution)


def phase_gain(depth: int, distribution: str = "orthogonal") -> float:
    """Returns the gain of sine layers whose phases are uniform over a period.

    `E sin(a + b)^2 = E cos(a + b)^2 = 1/2` for such b, whatever a is. The same holds for one phase of pi / 4
    and a normal a: the computed gain is that of `sin(a + pi / 4)`.
    """
    return theory.gain(lambda a: np.sin(a + math.pi / 4.0), WIDTH, depth, distribution=distribution)


def far_distance(depth: int) -> float:
    """Returns 1 less the correlation of the output at far inputs, with uniform phases in all layers.

    Let K be the correlation of a unit's pre-activations at two inputs, biases apart, and `d = 1 - K`. As
    `E 2 sin(a + b) sin(a' + b) = E cos(a - a') = exp(-d)` with a gain of sqrt(2), the next layer has
    `d' = 1 - exp(-d)`. The phases of the first layer are unrelated at inputs far apart: its d is infinite.
    """
    distance = math.inf
    for _ in range(depth):
        distance = 1.0 - math.exp(-distance)
    return distance


def phase_correlation(depth: int, distances: Array) -> Array:
    """Returns the correlation of the output over random networks with uniform phases in all layers.

    It is `1 - d / far_distance(depth)`, with d by the recursion of `far_distance` from the first layer's.

    Args:
        depth: Number of hidden layers.
        distances: Half the mean square difference of the first layer's pre-activations at two inputs.
    """
    found = distances
    for _ in range(depth):
        found = -np.expm1(-found)
    return 1.0 - found / far_distance(depth)


def phase_input_gain(depth: int, frequency: float) -> float:
    """Returns the input gain with which sine layers with uniform phases have the frequency of a signal.

    The mean square of u' is that of the first layer, `input_gain^2 / 4` for two inputs, and the variance of u
    over the inputs is `far_distance(depth) / 2`.
    """
    return frequency * math.sqrt(2.0 * far_distance(depth))


def _uniform(bound: float, seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-bound, bound, seed=seed)


def _sine_features(x: Any, input_gain: float, seed: Callable[[], int]) -> Any:
    """Returns a first layer of sines: normal frequencies and uniform phases."""
    return keras.layers.Dense(
        WIDTH,
        keras.ops.sin,
        kernel_initializer=keras.initializers.RandomNormal(stddev=input_gain / math.sqrt(2.0), seed=seed()),
        bias_initializer=_uniform(math.pi, seed()),
    )(x)


def _build_walk(phases: bool, distribution: str = "orthogonal") -> Build:
    def build(depth: int, frequency: float, scale: float, seed: Callable[[], int]) -> keras.Model:
        gain = (phase_gain if phases else sine_gain)(depth, distribution)
        if phases:
            input_gain = phase_input_gain(depth, frequency)
        else:
            input_gain = theory.input_gain("sin", depth, gain, frequency, inputs=2)
        x = keras.Input((2,))
        h = _sine_features(x, scale * input_gain, seed)
        h = DenseStack(
            depth - 1,
            "sin",
            kernel_initializer=RandomWalk("sin", distribution, gain=gain, seed=seed()),
            bias_initializer=_uniform(math.pi, seed()) if phases else "zeros",
        )(h)
        last = RandomWalk("linear", distribution, gain=1.0, seed=seed())
        return keras.Model(x, keras.layers.Dense(1, kernel_initializer=last)(h))

    return build


def build_siren(biases: bool, width: int = WIDTH, output_scale: float = 1.0) -> Build:
    """Returns SIREN's scheme, as its authors' code has it: omega_0 in every hidden layer.

    Biases are PyTorch's default, uniform to `1 / sqrt(fan_in)`. The scale is that of the first omega_0, and
    `output_scale` multiplies the last kernel.
    """

    def build(depth: int, frequency: float, scale: float, seed: Callable[[], int]) -> keras.Model:
        bound = math.sqrt(6.0 / width) / OMEGA
        bias = _uniform(width**-0.5, seed()) if biases else keras.initializers.Zeros()
        x = keras.Input((2,))
        h = keras.layers.Dense(
            width,
            lambda a: keras.ops.sin(scale * OMEGA * a),
            kernel_initializer=_uniform(0.5, seed()),
            bias_initializer=_uniform(0.5**0.5, seed()),
        )(x)
        h = DenseStack(
            depth - 1,
            lambda a: keras.ops.sin(OMEGA * a),
            kernel_initializer=_uniform(bound, seed()),
            bias_initializer=bias,
        )(h)
        output = keras.layers.Dense(
            1,
            kernel_initializer=_uniform(output_scale * bound, seed()),
            bias_initializer=_uniform(width**-0.5, seed()),
        )
        return keras.Model(x, output(h))

    return build


def _build_glorot(depth: int, frequency: float, scale: float, seed: Callable[[], int]) -> keras.Model:
    input_gain = theory.input_gain("sin", depth, 1.0, frequency, inputs=2)
    x = keras.Input((2,))
    h = _sine_features(x, scale * input_gain, seed)
    h = DenseStack(depth - 1, "sin", kernel_initializer=keras.initializers.GlorotUniform(seed()))(h)
    return keras.Model(
        x, keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed()))(h)
    )


def _build_fourier(depth: int, frequency: float, scale: float, seed: Callable[[], int]) -> keras.Model:
    """Returns ReLU layers on fixed Fourier features, Tancik et al., arXiv:2006.10739.

    The scale 1 gives the features the picture's frequency: `2 pi sigma = frequency`.
    """
    x = keras.Input((2,))
    phases = keras.layers.Dense(
        WIDTH // 2,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=scale * frequency, seed=seed()),
        trainable=False,
    )(x)
    h = keras.layers.Concatenate()([keras.ops.cos(phases), keras.ops.sin(phases)])
    h = DenseStack(depth - 1, "relu", kernel_initializer=keras.initializers.HeNormal(seed()))(h)
    return keras.Model(
        x, keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed()))(h)
    )


FORMS = {
    "siren": Form(build_siren(biases=True), first_rate=1e-4, scale_compiled=True),
    "siren, zero biases": Form(build_siren(biases=False), first_rate=1e-4, scale_compiled=True),
    "siren, larger output": Form(
        build_siren(biases=True, output_scale=OMEGA), first_rate=1e-4, scale_compiled=True
    ),
    "walk": Form(_build_walk(phases=False), first_rate=1e-3),
    "walk, normal": Form(_build_walk(phases=False, distribution="normal"), first_rate=1e-3),
    "walk, phases": Form(_build_walk(phases=True), first_rate=1e-3),
    "glorot": Form(_build_glorot, first_rate=1e-3),
    "fourier": Form(_build_fourier, first_rate=1e-3),
}

# Names in tables and pictures
LABELS = {
    "siren": "SIREN",
    "siren, zero biases": "SIREN, hidden biases zero",
    "siren, larger output": "SIREN, larger output",
    "walk": "random walk",
    "walk, normal": "random walk, normal kernels",
    "walk, phases": "random walk with phases",
    "glorot": "Glorot, sines",
    "fourier": "Fourier features, ReLU",
}
