"""Computes the gain that makes the log-norm of the back-propagated gradient an unbiased random walk."""

from __future__ import annotations

import math

import numpy as np

from keras_rwinit._checks import check_count, deprecate_positional

from ._analytic_gain import at_nearest_width
from ._decided_gain import decide_gain, decided_gain
from ._mean_field import unit_step
from ._refinement import refined_gain
from ._two_slopes import log_step_moments
from .activation import Activation, ActivationLike
from .activation_names import resolve_activation
from .distributions import Distribution, resolve_distribution
from .memo import cache_by_value
from .mirrored import mirrored_gain

__all__ = ["gain", "gain_or_nearest_width", "one_layer_gain", "paper_gain"]

_WIDTHS_WITH_A_GAIN = (16, 32, 64, 128)


@deprecate_positional("distribution")
def gain(
    activation: ActivationLike,
    width: int,
    depth: int | None = None,
    *,
    distribution: str = "normal",
    refine: bool = False,
) -> float:
    r"""Returns the gain `g` with which the gradient's log-norm does not drift on average.

    With kernel entries of variance `g^2 / width`, one layer multiplies the squared norm of the
    gradient by `g^2 z`. The gain solves equation (unbiased) of the theory page, with which the walk over
    `depth` hidden layers is unbiased:

        sum_d (ln g^2 + E ln z_d) = 0.

    For activations with two slopes (linear, relu, leaky_relu, ...) every term is the same, and `E ln z` of
    normal and orthogonal kernels is exact at any width, so `g = exp(-E ln z / 2)` at any depth. For all
    others `z_d` depends on the variance of layer d's pre-activations. That variance starts at `g^2` (inputs
    of unit variance) and is followed through the layers to first order in 1 / width; the sum is then solved
    for `g`.

    From width 64 up and at depths up to 300, the remaining drift is at most a quarter of the walk's spread
    within three standard errors of 130 to 2,000 simulated networks, except for relu6, whose variance
    fluctuates freely (0.003 nats per layer at width 64). In narrower networks the terms of second order
    matter. For orthogonal kernels they are about 0.23 depth / width^2 nats for tanh and 0.36 depth / width^2
    for sin, and the largest that were measured are 8 depth / width^2 (hard_sigmoid);
    `benchmarks/results/expansion_region.csv` has a table. Below width 64 and at more than width^2 / 20
    layers, 50 to 500 simulated networks therefore check the gain. If they drift by more than a quarter of
    their spread, the gain is the one that they find. `refine` removes the remaining drift.

    Where the expansion finds no gain, and the network has at most 1,000 units in all its layers and normal
    or orthogonal kernels, 2,000 simulated networks decide. Some narrow networks have no unbiased gain at
    all: with normal kernels tanh at 50 layers has one from width 9 up, and sigmoid at 5 layers has none up to
    width 28.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        width: Units of a hidden layer, which is the fan-in of its kernel. At least 1.
        depth: Number of hidden layers. `None`: the limit of great depth, where the pre-activations'
            variance is stationary. One layer has no step to balance and gets the gain of two.
        distribution: Distribution of the kernels: `"normal"`, `"truncated_normal"`, `"uniform"`,
            `"orthogonal"`, `"delta_orthogonal"` (the same here; in convolutions the width is the number of
            channels), or `"looks_linear"`, whose gain is exact. For entries that are not normal the
            leading term of their excess kurtosis is included. The gain of two slopes is not exact for them:
            uniform kernels of relu drift by 0.008 nats per layer at width 8 and by 0.002 at width 16. (Their
            `ln z` depends on the direction of the gradient, so that no integral over one layer gives it.)
        refine: Whether to refine the gain by exact simulation, until the mean of the walk is within
            three standard errors of zero at 10,000 samples. It takes seconds to minutes instead of
            milliseconds, needs a `depth`, and changes nothing where the gain is exact (two slopes of normal
            or orthogonal kernels, and `"looks_linear"`).

    Returns:
        The gain, a positive float.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type.
        NoGainError: (a ValueError) No gain that is found balances the gradient, or the one that does lets the
            activations vanish or explode. The message says which, and what to use instead.

    Warns:
        UserWarning: The check of a narrow network would take more than a second, or shows a drift that no
            other gain removes.

    Example:
        >>> round(gain("relu", width=100), 4)
        1.4323
        >>> round(gain("tanh", width=100, depth=200), 3)
        1.149

    References:
        Sussillo & Abbott, arXiv:1412.6558, equations 9 to 13.
    """
    resolved_activation = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    width = check_count("width", width)
    if depth is not None:
        depth = max(check_count("depth", depth), 2)
    if not isinstance(refine, bool):
        raise ValueError(f"`refine` must be True or False. Received: refine={refine!r}")
    if refine and not _is_exact(resolved_activation, resolved_distribution):
        if depth is None:
            raise ValueError("`refine=True` simulates a network and needs its `depth`. Received: None")
        return refined_gain(resolved_activation, width, depth, resolved_distribution)
    return decided_gain(resolved_activation, width, depth, resolved_distribution)


def _is_exact(activation: Activation, distribution: Distribution) -> bool:
    """Returns whether the analytic gain is exact, so that there is nothing to refine."""
    return distribution.mirrored or (
        activation.slopes is not None and distribution.structure != "independent"
    )


@cache_by_value(maxsize=4096)
def gain_or_nearest_width(activation: Activation, fan_in: int, depth: int | None, distribution: str) -> float:
    """Returns the gain at `fan_in`, or at the smallest width that has one where `fan_in` is too small.

    Chains of very narrow layers have no unbiased gain with most smooth activations. But a kernel of small
    fan-in mostly reads the data and is not part of such a chain.
    """
    deep = None if depth is None else max(check_count("depth", depth), 2)
    resolved = resolve_distribution(distribution)
    # Without the warnings of `gain`: they are about chains.
    return at_nearest_width(
        lambda width: decide_gain(activation, width, deep, resolved).gain, fan_in, _WIDTHS_WITH_A_GAIN
    )


@cache_by_value(maxsize=1024)
def one_layer_gain(activation: Activation, width: int, distribution: Distribution) -> float:
    """Returns the gain that balances one step alone, `exp(-E ln z / 2)`, at unit-variance pre-activations.

    It is the gain of a layer behind a normalization, which restores the unit variance, and the last
    resort where an activation has no gain for the depth. With two slopes every step is the same, and
    it is `gain` at any depth.

    Raises:
        ValueError: Both slopes of a two-slope activation are 0.
    """
    if distribution.mirrored:
        return mirrored_gain(activation, width)
    if activation.slopes is not None:
        mean = log_step_moments(activation.slopes, width, distribution).mean
    else:
        mean = unit_step(activation, width, distribution)
    return math.exp(-mean / 2.0)


def paper_gain(activation: str, width: int) -> float:
    r"""Returns the gain by the paper's closed forms. For comparison only; use `gain` for networks.

    Linear: `exp(1 / (2 N))`. ReLU: `sqrt(2) exp(1.2 / (max(N, 6) - 2.4))`, a fit to numerical results.

    Args:
        activation: `"linear"` or `"relu"`.
        width: N, at least 1.

    Returns:
        The paper's gain. From width 14 up it is within 0.75 nats of exact over 1000 ReLU layers.

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
    if not isinstance(activation, str) or activation not in forms:
        raise ValueError(
            f"The paper gives a formula for {' and '.join(forms)} only; use `gain` for any other. "
            f"Received: activation={activation!r}"
        )
    return float(forms[activation]())
