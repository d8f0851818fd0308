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
from ._segments import FINE, Accuracy
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
    "narrow_advice",
    "ways_out",
]

Array: TypeAlias = NDArray[np.float64]

# A gain counts only if the pre-activations' scale changes by less than a factor of 100 over the layers,
# or by less than 1 % per layer where the layers are many.
_FORWARD_LIMIT = float(np.log(100.0))
_FORWARD_LIMIT_PER_LAYER = 0.01

_SMALLER_GAINS = 19
"""Number of gains of the first scan that are tried before the larger ones: up to 1.3 times the gain that
balances unit variance."""

_MARGIN = 1.001
"""Factor by which the second scan reaches beyond the bracket: at its ends the first may have a wrong sign."""

_MOST_SCANS = 8

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


def narrow_advice(distribution: Distribution) -> str:
    """Returns which networks of the same activation may have a gain where one is too narrow for it."""
    return f"A larger width{'' if distribution.orthogonal else ' or orthogonal kernels'} may do."


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


def _scan(
    activation: Activation,
    gains: Array,
    width: int,
    depth: int,
    distribution: Distribution,
    accuracy: Accuracy,
) -> _Scan:
    with np.errstate(all="ignore"):  # far from the root the chain may leave the floats
        walk = walk_totals(activation, gains, width, depth, distribution, accuracy=accuracy)
    total = walk.mean
    crossings = np.flatnonzero((total[:-1] < 0) & (total[1:] >= 0))
    return _Scan(gains=gains, walk=walk, crossings=crossings)


def _gain_at_depth(activation: Activation, width: int, depth: int, distribution: Distribution) -> float:
    """Returns the smallest gain at which the mean of the walk rises through zero and the network is sound."""
    # The gain that balances ln m1 at unit variance; the root is searched within e^+-2 of it.
    table = moment_table(activation)
    unit = np.exp(-np.interp(0.0, table.grid, table.at_grid.log_df2) / 2.0)
    gains = np.geomspace(unit * np.exp(-2.0), unit * np.exp(2.0), 33)

    def scan(gains: Array, accuracy: Accuracy = FINE) -> _Scan:
        return _scan(activation, gains, width, depth, distribution, accuracy)

    # The first scan only has to bracket the roots: an error of 1e-5 nats per layer may be left. The larger
    # gains are scanned only if there is no sound root among the others.
    rough = Accuracy(points=8, growth=64.0, tolerance=1e-5 * depth)
    objections, totals = [], np.array([])
    undecided = None
    for part in (gains[:_SMALLER_GAINS], gains[_SMALLER_GAINS - 1 :]):
        wide = scan(part, rough)
        for crossing in wide.crossings:
            found = _close_in(wide, int(crossing), depth, scan)
            objection = _objection(found, depth)
            if objection is None:
                return found.gain
            objections.append(objection)
            if undecided is None and not leaves_range(found.log_variance_change, depth):
                undecided = found.gain
        totals = np.append(totals[:-1], wide.total)
    network = f"{activation.name} at width {width} and depth {depth}"
    if not objections:
        raise UndecidedGainError(
            f"No gain makes the walk unbiased for {network}: {_why_no_crossing(totals, depth, distribution)} "
            f"{ways_out(activation, width)}",
            _most_promising(gains, totals),
        )
    raise UndecidedGainError(
        f"No meaningful gain exists for {network}: {objections[0]}. Fewer layers may do. "
        f"{ways_out(activation, width)}",
        undecided,
    )


class _Root(NamedTuple):
    """A gain at which the mean of the walk rises through zero.

    Args:
        gain: The gain.
        log_variance_change: Change of the log of the pre-activations' variance there; see `WalkTotals`.
        misalignment: Largest misalignment on either side of it.
        settled: Whether the mean is a smooth function of the gain there.
    """

    gain: float
    log_variance_change: float
    misalignment: float
    settled: bool


def _close_in(wide: _Scan, crossing: int, depth: int, scan: Callable[[Array], _Scan]) -> _Root:
    """Returns the root near a crossing of the first scan.

    It is interpolated in finer scans around the last interpolated root until two roots agree. Where such a
    scan misses the root, one of the whole bracket takes its place.
    """
    low, high = wide.gains[crossing] / _MARGIN, wide.gains[crossing + 1] * _MARGIN
    last, at, guess = wide, crossing, _interpolated_root(wide, crossing)
    around = (high / low) ** (np.linspace(-1.0, 1.0, 5) / 8.0)
    tolerance = min(1e-6, 0.01 / depth)
    settled = False
    for _ in range(_MOST_SCANS):
        closer, before = scan(guess * around), guess
        if not closer.crossings.size:
            closer, before = scan(np.geomspace(low, high, 9)), np.nan
        if not closer.crossings.size:  # the state is not smooth in between
            break
        last, at = closer, int(closer.crossings[0])
        guess = _interpolated_root(last, at)
        low, high = last.gains[at : at + 2]
        around = (high / low) ** (np.linspace(-1.0, 1.0, 3) / 16.0)
        middle = len(last.gains) // 2  # the root before: no drift is left there
        settled = abs(guess / before - 1.0) < tolerance and bool(
            abs(last.total[middle]) <= max(1.0, last.walk.std[middle])
        )
        if settled:
            break
    return _Root(
        gain=guess,
        log_variance_change=float(last.walk.log_variance_change[at]),
        misalignment=float(np.max(last.walk.misalignment[at : at + 2])),
        settled=settled,
    )


def _most_promising(gains: Array, total: Array) -> float | None:
    """Returns the gain of the largest mean; None if no mean is finite."""
    total = np.where(np.isfinite(total), total, -np.inf)
    best = int(np.argmax(total))
    return float(gains[best]) if np.isfinite(total[best]) else None


def _why_no_crossing(total: Array, depth: int, distribution: Distribution) -> str:
    """Returns why the mean of the walk never rises through zero, and which other network may do."""
    best = float(np.nanmax(total) / (depth - 1))
    if best < 0:
        # The fluctuations of few units cost each step more than any gain brings.
        reason = f"the mean step is at most {best:.3g} nats per layer, whatever the gain"
        return f"{reason}. {narrow_advice(distribution)}"
    return "the mean of the walk never rises through zero as the gain grows. Fewer layers may do."


def _objection(root: _Root, depth: int) -> str | None:
    """Returns why a gain that balances the gradient is useless all the same; None if it is useful."""
    forward = root.log_variance_change / 2.0
    if leaves_range(root.log_variance_change, depth):
        return (
            f"the gain that balances the gradient ({root.gain:.4g}) lets the pre-activations "
            f"{'grow' if forward > 0 else 'shrink'} by a factor of "
            f"{np.exp(min(abs(forward), 700.0)):.3g} over the layers"
        )
    if not root.misalignment <= MISALIGNMENT_LIMIT:
        return (
            f"near the gain that balances the gradient ({root.gain:.4g}) the gradient lines up with the "
            "pre-activations more and more from layer to layer, and no longer walks at random"
        )
    if not root.settled:
        return (
            f"near the gain that balances the gradient ({root.gain:.4g}) the pre-activations' variance "
            "fluctuates so much that the expansion in 1 / width does not hold"
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


def _interpolated_root(scan: _Scan, crossing: int) -> float:
    """Returns the gain at mean zero of the polynomial in the mean through up to four points at a crossing."""
    near = slice(max(crossing - 1, 0), crossing + 3)
    log_gains, total = np.log(scan.gains[near]), scan.total[near]
    # Lagrange's factors at zero; not finite where a neighbor left the floats or has an equal mean
    with np.errstate(all="ignore"):
        factors = total / (total - total[:, None])
    np.fill_diagonal(factors, 1.0)
    root = factors.prod(axis=1) @ log_gains
    bracket = np.log(scan.gains[crossing : crossing + 2])
    if not bracket[0] <= root <= bracket[1]:
        root = np.interp(0.0, scan.total[crossing : crossing + 2], bracket)
    return float(np.exp(root))


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
