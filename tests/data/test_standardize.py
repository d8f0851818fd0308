"""`data.standardize`: zero mean and unit variance, constant columns, and bad arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from data_helpers import ROUNDING, column_errors
from hostile import Target, draw_calls, find_fault

from keras_rwinit import data


@pytest.fixture
def offset_data() -> tuple[np.ndarray, np.ndarray]:
    """More rows than one block, offsets and scales from 1e-3 to 1e4, a shifted test set."""
    random = np.random.default_rng(0)
    scale, offset = np.array([1e-3, 1.0, 1e4]), np.array([1.0, -1e3, 1e4])
    train = offset + scale * random.standard_normal((10_000, 3))
    test = offset + scale * (3.0 + 2.0 * random.standard_normal((500, 3)))
    return train, test


class TestStandardize:
    def test_zero_mean_and_unit_variance_up_to_float32_rounding(self, offset_data):
        z = data.standardize(offset_data[0])
        assert z.dtype == np.float32
        mean_error, std_error = column_errors(z)
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_one_array_gives_an_array_and_several_a_tuple(self):
        x = [[1.0], [3.0]]
        assert data.standardize(x).shape == (2, 1)
        assert [z.shape for z in data.standardize(x, [[2.0]])] == [(2, 1), (1, 1)]

    def test_float32_statistics_would_fail_that_tolerance(self, offset_data):
        train = offset_data[0].astype(np.float32)
        mean_error, std_error = column_errors((train - train.mean(axis=0)) / train.std(axis=0))
        assert max(mean_error, std_error) > 10 * ROUNDING

    def test_test_set_uses_training_statistics(self, offset_data):
        train, test = offset_data
        expected = (test - train.mean(axis=0)) / train.std(axis=0)
        z_train, z_test = data.standardize(train, test)
        np.testing.assert_allclose(z_test, expected, rtol=2 * ROUNDING, atol=1e-9)
        np.testing.assert_array_equal(z_train, data.standardize(train))

    def test_test_statistics_would_give_another_answer(self, offset_data):
        train, test = offset_data
        with_test_statistics = (test - test.mean(axis=0)) / test.std(axis=0)
        _, z_test = data.standardize(train, test)
        assert np.abs(z_test - with_test_statistics).max(axis=0).min() > 1.0

    @pytest.mark.parametrize("exponent", [-1000, -60, 60, 1000])
    def test_a_power_of_two_cancels_exactly(self, offset_data, exponent):
        train, test = offset_data
        expected = data.standardize(train, test)
        scaled = data.standardize(np.ldexp(train, exponent), np.ldexp(test, exponent))
        for one, other in zip(expected, scaled, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_values_at_the_float64_limit(self):
        z = data.standardize([[1.7e308], [-1.7e308]])
        np.testing.assert_array_equal(z, [[1.0], [-1.0]])

    @pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e30])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_constant_dimension_is_exactly_zero_everywhere(self, value, dtype):
        with np.errstate(over="ignore"):
            value = np.minimum(np.dtype(dtype).type(value), np.finfo(dtype).max)
        train = np.full((1000, 2), value, dtype)
        train[:, 1] = np.arange(1000)
        test = np.array([[5.0, 1.0], [0.0, 2.0]], dtype)
        for z in data.standardize(train, test):
            assert not z[:, 0].any()
            assert not np.signbit(z[:, 0]).any()
            assert z[:, 1].all()

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_variation_by_rounding_alone_counts_as_constant(self, dtype):
        number = np.dtype(dtype).type
        column = np.array([number(0.1) + number(0.2), 0.3, np.nextafter(number(0.3), number(1))])
        assert np.ptp(column.astype(dtype)) > 0
        z = data.standardize(column.astype(dtype)[:, None])
        np.testing.assert_array_equal(z, 0.0)

    @pytest.mark.parametrize(
        "column",
        [
            np.array([1.0, 1.0 + 64 * np.finfo(np.float32).eps], np.float32),
            np.array([10**6, 10**6 + 1]),
            np.array([1e-300, 2e-300]),
            np.array([False, True]),
        ],
        ids=["64 roundings", "integers", "tiny", "bool"],
    )
    def test_small_but_real_variation_is_kept(self, column):
        z = data.standardize(column[:, None])
        np.testing.assert_array_equal(z, [[-1.0], [1.0]])

    def test_a_pixel_lit_in_one_image_is_kept(self):
        train = np.zeros((5000, 1), np.float32)
        train[17] = 1 / 255
        mean_error, std_error = column_errors(data.standardize(train))
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_arguments_are_left_alone(self, offset_data):
        train, _ = offset_data
        before = train.copy()
        data.standardize(train)
        np.testing.assert_array_equal(train, before)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ([np.zeros((0, 3))], r"at least one example.*shape \(0, 3\)"),
            ([np.zeros((3, 0))], r"at least one feature.*shape \(3, 0\)"),
            ([np.zeros(3)], r"`x_train` must have rank 2.*shape \(3,\).*flatten"),
            ([np.zeros((2, 4, 4))], r"rank 2.*shape \(2, 4, 4\).*reshape"),
            ([[[0.0], [np.nan]]], r"`x_train` must be finite.*1 NaN and 0 inf.*x_train\[1, 0\]"),
            ([[[np.inf], [-np.inf]]], r"must be finite.*0 NaN and 2 inf.*drop"),
            ([np.zeros((2, 2), complex)], r"real numbers.*complex128.*astype"),
            ([[["a"], ["b"]]], r"real numbers.*dtype <U1"),
            ([[[1.0], [1.0, 2.0]]], r"rectangular.*unequal length"),
            (
                [np.eye(3), np.zeros((2, 4))],
                r"as many features as `x_train`, 3.*4 in `others\[0\]",
            ),
            ([np.eye(3), np.eye(3), [[np.nan] * 3]], r"`others\[1\]` must be finite.*3 NaN"),
            ([np.eye(3), np.zeros((0, 3))], r"`others\[0\]` must hold at least one example"),
            ([np.eye(3), np.full((1, 3), 1e299)], r"`others\[0\]` has values.*float32 does not hold"),
            ([[[1e-300], [2e-300]], [[1e300]]], r"`others\[0\]` has values.*float32 does not hold"),
        ],
    )
    def test_bad_arrays(self, arrays, message):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            data.standardize(*arrays)


def standardize_two(x_train: Any, others: Any) -> Any:
    return data.standardize(x_train, others)


def finite_arrays(result: Any, arguments: Mapping[str, Any]) -> str | None:
    shapes = [np.shape(values) for values in arguments.values()]
    good = [z.shape for z in result] == shapes and all(np.isfinite(z).all() for z in result)
    return None if good else f"returns {result}"


RNG = np.random.default_rng(0)
ARRAYS: tuple[Any, ...] = (
    *(RNG.normal(size=(5, 3)) * scale for scale in (1.0, 1e30, 1e300, 1e-30, 1e-320)),
    *(np.full((3, 3), 5e-324), np.zeros((3, 3)), np.array([[1e308] * 3, [-1e308] * 3]), np.eye(3) * np.nan),
    *(np.eye(3, dtype=dtype) for dtype in ("bool", "float16", "uint8", "longdouble", "object", "complex64")),
    *(np.array([[2**63, 0, 1]], "uint64"), np.eye(2, 3).tolist(), [[1], [2, 3]], np.array([["a"] * 3])),
    *(np.zeros((0, 3)), np.zeros((3, 0)), np.ones((2, 3), "datetime64[D]")),
)
TARGET = Target(standardize_two, {"x_train": ARRAYS, "others": ARRAYS}, finite_arrays, hostility=0.15)


@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(2000, 1, marks=pytest.mark.slow)])
def test_hostile_calls(count: int, seed: int) -> None:
    faults = [fault for call in draw_calls([TARGET], count, seed) if (fault := find_fault(call))]
    assert not faults, "\n".join(faults)
