"""Half-precision training of very deep networks, and the warning where float16 is too narrow for them."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import pytest

from keras_rwinit import data, model_zoo


def train(depth: int, policy: str, epochs: int) -> Any:
    keras.utils.set_random_seed(0)  # the same order of the examples for all
    digits = data.load("digits")
    model = model_zoo.deep_mlp(
        depth, 64, "tanh", input_shape=(64,), distribution="orthogonal", seed=0, dtype=policy
    )
    optimizer: Any = keras.optimizers.Adam(0.03 / depth)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(digits.x_train, digits.y_train, batch_size=32, epochs=epochs, verbose=0)
    return model.evaluate(digits.x_test, digits.y_test, verbose=0, return_dict=True)["accuracy"]


@pytest.mark.slow  # `test_optimizers.py` trains a stack in float16 by default
@pytest.mark.parametrize(
    ("policy", "depth", "epochs"),
    [
        pytest.param("mixed_float16", 30, 2, marks=pytest.mark.exhaustive),
        ("mixed_bfloat16", 100, 2),
        pytest.param("mixed_float16", 100, 2, marks=pytest.mark.exhaustive),
        pytest.param("mixed_bfloat16", 1000, 3, marks=pytest.mark.exhaustive),
        pytest.param("mixed_float16", 1000, 3, marks=pytest.mark.exhaustive),
    ],
)
def test_deep_networks_train_in_half_precision(policy: str, depth: int, epochs: int) -> None:
    """As in float32, to four standard errors of an accuracy near 0.92 over 360 test images, 0.06."""
    accuracy = train(depth, policy, epochs)
    assert accuracy > train(depth, "float32", epochs) - 0.06
    assert accuracy > 0.85


def build(activation: str, width: int, depth: int, **kwargs: Any) -> None:
    model_zoo.deep_mlp(depth, width, activation, seed=0, **{"dtype": "mixed_float16", **kwargs})


def test_a_walk_wider_than_float16_is_said_beforehand() -> None:
    """1000 ReLU layers of width 100 spread by three times 3.7 nats, and activations of size one have 9.7."""
    with pytest.warns(
        UserWarning,
        match="float16 may not hold the activations of 1000 relu layers of width 100.*"
        "spread by 11.*room for 9.7.*mixed_bfloat16",
    ):
        build("relu", 100, 1000, distribution="normal")
    with pytest.warns(UserWarning, match="float16 may not hold"):
        build("linear", 100, 300, gain=0.95)


@pytest.mark.parametrize(
    "network",
    [
        {"activation": "relu", "width": 100, "depth": 250},
        {"activation": "tanh", "width": 64, "depth": 1000, "distribution": "orthogonal"},
        {"activation": "relu", "width": 100, "depth": 1000, "dtype": "mixed_bfloat16"},
        {"activation": "relu", "width": 100, "depth": 100, "kernel_initializer": "he_normal"},
    ],
    ids=str,
)
def test_what_float16_can_hold_passes_in_silence(network: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(**network)
