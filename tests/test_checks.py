"""Arguments that have become keyword-only, and the checks of numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_rwinit import data, gain, initializers, model_zoo, plan_width, predict_walk, simulate_walk
from keras_rwinit._checks import (
    check_count,
    check_positive,
    check_seed,
    closest_name,
    deprecate_positional,
    did_you_mean,
)
from keras_rwinit._keras.names import check_initializer_name, check_optimizer_name
from keras_rwinit.training.strategies.select import make_strategy


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: gain("tahn", 100, 50), "tanh"),
        (lambda: gain("GeLU", 100, 50), "gelu"),
        (lambda: gain("leaky_rleu(0.1)", 100), "leaky_relu(0.1)"),
        (lambda: gain("shapd(gelu)", 100, 50), "shaped(gelu)"),
        (lambda: gain("shaped(gleu)", 100, 50), "gelu"),
        (lambda: initializers.RandomWalk("sigmiod"), "sigmoid"),
        (lambda: gain("tanh", 100, distribution="orthogonl"), "orthogonal"),
        (lambda: data.load("digts"), "digits"),
        (lambda: model_zoo.from_preset("digits_tahn_1000"), "digits_tanh_1000"),
        (lambda: check_initializer_name("he_nromal"), "he_normal"),
        (lambda: check_initializer_name("random_wlk"), "random_walk"),
        (lambda: check_optimizer_name("admw"), "adamw"),
        (lambda: make_strategy("mirored", 8), "mirrored"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_is_near(call: Callable[[], Any], meant: str) -> None:
    with pytest.raises(ValueError, match=r"Did you mean ") as caught:
        call()
    assert str(caught.value).endswith(f". Did you mean {meant!r}?")


@pytest.mark.parametrize("name", ["qqq", "", "relu(0.1)", "(", None, 3])
def test_no_name_is_guessed_where_none_is_near(name: Any) -> None:
    with pytest.raises(ValueError, match="`activation` must be") as caught:
        gain(name, 100, 50)
    assert "Did you mean" not in str(caught.value)


def test_names_that_are_near() -> None:
    assert closest_name("Tahn", ["sin", "tanh"]) == "tanh"
    assert closest_name("gelu", []) is None
    assert did_you_mean("tanh", ["tanh"]) == did_you_mean(None, ["none"]) == ""


@deprecate_positional("second", "third")
def join(first: int, *, second: int = 2, third: int = 3, fourth: int = 4) -> tuple[int, int, int, int]:
    """Joins."""
    return first, second, third, fourth


def test_keywords_pass_without_a_warning() -> None:
    assert join(1) == (1, 2, 3, 4)
    assert join(first=1, third=5, fourth=6) == (1, 2, 5, 6)
    assert (join.__name__, join.__doc__) == ("join", "Joins.")
    assert str(inspect.signature(join)).startswith("(first: 'int', *, second: 'int' = 2, third")


def test_positions_pass_with_a_warning_at_the_caller() -> None:
    with pytest.warns(DeprecationWarning, match=r"Pass second=, third= by keyword: join\(\)") as caught:
        assert join(1, 7, 8) == (1, 7, 8, 4)  # type: ignore[misc]
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"Pass second= by keyword: join\(\)"):
        assert join(1, 7, third=9) == (1, 7, 9, 4)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((1, 2, 3, 4), {}), ((1, 2), {"second": 3}), ((), {}), ((1,), {"fifth": 5})],
    ids=["too many", "twice", "too few", "unknown"],
)
def test_wrong_calls_raise_as_they_do_in_python(arguments: tuple[int, ...], keywords: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"join\(\)"):  # and no warning, which pytest makes an error
        join(*arguments, **keywords)


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        (gain, ("tanh", 30, 5, "orthogonal"), {"distribution": "orthogonal"}),
        (predict_walk, ("tanh", 30, 5, 1.2, "uniform"), {"gain": 1.2, "distribution": "uniform"}),
        (
            simulate_walk,
            ("tanh", 30, 5, 1.2, 10, "orthogonal", 3),
            {"gain": 1.2, "samples": 10, "distribution": "orthogonal", "seed": 3},
        ),
        (plan_width, (5, 1.0, "linear", "normal"), {"activation": "linear", "distribution": "normal"}),
    ],
)
def test_functions_of_the_theory(
    function: Callable[..., Any], positional: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """What follows the depth passes by keyword, and by position for one more release."""
    with pytest.warns(DeprecationWarning, match=rf"by keyword: {function.__name__}\(\)"):
        old = function(*positional)
    new = function(*positional[: -len(keywords)], **keywords)
    np.testing.assert_equal(getattr(old, "__dict__", old), getattr(new, "__dict__", new))
    parameters = inspect.signature(function).parameters
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in keywords)


def test_numbers() -> None:
    assert check_count("depth", np.int64(3)) == 3
    assert check_count("seed", 10**20, minimum=0) == 10**20
    assert check_positive("gain", np.float32(0.5)) == 0.5
    assert check_seed(np.int32(-4)) == -4
    assert check_seed(None) is None
    with pytest.raises(
        ValueError, match="`depth` must be at most 1,000,000,000,000,000. Received: a number of 21"
    ):
        check_count("depth", 10**20)
    with pytest.raises(ValueError, match="`seed` must be an integer or None. Received: seed=True"):
        check_seed(True)
    for wrong in (True, "1", 0, -1.0, float("nan"), float("inf"), None, 1j):
        with pytest.raises(ValueError, match="`gain` must be a finite number above 0. Received: gain="):
            check_positive("gain", wrong)
