"""Whether a walk fits the range of a dtype, with bounds worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_rwinit.theory import WalkPrediction, predict_walk
from keras_rwinit.theory.float_range import (
    FloatRange,
    NormPrediction,
    find_range_risk,
    find_range_violation,
    float_range,
    predict_norms,
)

HALF = float_range("float16")


def norms(mean: float = 0.0, std: float = 0.0, level: float = 0.0, level_std: float = 0.0) -> NormPrediction:
    """Two hidden layers whose first gradient and last activations are as given."""
    walk = WalkPrediction(
        gain=1.0, mean=np.array([mean, 0.0]), std=np.array([std, 0.0]), dead_probability=0.0
    )
    return NormPrediction(gradient=walk, level=np.array([0.0, level]), level_std=np.array([0.0, level_std]))


@pytest.mark.parametrize(
    ("dtype", "smallest", "largest"),
    [
        ("float16", 2.0**-14, 65504.0),
        ("bfloat16", 2.0**-126, 255.0 * 2.0**120),
        ("float32", 2.0**-126, (2.0 - 2.0**-23) * 2.0**127),
        ("float64", 2.0**-1022, (2.0 - 2.0**-52) * 2.0**1023),
    ],
)
def test_ranges(dtype: str, smallest: float, largest: float) -> None:
    assert float_range(dtype) == FloatRange(dtype, math.log(smallest), math.log(largest))
    scaled = float_range(dtype, loss_scale=2.0**15)
    assert scaled.low == pytest.approx(math.log(smallest) - 15.0 * math.log(2.0))
    assert scaled.high == math.log(largest)


@pytest.mark.parametrize(
    ("fits", "leaves", "quantity"),
    [
        (norms(mean=19.3), norms(mean=19.5), "gradient"),
        (norms(mean=-19.3), norms(mean=-19.5), "gradient"),
        (norms(std=6.4), norms(std=6.5), "gradient"),
        (norms(level=9.6), norms(level=9.8), "activations"),
        (norms(level=-9.6), norms(level=-9.8), "activations"),
        (norms(level_std=3.2), norms(level_std=3.3), "activations"),
        (norms(), norms(mean=math.nan), "gradient"),
        (norms(), norms(level=math.nan), "activations"),
    ],
)
def test_shortfall(fits: NormPrediction, leaves: NormPrediction, quantity: str) -> None:
    """float16: 20.8 - 1.4 nats for the gradient, 11.1 - 1.4 for the activations, three deviations each."""
    assert find_range_risk(fits, HALF) is None
    shortfall = find_range_risk(leaves, HALF)
    assert shortfall is not None
    assert shortfall.quantity == quantity
    assert not shortfall.needed <= shortfall.available
    assert shortfall.available == pytest.approx({"gradient": 19.41, "activations": 9.70}[quantity], abs=0.01)


@pytest.mark.parametrize(
    ("stays", "leaves", "change", "end"),
    [
        (
            norms(mean=-12.6, std=1.0),
            norms(mean=-12.8, std=1.0),
            "the gradient vanishes: ln|delta| falls by 13 +- 1 nats",
            -10,
        ),
        (
            norms(mean=14.0, std=1.0),
            norms(mean=14.2, std=1.0),
            "the gradient explodes: ln|delta| grows by 14 +- 1 nats",
            11,
        ),
        (
            norms(level=-12.6, level_std=1.0),
            norms(level=-12.8, level_std=1.0),
            "the activations vanish: their log-norm falls by 13 +- 1 nats",
            -10,
        ),
        (
            norms(level=14.0, level_std=1.0),
            norms(level=14.2, level_std=1.0),
            "the activations explode: their log-norm grows by 14 +- 1 nats",
            11,
        ),
    ],
)
def test_violation(stays: NormPrediction, leaves: NormPrediction, change: str, end: int) -> None:
    """A violation needs three standard deviations on the wrong side of the end."""
    assert find_range_violation(stays, HALF) is None
    assert find_range_violation(leaves, HALF) == f"{change} over 2 layers, and float16 ends at {end}"


def test_a_walk_beyond_all_numbers() -> None:
    message = "the gradient's log-norm over 2 layers is beyond all floating-point numbers"
    for mean in (math.inf, -math.inf, math.nan):
        assert find_range_violation(norms(mean=mean), HALF) == message


def test_norms_are_those_of_the_prediction() -> None:
    """relu at twice the gain: the gradient as `predict_walk` has it, activations up by ln 2 a layer."""
    right = predict_norms("relu", 100, 30, gain=predict_walk("relu", 100, 30).gain)
    double = predict_norms("relu", 100, 30, gain=2.0 * right.gradient.gain)
    walk = predict_walk("relu", 100, 30, gain=2.0 * right.gradient.gain)
    np.testing.assert_array_equal(double.gradient.mean, walk.mean)
    np.testing.assert_allclose(np.diff(double.level - right.level), math.log(2.0), rtol=1e-9)
    assert double.level_std[0] == 0.0
    assert (np.diff(double.level_std) > 0.0).all()


def test_overflow_of_the_prediction_is_no_warning() -> None:
    assert find_range_violation(predict_norms("exponential", 20, 50, gain=5.0), HALF) is not None
