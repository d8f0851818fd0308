r"""Kernels in mirrored pairs, with which a network is linear when it starts ("looks-linear").

Let `f(a) - f(-a) = c a` for all a, as for activations of two slopes (c is their sum) and for GELU, SiLU and
softplus (c = 1). Let a layer's pre-activations come in pairs, `a = (z, -z)`, and let the next kernel be
`W = [[M, -M], [-M, M]] / c` with M orthogonal. Then

    h W = ((f(z) - f(-z)) M / c, ...) = (z M, -z M),

so that z passes all layers as through a linear network, and any two inputs keep their angle. Backwards,
with `u = delta_+ - delta_-`,

    W delta = (M u, -M u) / c,    u' = (f'(z) + f'(-z)) M u / c = M u,

since the derivative of `f(a) - f(-a)` is `f'(a) + f'(-a) = c`. The length of u therefore never changes,
and the gradient itself has

    |delta|^2 = sum_i w(z_i) (M u)_i^2,    w(a) = (f'(a)^2 + f'(-a)^2) / c^2.

With two slopes w is a constant: the log-norm neither drifts nor spreads, at any width. Otherwise each layer
has a fluctuation of its own, which does not add up over the layers. Both z and u are uniform on spheres in
n = width / 2 dimensions, from which to first order in 1 / n

    Var ln|delta|^2 = (3 Var w - Cov(w, x^2)^2 / 2) / (n (E w)^2),    x = z_i over its root mean square.

The inner product of z and u never changes either. It is that of two random directions, and its effect is of
second order.

Sources: Balduzzi et al., arXiv:1702.08591, section 4, and Burkholz & Dubatovka, arXiv:1806.06362, for ReLU;
Saxe, McClelland & Ganguli, arXiv:1312.6120, for linear networks.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .activation import Activation
from .memo import cache_by_value

__all__ = [
    "check_mirrored",
    "mirrored_gain",
    "mirrored_level",
    "mirrored_slope",
    "mirrored_walk",
    "pair_weight",
]

Array: TypeAlias = NDArray[np.float64]

_REACH = 9.0  # standard deviations of x; what lies beyond weighs 2e-19
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_LEVELS_AT_ONCE = 4096


@cache_by_value(maxsize=256)
def mirrored_slope(activation: Activation) -> float | None:
    """Returns c of `f(a) - f(-a) = c a`, as far as can be seen; None if there is none, or if it is 0.

    Example:
        >>> from keras_rwinit.theory import resolve_activation
        >>> [mirrored_slope(resolve_activation(name)) for name in ("leaky_relu(0.5)", "gelu", "tanh")]
        [1.5, 1.0, None]
    """
    if activation.units:  # the two units of a pair may differ
        return None
    if activation.slopes is not None:
        return sum(activation.slopes) or None
    a = 2.0 ** np.arange(-10.0, 11.0, 0.5)
    with np.errstate(all="ignore"):
        above, below = (np.asarray(activation.function(x[None]), np.float64) for x in (a, -a))
        ratios = ((above - below) / a)[0]
    slope = float(np.median(ratios))
    if not np.isfinite(ratios).all() or abs(slope) < 1e-6 or np.abs(ratios / slope - 1.0).max() > 1e-6:
        return None
    return round(slope, 9)  # the floats miss a slope of one by rounding


def check_mirrored(activation: Activation, width: int = 2) -> float:
    """Returns `mirrored_slope`; ValueError if it does not exist, or if `width` is 1."""
    slope = mirrored_slope(activation)
    if slope is None:
        raise ValueError(
            "distribution 'looks_linear' needs an activation with f(a) - f(-a) = c a and c not 0, such as "
            "relu, leaky_relu, gelu, silu or softplus; use 'orthogonal' for all others. "
            f"Received: {activation.name}"
        )
    if width < 2:
        raise ValueError(
            f"distribution 'looks_linear' pairs units and needs a width of at least 2. Received: {width}"
        )
    return slope


def mirrored_gain(activation: Activation, width: int) -> float:
    """Returns the gain `sqrt(2) / |c|`, which keeps the length of z and u at every width and depth.

    With it a mirrored kernel of `draw_kernel` is that of equation (mirrored) of the theory page, up to the
    sign of c.
    """
    return float(np.sqrt(2.0) / abs(check_mirrored(activation, width)))


def pair_weight(activation: Activation, a: Array) -> Array:
    """Returns `w(a) = (f'(a)^2 + f'(-a)^2) / c^2`."""
    with np.errstate(all="ignore"):  # as of celu(0), which is relu and divides by 0
        above, below = np.asarray(activation.slope_at(a)), np.asarray(activation.slope_at(-a))
    slope = mirrored_slope(activation)
    assert slope is not None
    return np.asarray((above**2 + below**2) / slope**2)


def mirrored_level(activation: Activation, width: int, depth: int, gain: float) -> Array:
    """Returns the log of the root mean square of z at every layer, for inputs of root mean square one."""
    return np.arange(depth) * np.log(gain / mirrored_gain(activation, width))


def mirrored_walk(activation: Activation, width: int, depth: int, gain: float) -> tuple[Array, Array]:
    """Returns mean and standard deviation of `ln(|delta_d| / |delta_depth|)`, each of shape (depth,)."""
    level = mirrored_level(activation, width, depth, gain)
    mean, variance = level[-1] - level, np.zeros(depth)
    if activation.slopes is None:
        bias, spread = _fluctuations(activation, width // 2, level)
        mean += bias - bias[-1]
        variance = np.where(np.arange(depth) < depth - 1, spread + spread[-1], 0.0)
    return mean, np.sqrt(variance)


def _fluctuations(activation: Activation, pairs: int, level: Array) -> tuple[Array, Array]:
    """Returns `_fluctuation` of any number of levels, in memory that does not grow with it."""
    # At a gain far from the one that keeps z, z leaves the floats; w is constant long before. At the one that
    # keeps it all levels are one.
    levels, which = np.unique(np.clip(level, -100.0, 100.0), return_inverse=True)
    parts = np.array_split(levels, -(-len(levels) // _LEVELS_AT_ONCE))
    bias, spread = np.concatenate([_fluctuation(activation, pairs, part) for part in parts], axis=1)
    return bias[which], spread[which]


def _fluctuation(activation: Activation, pairs: int, level: Array) -> tuple[Array, Array]:
    """Returns mean and variance of `ln(sum_i w(z_i) uhat_i^2) / 2` at each log root mean square of z."""
    # w is even: half the line is enough.
    x = _REACH * (_NODES + 1.0) / 2.0
    density = _WEIGHTS * np.exp(-x * x / 2.0)
    density /= density.sum()
    w = pair_weight(activation, np.exp(level)[:, None] * x)
    mean = w @ density
    variance = (w - mean[:, None]) ** 2 @ density
    covariance = w @ (density * (x * x - 1.0))
    relative = np.maximum(3.0 * variance - covariance**2 / 2.0, 0.0) / (pairs * mean**2)
    return (np.log(mean) - relative / 2.0) / 2.0, relative / 4.0
