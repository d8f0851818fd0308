"""The networks that are compared: plain ones, adaptive slopes, gated blocks and SIREN."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from _descent import Array
from _jets import Jet, activate, affine, product
from keras import ops

from keras_rwinit import model_zoo

__all__ = ["FORMS", "LABELS", "WIDTH", "Form", "Weights"]

Weights: TypeAlias = list[Array]

WIDTH = 32
# n of Jagtap, Kawaguchi & Karniadakis: the slope is n times a weight that begins at 1 / n
SLOPE_FACTOR = 10.0
SIREN_FREQUENCY = 30.0  # omega_0 of Sitzmann et al., arXiv:2006.09661
NOISE = 0.085  # of near-identity kernels; Lee, Choi & Kim, arXiv:2410.02242


@dataclass(frozen=True)
class Form:
    """A network and the distribution of its weights.

    Args:
        draw: Function of number of inputs, depth, gain of the first kernel, and seed, that returns weights.
        apply: Function of the weights' tensors and a jet of inputs that returns the output's, shape (3 or 4,
            points).
        sines: Whether the first layer is one of sines with random phases. Its gain is then computed for the
            signal; elsewhere it multiplies the kernel that the distribution gives.
        activation: Activation of the hidden layers as random layers of this package's gain, for which that
            of the sines is computed.
    """

    draw: Callable[[int, int, float, int], Weights]
    apply: Callable[[list[Any], Jet], Jet]
    sines: bool
    activation: str = "tanh"


# Forward


def _run_layers(step: Callable[[Jet, list[Any]], Jet], jet: Jet, weights: list[Any]) -> Jet:
    """Applies `step` with one slice of the stacked weights after another."""
    if keras.backend.backend() == "jax":  # compiles one layer instead of all
        import jax

        # Computing each layer again for the gradient keeps its arrays in the cache and halves the time.
        layer = jax.checkpoint(lambda h, of_layer: (step(h, of_layer), None))
        return jax.lax.scan(layer, jet, weights)[0]
    for of_layer in zip(*(ops.unstack(stacked) for stacked in weights), strict=True):
        jet = step(jet, list(of_layer))
    return jet


def _apply_plain(first: str, others: str = "tanh", frequency: float = 1.0) -> Callable[[list[Any], Jet], Jet]:
    """Returns the forward pass of a plain network; `frequency` multiplies all pre-activations."""

    def apply(weights: list[Any], jet: Jet) -> Jet:
        kernel, bias, kernels, biases, last, offset = weights
        h = activate(frequency * affine(jet, kernel, bias), first)
        h = _run_layers(lambda h, w: activate(frequency * affine(h, *w), others), h, [kernels, biases])
        return affine(h, last, offset)[..., 0]

    return apply


def _apply_slow(weights: list[Any], jet: Jet) -> Jet:
    """Applies `_apply_plain` to hidden kernels divided by their number: by so much Adam moves them less."""
    kernel, bias, kernels, biases, last, offset = weights
    divided = [kernel, bias, kernels / kernels.shape[0], biases, last, offset]
    return _apply_plain("sin", "silu")(divided, jet)


def _apply_adaptive(weights: list[Any], jet: Jet) -> Jet:
    kernel, bias, kernels, biases, last, offset, slope, slopes = weights
    h = activate(SLOPE_FACTOR * slope * affine(jet, kernel, bias), "tanh")
    h = _run_layers(
        lambda h, w: activate(SLOPE_FACTOR * w[2] * affine(h, w[0], w[1]), "tanh"),
        h,
        [kernels, biases, slopes],
    )
    return affine(h, last, offset)[..., 0]


def _apply_gated(weights: list[Any], jet: Jet) -> Jet:
    """PirateNet's blocks, arXiv:2402.00326, equations 4.3 to 4.8."""
    kernel, bias, gates, gate_biases, kernels, biases, shares, last, offset = weights
    features = activate(affine(jet, kernel, bias), "sin")
    one, other = (activate(affine(features, gates[i], gate_biases[i]), "tanh") for i in range(2))
    difference = one - other

    def block(h: Jet, w: list[Any]) -> Jet:
        kernels, biases, share = w
        inner = h
        for layer in range(3):
            inner = activate(affine(inner, kernels[layer], biases[layer]), "tanh")
            if layer < 2:
                inner = other + product(inner, difference)
        return h + share * (inner - h)

    h = _run_layers(block, features, [kernels, biases, shares])
    return affine(h, last, offset)[..., 0]


# Weights


def _draw_mlp(inputs: int, depth: int, seed: int, activation: str = "tanh", **arguments: Any) -> Weights:
    """Returns the weights of a `deep_mlp` with one output, in the order of `_apply_plain`."""
    model = model_zoo.deep_mlp(
        depth, WIDTH, activation, input_shape=(inputs,), classes=1, seed=seed, **arguments
    )
    return [np.asarray(weight, np.float64) for weight in model.get_weights()]


def _draw_walk(inputs: int, depth: int, seed: int, activation: str = "tanh") -> Weights:
    return _draw_mlp(
        inputs, depth, seed, activation, distribution="orthogonal", input_gain=1.0, output_gain=1.0
    )


def _draw_mirrored(inputs: int, depth: int, seed: int) -> Weights:
    """Returns a first layer, and a SiLU network after it that is linear when it starts."""
    kernel, bias, kernels, biases, *last = _draw_mlp(
        WIDTH, depth - 1, seed, "silu", distribution="looks_linear"
    )
    of_sines = [np.zeros((inputs, WIDTH)), np.zeros(WIDTH)]  # which `_with_sines` draws
    return [*of_sines, np.stack([kernel, *kernels]), np.stack([bias, *biases]), *last]


def _draw_slow(inputs: int, depth: int, seed: int) -> Weights:
    weights = _draw_mirrored(inputs, depth, seed)
    weights[2] = weights[2] * len(weights[2])
    return weights


def _draw_siren(inputs: int, depth: int, seed: int) -> Weights:
    """Returns SIREN's weights: those of the authors' code, with the biases of PyTorch's linear layers."""
    rng = np.random.default_rng(seed)
    bound = np.sqrt(6.0 / WIDTH) / SIREN_FREQUENCY
    at_first, later = 1.0 / np.sqrt(inputs), 1.0 / np.sqrt(WIDTH)
    return [
        rng.uniform(-1.0 / inputs, 1.0 / inputs, (inputs, WIDTH)),
        rng.uniform(-at_first, at_first, WIDTH),
        rng.uniform(-bound, bound, (depth - 1, WIDTH, WIDTH)),
        rng.uniform(-later, later, (depth - 1, WIDTH)),
        rng.uniform(-bound, bound, (WIDTH, 1)),
        rng.uniform(-later, later, 1),
    ]


def _draw_glorot(inputs: int, depth: int, seed: int) -> Weights:
    return _draw_mlp(inputs, depth, seed, kernel_initializer="glorot_uniform")


def _draw_near_identity(inputs: int, depth: int, seed: int) -> Weights:
    """Returns hidden kernels `D + Z`: identity and noise of standard deviation `0.085 / sqrt(width)`."""
    weights = _draw_glorot(inputs, depth, seed)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(weights[2].shape) * NOISE / np.sqrt(WIDTH)
    weights[0] = rng.standard_normal(weights[0].shape) / np.sqrt(inputs)
    weights[2] = np.eye(WIDTH) + noise
    return weights


def _draw_siren_for_signal(inputs: int, depth: int, gain: float, seed: int) -> Weights:
    """Returns SIREN's weights with the first kernel's frequencies up to sqrt(3) times the gain."""
    weights = _draw_siren(inputs, depth, seed)
    weights[0] = weights[0] * gain * np.sqrt(3.0) / SIREN_FREQUENCY
    return weights


def _draw_adaptive(inputs: int, depth: int, seed: int) -> Weights:
    slopes = np.full(depth, 1.0 / SLOPE_FACTOR)
    return [*_draw_glorot(inputs, depth, seed), slopes[:1], slopes[1:]]


def _draw_gated(inputs: int, depth: int, seed: int) -> Weights:
    """Returns Glorot's kernels, and blocks of three layers that are the identity at first."""
    blocks = max(depth // 3, 1)
    inner = _draw_glorot(inputs, 3 * blocks + 3, seed)
    kernels, biases = inner[2], inner[3]
    return [
        inner[0],
        inner[1],
        kernels[:2],
        biases[:2],
        kernels[2:].reshape(blocks, 3, WIDTH, WIDTH),
        biases[2:].reshape(blocks, 3, WIDTH),
        np.zeros(blocks),
        inner[4],
        inner[5],
    ]


def _scale_first(draw: Callable[[int, int, int], Weights]) -> Callable[[int, int, float, int], Weights]:
    """Returns the same distribution with the first kernel multiplied by the gain."""

    def scaled(inputs: int, depth: int, gain: float, seed: int) -> Weights:
        weights = draw(inputs, depth, seed)
        weights[0] = gain * weights[0]
        return weights

    return scaled


def _with_sines(draw: Callable[[int, int, int], Weights]) -> Callable[[int, int, float, int], Weights]:
    """Returns the same distribution with random Fourier features as the first layer."""

    def drawn(inputs: int, depth: int, gain: float, seed: int) -> Weights:
        weights = draw(inputs, depth, seed)
        rng = np.random.default_rng([seed, 1])
        weights[0] = gain * rng.standard_normal((inputs, WIDTH)) / np.sqrt(inputs)
        weights[1] = rng.uniform(-np.pi, np.pi, WIDTH)
        return weights

    return drawn


FORMS = {
    "glorot": Form(_scale_first(_draw_glorot), _apply_plain("tanh"), sines=False),
    "near_identity": Form(_scale_first(_draw_near_identity), _apply_plain("tanh"), sines=False),
    "walk": Form(_scale_first(_draw_walk), _apply_plain("tanh"), sines=False),
    "adaptive": Form(_scale_first(_draw_adaptive), _apply_adaptive, sines=False),
    "glorot, sines": Form(_with_sines(_draw_glorot), _apply_plain("sin"), sines=True),
    "near_identity, sines": Form(_with_sines(_draw_near_identity), _apply_plain("sin"), sines=True),
    "walk, sines": Form(_with_sines(_draw_walk), _apply_plain("sin"), sines=True),
    "gated, sines": Form(_with_sines(_draw_gated), _apply_gated, sines=True),
    "mirrored, sines": Form(
        _with_sines(_draw_mirrored), _apply_plain("sin", "silu"), sines=True, activation="linear"
    ),
    "mirrored slow, sines": Form(_with_sines(_draw_slow), _apply_slow, sines=True, activation="linear"),
    "walk, all sines": Form(
        _with_sines(functools.partial(_draw_walk, activation="sin")),
        _apply_plain("sin", "sin"),
        sines=True,
        activation="sin",
    ),
    "siren": Form(_scale_first(_draw_siren), _apply_plain("sin", "sin", SIREN_FREQUENCY), sines=False),
    "siren, signal": Form(
        _draw_siren_for_signal, _apply_plain("sin", "sin", SIREN_FREQUENCY), sines=True, activation="linear"
    ),
}

# Names in tables and pictures
LABELS = {
    "glorot": "Glorot (Keras's default)",
    "near_identity": "near-identity",
    "walk": "random walk",
    "adaptive": "adaptive tanh, Glorot",
    "glorot, sines": "sines, then Glorot",
    "near_identity, sines": "sines, then near-identity",
    "walk, sines": "sines, then random walk",
    "gated, sines": "sines, then gated blocks",
    "mirrored, sines": "sines, then mirrored SiLU",
    "mirrored slow, sines": "sines, then mirrored SiLU, slow",
    "walk, all sines": "random walk of sines",
    "siren": "SIREN",
    "siren, signal": "SIREN, omega_0 for the signal",
}
