"""The sizes of a network's derivatives: exact kernels, networks of matrices, Fourier features, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_rwinit.theory import Activation, gain, input_gain, predict_derivatives

Array = NDArray[np.float64]

WITHIN = 3.0  # standard errors


# Covariances of f(a) and f(b) for normal a and b of variances p, q and covariance r, in closed form:
# Williams, Neural Computation 10 (1998), for erf; the expectation of exp(i (a +- b)) for sin.
EXACT: dict[str, Callable[[mpmath.mpf, mpmath.mpf, mpmath.mpf], mpmath.mpf]] = {
    "erf": lambda p, q, r: 2 / mpmath.pi * mpmath.asin(2 * r / mpmath.sqrt((1 + 2 * p) * (1 + 2 * q))),
    "sin": lambda p, q, r: mpmath.exp(-(p + q) / 2) * mpmath.sinh(r),
    "linear": lambda p, q, r: r,
}


def differentiate_kernel(name: str, layer: int, hidden: float, first: float, bias: float, x: float) -> Array:
    """The covariance of a layer's value and derivatives: the derivatives of the kernel of two inputs."""

    def kernel(s: mpmath.mpf, t: mpmath.mpf) -> mpmath.mpf:
        p, q, r = (first**2 * (x + u) * (x + v) + bias**2 for u, v in ((s, s), (t, t), (s, t)))
        for _ in range(layer - 1):
            p, q, r = (hidden**2 * EXACT[name](*of) for of in ((p, p, p), (q, q, q), (p, q, r)))
        return r

    with mpmath.workdps(30):
        entries = [[mpmath.diff(kernel, (0, 0), (i, j)) for j in range(3)] for i in range(3)]
    return np.array(entries, np.float64)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("layer", [1, 2, 4])
def test_the_covariances_are_the_derivatives_of_the_kernel(name: str, layer: int) -> None:
    predicted = predict_derivatives(
        name, 5, 1.3, input_gain=0.8, input_bias_stddev=0.4, point=(0.7,)
    ).covariance[layer - 1]
    exact = differentiate_kernel(name, layer, 1.3, 0.8, 0.4, 0.7)
    np.testing.assert_allclose(predicted, exact, rtol=1e-9, atol=1e-12)


def test_a_slope_by_differences_is_as_good() -> None:
    known = predict_derivatives("tanh", 4, 1.2)
    found = predict_derivatives(Activation("mine", np.tanh, kinks=()), 4, 1.2)
    np.testing.assert_allclose(found.covariance, known.covariance, rtol=1e-7, atol=1e-9)


def draw_derivatives(name: str, width: int, depth: int, hidden: float, samples: int, seed: int) -> Array:
    """Mean squares over the units of the last hidden layer, and the output's squares, shape (samples, 3, 2).

    The derivatives along the first of two inputs are finite differences of networks with real matrices.
    """
    f = {"tanh": np.tanh, "sin": np.sin}[name]
    rng = np.random.default_rng(seed)
    step, x = 1e-3, np.array([0.5, -1.0])
    points = x + step * np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = np.empty((samples, 3, 2))
    for sample in range(samples):
        a = points @ rng.standard_normal((2, width)) * 0.7 / math.sqrt(2)
        for _ in range(depth - 1):
            a = f(a) @ rng.standard_normal((width, width)) * hidden / math.sqrt(width)
        # Many outputs of one network: the mean over them has less noise than one.
        u = f(a) @ rng.standard_normal((width, width)) * 2.0 / math.sqrt(width)
        for place, values in enumerate((a, u)):
            below, at, above = values
            derivatives = at, (above - below) / (2 * step), (above - 2 * at + below) / step**2
            found[sample, :, place] = [np.mean(each**2) for each in derivatives]
    return found


def deviations(drawn: Array, name: str, depth: int, hidden: float) -> Array:
    """How far the mean squares are from the predicted variances, in standard errors."""
    predicted = predict_derivatives(
        name, depth, hidden, input_gain=0.7, output_gain=2.0, point=(0.5, -1.0), axis=0
    )
    variances = np.diagonal(predicted.covariance, axis1=1, axis2=2)[-2:].T
    error = drawn.std(axis=0, ddof=1) / math.sqrt(len(drawn))
    return np.asarray((drawn.mean(axis=0) - variances) / error)


# The squares differ from those of infinite width by a share of about depth / width = 1 %, and their means
# have standard errors of 3 % (tanh, value) and more.
@pytest.mark.parametrize("name", ["tanh", "sin"])
def test_networks_of_matrices_have_these_derivatives(name: str) -> None:
    drawn = draw_derivatives(name, width=256, depth=4, hidden=1.2, samples=30, seed=1)
    assert np.abs(deviations(drawn, name, 4, 1.2)).max() < WITHIN


@pytest.mark.parametrize("name", ["tanh", "sin"])
def test_a_wrong_gain_is_not_what_networks_have(name: str) -> None:
    drawn = draw_derivatives(name, width=256, depth=4, hidden=1.2, samples=30, seed=1)
    assert np.abs(deviations(drawn, name, 4, 1.3)[1:]).min() > WITHIN


def test_the_unbiased_gain_keeps_the_first_derivative_and_not_the_second() -> None:
    """Both within a small factor over 100 layers, in which a gain of 0.9 or 1.5 changes them by powers."""
    unbiased = gain("tanh", 1000, 100, distribution="orthogonal")
    kept, lost, grown = (
        predict_derivatives("tanh", 100, used, point=(1.0, 0.0), axis=1) for used in (unbiased, 0.9, 1.5)
    )
    # From the second layer: the first is linear, without curvature.
    assert 0.5 < kept.first[-2] / kept.first[1] < 2.0
    assert 2.0 < kept.second[-2] / kept.second[1] < 20.0
    assert lost.first[-2] / lost.first[1] < 1e-4
    assert lost.second[-2] / lost.second[1] < 1e-3
    assert grown.first[-2] / grown.first[1] > 1e2
    assert grown.second[-2] / grown.second[1] > 1e5


def test_the_curvature_that_the_docstring_names() -> None:
    used = gain("tanh", 1000, 400, distribution="orthogonal")
    predicted = predict_derivatives("tanh", 400, used, point=(1.0, 0.0), axis=1)
    ratio = predicted.second**2 / predicted.first**4
    assert [float(f"{ratio[layer]:.3g}") for layer in (1, 10, 399)] == [2.62, 26.5, 106.0]


def test_the_output_has_a_gain_of_its_own() -> None:
    one, two = (predict_derivatives("tanh", 3, 1.1, output_gain=used) for used in (1.0, 2.0))
    np.testing.assert_array_equal(two.covariance[:-1], one.covariance[:-1])
    np.testing.assert_allclose(two.covariance[-1], 4.0 * one.covariance[-1])


def count_zeros(frequency: float, rng: np.random.Generator) -> int:
    """The sign changes over two units of x of a random network with a first layer of sines."""
    width, depth, hidden = 128, 3, 1.2
    first = input_gain("tanh", depth, hidden, frequency)
    x = np.linspace(-1.0, 1.0, 400)[:, None]
    h = np.sin(x @ (first * rng.standard_normal((1, width))) + rng.uniform(-np.pi, np.pi, width))
    for _ in range(depth - 1):
        h = np.tanh(h @ rng.standard_normal((width, width)) * hidden / math.sqrt(width))
    u = h @ rng.standard_normal(width)
    return int(np.count_nonzero(np.diff(np.sign(u))))


@pytest.mark.parametrize("frequency", [4.0, 15.0])
def test_a_network_has_as_many_zeros_as_the_signal(frequency: float) -> None:
    """Rice's formula: `frequency / pi` zeros per unit of a stationary normal process."""
    rng = np.random.default_rng(3)
    counts = np.array([count_zeros(frequency, rng) for _ in range(200)])
    error = counts.std(ddof=1) / math.sqrt(len(counts))
    assert abs(counts.mean() - 2.0 * frequency / np.pi) < WITHIN * error
    assert abs(counts.mean() - 2.0 * 1.3 * frequency / np.pi) > WITHIN * error


def test_one_layer_of_sines_has_the_frequency_of_its_kernel() -> None:
    assert input_gain("tanh", 1, 1.1, 7.0) == pytest.approx(7.0, rel=1e-6)
    assert input_gain("tanh", 1, 1.1, 7.0, inputs=2) == pytest.approx(7.0 * 2**0.5, rel=1e-6)
    assert input_gain("linear", 9, 1.1, 7.0) == pytest.approx(7.0, rel=1e-6)
    assert input_gain("tanh", 20, 1.1, 7.0) < input_gain("tanh", 5, 1.1, 7.0) < 7.0


def test_no_value_and_no_derivative_are_numbers() -> None:
    predicted = predict_derivatives("tanh", 3, 1.1, point=(0.0,))
    np.testing.assert_array_equal(predicted.value, 0.0)
    np.testing.assert_allclose(predicted.first, 1.1 ** np.array([1.0, 2.0, 3.0, 3.0]))
    np.testing.assert_allclose(predicted.second, 0.0, atol=1e-8)


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.1)", "hard_tanh"])
def test_kinks_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"The slope of the activation .* jumps"):
        predict_derivatives(name, 3, 1.0)
    with pytest.raises(ValueError, match="jumps"):
        input_gain(name, 3, 1.0, 5.0)


@pytest.mark.parametrize("name", ["elu", "softsign", "gelu"])
def test_a_jump_of_the_curvature_alone_is_not_refused(name: str) -> None:
    assert predict_derivatives(name, 3, 1.0).second[-1] > 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"point": ()}, "`point` must be a sequence of finite numbers"),
        ({"point": (math.nan,)}, "`point` must be a sequence of finite numbers"),
        ({"point": 1.0}, "`point` must be a sequence of finite numbers"),
        ({"point": (1.0, 2.0), "axis": 2}, "`axis` must be the number of an input, from 0 to 1"),
        ({"input_bias_stddev": -1.0}, "`input_bias_stddev` must be a finite number, at least 0"),
        ({"input_bias_stddev": math.nan}, "`input_bias_stddev` must be a finite number, at least 0"),
        ({"input_bias_stddev": "pi"}, "`input_bias_stddev` must be a finite number, at least 0"),
        ({"output_gain": 0.0}, "output_gain"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_derivatives("tanh", 3, 1.1, **arguments)  # type: ignore[arg-type]


def test_derivatives_that_overflow_are_an_error() -> None:
    with pytest.raises(ValueError, match="leave the floating-point numbers"):
        predict_derivatives("sin", 1000, 5.0)
