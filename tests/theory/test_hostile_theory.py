"""Hostile calls of the theory's public functions: a finite result, or a ValueError that names an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hostile import Call, Target, draw_calls, find_fault

from keras_rwinit.theory import (
    ACTIVATIONS,
    DISTRIBUTIONS,
    Activation,
    CorrelationPrediction,
    WalkPrediction,
    effective_rank,
    gain,
    paper_gain,
    paper_log_variance,
    plan_width,
    predict_correlation,
    predict_walk,
    shape_activation,
    simulate_correlation,
    simulate_walk,
)
from keras_rwinit.theory.activations import SHAPED

ACTIVATION_POOL = (*ACTIVATIONS, "leaky_relu(0.5)", "elu(1e-30)", "celu(0)", "leaky_relu(1e300)", "elu(-3)")
ACTIVATION_POOL += (
    "squareplus(-1)",
    "celu(-2)",
    "leaky_relu(nan)",
    np.arctan,
    np.sign,
    np.sum,
    np.exp,
    np.abs,
)
WIDTHS = (1, 2, 3, 5, 12, 33, 100, 1000, 10**6)
DEPTHS = (1, 2, 3, 5, 12, 40, 300, 2000)


def positive_float(result: Any, arguments: Mapping[str, Any]) -> str | None:
    good = isinstance(result, float) and np.isfinite(result) and result > 0.0
    return None if good else f"returns {result!r}"


def prediction(result: WalkPrediction, arguments: Mapping[str, Any]) -> str | None:
    good = np.isfinite(result.mean).all() and np.isfinite(result.std).all() and (result.std >= 0.0).all()
    good = good and result.mean.shape == (arguments["depth"],) and 0.0 <= result.dead_probability <= 1.0
    return None if good else f"returns {result}"


def walks(result: Any, arguments: Mapping[str, Any]) -> str | None:
    """A gradient that died is -inf from some layer on, and nan only in a whole row; nothing is +inf."""
    good = result.shape == (arguments["samples"], arguments["depth"]) and not np.isposinf(result).any()
    nan = np.isnan(result)
    return None if good and (nan.all(axis=1) == nan.any(axis=1)).all() else f"returns {result}"


def width(result: Any, arguments: Mapping[str, Any]) -> str | None:
    return None if isinstance(result, int) and result >= 1 else f"returns {result!r}"


def correlations(result: CorrelationPrediction, arguments: Mapping[str, Any]) -> str | None:
    good = np.isfinite(result.mean).all() and np.isfinite(result.std).all() and (result.std >= 0.0).all()
    good = good and result.mean.shape == (arguments["depth"],) and (abs(result.mean) < 1.0 + 1e-9).all()
    return None if good else f"returns {result}, {result.mean}"


def drawn_correlations(result: Any, arguments: Mapping[str, Any]) -> str | None:
    """A row is nan from the layer on that passes nothing."""
    good = result.shape == (arguments["samples"], arguments["depth"]) and not (abs(result) > 1.0).any()
    nan = np.isnan(result)
    return None if good and (nan[:, 1:] >= nan[:, :-1]).all() else f"returns {result}"


def finite_function(result: Activation, arguments: Mapping[str, Any]) -> str | None:
    x = np.linspace(-5.0, 5.0, 11)
    values = np.array([result.function(x), result.slope_at(x)])
    return None if np.isfinite(values).all() else f"returns {result.name}, {values}"


def rank(result: Any, arguments: Mapping[str, Any]) -> str | None:
    good = isinstance(result, float) and 1.0 - 1e-9 < result < np.size(arguments["batch"]) + 1e-9
    return None if good else f"returns {result!r}"


CORRELATIONS = (-1.0, -0.5, 0.0, 0.3, 0.999, 1.0, 1)
NORMAL = np.random.default_rng(0).normal(size=(5, 3))
BATCHES: tuple[Any, ...] = (
    *(NORMAL * scale for scale in (1.0, 1e300, 1e-320)),
    *(np.zeros((2, 3)), np.full((3, 2), 5e-324), np.array([[1e308, -1e308], [1e-308, 1.0]]), NORMAL * 1j),
    *(np.eye(3, dtype=dtype) for dtype in ("bool", "float16", "longdouble", "object")),
    *(np.ones((4, 2, 2)), [1, 2, 3], [[1], [2, 3]], np.zeros((0, 3)), np.zeros((3, 0)), NORMAL * np.nan),
)
GAINS = (None, None, 0.5, 1.0, 1.5, 20.0, 1e-10, 1e10, 1e39)
TARGETS = (
    Target(
        gain,
        {
            "activation": ACTIVATION_POOL,
            "width": WIDTHS,
            "depth": (None, *DEPTHS, 10**6, 10**12),
            "distribution": tuple(DISTRIBUTIONS),
            "refine": (False,),
        },
        positive_float,
        0.12,
        may_warn=True,
    ),
    Target(
        gain,
        {
            "activation": ACTIVATION_POOL,
            "width": (1, 2, 3, 8),
            "depth": (1, 2, 3, 5),
            "distribution": ("normal", "orthogonal", "uniform"),
            "refine": (True,),
        },
        positive_float,
        0.03,
    ),
    Target(
        predict_walk,
        {
            "activation": ACTIVATION_POOL,
            "width": WIDTHS,
            "depth": (*DEPTHS, 10**12),
            "gain": GAINS,
            "distribution": tuple(DISTRIBUTIONS),
        },
        prediction,
        0.12,
        may_warn=True,
    ),
    Target(
        simulate_walk,
        {
            "activation": ACTIVATION_POOL,
            "width": (1, 2, 3, 8, 20),
            "depth": (1, 2, 3, 8, 40),
            "gain": GAINS,
            "samples": (1, 2, 5),
            "distribution": tuple(DISTRIBUTIONS),
            "seed": (None, 0, -3, 10**30),
        },
        walks,
        0.08,
        may_warn=True,
    ),
    Target(
        plan_width,
        {
            "depth": (1, 2, 5, 30, 200, 500),
            "spread": (0.01, 0.1, 1.0, 5.0, 1e3, 1e-6),
            "activation": ACTIVATION_POOL,
            "distribution": tuple(DISTRIBUTIONS),
        },
        width,
        0.08,
    ),
    Target(
        predict_correlation,
        {
            "activation": ACTIVATION_POOL,
            "width": (1, 2, 3, 5, 12, 33),
            "depth": (1, 2, 3, 5, 12, 40),
            "correlation": CORRELATIONS,
            "gain": GAINS,
            "distribution": tuple(DISTRIBUTIONS),
        },
        correlations,
        0.08,
        may_warn=True,
    ),
    Target(
        simulate_correlation,
        {
            "activation": ACTIVATION_POOL,
            "width": (1, 2, 3, 8, 20),
            "depth": (1, 2, 3, 8, 40),
            "correlation": CORRELATIONS,
            "gain": GAINS,
            "samples": (1, 2, 5),
            "distribution": tuple(DISTRIBUTIONS),
            "seed": (None, 0, -3, 10**30),
        },
        drawn_correlations,
        0.08,
        may_warn=True,
    ),
    Target(
        shape_activation,
        {
            "name": (*SHAPED, "selu", "linear"),
            "depth": (*DEPTHS, 10**6, 10**12),
            "correlation": (0.01, 0.5, 0.9, 0.99, 0.0, 1.0),
        },
        finite_function,
        0.12,
    ),
    Target(effective_rank, {"batch": BATCHES}, rank),
    Target(paper_gain, {"activation": ("relu", "linear"), "width": WIDTHS}, positive_float),
    Target(paper_log_variance, {"width": WIDTHS}, positive_float),
)


def is_short(call: Call) -> bool:
    """Some calls take minutes, as their docstrings say, unless the network is small or far too large."""
    width, depth = call.arguments.get("width"), call.arguments.get("depth")
    if call.target.function in (predict_correlation, simulate_correlation, simulate_walk):
        sizes = [call.arguments.get(name) for name in ("width", "depth", "samples")]
        return not any(isinstance(size, int | float | np.number) and 1000 < size < 1e11 for size in sizes)
    if call.arguments.get("refine") is not True or isinstance(width, bool) or isinstance(depth, bool):
        return True
    units = [size for size in (width, depth) if isinstance(size, int | np.integer)]
    return len(units) < 2 or min(units) < 1 or int(units[0]) * int(units[1]) <= 40


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        (16, 0),
        *(pytest.param(40, seed, marks=pytest.mark.slow) for seed in range(1, 4)),
        *(
            pytest.param(500, seed, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for seed in range(100, 110)
        ),
    ],
)
def test_hostile_calls(count: int, seed: int) -> None:
    calls = filter(is_short, draw_calls(TARGETS, count, seed))
    # Narrow networks are simulated, in `plan_width` several of them.
    faults = [fault for call in calls if (fault := find_fault(call, seconds=30))]
    assert not faults, "\n".join(faults)
