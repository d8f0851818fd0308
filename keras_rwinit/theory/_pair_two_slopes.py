r"""The correlation of two inputs through layers of two slopes, at every width and depth.

An activation of two slopes is positively homogeneous: the lengths do not matter, and the angle alone is a
Markov chain. One step of `z = arctanh c` is taken to be normal, with mean and variance to first order in 1
/ width (see `_pair_law`), whose expectations are integrals over the angle of a pair of normal variables.
Nothing is assumed of many steps: `E(c_d | z)` is the function tanh z with the step's expectation applied to
it d times, on a grid of z. The collapse of deep ReLU networks, in which z spreads over many nats, is
therefore included.

**Close inputs** are exact at every width. For theta -> 0 both inputs have the same units on; with s the
slopes of the n units, u and v independent normal vectors and P the projector off `s u`, one layer has

    sin(theta') = sin(theta) |P (s v)| / |s u|.

For ReLU and M units on, that is `chi_{M-1} / chi_M` with independent numerator and denominator, so that

    E ln(sin theta' / sin theta) = E[psi((M - 1) / 2) - psi(M / 2)] / 2,    M ~ Binomial(n, 1/2),
    Var = E[psi1((M - 1) / 2) + psi1(M / 2)] / 4 + Var[psi((M - 1) / 2) - psi(M / 2)] / 4,

about -1/n and 2/n. For slopes 1 and a, given M and `B = |u_+|^2 / |u|^2 ~ Beta(M / 2, (n - M) / 2)`, the
squared length `|P (s v)|^2` is distributed as `chi2_{M-1} + a^2 chi2_{n-M-1} + l chi2_1`: its quadratic
form has the eigenvalues 1 and a^2 but for one each, and in the plane of the two parts of `s u` the one that
is left, `l = a^2 / (B + a^2 (1 - B))`. Mean and variance of its logarithm follow from its Laplace transform
as in `_two_slopes`. The finite mean-field angle adds `-theta (1 - a)^2 / (3 pi (1 + a^2))`: for ReLU
`-theta / (3 pi)`.

Normal = orthogonal + linear, in mean and in variance, here as for the gradient's walk: two normal vectors
are an orthonormal pair times an independent triangular matrix, whose share is `ln(chi2_{n-1} / chi2_n) /
2`.

The first-order bias and variance are scaled so that they are exact for close inputs.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special
from scipy.interpolate import CubicSpline

from ._pair_law import PairMoments, pair_noise
from .distributions import Distribution
from .memo import cache_by_value

__all__ = ["CloseStep", "close_step", "mirrored_correlation", "two_slope_correlations"]

Array: TypeAlias = NDArray[np.float64]

_LOWEST, _HIGHEST, _SPACING = -12.0, 21.0, 0.05
_Z: Array = np.linspace(_LOWEST, _HIGHEST, round((_HIGHEST - _LOWEST) / _SPACING) + 1)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NOISE, _NOISE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_NOISE_WEIGHTS = _NOISE_WEIGHTS / _NOISE_WEIGHTS.sum()
_ORDER = 6  # points of the local interpolation
_WIDEST_EXACT = 2048  # beyond it the first order is as good


def _angular_moments(slopes: tuple[float, float], z: Array, mirrored: bool = False) -> PairMoments:
    """Returns the moments of a unit of slopes `(below, above)` at each z, or of a pair of mirrored units."""
    theta = 2.0 * np.arctan(np.exp(-z))[:, None]
    # Both pre-activations are r (cos alpha, cos(alpha - theta)). Sectors of alpha: both positive, the first
    # negative, both negative, the second negative. In half of each pair the roles are those of the other.
    t = (_NODES + 1.0) / 2.0
    same = (np.pi - theta) * (t - 0.5)  # alpha - theta / 2, in the middle of the sector at 0
    plus_same = 2.0 * np.cos(same) * np.cos(theta / 2.0)
    minus_same = -2.0 * np.sin(same) * np.sin(theta / 2.0)
    beta = theta * t  # the first is -sin(beta), the second sin(theta - beta)
    first, second = np.sin(beta), np.sin(theta - beta)
    same_weight, other_weight = _WEIGHTS * (np.pi - theta), _WEIGHTS * theta
    # E r^2 = 2 and E r^4 = 8; alpha is uniform, and the weights of a sector add up to twice its size.
    weight = np.concatenate([same_weight, same_weight, other_weight, other_weight], axis=1) / (4.0 * np.pi)
    p = d = unlike = np.zeros_like(weight)
    # With pre-activations of the other sign the slopes change places.
    for below, above in (slopes, slopes[::-1]) if mirrored else (slopes,):
        sums = [above * plus_same, below * plus_same, above * second - below * first]
        sums.append(above * first - below * second)
        differences = [above * minus_same, below * minus_same, -below * first - above * second]
        differences.append(above * first + below * second)
        f_sum, f_difference = np.concatenate(sums, axis=1), np.concatenate(differences, axis=1)
        p, d = p + f_sum**2 / 2.0, d + f_difference**2 / 2.0
        unlike = unlike + f_sum * f_difference

    def mean(values: Array) -> Array:
        return np.asarray((weight * values).sum(axis=1), np.float64)

    return PairMoments(
        p=2.0 * mean(p),
        d=2.0 * mean(d),
        pp=8.0 * mean(p * p),
        dd=8.0 * mean(d * d),
        pd=8.0 * mean(p * d),
        ee=8.0 * mean(unlike**2),
    )


class _Step(NamedTuple):
    """A layer's step at each z of the grid: mean and standard deviation of the next z."""

    mean: Array
    std: Array


def _first_order(m: PairMoments, orthogonal: bool) -> tuple[Array, Array, Array]:
    """Returns the next z at infinite width, and its bias and variance times the width, on the grid."""
    noise = pair_noise(m)
    mean = np.log(m.p / m.d) / 2.0
    if not orthogonal:
        return mean, noise.bias_z, noise.var_z
    map_of_z = CubicSpline(_Z, mean)
    slope = map_of_z(_Z, 1)
    bias = noise.bias_z - slope * np.tanh(_Z) / 2.0 - map_of_z(_Z, 2) / 2.0
    return mean, bias, noise.var_z - slope**2


def _step(slopes: tuple[float, float], width: int, distribution: Distribution) -> _Step:
    mean, bias, variance = _first_order(_angular_moments(slopes, _Z), distribution.orthogonal)
    bias, variance = bias / width, np.maximum(variance, 0.0) / width
    if 2 < width <= _WIDEST_EXACT:
        # z is -ln(theta / 2) for close inputs.
        exact = close_step(slopes, width, distribution.orthogonal)
        if variance[-1] > 1e-9 / width:
            variance = variance * (exact.variance / variance[-1])
        if abs(bias[-1]) > 1e-9 / width:
            bias = bias * (-exact.mean / bias[-1])
    return _Step(mean=mean + bias, std=np.sqrt(variance))


def _interpolation(at: Array) -> sparse.csr_matrix:
    """Returns the matrix from values at the grid to values at other places, by polynomials of degree 5."""
    places = np.clip((np.clip(at, _LOWEST, _HIGHEST) - _LOWEST) / _SPACING, 0.0, len(_Z) - 1.0)
    first = np.clip(np.floor(places).astype(int) - _ORDER // 2 + 1, 0, len(_Z) - _ORDER)
    offset = (places - first)[:, None] - np.arange(_ORDER)
    weights = np.ones((len(at), _ORDER))
    for j in range(_ORDER):
        for k in range(_ORDER):
            if k != j:
                weights[:, j] *= offset[:, k] / (j - k)
    rows = np.repeat(np.arange(len(at)), _ORDER)
    columns = (first[:, None] + np.arange(_ORDER)).ravel()
    return sparse.csr_matrix((weights.ravel(), (rows, columns)), shape=(len(at), len(_Z)))


def two_slope_correlations(
    slopes: tuple[float, float], width: int, depth: int, correlation: float, distribution: Distribution
) -> tuple[Array, Array]:
    """Returns mean and standard deviation of the correlation at every layer, each of shape (depth,)."""
    step = _step(slopes, width, distribution)
    expectation = sparse.csr_matrix((len(_Z), len(_Z)))
    for node, weight in zip(_NOISE, _NOISE_WEIGHTS, strict=True):
        expectation = expectation + weight * _interpolation(step.mean + node * step.std)
    with np.errstate(divide="ignore"):
        start = _interpolation(np.atleast_1d(np.arctanh(correlation)))
    # Of 1 - c, which has all its digits for close inputs
    gap = 2.0 / (1.0 + np.exp(2.0 * _Z))
    moments = np.stack([gap, gap**2], axis=1)
    first, second = np.empty((2, depth))
    for d in range(depth):
        moments = expectation @ moments
        first[d], second[d] = (start @ moments)[0]
    return 1.0 - first, np.sqrt(np.maximum(second - first**2, 0.0))


def mirrored_correlation(slopes: tuple[float, float], width: int, correlation: float) -> tuple[float, float]:
    """Returns mean and standard deviation of the correlation of mirrored units, the same at every layer.

    The pre-activations of the pairs are those of an orthogonal kernel of half the width, of unchanging
    correlation.
    """
    noise = _first_order(_angular_moments(slopes, _Z, mirrored=True), orthogonal=True)
    with np.errstate(divide="ignore"):
        start = _interpolation(np.atleast_1d(np.arctanh(correlation)))
    map_of_z, bias, variance = (float((start @ values)[0]) for values in noise)
    pairs = max(width // 2, 1)
    z = map_of_z + bias / pairs + np.sqrt(max(variance, 0.0) / pairs) * _NOISE
    c = np.tanh(z)
    mean = float(c @ _NOISE_WEIGHTS)
    return mean, float(np.sqrt((c - mean) ** 2 @ _NOISE_WEIGHTS))


class CloseStep(NamedTuple):
    """Mean and variance of `ln(sin theta' / sin theta)` of one layer, for two close inputs."""

    mean: float
    variance: float


@cache_by_value(maxsize=256)
def close_step(slopes: tuple[float, float], width: int, orthogonal: bool) -> CloseStep:
    """Returns the exact step of close inputs through a layer of at least three units; see the module's text.

    At least two units pass the gradient (for a slope of 0).

    Example:
        >>> step = close_step((0.0, 1.0), 100, orthogonal=False)
        >>> round(100 * step.mean, 3), round(100 * step.variance, 3)
        (-1.042, 2.085)
    """
    low, high = sorted(abs(slope) for slope in slopes)
    square = (low / high) ** 2
    active = np.arange(2 if square == 0.0 else 1, width + (0 if square else 1))
    log_weight = (
        special.gammaln(width + 1) - special.gammaln(active + 1) - special.gammaln(width - active + 1)
    )
    weight = np.exp(log_weight - log_weight.max())
    active, weight = active[weight > 1e-16], weight[weight > 1e-16]
    weight = weight / weight.sum()
    linear_mean = float(special.digamma((width - 1) / 2) - special.digamma(width / 2)) / 2.0
    linear_variance = float(special.polygamma(1, (width - 1) / 2) + special.polygamma(1, width / 2)) / 4.0
    if square == 0.0:
        ratio = special.digamma((active - 1) / 2) - special.digamma(active / 2)
        inner = special.polygamma(1, (active - 1) / 2) + special.polygamma(1, active / 2)
    else:
        ratio, inner, weight = _two_slope_ratios(square, width, active, weight)
    mean = float(weight @ ratio)
    variance = float(weight @ inner + weight @ (ratio - mean) ** 2) / 4.0
    if orthogonal:
        return CloseStep(mean / 2.0 - linear_mean, max(variance - linear_variance, 0.0))
    return CloseStep(mean / 2.0, variance)


def _two_slope_ratios(square: float, width: int, active: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Returns mean and variance of `ln(|P (s v)|^2 / |s u|^2)` given M and B, and the weights of these.

    Args:
        square: a^2, from 0 exclusive to 1.
        width: n.
        active: Values of M, from 1 to n - 1.
        weight: Their probabilities.
    """
    # Quantiles of B at the nodes of a normal variable
    chance, share = special.ndtr(_NOISE), _NOISE_WEIGHTS
    m = active[:, None].astype(np.float64)
    b = special.betaincinv(m / 2.0, (width - m) / 2.0, chance)
    length = b + square * (1.0 - b)
    left = square / length
    log_scale = np.log(width / 2.0)
    s = np.arange(-40.0, 60.0, 0.1)
    t = np.exp(s - log_scale)  # of X over its size
    log_laplace = -((m - 1.0) / 2.0)[..., None] * np.log1p(2.0 * t)
    log_laplace = log_laplace - ((width - m - 1.0) / 2.0)[..., None] * np.log1p(2.0 * square * t)
    laplace = np.exp(log_laplace - np.log1p(2.0 * left[..., None] * t) / 2.0)
    # Frullani's integrals, as in `_two_slopes`
    difference = laplace - np.exp(-np.exp(s))
    log_mean = -0.1 * difference.sum(axis=-1)
    second = 0.1 * (2.0 * s * difference).sum(axis=-1) - 2.0 * np.euler_gamma * log_mean
    ratio = log_mean + log_scale - special.digamma(width / 2.0) - np.log(2.0) - np.log(length)
    inner = second - log_mean**2 + special.polygamma(1, width / 2.0)
    return ratio.ravel(), inner.ravel(), (weight[:, None] * share).ravel()
