"""`deep_mlp(bias_stddev=)`: which biases it draws, and what they do to the inputs of deep ReLU networks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import by_layer, run

from keras_rwinit import model_zoo
from keras_rwinit.theory import gain

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def small(**arguments: Any) -> keras.Model:
    return model_zoo.deep_mlp(
        **{"depth": 5, "width": 20, "input_shape": (6,), "classes": 3, "seed": 1, **arguments}
    )


@pytest.mark.backends
@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "plain"])
def test_random_biases(stacked: bool) -> None:
    """Normal ones in every hidden layer, which the classifier's balance; kernels are as without them."""
    model = small(width=400, bias_stddev=0.1, stacked=stacked)
    *biases, last = (weight for weight in by_layer(model) if weight.ndim == 1)
    assert last.any()
    np.testing.assert_allclose(run(model, 0 * X), 0.0, atol=1e-6)
    for bias in biases:
        assert np.mean(bias) == pytest.approx(0.0, abs=4 * 0.1 / 400**0.5)
        assert np.std(bias) == pytest.approx(0.1, rel=4 / 800**0.5)
    assert len({bias.tobytes() for bias in biases}) == len(biases)
    unbiased = small(width=400, distribution="normal")
    for kernel, without in zip(by_layer(model)[::2], by_layer(unbiased)[::2], strict=True):
        np.testing.assert_array_equal(kernel, without)
    *drawn, last_of_other = by_layer(small(width=400, bias_stddev=0.1, stacked=not stacked))
    for weight, other in zip(by_layer(model)[:-1], drawn, strict=True):
        np.testing.assert_array_equal(weight, other)
    # Computed, not drawn: sums of 400 products of some 0.01, each off by 6e-8 of it at most.
    np.testing.assert_allclose(last, last_of_other, rtol=0.0, atol=1e-6)
    by_zeros = small(kernel_initializer="zeros", bias_stddev=0.1, stacked=stacked)
    assert by_layer(by_zeros)[1].any()


@pytest.mark.parametrize(
    ("arguments", "unbiased"),
    [
        ({"bias_stddev": 0.1, "input_gain": 0.002}, True),
        ({"distribution": "normal"}, False),
        pytest.param(
            {"bias_stddev": 0.1, "input_gain": 0.002, "gain": 1.02 * gain("relu", 100)},
            False,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["random biases", "zero biases", "wrong gain"],
)
def test_with_random_biases_differences_of_inputs_do_an_unbiased_walk(
    arguments: dict[str, Any], unbiased: bool
) -> None:
    """Mean growth of log distances over 12 networks of 100 ReLU layers: zero within three standard errors?"""
    grown = []
    for seed in range(12):
        weights = by_layer(small(depth=100, width=100, seed=seed, **arguments))[:-2]
        pairs = np.random.default_rng(0).standard_normal((2, 15, 6))
        lengths = []
        for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
            pairs = np.maximum(pairs @ kernel.astype(float) + bias, 0.0)
            lengths.append(np.linalg.norm(pairs[0] - pairs[1], axis=1))
        grown.append(np.mean(np.log(lengths[-1] / lengths[0])))
    error = np.std(grown, ddof=1) / 12**0.5
    assert (abs(np.mean(grown)) < 3.0 * error) == unbiased


@pytest.mark.parametrize(("stddev", "dtype"), [(1e39, None), (1e-300, None), (1e5, "float16")])
def test_biases_that_the_dtype_does_not_hold(stddev: float, dtype: str | None) -> None:
    with pytest.raises(ValueError, match=r"`bias_stddev` must leave the weights in the range of float"):
        small(bias_stddev=stddev, dtype=dtype)


def test_biases_beyond_the_dtype_are_refused() -> None:
    with pytest.raises(ValueError, match="leave the range of the dtype. Received: dtype='float32'"):
        small(gain=1e10, bias_stddev=1.0)
