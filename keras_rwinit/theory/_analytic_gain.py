"""Computes the gain without simulation.

It is exact for two slopes of normal and orthogonal kernels and for mirrored ones, else of first order in
1 / width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ._long_walk import WalkTotals, walk_totals
from ._mean_field import MISALIGNMENT_LIMIT, stationary_state
from ._moments import moment_table
from ._two_slopes import log_step_moments
from .activation import Activation
from .activations import SHAPED
from .distributions import Distribution
from .memo import cache_by_value
from .mirrored import mirrored_gain, mirrored_slope

__all__ = [
    "NoGainError",
    "UndecidedGainError",
    "analytic_gain",
    "at_nearest_width",
    "leaves_range",
    "ways_out",
]

Array: TypeAlias = NDArray[np.float64]

# A gain counts only if the pre-activations' scale changes by less than a factor of 100 over the layers,
# or by less than 1 % per layer where the layers are many.
_FORWARD_LIMIT = float(np.log(100.0))
_FORWARD_LIMIT_PER_LAYER = 0.01

_GREAT_DEPTH = 1000
"""Depth that stands for the limit where the expansion has no stationary state."""


def ways_out(activation: Activation, width: int) -> str:
    """Returns what to use where an activation has no gain: the one place that names the ways out.

    Each works wherever the error may be raised; commands print `name='value'` as an option.
    """
    ways = ["relu or leaky_relu, which have a gain at any width and depth"]
    if width > 1 and mirrored_slope(activation) is not None:
        ways.append(f"`distribution='looks_linear'`, with which {activation.name} has one as well")
    if activation.name in SHAPED:
        ways.append(
            f"`activation='shaped({activation.name})'`, which is bent for the depth and has one (Keras's own "
            "layers take it from `keras_rwinit.layers.get_activation`)"
        )
    ways.append("or elu, selu or tanh, which have one from width 32 up")
    return f"Use {'; '.join(ways)}."


class NoGainError(ValueError):
    """No gain makes the walk unbiased and keeps the activations in range as well.

    Example:
        >>> from keras_rwinit.theory import NoGainError, gain
        >>> try:
        ...     gain("gelu", width=100, depth=50)
        ... except NoGainError as error:
        ...     print(str(error).split(":")[0])
        No meaningful gain exists for gelu at width 100 and depth 50
    """


class UndecidedGainError(NoGainError):
    """The expansion in 1 / width finds no gain, and a simulation may find one all the same.

    Args:
        message: The text.
        start: The most promising gain; None if there is none.
    """

    def __init__(self, message: str, start: float | None) -> None:
        super().__init__(message)
        self.start = start


@cache_by_value(maxsize=4096)
def analytic_gain(activation: Activation, width: int, depth: int | None, distribution: Distribution) -> float:
    """Returns `gain` of checked arguments; a depth of None is the limit of great depth."""
    if distribution.mirrored:
        return mirrored_gain(activation, width)
    if activation.slopes is not None:
        if not any(activation.slopes):
            raise NoGainError(
                f"{activation.name} has slope 0 everywhere: no gradient passes. {ways_out(activation, width)}"
            )
        return float(np.exp(-log_step_moments(activation.slopes, width, distribution).mean / 2.0))
    if depth is None:
        return _stationary_gain(activation, width, distribution)
    return _gain_at_depth(activation, width, depth, distribution)


class _Scan(NamedTuple):
    """The walk at each gain of a grid.

    Args:
        gains: The gains, ascending.
        walk: The walk at these gains.
        crossings: Indices of the gains from which to the next one the mean of the whole walk rises
            through zero.
    """

    gains: Array
    walk: WalkTotals
    crossings: NDArray[np.intp]

    @property
    def total(self) -> Array:
        """Mean of the whole walk at each gain, in nats."""
        return self.walk.mean


def _scan(activation: Activation, gains: Array, width: int, depth: int, distribution: Distribution) -> _Scan:
    with np.errstate(all="ignore"):  # far from the root the chain may leave the floats
        walk = walk_totals(activation, gains, width, depth, distribution)
    total = walk.mean
    crossings = np.flatnonzero((total[:-1] < 0) & (total[1:] >= 0))
    return _Scan(gains=gains, walk=walk, crossings=crossings)


def _gain_at_depth(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the smallest gain at which the mean of the walk rises through zero and the network is sound."""
    # The gain that balances ln m1 at unit variance; the root is searched within e^+-2 of it.
    unit = float(np.exp(-moment_table(activation)(np.zeros(1)).log_df2[0] / 2.0))
    wide = _scan(
        activation, np.geomspace(unit * np.exp(-2.0), unit * np.exp(2.0), 33), width, depth, distribution
    )
    network = f"{activation.name} at width {width} and depth {depth}"
    if not wide.crossings.size:
        raise UndecidedGainError(
            f"No gain makes the walk unbiased for {network}: {_why_no_crossing(wide, depth)}. A larger width "
            f"or orthogonal kernels may do. {ways_out(activation, width)}",
            _most_promising(wide),
        )
    objections = []
    undecided = None
    for crossing in wide.crossings:
        scan, root = wide, int(crossing)
        # Two refinements by a factor of eight each, which share the cost of one scan among many gains.
        for _ in range(2):
            finer = np.geomspace(scan.gains[root], scan.gains[root + 1], 9)
            closer = _scan(activation, finer, width, depth, distribution)
            if not closer.crossings.size:  # the state is not smooth in between
                break
            scan, root = closer, int(closer.crossings[0])
        objection = _objection(scan, root, depth)
        if objection is None:
            return _interpolated_root(scan, root)
        objections.append(objection)
        if undecided is None and not leaves_range(float(scan.walk.log_variance_change[root]), depth):
            undecided = _interpolated_root(scan, root)
    raise UndecidedGainError(
        f"No meaningful gain exists for {network}: {objections[0]}. Fewer layers may do. "
        f"{ways_out(activation, width)}",
        undecided,
    )


def _most_promising(scan: _Scan) -> float | None:
    """Returns the gain of the largest mean; None if no mean is finite."""
    total = np.where(np.isfinite(scan.total), scan.total, -np.inf)
    best = int(np.argmax(total))
    return float(scan.gains[best]) if np.isfinite(total[best]) else None


def _why_no_crossing(scan: _Scan, depth: int) -> str:
    """Returns why the mean of the walk never rises through zero."""
    best = float(np.nanmax(scan.total) / (depth - 1))
    if best < 0:
        return f"the mean step is at most {best:.3g} nats per layer, whatever the gain"
    return "the mean of the walk never rises through zero as the gain grows"


def _objection(scan: _Scan, root: int, depth: int) -> str | None:
    """Returns why a gain that balances the gradient is useless all the same; None if it is useful."""
    gain, walk = scan.gains[root], scan.walk
    forward = float(walk.log_variance_change[root]) / 2.0
    if leaves_range(float(walk.log_variance_change[root]), depth):
        return (
            f"the gain that balances the gradient ({gain:.4g}) lets the pre-activations "
            f"{'grow' if forward > 0 else 'shrink'} by a factor of "
            f"{np.exp(min(abs(forward), 700.0)):.3g} over the layers"
        )
    if walk.misalignment[root] > MISALIGNMENT_LIMIT:
        return (
            f"near the gain that balances the gradient ({gain:.4g}) the gradient lines up with the "
            "pre-activations more and more from layer to layer, and no longer walks at random"
        )
    return None


def leaves_range(log_variance_change: float, depth: int) -> bool:
    """Returns whether the activations grow or shrink too much over the layers.

    Args:
        log_variance_change: Change of the log of the pre-activations' variance from the first layer to the
            last.
        depth: Number of hidden layers.
    """
    forward = abs(log_variance_change) / 2.0
    return not forward <= max(_FORWARD_LIMIT, _FORWARD_LIMIT_PER_LAYER * depth)


def at_nearest_width(compute: Callable[[int], float], width: int, wider: Sequence[int]) -> float:
    """Returns `compute(width)`, or `compute` of the first larger width in `wider` at which a gain exists.

    Raises:
        NoGainError: None of them has a gain; it is the error of `width`.
    """
    try:
        return compute(width)
    except NoGainError as error:
        first = error
    for other in wider:
        if other > width:
            try:
                return compute(other)
            except NoGainError:
                continue
    raise first


def _interpolated_root(scan: _Scan, root: int) -> float:
    """Returns the zero of the cubic through the four points around `root`."""
    near = slice(max(root - 1, 0), root + 3)
    log_gains, total = np.log(scan.gains[near]), scan.total[near]
    bracket = np.log(scan.gains[root]), np.log(scan.gains[root + 1])
    if not np.isfinite(total).all():  # a neighbor left the floats
        return float(np.exp(np.interp(0.0, scan.total[root : root + 2], bracket)))
    cubic = np.polynomial.Polynomial.fit(log_gains, total, len(log_gains) - 1)
    if not cubic(bracket[0]) <= 0.0 <= cubic(bracket[1]):  # rounding, where the totals are large
        return float(np.exp(np.interp(0.0, scan.total[root : root + 2], bracket)))
    return float(np.exp(optimize.brentq(cubic, *bracket, xtol=1e-14)))


def _stationary_gain(activation: Activation, width: int, distribution: Distribution) -> float:
    """Returns the gain of the stationary state of the forward chain at which the drift is zero."""
    table = moment_table(activation)
    # The drift on a grid of fixed points; a sign change between stable ones brackets the root.
    log_variance = np.arange(max(table.lowest, -18.0), min(table.highest, 10.0), 0.05)
    with np.errstate(all="ignore"):
        state = stationary_state(activation, log_variance, width, distribution)
    pair = state.stable[:-1] & state.stable[1:]
    candidates = np.flatnonzero(pair & (state.drift[:-1] < -1e-7) & (state.drift[1:] >= 0))
    if candidates.size:
        first = int(candidates[0])

        def drift(y: float) -> float:
            return float(stationary_state(activation, np.array([y]), width, distribution).drift[0])

        y = optimize.brentq(drift, log_variance[first], log_variance[first + 1], xtol=1e-12)
        return float(np.exp(stationary_state(activation, np.array([y]), width, distribution).log_gain[0]))
    # With orthogonal kernels the drift may reach zero only at the critical point, where the variance
    # vanishes like 1 / depth. The limit of the gain is then the critical gain.
    stable = np.flatnonzero(state.stable)
    if stable.size and abs(state.drift[stable[0]]) < 1e-4 and log_variance[stable[0]] < -7.0:
        return float(np.exp(state.log_gain[stable[0]]))
    # There is no state to expand around where the variance fluctuates by more than a nat (relu6 at width
    # 100). A great depth takes the place of the limit.
    try:
        return _gain_at_depth(activation, width, _GREAT_DEPTH, distribution)
    except NoGainError as error:
        raise NoGainError(
            f"No meaningful gain exists for {activation.name} at width {width} in deep networks; "
            f"pass `depth=` if there are few layers. At depth {_GREAT_DEPTH}: {error}"
        ) from error
