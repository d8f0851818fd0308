r"""The gain that makes the log-norm of the back-propagated gradient an unbiased random walk."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ._checks import check_count
from ._distributions import Distribution, resolve_distribution
from ._mean_field import MISALIGNMENT_LIMIT, MeanFieldWalk, mean_field_walk, stationary_state
from ._moments import moment_table
from ._two_slopes import log_step_moments
from .activations import Activation, ActivationLike, resolve_activation

__all__ = ["NoGainError", "analytic_gain", "gain", "paper_gain", "paper_log_variance", "workable_gain"]

Array = NDArray[np.float64]

_FORWARD_LIMIT = float(np.log(100.0))
_FORWARD_LIMIT_PER_LAYER = 0.01
_GREAT_DEPTH = 1000
_WIDTHS_WITH_A_GAIN = (16, 32, 64, 128)
_INSTEAD = (
    "Use relu or leaky_relu, which have a gain at any width and depth; elu, selu or tanh, which have one "
    "from width 32 up; or pass `gain=` yourself."
)


class NoGainError(ValueError):
    """No gain makes the walk unbiased and keeps the activations in range as well."""


def gain(
    activation: ActivationLike,
    width: int,
    depth: int | None = None,
    distribution: str = "normal",
    *,
    refine: bool = False,
) -> float:
    r"""Gain `g` for which back-propagation leaves the gradient's log-norm unbiased on average.

    With kernel entries of variance `g^2 / width`, one layer multiplies the squared norm of the
    gradient by `g^2 z`, and the walk over `depth` hidden layers is unbiased when

        sum_d (ln g^2 + E ln z_d) = 0.

    For activations with two slopes (linear, relu, leaky_relu, ...) every term is the same and `E ln z`
    is exact at any width, so `g = exp(-E ln z / 2)`, whatever the depth. For all others `z_d` depends
    on the variance of layer d's pre-activations; the sum is solved for `g` with that variance started
    at `g^2` (inputs of unit variance) and followed through the layers to first order in 1 / width. From
    width 100 up the drift that remains is within the sampling error of 2,000 simulated networks, but for
    relu6 in hundreds of layers (0.002 nats a layer at depth 200): its variance wanders without a hold.
    Below, and there, `refine` takes the drift away where there is a root: tanh, sigmoid and softsign have
    none at about ten units and fewer, whatever the gain.

    Args:
        activation: Name, NumPy callable or `Activation`; see `resolve_activation`.
        width: Units of a hidden layer, which is the fan-in of its kernel. At least 1.
        depth: Number of hidden layers. `None`: the limit of great depth, where the pre-activations'
            variance is stationary. A depth of 1 has no step to balance and gives depth 2's gain.
        distribution: `"normal"`, `"truncated_normal"`, `"uniform"` or `"orthogonal"`. The two that
            are neither normal nor orthogonal include the leading term of their kurtosis.
        refine: Polish the result with the exact simulation, until the mean of the walk is within
            three standard errors of zero at 10,000 samples. Takes seconds to minutes where the rest
            takes milliseconds. Needs a finite `depth`, and changes nothing where the gain is exact.

    Returns:
        The gain, a positive float.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type.
        NoGainError: (a ValueError) No gain does what is asked, or one that balances the gradient
            lets the activations vanish or explode. The message says which and what to use instead.

    Example:
        >>> round(gain("relu", width=100), 4)
        1.4323
        >>> round(gain("tanh", width=100, depth=200), 3)
        1.149

    References:
        Sussillo & Abbott, arXiv:1412.6558, equations 9 to 13.
    """
    resolved, law = resolve_activation(activation), resolve_distribution(distribution)
    width = check_count("width", width)
    if depth is not None:
        depth = max(check_count("depth", depth), 2)
    if refine and resolved.slopes is None:
        if depth is None:
            raise ValueError("`refine=True` simulates a network and needs its `depth`. Received: None")
        from ._refinement import refined_gain  # which asks this module for the gain to start from

        return refined_gain(resolved, width, depth, law)
    return analytic_gain(resolved, width, depth, law)


@lru_cache(maxsize=4096)
def analytic_gain(activation: Activation, width: int, depth: int | None, law: Distribution) -> float:
    """`gain` after its arguments have been resolved."""
    if activation.slopes is not None:
        if not any(activation.slopes):
            raise NoGainError(f"{activation.name} has slope 0 everywhere: no gradient passes. {_INSTEAD}")
        return float(np.exp(-log_step_moments(activation.slopes, width, law)[0] / 2.0))
    if depth is None:
        return _stationary_gain(activation, width, law)
    return _gain_at_depth(activation, width, depth, law)


@lru_cache(maxsize=4096)
def workable_gain(activation: Activation, fan_in: int, depth: int | None, distribution: str) -> float:
    """The gain at `fan_in`, or at the least width that has one where `fan_in` is too small.

    A smooth activation in a chain of layers of a few units has no unbiased gain at all, but a kernel of
    small fan-in is mostly the one that reads the data, and no such chain.
    """
    try:
        return gain(activation, fan_in, depth, distribution)
    except NoGainError:
        for width in _WIDTHS_WITH_A_GAIN:
            if width > fan_in:
                try:
                    return gain(activation, width, depth, distribution)
                except NoGainError:
                    continue
        raise


def _gain_at_depth(activation: Activation, width: int, depth: int, law: Distribution) -> float:
    """First usable root of the mean of the walk, from below, as the gain grows."""
    unit = float(np.exp(-moment_table(activation)(np.zeros(1)).log_df2[0] / 2.0))

    def scan(low: float, high: float, points: int) -> tuple[Array, MeanFieldWalk, NDArray[np.intp]]:
        gains = np.geomspace(low, high, points)
        with np.errstate(all="ignore"):  # far from the root the chain may leave the floats
            walk = mean_field_walk(activation, gains, width, depth, law)
        total = walk.mean[:, 0]
        return gains, walk, np.flatnonzero((total[:-1] < 0) & (total[1:] >= 0))

    wide, walk, crossings = scan(unit * np.exp(-2.0), unit * np.exp(2.0), 33)
    if not crossings.size:
        best = float(np.nanmax(walk.mean[:, 0]) / (depth - 1))
        raise NoGainError(
            f"No gain makes the walk unbiased for {activation.name} at width {width} and depth "
            f"{depth}: "
            + (
                f"the mean step is at most {best:.3g} nats a layer, whatever the gain"
                if best < 0
                else "the mean of the walk nowhere rises through zero as the gain grows"
            )
            + f". A larger width or orthogonal kernels may do. {_INSTEAD}"
        )
    objections = []
    for crossing in crossings:
        gains, root = wide, crossing
        for _ in range(2):
            gains, walk, roots = scan(gains[root], gains[root + 1], 9)
            root = roots[0]
        objection = _objection(gains[root], walk, int(root), depth)
        if objection is None:
            return _interpolated_root(gains, walk.mean[:, 0], int(root))
        objections.append(objection)
    raise NoGainError(
        f"No meaningful gain exists for {activation.name} at width {width} and depth {depth}: "
        f"{objections[0]}. Fewer layers may do. {_INSTEAD}"
    )


def _objection(gain: float, walk: MeanFieldWalk, root: int, depth: int) -> str | None:
    """Why a gain that balances the gradient means nothing all the same; None if it does."""
    forward = float(walk.log_variance[root, -1] - walk.log_variance[root, 0]) / 2.0
    if abs(forward) > max(_FORWARD_LIMIT, _FORWARD_LIMIT_PER_LAYER * depth):
        return (
            f"the gain that balances the gradient ({gain:.4g}) lets the pre-activations "
            f"{'grow' if forward > 0 else 'shrink'} by a factor of "
            f"{np.exp(min(abs(forward), 700.0)):.3g} over the layers"
        )
    if walk.misalignment[root].max() > MISALIGNMENT_LIMIT:
        return (
            f"near the gain that balances the gradient ({gain:.4g}) the gradient lines up with the "
            "pre-activations more and more from layer to layer, and no longer walks at random"
        )
    return None


def _interpolated_root(gains: Array, total: Array, root: int) -> float:
    """Zero of the cubic through the four points around `root`."""
    near = slice(max(root - 1, 0), root + 3)
    cubic = np.polynomial.Polynomial.fit(np.log(gains[near]), total[near], len(gains[near]) - 1)
    bracket = np.log(gains[root]), np.log(gains[root + 1])
    return float(np.exp(optimize.brentq(cubic, *bracket, xtol=1e-14)))


def _stationary_gain(activation: Activation, width: int, law: Distribution) -> float:
    """Root of the drift over the stationary states of the forward chain."""
    table = moment_table(activation)
    log_variance = np.arange(max(table.lowest, -18.0), min(table.highest, 10.0), 0.05)
    with np.errstate(all="ignore"):
        state = stationary_state(activation, log_variance, width, law)
    pair = state.stable[:-1] & state.stable[1:]
    candidates = np.flatnonzero(pair & (state.drift[:-1] < -1e-7) & (state.drift[1:] >= 0))
    if candidates.size:
        first = int(candidates[0])

        def drift(y: float) -> float:
            return float(stationary_state(activation, np.array([y]), width, law).drift[0])

        y = optimize.brentq(drift, log_variance[first], log_variance[first + 1], xtol=1e-12)
        return float(np.exp(stationary_state(activation, np.array([y]), width, law).log_gain[0]))
    # Orthogonal kernels can lack a root because the drift falls to zero only at the critical point,
    # where the variance vanishes like 1 / depth: the gain's limit is the critical one.
    stable = np.flatnonzero(state.stable)
    if stable.size and abs(state.drift[stable[0]]) < 1e-4 and log_variance[stable[0]] < -7.0:
        return float(np.exp(state.log_gain[stable[0]]))
    # A variance that wanders by more than a nat (relu6 at width 100) is no state to expand around.
    try:
        return _gain_at_depth(activation, width, _GREAT_DEPTH, law)
    except NoGainError as error:
        raise NoGainError(
            f"No meaningful gain exists for {activation.name} at width {width} in deep networks; "
            f"pass `depth=` if there are few layers. At depth {_GREAT_DEPTH}: {error}"
        ) from error


def paper_gain(activation: str, width: int) -> float:
    r"""The paper's own closed forms, kept for comparison; `gain` is what to use.

    Linear: `exp(1 / (2 N))`. ReLU: `sqrt(2) exp(1.2 / (max(N, 6) - 2.4))`, a fit to numerical results.

    Args:
        activation: `"linear"` or `"relu"`.
        width: N, at least 1.

    Returns:
        The paper's gain. Within 0.75 nat of exact over 1000 ReLU layers from width 14 up.

    Raises:
        ValueError: The paper gives no formula for the activation (for tanh it reports that gains of
            1.1 to 1.3 work well), or `width` is out of range.

    Example:
        >>> round(paper_gain("relu", 100), 4), round(gain("relu", 100), 4)
        (1.4317, 1.4323)

    References:
        Sussillo & Abbott, arXiv:1412.6558, equations 12 and 13.
    """
    width = check_count("width", width)
    forms = {
        "linear": lambda: np.exp(1.0 / (2.0 * width)),
        "relu": lambda: np.sqrt(2.0) * np.exp(1.2 / (max(width, 6) - 2.4)),
    }
    if activation not in forms:
        raise ValueError(
            f"The paper gives a formula for {' and '.join(forms)} only; use `gain` for any other. "
            f"Received: activation={activation!r}"
        )
    return float(forms[activation]())


def paper_log_variance(width: int) -> float:
    """The paper's fit to `Var ln z` of a ReLU layer, `5 / (max(N, 6) - 4)`, in squared nats.

    `ln z` is the log of the *squared* norm: the variance of a step of `ln|delta|` is a quarter of it.

    Example:
        >>> round(paper_log_variance(104), 3)
        0.05
    """
    return 5.0 / (max(check_count("width", width), 6) - 4.0)
