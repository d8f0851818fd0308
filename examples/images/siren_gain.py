"""The walk of the gradient in SIREN's scheme: computed, and measured in networks.

python examples/images/siren_gain.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _photographs import load
from _sine_networks import OMEGA, build_siren

from keras_rwinit import gradient_walk

# The table of results and the options are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, parse_options

__all__ = ["GAIN", "SineLayer", "follow", "main", "siren_bias_bound"]

GAIN = math.sqrt(2.0)  # of SIREN: uniform weights to sqrt(6 / fan_in) have the variance 2 / fan_in
PIXELS = 16


@dataclass(frozen=True)
class SineLayer:
    """A layer of sines, with expectations at infinite width.

    Args:
        variance: Variance q of its pre-activations without the biases.
        growth: Factor `g^2 E cos(a)^2` of the squared gradient across it.
        kurtosis: `E cos(a)^4 / (E cos(a)^2)^2`.
    """

    variance: float
    growth: float
    kurtosis: float

    def step(self, width: int) -> float:
        """Returns the mean step of `ln |delta|` across it, in nats, to first order in `1 / width`.

        The squared gradient is multiplied by a mean over the n units of `g^2 x^2 cos(a)^2`, with x standard
        normal. The expectation of its logarithm is `ln growth` less half the relative variance of the mean,
        `(3 kurtosis - 1) / n`.
        """
        return (math.log(self.growth) - (3.0 * self.kurtosis - 1.0) / (2.0 * width)) / 2.0


def follow(depth: int, bias_bound: float, gain: float = GAIN) -> list[SineLayer]:
    """Returns the hidden layers of a sine network, the first of which has uniform phases.

    With `a = c + b`, c normal of variance q and b uniform to `bias_bound`,

        E cos(k a) = exp(-k^2 q / 2) sin(k bias_bound) / (k bias_bound).

    `E sin(a)^2` and `E cos(a)^2` are 1/2 less and plus half of `E cos(2a)`, `E cos(a)^4` is
    `(3 + 4 E cos(2a) + E cos(4a)) / 8`, and the next q is `g^2 E sin(a)^2`.

    Args:
        depth: Number of hidden layers.
        bias_bound: Largest bias of all layers but the first.
        gain: g, the gain of the kernels of all layers but the first.
    """
    layers, variance = [], math.inf
    for _ in range(depth):
        # `np.sinc(x)` is `sin(pi x) / (pi x)`.
        second, fourth = (
            math.exp(-(k**2) * variance / 2.0) * float(np.sinc(k * bias_bound / math.pi)) for k in (2.0, 4.0)
        )
        slope = (1.0 + second) / 2.0
        kurtosis = (3.0 + 4.0 * second + fourth) / 8.0 / slope**2
        layers.append(SineLayer(variance, gain**2 * slope, kurtosis))
        variance = gain**2 * (1.0 - second) / 2.0
    return layers


def siren_bias_bound(width: int) -> float:
    """Returns `omega_0` times the largest bias of SIREN's code, `1 / sqrt(width)`."""
    return OMEGA / math.sqrt(width)


def measure(run: Row) -> dict[str, float]:
    """Returns prediction and measurement of one network.

    The walk is `ln|delta|` of the first hidden layer less that of the last, in nats, on average over pixels.
    """
    seeds = iter(int(number) for number in np.random.SeedSequence(run["seed"]).generate_state(16))
    with_biases = run["biases"] == "omega_0 times PyTorch's"
    model = build_siren(with_biases, run["width"])(run["depth"], 1.0, 1.0, lambda: next(seeds))
    photograph = load("china")
    chosen = np.random.default_rng(0).choice(len(photograph.coordinates), PIXELS, replace=False)
    walk = gradient_walk(model, photograph.coordinates[chosen])
    layers = follow(run["depth"], siren_bias_bound(run["width"]) if with_biases else 0.0)
    return {
        "variance": layers[-1].variance,
        "growth": layers[-1].growth,
        # The last hidden layer's own slope is part of both deltas.
        "predicted": sum(layer.step(run["width"]) for layer in layers[:-1]),
        "measured": float(np.mean(walk.backward[:, 0] - walk.backward[:, -1])),
    }


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table and returns its rows."""
    experiment: Experiment = parse_options("siren", __doc__, arguments)
    widths, depths, networks = ((16,), (5,), 1) if experiment.quick else ((64, 256), (5, 20, 50), 4)
    runs = [
        {"biases": biases, "width": width, "depth": depth, "seed": seed}
        for biases in ("omega_0 times PyTorch's", "zero")
        for width in widths
        for depth in depths
        for seed in range(1, networks + 1)
    ]
    return experiment.run(runs, measure)


if __name__ == "__main__":
    main()
