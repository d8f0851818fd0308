r"""The correlation of two inputs through layers of a smooth activation, to first order in 1 / width a layer.

The state of a layer is the mean s of the two log-variances, half their difference, and Fisher's z of the
correlation (see `_pair_law`). Its infinite-width map and its noise are tabulated over s and z, by quadrature
over sum and difference of the pair; half the difference enters by its variance w, which adds
`w / 2` times the map's second derivative.

Where z spreads little, the state is followed as a normal one: mean and covariance, with expectations at the
nodes of a Gauss-Hermite rule (the delta method, and what is beyond it for nonlinear maps). Where it spreads
far, as in networks deeper than wide, the density of z is followed on a grid, with mean and variance of s
and w given z.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RectBivariateSpline

from ._long_walk import walk_layers
from ._moments import moment_table
from ._pair_law import PairMoments, pair_noise
from .activation import Activation
from .distributions import Distribution

__all__ = ["SmoothPrediction", "smooth_correlations"]

Array: TypeAlias = NDArray[np.float64]

_LOWEST, _HIGHEST, _SPACING = -6.0, 10.0, 0.125
_S_SPACING = 0.1
_MOST_S = 120  # nodes of s that are tabulated
# The trapezoidal rule: with a singularity at distance r from the real line its error is exp(-2 pi r /
# spacing), far below that of a Gauss-Hermite rule of as many nodes (tanh).
_X = np.arange(-17, 18) * 0.4
_X_WEIGHTS = np.exp(-(_X**2) / 2.0)
_X_WEIGHTS = _X_WEIGHTS / _X_WEIGHTS.sum()
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FEW_NODES, _FEW_WEIGHTS = np.polynomial.hermite_e.hermegauss(3)
_FEW_WEIGHTS = _FEW_WEIGHTS / _FEW_WEIGHTS.sum()
_LARGEST_FLUCTUATION = 0.25  # of a log-variance, in nats
_NARROW = 0.3  # standard deviation of z up to which it counts as normal
_FINEST = 0.02  # spacing of the density's grid
_SHARP = 1e-3  # relative error of moments by the quadrature
_NEGLIGIBLE = 1e-9  # of the density


class SmoothPrediction(NamedTuple):
    """Mean and standard deviation of the correlation at every layer, each of shape (depth,)."""

    mean: Array
    std: Array


def _unit_moments(activation: Activation, s: Array, half: Array, z: Array) -> tuple[Array, PairMoments]:
    """Returns `E f^2` of the first input, and the moments of a unit with both f scaled to mean square one.

    Args:
        activation: f.
        s: Mean of the log-variances of the two pre-activations.
        half: Half their difference.
        z: Fisher's z of their correlation. All of one shape.
    """
    # Two normal variables of variance one: their sum has the variance 2 (1 + c), and their difference
    # has 2 (1 - c).
    plus = np.sqrt(1.0 / (1.0 + np.exp(-2.0 * z)))[..., None] * _X
    minus = np.sqrt(1.0 / (1.0 + np.exp(2.0 * z)))[..., None] * _X
    first = np.exp((s + half) / 2.0)[..., None, None] * (plus[..., :, None] + minus[..., None, :])
    second = np.exp((s - half) / 2.0)[..., None, None] * (plus[..., :, None] - minus[..., None, :])
    f1, f2 = np.asarray(activation.function(first)), np.asarray(activation.function(second))

    def mean(values: Array) -> Array:
        return np.asarray(values @ _X_WEIGHTS @ _X_WEIGHTS, np.float64)

    square1, square2 = mean(f1 * f1), mean(f2 * f2)
    f1, f2 = f1 / np.sqrt(square1)[..., None, None], f2 / np.sqrt(square2)[..., None, None]
    p, d = (f1 + f2) ** 2 / 2.0, (f1 - f2) ** 2 / 2.0
    pd = mean(p * d)
    # (f1^2 - f2^2)^2 = 4 p d
    moments = PairMoments(p=mean(p), d=mean(d), pp=mean(p * p), dd=mean(d * d), pd=pd, ee=4.0 * pd)
    return square1, moments


class _Law(NamedTuple):
    """A layer at given states: the next state at infinite width and the noise, over the width.

    Args:
        z: The next z.
        z_half: Its second derivative by half the difference of the log-variances.
        bias_z: Bias of the next z.
        var_z: Its variance.
        bias_s: Bias of the next s.
        var_s: Its variance.
        cov: Covariance of the two.
        var_half: Variance of half the difference of the log-variances.
        level: `ln E f^2`.
        slope: Its derivative by the log-variance.
        curvature: Its second derivative.
    """

    z: Array
    z_half: Array
    bias_z: Array
    var_z: Array
    bias_s: Array
    var_s: Array
    cov: Array
    var_half: Array
    level: Array
    slope: Array
    curvature: Array


class _Table:
    """The law of a layer, interpolated over s and z.

    Args:
        activation: A smooth activation.
        reach: Smallest and largest s.
        fluctuation: Standard deviation of a log-variance.
        width: Units of a layer.
        distribution: Distribution of the kernels.
    """

    def __init__(
        self,
        activation: Activation,
        reach: tuple[float, float],
        fluctuation: float,
        width: int,
        distribution: Distribution,
    ) -> None:
        lowest, highest = reach
        s = np.arange(lowest, max(highest, lowest + 8 * _S_SPACING) + _S_SPACING, _S_SPACING)
        z = np.arange(_LOWEST, _HIGHEST + _SPACING / 2.0, _SPACING)
        law = self._tabulate(activation, s, z, fluctuation)
        if distribution.orthogonal:
            law = self._without_gram(law, s, z)
        for name in ("bias_z", "var_z", "bias_s", "var_s", "cov", "var_half"):
            scaled = getattr(law, name) / width
            law = law._replace(**{name: np.maximum(scaled, 0.0) if name.startswith("var") else scaled})
        self.least_noise = float(np.sqrt(law.var_z.min()))
        self._splines = [RectBivariateSpline(s, z, values) for values in law]
        self._range = s[0], s[-1]

    @staticmethod
    def _tabulate(activation: Activation, s: Array, z: Array, fluctuation: float) -> _Law:
        # Half a difference of the size that it has; with two nodes +-half the rule for its mean is exact to
        # third order.
        half = max(0.1, fluctuation / np.sqrt(2.0)) / np.cosh(z)
        rows = []
        for level in s:
            square, moments = _unit_moments(activation, np.full_like(z, level), np.zeros_like(z), z)
            noise = pair_noise(moments)
            z_next = np.log(moments.p / moments.d) / 2.0
            _, apart = _unit_moments(activation, np.full_like(z, level), half, z)
            z_half = 2.0 * (np.log(apart.p / apart.d) / 2.0 - z_next) / half**2
            log_square = np.log(square)
            rows.append([z_next, z_half, *noise, log_square])
        columns = np.moveaxis(np.array(rows), 1, 0)
        # `E f^2` is the same at all z.
        level = CubicSpline(s, columns[-1].mean(axis=1))
        per_s = [np.repeat(level(s, order)[:, None], len(z), axis=1) for order in range(3)]
        return _Law(*columns[:-1], *per_s)

    @staticmethod
    def _without_gram(law: _Law, s: Array, z: Array) -> _Law:
        """Returns the law of orthogonal kernels, whose Gram matrix does not fluctuate in a linear layer."""
        c = np.tanh(z)
        by_z, by_s = CubicSpline(z, law.z, axis=1), CubicSpline(s, law.z, axis=0)
        z_z, z_zz, z_s, z_ss = by_z(z, 1), by_z(z, 2), by_s(s, 1), by_s(s, 2)
        z_sz = CubicSpline(s, z_z, axis=0)(s, 1)
        var_s, var_half = 1.0 + c**2, 1.0 - c**2
        return law._replace(
            bias_z=law.bias_z
            + z_s
            - z_z * c / 2.0
            - (z_ss * var_s + 2.0 * z_sz * c + z_zz + law.z_half * var_half) / 2.0,
            var_z=law.var_z - (z_s**2 * var_s + 2.0 * z_s * z_z * c + z_z**2),
            bias_s=law.bias_s + law.slope - law.curvature,
            var_s=law.var_s - law.slope**2 * var_s,
            cov=law.cov - law.slope * (z_s * var_s + z_z * c),
            var_half=law.var_half - law.slope**2 * var_half,
        )

    def __call__(self, s: Array, z: Array) -> _Law:
        s, z = np.clip(s, *self._range), np.clip(z, _LOWEST, _HIGHEST)
        return _Law(*(spline.ev(s, z) for spline in self._splines))


def smooth_correlations(
    activation: Activation,
    width: int,
    depth: int,
    correlation: float,
    gain: float,
    distribution: Distribution,
) -> SmoothPrediction | None:
    """Returns the prediction for an activation without kinks; None where it cannot be followed.

    That is where the activation bends too sharply for the quadrature, where the log-variance of the
    pre-activations fluctuates by more than a quarter of a nat or ranges over more than twelve, and where z
    spreads far under a noise too small for the density's grid.
    """
    start = float(np.arctanh(np.clip(correlation, np.tanh(_LOWEST), np.tanh(_HIGHEST))))
    with np.errstate(all="ignore"):
        walk = walk_layers(activation, gain, width, depth, distribution)
        reach = 5.0 * walk.fluctuation[0] + 0.3
        lowest = float((walk.log_variance[0] - reach).min())
        highest = float((walk.log_variance[0] + reach).max())
        fluctuation = float(walk.fluctuation.max())
        if not (highest - lowest <= _MOST_S * _S_SPACING and fluctuation <= _LARGEST_FLUCTUATION):
            return None
        likely = walk.log_variance[0] + walk.fluctuation[0]
        if not _is_smooth(activation, float(likely.min()), float(likely.max())):
            return None
        table = _Table(activation, (lowest, highest), fluctuation, width, distribution)
        log_gain2 = 2.0 * float(np.log(gain))
        prediction, widest = _follow_normal(table, log_gain2, start, depth)
        if widest <= _NARROW:
            return prediction
        return _follow_density(table, log_gain2, start, depth)


def _is_smooth(activation: Activation, lowest: float, highest: float) -> bool:
    """Returns whether the quadrature takes `E f^2` and `E f^4` as the table of moments has them."""
    s = np.array([lowest, highest])
    m = moment_table(activation)(s)
    f = np.asarray(activation.function(np.exp(s / 2.0)[:, None] * _X), np.float64)
    square, fourth = f**2 @ _X_WEIGHTS, f**4 @ _X_WEIGHTS
    return np.allclose(np.log(square), m.log_f2, rtol=0.0, atol=_SHARP) and np.allclose(
        fourth / square**2, m.kurtosis_f, rtol=_SHARP
    )


def _follow_normal(
    table: _Table, log_gain2: float, start: float, depth: int
) -> tuple[SmoothPrediction, float]:
    """Returns the prediction for a normal state, and the largest standard deviation of z."""
    center, covariance, w = np.array([log_gain2, start]), np.zeros((2, 2)), 0.0
    means, stds, widest = np.empty(depth), np.empty(depth), 0.0
    node_z, node_s = (nodes.ravel() for nodes in np.meshgrid(_NODES, _FEW_NODES, indexing="ij"))
    weights = np.outer(_WEIGHTS, _FEW_WEIGHTS).ravel()
    for layer in range(depth):
        std_z = np.sqrt(covariance[1, 1])
        along = covariance[0, 1] / std_z if std_z > 0.0 else 0.0
        rest = np.sqrt(max(covariance[0, 0] - along**2, 0.0))
        law = table(center[0] + along * node_z + rest * node_s, center[1] + std_z * node_z)
        after = np.stack(
            [
                law.level + log_gain2 + law.bias_s + law.curvature * w / 2.0,
                law.z + law.bias_z + law.z_half * w / 2.0,
            ]
        )
        w = float(weights @ (law.slope**2 * w + law.var_half))
        center = after @ weights
        apart = after - center[:, None]
        noise = np.array([[weights @ law.var_s, weights @ law.cov], [weights @ law.cov, weights @ law.var_z]])
        covariance = (apart * weights) @ apart.T + noise
        widest = max(widest, float(np.sqrt(covariance[1, 1])))
        c = np.tanh(center[1] + np.sqrt(covariance[1, 1]) * _NODES)
        means[layer] = c @ _WEIGHTS
        stds[layer] = np.sqrt(np.maximum((c - means[layer]) ** 2 @ _WEIGHTS, 0.0))
    return SmoothPrediction(means, stds), widest


def _follow_density(table: _Table, log_gain2: float, start: float, depth: int) -> SmoothPrediction | None:
    spacing = min(0.1, 1.1 * table.least_noise)  # the sum over the grid is then exact to 1e-7
    if spacing < _FINEST:
        return None
    # A grid that the start is part of
    grid = np.concatenate([np.arange(start, _LOWEST, -spacing)[:0:-1], np.arange(start, _HIGHEST, spacing)])
    density, s, var_s, w = (np.zeros(len(grid)) for _ in range(4))
    density[int(np.argmin(np.abs(grid - start)))] = 1.0
    s[:] = log_gain2
    means, stds = np.empty(depth), np.empty(depth)
    c = np.tanh(grid)
    for layer in range(depth):
        rows = density > _NEGLIGIBLE
        mass = density[rows][:, None] * _FEW_WEIGHTS
        at_s = s[rows][:, None] + np.sqrt(var_s[rows])[:, None] * _FEW_NODES
        law = table(at_s, np.broadcast_to(grid[rows][:, None], at_s.shape))
        half = w[rows][:, None]
        next_z = np.clip(law.z + law.bias_z + law.z_half * half / 2.0, grid[0], grid[-1])
        next_s = law.level + log_gain2 + law.bias_s + law.curvature * half / 2.0
        std = np.sqrt(law.var_z)
        low, high = np.searchsorted(grid, [(next_z - 8.0 * std).min(), (next_z + 8.0 * std).max()])
        columns = slice(max(low - 1, 0), high + 1)
        distance = grid[columns] - next_z[..., None]
        spread = np.exp(-0.5 * (distance / std[..., None]) ** 2)
        share = (mass / spread.sum(axis=-1))[..., None] * spread
        # Given the next z, s moves with it.
        given_s = next_s[..., None] + (law.cov / law.var_z)[..., None] * distance
        left = np.maximum(law.var_s - law.cov**2 / law.var_z, 0.0)
        next_w = law.slope**2 * half + law.var_half

        total = share.sum(axis=(0, 1))
        safe = np.maximum(total, 1e-300)
        mean_s = (share * given_s).sum(axis=(0, 1)) / safe
        second = (share * (given_s**2 + left[..., None])).sum(axis=(0, 1)) / safe
        density = np.zeros(len(grid))
        density[columns] = total
        s[columns], var_s[columns] = mean_s, np.maximum(second - mean_s**2, 0.0)
        w[columns] = (share * next_w[..., None]).sum(axis=(0, 1)) / safe
        means[layer] = density @ c
        stds[layer] = np.sqrt(density @ (c - means[layer]) ** 2)
    return SmoothPrediction(means, stds)
