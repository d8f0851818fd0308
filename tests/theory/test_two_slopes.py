"""Activations of two slopes: gain and variance against mpmath, at every width.

The package integrates a Laplace transform (Frullani). Here the same numbers come from other formulas:
digamma and trigamma sums over the number of active units, Beta expectations, and at large widths the
expansion of the logarithm in central moments.
"""

from __future__ import annotations

from functools import lru_cache

import mpmath as mp
import numpy as np
import pytest

from keras_rwinit.theory import Activation, gain, paper_gain, paper_log_variance, simulate_walk
from keras_rwinit.theory._two_slopes import log_step_moments
from keras_rwinit.theory.distributions import resolve_distribution

Moments = tuple[mp.mpf, mp.mpf]
WIDTHS = (1, 2, 3, 6, 20, 100, 1000, 1_000_000)
SMALL_WIDTHS = (1, 2, 3, 8, 20)
SLOPES = (1e-4, 0.01, 0.3, 2.0, -0.5, -1e-4)
NORMAL_AND_ORTHOGONAL = ("normal", "orthogonal")

# Relative to the exact gain. float64 resolves 2e-16; 1e-9 is promised.
GAIN_TOLERANCE = 1e-12
# Errors of E ln z and of Var ln z: an absolute part (rounding of sums of order one and of logs as large
# as ln 1e-8) and a relative one.
MOMENT_ABSOLUTE, MOMENT_RELATIVE = 1e-12, 1e-10


@pytest.fixture(autouse=True)
def _thirty_digits() -> object:
    with mp.workdps(30):
        yield


def linear_moments(width: int) -> Moments:
    """E and Var of `ln(chi^2_width / width)`."""
    half = mp.mpf(width) / 2
    return mp.psi(0, half) - mp.log(half), mp.psi(1, half)


@lru_cache
def relu_moments(width: int) -> Moments:
    """`E psi(M/2) + ln(2/N)` and `E psi1(M/2) + Var psi(M/2)`, M ~ Binomial(N, 1/2) given M > 0.

    Only M within 14 standard deviations of N/2 are summed: the rest weighs less than 1e-42.
    """
    reach = 7 * int(np.sqrt(width)) + 2
    low, high = max(1, width // 2 - reach), min(width, width // 2 + reach)
    weight = mp.binomial(width, low) / mp.mpf(2) ** width
    total = mean = square = inner = mp.mpf(0)
    for m in range(low, high + 1):
        half = mp.mpf(m) / 2
        psi = mp.psi(0, half)
        total, mean, square = total + weight, mean + weight * psi, square + weight * psi**2
        inner += weight * mp.psi(1, half)
        weight = weight * (width - m) / (m + 1)
    mean, square, inner = mean / total, square / total, inner / total
    return mean + mp.log(mp.mpf(2) / width), inner + square - mean**2


@lru_cache
def beta_moments(slope: float, width: int) -> Moments:
    """E and Var of `ln(B + s^2 (1 - B))`, the step of an orthogonal kernel, for slopes s and 1.

    B ~ Beta(M/2, (N-M)/2), M ~ Binomial(N, 1/2), with B = 0 at M = 0 and B = 1 at M = N. With
    B = sin^2 t the density is smooth; the logarithm turns near t = |s|, where the panels break.
    """
    ratio = mp.mpf(slope) ** 2
    first = second = mp.mpf(0)
    edges = sorted({mp.mpf(0), mp.pi / 2, *(t for t in (abs(slope), 10 * abs(slope)) if t < 1.5)})
    for m in range(width + 1):
        if m in (0, width):
            one = mp.log(ratio) if m == 0 else mp.mpf(0)
            moments = [one, one**2]
        else:
            scale = 2 / mp.beta(mp.mpf(m) / 2, mp.mpf(width - m) / 2)

            def integrand(t: mp.mpf, power: int, m: int = m, scale: mp.mpf = scale) -> mp.mpf:
                sine, cosine = mp.sin(t), mp.cos(t)
                log = mp.log(ratio + (1 - ratio) * sine**2)
                return scale * sine ** (m - 1) * cosine ** (width - m - 1) * log**power

            moments = [mp.quad(lambda t, power=power: integrand(t, power), edges) for power in (1, 2)]
        weight = mp.binomial(width, m) / mp.mpf(2) ** width
        first, second = first + weight * moments[0], second + weight * moments[1]
    return first, second - first**2


def expanded_moments(slope: float, width: int, order: int = 16) -> Moments:
    """E and Var of `ln z` of a normal kernel from the series of `ln(1 + e)` in central moments.

    `z = mean * (1 + e)`, e the mean of `width` independent terms `s_i^2 x_i^2 / mean - 1`: its central
    moments follow from the terms' cumulants. The error is of order width^(-order / 2).
    """
    ratio = mp.mpf(slope) ** 2
    mean = (1 + ratio) / 2
    raw = [mp.fac2(2 * j - 1) * (1 + ratio**j) / 2 / mean**j for j in range(order + 1)]
    cumulants = [mp.mpf(0), raw[1]]
    for j in range(2, order + 1):
        known = sum(mp.binomial(j - 1, i - 1) * cumulants[i] * raw[j - i] for i in range(1, j))
        cumulants.append(raw[j] - known)
    of_mean = [cumulants[j] / mp.mpf(width) ** (j - 1) if j > 1 else mp.mpf(0) for j in range(order + 1)]
    central = [mp.mpf(1)]
    for j in range(1, order + 1):
        central.append(sum(mp.binomial(j - 1, i - 1) * of_mean[i] * central[j - i] for i in range(1, j + 1)))
    log = [mp.mpf(0)] + [mp.mpf((-1) ** (j + 1)) / j for j in range(1, order + 1)]
    squared = [sum(log[i] * log[j - i] for i in range(j + 1)) for j in range(order + 1)]
    first = sum(a * b for a, b in zip(log, central, strict=True))
    second = sum(a * b for a, b in zip(squared, central, strict=True))
    return first + mp.log(mean), second - first**2


def check_gain_and_moments(
    slopes: tuple[float, float], width: int, distribution: str, exact: Moments
) -> None:
    name = "linear" if slopes[0] == slopes[1] else f"leaky_relu({slopes[0]:.17g})"
    found = gain(name, width, distribution=distribution)
    assert abs(found / mp.exp(-exact[0] / 2) - 1) < GAIN_TOLERANCE
    moments = log_step_moments(slopes, width, resolve_distribution(distribution))
    for value, wanted in zip(moments, exact, strict=True):
        assert abs(value - wanted) < MOMENT_ABSOLUTE + MOMENT_RELATIVE * abs(wanted)


def moments_of_kernel(orthogonal: Moments, width: int, distribution: str) -> Moments:
    """Normal = orthogonal + linear, in mean and in variance."""
    if distribution == "orthogonal":
        return orthogonal
    mean, variance = linear_moments(width)
    return orthogonal[0] + mean, orthogonal[1] + variance


@pytest.mark.parametrize("distribution", NORMAL_AND_ORTHOGONAL)
@pytest.mark.parametrize("width", WIDTHS)
def test_linear_is_exact(width: int, distribution: str) -> None:
    check_gain_and_moments(
        (1.0, 1.0), width, distribution, moments_of_kernel((mp.mpf(0), mp.mpf(0)), width, distribution)
    )


@pytest.mark.parametrize("distribution", NORMAL_AND_ORTHOGONAL)
@pytest.mark.parametrize("width", [*WIDTHS[:-1], pytest.param(WIDTHS[-1], marks=pytest.mark.slow)])
def test_relu_is_exact(width: int, distribution: str) -> None:
    mean, variance = relu_moments(width)
    if distribution == "orthogonal":
        length_mean, length_variance = linear_moments(width)
        mean, variance = mean - length_mean, variance - length_variance
    check_gain_and_moments((0.0, 1.0), width, distribution, (mean, variance))


@pytest.mark.parametrize("distribution", NORMAL_AND_ORTHOGONAL)
@pytest.mark.parametrize(
    ("slope", "width"),
    [
        pytest.param(slope, width, marks=() if width < 20 or slope == 0.3 else pytest.mark.slow)
        for slope in SLOPES
        for width in SMALL_WIDTHS
    ],
)
def test_leaky_relu_is_exact_at_small_width(slope: float, width: int, distribution: str) -> None:
    exact = moments_of_kernel(beta_moments(abs(slope), width), width, distribution)
    check_gain_and_moments((slope, 1.0), width, distribution, exact)


@pytest.mark.parametrize("width", [1000, 30_000, 1_000_000])
@pytest.mark.parametrize("slope", [*SLOPES, 30.0])
def test_leaky_relu_is_exact_at_large_width(slope: float, width: int) -> None:
    check_gain_and_moments((slope, 1.0), width, "normal", expanded_moments(slope, width))


def test_reference_formulas_agree() -> None:
    """Sum over active units, gamma function and expansion are independent derivations."""
    for slope, summed in ((0.0, relu_moments(1000)), (1.0, linear_moments(1000))):
        for a, b in zip(expanded_moments(slope, 1000), summed, strict=True):
            assert abs(a - b) < MOMENT_ABSOLUTE


@pytest.mark.parametrize("width", [1, 2, 6, 20, 100, 1000])
def test_tolerance_tells_neighboring_widths_and_the_paper_apart(width: int) -> None:
    """Negative twin: the next width's gain and a 1 / width expansion both miss by more than 1e-9."""
    exact = mp.exp(-relu_moments(width)[0] / 2)
    assert abs(gain("relu", width + 1) / exact - 1) > 1e-9
    assert abs(np.sqrt(2.0) * np.exp(1.25 / width) / exact - 1) > 1e-9


@pytest.mark.parametrize("distribution", ["normal", "orthogonal", "uniform"])
@pytest.mark.parametrize("width", [3, 100])
def test_signs_and_scale_of_the_slopes(width: int, distribution: str) -> None:
    """Only the squares of the slopes count, in either order; a common factor divides the gain."""
    same = gain("leaky_relu(0.3)", width, distribution=distribution)
    assert gain("leaky_relu(-0.3)", width, distribution=distribution) == same
    for below, above, factor in ((1.0, -0.3, 1.0), (0.3, 1.0, 1.0), (-3.0, 10.0, 10.0)):
        activation = Activation("two", np.abs, slopes=(below, above))
        scaled = factor * gain(activation, width, distribution=distribution)
        assert scaled == pytest.approx(same, rel=1e-12)
    linear = gain("linear", width, distribution=distribution)
    assert gain("leaky_relu(-1)", width, distribution=distribution) == pytest.approx(linear)
    relu = gain("relu", width, distribution=distribution)
    assert gain("leaky_relu(0)", width, distribution=distribution) == pytest.approx(relu)


@pytest.mark.parametrize("depth", [None, 1, 2, 1000])
def test_depth_and_refinement_change_nothing(depth: int | None) -> None:
    assert gain("relu", 50, depth, refine=True) == gain("relu", 50)


@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal"])
@pytest.mark.parametrize("slopes", [(1.0, 1.0), (0.0, 1.0)], ids=["linear", "relu"])
def test_kurtosis_term_helps_at_tiny_width(slopes: tuple[float, float], distribution: str) -> None:
    """Widths 1 to 4, 40,000 networks of 4 layers, seed 1: nearer to the truth than for normal entries."""
    own, normal = resolve_distribution(distribution), resolve_distribution("normal")
    name = "linear" if slopes[0] else "relu"
    for width in (1, 2, 3, 4):
        walks = simulate_walk(name, width, 4, gain=1.0, samples=40_000, distribution=distribution, seed=1)[
            :, 0
        ]
        walks = walks[np.isfinite(walks)]
        simulated = 2.0 * walks.mean() / 3.0, 4.0 * walks.var() / 3.0
        ours, theirs = log_step_moments(slopes, width, own), log_step_moments(slopes, width, normal)
        for truth, a, b in zip(simulated, ours, theirs, strict=True):
            assert abs(a - truth) < abs(b - truth)


@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal"])
def test_kurtosis_term_vanishes_like_the_square_of_the_width(distribution: str) -> None:
    ratios = [gain("relu", n, distribution=distribution) / gain("relu", n) - 1 for n in (200, 400)]
    assert ratios[0] / ratios[1] == pytest.approx(4.0, rel=0.05)
    assert all(ratio < 0 for ratio in ratios)


def test_paper_gain() -> None:
    """ReLU over 1000 layers: within 0.75 nat of exact from width 20 up, off by nats below 11."""
    for width in (20, 24, 32, 36, 50, 100, 1000, 10_000):
        assert abs(1000 * np.log(paper_gain("relu", width) / gain("relu", width))) < 0.75
        assert abs(1000 * np.log(paper_gain("linear", width) / gain("linear", width))) < 0.5
    for width in (1, 5, 6, 10):
        assert abs(1000 * np.log(paper_gain("relu", width) / gain("relu", width))) > 3.0
    assert paper_gain("relu", 100) == pytest.approx(np.sqrt(2.0) * np.exp(1.2 / 97.6), rel=1e-14)
    assert paper_gain("relu", 2) == paper_gain("relu", 6)
    with pytest.raises(ValueError, match="formula for linear and relu only.*activation='tanh'"):
        paper_gain("tanh", 100)
    with pytest.raises(ValueError, match="`width` must be an integer of at least 1. Received: width=0"):
        paper_gain("relu", 0)


@pytest.mark.parametrize(("width", "error"), [(10, 0.05), (20, 0.01), (100, 0.01), (1000, 0.001)])
def test_paper_log_variance(width: int, error: float) -> None:
    exact = log_step_moments((0.0, 1.0), width, resolve_distribution("normal")).variance
    assert paper_log_variance(width) == pytest.approx(exact, rel=error)
