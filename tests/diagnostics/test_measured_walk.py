"""The gradient's measured walk through real Keras networks is unbiased, and with the gain 2 % off it is not.

Networks of 50 plain Dense layers, kernels drawn by the package's initializers, gradients by TensorFlow's own
differentiation. For one example the gradient with respect to a layer's bias is the gradient at its
pre-activations, so no hook into the network is needed. One network's walk has the standard deviation that
`predict_walk` gives; weighted by it, the mean over all networks of a kind is normal with a standard error of
one over the root of their number. The narrow networks run by default, all 306 of three widths with the slow
tests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import predict_walk
from keras_rwinit.initializers import RandomWalkLinear, RandomWalkReLU, RandomWalkTanh

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="differentiates with tf.GradientTape"
)

DEPTH = 50
NARROW, ALL = (20,), (20, 64, 200)
NETWORKS_A_WIDTH = 17  # times 3 widths, 3 activations, 2 distributions: 306
BY_WIDTHS = pytest.mark.parametrize(
    "widths", [NARROW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["narrow", "all"]
)
CLASSES = {"linear": RandomWalkLinear, "relu": RandomWalkReLU, "tanh": RandomWalkTanh}
WRONG = 1.02
FACTORS = (1.0, WRONG)
KINDS = [(a, d) for a in CLASSES for d in ("normal", "orthogonal")]
SPREADING = [kind for kind in KINDS if kind != ("linear", "orthogonal")]


def initializer(activation: str, distribution: str, seed: int | None = None) -> Any:
    """The string id where it says everything: normal entries, and a gain that does not ask for the depth."""
    if distribution == "normal" and activation != "tanh" and seed is None:
        return f"random_walk_{activation}"
    depth = DEPTH if activation == "tanh" else None
    return CLASSES[activation](distribution, depth=depth, seed=seed)


@cache
def network(activation: str, width: int) -> tuple[list[keras.layers.Dense], Any]:
    """Layers, and a function of an input and a direction of the output that gives their gradients."""
    import tensorflow as tf

    layers = [
        keras.layers.Dense(width, activation, kernel_initializer=initializer(activation, "normal"))
        for _ in range(DEPTH)
    ]
    for layer in layers:
        layer.build((None, width))

    @tf.function(autograph=False)
    def deltas(x: Any, direction: Any) -> Any:
        with tf.GradientTape() as tape:
            h = x
            for layer in layers:
                h = layer(h)
            loss = tf.reduce_sum(h * direction)
        return tape.gradient(loss, [layer.bias.value for layer in layers])

    return layers, deltas


@cache
def walks(activation: str, distribution: str, width: int) -> dict[float, np.ndarray]:
    """`ln(|delta_1| / |delta_50|)` of networks of a width, at the right gain and 2 % above it."""
    layers, deltas = network(activation, width)
    rng = np.random.default_rng(width)
    totals: dict[float, list[float]] = {factor: [] for factor in FACTORS}
    for draw in range(NETWORKS_A_WIDTH):
        kernels = [
            initializer(activation, distribution, seed=1000 * draw + index)((width, width))
            for index in range(DEPTH)
        ]
        x = rng.standard_normal((1, width))
        x = (x * np.sqrt(width) / np.linalg.norm(x)).astype("float32")
        direction = rng.standard_normal((1, width)).astype("float32")
        for factor in FACTORS:
            for layer, kernel in zip(layers, kernels, strict=True):
                layer.kernel.assign(factor * kernel)
            gradients = deltas(x, direction)
            first, last = (np.linalg.norm(gradients[k].numpy().astype(np.float64)) for k in (0, -1))
            totals[factor].append(float(np.log(first / last)))
    return {factor: np.array(values) for factor, values in totals.items()}


def scores(activation: str, distribution: str, widths: tuple[int, ...], factor: float) -> np.ndarray:
    """Every network's walk over the standard deviation that `predict_walk` gives it."""
    return np.concatenate(
        [
            walks(activation, distribution, width)[factor]
            / predict_walk(activation, width, DEPTH, distribution=distribution).std[0]
            for width in widths
        ]
    )


def in_standard_errors(values: np.ndarray) -> float:
    return float(values.mean() * np.sqrt(len(values)))


@BY_WIDTHS
@pytest.mark.parametrize(("activation", "distribution"), SPREADING)
def test_each_kind_is_unbiased(activation: str, distribution: str, widths: tuple[int, ...]) -> None:
    assert abs(in_standard_errors(scores(activation, distribution, widths, 1.0))) < 3.0


@BY_WIDTHS
def test_orthogonal_linear_networks_do_not_walk_at_all(widths: tuple[int, ...]) -> None:
    """What is left is the rounding of 50 float32 products; 2 % more in each is 49 ln 1.02 nats."""
    for width in widths:
        found = walks("linear", "orthogonal", width)
        assert np.abs(found[1.0]).max() < DEPTH * 1e-6
        assert np.abs(found[WRONG] - (DEPTH - 1) * np.log(WRONG)).max() < DEPTH * 1e-6


@BY_WIDTHS
@pytest.mark.parametrize("factor", FACTORS)
def test_all_networks_together(factor: float, widths: tuple[int, ...]) -> None:
    """Three standard errors hold at the right gain, and do not hold 2 % above it."""
    values = np.concatenate([scores(*kind, widths, factor) for kind in SPREADING])
    still = len(widths) * NETWORKS_A_WIDTH  # the orthogonal linear ones, tested above
    assert len(values) + still >= 102 * len(widths)
    assert (abs(in_standard_errors(values)) < 3.0) == (factor == 1.0)
