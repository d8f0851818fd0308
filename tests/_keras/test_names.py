"""Checks of the names of optimizers, initializers and activations."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from keras_rwinit._keras.names import check_activation_name, check_initializer_name, check_optimizer_name


@pytest.mark.parametrize(
    ("check", "names"),
    [
        (check_optimizer_name, ["adam", "sgd", "lion"]),
        (check_initializer_name, ["random_walk", "random_walk_relu", "he_normal", "orthogonal"]),
        (check_activation_name, ["tanh", "erf", "sin", "gelu_tanh", "celu(0.5)", "leaky_relu(-0.5)"]),
    ],
)
def test_known_names(check: Callable[[str], str], names: list[str]) -> None:
    random.seed(0)
    assert [check(name) for name in names] == names
    # A check draws no number that anybody else would have drawn.
    following = random.random()
    random.seed(0)
    assert random.random() == following


@pytest.mark.parametrize("name", ["no_such_name", "", 3, None, ["tanh"]])
def test_unknown_names(name: Any) -> None:
    for check, message in (
        (check_optimizer_name, "`optimizer` must be (a name, as in 'adam'|a Keras optimizer, such as adam)"),
        (check_initializer_name, "`initializer` must be (a name, as in|random_walk or a Keras initializer)"),
        (check_activation_name, "`activation` must be (a name, as in 'tanh'|the name of an element-wise)"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*Received: "):
            check(name)


def test_the_message_names_the_argument() -> None:
    with pytest.raises(ValueError, match="`compare` must be random_walk or a Keras initializer.*'he'"):
        check_initializer_name("he", "compare")


def test_shaped_activations_need_a_depth() -> None:
    with pytest.raises(ValueError, match="'shaped\\(relu\\)' is shaped for a depth.* Pass `depth`"):
        check_activation_name("shaped(relu)")
    assert check_activation_name("shaped(relu)", depth=9) == "shaped(relu)"


def test_activations_across_units() -> None:
    with pytest.raises(ValueError, match="must act element by element, and 'softmax' mixes the units"):
        check_activation_name("softmax")
