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
    WalkPrediction,
    gain,
    paper_gain,
    paper_log_variance,
    plan_width,
    predict_walk,
    simulate_walk,
)

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
    Target(paper_gain, {"activation": ("relu", "linear"), "width": WIDTHS}, positive_float),
    Target(paper_log_variance, {"width": WIDTHS}, positive_float),
)


def is_short(call: Call) -> bool:
    """Refining takes minutes, as `gain` says, unless the network is small or far too large."""
    width, depth = call.arguments.get("width"), call.arguments.get("depth")
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
    faults = [fault for call in calls if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)
