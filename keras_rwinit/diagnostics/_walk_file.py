"""The form in which a `GradientWalk` is kept in a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory import WalkPrediction
from keras_rwinit.theory.correlation import CorrelationPrediction

from ._correlation import WalkCorrelation

__all__ = [
    "FORMAT",
    "GradientWalkContent",
    "describe_correlation",
    "describe_prediction",
    "read_correlation",
    "read_prediction",
    "to_array",
]

Array = NDArray[np.float64]

FORMAT = "keras_rwinit.GradientWalk/1"
"""Says that a file holds a `GradientWalk`, and in which form."""


# No logarithm of a norm and no number of steps comes near it.
_LARGEST = 1e100


class PredictionContent(TypedDict):
    """`WalkPrediction` as numbers and lists of numbers."""

    gain: float
    mean: list[float]
    std: list[float]
    dead_probability: float


class CorrelationPredictionContent(TypedDict):
    """`CorrelationPrediction` as numbers and lists of numbers."""

    gain: float
    correlation: float
    mean: list[float]
    std: list[float]
    simulated: bool


class CorrelationContent(TypedDict):
    """`WalkCorrelation` as numbers and lists of numbers."""

    forward: list[float]
    backward: list[float]
    effective_rank: list[float]
    inputs: float
    inputs_rank: float
    prediction: CorrelationPredictionContent | None


class GradientWalkContent(TypedDict):
    """`GradientWalk` as numbers, strings and lists; see its attributes of the same names."""

    format: str
    verdict: str
    drift: float
    example_spread: float
    dtype: str
    layer_names: list[str]
    backward: list[list[float]]
    forward: list[list[float]]
    weight_gradient: list[float]
    dead: list[float]
    prediction: PredictionContent | None
    waits: list[float]
    first_backward: list[list[float]]
    correlation: CorrelationContent | None
    repeats: list[bool]
    trained: bool
    initial_statistics: int
    unpredicted: str


def describe_prediction(prediction: WalkPrediction | None) -> PredictionContent | None:
    """Returns a prediction as numbers and lists."""
    if prediction is None:
        return None
    return {
        "gain": prediction.gain,
        "mean": prediction.mean.tolist(),
        "std": prediction.std.tolist(),
        "dead_probability": prediction.dead_probability,
    }


def read_prediction(content: PredictionContent | None) -> WalkPrediction | None:
    """Returns the prediction that `describe_prediction` described."""
    if content is None:
        return None
    return WalkPrediction(
        float(content["gain"]),
        to_array(content["mean"]),
        to_array(content["std"]),
        float(content["dead_probability"]),
    )


def describe_correlation(correlation: WalkCorrelation | None) -> CorrelationContent | None:
    """Returns what a walk has on pairs of examples as numbers and lists."""
    if correlation is None:
        return None
    prediction = correlation.prediction
    return {
        "forward": correlation.forward.tolist(),
        "backward": correlation.backward.tolist(),
        "effective_rank": correlation.effective_rank.tolist(),
        "inputs": correlation.inputs,
        "inputs_rank": correlation.inputs_rank,
        "prediction": None
        if prediction is None
        else {
            "gain": prediction.gain,
            "correlation": prediction.correlation,
            "mean": prediction.mean.tolist(),
            "std": prediction.std.tolist(),
            "simulated": prediction.simulated,
        },
    }


def read_correlation(content: CorrelationContent | None) -> WalkCorrelation | None:
    """Returns what `describe_correlation` described."""
    if content is None:
        return None
    prediction = content["prediction"]
    return WalkCorrelation(
        to_array(content["forward"]),
        to_array(content["backward"]),
        to_array(content["effective_rank"]),
        float(content["inputs"]),
        float(content["inputs_rank"]),
        None
        if prediction is None
        else CorrelationPrediction(
            float(prediction["gain"]),
            float(prediction["correlation"]),
            to_array(prediction["mean"]),
            to_array(prediction["std"]),
            bool(prediction["simulated"]),
        ),
    )


def to_array(content: Sequence[float] | Sequence[bool] | Sequence[list[float]]) -> Array:
    """Makes an array of numbers and of the names of those that are not finite."""
    values = np.asarray(content, dtype=object)
    if any(value is None for value in values.flat):  # NumPy would make nan of it
        raise ValueError("null is no number")
    array = values.astype(np.float64)
    if (np.abs(array[np.isfinite(array)]) > _LARGEST).any():
        raise ValueError(f"a number beyond {_LARGEST:g}, whose square may leave float64")
    return array
