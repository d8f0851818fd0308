r"""Predicts and simulates the correlation of two inputs' activations through a random network.

**The map.** With c the correlation (cosine) of two inputs' activations in a layer, that of the next layer's
at infinite width is `E[f(a) f(b)] / sqrt(E f(a)^2 E f(b)^2)` for normal a and b of correlation c. For ReLU
it is never smaller than c, and after L layers `1 - c = 9 pi^2 / (2 L^2)`: any two inputs become parallel,
whatever the gain, and the last layer cannot tell them apart. `shape_activation` is the remedy.

**Finite width** adds a noise of variance 1 / width a layer, in which the depth counts relative to the
width: in a network deeper than wide two inputs end up parallel or opposite even without any activation.
`_pair_law` has the noise, `_pair_two_slopes` the chain of two slopes, `_pair_smooth` that of smooth
activations, `_pair_simulation` the exact law.

**The gradient.** Two slopes are homogeneous, `f(a) = a f'(a)`, so that `a . delta = h . (g W^T delta)`
passes all layers unchanged, for each input. A kernel's gradient from one example has the norm `|h_{d-1}|
|delta_d|`. It is that constant over the cosine of a and delta, and so does not walk: what the activations
lose the gradient gains. Over networks its logarithm spreads by about 1.1 nats at every depth (the standard
deviation of `ln |x|`, for the cosine), where that of delta alone spreads with the root of the depth. One
learning rate suits all layers of such a network, as far as single examples go.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._limits import check_duration, check_fits

from ._pair_simulation import draw_correlations, pair_bytes
from ._pair_smooth import smooth_correlations
from ._pair_two_slopes import mirrored_correlation, two_slope_correlations
from ._random_network import RandomNetwork, seeded_generator, simulation_seconds
from .activation import Activation, ActivationLike
from .activation_names import resolve_activation
from .distributions import resolve_distribution
from .gains import gain as unbiased_gain
from .memo import cache_by_value
from .mirrored import check_mirrored

__all__ = ["CorrelationPrediction", "predict_correlation", "simulate_correlation"]

Array: TypeAlias = NDArray[np.float64]

_SAMPLES = 2_000
_SEED = 2203_8120

# What a layer takes, measured
_TWO_SLOPE_SECONDS, _SMOOTH_SECONDS = 2e-5, 1e-2


@dataclass(frozen=True, repr=False)
class CorrelationPrediction:
    """The predicted correlation of two inputs' activations; `print` it for a summary.

    Args:
        gain: Gain of the kernels.
        correlation: Correlation (cosine) of the two inputs.
        mean: Mean over networks of the correlation (cosine, about zero and not about the mean) of the two
            inputs' activations, behind the activation function, shape (depth,). Entry 0 is the first hidden
            layer.
        std: Standard deviation of the same over networks, same shape.
        simulated: Whether the two are those of 2,000 simulated networks.

    Example:
        >>> predicted = predict_correlation("relu", width=100, depth=50)
        >>> print(f"{predicted.mean[0]:.3f} {predicted.mean[-1]:.3f} {predicted.std[-1]:.3f}")
        0.321 0.988 0.017
        >>> predicted.simulated
        False
    """

    gain: float
    correlation: float
    mean: Array
    std: Array
    simulated: bool

    def __str__(self) -> str:
        return (
            f"gain {self.gain:.5f}, {len(self.mean):,} hidden layers: inputs correlated by "
            f"{self.correlation:.3f} come out correlated by {self.mean[-1]:.4f} ± {self.std[-1]:.4f}"
        )

    def __repr__(self) -> str:
        return f"<CorrelationPrediction: {self}>"


def predict_correlation(
    activation: ActivationLike,
    width: int,
    depth: int,
    *,
    correlation: float = 0.0,
    gain: float | None = None,
    distribution: str = "normal",
) -> CorrelationPrediction:
    r"""Predicts mean and standard deviation of the correlation of two inputs' activations at every layer.

    The correlation is the cosine of the angle between the activations `h_d = f(a_d)` of two inputs of equal
    length, for d from the first hidden layer to the last. Its law over networks is found in one of three
    ways:

    - Two slopes (relu, leaky_relu, linear, ...): a Markov chain of the angle, whose step is of first order in
      1 / width and exact for close inputs. At infinite width the step is equation (correlation) of the theory
      page. All depths and correlations; orthogonal kernels leave the standard deviation of the first layers
      off by up to 7 % at width 64.
    - Smooth activations without kinks (tanh, gelu, silu, softplus, shaped ones, ...; some 10 ms a layer): the
      same for correlation and variances together. Orthogonal kernels leave so little noise that its standard
      deviation is off by up to a tenth at width 64.
    - Else 2,000 simulated networks, always the same ones: activations with kinks (elu, relu6, ...),
      callables, activations too sharp or whose log-variance fluctuates by more than a quarter of a nat
      (shaped ones from a depth of about two widths on), orthogonal kernels where depth is comparable to
      width, and mirrored kernels of smooth activations. This takes about 0.1 microseconds times depth times
      width times 2,000.

    Where ReLU networks are deeper than three times their width, few networks hold most of `1 - c`, and the
    mean of any number of networks one can draw says little of it.

    Mirrored kernels (`"looks_linear"`) keep the correlation of the pre-activations' pairs exactly. The
    activations' has the same mean and standard deviation at every layer. Of entries that are not normal the
    excess kurtosis is left out.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        width: Units of a hidden layer, at least 1.
        depth: Number of hidden layers, at least 1.
        correlation: Correlation of the two inputs, from -1 to 1.
        gain: Gain of the kernels. `None`: `keras_rwinit.gain` of the other arguments. With two slopes it
            does not matter.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.

    Returns:
        A `CorrelationPrediction`. It describes the networks in which both inputs pass all layers.

    Raises:
        ValueError: An argument is out of range or unknown, `gain` is None and none exists, the activations
            leave the floating-point numbers, no simulated network passes both inputs, the result does not fit
            into this machine's memory, or it would take more than an hour.

    Example:
        >>> print(predict_correlation("relu", width=100, depth=200))
        gain 1.43230, 200 hidden layers: inputs correlated by 0.000 come out correlated by 0.9992 ± 0.0033
        >>> shaped = predict_correlation("shaped(relu)", width=1000, depth=200)
        >>> bool(0.85 < shaped.mean[-1] < 0.95)
        True

    References:
        Jakub & Nica, JMLR 25:239 (ReLU); Li, Nica & Roy, arXiv:2206.02768 (shaped activations).
    """
    network, correlation = _check(activation, width, depth, correlation, gain, distribution)
    mean, std, simulated = _predict(
        network.activation, network.width, network.depth, network.gain, distribution, correlation
    )
    return CorrelationPrediction(
        gain=network.gain, correlation=correlation, mean=mean.copy(), std=std.copy(), simulated=simulated
    )


@cache_by_value(maxsize=64)
def _predict(
    activation: Activation, width: int, depth: int, gain: float, distribution: str, correlation: float
) -> tuple[Array, Array, bool]:
    """Returns mean, standard deviation and whether they are simulated."""
    known, slopes = resolve_distribution(distribution), activation.slopes
    what = f"A prediction of `depth`={depth:,} layers"
    check_fits(16 * depth, what)
    if slopes is not None and len(slopes) == 2 and width > 2:
        pair = slopes[0], slopes[1]
        if known.mirrored:
            mean, std = mirrored_correlation(pair, width, correlation)
            return np.full(depth, mean), np.full(depth, std), False
        check_duration(_TWO_SLOPE_SECONDS * depth, what)
        return *two_slope_correlations(pair, width, depth, correlation, known), False
    if not activation.kinks and not activation.units and not known.mirrored and width > 2:
        check_duration(_SMOOTH_SECONDS * depth, what)
        prediction = smooth_correlations(activation, width, depth, correlation, gain, known)
        if (
            prediction is not None
            and np.isfinite(prediction.mean).all()
            and np.isfinite(prediction.std).all()
        ):
            return prediction.mean, prediction.std, False
    network = RandomNetwork(activation=activation, width=width, depth=depth, gain=gain, distribution=known)
    drawn = _simulate(network, correlation, _SAMPLES, np.random.default_rng(_SEED))
    alive = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(alive):
        raise ValueError(
            f"None of {_SAMPLES:,} simulated networks of {activation.name} passes both inputs through all "
            f"`depth`={depth:,} layers at `width`={width} and `gain`={gain:.4g}. Use a larger width or gain."
        )
    return alive.mean(axis=0), alive.std(axis=0), True


def simulate_correlation(
    activation: ActivationLike,
    width: int,
    depth: int,
    *,
    correlation: float = 0.0,
    gain: float | None = None,
    samples: int = 1000,
    distribution: str = "normal",
    seed: int | None = None,
) -> Array:
    r"""Draws the correlation of two inputs' activations at every layer of random networks, exactly.

    Each sample is an independent network. Its inputs have `|x|^2` equal to the fan-in. A sample takes
    O(depth * width) for normal, orthogonal and mirrored kernels, of which no matrix is drawn, and O(depth *
    width^2) for all others.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`.
        width: Units of a hidden layer, at least 1.
        depth: Number of hidden layers, at least 1.
        correlation: Correlation of the two inputs, from -1 to 1.
        gain: Gain of the kernels. `None`: `keras_rwinit.gain` of the other arguments.
        samples: Number of networks, at least 1.
        distribution: Distribution of the kernels; see `keras_rwinit.gain`.
        seed: Seed of NumPy's generator. `None`: other networks at each call.

    Returns:
        The cosine of the angle between the two inputs' activations, float64, shape (samples, depth). Column
        0 is the first hidden layer. A row is nan from the layer on that passes nothing of an input.

    Raises:
        ValueError: An argument is out of range or unknown, `gain` is None and none exists, the activations
            leave the floating-point numbers, the result does not fit into this machine's memory, or it would
            take more than an hour.

    Example:
        >>> drawn = simulate_correlation("relu", width=100, depth=50, samples=500, seed=0)
        >>> drawn.shape
        (500, 50)
        >>> predicted = predict_correlation("relu", width=100, depth=50)
        >>> bool(abs(drawn[:, -1].mean() - predicted.mean[-1]) < 3 * predicted.std[-1] / 500**0.5)
        True
    """
    samples = check_count("samples", samples)
    network, correlation = _check(activation, width, depth, correlation, gain, distribution)
    return _simulate(network, correlation, samples, seeded_generator(seed))


def _simulate(network: RandomNetwork, correlation: float, samples: int, rng: np.random.Generator) -> Array:
    width, depth = network.width, network.depth
    what = f"A simulation of `samples`={samples:,}, `width`={width:,} and `depth`={depth:,}"
    check_fits(16 * samples * depth + pair_bytes(network), what)
    check_duration(simulation_seconds(network, samples), what)
    return np.concatenate(list(draw_correlations(network, correlation, samples, rng)))


def _check(
    activation: ActivationLike,
    width: int,
    depth: int,
    correlation: float,
    gain: float | None,
    distribution: str,
) -> tuple[RandomNetwork, float]:
    """Returns the network of checked arguments, and the correlation."""
    resolved_activation = resolve_activation(activation, depth)
    resolved_distribution = resolve_distribution(distribution)
    width, depth = check_count("width", width), check_count("depth", depth)
    if resolved_distribution.mirrored:
        check_mirrored(resolved_activation, width)
    is_number = isinstance(correlation, numbers.Real) and not isinstance(correlation, bool)
    if not is_number or not -1.0 <= correlation <= 1.0:
        raise ValueError(
            f"`correlation` must be a number from -1 to 1. Received: correlation={correlation!r}"
        )
    if gain is None:
        gain = unbiased_gain(resolved_activation, width, max(depth, 2), distribution=distribution)
    network = RandomNetwork(
        activation=resolved_activation,
        width=width,
        depth=depth,
        gain=check_positive("gain", gain),
        distribution=resolved_distribution,
    )
    return network, float(correlation)
