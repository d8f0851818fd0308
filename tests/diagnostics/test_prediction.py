"""The walk measured in `deep_mlp` lies on `predict_walk`, whatever the initializer, layer by layer.

One example through each of many networks. The standard error of a mean over n networks is the predicted
standard deviation s over the root of n; that of a standard deviation is sqrt((m4 - s^4) / (4 n s^2)), with
the fourth moment m4 of simulated walks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import WalkPrediction, gradient_walk, model_zoo, predict_walk, simulate_walk

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of the theory, not the back end"
)

# Keras's initializers, the distribution of their entries, and their gain where fan-in and fan-out are equal.
INITIALIZERS: dict[str, tuple[Any, str, float | None]] = {
    "he_normal": ("he_normal", "truncated_normal", 2.0**0.5),
    "glorot_uniform": ("glorot_uniform", "uniform", 1.0),
    "random_walk": (None, "normal", None),
}
# Depth, width, number of networks, the first one's seed.
SMALL, LARGE = (25, 64, 20, 3000), (200, 100, 200, 1000)


@cache
def measured(name: str, depth: int, width: int, networks: int, first_seed: int) -> np.ndarray:
    """`ln(|delta_d| / |delta_depth|)`, shape (networks, depth)."""
    rng = np.random.default_rng(first_seed)
    walks = []
    for seed in range(first_seed, first_seed + networks):
        model = model_zoo.deep_mlp(
            depth,
            width,
            input_shape=(width,),
            kernel_initializer=INITIALIZERS[name][0],
            distribution="normal",
            seed=seed,
        )
        walks.append(gradient_walk(model, rng.normal(size=(1, width))).relative[0])
    return np.array(walks)


def predicted(name: str, depth: int, width: int, factor: float = 1.0) -> WalkPrediction:
    _, distribution, gain = INITIALIZERS[name]
    if gain is None:
        gain = predict_walk("relu", width, depth).gain
    return predict_walk("relu", width, depth, gain=factor * gain, distribution=distribution)


@cache
def kurtosis(depth: int, width: int) -> np.ndarray:
    walks = simulate_walk("relu", width, depth, samples=4000, seed=0)[:, :-1]
    centered = walks - walks.mean(axis=0)
    return (centered**4).mean(axis=0) / (centered**2).mean(axis=0) ** 2


def in_standard_errors(
    name: str, depth: int, width: int, networks: int, first_seed: int, factor: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Of mean and standard deviation at every layer but the last, from those predicted."""
    prediction = predicted(name, depth, width, factor)
    mean, std = prediction.mean[:-1], prediction.std[:-1]
    walks = measured(name, depth, width, networks, first_seed)[:, :-1]
    of_mean = (walks.mean(axis=0) - mean) / (std / np.sqrt(networks))
    error = std * np.sqrt((kurtosis(depth, width) - 1.0) / (4 * networks))
    return of_mean, (walks.std(axis=0, ddof=1) - std) / error


@pytest.mark.parametrize(
    "size",
    [SMALL, pytest.param(LARGE, marks=[pytest.mark.slow, pytest.mark.exhaustive])],
    ids=["small", "large"],
)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "glorot_uniform")) for name in INITIALIZERS],
)
def test_mean_and_spread_at_every_layer(name: str, size: tuple[int, int, int, int]) -> None:
    of_mean, of_std = in_standard_errors(name, *size)
    assert np.abs(of_mean).max() < 3.0
    assert np.abs(of_std).max() < 3.0


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_prediction_for_another_gain_fails(name: str) -> None:
    """5 % more in each of 24 steps is 1.2 nats, and a standard error is 0.15."""
    of_mean, _ = in_standard_errors(name, *SMALL, factor=1.05)
    assert np.abs(of_mean).max() > 3.0


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_walk_brings_its_own_prediction(name: str) -> None:
    """From the kernels' mean square and kurtosis; by its means it is closer than one for the nominal gain."""
    depth, width, _, seed = SMALL
    model = model_zoo.deep_mlp(
        depth,
        width,
        input_shape=(width,),
        kernel_initializer=INITIALIZERS[name][0],
        distribution="normal",
        seed=seed,
    )
    own = gradient_walk(model, np.ones((1, width))).prediction
    nominal = predicted(name, depth, width)
    assert own is not None
    # A kernel's mean square has a relative standard error of at most sqrt(2) / width, its root half of that.
    assert own.gain == pytest.approx(nominal.gain, rel=4 * 0.71 / width / np.sqrt(depth - 1))
    np.testing.assert_allclose(own.mean, nominal.mean, atol=4 * 0.71 / width * np.sqrt(depth - 1))
    np.testing.assert_allclose(own.std, nominal.std, rtol=1e-12)
